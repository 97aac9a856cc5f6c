//! What becomes of a service's routes and upstreams as it comes, changes and goes.

use std::time::SystemTime;

use super::*;
use crate::config::ConsulService;
use crate::name::{MeshService, SpiffeId};
use crate::rule::Rule;
use crate::snapshot::service::{ServiceRoute, ServiceTls, ServiceUpstream, Skipped};
use crate::tls::test_certs::Ca;

pub(super) fn key(name: &str) -> ServiceKey {
    ServiceKey {
        place: None,
        source: Source::Consul,
        name: name.into(),
    }
}

#[test]
fn a_service_that_is_emptied_keeps_its_routes_which_refuse() {
    let mut desk = desk();
    let mut web = usual("web", "10.0.1.1:80");
    web.restored = Some(std::time::SystemTime::UNIX_EPOCH);
    desk.learn([web.clone()]);
    let restored = |desk: &Desk| desk.snapshot.upstream("web@consul").unwrap().restored;
    assert_eq!(restored(&desk), web.restored);
    desk.learn([web.emptied(&"too old".into())]);
    assert!(desk.dials("web@consul").is_empty());
    let routes = desk.snapshot.table.routes();
    let route = routes.iter().find(|route| &*route.name == "web@consul");
    let action = &route.unwrap().action;
    assert!(
        matches!(action, Action::Broken(why) if why == "too old"),
        "{action:?}"
    );
    assert!(desk.snapshot.gone.is_empty());
    web.restored = None;
    desk.learn([web]);
    assert_eq!(desk.dials("web@consul"), ["10.0.1.1:80"]);
    assert_eq!(restored(&desk), None);
}

/// A service that asks for nothing.
pub(super) fn bare(name: &str) -> Service {
    Service {
        key: key(name),
        upstreams: Vec::new(),
        routes: Vec::new(),
        middlewares: BTreeMap::new(),
        skipped: Vec::new(),
        restored: None,
        notes: Vec::new(),
    }
}

pub(super) fn upstream(name: &str, endpoints: &[&str]) -> ServiceUpstream {
    let endpoints = endpoints.iter().map(|address| Endpoint {
        address: address.parse().unwrap(),
        configured: (*address).into(),
        weight: 1,
    });
    ServiceUpstream {
        dialling: Ok(Default::default()),
        name: name.into(),
        endpoints: endpoints.collect(),
        named: Vec::new(),
        mesh: None,
        empty: None,
        check: None,
    }
}

pub(super) fn asked(name: &str, rule: &str, upstream: &str) -> ServiceRoute {
    ServiceRoute {
        name: name.into(),
        rule: Rule::parse(rule).unwrap(),
        priority: None,
        tls: ServiceTls::PassThrough,
        upstream: upstream.into(),
        broken: None,
        middlewares: Vec::new(),
        mesh: false,
        warnings: Vec::new(),
    }
}

pub(super) fn in_mesh(name: &str) -> Option<MeshService> {
    Some(MeshService {
        partition: None,
        namespace: "default".into(),
        datacenter: "dc1".into(),
        service: name.into(),
    })
}

/// `NAME.test` to one endpoint, as most services are.
pub(super) fn usual(name: &str, endpoint: &str) -> Service {
    let place = format!("{name}@consul");
    Service {
        upstreams: vec![upstream(&place, &[endpoint])],
        routes: vec![asked(&place, &format!("HostSNI(`{name}.test`)"), &place)],
        ..bare(name)
    }
}

/// A file with a route to an upstream that stands for a service of Consul.
pub(super) fn standing_for_a_service(mesh: bool) -> Inputs {
    let mut inputs = inputs(
        "[routes.web]\nhost = \"web.test\"\npassthrough = true\nupstream = \"web\"\n\
         [upstreams.web]\naddress = \"10.9.9.9:9\"\n",
    );
    let web = inputs.config.upstreams.get_mut("web").unwrap();
    web.endpoints.clear();
    web.service = Some(ConsulService {
        place: None,
        name: "web".to_owned(),
        mesh,
    });
    inputs
}

pub(super) fn identity() -> Arc<Identity> {
    identity_in("mesh.test", None)
}

pub(super) fn identity_in(domain: &str, former: Option<&Arc<Identity>>) -> Arc<Identity> {
    let ca = Ca::new("mesh");
    let issued = ca.issue(&["portcullis"]);
    let id = format!("spiffe://{domain}/ns/default/dc/dc1/svc/portcullis");
    Arc::new(Identity {
        id: SpiffeId::parse(&id).unwrap(),
        certificate: Arc::new(issued.certified_key()),
        roots: ca.roots(),
        not_after: SystemTime::now(),
        former: former.cloned(),
    })
}

/// The inputs, the metrics and the snapshot of a gateway that learns.
pub(super) struct Desk {
    pub(super) inputs: Inputs,
    metrics: Arc<Metrics>,
    pub(super) snapshot: Snapshot,
}

impl Desk {
    pub(super) fn new(inputs: Inputs) -> Self {
        let metrics = Metrics::new();
        let snapshot = compile(&inputs, None, &metrics);
        Self {
            inputs,
            metrics,
            snapshot,
        }
    }

