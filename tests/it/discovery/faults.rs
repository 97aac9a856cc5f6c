//! What a Consul that fails, hangs, lies or forgets does to what is served: nothing.

use std::time::Duration;

use portcullis::status::State;
use serde_json::json;
use tokio::time::Instant;

use super::{Watched, route};
use crate::fake_consul::{FakeConsul, Fault, World};

pub(super) fn register(world: &mut World, name: &str) {
    let tags = route(&format!("{name}.example"));
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    world.register(name, &tags);
}

/// Two services, all told.
pub(super) async fn ready() -> (FakeConsul, Watched) {
    let consul = FakeConsul::start().await;
    consul.change(|world| {
        register(world, "api");
        register(world, "web");
    });
    let mut watched = Watched::start(&consul.config());
    watched.until_ready().await;
    assert_eq!(watched.take_told(), ["not ready", "+api", "+web", "ready"]);
    (consul, watched)
}

#[tokio::test]
async fn a_gateway_is_ready_when_all_that_is_known_has_been_told() {
    let consul = FakeConsul::start().await;
    for n in 0..200 {
        consul.change(|world| register(world, &format!("s{n}")));
    }
    let mut watched = Watched::start(&consul.config());
    watched.until_ready().await;
    assert_eq!(watched.services.len(), 200);
    assert_eq!(watched.told.len(), 202);
    assert_eq!(watched.told[0], "not ready");
}

#[tokio::test]
async fn a_gateway_waits_for_a_consul_that_is_not_well_yet_and_says_why() {
    for (fault, why) in [
        (Fault::Status(500, "No cluster leader"), "No cluster leader"),
        (
            Fault::Status(403, "Permission denied"),
            "needs service:read and node:read",
        ),
        (Fault::Close, "broke off"),
        (Fault::Body("[[["), "is not what was expected"),
    ] {
        let consul = FakeConsul::start().await;
        consul.change(|world| {
            register(world, "web");
            world.faults.insert("", fault.clone());
        });
        let mut watched = Watched::start(&consul.config());
        watched
            .until(
                "it says why",
                |watched| matches!(&watched.state, State::NotReady(text) if text.contains(why)),
            )
            .await;
        consul.change(|world| world.faults.clear());
        watched.until_ready().await;
        assert!(watched.has("web"), "{fault:?}");
    }
}

