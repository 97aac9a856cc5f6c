//! A watch over Consul that follows another: what that one knew is held, and what is found no more is gone.

use std::time::Duration;

use portcullis::status::State;
use tokio::time::Instant;

use super::faults::{ready, register};
use super::{Told, Watched};
use crate::fake_consul::FakeConsul;

/// What a watch knew that has been stopped: two services.
async fn known() -> Told {
    let (_consul, watched) = ready().await;
    let told = watched.stop().await;
    assert_eq!(told.services.len(), 2);
    assert!(told.is_complete && told.replaces_stored());
    told
}

#[tokio::test]
async fn what_was_known_before_is_not_told_again_and_what_is_not_found_is_gone() {
    let before = known().await;
    let consul = FakeConsul::start().await;
    consul.change(|world| {
        world.index[0] = 11;
        register(world, "web");
        register(world, "new");
    });
    consul.change(|world| world.index[0] = 3);
    let mut watched = Watched::start_after(before, &consul.config());
    watched.until_ready().await;
    let mut told = watched.take_told();
    assert_eq!(told.pop().unwrap(), "ready", "it was never anything less");
    told.sort();
    assert_eq!(told, ["+new", "-api"]);
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_to_a_watch_that_follows_another_is_doubted_first() {
    let before = known().await;
    let consul = FakeConsul::start().await;
    let start = Instant::now();
    let mut watched = Watched::start_after(before, &consul.config());
    watched.until_degraded("2 of 2 services").await;
    watched.until_ready().await;
    assert!(start.elapsed() >= Duration::from_secs(5));
    assert_eq!(watched.take_told(), ["degraded", "-api", "-web", "ready"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_a_leader_takes_nothing_down_that_was_known_before() {
    let before = known().await;
    let consul = FakeConsul::start().await;
    consul.change(|world| {
        register(world, "web");
        world.known_leader = false;
    });
    let mut watched = Watched::start_after(before, &consul.config());
    watched.until_degraded("knows no leader").await;
    watched.during(Duration::from_secs(60)).await;
    assert!(watched.has("api") && watched.has("web"));
    consul.change(|world| {
        world.known_leader = true;
        world.index[0] += 1;
    });
    watched.until_ready().await;
    assert!(!watched.has("api") && watched.has("web"));
}

#[tokio::test]
async fn while_the_next_consul_fails_what_was_known_is_served_and_the_gateway_is_not_unready() {
    let before = known().await;
    let consul = FakeConsul::start().await;
    consul.fail("", crate::fake_consul::Fault::Close);
    let mut watched = Watched::start_after(before, &consul.config());
    watched.until_degraded("what was known").await;
    assert_eq!(watched.take_told(), ["degraded"]);
    assert!(matches!(watched.state, State::Degraded(_)));
    assert_eq!(watched.services.len(), 2);
    // And so it is for one that follows before anything was heard.
    let told = watched.stop().await;
    assert_eq!(told.services.len(), 2);
    assert!(told.is_complete);
}
