//! A gateway that has no ACL token and gets one for a JWT, as a workload of Nomad or Kubernetes does.

use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use data_encoding::BASE64URL_NOPAD;
use rcgen::KeyPair;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Host, IDENTITY, Mesh, POLL, at, denying, plain_tags, tagged};
use crate::authority::Authority;
use crate::consul::{Consul, Sidecar};
use crate::peers;
use crate::support::PATIENCE;

const NAME: &str = "vm.example.test";

/// Who makes JWTs that Consul believes.
struct Issuer(KeyPair);

impl Issuer {
    /// The auth method `jwt`, by which whoever has a JWT is the gateway's service for a minute.
    fn known_to(consul: &Consul) -> Self {
        let key = KeyPair::generate().unwrap();
        let method = json!({
            "Name": "jwt",
            "Type": "jwt",
            "MaxTokenTTL": "1m",
            "Config": {
                "JWTValidationPubKeys": [key.public_key_pem()],
                "BoundAudiences": ["consul.io"],
                "ClaimMappings": { "sub": "subject" },
            },
        });
        consul.put("/v1/acl/auth-method", &method);
        let rule = json!({
            "AuthMethod": "jwt",
            "Selector": "value.subject matches \"gateway.*\"",
            "BindType": "service",
            "BindName": IDENTITY,
        });
        consul.put("/v1/acl/binding-rule", &rule);
        Self(key)
    }

    fn jwt(&self, subject: &str) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap().as_secs();
        let claims = json!({
            "sub": subject,
            "aud": "consul.io",
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
        });
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let header = json!({ "alg": "ES256", "typ": "JWT" });
        let text = format!("{}.{}", part(&header), part(&claims));
        let key = self.0.serialize_der();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key).unwrap();
        let signature = key.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
        format!("{text}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
    }
}

const LOGIN: &str =
    "[consul.login]\nauth_method = \"jwt\"\ntoken_file = \"jwt\"\nmeta = { host = \"edge\" }\n";

/// A gateway that logs in to an agent that denies what no policy allows, and who makes its JWTs.
struct Scene {
    mesh: Mesh,
    issuer: Issuer,
    host: Host,
    _sidecar: Sidecar,
}

impl Scene {
    /// The first JWT is for this subject.
    async fn start(subject: &str) -> Option<Self> {
        let (consul, host, sidecar) = denying(NAME).await?;
        let issuer = Issuer::known_to(&consul);
        let authority = Authority::new();
        authority.write("jwt", &issuer.jwt(subject));
        let keys = at(&consul);
        Some(Self {
            mesh: Mesh::starting(authority, consul, &keys, LOGIN).await,
            issuer,
            host,
            _sidecar: sidecar,
        })
    }

    /// A JWT for this subject takes the place of the last one.
    fn jwt(&self, subject: &str) {
        let jwt = format!("{}\n", self.issuer.jwt(subject));
        self.mesh.authority.write("jwt", &jwt);
    }
}

/// The tokens that there are by login.
pub(super) fn tokens(consul: &Consul) -> Vec<Value> {
    let all = consul.get("/v1/acl/tokens");
    let all = all.as_array().unwrap().iter();
    all.filter(|token| token["AuthMethod"].is_string())
        .cloned()
        .collect()
}

pub(super) async fn until(what: &str, patience: Duration, is_so: impl Fn() -> bool) {
    let late = Instant::now() + patience;
    while !is_so() {
        assert!(Instant::now() < late, "waited in vain until {what}");
        sleep(POLL * 20).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_is_exchanged_for_a_token_which_is_another_when_it_was_deleted_and_none_after_the_end()
 {
    let Some(mut scene) = Scene::start("somebody else").await else {
        return;
    };
    let mesh = &mut scene.mesh;
    mesh.readyz_says("consul is not asked without the ACL token that a login was to give")
        .await;
    let (_, parts) = mesh.gateway.ask_admin("/readyz").await;
    assert!(!parts.contains("eyJ"), "{parts}");

    // A file that has changed is tried again.
    scene.jwt("gateway");
    let mesh = &mut scene.mesh;
    mesh.is_ready().await;
    assert_eq!(mesh.greets(NAME).await, "vm");
    let [first] = &tokens(&mesh.consul)[..] else {
        panic!("one login, and one token");
    };
    let description = first["Description"].as_str().unwrap();
    assert!(description.contains("edge"), "{first}");

    let accessor = first["AccessorID"].as_str().unwrap();
    mesh.consul.delete(&format!("/v1/acl/token/{accessor}"));
    let tags = plain_tags("web", "web.example.test");
    mesh.consul
        .register(&tagged("web", scene.host.address, &tags));
    mesh.route("web@consul").await;
    assert_eq!(mesh.greets("web.example.test").await, "vm");
    assert_eq!(tokens(&mesh.consul).len(), 1);
    mesh.is_ready().await;

    // Another JWT is another login; the last token is left to those who wait with it.
    scene.jwt("gateway of tomorrow");
    let mesh = &scene.mesh;
    until("there is another token", PATIENCE, || {
        tokens(&mesh.consul).len() == 2
    })
    .await;

    let Mesh {
        gateway, consul, ..
    } = scene.mesh;
    gateway.shutdown.begin_drain();
    gateway.finished.await.unwrap().unwrap();
    assert_eq!(tokens(&consul).len(), 1, "the last one is no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_no_login_succeeds_the_last_token_serves_and_that_is_told() {
    let Some(mut scene) = Scene::start("gateway").await else {
        return;
    };
    let mesh = &mut scene.mesh;
    mesh.is_ready().await;
    mesh.authority.write("jwt", "no JWT at all");
    mesh.readyz_says("consul degraded: no other ACL token is had by login: ")
        .await;
    let tags = plain_tags("web", "web.example.test");
    mesh.consul
        .register(&tagged("web", scene.host.address, &tags));
    mesh.route("web@consul").await;
    assert_eq!(mesh.greets("web.example.test").await, "vm");
    scene.jwt("gateway");
    scene.mesh.readyz_says("consul ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_another_before_it_expires() {
    if !peers::long() {
        return;
    }
    let Some(mut scene) = Scene::start("gateway").await else {
        return;
    };
    let mesh = &mut scene.mesh;
    mesh.is_ready().await;
    let first = tokens(&mesh.consul)[0]["AccessorID"].clone();
    // A token of a minute is renewed after forty seconds, and gone by then or soon after.
    let long = Duration::from_secs(150);
    until("the first token is gone", long, || {
        let all = tokens(&mesh.consul);
        !all.is_empty() && all.iter().all(|token| token["AccessorID"] != first)
    })
    .await;
    assert_eq!(mesh.greets(NAME).await, "vm");
    mesh.is_ready().await;
}
