//! From what the control plane knows to the next snapshot, sharing with the last one what did not change.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls::ClientConfig;

use super::certificates::Certificates;
use super::table::{RouteId, Table};
use super::upstream::{Endpoint, Upstream, UpstreamTls};
use super::{Action, Listener, ListenerId, Listeners, Route, Snapshot, Source};
use crate::config::{self, Config, EndpointAddress};
use crate::metrics::Metrics;
use crate::name::HostName;
use crate::tls::server::ServerPolicy;

/// Everything a snapshot is made from. What had to be read from disks or the network has been.
#[derive(Debug)]
pub struct Inputs {
    /// The configuration.
    pub config: Config,
    /// The listeners, with the identity that they keep as long as the process runs.
    pub listeners: BTreeMap<ListenerId, Listener>,
    /// The addresses that are bound, the admin interface's too.
    pub own: Arc<[SocketAddr]>,
    /// The edge certificates.
    pub certificates: Arc<Certificates>,
    /// A policy for each option set that a route refers to; `None` is the set of routes that name none.
    pub policies: BTreeMap<Option<String>, Result<Arc<ServerPolicy>, String>>,
    /// For each upstream with TLS, by name.
    pub client_configs: BTreeMap<String, Result<Arc<ClientConfig>, String>>,
    /// For each DNS name among the endpoints, what it last resolved to.
    pub addresses: BTreeMap<HostName, Vec<IpAddr>>,
}

/// Makes the next snapshot. Without I/O; its cost beyond the changes is one comparison a route.
pub fn compile(inputs: &Inputs, previous: Option<&Snapshot>, metrics: &Metrics) -> Snapshot {
    let upstreams: BTreeMap<Arc<str>, Arc<Upstream>> = inputs
        .config
        .upstreams
        .iter()
        .map(|(name, config)| {
            let last = previous.and_then(|previous| previous.upstreams.get(name.as_str()));
            let upstream = upstream(inputs, name, config, last);
            (Arc::clone(&upstream.name), upstream)
        })
        .collect();

    let mut table = previous.map_or_else(Table::default, |previous| previous.table.clone());
    let gone: Vec<RouteId> = table
        .routes()
        .into_iter()
        .filter(|route| !inputs.config.routes.contains_key(&*route.name))
        .map(|route| route.id())
        .collect();
    for id in gone {
        table.remove(&id);
        metrics.forget_route(&id.name);
    }
    for (name, config) in &inputs.config.routes {
        let Some(upstream) = upstreams.get(config.upstream.as_str()) else {
            // The configuration was checked: every route's upstream is there.
            continue;
        };
        let route = Route {
            name: name.as_str().into(),
            source: Source::File,
            listeners: Listeners::All,
            rule: config.rule.clone(),
            priority: config.priority.unwrap_or_else(|| config.rule.priority()),
            action: action(inputs, config),
            upstream: Arc::clone(upstream),
            metrics: metrics.route(name),
        };
        let last = table.route(&route.id());
        if last.is_none_or(|last| !last.serves_like(&route)) {
            table.insert(Arc::new(route));
        }
    }

    Snapshot {
        generation: previous.map_or(1, |previous| previous.generation + 1),
        table,
        certificates: Arc::clone(&inputs.certificates),
        upstreams,
        listeners: inputs.listeners.clone(),
        own: Arc::clone(&inputs.own),
        limits: Arc::new(inputs.config.limits.clone()),
    }
}

fn action(inputs: &Inputs, route: &config::Route) -> Action {
    // TLS towards the upstream is a part of the route's promise: without it, nothing is dialled.
    let upstream = inputs.config.upstreams.get(&route.upstream);
    if upstream.is_some_and(|upstream| upstream.tls.is_some()) {
        let why = match inputs.client_configs.get(&route.upstream) {
            Some(Ok(_)) => None,
            Some(Err(why)) => Some(why.as_str()),
            None => Some("its tls is not made"),
        };
        if let Some(why) = why {
            return Action::Broken(format!("upstream `{}`: {why}", route.upstream));
        }
    }
    match &route.action {
        config::Action::PassThrough => Action::PassThrough,
        config::Action::Terminate { options } => match inputs.policies.get(options) {
            Some(Ok(policy)) => Action::Terminate {
                policy: Arc::clone(policy),
                options: options.as_deref().map(Arc::from),
            },
            Some(Err(why)) => Action::Broken(match options {
                Some(name) => format!("option set `{name}`: {why}"),
                None => format!("default option set: {why}"),
            }),
            None => Action::Broken(format!(
                "option set `{}` does not exist",
                options.as_deref().unwrap_or("default")
            )),
        },
    }
}

fn upstream(
    inputs: &Inputs,
    name: &str,
    config: &config::Upstream,
    last: Option<&Arc<Upstream>>,
) -> Arc<Upstream> {
    let endpoints: Vec<Endpoint> = config
        .endpoints
        .iter()
        .flat_map(|endpoint| {
            let (addresses, configured) = match &endpoint.address {
                EndpointAddress::Ip(address) => (vec![*address], address.to_string()),
                EndpointAddress::Dns(host, port) => {
                    let ips = inputs.addresses.get(host).into_iter().flatten();
                    (
                        ips.map(|ip| SocketAddr::new(*ip, *port)).collect(),
                        format!("{host}:{port}"),
                    )
                }
            };
            let configured: Arc<str> = configured.into();
            addresses.into_iter().map(move |address| Endpoint {
                address,
                configured: Arc::clone(&configured),
                weight: endpoint.weight,
            })
        })
        .collect();
    let tls = config.tls.as_ref().and_then(|tls| {
        let config = inputs.client_configs.get(name)?.as_ref().ok()?;
        Some(UpstreamTls {
            config: Arc::clone(config),
            server_name: tls.server_name.clone(),
        })
    });
    if let Some(last) = last
        && last.endpoints() == endpoints
        && last.tls == tls
    {
        return Arc::clone(last);
    }
    let state = last.map(|last| Arc::clone(&last.state)).unwrap_or_default();
    Arc::new(Upstream::new(name.into(), endpoints, tls, state))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
