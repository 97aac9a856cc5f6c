//! What is logged of what is asked for in vain: once, when it changes, and in bounds.

use std::path::Path;

use super::*;
use crate::config;
use crate::rule::Rule;
use crate::snapshot::Source;
use crate::snapshot::compile::{Inputs, compile, update};
use crate::snapshot::service::{ServiceRoute, ServiceTls, Skipped};

struct Scene {
    inputs: Inputs,
    snapshot: Snapshot,
    told: Told,
    now: Instant,
}

impl Scene {
    fn new() -> Self {
        let inputs = Inputs {
            config: config::parse("[consul]\n", Path::new("portcullis.toml"))
                .unwrap()
                .config,
            listeners: BTreeMap::new(),
            own: Arc::default(),
            certificates: Arc::default(),
            policies: BTreeMap::new(),
            client_configs: BTreeMap::new(),
            transport_configs: BTreeMap::new(),
            addresses: BTreeMap::new(),
            restored: BTreeMap::new(),
            identity: None,
            denied: BTreeSet::new(),
        };
        let mut scene = Self {
            snapshot: compile(&inputs, None, &Metrics::new()),
            inputs,
            told: Told::default(),
            now: Instant::now(),
        };
        assert_eq!(scene.look(), []);
        scene
    }

    fn put(&mut self, services: impl IntoIterator<Item = Service>) {
        let services = services
            .into_iter()
            .map(|service| (service.key.clone(), Some(Arc::new(service))));
        let services = services.collect();
        self.snapshot = update(&self.inputs, &self.snapshot, &services, &Metrics::new());
    }

    fn remove(&mut self, name: &str) {
        let gone = BTreeMap::from([(key(name), None)]);
        self.snapshot = update(&self.inputs, &self.snapshot, &gone, &Metrics::new());
    }

    fn look(&mut self) -> Vec<News> {
        self.told.follow(&self.snapshot, self.now)
    }
}

fn key(name: &str) -> ServiceKey {
    ServiceKey {
        source: Source::Consul,
        place: None,
        name: name.into(),
    }
}

/// A service of which this is skipped, of these instances, and that has a route if it is for a host.
fn service(name: &str, host: Option<&str>, skipped: &[(&str, &str)]) -> Service {
    let route = |host: &str| ServiceRoute {
        name: format!("{name}@consul").into(),
        rule: Rule::parse(&format!("HostSNI(`{host}`)")).unwrap(),
        priority: None,
        tls: ServiceTls::PassThrough,
        upstream: "none@consul".into(),
        middlewares: Vec::new(),
        mesh: false,
        broken: None,
        warnings: Vec::new(),
    };
    let skipped = skipped.iter().map(|(instance, reason)| Skipped {
        instance: Some((*instance).into()),
        router: None,
        reason: (*reason).into(),
    });
    Service {
        key: key(name),
        upstreams: Vec::new(),
        routes: host.into_iter().map(route).collect(),
        middlewares: BTreeMap::new(),
        skipped: skipped.collect(),
        restored: None,
        notes: Vec::new(),
    }
}

fn route(name: &str) -> RouteId {
    RouteId {
        source: Source::Consul,
        name: format!("{name}@consul").into(),
    }
}

#[test]
fn what_is_skipped_of_a_service_is_logged_when_it_changes_and_when_it_ends() {
    let mut scene = Scene::new();
    let good = service("good", Some("good.test"), &[]);
    let bad = service("bad", None, &[("1", "no rule"), ("2", "no port")]);
    scene.put([good, bad.clone()]);
    assert_eq!(scene.look(), [News::Skipped(Arc::new(bad))]);
    assert_eq!(scene.look(), []);

    // Of other instances, and in another order: nothing that its owner does not know.
    scene.put([service("bad", None, &[("3", "no port"), ("4", "no rule")])]);
    assert_eq!(scene.look(), []);
    let other = service("bad", None, &[("3", "no port")]);
    scene.put([other.clone()]);
    assert_eq!(scene.look(), [News::Skipped(Arc::new(other.clone()))]);

    scene.put([service("bad", Some("bad.test"), &[])]);
    assert_eq!(scene.look(), [News::Mended(key("bad"))]);
    scene.put([other.clone()]);
    assert_eq!(scene.look(), [News::Skipped(Arc::new(other))]);
    // Who is gone has not got what he asked for.
    scene.remove("bad");
    assert_eq!(scene.look(), []);
    assert!(scene.told.skipped.is_empty());
}

#[test]
fn a_route_in_the_shadow_of_another_is_logged_once_a_pair_and_when_it_is_out_of_it() {
    let mut scene = Scene::new();
    let both = Some("both.test");
    scene.put([service("b", both, &[]), service("c", both, &[])]);
    assert_eq!(scene.look(), [News::Shadowed(route("c"), route("b"))]);
    scene.put([service("b", both, &[])]);
    assert_eq!(scene.look(), []);
    scene.put([service("a", both, &[])]);
    let of_a = |name: &str| News::Shadowed(route(name), route("a"));
    assert_eq!(scene.look(), [of_a("b"), of_a("c")]);
    assert_eq!(scene.told.shadowed.len(), 2);

    scene.remove("a");
    scene.remove("c");
    assert_eq!(scene.look(), [News::Lit(route("b"))]);
    assert!(scene.told.shadowed.is_empty());
}

#[test]
fn ten_thousand_spoilt_services_are_a_few_lines_and_a_number_again_and_again() {
    let mut scene = Scene::new();
    let all = |reason: &str| {
        let names = (0..10_000).map(|n| format!("s{n}"));
        let services = names.map(|name| service(&name, None, &[("1", reason)]));
        services.collect::<Vec<_>>()
    };
    scene.put(all("one"));
    let news = scene.look();
    let most = usize::try_from(AT_ONCE).unwrap();
    assert_eq!(news.len(), most + 1);
    assert_eq!(news[most], News::More(10_000 - most, 0, 0));

    for n in 0..3 {
        scene.now += BETWEEN_LOOKS;
        scene.put(all(&format!("another {n}")));
        let news = scene.look();
        assert_eq!(news.len(), 2);
        assert_eq!(news[1], News::More(9_999, 0, 0));
    }
    let mended = (0..10_000).map(|n| service(&format!("s{n}"), None, &[]));
    scene.put(mended);
    assert_eq!(scene.look(), [News::More(0, 0, 10_000)]);
    scene.now += EACH * AT_ONCE;
    scene.put(all("once more").into_iter().take(most));
    assert_eq!(scene.look().len(), most);
}
