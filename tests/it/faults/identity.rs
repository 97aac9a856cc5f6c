//! Leaf and roots that do not come, or do not serve: the last good identity stays, and its state says so.

use rcgen::KeyPair;
use serde_json::{Value, json};

use super::faulty::{Case, Faulty, altered, each_is_told};
use super::{Scene, register, register_with_own_sidecar};
use crate::consul::{Altered, Between, Consul, Fault, certificate};
use crate::upstream::{Upstream, echo};

const LEAF: &[&str] = &["agent/connect/ca/leaf/"];
const ROOTS: &[&str] = &["agent/connect/ca/roots"];

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_that_does_not_come_or_does_not_serve_leaves_the_last_one_in_its_place() {
    let half = Case {
        what: "half",
        paths: LEAF,
        fault: Fault::Half,
    };
    let anothers = Case {
        what: "of another service",
        paths: LEAF,
        fault: Fault::Instead("/v1/agent/connect/ca/leaf/another"),
    };
    let cases = [
        half,
        anothers,
        altered("expired", LEAF, expired),
        altered("500", LEAF, |answer| answer.status = 500),
        altered("403", LEAF, |answer| answer.status = 403),
        altered("null", LEAF, |answer| answer.body = "null".to_owned()),
        altered("nothing", LEAF, Altered::empty),
        altered("another's key", LEAF, |answer| {
            let key = KeyPair::generate().unwrap().serialize_pem();
            set(answer, "PrivateKeyPEM", json!(key));
        }),
        altered("no key", LEAF, |answer| {
            set(answer, "PrivateKeyPEM", json!(""))
        }),
        altered("no certificate", LEAF, |answer| {
            set(answer, "CertPEM", Value::Null)
        }),
        altered("rubbish", LEAF, |answer| {
            set(
                answer,
                "CertPEM",
                json!("-----BEGIN CERTIFICATE-----\nrubbish\n"),
            );
        }),
    ];
    each_is_told("mesh identity", cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_that_do_not_come_or_do_not_serve_leave_the_last_ones_in_their_place() {
    let cases = [
        altered("500", ROOTS, |answer| answer.status = 500),
        altered("null", ROOTS, |answer| answer.body = "null".to_owned()),
        altered("null for a trust domain", ROOTS, |answer| {
            set(answer, "TrustDomain", Value::Null);
        }),
        altered("no trust domain", ROOTS, |answer| {
            set(answer, "TrustDomain", json!(""))
        }),
        altered("null for roots", ROOTS, |answer| {
            set(answer, "Roots", Value::Null)
        }),
        altered("no roots", ROOTS, |answer| set(answer, "Roots", json!([]))),
        altered("rubbish", ROOTS, |answer| {
            answer.edit(|roots| roots["Roots"][0]["RootCert"] = json!("rubbish"));
        }),
    ];
    each_is_told("mesh identity", cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_leaf_and_roots_do_not_come_new_services_get_their_routes() {
    let Some(faulty) = Faulty::start().await else {
        return;
    };
    let refuse = altered("500", &["agent/connect/"], |answer| answer.status = 500);
    faulty.between.fail(refuse.paths, refuse.fault);
    faulty.scene.is_degraded("mesh identity").await;
    assert_eq!(faulty.scene.state("consul").await, "ready");
    let consul = &faulty.agent.consul;
    let sidecar = Upstream::tls(consul.leaf("simple02").server(), echo).await;
    register(consul, "simple02", sidecar.address, sidecar.address.port());
    let is_reached = async || faulty.scene.way.echo("simple02.domain.com").await.is_ok();
    faulty
        .scene
        .until("a new service is reached", is_reached)
        .await;
    faulty.scene.works("it has no new identity").await;
}

/// CVE-2020-8664 of Envoy: what to verify came late, and until then nothing was verified.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_gets_no_identity_is_not_ready_until_it_comes() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let _sidecar = register_with_own_sidecar(&consul).await;
    let between = Between::before(&consul).await;
    for (paths, fault) in [
        (
            LEAF,
            Fault::Altered(|answer: &mut Altered| answer.status = 500),
        ),
        (
            ROOTS,
            Fault::Altered(|answer| set(answer, "TrustDomain", json!(""))),
        ),
    ] {
        between.fail(paths, fault);
        let scene = Scene::start_unready(&between.keys, "").await;
        scene
            .until("the catalog is known", async || {
                scene.state("consul").await == "ready"
            })
            .await;
        assert_eq!(scene.readyz().await.0, 503);
        let identity = scene.state("mesh identity").await;
        assert!(identity.starts_with("not ready: "), "{identity}");
        assert!(!scene.serves().await);
        between.heal();
        scene.is_ready().await;
        scene
            .until("its route serves", async || scene.serves().await)
            .await;
    }
}

/// A leaf for the same, with a key that fits, of years ago.
fn expired(answer: &mut Altered) {
    answer.edit(|leaf| {
        let mut params = certificate(&[leaf["ServiceURI"].as_str().unwrap()]);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 4);
        let key = KeyPair::generate().unwrap();
        leaf["CertPEM"] = json!(params.self_signed(&key).unwrap().pem());
        leaf["PrivateKeyPEM"] = json!(key.serialize_pem());
    });
}

fn set(answer: &mut Altered, field: &str, value: Value) {
    answer.edit(|all| all[field] = value);
}
