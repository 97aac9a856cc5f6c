//! The services that discovery tells of: their routes and upstreams, as they come, change and go.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls_pki_types::ServerName;

use super::Compiler;
use crate::name::{HostName, MeshService};
use crate::snapshot::service::{Service, ServiceKey, ServiceRoute, ServiceTls, ServiceUpstream};
use crate::snapshot::table::RouteId;
use crate::snapshot::upstream::{Endpoint, Transport, Upstream, UpstreamTls};
use crate::snapshot::{Action, Listeners, Route};
use crate::tls::client;
use crate::tls::mesh::Identity;

impl Compiler<'_> {
    /// A service as it is now. The end is the same in whatever order services come and go: no two have a name in common,
    /// as theirs are made of the service's own, and an upstream of the file stands for one.
    pub(super) fn service(&mut self, service: &Arc<Service>) {
        let key = &service.key;
        let mut last = None;
        self.next.services.change(key.clone(), |slot| {
            last = slot.replace(Arc::clone(service));
        });
        self.count(last.as_deref(), Some(service));
        let is_news = !last.as_ref().is_some_and(|last| Arc::ptr_eq(last, service));
        if let Some(last) = last.filter(|_| is_news) {
            self.take_away(&last, Some(service));
        }
        for (name, definition) in &service.middlewares {
            let middlewares = &mut self.next.middlewares;
            middlewares.define(name, key, Some(definition.clone()));
        }
        for upstream in &service.upstreams {
            if self.is_of(key, &upstream.name) {
                let upstream = self.service_upstream(key, upstream, is_news);
                self.set_upstream(upstream);
            }
        }
        for route in &service.routes {
            let route = self.service_route(key, route);
            self.set_route(route);
        }
    }

    /// A service that is no more.
    pub(super) fn gone(&mut self, key: &ServiceKey) {
        let mut last = None;
        self.next
            .services
            .change(key.clone(), |slot| last = slot.take());
        self.count(last.as_deref(), None);
        if let Some(last) = last {
            self.take_away(&last, None);
        }
    }

    /// A service takes the place of what it was.
    fn count(&mut self, last: Option<&Service>, now: Option<&Service>) {
        let standings = &mut self.next.standings;
        let of = |service: &Service| (service.key.source, service.standing());
        if let Some(count) = last.and_then(|last| standings.get_mut(&of(last))) {
            *count = count.saturating_sub(1);
        }
        if let Some(now) = now {
            *standings.entry(of(now)).or_default() += 1;
        }
    }

    /// Whether a service may give the upstream of this name its endpoints: one of its own, or one of the file that stands
    /// for it. What the file has for itself, or for another service, no tag can take.
    pub(super) fn is_of(&self, key: &ServiceKey, upstream: &str) -> bool {
        match self.inputs.config.upstreams.get(upstream) {
            Some(config) => super::stands_for(config).as_ref() == Some(key),
            None => upstream.contains('@'),
        }
    }

    /// What a service had, and has no more.
    fn take_away(&mut self, last: &Service, now: Option<&Service>) {
        let routes = now.into_iter().flat_map(|now| &now.routes);
        let kept: BTreeSet<&str> = routes.map(|route| &*route.name).collect();
        for route in &last.routes {
            if !kept.contains(&*route.name) {
                self.remove_route(&RouteId {
                    source: last.key.source,
                    name: Arc::clone(&route.name),
                });
            }
        }
        for name in last.middlewares.keys() {
            if now.is_none_or(|now| !now.middlewares.contains_key(name)) {
                self.next.middlewares.define(name, &last.key, None);
            }
        }
        let upstreams = now.into_iter().flat_map(|now| &now.upstreams);
        let kept: BTreeSet<&str> = upstreams.map(|upstream| &*upstream.name).collect();
        for ServiceUpstream { name, .. } in &last.upstreams {
            if kept.contains(&**name) || !self.is_of(&last.key, name) {
                continue;
            }
            match self.inputs.config.upstreams.get(&**name) {
                // One that stands in the file stays, with nothing to dial.
                Some(config) => {
                    let upstream = self.file_upstream(name, config);
                    self.set_upstream(upstream);
                }
                None => self.remove_upstream(Arc::clone(name)),
            }
        }
    }

    fn service_route(&self, key: &ServiceKey, route: &ServiceRoute) -> Route {
        let action = match (&route.broken, &route.tls) {
            (Some(why), _) => Action::Broken(why.to_string()),
            (None, ServiceTls::PassThrough) => Action::PassThrough,
            (None, ServiceTls::Terminate(options)) => self.terminate(options.as_deref()),
        };
        Route {
            name: Arc::clone(&route.name),
            source: key.source,
            service: Some(key.clone()),
            listeners: Listeners::All,
            rule: route.rule.clone(),
            priority: route.priority.unwrap_or_else(|| route.rule.priority()),
            action,
            upstream: Arc::clone(&route.upstream),
            mesh: self.needs_mesh(key, route),
            max_connections: None,
            middlewares: route.middlewares.clone(),
            warnings: (route.warnings.iter().cloned())
                .chain(self.transport_warning(key, route))
                .collect(),
            metrics: self.metrics.route(&route.name),
        }
    }

    /// `is_news` tells one of which its source has just spoken from one that is as it was.
    fn service_upstream(
        &self,
        key: &ServiceKey,
        upstream: &ServiceUpstream,
        is_news: bool,
    ) -> Upstream {
        let config = self.inputs.config.upstreams.get(&*upstream.name);
        let wants_mesh = config
            .and_then(|config| config.service.as_ref())
            .is_some_and(|service| service.mesh);
        let way = self.way(upstream);
        let transport = match (&upstream.mesh, &way) {
            (_, Err(why)) => Transport::Broken(Arc::clone(why)),
            (Some(service), Ok(_)) => self.mesh(&upstream.name, service, is_news),
            (None, Ok(_)) if wants_mesh => {
                Transport::Broken("its service is not in the mesh".into())
            }
            (None, Ok(way)) => self.transport(way),
        };
        let endpoints = self.resolved(upstream);
        let is_unresolved = endpoints.is_empty() && !upstream.named.is_empty();
        let mut made = Upstream::new(
            Arc::clone(&upstream.name),
            endpoints,
            transport,
            Arc::default(),
        );
        made.service = Some(key.clone());
        made.is_denied = upstream.mesh.is_some() && self.inputs.denied.contains(key);
        let service = self.next.service(key);
        let restored = service.and_then(|service| service.restored);
        let hosts = upstream.named.iter().map(|named| &named.host);
        let resolved = hosts.filter_map(|host| self.inputs.restored.get(host).copied());
        made.restored = restored.into_iter().chain(resolved).min();
        // What stands in the file is the operator's, and no tag changes how it is checked.
        made.check = match config {
            Some(config) => config.health_check.clone().map(Arc::new),
            None => upstream.check.clone(),
        };
        match (config, way) {
            (Some(config), _) => {
                (made.send_proxy, made.timing) = (config.send_proxy, config.timing)
            }
            (None, Ok(way)) => {
                let is_mesh = upstream.mesh.is_some();
                (made.send_proxy, made.timing) = (way.send_proxy(is_mesh), way.timing());
            }
            (None, Err(_)) => {}
        }
        made.empty.clone_from(&upstream.empty);
        if is_unresolved && made.empty.is_none() {
            let hosts = upstream.named.iter().map(|named| &named.host);
            made.empty = Some(unresolved(hosts.collect()));
        }
        made
    }

    /// The endpoints, and what the names among them stand for at the moment; each address once.
    fn resolved(&self, upstream: &ServiceUpstream) -> Vec<Endpoint> {
        let mut endpoints = upstream.endpoints.clone();
        if upstream.named.is_empty() {
            return endpoints;
        }
        let mut there: BTreeSet<SocketAddr> = endpoints.iter().map(|one| one.address).collect();
        for named in &upstream.named {
            let addresses = self.inputs.addresses.get(&named.host);
            let addresses = addresses.map_or(&[][..], Vec::as_slice);
            let resolved = named.endpoints(addresses);
            endpoints.extend(resolved.filter(|endpoint| there.insert(endpoint.address)));
        }
        endpoints
    }

    /// What dials a service of the mesh; the same object as long as neither identity has changed.
    ///
    /// A service that was reached in the former mesh is reached there or in this one, until its source speaks of it again.
    fn mesh(&self, upstream: &str, service: &MeshService, is_news: bool) -> Transport {
        let Some(identity) = &self.inputs.identity else {
            return Transport::Broken("the gateway has no mesh identity".into());
        };
        let last = self.next.upstream(upstream);
        let last = last.and_then(|last| match &last.transport {
            Transport::Tls(tls) => Some((tls, tls.identity.as_ref()?)),
            Transport::Plain | Transport::Broken(_) => None,
        });
        let former = identity.former.as_ref().filter(|former| {
            let domain = former.id.trust_domain();
            let was_there = |(tls, identity): (&UpstreamTls, &Arc<Identity>)| {
                tls.former.is_some() || identity.id.trust_domain() == domain
            };
            !is_news && last.is_some_and(was_there)
        });
        let domain = identity.id.trust_domain();
        let peers = (
            service.spiffe_id(domain),
            former.map(|former| service.spiffe_id(former.id.trust_domain())),
        );
        let (peer, former_peer) = match peers {
            (Ok(peer), former) => (peer, former.and_then(Result::ok)),
            (Err(error), _) => return Transport::Broken(error.to_string().into()),
        };
        if let Some((tls, last)) = last
            && tls.spiffe.as_ref() == Some(&peer)
            && Arc::ptr_eq(last, identity)
            && tls.former.is_some() == former.is_some()
        {
            return Transport::Tls(tls.clone());
        }
        let config = match former.zip(former_peer) {
            Some((former, former_peer)) => {
                identity.client_config_with_former(&peer, former, &former_peer)
            }
            None => identity.client_config(&peer),
        };
        match config {
            Ok(config) => Transport::Tls(UpstreamTls {
                config,
                // A name that is none in DNS goes unsaid; who is dialled is proven by the ID alone.
                server_name: ServerName::try_from(service.server_name(domain))
                    .unwrap_or_else(|_| client::no_server_name()),
                spiffe: Some(peer),
                identity: Some(Arc::clone(identity)),
                former: former.cloned(),
            }),
            Err(error) => Transport::Broken(error.to_string().into()),
        }
    }
}

/// Why nothing can be dialled that is registered with these names.
fn unresolved(hosts: BTreeSet<&HostName>) -> Arc<str> {
    const SHOWN: usize = 3;
    let shown: Vec<&str> = hosts.iter().take(SHOWN).map(|host| host.as_str()).collect();
    let more = if hosts.len() > SHOWN { ", …" } else { "" };
    format!(
        "its instances are registered with names that resolve to nothing that may be dialled: {}{more}",
        shown.join(", ")
    )
    .into()
}
