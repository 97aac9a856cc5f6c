//! From what the control plane knows to the next snapshot, sharing with the last one what did not change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::ClientConfig;

use super::certificates::Certificates;
use super::service::{Service, ServiceKey};
use super::table::RouteId;
use super::upstream::{Endpoint, Transport, Upstream};
use super::weighted::Member;
use super::{Action, Listener, ListenerId, Listeners, Raw, Route, Snapshot, Source};
use crate::config::{self, Config, EndpointAddress};
use crate::metrics::Metrics;
use crate::name::HostName;
use crate::tls::mesh::Identity;
use crate::tls::server::ServerPolicy;

mod services;
mod transports;

/// Everything a snapshot is made from but the services, which come one by one. What had to be read from disks or the
/// network has been.
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
    /// A policy for each option set that there is; `None` is the set of routes that name none.
    pub policies: BTreeMap<Option<String>, Result<Arc<ServerPolicy>, String>>,
    /// For each upstream with TLS, by name.
    pub client_configs: BTreeMap<String, Result<Arc<ClientConfig>, String>>,
    /// For each transport with TLS, by name.
    pub transport_configs: BTreeMap<String, Result<Arc<ClientConfig>, String>>,
    /// For each DNS name among the endpoints, what it last resolved to.
    pub addresses: BTreeMap<HostName, Vec<IpAddr>>,
    /// The names whose addresses come from the disk, and when each had resolved to them.
    pub restored: BTreeMap<HostName, SystemTime>,
    /// The gateway's identity in the mesh, once there is one.
    pub identity: Option<Arc<Identity>>,
    /// The services of the mesh that an intention denies the gateway, by Consul's word.
    pub denied: BTreeSet<ServiceKey>,
}

/// Makes the next snapshot anew, with the services of the last one. Without I/O; its cost beyond the changes is one
/// comparison a route and upstream.
pub fn compile(inputs: &Inputs, previous: Option<&Snapshot>, metrics: &Metrics) -> Snapshot {
    let mut next = Snapshot {
        generation: previous.map_or(1, |previous| previous.generation + 1),
        certificates: Arc::clone(&inputs.certificates),
        own: Arc::clone(&inputs.own),
        limits: Arc::new(inputs.config.limits.clone()),
        gone: Vec::new(),
        ..previous.cloned().unwrap_or_default()
    };
    let services: Vec<Arc<Service>> = next.services.values().cloned().collect();
    let mut compiler = Compiler {
        inputs,
        metrics,
        removed: Vec::new(),
        next: &mut next,
    };
    compiler.file();
    for service in services {
        compiler.service(&service);
    }
    compiler.tunnels();
    compiler.finish();
    next
}

/// Makes the next snapshot from the last one and the services that have changed. Its cost is that of the changes.
pub fn update(
    inputs: &Inputs,
    previous: &Snapshot,
    services: &BTreeMap<ServiceKey, Option<Arc<Service>>>,
    metrics: &Metrics,
) -> Snapshot {
    let mut next = Snapshot {
        generation: previous.generation + 1,
        gone: Vec::new(),
        ..previous.clone()
    };
    let mut compiler = Compiler {
        inputs,
        metrics,
        removed: Vec::new(),
        next: &mut next,
    };
    for (key, service) in services {
        match service {
            Some(service) => compiler.service(service),
            None => compiler.gone(key),
        }
    }
    compiler.finish();
    next
}

/// A snapshot in the making.
struct Compiler<'a> {
    inputs: &'a Inputs,
    metrics: &'a Metrics,
    /// Routes that were removed; another of the same name may have come since.
    removed: Vec<RouteId>,
    next: &'a mut Snapshot,
}

