//! What is kept on the disk: served, missed, doubted and given up as if it had been listed a moment ago.

use super::super::super::stored::Stored;
use super::*;
use crate::discovery::doubt::ASKED_AGAIN;
use crate::snapshot::service::Service;
use crate::state::{Opened, Settings, State};

struct Disk(tempfile::TempDir);

impl Disk {
    /// With what a world knows, confirmed.
    fn of(world: &mut World) -> Self {
        let disk = Self(tempfile::tempdir().unwrap());
        let (state, opened) = disk.open();
        world.known.keep(opened.part, None);
        // All is read once more, and kept.
        world.known.start_anew(world.now);
        world.settle();
        world.known.confirm();
        state.close();
        disk
    }

    fn open(&self) -> (State, Opened) {
        let settings = Settings {
            folder: self.0.path().join("state"),
            key_file: None,
            max_age: Settings::MAX_AGE,
        };
        let state = State::start(&settings, &["consul"], drop).unwrap();
        let opened = state.open("consul", "here");
        (state, opened)
    }

    /// What is kept, by name.
    fn names(&self) -> Vec<String> {
        let (state, opened) = self.open();
        state.close();
        let stored = opened.stored.unwrap().unwrap();
        let stored = Stored::read(&stored, &Place::default()).unwrap();
        stored.services.keys().map(ToString::to_string).collect()
    }
}

/// A gateway that starts with that disk.
fn started(disk: &Disk, exposure: Exposure) -> (World, State) {
    let mut world = World::new(exposure);
    let (state, Opened { part, stored }) = disk.open();
    let stored = stored.unwrap().unwrap();
    world.known.keep(
        part,
        Some(Stored::read(&stored, &Place::default()).unwrap()),
    );
    (world, state)
}

fn both() -> Value {
    json!({"api": tags("api"), "consul": [], "web": tags("web")})
}

#[test]
fn what_was_kept_is_served_and_the_same_is_told_as_consuls_own_when_it_answers() {
    let mut before = World::known();
    let disk = Disk::of(&mut before);
    let (mut world, _state) = started(&disk, Exposure::default());
    assert_eq!(world.told(), [""; 0], "consul has some time to answer");
    world.known.restore_all();
    assert_eq!(world.told(), ["service api", "service web"]);
    let kept = world.service("web").clone();
    assert!(kept.restored.is_some());
    assert_eq!(
        &Service {
            restored: None,
            ..kept
        },
        before.service("web")
    );
    assert!(world.known.is_restored() && !world.known.is_whole());

    world.service = before.service.clone();
    world.catalog(both());
    world.checks(json!([]));
    assert!(world.known.is_restored());
    assert_eq!(world.settle(), ["service api", "service web"]);
    assert_eq!(world.service("web"), before.service("web"));
    assert_eq!(world.take_read(), ["api", "web"]);
    assert!(world.known.is_whole() && !world.known.is_restored());
}

#[test]
fn what_is_too_old_at_the_start_is_restored_with_routes_that_refuse_and_nothing_to_dial() {
    let mut before = World::known();
    let disk = Disk::of(&mut before);
    let (mut world, state) = started(&disk, Exposure::default());
    // To the second below: it is older than nothing.
    state.set_max_age(std::time::Duration::ZERO);
    while world.known.judge_stored().is_ok() {
        std::thread::yield_now();
    }
    world.known.restore_all();
    assert_eq!(world.told(), ["service api", "service web"]);
    world.known.judge();
    assert_eq!(world.told(), [""; 0], "it was never told as good");
    let web = world.service("web");
    assert!(!web.routes.is_empty() && web.routes.iter().all(|route| route.broken.is_some()));
    assert!(web.upstreams.iter().all(|one| one.endpoints.is_empty()));
    assert!(world.known.refusal().is_some_and(|(_, is_all)| is_all));

    state.set_max_age(Settings::MAX_AGE);
    world.known.judge();
    assert_eq!(world.told(), ["service api", "service web"]);
    assert!(
        world
            .service("web")
            .routes
            .iter()
            .all(|route| route.broken.is_none())
    );
    assert_eq!(world.known.refusal(), None);
}

