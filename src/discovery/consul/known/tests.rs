//! What follows from Consul's answers, without a socket.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod hidden;
mod mesh;
mod noted;
mod stored;
mod wakes;

use std::time::Duration;

use serde_json::{Value, json};

use super::super::super::exposure::Wanted;
use super::super::listing::listing;
use super::*;
use crate::api::consul::TokenId;

/// A Consul of JSON, and what is known of it.
struct World {
    known: Known,
    now: Instant,
    index: u64,
    filtered: bool,
    /// By name, what `health/service` and `health/connect` answer.
    service: BTreeMap<&'static str, Value>,
    connect: BTreeMap<&'static str, Value>,
    /// The names that were read, in order.
    read: Vec<String>,
}

fn tags(name: &str) -> Value {
    json!([
        "traefik.enable=true",
        format!("traefik.tcp.routers.{name}.rule=HostSNI(`{name}.example`)"),
        format!("traefik.tcp.routers.{name}.tls=true")
    ])
}

fn instance(node: &str, name: &str, tags: &Value, port: u16) -> Value {
    json!({"Node": {"Node": node, "Address": "10.0.0.1", "Datacenter": "dc1"}, "Checks": [],
        "Service": {"ID": name, "Service": name, "Port": port, "Tags": tags, "ModifyIndex": 7}})
}

impl World {
    /// Nothing is known yet.
    fn new(exposure: Exposure) -> Self {
        World {
            known: Known::new(
                &Place::default(),
                exposure,
                Duration::from_secs(60),
                Told::default(),
            ),
            now: Instant::now(),
            index: 10,
            filtered: false,
            service: BTreeMap::new(),
            connect: BTreeMap::new(),
            read: Vec::new(),
        }
    }

    /// Two services with routes and one without, on two nodes, all known.
    fn known() -> Self {
        let mut world = Self::new(Exposure::default());
        world.service = BTreeMap::from([
            ("api", json!([instance("n1", "api", &tags("api"), 1)])),
            ("web", json!([instance("n2", "web", &tags("web"), 2)])),
        ]);
        world.catalog(json!({"api": tags("api"), "consul": [], "web": tags("web")}));
        world.checks(json!([]));
        assert_eq!(world.settle(), ["service api", "service web"]);
        // The sweeps that follow from here on are told by the tests that mean them.
        world.now += Duration::from_secs(10);
        world
    }

    fn catalog(&mut self, names: Value) {
        self.answer(names, false);
    }

    fn answer(&mut self, names: Value, asked: bool) {
        let answer = Answer {
            value: serde_json::from_value(names).unwrap(),
            index: self.index,
            known_leader: true,
            last_contact: Duration::ZERO,
            stale: false,
            filtered: self.filtered,
            default_deny: false,
            token: TokenId::default(),
        };
        self.known.catalog(answer, asked, self.now);
    }

    /// Each is `node, id, service, index`.
    fn checks(&mut self, rows: Value) {
        let rows = rows.as_array().unwrap().iter();
        let checks: Value = rows
            .map(|row| json!({"Node": row[0], "CheckID": row[1], "ServiceName": row[2], "ModifyIndex": row[3]}))
            .collect();
        self.known.checks(
            serde_json::from_value(checks).unwrap(),
            self.index,
            self.now,
        );
    }

    /// Reads all that is to be read now; returns what it told of.
    fn settle(&mut self) -> Vec<String> {
        while let Some((name, mesh)) = self.known.next(self.now) {
            self.read(&name, mesh);
        }
        self.told()
    }

    fn read(&mut self, name: &Arc<str>, mesh: bool) {
        self.read.push(name.to_string());
        let entries = |answers: &BTreeMap<&str, Value>| {
            let answer = answers.get(&**name).cloned().unwrap_or(json!([]));
            serde_json::from_value(answer).unwrap()
        };
        let connect = mesh.then(|| entries(&self.connect));
        let service = entries(&self.service);
        let mut listing = listing(
            &Place::default(),
            name,
            &service,
            connect.as_ref(),
            &"dc1".into(),
            Default::default(),
        );
        listing.found.filtered = self.filtered;
        self.known.read(name, Ok(listing), self.now);
    }

    fn told(&mut self) -> Vec<String> {
        let changes = self.known.changes().into_iter();
        let told = changes.map(|change| match change {
            Change::Service(service) => format!("service {}", service.key.name),
            Change::Gone(key) => format!("gone {}", key.name),
            other => panic!("{other:?}"),
        });
        told.collect()
    }

    /// What was read since this was last called, sorted.
    fn take_read(&mut self) -> Vec<String> {
        let mut read = std::mem::take(&mut self.read);
        read.sort();
        read
    }

    fn service(&self, name: &str) -> &Service {
        &self.known.services[name].told
    }

