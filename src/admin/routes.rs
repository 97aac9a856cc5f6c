//! `/v1/routes`: every route of a snapshot, as JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

mod tunnels;

use crate::config::{Middleware, ProxyVersion};
use crate::log::printable;
use crate::name::SpiffeId;
use crate::snapshot::service::{ServiceKey, Skipped};
use crate::snapshot::upstream::{Transport, Upstream};
use crate::snapshot::{Action, Route, Snapshot};
use crate::state::written;
use crate::status::State;
use crate::tls::client;
use tunnels::{TunnelEntry, tunnels};

/// As much is shown of what a part says of itself, in bytes: it may quote a peer.
const PART_SHOWN: usize = 1000;

/// The routes of a snapshot in the table's order, with the one that hides each, if one does, and what services asked for
/// in vain; and how each part of the gateway fares that they depend on.
pub fn json(snapshot: &Snapshot, parts: &BTreeMap<Arc<str>, State>) -> Vec<u8> {
    let now = Instant::now();
    let table = &snapshot.table;
    let services = snapshot.services();
    let mut shadows = table.shadows();
    let routes = table.routes().into_iter();
    let routes = routes
        .map(|route| Entry::new(route, snapshot, shadows.of(route).map(|by| &**by), now))
        .collect();
    let list = List {
        generation: snapshot.generation,
        parts: parts
            .iter()
            .map(|(name, state)| Part {
                name,
                state: state.as_str(),
                text: state.text().map(|text| printable(text, PART_SHOWN)),
            })
            .collect(),
        routes,
        shadows_complete: shadows.is_complete(),
        tunnels: tunnels(snapshot, now),
        skipped: services
            .iter()
            .flat_map(|service| {
                let skipped = service.skipped.iter();
                let skipped = skipped.map(|skipped| SkippedEntry::new(&service.key, skipped));
                let notes = service.notes.iter();
                skipped.chain(notes.map(|note| SkippedEntry::note(&service.key, note)))
            })
            .collect(),
    };
    // Strings and numbers alone cannot fail to become JSON.
    let mut json = serde_json::to_vec_pretty(&list).unwrap_or_default();
    json.push(b'\n');
    json
}

#[derive(Serialize)]
struct List<'a> {
    generation: u64,
    parts: Vec<Part<'a>>,
    routes: Vec<Entry<'a>>,
    /// Whether it was found out of every route if another hides it: with very many regular expressions it is not.
    shadows_complete: bool,
    tunnels: Vec<TunnelEntry<'a>>,
    skipped: Vec<SkippedEntry<'a>>,
}

/// A part of the gateway, as in `/readyz`: why routes are as they were, if they are.
#[derive(Serialize)]
struct Part<'a> {
    name: &'a str,
    state: &'static str,
    text: Option<String>,
}

/// One route. The keys are an interface: add to them, never change one.
#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    source: &'static str,
    /// The service that asks for it; null in the file.
    service: Option<&'a str>,
    rule: &'a str,
    /// `v2` or `v3`.
    rule_syntax: &'static str,
    priority: i64,
    /// Whether it takes clients that name no host.
    default: bool,
    /// `pass_through`, `terminate` or `broken`.
    action: &'static str,
    /// The option set of a terminating route; null for the defaults.
    tls_options: Option<&'a str>,
    /// Why a broken route refuses.
    broken_reason: Option<String>,
    upstream: UpstreamEntry<'a>,
    endpoints: Vec<EndpointEntry<'a>>,
    /// The upstreams that this one stands for, by weight; empty for any other, and `endpoints` are theirs.
    members: Vec<MemberEntry<'a>>,
    /// What it asks of its clients.
    middlewares: Vec<MiddlewareEntry<'a>>,
    /// The route that takes every client this one could have had.
    shadowed_by: Option<Name<'a>>,
    /// What its owner should know, though it serves.
    warnings: Vec<Cow<'a, str>>,
    /// When its service was last confirmed, in UTC, if it comes from the disk; null where its source has told it.
    from_disk: Option<String>,
}

#[derive(Serialize)]
struct UpstreamEntry<'a> {
    name: &'a str,
    /// Whether the gateway speaks TLS to it.
    tls: bool,
    /// The name in the gateway's hello, which it must prove unless it must prove something else.
    server_name: Option<String>,
    /// The SPIFFE ID that it must prove.
    spiffe: Option<&'a str>,
    /// Whether it is a service of the mesh, dialled with the gateway's identity there.
    mesh: bool,
    /// The PROXY header that it is sent, `v1` or `v2`; null for none.
    proxy_protocol: Option<&'static str>,
    /// Why there is nothing to dial, if there is not.
    empty: Option<&'a str>,
    /// The same of what its endpoints come from: its service, or the names that the file has.
    from_disk: Option<String>,
}