#[tokio::test]
async fn what_was_known_is_served_while_consul_fails_and_what_changed_is_told_before_it_is_ready_again()
 {
    for fault in [
        Fault::Status(500, "No cluster leader"),
        Fault::Status(403, "Permission denied"),
        Fault::Status(301, ""),
        Fault::Close,
        Fault::Body("\"maintenance\""),
    ] {
        let (consul, mut watched) = ready().await;
        consul.fail("", fault.clone());
        watched.until_degraded("what was known").await;
        consul.change(|world| {
            register(world, "new");
            world.deregister("api");
            world.faults.clear();
        });
        watched.until_ready().await;
        let mut told = watched.take_told();
        assert_eq!(told.pop().unwrap(), "ready", "{fault:?}");
        told.retain(|told| told != "degraded");
        told.sort();
        assert_eq!(told, ["+new", "-api"], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_consul_that_hangs_is_noticed_and_loses_nothing() {
    let (consul, mut watched) = ready().await;
    consul.fail("", Fault::Hang);
    watched.during(Duration::from_secs(20)).await;
    assert_eq!(watched.services.len(), 2);
    let State::Degraded(why) = &watched.state else {
        panic!("{:?}", watched.told)
    };
    assert!(why.contains("does not answer"), "{why}");
    // The polls that hang end in their own time.
    consul.change(|world| world.faults.clear());
    watched.during(Duration::from_secs(600)).await;
    assert_eq!(watched.state, State::Ready);
    let told = watched.take_told();
    assert!(
        told.iter().all(|told| !told.starts_with(['+', '-'])),
        "{told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_empty_catalog_is_asked_for_twice_in_consistent_mode_before_it_is_believed() {
    for empty in [json!({}), json!(null)] {
        let (consul, mut watched) = ready().await;
        consul.asked();
        consul.change(|world| {
            world.catalog = Some(empty);
            world.services.clear();
            world.index[0] += 1;
        });
        let start = Instant::now();
        watched.until_degraded("2 of 2 services").await;
        watched.until_ready().await;
        assert!(start.elapsed() >= Duration::from_secs(5));
        assert_eq!(watched.take_told(), ["degraded", "-api", "-web", "ready"]);
        let asked = consul.asked();
        let consistent = asked.iter().filter(|asked| asked.contains("?consistent"));
        assert_eq!(consistent.count(), 2, "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_consul_that_forgot_everything_takes_no_route_down() {
    let (consul, mut watched) = ready().await;
    consul.fail("", Fault::Close);
    watched.until_degraded("what was known").await;
    consul.change(|world| {
        world.faults.clear();
        world.services.clear();
        world.index = [3, 3];
    });
    watched
        .until_degraded("as if the server had lost its data")
        .await;
    watched.during(Duration::from_secs(3600)).await;
    assert_eq!(watched.services.len(), 2);
    // A service that registers again is what it was; the other is missed on.
    consul.change(|world| register(world, "web"));
    watched.until_degraded("1 of 2 services").await;
    watched.during(Duration::from_secs(590)).await;
    assert!(watched.has("api"));
    consul.change(|world| register(world, "api"));
    watched.until_ready().await;
}

#[tokio::test(start_paused = true)]
async fn services_that_acls_hide_are_kept() {
    let (consul, mut watched) = ready().await;
    consul.change(|world| {
        world.filtered = true;
        world.deregister("api");
    });
    watched.until_degraded("1 of 2 services").await;
    watched.during(Duration::from_secs(590)).await;
    assert!(watched.has("api"));
    consul.change(|world| {
        world.filtered = false;
        world.index[0] += 1;
    });
    watched
        .until("it is believed", |watched| !watched.has("api"))
        .await;
    watched.until_ready().await;
}

#[tokio::test(start_paused = true)]
async fn what_acls_hide_for_long_is_given_up_and_what_is_left_is_served() {
    let (consul, mut watched) = ready().await;
    consul.change(|world| {
        world.filtered = true;
        world.deregister("api");
    });
    watched
        .until_degraded("it is believed when all answers of 10 minutes have said so")
        .await;
    watched.during(Duration::from_secs(630)).await;
    assert!(!watched.has("api") && watched.has("web"));
    let State::Noted(note) = &watched.state else {
        panic!("{:?}", watched.state)
    };
    assert!(note.contains("ACLs hide some"), "{note}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_a_leader_takes_nothing_down() {
    let (consul, mut watched) = ready().await;
    consul.change(|world| {
        world.known_leader = false;
        world.deregister("api");
    });
    watched.until_degraded("knows no leader").await;
    assert!(watched.has("api"));
    // No poll tells that there is a leader again: it is asked.
    consul.change(|world| world.known_leader = true);
    watched.until_ready().await;
    assert!(!watched.has("api"));
}

#[tokio::test(start_paused = true)]
async fn one_service_that_cannot_be_read_holds_no_other_up_and_keeps_what_it_had() {
    let (consul, mut watched) = ready().await;
    let before = watched.endpoints("web");
    consul.change(|world| {
        world
            .faults
            .insert("/service/web", Fault::Status(500, "rpc error"));
        register(world, "web");
        register(world, "api");
    });
    watched
        .until("the other is told", |watched| {
            watched.told.contains(&"+api".to_owned())
        })
        .await;
    watched
        .until_degraded("\"web\": consul answered /v1/health/service/web with the status 500")
        .await;
    assert_eq!(watched.endpoints("web"), before);
    // A gateway that starts now comes up without it.
    let mut other = Watched::start(&consul.config());
    other.until_degraded("\"web\"").await;
    let mut told = other.take_told();
    told.dedup();
    assert_eq!(told, ["not ready", "+api", "not ready", "degraded"]);
    consul.change(|world| world.faults.clear());
    watched.until_ready().await;
    other.until_ready().await;
    assert_ne!(watched.endpoints("web"), before);
    assert!(other.has("web"));
}

#[tokio::test(start_paused = true)]
async fn an_entry_of_rubbish_hides_no_other() {
    let (consul, mut watched) = ready().await;
    consul.change(|world| {
        let entries = world
            .services
            .get_mut("web")
            .unwrap()
            .as_array_mut()
            .unwrap();
        entries.extend([
            json!({"Node": {"Node": "n2"}, "Service": {"ID": "\u{1b}", "Service": "web", "Port": []}}),
        ]);
        world.catalog =
            Some(json!({"web": route("web.example"), "api": route("api.example"), "x": 7}));
        world.index[0] += 1;
    });
    watched
        .until("it is listed", |watched| {
            watched.services["web"].skipped.len() == 1
        })
        .await;
    assert_eq!(watched.endpoints("web").len(), 1);
    assert_eq!(watched.services["web"].routes.len(), 1);
    assert_eq!(watched.state, State::Ready);
}

/// After a quiet time `web` gets another port, and no other tag; how long it takes until that is told. What is asked meanwhile
/// stays to be looked at.
async fn moves(consul: &FakeConsul, watched: &mut Watched) -> Duration {
    let before = watched.endpoints("web");
    watched.during(Duration::from_secs(10)).await;
    consul.asked();
    let start = Instant::now();
    consul.change(|world| register(world, "web"));
    watched
        .until("it is told", |watched| watched.endpoints("web") != before)
        .await;
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_change_without_a_trace_is_found_on_its_node_and_nothing_else_is_read() {
    let (consul, mut watched) = ready().await;
    for is_first in [true, false] {
        let time = moves(&consul, &mut watched).await;
        assert!(time < Duration::from_millis(10), "{time:?}");
        let asked = consul.asked();
        let reads = |name| asked.iter().filter(|asked| asked.ends_with(name)).count();
        assert_eq!(reads("/node-services/n1"), 1, "{asked:?}");
        assert_eq!(reads("/service/web"), 1, "{asked:?}");
        // The first look has nothing to compare with.
        assert_eq!(reads("/service/api"), usize::from(is_first), "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_of_which_nothing_is_told_hides_a_change_for_seconds_only() {
    let (consul, mut watched) = ready().await;
    consul.fail("/node-services/", Fault::Hang);
    let time = moves(&consul, &mut watched).await;
    assert!(time < Duration::from_secs(6), "{time:?}");
}

#[tokio::test(start_paused = true)]
async fn a_poll_of_the_catalog_that_never_ends_hides_a_new_service_for_a_minute_only() {
    let (consul, mut watched) = ready().await;
    watched.during(Duration::from_secs(10)).await;
    consul.fail("catalog/services?index=", Fault::Hang);
    consul.change(|world| register(world, "new"));
    watched.during(Duration::from_secs(61)).await;
    assert!(watched.has("new"));
}

/// Where what it asked for cannot be read any more, another route may not take its clients.
#[tokio::test]
async fn of_an_entry_that_cannot_be_read_the_tags_count_and_nothing_is_dialled() {
    let (consul, mut watched) = ready().await;
    let rule = |watched: &Watched| watched.services["web"].routes[0].rule.to_string();
    let (before, all) = (rule(&watched), watched.endpoints("web"));
    consul.change(|world| {
        let mut broken = world.services["web"][0].clone();
        broken["Service"]["Port"] = json!("22");
        let mut other = world.services["web"][0].clone();
        other["Service"]["ID"] = json!("other");
        other["Service"]["Tags"] = json!([]);
        other["Service"]["Port"] = json!(7);
        world
            .services
            .insert("web".to_owned(), json!([broken, other]));
        world.index[0] += 1;
    });
    watched
        .until("the other is dialled", |watched| {
            watched.endpoints("web") != all
        })
        .await;
    assert_eq!(watched.endpoints("web"), ["127.0.0.1:7*1"]);
    assert_eq!(rule(&watched), before);
    consul.change(|world| {
        let tags = json!([["no text"]]);
        world.services.get_mut("web").unwrap()[0]["Service"]["Tags"] = tags;
        world.index[0] += 1;
    });
    watched
        .until_degraded("nobody can say what they ask for")
        .await;
    assert_eq!(rule(&watched), before);
}

/// As with a Consul before 1.7, or where nodes are more than services.
#[tokio::test(start_paused = true)]
async fn where_nodes_tell_nothing_a_change_is_found_at_once_and_churn_is_read_once_a_second() {
    let (consul, mut watched) = ready().await;
    consul.fail("/node-services/", Fault::Status(404, "no such endpoint"));
    let time = moves(&consul, &mut watched).await;
    assert!(time < Duration::from_millis(10), "{time:?}");
    for _ in 0..50 {
        consul.change(|world| world.index[0] += 1);
        watched.during(Duration::from_millis(100)).await;
    }
    let asked = consul.asked();
    let reads = asked.iter().filter(|asked| asked.contains("/service/web"));
    assert!((5..=9).contains(&reads.count()), "{asked:?}");
}

#[tokio::test]
async fn the_watch_ends_with_its_receiver() {
    let (_consul, mut watched) = ready().await;
    watched.changes.close();
    watched.tasks.join_next().await.unwrap().unwrap();
}
