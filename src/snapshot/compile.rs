//! From what the control plane knows to the next snapshot, sharing with the last one what did not change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::certificates::Certificates;
use super::service::{Service, ServiceKey, ServiceRoute, ServiceTls, ServiceUpstream};
use super::table::RouteId;
use super::upstream::{Endpoint, Transport, Upstream, UpstreamTls};
use super::{Action, Listener, ListenerId, Listeners, Route, Snapshot, Source};
use crate::config::{self, Config, EndpointAddress};
use crate::metrics::Metrics;
use crate::name::{HostName, MeshService};
use crate::tls::mesh::Identity;
use crate::tls::server::ServerPolicy;
use crate::tls::verify::Proof;

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
    /// For each DNS name among the endpoints, what it last resolved to.
    pub addresses: BTreeMap<HostName, Vec<IpAddr>>,
    /// The gateway's identity in the mesh, once there is one.
    pub identity: Option<Arc<Identity>>,
}

/// Makes the next snapshot anew, with the services of the last one. Without I/O; its cost beyond the changes is one
/// comparison a route and upstream.
pub fn compile(inputs: &Inputs, previous: Option<&Snapshot>, metrics: &Metrics) -> Snapshot {
    let mut next = Snapshot {
        generation: previous.map_or(1, |previous| previous.generation + 1),
        certificates: Arc::clone(&inputs.certificates),
        listeners: inputs.listeners.clone(),
        own: Arc::clone(&inputs.own),
        limits: Arc::new(inputs.config.limits.clone()),
        ..previous.cloned().unwrap_or_default()
    };
    let services: Vec<Arc<Service>> = next.services.values().cloned().collect();
    let mut compiler = Compiler {
        inputs,
        metrics,
        next: &mut next,
    };
    compiler.file();
    for service in services {
        compiler.service(&service);
    }
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
        ..previous.clone()
    };
    let mut compiler = Compiler {
        inputs,
        metrics,
        next: &mut next,
    };
    for (key, service) in services {
        match service {
            Some(service) => compiler.service(service),
            None => compiler.gone(key),
        }
    }
    next
}

/// A snapshot in the making.
struct Compiler<'a> {
    inputs: &'a Inputs,
    metrics: &'a Metrics,
    next: &'a mut Snapshot,
}

