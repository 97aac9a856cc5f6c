//! Leaf and roots that do not come, or do not serve: the last good identity stays, and its state says so.

use rcgen::KeyPair;
use serde_json::{Value, json};

use super::{NAME, Scene, register, register_with_own_sidecar};
use crate::consul::{Altered, Between, Consul, Fault};
use crate::upstream::Upstream;

const LEAF: &[&str] = &["agent/connect/ca/leaf/"];
const ROOTS: &[&str] = &["agent/connect/ca/roots"];

/// A gateway that asks a real agent through what makes the faults.
struct Faulty {
    scene: Scene,
    between: Between,
    consul: Consul,
    sidecar: Upstream,
}

impl Faulty {
    async fn start() -> Option<Self> {
        let consul = Consul::start()?;
        let sidecar = register_with_own_sidecar(&consul).await;
        let between = Between::before(&consul).await;
        let scene = Scene::start(between.address, "").await;
        Some(Self {
            scene,
            between,
            consul,
            sidecar,
        })
    }

    /// A fault of this kind costs no connection, is told of as it is, and ends.
    async fn stands(&self, what: &str, paths: &'static [&'static str], fault: Fault) {
        let mut tunnel = self.scene.tunnel().await;
        self.between.fail(paths, fault);
        let told = self.scene.is_degraded("mesh identity").await;
        println!("{what}: {told}");
        let consul = self.scene.state("consul").await;
        assert_eq!(consul, "ready", "{what}: the catalog is as it was");
        self.scene.works(what).await;
        tunnel.lives().await;
        self.between.heal();
        self.scene.is_ready().await;
        self.scene.works(what).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_that_does_not_come_or_does_not_serve_leaves_the_last_one_in_its_place() {
    let Some(faulty) = Faulty::start().await else {
        return;
    };
    for (what, fault) in [
        ("500", Fault::Altered(|answer| answer.status = 500)),
        ("403", Fault::Altered(|answer| answer.status = 403)),
        ("half", Fault::Half),
        (
            "null",
            Fault::Altered(|answer| answer.body = "null".to_owned()),
        ),
        ("nothing", Fault::Altered(Altered::empty)),
        (
            "a key of another",
            Fault::Altered(|answer| {
                let key = KeyPair::generate().unwrap().serialize_pem();
                set(answer, "PrivateKeyPEM", json!(key));
            }),
        ),
        (
            "no key",
            Fault::Altered(|answer| set(answer, "PrivateKeyPEM", json!(""))),
        ),
        (
            "no certificate",
            Fault::Altered(|answer| set(answer, "CertPEM", Value::Null)),
        ),
        (
            "rubbish",
            Fault::Altered(|answer| {
                set(
                    answer,
                    "CertPEM",
                    json!("-----BEGIN CERTIFICATE-----\nrubbish\n"),
                );
            }),
        ),
    ] {
        faulty.stands(what, LEAF, fault).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_that_do_not_come_or_do_not_serve_leave_the_last_ones_in_their_place() {
    let Some(faulty) = Faulty::start().await else {
        return;
    };
    for (what, fault) in [
        ("500", Fault::Altered(|answer| answer.status = 500)),
        (
            "null",
            Fault::Altered(|answer| answer.body = "null".to_owned()),
        ),
        (
            "no trust domain",
            Fault::Altered(|answer| set(answer, "TrustDomain", Value::Null)),
        ),
        (
            "an empty trust domain",
            Fault::Altered(|answer| set(answer, "TrustDomain", json!(""))),
        ),
        (
            "null for roots",
            Fault::Altered(|answer| set(answer, "Roots", Value::Null)),
        ),
        (
            "no roots",
            Fault::Altered(|answer| set(answer, "Roots", json!([]))),
        ),
        (
            "rubbish",
            Fault::Altered(|answer| {
                answer.edit(|roots| roots["Roots"][0]["RootCert"] = json!("rubbish"));
            }),
        ),
    ] {
        faulty.stands(what, ROOTS, fault).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_leaf_and_roots_do_not_come_new_services_get_their_routes() {
    let Some(faulty) = Faulty::start().await else {
        return;
    };
    let refuse = Fault::Altered(|answer| answer.status = 500);
    faulty.between.fail(&["agent/connect/"], refuse);
    faulty.scene.is_degraded("mesh identity").await;
    let sidecar = Upstream::tls(
        faulty.consul.leaf("simple02").server(),
        crate::upstream::echo,
    )
    .await;
    register(
        &faulty.consul,
        "simple02",
        sidecar.address,
        sidecar.address.port(),
    );
    faulty
        .scene
        .until("a new service is reached", async || {
            faulty.scene.way.echo("simple02.domain.com").await.is_ok()
        })
        .await;
    register(
        &faulty.consul,
        NAME,
        faulty.sidecar.address,
        faulty.sidecar.address.port(),
    );
    faulty.scene.works("it has no new identity").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_gets_no_identity_is_not_ready_until_it_comes() {
    let Some(consul) = Consul::start() else {
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
        let scene = Scene::start_unready(between.address, "").await;
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

fn set(answer: &mut Altered, field: &str, value: Value) {
    answer.edit(|all| all[field] = value);
}