#[test]
fn a_consul_that_answers_at_once_is_all_that_counts() {
    let disk = Disk::of(&mut World::known());
    let (mut world, state) = started(&disk, Exposure::default());
    world.service = BTreeMap::from([("api", json!([instance("n1", "api", &tags("api"), 5)]))]);
    world.catalog(json!({"api": tags("api"), "consul": []}));
    world.checks(json!([]));
    assert_eq!(world.settle(), ["service api"]);
    world.known.restore_all();
    assert_eq!(
        world.told(),
        [""; 0],
        "one that is gone among others is gone"
    );
    world.known.confirm();
    state.close();
    assert_eq!(disk.names(), ["api"]);
}

#[test]
fn an_empty_consul_after_a_start_is_doubted_and_believed_by_the_same_rules() {
    let disk = Disk::of(&mut World::known());
    let (mut world, state) = started(&disk, Exposure::default());
    world.catalog(json!({"consul": []}));
    assert_eq!(world.told(), ["service api", "service web"], "at once");
    world.checks(json!([]));
    assert_eq!(world.settle(), [""; 0]);
    let trouble = world.known.trouble().unwrap();
    assert!(
        trouble.contains("no longer lists 2 of 2 services"),
        "{trouble}"
    );
    assert!(world.known.is_restored());
    world.known.confirm();
    world.answer(json!({"consul": []}), true);
    assert_eq!(world.told(), [""; 0]);
    world.now += ASKED_AGAIN;
    world.answer(json!({"consul": []}), true);
    assert_eq!(world.told(), ["gone api", "gone web"]);
    world.known.confirm();
    state.close();
    assert_eq!(disk.names(), [""; 0]);
}

#[test]
fn a_consul_that_lost_its_data_takes_nothing_away_that_was_kept() {
    let disk = Disk::of(&mut World::known());
    let (mut world, state) = started(&disk, Exposure::default());
    world.known.restore_all();
    world.told();
    world.index = 3;
    for _ in 0..4 {
        world.answer(json!({"consul": []}), true);
        world.checks(json!([]));
        assert_eq!(world.settle(), [""; 0]);
        world.known.confirm();
        world.now += 2 * ASKED_AGAIN;
    }
    assert!(world.known.trouble().unwrap().contains("lost its data"));
    state.close();
    assert_eq!(disk.names(), ["api", "web"]);
}

#[test]
fn todays_configuration_judges_what_was_kept() {
    let default = json!([
        "traefik.tcp.routers.all.rule=HostSNI(`*`)",
        "traefik.tcp.routers.all.tls=true"
    ]);
    let allowed = Exposure {
        allow_default_from_tags: true,
        ..Exposure::default()
    };
    let mut world = World::new(allowed.clone());
    world.service = BTreeMap::from([("all", json!([instance("n1", "all", &default, 1)]))]);
    world.catalog(json!({"all": default, "consul": []}));
    world.checks(json!([]));
    world.settle();
    assert_eq!(world.service("all").routes.len(), 1);
    let disk = Disk::of(&mut world);
    for (exposure, routes) in [(allowed, 1), (Exposure::default(), 0)] {
        let (mut world, _state) = started(&disk, exposure);
        world.known.restore_all();
        assert_eq!(world.service("all").routes.len(), routes);
    }
}

#[test]
fn a_service_that_asks_for_no_route_any_more_is_not_brought_back() {
    let disk = Disk::of(&mut World::known());
    let (mut world, _state) = started(&disk, Exposure::default());
    world.service = BTreeMap::from([("api", json!([instance("n1", "api", &tags("api"), 1)]))]);
    world.catalog(json!({"api": tags("api"), "consul": [], "web": []}));
    world.known.restore_all();
    assert_eq!(world.told(), ["service api"]);
}
