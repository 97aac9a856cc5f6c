//! `/v1/routes`: every route of a snapshot, as JSON.

use std::net::SocketAddr;
use std::time::Instant;

use serde::Serialize;

use crate::snapshot::upstream::{Transport, Upstream};
use crate::snapshot::{Action, Route, Snapshot};
use crate::tls::client;

/// The routes of a snapshot in the table's order, with the one that hides each, if one does.
pub(super) fn json(snapshot: &Snapshot) -> Vec<u8> {
    let now = Instant::now();
    let table = &snapshot.table;
    let routes = table.routes().into_iter();
    let list = List {
        generation: snapshot.generation,
        routes: routes
            .map(|route| {
                let upstream = snapshot
                    .upstream(&route.upstream)
                    .map(|upstream| &**upstream);
                Entry::new(
                    route,
                    upstream,
                    table.shadowed_by(route).map(|by| &**by),
                    now,
                )
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
    routes: Vec<Entry<'a>>,
}

/// One route. The keys are an interface: add to them, never change one.
#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    source: &'static str,
    rule: &'a str,
    priority: i64,
    /// Whether it takes clients that name no host.
    default: bool,
    /// `pass_through`, `terminate` or `broken`.
    action: &'static str,
    /// The option set of a terminating route; null for the defaults.
    tls_options: Option<&'a str>,
    /// Why a broken route refuses.
    broken_reason: Option<&'a str>,
    upstream: UpstreamEntry<'a>,
    endpoints: Vec<EndpointEntry<'a>>,
    /// The route that takes every client this one could have had.
    shadowed_by: Option<Name<'a>>,
}

#[derive(Serialize)]
struct UpstreamEntry<'a> {
    name: &'a str,
    /// Whether the gateway speaks TLS to it.
    tls: bool,
    /// The name in the gateway's hello, which it must prove unless it must prove something else.
    server_name: Option<String>,
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
}

#[derive(Serialize)]
struct Name<'a> {
    source: &'static str,
    name: &'a str,
}

impl<'a> Entry<'a> {
    fn new(
        route: &'a Route,
        upstream: Option<&'a Upstream>,
        shadowed_by: Option<&'a Route>,
        now: Instant,
    ) -> Self {
        let (action, tls_options, broken_reason) = match &route.action {
            Action::PassThrough => ("pass_through", None, None),
            Action::Terminate { options, .. } => ("terminate", options.as_deref(), None),
            Action::Broken(reason) => ("broken", None, Some(reason.as_str())),
        };
        let (action, tls_options, broken_reason) = match upstream.map(|u| &u.transport) {
            Some(Transport::Broken(reason)) => ("broken", None, broken_reason.or(Some(reason))),
            _ => (action, tls_options, broken_reason),
        };
        Self {
            name: &route.name,
            source: route.source.as_str(),
            rule: route.rule.text(),
            priority: route.priority,
            default: route.rule.is_default(),
            action,
            tls_options,
            broken_reason,
            upstream: UpstreamEntry::new(&route.upstream, upstream),
            endpoints: upstream.map_or_else(Vec::new, |upstream| endpoints(upstream, now)),
            shadowed_by: shadowed_by.map(|by| Name {
                source: by.source.as_str(),
                name: &by.name,
            }),
        }
    }
}

impl<'a> UpstreamEntry<'a> {
    fn new(name: &'a str, upstream: Option<&Upstream>) -> Self {
        let tls = upstream.and_then(|upstream| match &upstream.transport {
            Transport::Tls(tls) => Some(tls),
            Transport::Plain | Transport::Broken(_) => None,
        });
        Self {
            name,
            tls: tls.is_some(),
            server_name: tls
                .filter(|tls| tls.server_name != client::no_server_name())
                .map(|tls| tls.server_name.to_str().into_owned()),
        }
    }
}