    /// Services as they are now, in one publication.
    pub(super) fn learn<const N: usize>(&mut self, services: [Service; N]) {
        let services = services.map(|service| (service.key.clone(), Some(Arc::new(service))));
        self.update(&services.into());
    }

    pub(super) fn forget(&mut self, name: &str) {
        self.update(&[(key(name), None)].into());
    }

    fn update(&mut self, services: &BTreeMap<ServiceKey, Option<Arc<Service>>>) {
        self.snapshot = update(&self.inputs, &self.snapshot, services, &self.metrics);
    }

    pub(super) fn compile(&mut self) {
        self.snapshot = compile(&self.inputs, Some(&self.snapshot), &self.metrics);
    }

    pub(super) fn gets(&self, host: &str) -> Option<String> {
        route(&self.snapshot, host).map(|route| route.name.to_string())
    }

    pub(super) fn dials(&self, upstream: &str) -> Vec<String> {
        addresses(&self.snapshot, upstream)
    }

    pub(super) fn upstream(&self, name: &str) -> Arc<Upstream> {
        Arc::clone(self.snapshot.upstream(name).unwrap())
    }
}

pub(super) fn desk() -> Desk {
    Desk::new(inputs(ROUTES))
}

#[test]
fn the_routes_and_upstreams_of_a_service_come_change_and_go() {
    let mut desk = desk();
    assert_eq!(desk.gets("web.test"), None);
    desk.learn([usual("web", "10.0.1.1:80")]);
    assert_eq!(desk.snapshot.generation, 2);
    assert_eq!(desk.gets("web.test").as_deref(), Some("web@consul"));
    assert_eq!(desk.dials("web@consul"), ["10.0.1.1:80"]);
    let first = desk.snapshot.clone();

    let mut changed = usual("web", "10.0.1.2:80");
    changed.routes = vec![asked("new@consul", "HostSNI(`new.test`)", "web@consul")];
    changed.upstreams.push(upstream("canary@consul", &[]));
    changed.skipped.push(Skipped {
        instance: None,
        router: Some("odd".into()),
        reason: "its rule is empty".into(),
    });
    desk.learn([changed.clone()]);
    assert_eq!(desk.gets("web.test"), None);
    assert_eq!(desk.gets("new.test").as_deref(), Some("new@consul"));
    assert_eq!(desk.dials("web@consul"), ["10.0.1.2:80"]);
    assert!(desk.dials("canary@consul").is_empty());
    assert_eq!(**desk.snapshot.service(&key("web")).unwrap(), changed);
    assert!(
        route(&first, "web.test").is_some() && first.upstream("canary@consul").is_none(),
        "the old snapshot is as it was"
    );

    desk.forget("web");
    assert_eq!(desk.gets("new.test"), None);
    assert!(desk.snapshot.upstream("web@consul").is_none());
    assert!(desk.snapshot.upstream("canary@consul").is_none());
    assert!(desk.snapshot.services().is_empty());
    assert_eq!(
        desk.gets("one.test").as_deref(),
        Some("one"),
        "the file stays"
    );
    drop(first);
    assert!(!desk.metrics.encode().contains("@consul"));
}

#[test]
fn a_service_that_nobody_knew_goes_without_a_trace() {
    let mut desk = desk();
    desk.learn([usual("web", "10.0.1.1:80")]);
    desk.forget("nobody");
    assert_eq!(desk.snapshot.services().len(), 1);
    assert_eq!(desk.gets("web.test").as_deref(), Some("web@consul"));
}

#[test]
fn services_are_counted_by_what_became_of_what_they_asked_for() {
    let mut desk = desk();
    let skipped = Skipped {
        instance: None,
        router: None,
        reason: "it asks for what there is not".into(),
    };
    let partly = Service {
        skipped: vec![skipped.clone()],
        ..usual("partly", "10.0.1.1:80")
    };
    let in_vain = Service {
        skipped: vec![skipped],
        ..bare("in_vain")
    };
    let routed = || usual("routed", "10.0.1.1:80");
    desk.learn([routed(), partly, in_vain, bare("named")]);
    desk.learn([routed()]);
    desk.compile();
    let counts = |desk: &Desk| -> Vec<(&str, usize)> {
        let standings = desk.snapshot.standings().iter();
        standings
            .map(|((_, standing), count)| (standing.as_str(), *count))
            .collect()
    };
    let one_each = [
        ("routed", 1),
        ("partly", 1),
        ("skipped", 1),
        ("unrouted", 1),
    ];
    assert_eq!(counts(&desk), one_each);
    desk.forget("partly");
    desk.learn([usual("in_vain", "10.0.1.1:80")]);
    let after = [
        ("routed", 2),
        ("partly", 0),
        ("skipped", 0),
        ("unrouted", 1),
    ];
    assert_eq!(counts(&desk), after);
}

