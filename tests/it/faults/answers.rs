//! Answers of Consul about its catalog that are bad, as no real agent gives them on demand.

use serde_json::Value;

use super::faulty::{Case, Faulty, altered, each_is_told};
use super::register;
use crate::consul::{Altered, Fault};

/// Everything that is asked of the catalog.
const CATALOG: &[&str] = &["catalog/", "health/"];

/// The names alone.
const NAMES: &[&str] = &["catalog/"];

/// The instances of services.
const INSTANCES: &[&str] = &["health/service/", "health/connect/"];

const EVERYTHING: &[&str] = &[""];

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_refuses_to_answer_takes_no_route_away() {
    let reset = Case {
        what: "a reset",
        paths: EVERYTHING,
        fault: Fault::Reset,
    };
    let cases = [
        altered("500", EVERYTHING, |answer| {
            refuse(answer, 500, "No cluster leader")
        }),
        altered("403", EVERYTHING, |answer| {
            refuse(answer, 403, "ACL not found")
        }),
        altered("429", EVERYTHING, |answer| refuse(answer, 429, "slow down")),
        altered("a pause of a second", EVERYTHING, |answer| {
            refuse(answer, 429, "slow down");
            answer.set("Retry-After", "1");
        }),
        reset,
    ];
    each_is_told("consul", cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_answer_takes_no_route_away() {
    let Some(faulty) = Faulty::start().await else {
        return;
    };
    let silence = Case {
        what: "silence",
        paths: EVERYTHING,
        fault: Fault::Hang,
    };
    faulty.stands(silence).await;
    faulty.between.heal();
    faulty.hears_of("simple02").await;
    faulty.scene.is_ready().await;
    // One that lasts is told of.
    faulty.tells(silence, "consul").await;
    faulty.hears_of("simple03").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_read_takes_no_route_away() {
    let faults = [("half", Fault::Half), ("without end", Fault::Endless)];
    let [half, endless] = faults.map(|(what, fault)| Case {
        what,
        paths: CATALOG,
        fault,
    });
    let chunks = Case {
        what: "chunks that are none",
        paths: CATALOG,
        fault: Fault::Chunks,
    };
    let cases = [
        half,
        endless,
        chunks,
        altered("no JSON", CATALOG, |answer| {
            answer.body = "<html>".to_owned()
        }),
        altered("another JSON", CATALOG, |answer| {
            answer.body = "[[{}], 5]".to_owned()
        }),
        altered("no body", CATALOG, |answer| answer.body.clear()),
    ];
    each_is_told("consul", cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_suddenly_lists_nothing_takes_no_route_away() {
    let null = |answer: &mut Altered| answer.body = "null".to_owned();
    let cases = [
        altered("nothing", CATALOG, Altered::empty),
        altered("null", CATALOG, null),
        altered("no names", NAMES, Altered::empty),
        altered("null for names", NAMES, null),
        altered("filtered", CATALOG, |answer| {
            answer.empty();
            answer.set("X-Consul-Results-Filtered-By-ACLs", "true");
        }),
        altered("no leader", CATALOG, |answer| {
            answer.empty();
            answer.set("X-Consul-KnownLeader", "false");
        }),
        altered("an older index", CATALOG, |answer| {
            answer.empty();
            answer.set("X-Consul-Index", "1");
        }),
    ];
    each_is_told("consul", cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_the_token_may_not_see_any_more_are_served_on() {
    let Some(faulty) = Faulty::start().await else {
        return;
    };
    let hidden = altered("hidden", INSTANCES, |answer| {
        answer.empty();
        answer.set("X-Consul-Results-Filtered-By-ACLs", "true");
    });
    let before = faulty.between.asked().len();
    faulty.between.fail(hidden.paths, hidden.fault);
    // Something has changed: its neighbours are read again.
    let address = faulty.agent.sidecar.address;
    register(&faulty.agent.consul, "simple02", address, address.port());
    let read_again = async || {
        let asked = faulty.between.asked();
        let mut later = asked.iter().skip(before);
        later.any(|path| path.contains("/health/connect/simple01"))
    };
    faulty.scene.until("it is read again", read_again).await;
    faulty.stands(hidden).await;
    faulty
        .scene
        .until("it is told which", async || {
            let told = faulty.scene.state("consul").await;
            told.starts_with("degraded: ") && told.contains("simple01")
        })
        .await;
    faulty.between.heal();
    faulty.scene.is_ready().await;
    faulty.hears_of("simple02").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_goes_back_or_is_none_is_asked_about_without_haste_and_hides_no_change() {
    let Some(faulty) = Faulty::start().await else {
        return;
    };
    let before = faulty.between.asked().len();
    for (name, case) in [
        (
            "simple02",
            altered("1", EVERYTHING, |answer| answer.set(INDEX, "1")),
        ),
        (
            "simple03",
            altered("0", EVERYTHING, |answer| answer.set(INDEX, "0")),
        ),
        (
            "simple04",
            altered("-1", EVERYTHING, |answer| answer.set(INDEX, "-1")),
        ),
        (
            "simple05",
            altered("none", EVERYTHING, |answer| answer.unset(INDEX)),
        ),
    ] {
        faulty.stands(case).await;
        faulty.hears_of(name).await;
        faulty.between.heal();
        faulty.scene.is_ready().await;
    }
    let asked = faulty.between.asked();
    let mut later = asked.iter().skip(before);
    let is_anew = |path: &String| path == "/v1/catalog/services";
    assert!(later.any(is_anew), "{asked:?}");
    // No trouble to anybody; but whoever wonders finds it.
    let said = faulty.scene.logged("INFO");
    let back = |line: &Value| {
        line["message"] == "an index went back: everything is asked for anew"
            && line["path"] == "/v1/catalog/services"
    };
    assert!(said.iter().any(back), "{said:?}");
}

const INDEX: &str = "X-Consul-Index";

fn refuse(answer: &mut Altered, status: u16, why: &str) {
    answer.status = status;
    answer.body = why.to_owned();
}