impl Compiler<'_> {
    /// The routes and upstreams of the file, and the end of those that it has no more.
    fn file(&mut self) {
        let config = &self.inputs.config;
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
            .filter(|upstream| !upstream.name.contains('@'))
            .filter(|upstream| !config.upstreams.contains_key(&*upstream.name))
            .map(|upstream| Arc::clone(&upstream.name))
            .collect();
        for name in gone {
            self.next.upstreams.change(name, |slot| *slot = None);
        }
        for (name, upstream) in &config.upstreams {
            // What stands for a service is there when the service is.
            if upstream.service.is_none() || self.next.upstream(name).is_none() {
                let upstream = self.file_upstream(name, upstream);
                self.set_upstream(upstream);
            }
        }
        for (name, route) in &config.routes {
            self.set_route(Route {
                name: name.as_str().into(),
                source: Source::File,
                listeners: Listeners::All,
                rule: route.rule.clone(),
                priority: route.priority.unwrap_or_else(|| route.rule.priority()),
                action: self.file_action(route),
                upstream: route.upstream.as_str().into(),
                warnings: Vec::new(),
                metrics: self.metrics.route(name),
            });
        }
    }

    /// A service as it is now.
    fn service(&mut self, service: &Arc<Service>) {
        if let Some(last) = self.next.services.find(&service.key).cloned() {
            let routes: BTreeSet<&str> = service.routes.iter().map(|r| &*r.name).collect();
            let upstreams: BTreeSet<&str> = service.upstreams.iter().map(|u| &*u.name).collect();
            for route in last.routes.iter().filter(|r| !routes.contains(&*r.name)) {
                self.remove_route(&RouteId {
                    source: last.key.source,
                    name: Arc::clone(&route.name),
                });
            }
            for gone in last
                .upstreams
                .iter()
                .filter(|u| !upstreams.contains(&*u.name))
            {
                self.remove_upstream(&gone.name);
            }
        }
        for upstream in &service.upstreams {
            let upstream = self.service_upstream(upstream);
            self.set_upstream(upstream);
        }
        for route in &service.routes {
            let route = self.service_route(service.key.source, route);
            self.set_route(route);
        }
        let kept = Arc::clone(service);
        self.next
            .services
            .change(service.key.clone(), |slot| *slot = Some(kept));
    }

    fn gone(&mut self, key: &ServiceKey) {
        let Some(last) = self.next.services.find(key).cloned() else {
            return;
        };
        for route in &last.routes {
            self.remove_route(&RouteId {
                source: key.source,
                name: Arc::clone(&route.name),
            });
        }
        for upstream in &last.upstreams {
            self.remove_upstream(&upstream.name);
        }
        self.next.services.change(key.clone(), |slot| *slot = None);
    }

    fn set_route(&mut self, route: Route) {
        let last = self.next.table.route(&route.id());
        if last.is_none_or(|last| !last.serves_like(&route)) {
            self.next.table.insert(Arc::new(route));
        }
    }

    fn remove_route(&mut self, id: &RouteId) {
        self.next.table.remove(id);
        self.metrics.forget_route(&id.name);
    }

    /// Keeps the object that there is, if nothing has changed, and its state in any case.
    fn set_upstream(&mut self, mut upstream: Upstream) {
        if let Some(last) = self.next.upstream(&upstream.name) {
            if last.is_like(&upstream) {
                return;
            }
            upstream.state = Arc::clone(&last.state);
        }
        let name = Arc::clone(&upstream.name);
        self.next
            .upstreams
            .change(name, |slot| *slot = Some(Arc::new(upstream)));
    }

    /// One that stands in the file stays, with nothing to dial.
    fn remove_upstream(&mut self, name: &Arc<str>) {
        match self.inputs.config.upstreams.get(&**name) {
            Some(config) => {
                let upstream = self.file_upstream(name, config);
                self.set_upstream(upstream);
            }
            None => self
                .next
                .upstreams
                .change(Arc::clone(name), |slot| *slot = None),
        }
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

    fn service_route(&self, source: Source, route: &ServiceRoute) -> Route {
        let action = match (&route.broken, &route.tls) {
            (Some(why), _) => Action::Broken(why.to_string()),
            (None, ServiceTls::PassThrough) => Action::PassThrough,
            (None, ServiceTls::Terminate(options)) => self.terminate(options.as_deref()),
        };
        Route {
            name: Arc::clone(&route.name),
            source,
            listeners: Listeners::All,
            rule: route.rule.clone(),
            priority: route.priority.unwrap_or_else(|| route.rule.priority()),
            action,
            upstream: Arc::clone(&route.upstream),
            warnings: route.warnings.clone(),
            metrics: self.metrics.route(&route.name),
        }
    }

    fn service_upstream(&self, upstream: &ServiceUpstream) -> Upstream {
        let transport = match &upstream.mesh {
            None => Transport::Plain,
            Some(service) => self.mesh(&upstream.name, service),
        };
        let mut made = Upstream::new(
            Arc::clone(&upstream.name),
            upstream.endpoints.clone(),
            transport,
            Arc::default(),
        );
        made.empty.clone_from(&upstream.empty);
        made
    }

    /// What dials a service of the mesh; the same object as long as neither identity has changed.
    fn mesh(&self, upstream: &str, service: &MeshService) -> Transport {
        let Some(identity) = &self.inputs.identity else {
            return Transport::Broken("the gateway has no mesh identity".into());
        };
        let domain = identity.id.trust_domain();
        let peer = match service.spiffe_id(domain) {
            Ok(peer) => peer,
            Err(error) => return Transport::Broken(error.to_string().into()),
        };
        if let Some(last) = self.next.upstream(upstream)
            && let Transport::Tls(tls) = &last.transport
            && tls.spiffe.as_ref() == Some(&peer)
            && tls
                .identity
                .as_ref()
                .is_some_and(|last| Arc::ptr_eq(last, identity))
        {
            return last.transport.clone();
        }
        match identity.client_config(&peer) {
            Ok(config) => Transport::Tls(UpstreamTls {
                config,
                // A name that is none in DNS goes unsaid; who is dialled is proven by the ID alone.
                server_name: ServerName::try_from(service.server_name(domain))
                    .unwrap_or(ServerName::from(IpAddr::from([0, 0, 0, 0]))),
                spiffe: Some(peer),
                identity: Some(Arc::clone(identity)),
            }),
            Err(error) => Transport::Broken(error.to_string().into()),
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
            (_, Some(tls)) => match self.inputs.client_configs.get(name) {
                Some(Ok(config)) => Transport::Tls(UpstreamTls {
                    config: Arc::clone(config),
                    server_name: tls.server_name.clone(),
                    spiffe: match &tls.proof {
                        Proof::Spiffe(id) => Some(id.clone()),
                        Proof::ServerName | Proof::AnyOf(_) => None,
                    },
                    identity: None,
                }),
                Some(Err(why)) => Transport::Broken(why.as_str().into()),
                None => Transport::Broken("its tls is not made".into()),
            },
        };
        let mut made = Upstream::new(name.into(), endpoints.collect(), transport, Arc::default());
        made.empty = config
            .service
            .as_ref()
            .map(|service| format!("consul has no service `{}`", service.name).into());
        made
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
