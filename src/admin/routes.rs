//! `/v1/routes`: every route of a snapshot, as JSON.

use std::net::SocketAddr;

use serde::Serialize;

use crate::snapshot::upstream::Upstream;
use crate::snapshot::{Action, Route, Snapshot};

/// The routes of a snapshot in the table's order, with the one that hides each, if one does.
pub(super) fn json(snapshot: &Snapshot) -> Vec<u8> {
    let table = &snapshot.table;
    let routes = table
        .routes()
        .into_iter()
        .map(|route| (&**route, table.shadowed_by(route).map(|by| &**by)));
    list(snapshot.generation, routes)
}

fn list<'a>(
    generation: u64,
    routes: impl Iterator<Item = (&'a Route, Option<&'a Route>)>,
) -> Vec<u8> {
    let routes = routes
        .map(|(route, shadowed_by)| Entry::new(route, shadowed_by))
        .collect();
    let mut json = serde_json::to_vec_pretty(&List { generation, routes }).unwrap_or_default();
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
    /// The name that it must prove.
    server_name: Option<String>,
}

#[derive(Serialize)]
struct EndpointEntry<'a> {
    address: SocketAddr,
    configured: &'a str,
    weight: u32,
}

#[derive(Serialize)]
struct Name<'a> {
    source: &'static str,
    name: &'a str,
}

impl<'a> Entry<'a> {
    fn new(route: &'a Route, shadowed_by: Option<&'a Route>) -> Self {
        let (action, broken_reason) = match &route.action {
            Action::PassThrough => ("pass_through", None),
            Action::Terminate { .. } => ("terminate", None),
            Action::Broken(reason) => ("broken", Some(reason.as_str())),
        };
        let tls_options = match &route.action {
            Action::Terminate { options, .. } => options.as_deref(),
            Action::PassThrough | Action::Broken(_) => None,
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
            upstream: UpstreamEntry::new(&route.upstream),
            endpoints: endpoints(&route.upstream),
            shadowed_by: shadowed_by.map(|by| Name {
                source: by.source.as_str(),
                name: &by.name,
            }),
        }
    }
}

impl<'a> UpstreamEntry<'a> {
    fn new(upstream: &'a Upstream) -> Self {
        let tls = upstream.tls.as_ref();
        Self {
            name: &upstream.name,
            tls: tls.is_some(),
            server_name: tls.map(|tls| tls.server_name.to_str().into_owned()),
        }
    }
}

fn endpoints(upstream: &Upstream) -> Vec<EndpointEntry<'_>> {
    let endpoints = upstream.endpoints().iter();
    endpoints
        .map(|endpoint| EndpointEntry {
            address: endpoint.address,
            configured: &endpoint.configured,
            weight: endpoint.weight,
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::rule::Rule;
    use crate::snapshot::upstream::{Endpoint, UpstreamTls};
    use crate::snapshot::{Listeners, Source};

    fn route(name: &str, rule: &str, action: Action, tls: Option<UpstreamTls>) -> Route {
        let rule = Rule::parse(rule).unwrap();
        Route {
            name: name.into(),
            source: Source::File,
            priority: rule.priority(),
            rule,
            listeners: Listeners::All,
            action,
            upstream: Arc::new(Upstream::new(
                "vms".into(),
                vec![Endpoint {
                    address: "10.0.0.5:22".parse().unwrap(),
                    configured: "vm.internal:22".into(),
                    weight: 3,
                }],
                tls,
                Arc::default(),
            )),
            metrics: Arc::default(),
        }
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
        }
    }

    #[test]
    fn a_route_is_shown_whole() {
        let broken = Action::Broken("no option set is named `strict`".into());
        let routes = [
            route("all", "HostSNI(`*`)", Action::PassThrough, None),
            route("vm", "HostSNI(`vm.example.com`)", broken, Some(tls())),
        ];
        let [all, vm] = &routes;
        let json = list(7, [(all, None), (vm, Some(all))].into_iter());
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let endpoints = serde_json::json!([{ "address": "10.0.0.5:22", "configured": "vm.internal:22", "weight": 3 }]);
        assert_eq!(
            json,
            serde_json::json!({
                "generation": 7,
                "routes": [
                    {
                        "name": "all", "source": "file", "rule": "HostSNI(`*`)", "priority": -1, "default": true,
                        "action": "pass_through", "tls_options": null, "broken_reason": null,
                        "upstream": { "name": "vms", "tls": false, "server_name": null },
                        "endpoints": endpoints, "shadowed_by": null,
                    },
                    {
                        "name": "vm", "source": "file", "rule": "HostSNI(`vm.example.com`)", "priority": 25, "default": false,
                        "action": "broken", "tls_options": null, "broken_reason": "no option set is named `strict`",
                        "upstream": { "name": "vms", "tls": true, "server_name": "db.internal" },
                        "endpoints": endpoints, "shadowed_by": { "source": "file", "name": "all" },
                    },
                ],
            })
        );
    }
}