/// One of the upstreams that a weighted one stands for.
#[derive(Serialize)]
struct MemberEntry<'a> {
    weight: u32,
    upstream: UpstreamEntry<'a>,
    endpoints: Vec<EndpointEntry<'a>>,
    /// Why it gets no connection while another can, if it does not.
    passed_over: Option<Cow<'a, str>>,
}

/// A middleware of a route; of one that is missing or wrong there is the name alone, and the route is broken.
#[derive(Serialize)]
struct MiddlewareEntry<'a> {
    name: &'a str,
    /// The networks that it lets in; null for one of another kind.
    ip_allow_list: Option<Vec<String>>,
    /// How many connections one source may have on the route; null for one of another kind.
    in_flight_conn: Option<usize>,
}

#[derive(Serialize)]
struct EndpointEntry<'a> {
    address: SocketAddr,
    configured: &'a str,
    weight: u32,
    /// How often it could not be dialled, in a row.
    failures: u64,
    /// For how long it is passed over; null where nothing is against it, 0 when it is due or being tried.
    out_for_seconds: Option<u64>,
    /// `passing`, `failing`, or `unchecked` before its first check; null where nobody checks it.
    check: Option<&'static str>,
    /// Why its last check failed.
    check_error: Option<String>,
}

/// What a service asked for and does not get.
#[derive(Serialize)]
struct SkippedEntry<'a> {
    source: &'static str,
    /// Its catalog, where the source has several; null for the first.
    catalog: Option<&'a str>,
    service: &'a str,
    /// The instance that asked; null for the whole service.
    instance: Option<&'a str>,
    /// The router that its tags name; null where it was none.
    router: Option<&'a str>,
    reason: &'a str,
    /// Whether nothing was refused, and this is only to be known.
    note: bool,
}

#[derive(Serialize)]
struct Name<'a> {
    source: &'static str,
    name: &'a str,
}

impl<'a> Entry<'a> {
    fn new(
        route: &'a Route,
        snapshot: &'a Snapshot,
        shadowed_by: Option<&'a Route>,
        now: Instant,
    ) -> Self {
        let (action, tls_options, broken_reason) = match &route.action {
            Action::PassThrough => ("pass_through", None, None),
            Action::Terminate { options, .. } => ("terminate", options.as_deref(), None),
            Action::Broken(reason) => ("broken", None, Some(reason.as_str())),
        };
        // In the order in which a client would meet it.
        let asked = snapshot.middlewares(route);
        let missing = asked.err();
        let missing = missing.or_else(|| snapshot.way(route).err().map(Cow::into_owned));
        let (action, tls_options, broken_reason) = match missing {
            Some(missing) => (
                "broken",
                None,
                broken_reason.map(str::to_owned).or(Some(missing)),
            ),
            None => (action, tls_options, broken_reason.map(str::to_owned)),
        };
        let upstream = snapshot
            .upstream(&route.upstream)
            .map(|upstream| &**upstream);
        Self {
            name: &route.name,
            source: route.source.as_str(),
            service: route.service.as_ref().map(|service| &*service.name),
            rule: route.rule.text(),
            rule_syntax: route.rule.syntax().as_str(),
            priority: route.priority,
            default: route.rule.is_default(),
            action,
            tls_options,
            broken_reason,
            upstream: UpstreamEntry::new(&route.upstream, upstream),
            endpoints: upstream.map_or_else(Vec::new, |upstream| endpoints(upstream, now)),
            members: upstream.map_or_else(Vec::new, |upstream| {
                members(upstream, route.mesh, snapshot, now)
            }),
            middlewares: middlewares(route, snapshot),
            shadowed_by: shadowed_by.map(|by| Name {
                source: by.source.as_str(),
                name: &by.name,
            }),
            warnings: warnings(route, upstream),
            from_disk: route
                .service
                .as_ref()
                .and_then(|key| snapshot.service(key)?.restored)
                .map(written),
        }
    }
}