fn endpoints(upstream: &Upstream, now: Instant) -> Vec<EndpointEntry<'_>> {
    let states = upstream.states();
    states
        .map(|(endpoint, state)| {
            let out = state.out(now);
            EndpointEntry {
                address: endpoint.address,
                configured: &endpoint.configured,
                weight: endpoint.weight,
                failures: out.map_or(0, |out| out.failures),
                // A second that has begun: 0 is kept for what is due.
                out_for_seconds: out
                    .map(|out| out.left.as_millis().div_ceil(1000))
                    .and_then(|left| u64::try_from(left).ok()),
            }
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::rule::Rule;
    use crate::snapshot::certificates::Certificates;
    use crate::snapshot::table::Table;
    use crate::snapshot::upstream::{Endpoint, UpstreamTls};
    use crate::snapshot::{Listeners, Source};
    use crate::tls::options::Options;
    use crate::tls::server::ServerPolicy;

    fn upstream(name: &str, transport: Transport) -> Upstream {
        let endpoint = Endpoint {
            address: "10.0.0.5:22".parse().unwrap(),
            configured: "vm.internal:22".into(),
            weight: 3,
        };
        Upstream::new(name.into(), vec![endpoint], transport, Arc::default())
    }

    fn route(name: &str, priority: i64, action: Action, upstream: &str) -> Arc<Route> {
        Arc::new(Route {
            name: name.into(),
            source: Source::File,
            service: None,
            listeners: Listeners::All,
            rule: Rule::parse(&format!("HostSNI(`{name}`)")).unwrap(),
            priority,
            action,
            upstream: upstream.into(),
            warnings: Vec::new(),
            metrics: Arc::default(),
        })
    }

    fn tls() -> UpstreamTls {
        let provider = crate::tls::provider();
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        UpstreamTls {
            config: Arc::new(config),
            server_name: "db.internal".try_into().unwrap(),
            spiffe: None,
            identity: None,
            former: None,
        }
    }

    fn terminate() -> Action {
        let certificates = Arc::new(Certificates::default());
        let policy = ServerPolicy::new(&Options::default(), certificates, None).unwrap();
        Action::Terminate {
            policy: Arc::new(policy),
            options: Some("strict".into()),
        }
    }

    #[test]
    fn every_route_is_shown_whole_and_in_order() {
        let mut table = Table::default();
        let broken = Action::Broken("no option set is named `lost`".into());
        table.insert(route("vm.example.com", 25, broken, "tls"));
        table.insert(route("*.example.com", 100, Action::PassThrough, "vms"));
        table.insert(route("*", -1, Action::PassThrough, "vms"));
        table.insert(route("db.example.com", 101, terminate(), "vms"));
        let mut snapshot = Snapshot::default();
        snapshot.generation = 7;
        snapshot.table = table;
        let snapshot = snapshot
            .with(upstream("vms", Transport::Plain))
            .with(upstream("tls", Transport::Tls(tls())));
        let json: serde_json::Value = serde_json::from_slice(&json(&snapshot)).unwrap();
        let plain = json!({ "name": "vms", "tls": false, "server_name": null });
        let tls = json!({ "name": "tls", "tls": true, "server_name": "db.internal" });
        let endpoints = json!([{ "address": "10.0.0.5:22", "configured": "vm.internal:22", "weight": 3,
            "failures": 0, "out_for_seconds": null }]);
        let all = json!({
            "name": "*", "source": "file", "rule": "HostSNI(`*`)", "priority": -1,
            "default": true, "action": "pass_through", "tls_options": null, "broken_reason": null,
            "upstream": plain, "endpoints": endpoints, "shadowed_by": null,
        });
        let wildcard = json!({
            "name": "*.example.com", "source": "file", "rule": "HostSNI(`*.example.com`)",
            "priority": 100, "default": false, "action": "pass_through", "tls_options": null,
            "broken_reason": null, "upstream": plain, "endpoints": endpoints, "shadowed_by": null,
        });
        let db = json!({
            "name": "db.example.com", "source": "file", "rule": "HostSNI(`db.example.com`)",
            "priority": 101, "default": false, "action": "terminate", "tls_options": "strict",
            "broken_reason": null, "upstream": plain, "endpoints": endpoints, "shadowed_by": null,
        });
        let vm = json!({
            "name": "vm.example.com", "source": "file", "rule": "HostSNI(`vm.example.com`)",
            "priority": 25, "default": false, "action": "broken", "tls_options": null,
            "broken_reason": "no option set is named `lost`", "upstream": tls,
            "endpoints": endpoints, "shadowed_by": { "source": "file", "name": "*.example.com" },
        });
        assert_eq!(
            json,
            json!({ "generation": 7, "routes": [all, wildcard, db, vm] })
        );
    }

    #[test]
    fn a_name_that_goes_unsaid_is_not_shown() {
        let unsaid = UpstreamTls {
            server_name: client::no_server_name(),
            ..tls()
        };
        let upstream = upstream("db", Transport::Tls(unsaid));
        let entry = UpstreamEntry::new("db", Some(&upstream));
        assert!(entry.tls);
        assert_eq!(entry.server_name, None);
    }

    #[test]
    fn an_endpoint_that_is_passed_over_says_for_how_long() {
        let upstream = upstream("u", Transport::Plain);
        let shown = |now| serde_json::to_value(endpoints(&upstream, now)).unwrap()[0].clone();
        let now = Instant::now();
        upstream.turn(now).next().unwrap().failed(now).unwrap();
        assert_eq!(
            (&shown(now)["failures"], &shown(now)["out_for_seconds"]),
            (&json!(1), &json!(1))
        );
        let due = now + std::time::Duration::from_secs(2);
        assert_eq!(shown(due)["out_for_seconds"], json!(0));
        upstream.turn(due).next().unwrap().succeeded();
        assert_eq!(
            (&shown(due)["failures"], &shown(due)["out_for_seconds"]),
            (&json!(0), &json!(null))
        );
    }
}