impl Compiler<'_> {
    /// The routes and upstreams of the file, and the end of those that it has no more.
    fn file(&mut self) {
        let config = &self.inputs.config;
        self.next.middlewares.file = Arc::new(config.middlewares.clone());
        let routes = self.next.table.routes().into_iter();
        let gone: Vec<RouteId> = routes
            .filter(|route| route.source == Source::File)
            .filter(|route| !config.routes.contains_key(&*route.name))
            .map(|route| route.id())
            .collect();
        for id in gone {
            self.remove_route(&id);
        }
        let upstreams = self.next.upstreams.values();
        let gone: Vec<Arc<str>> = upstreams
            .filter(|upstream| match &upstream.service {
                Some(key) => !self.is_of(key, &upstream.name),
                None => !config.upstreams.contains_key(&*upstream.name),
            })
            .map(|upstream| Arc::clone(&upstream.name))
            .collect();
        for name in gone {
            self.remove_upstream(name);
        }
        for (name, upstream) in &config.upstreams {
            // What stands for a service is as that service is, once there is one.
            let last = self.next.upstream(name);
            if last.is_none_or(|last| last.service.is_none()) {
                let upstream = self.file_upstream(name, upstream);
                self.set_upstream(upstream);
            }
        }
        for (name, route) in &config.routes {
            self.set_route(Route {
                name: name.as_str().into(),
                source: Source::File,
                service: None,
                listeners: Listeners::All,
                rule: route.rule.clone(),
                priority: route.priority.unwrap_or_else(|| route.rule.priority()),
                action: self.file_action(route),
                upstream: route.upstream.as_str().into(),
                mesh: false,
                max_connections: route.max_connections,
                middlewares: route
                    .middlewares
                    .iter()
                    .map(|name| name.as_str().into())
                    .collect(),
                warnings: Vec::new(),
                metrics: self.metrics.route(name),
            });
        }
    }

    /// What the connections of tunnels count on, and the end of those tunnels that there are no more.
    fn tunnels(&mut self) {
        let mut next = self.inputs.listeners.clone();
        let mut names = BTreeSet::new();
        for listener in next.values_mut() {
            if let Listener::Raw(raw) = listener {
                let metrics = self.metrics.route(&raw.name);
                names.insert(Arc::clone(&raw.name));
                *raw = Arc::new(Raw {
                    metrics,
                    ..Raw::clone(raw)
                });
            }
        }
        let before: BTreeSet<Arc<str>> = self.next.tunnels().map(|raw| raw.name.clone()).collect();
        for name in before.difference(&names) {
            // A route may have the name by now.
            if !self.inputs.config.routes.contains_key(&**name) {
                self.metrics.forget_route(name);
            }
            self.removed.push(RouteId {
                source: Source::File,
                name: Arc::clone(name),
            });
        }
        self.next.listeners = next;
    }

    fn set_route(&mut self, route: Route) {
        let last = self.next.table.route(&route.id());
        debug_assert!(
            last.is_none_or(|last| last.service == route.service),
            "two services have a route of one name"
        );
        if last.is_none_or(|last| !last.serves_like(&route)) {
            self.next.table.insert(Arc::new(route));
        }
    }

    fn remove_route(&mut self, id: &RouteId) {
        self.next.table.remove(id);
        self.metrics.forget_route(&id.name);
        self.removed.push(id.clone());
    }

    /// Notes which routes are gone in the end.
    fn finish(self) {
        let next = &*self.next;
        let gone = self.removed.into_iter().filter(|id| !next.has(id));
        self.next.gone = gone.collect();
    }

    /// Keeps the object that there is, if nothing has changed, and what it remembers in any case.
    fn set_upstream(&mut self, mut upstream: Upstream) {
        if let Some(last) = self.next.upstream(&upstream.name) {
            debug_assert!(
                last.service.is_none()
                    || upstream.service.is_none()
                    || last.service == upstream.service,
                "two services have an upstream of one name"
            );
            if last.is_like(&upstream) {
                return;
            }
            upstream.go_on_from(last);
        } else {
            upstream.metrics = self.metrics.upstream(&upstream.name);
        }
        let name = Arc::clone(&upstream.name);
        self.next
            .upstreams
            .change(name, |slot| *slot = Some(Arc::new(upstream)));
    }

    fn remove_upstream(&mut self, name: Arc<str>) {
        self.metrics.forget_upstream(&name);
        self.next.upstreams.change(name, |slot| *slot = None);
    }

    fn file_action(&self, route: &config::Route) -> Action {
        match &route.action {
            config::Action::PassThrough => Action::PassThrough,
            config::Action::Terminate { options } => self.terminate(options.as_deref()),
        }
    }

    fn terminate(&self, options: Option<&str>) -> Action {
        match self.inputs.policies.get(&options.map(str::to_owned)) {
            Some(Ok(policy)) => Action::Terminate {
                policy: Arc::clone(policy),
                options: options.map(Arc::from),
            },
            Some(Err(why)) => Action::Broken(match options {
                Some(name) => format!("option set `{name}`: {why}"),
                None => format!("default option set: {why}"),
            }),
            None => Action::Broken(format!(
                "option set `{}` does not exist",
                options.unwrap_or("default")
            )),
        }
    }

    fn file_upstream(&self, name: &str, config: &config::Upstream) -> Upstream {
        let endpoints = config.endpoints.iter().flat_map(|endpoint| {
            let (addresses, configured) = match &endpoint.address {
                EndpointAddress::Ip(address) => (vec![*address], address.to_string()),
                EndpointAddress::Dns(host, port) => {
                    let ips = self.inputs.addresses.get(host).into_iter().flatten();
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
        });
        let transport = match (&config.service, &config.tls) {
            (Some(service), _) if service.mesh => {
                Transport::Broken("nothing is known of its service yet".into())
            }
            (_, None) => Transport::Plain,
            (_, Some(tls)) => transports::tls_transport(tls, self.inputs.client_configs.get(name)),
        };
        let mut made = Upstream::new(name.into(), endpoints.collect(), transport, Arc::default());
        let asked = config.tls.as_ref().filter(|_| config.is_gateway);
        made.gateway = asked.map(|tls| tls.server_name.to_str().into());
        made.send_proxy = config.send_proxy;
        made.check = config.health_check.clone().map(Arc::new);
        made.timing = config.timing;
        let members = config.weighted.iter().map(|member| Member {
            upstream: member.upstream.as_str().into(),
            weight: member.weight,
        });
        made.members = members.collect();
        let hosts = config.endpoints.iter().map(|one| &one.address);
        let hosts: Vec<&str> = hosts
            .filter_map(|address| match address {
                EndpointAddress::Dns(host, _) => Some(host.as_str()),
                EndpointAddress::Ip(_) => None,
            })
            .collect();
        let is_unresolved = made.endpoints().is_empty() && !hosts.is_empty();
        let unresolved =
            is_unresolved.then(|| format!("no address of {} is known", hosts.join(", ")));
        let endpoints = config.endpoints.iter();
        let restored = endpoints.filter_map(|endpoint| match &endpoint.address {
            EndpointAddress::Dns(host, _) => self.inputs.restored.get(host).copied(),
            EndpointAddress::Ip(_) => None,
        });
        made.restored = restored.min();
        let unknown = stands_for(config).map(|key| key.unknown());
        made.empty = unknown.or(unresolved.map(Arc::from));
        made
    }
}

/// The service that an upstream of the file stands for.
fn stands_for(config: &config::Upstream) -> Option<ServiceKey> {
    let of_consul = config.service.as_ref().map(|service| ServiceKey {
        source: Source::Consul,
        place: service.place.clone(),
        name: service.name.as_str().into(),
    });
    let of_nomad = config.nomad_service.as_ref().map(|service| ServiceKey {
        source: Source::Nomad,
        place: None,
        name: service.key().into(),
    });
    of_consul.or(of_nomad)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
