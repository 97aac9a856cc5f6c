//! How Consul is asked: which of its servers may answer, how old an answer may be, and how often in quiet times.

use std::time::Duration;

use portcullis::config::Consistency;

use super::Watched;
use super::faults::register;
use crate::fake_consul::FakeConsul;

/// A Consul with one service, and a watch that asks it so.
async fn asking(consistency: Consistency) -> (FakeConsul, Watched) {
    let consul = FakeConsul::start().await;
    consul.change(|world| register(world, "web"));
    let mut config = consul.config();
    config.catalog.consistency = consistency;
    let mut watched = Watched::start(&config);
    watched.until_ready().await;
    (consul, watched)
}

#[tokio::test]
async fn catalog_and_health_are_asked_as_the_operator_says() {
    for (consistency, word) in [
        (Consistency::Default, ""),
        (Consistency::Stale, "stale="),
        (Consistency::Consistent, "consistent="),
    ] {
        let (consul, _watched) = asking(consistency).await;
        let asked = consul.asked();
        assert!(asked.len() >= 3, "{asked:?}");
        for question in asked {
            assert!(question.contains(word), "{question}");
            let others = ["stale", "consistent"].map(|other| question.contains(other));
            assert_eq!(others.contains(&true), !word.is_empty(), "{question}");
        }
    }
}

#[tokio::test]
async fn what_a_server_says_that_is_cut_off_for_long_changes_nothing_until_it_is_heard_again() {
    for (consistency, stale) in [
        (Consistency::Stale, false),
        // As an agent with `discovery_max_stale` has it.
        (Consistency::Default, true),
        (Consistency::Consistent, true),
    ] {
        cut_off(consistency, stale).await;
    }
}

async fn cut_off(consistency: Consistency, stale: bool) {
    let (consul, mut watched) = asking(consistency).await;
    consul.change(|world| {
        world.stale = stale;
        world.last_contact = 10_001;
        world.deregister("web");
        register(world, "new");
    });
    watched.until_degraded("has not heard of its leader").await;
    watched.during(Duration::from_millis(300)).await;
    assert!(watched.has("web") && !watched.has("new"));
    consul.change(|world| world.last_contact = 10_000);
    watched.until_ready().await;
    watched
        .until("it is taken", |watched| {
            watched.has("new") && !watched.has("web")
        })
        .await;
}

#[tokio::test]
async fn how_old_a_leader_says_it_is_means_nothing() {
    let (consul, mut watched) = asking(Consistency::Default).await;
    consul.change(|world| {
        world.last_contact = 60_000;
        register(world, "new");
    });
    watched
        .until("it is taken", |watched| watched.has("new"))
        .await;
}

#[tokio::test(start_paused = true)]
async fn everything_is_read_again_as_often_as_the_operator_says() {
    let consul = FakeConsul::start().await;
    consul.change(|world| register(world, "web"));
    let mut config = consul.config();
    config.catalog.refresh_interval = Duration::from_secs(7);
    let mut watched = Watched::start(&config);
    watched.until_ready().await;
    watched.during(Duration::from_secs(10)).await;
    consul.asked();
    watched.during(Duration::from_secs(70)).await;
    let asked = consul.asked();
    let reads = asked
        .iter()
        .filter(|path| path.contains("health/service/web"));
    assert!((9..=11).contains(&reads.count()), "{asked:?}");
}