#[test]
fn what_a_service_asks_for_is_what_its_route_is() {
    let mut desk = Desk::new(terminated());
    let mut web = usual("web", "10.0.1.1:80");
    web.routes[0].priority = Some(7);
    web.routes[0].warnings = vec!["it is dialled plainly".into()];
    web.routes[0].tls = ServiceTls::Terminate(Some("strict".to_owned()));
    desk.learn([web.clone()]);
    let made = Arc::clone(route(&desk.snapshot, "web.test").unwrap());
    assert_eq!(
        (made.source, made.service.clone()),
        (Source::Consul, Some(key("web")))
    );
    assert_eq!(
        (made.priority, &*made.warnings),
        (7, &["it is dialled plainly".into()][..])
    );
    assert!(
        matches!(&made.action, Action::Terminate { options: Some(name), .. } if &**name == "strict")
    );

    web.routes[0].priority = None;
    web.routes[0].tls = ServiceTls::Terminate(Some("lost".to_owned()));
    desk.learn([web.clone()]);
    let made = Arc::clone(route(&desk.snapshot, "web.test").unwrap());
    assert_eq!(made.priority, made.rule.priority());
    assert_eq!(
        made.action,
        Action::Broken("option set `lost` does not exist".to_owned())
    );

    web.routes[0].broken = Some("web has no sidecar".into());
    desk.learn([web]);
    assert_eq!(
        action(&desk.snapshot, "web.test"),
        Action::Broken("web has no sidecar".to_owned())
    );
}

#[test]
fn a_change_leaves_what_it_does_not_touch_and_an_endpoint_no_route() {
    let mut desk = desk();
    desk.learn([usual("web", "10.0.1.1:80"), usual("db", "10.0.2.1:80")]);
    let before = desk.snapshot.clone();
    desk.learn([usual("web", "10.0.1.2:80")]);
    for host in ["one.test", "two.test", "web.test", "db.test"] {
        assert!(
            Arc::ptr_eq(
                route(&before, host).unwrap(),
                route(&desk.snapshot, host).unwrap()
            ),
            "{host}"
        );
    }
    for name in ["a", "b", "db@consul"] {
        assert!(
            Arc::ptr_eq(before.upstream(name).unwrap(), &desk.upstream(name)),
            "{name}"
        );
    }
    let web = before.upstream("web@consul").unwrap();
    assert!(!Arc::ptr_eq(web, &desk.upstream("web@consul")));
    assert!(Arc::ptr_eq(&web.state, &desk.upstream("web@consul").state));
}

#[test]
fn a_service_told_of_again_and_a_compile_of_everything_make_no_new_object() {
    let mut desk = Desk::new(standing_for_a_service(true));
    desk.inputs.identity = Some(identity());
    let mesh = |mut service: Service, name: &str| {
        service.upstreams[0].mesh = in_mesh("web");
        service.upstreams[0].name = name.into();
        service
    };
    let all = || {
        let mut web = mesh(usual("web", "10.0.3.1:80"), "web");
        web.upstreams.push(upstream("web@consul", &["10.0.1.1:80"]));
        [web, mesh(usual("db", "10.0.2.1:80"), "db@consul")]
    };
    desk.learn(all());
    let before = desk.snapshot.clone();
    desk.learn(all());
    desk.compile();
    assert_eq!(desk.snapshot.generation, before.generation + 2);
    for host in ["web.test", "db.test"] {
        let (before, now) = (route(&before, host), route(&desk.snapshot, host));
        assert!(Arc::ptr_eq(before.unwrap(), now.unwrap()), "{host}");
    }
    for name in ["web", "web@consul", "db@consul"] {
        assert!(
            Arc::ptr_eq(before.upstream(name).unwrap(), &desk.upstream(name)),
            "{name}"
        );
    }
}

#[test]
fn one_change_among_100_000_routes_shares_all_but_the_change() {
    let many = (0..100_000).map(|n| {
        let service = usual(&format!("s{n}"), "10.0.1.1:80");
        (service.key.clone(), Some(Arc::new(service)))
    });
    let mut desk = desk();
    desk.update(&many.collect());
    let shared = |desk: &Desk, old: &Snapshot| {
        let now = &desk.snapshot;
        let (exact, all) = now.table.parts_not_shared(&old.table);
        let upstreams = now.upstreams.parts_not_shared(&old.upstreams);
        let services = now.services.parts_not_shared(&old.services);
        (exact, all, upstreams, services)
    };
    let old = desk.snapshot.clone();
    desk.learn([usual("s7", "10.0.1.2:80")]);
    assert_eq!(shared(&desk, &old), (0, 0, 1, 1), "an endpoint");
    let old = desk.snapshot.clone();
    desk.learn([usual("new", "10.0.1.1:80")]);
    assert_eq!(shared(&desk, &old), (1, 1, 1, 1), "a service comes");
    let old = desk.snapshot.clone();
    desk.forget("s9");
    assert_eq!(shared(&desk, &old), (1, 1, 1, 1), "a service goes");
    let s8 = old.upstream("s8@consul").unwrap();
    assert!(Arc::ptr_eq(s8, &desk.upstream("s8@consul")));
}