    /// What is told of after the failures of some seconds.
    fn trouble_after(&mut self, seconds: u64) -> String {
        for _ in 0..seconds {
            assert_eq!(self.settle(), [""; 0]);
            self.now += Duration::from_secs(1);
        }
        self.known.trouble().unwrap()
    }
}

#[test]
fn a_service_that_only_defines_a_middleware_is_told_of_and_stays_where_it_cannot_be_asked_for() {
    let mut world = World::known();
    let tags = json!(["traefik.tcp.middlewares.m.inflightconn.amount=3"]);
    let edge = json!([instance("n1", "edge", &tags, 3)]);
    world.service.insert("edge", edge);
    world.index += 1;
    world.catalog(json!({"api": self::tags("api"), "edge": tags, "web": self::tags("web")}));
    assert_eq!(world.settle(), ["service edge"]);
    assert!(world.service("edge").middlewares["m@consul"].is_ok());
    let now = world.now;
    world.known.refused(&"edge".into(), "400".to_owned(), now);
    assert_eq!(world.told(), [""; 0]);
}

#[test]
fn a_service_that_consul_lists_and_cannot_be_asked_for_troubles_its_owner_alone() {
    let mut world = World::known();
    let refused = |world: &mut World, name: &str| {
        world
            .known
            .refused(&name.into(), "400".to_owned(), world.now);
        world.told()
    };
    assert_eq!(refused(&mut world, ".."), ["service .."]);
    assert_eq!(&*world.service("..").skipped[0].reason, "400");
    assert_eq!(refused(&mut world, ".."), [""; 0], "it is no news");
    assert_eq!(world.known.trouble(), None);

    // One that served before stays, and is told of.
    for _ in 0..3 {
        assert_eq!(refused(&mut world, "web"), [""; 0]);
    }
    assert!(world.known.trouble().unwrap().contains("web"));
}

#[test]
fn nothing_is_read_before_both_polls_have_answered_and_then_all_that_is_routed_or_wanted() {
    let wanted = Wanted {
        upstream: "files".into(),
        mesh: false,
    };
    let mut world = World::new(Exposure {
        wanted: BTreeMap::from([("db".to_owned(), vec![wanted])]),
        ..Exposure::default()
    });
    world.service = BTreeMap::from([("web", json!([instance("n1", "web", &tags("web"), 1)]))]);
    world.catalog(json!({"web": tags("web"), "consul": [], "http": ["traefik.http.routers.a.rule=Host(`a`)"]}));
    assert_eq!(world.known.next(world.now), None);
    assert!(!world.known.is_whole());
    world.checks(json!([]));
    assert_eq!(
        world.settle(),
        ["service http", "service db", "service web"]
    );
    assert_eq!(world.take_read(), ["db", "web"]);
    assert!(world.known.is_whole());
    assert_eq!(world.service("db").upstreams[0].endpoints, []);
    assert_eq!(world.service("web").routes.len(), 1);
}

#[test]
fn only_what_changed_is_read_and_only_what_is_new_is_told() {
    let mut world = World::known();
    world.take_read();
    world.index += 1;
    let mut other = tags("web");
    other[1] = json!("traefik.tcp.routers.web.rule=HostSNI(`other.example`)");
    world
        .service
        .insert("web", json!([instance("n2", "web", &other, 2)]));
    world.catalog(json!({"api": tags("api"), "consul": [], "web": other}));
    assert_eq!(world.settle(), ["service web"]);
    assert_eq!(world.take_read(), ["web"]);
    // Checks of a service, of a node, and of a service that is none of ours.
    world.checks(json!([["n2", "c", "web", 3], ["n9", "c", "db", 3]]));
    assert_eq!(world.settle(), [""; 0], "it is as it was");
    assert_eq!(world.take_read(), ["web"]);
    world.checks(json!([["n2", "c", "web", 3], ["n1", "serfHealth", "", 4]]));
    assert_eq!(world.settle(), [""; 0]);
    assert_eq!(world.take_read(), ["api"]);
    world.checks(json!([["n2", "c", "web", 3], ["n1", "serfHealth", "", 4]]));
    world.settle();
    assert_eq!(world.take_read(), [""; 0]);
}

#[test]
fn after_a_failure_nothing_is_whole_before_all_has_been_read_again() {
    let mut world = World::known();
    for _ in 0..3 {
        world.known.start_anew(world.now);
        world.settle();
        assert!(world.known.is_whole());
    }
    // It fails and recovers all the time, and has to wait for its turn.
    world.known.start_anew(world.now);
    world.settle();
    assert!(!world.known.is_whole());
    world.now = world.known.wake_at().unwrap();
    world.settle();
    assert!(world.known.is_whole());
}