impl<'a> UpstreamEntry<'a> {
    fn new(name: &'a str, upstream: Option<&'a Upstream>) -> Self {
        let tls = upstream.and_then(|upstream| match &upstream.transport {
            Transport::Tls(tls) => Some(tls),
            Transport::Plain | Transport::Broken(_) => None,
        });
        let spiffe = tls.and_then(|tls| tls.spiffe.as_ref());
        let server_name = tls
            .map(|tls| &tls.server_name)
            .filter(|name| **name != client::no_server_name());
        Self {
            name,
            tls: tls.is_some(),
            server_name: server_name.map(|name| name.to_str().into_owned()),
            spiffe: spiffe.map(SpiffeId::as_str),
            mesh: upstream.is_some_and(Upstream::is_mesh),
            proxy_protocol: upstream.and_then(|upstream| upstream.send_proxy).map(
                |send| match send.version {
                    ProxyVersion::V1 => "v1",
                    ProxyVersion::V2(_) => "v2",
                },
            ),
            empty: upstream.and_then(|upstream| upstream.empty.as_deref()),
            from_disk: upstream.and_then(|upstream| upstream.restored).map(written),
        }
    }
}

impl<'a> SkippedEntry<'a> {
    fn new(key: &'a ServiceKey, skipped: &'a Skipped) -> Self {
        Self {
            source: key.source.as_str(),
            catalog: key.place.as_deref(),
            service: &key.name,
            instance: skipped.instance.as_deref(),
            router: skipped.router.as_deref(),
            reason: &skipped.reason,
            note: false,
        }
    }

    fn note(key: &'a ServiceKey, note: &'a str) -> Self {
        Self {
            source: key.source.as_str(),
            catalog: key.place.as_deref(),
            service: &key.name,
            instance: None,
            router: None,
            reason: note,
            note: true,
        }
    }
}

/// What its service says, and what Consul says of it.
fn warnings<'a>(route: &'a Route, upstream: Option<&Upstream>) -> Vec<Cow<'a, str>> {
    let own = route.warnings.iter().map(|warning| Cow::from(&**warning));
    let denial = upstream.and_then(Upstream::denial);
    let denial = denial.map(|denial| Cow::from(format!("denied by intention: {denial}")));
    own.chain(denial).collect()
}

fn middlewares<'a>(route: &'a Route, snapshot: &'a Snapshot) -> Vec<MiddlewareEntry<'a>> {
    let names = route.middlewares.iter();
    let entries = names.map(|name| {
        let (ip_allow_list, in_flight_conn) = match snapshot.middleware(name, route) {
            Ok(Middleware::IpAllowList(networks)) => (
                Some(networks.iter().map(ToString::to_string).collect()),
                None,
            ),
            Ok(Middleware::InFlightConn(most)) => (None, Some(*most)),
            Err(_) => (None, None),
        };
        MiddlewareEntry {
            name,
            ip_allow_list,
            in_flight_conn,
        }
    });
    entries.collect()
}

fn members<'a>(
    upstream: &'a Upstream,
    mesh: bool,
    snapshot: &'a Snapshot,
    now: Instant,
) -> Vec<MemberEntry<'a>> {
    let members = upstream.members.iter();
    let entries = members.map(|member| {
        let upstream = snapshot.upstream(&member.upstream).map(|found| &**found);
        MemberEntry {
            weight: member.weight,
            upstream: UpstreamEntry::new(&member.upstream, upstream),
            endpoints: upstream.map_or_else(Vec::new, |upstream| endpoints(upstream, now)),
            passed_over: snapshot.passes_over(member, mesh, now),
        }
    });
    entries.collect()
}

fn endpoints(upstream: &Upstream, now: Instant) -> Vec<EndpointEntry<'_>> {
    let states = upstream.states();
    states
        .map(|(endpoint, state)| {
            let out = state.out(now);
            let (check, check_error) = match state.check() {
                _ if upstream.check.is_none() || endpoint.weight == 0 => (None, None),
                None => (Some("unchecked"), None),
                Some(Ok(())) => (Some("passing"), None),
                Some(Err(why)) => (Some("failing"), Some(why.to_string())),
            };
            EndpointEntry {
                address: endpoint.address,
                configured: &endpoint.configured,
                weight: endpoint.weight,
                failures: out.map_or(0, |out| out.failures),
                // A second that has begun: 0 is kept for what is due.
                out_for_seconds: out
                    .map(|out| out.left.as_millis().div_ceil(1000))
                    .and_then(|left| u64::try_from(left).ok()),
                check,
                check_error,
            }
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
