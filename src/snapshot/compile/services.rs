//! The services that discovery tells of: their routes and upstreams, and which of two gets a name that both ask for.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustls_pki_types::ServerName;

use super::Compiler;
use crate::name::MeshService;
use crate::snapshot::service::{Service, ServiceKey, ServiceRoute, ServiceTls, ServiceUpstream};
use crate::snapshot::table::RouteId;
use crate::snapshot::upstream::{Transport, Upstream, UpstreamTls};
use crate::snapshot::{Action, Claim, Listeners, Route};
use crate::tls::client;
use crate::tls::mesh::Identity;

impl Compiler<'_> {
    /// A service as it is now. The end is the same in whatever order services come and go.
    pub(super) fn service(&mut self, service: &Arc<Service>) {
        let key = &service.key;
        let mut last = None;
        self.next.services.change(key.clone(), |slot| {
            last = slot.replace(Arc::clone(service));
        });
        self.count(last.as_deref(), Some(service));
        let is_news = !last.as_ref().is_some_and(|last| Arc::ptr_eq(last, service));
        if let Some(last) = last.filter(|_| is_news) {
            let kept: BTreeSet<Claim> = claims(service).collect();
            for claim in claims(&last).filter(|claim| !kept.contains(claim)) {
                self.release(key, claim);
            }
        }
        for upstream in &service.upstreams {
            if self.gets(key, Claim::Upstream(Arc::clone(&upstream.name))) {
                let upstream = self.service_upstream(key, upstream, is_news);
                self.set_upstream(upstream);
            }
        }
        for route in &service.routes {
            if self.gets(key, Claim::Route(route_id(key, route))) {
                let route = self.service_route(key, route);
                self.set_route(route);
            }
        }
    }

    /// A service that is no more.
    pub(super) fn gone(&mut self, key: &ServiceKey) {
        let mut last = None;
        self.next
            .services
            .change(key.clone(), |slot| last = slot.take());
        self.count(last.as_deref(), None);
        for claim in last.iter().flat_map(|last| claims(last)) {
            self.release(key, claim);
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

    /// Whether services give the name its meaning: one of their own, or one that the file has for a service.
    pub(super) fn is_for_services(&self, upstream: &str) -> bool {
        match self.inputs.config.upstreams.get(upstream) {
            Some(config) => config.service.is_some(),
            None => upstream.contains('@'),
        }
    }

    /// Whether a service gets what it claims. One that does not gets it when those before it are gone.
    fn gets(&mut self, key: &ServiceKey, claim: Claim) -> bool {
        if let Claim::Upstream(name) = &claim
            && !self.is_for_services(name)
        {
            return false;
        }
        let Some(owner) = self.owner(&claim).filter(|owner| *owner != key) else {
            return true;
        };
        let gets = key < owner;
        let loser = if gets { owner } else { key }.clone();
        let rivals = Arc::make_mut(&mut self.next.rivals);
        rivals.entry(claim).or_default().insert(loser);
        gets
    }

    /// A service claims it no more: the next of those that do gets it.
    fn release(&mut self, key: &ServiceKey, claim: Claim) {
        let mut rivals = match self.next.rivals.contains_key(&claim) {
            true => Arc::make_mut(&mut self.next.rivals)
                .remove(&claim)
                .unwrap_or_default(),
            false => BTreeSet::new(),
        };
        rivals.remove(key);
        if self.owner(&claim) == Some(key) {
            let heir = rivals.pop_first();
            match heir.and_then(|heir| self.next.services.find(&heir).cloned()) {
                Some(heir) => self.give(&heir, &claim),
                None => self.take_away(&claim),
            }
        }
        if !rivals.is_empty() {
            Arc::make_mut(&mut self.next.rivals).insert(claim, rivals);
        }
    }

    fn owner(&self, claim: &Claim) -> Option<&ServiceKey> {
        match claim {
            Claim::Route(id) => self.next.table.route(id)?.service.as_ref(),
            Claim::Upstream(name) => self.next.upstream(name)?.service.as_ref(),
        }
    }

    fn give(&mut self, service: &Service, claim: &Claim) {
        let key = &service.key;
        match claim {
            Claim::Upstream(name) => {
                // Of two of one name the last, as in `service`.
                if let Some(upstream) = service.upstreams.iter().rfind(|u| u.name == *name) {
                    let upstream = self.service_upstream(key, upstream, true);
                    self.set_upstream(upstream);
                }
            }
            Claim::Route(id) => {
                if let Some(route) = service.routes.iter().rfind(|r| r.name == id.name) {
                    let route = self.service_route(key, route);
                    self.set_route(route);
                }
            }
        }
    }

    fn take_away(&mut self, claim: &Claim) {
        match claim {
            Claim::Route(id) => self.remove_route(id),
            Claim::Upstream(name) => match self.inputs.config.upstreams.get(&**name) {
                // One that stands in the file stays, with nothing to dial.
                Some(config) => {
                    let upstream = self.file_upstream(name, config);
                    self.set_upstream(upstream);
                }
                None => self.remove_upstream(Arc::clone(name)),
            },
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
            warnings: route.warnings.clone(),
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
        let transport = match &upstream.mesh {
            Some(service) => self.mesh(&upstream.name, service, is_news),
            None if wants_mesh => Transport::Broken("its service is not in the mesh".into()),
            None => Transport::Plain,
        };
        let mut made = Upstream::new(
            Arc::clone(&upstream.name),
            upstream.endpoints.clone(),
            transport,
            Arc::default(),
        );
        made.service = Some(key.clone());
        made.empty.clone_from(&upstream.empty);
        made
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

fn claims(service: &Service) -> impl Iterator<Item = Claim> {
    let upstreams = service.upstreams.iter();
    let routes = service.routes.iter();
    upstreams
        .map(|upstream| Claim::Upstream(Arc::clone(&upstream.name)))
        .chain(routes.map(|route| Claim::Route(route_id(&service.key, route))))
}

fn route_id(key: &ServiceKey, route: &ServiceRoute) -> RouteId {
    RouteId {
        source: key.source,
        name: Arc::clone(&route.name),
    }
}