#[test]
fn what_changes_while_it_is_read_is_read_again() {
    let mut world = World::known();
    world.take_read();
    let check = |index: u64| json!([["n2", "c", "web", index]]);
    world.checks(check(2));
    let (name, mesh) = world.known.next(world.now).unwrap();
    world.checks(check(3));
    assert_eq!(world.known.next(world.now), None);
    world.read(&name, mesh);
    world.settle();
    assert_eq!(world.take_read(), ["web", "web"]);
}

#[test]
fn a_service_without_a_router_is_gone_and_so_is_one_that_left() {
    let mut world = World::known();
    world.index += 1;
    world
        .service
        .insert("web", json!([instance("n2", "web", &json!([]), 2)]));
    world.catalog(json!({"api": tags("api"), "consul": [], "web": []}));
    assert_eq!(world.settle(), ["gone web"]);
    world.index += 1;
    world
        .service
        .insert("web", json!([instance("n2", "web", &tags("web"), 2)]));
    world.catalog(json!({"api": tags("api"), "web": tags("web")}));
    assert_eq!(world.settle(), ["service web"]);
    world.take_read();
    world.index += 1;
    world.catalog(json!({"web": tags("web")}));
    assert_eq!(world.told(), ["gone api"]);
    world.settle();
    assert_eq!(world.take_read(), [""; 0]);
}

#[test]
fn services_that_are_all_missing_are_kept_until_it_is_certain() {
    let mut world = World::known();
    world.index += 1;
    let all = std::mem::take(&mut world.service);
    world.catalog(json!({}));
    assert_eq!(world.known.ask_at(world.now), Some(world.now));
    assert_eq!(world.settle(), [""; 0]);
    assert!(world.known.trouble().unwrap().contains("2 of 2 services"));
    // Sweeps go on, and find nothing.
    world.now += Duration::from_secs(60);
    assert_eq!(world.settle(), [""; 0]);
    // They come back as they were, or some do.
    world.service = all;
    world.catalog(json!({"web": tags("web"), "api": tags("api")}));
    assert_eq!(world.settle(), [""; 0]);
    assert_eq!(world.known.trouble(), None);
    world.service.clear();
    for _ in 0..2 {
        assert_eq!(world.told(), [""; 0]);
        world.answer(json!({}), true);
        world.now += Duration::from_secs(5);
    }
    assert_eq!(world.told(), ["gone api", "gone web"]);
    assert_eq!(world.known.ask_at(world.now), None);
}

#[test]
fn a_service_that_the_file_wants_is_told_without_endpoints_when_it_left() {
    let mut world = World::known();
    let wanted = Wanted {
        upstream: "files".into(),
        mesh: true,
    };
    world.known.exposure.wanted = BTreeMap::from([("web".to_owned(), vec![wanted])]);
    world.index += 1;
    world.service.remove("web");
    world.catalog(json!({"api": tags("api")}));
    assert_eq!(world.settle(), ["service web"]);
    assert_eq!(world.service("web").routes, []);
    assert_eq!(world.service("web").upstreams[0].endpoints, []);
}

#[test]
fn a_service_that_is_listed_and_empty_stays_as_it_was_and_is_told_of() {
    let mut world = World::known();
    world.service.insert("web", json!(null));
    world.checks(json!([["n2", "c", "web", 3]]));
    assert_eq!(world.settle(), [""; 0]);
    assert_eq!(world.known.trouble(), None, "it may have left a moment ago");
    assert!(!world.known.is_whole());
    let trouble = world.trouble_after(4);
    assert!(trouble.contains("nothing is listed of it"), "{trouble}");
    world
        .service
        .insert("web", json!([{"Node": 1}, {"Node": 2}]));
    let trouble = world.trouble_after(10);
    assert!(
        trouble.contains("of 2 of its entries nobody can say"),
        "{trouble}"
    );
    assert!(trouble.contains("\"web\""), "{trouble}");
    assert!(world.known.is_whole(), "one broken service holds nobody up");
    world
        .service
        .insert("web", json!([instance("n2", "web", &tags("web"), 3)]));
    world.now += Duration::from_secs(30);
    assert_eq!(world.settle(), ["service web"]);
    assert_eq!(world.known.trouble(), None);
}

#[test]
fn all_instances_out_of_order_are_believed_at_once() {
    let mut world = World::known();
    let mut sick = instance("n2", "web", &tags("web"), 2);
    sick["Checks"] = json!([{"CheckID": "c", "Status": "critical"}]);
    world.service.insert("web", json!([sick]));
    world.checks(json!([["n2", "c", "web", 3]]));
    assert_eq!(world.settle(), ["service web"]);
    assert_eq!(world.service("web").upstreams[0].endpoints, []);
    assert_eq!(world.service("web").routes.len(), 1);
}
