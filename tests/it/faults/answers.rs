//! Answers of Consul that are bad, as no real agent gives them on demand.

use std::time::Duration;

use serde_json::Value;

use super::{ROUTE, Scene, register, register_with_own_sidecar};
use crate::consul::{Altered, Between, Consul, Fault};
use crate::upstream::Upstream;

/// Everything that is asked of the catalog.
const CATALOG: &[&str] = &["catalog/", "health/"];

const EVERYTHING: &[&str] = &[""];

/// In a second of a fault. Four questions wait for changes; each is asked a few times at once and then four times a second,
/// and two reads of each service are made at most once a second: that and a sixth.
const MOST_QUESTIONS: usize = 42;

/// A gateway that asks a real agent through what makes the faults.
struct Faulty {
    scene: Scene,
    between: Between,
    consul: Consul,
    _sidecar: Upstream,
}

impl Faulty {
    async fn start() -> Option<Self> {
        let consul = Consul::start()?;
        let sidecar = register_with_own_sidecar(&consul).await;
        let between = Between::before(&consul).await;
        Some(Self {
            scene: Scene::start(between.address, "").await,
            between,
            consul,
            _sidecar: sidecar,
        })
    }

    /// A second of this fault: the route stands, connections and tunnels go on, and no question is asked in haste.
    async fn stands(&self, what: &str, paths: &'static [&'static str], fault: Fault) {
        let mut tunnel = self.scene.tunnel().await;
        let before = self.scene.route(ROUTE).await;
        self.between.fail(paths, fault);
        let questions = self.between.questions();
        let late = tokio::time::Instant::now() + Duration::from_secs(1);
        while tokio::time::Instant::now() < late {
            self.scene.works(what).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let questions = self.between.questions() - questions;
        let asked = || self.between.asked();
        assert!(
            questions <= MOST_QUESTIONS,
            "{what}: {questions}: {:?}",
            asked()
        );
        assert_eq!(
            self.scene.route(ROUTE).await["endpoints"],
            before["endpoints"],
            "{what}"
        );
        tunnel.lives().await;
    }

    /// The same, and the gateway says that something is wrong, while it is.
    async fn stands_and_tells(&self, what: &str, paths: &'static [&'static str], fault: Fault) {
        self.stands(what, paths, fault).await;
        let told = self.scene.is_degraded("consul").await;
        println!("{what}: {told}");
        self.between.heal();
        self.scene.is_ready().await;
        self.scene.works(what).await;
    }

    /// Whether a service that comes now has its route soon.
    async fn hears_of(&self, name: &'static str) {
        let address = self._sidecar.address;
        register(&self.consul, name, address, address.port());
        let route = format!("{name}@consul");
        let is_there = async || !self.scene.route(&route).await.is_null();
        self.scene
            .until("a new service has its route", is_there)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_refuses_to_answer_takes_no_route_away() {
    let Some(faulty) = Faulty::start().await else {
        return;
    };
    for (what, fault) in [
        (
            "500",
            Fault::Altered(|answer| refuse(answer, 500, "No cluster leader")),
        ),
        (
            "403",
            Fault::Altered(|answer| refuse(answer, 403, "ACL not found")),
        ),
        (
            "429",
            Fault::Altered(|answer| refuse(answer, 429, "slow down")),
        ),
        ("a reset", Fault::Reset),
    ] {
        faulty.stands_and_tells(what, EVERYTHING, fault).await;
    }
    faulty.hears_of("simple02").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_answer_takes_no_route_away() {
    let Some(faulty) = Faulty::start().await else {
        return;
    };
    faulty.stands("a silence", EVERYTHING, Fault::Hang).await;
    faulty.between.heal();
    faulty.hears_of("simple02").await;
    faulty.scene.is_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_read_takes_no_route_away() {
    let Some(faulty) = Faulty::start().await else {
        return;
    };
    for (what, fault) in [
        ("half an answer", Fault::Half),
        (
            "no JSON",
            Fault::Altered(|answer| answer.body = "<html>".to_owned()),
        ),
        (
            "the wrong JSON",
            Fault::Altered(|answer| answer.body = "[[{}], 5]".to_owned()),
        ),
        ("no body", Fault::Altered(|answer| answer.body.clear())),
    ] {
        faulty.stands_and_tells(what, CATALOG, fault).await;
    }
    faulty.hears_of("simple02").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_end_takes_no_route_away() {
    let Some(faulty) = Faulty::start().await else {
        return;
    };
    faulty
        .stands_and_tells("no end", CATALOG, Fault::Endless)
        .await;
    faulty.hears_of("simple02").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_suddenly_lists_nothing_takes_no_route_away() {
    let Some(faulty) = Faulty::start().await else {
        return;
    };
    for (what, paths, fault) in [
        ("nothing", CATALOG, Fault::Altered(Altered::empty)),
        (
            "null",
            CATALOG,
            Fault::Altered(|answer| answer.body = "null".to_owned()),
        ),
        ("no service", &["catalog/"], Fault::Altered(Altered::empty)),
        (
            "null for a service",
            &["catalog/"],
            Fault::Altered(|answer| answer.body = "null".to_owned()),
        ),
        (
            "null for its tags",
            &["catalog/"],
            Fault::Altered(|answer| {
                answer.edit(|services| services["simple01"] = Value::Null);
            }),
        ),
        (
            "filtered",
            CATALOG,
            Fault::Altered(|answer| {
                answer.empty();
                answer.set("X-Consul-Results-Filtered-By-ACLs", "true");
            }),
        ),
        (
            "no leader",
            CATALOG,
            Fault::Altered(|answer| {
                answer.empty();
                answer.set("X-Consul-KnownLeader", "false");
            }),
        ),
        (
            "an older index",
            CATALOG,
            Fault::Altered(|answer| {
                answer.empty();
                answer.set("X-Consul-Index", "1");
            }),
        ),
    ] {
        faulty.stands_and_tells(what, paths, fault).await;
    }
    faulty.hears_of("simple02").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_the_token_may_not_see_any_more_are_served_on() {
    let Some(faulty) = Faulty::start().await else {
        return;
    };
    let hidden = Fault::Altered(|answer| {
        answer.empty();
        answer.set("X-Consul-Results-Filtered-By-ACLs", "true");
    });
    let before = faulty.between.asked().len();
    let paths = &["health/service/", "health/connect/"];
    faulty.between.fail(paths, hidden);
    // Something has changed: its neighbours are read again.
    let address = faulty._sidecar.address;
    register(&faulty.consul, "simple02", address, address.port());
    let read_again = async || {
        let asked = faulty.between.asked();
        asked[before..]
            .iter()
            .any(|path| path.contains("/health/connect/simple01"))
    };
    faulty.scene.until("it is read again", read_again).await;
    faulty.stands_and_tells("hidden", paths, hidden).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_goes_back_or_is_none_is_asked_about_without_haste_and_hides_no_change() {
    let Some(faulty) = Faulty::start().await else {
        return;
    };
    for (name, what, fault) in [
        (
            "simple02",
            "1",
            Fault::Altered(|answer| answer.set("X-Consul-Index", "1")),
        ),
        (
            "simple03",
            "0",
            Fault::Altered(|answer| answer.set("X-Consul-Index", "0")),
        ),
        (
            "simple04",
            "-1",
            Fault::Altered(|answer| answer.set("X-Consul-Index", "-1")),
        ),
        (
            "simple05",
            "none",
            Fault::Altered(|answer| {
                answer
                    .headers
                    .retain(|(name, _)| !name.eq_ignore_ascii_case("X-Consul-Index"));
            }),
        ),
    ] {
        faulty.stands(what, EVERYTHING, fault).await;
        faulty.hears_of(name).await;
        faulty.between.heal();
        faulty.scene.is_ready().await;
    }
}

fn refuse(answer: &mut Altered, status: u16, why: &str) {
    answer.status = status;
    answer.body = why.to_owned();
}
