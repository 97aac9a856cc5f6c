//! A gateway that is a task of a real Nomad, and shows a real Consul the JWT that Nomad gives it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::login::{tokens, until};
use super::{Host, IDENTITY, Mesh, at, denying, plain_tags, tagged};
use crate::authority::Authority;
use crate::consul::{Consul, Sidecar};
use crate::nomad::agent::Nomad;
use crate::peers;
use crate::support::wait_until;

const NAME: &str = "vm.example.test";

/// A Consul that believes the JWTs of a Nomad: whoever is a task of the job `edge` is the gateway's service.
struct Scene {
    nomad: Nomad,
    consul: Consul,
    host: Host,
    sidecar: Sidecar,
}

impl Scene {
    async fn start() -> Option<Self> {
        let nomad = block_in_place(|| Nomad::start(true))?;
        let (consul, host, sidecar) = denying(NAME).await?;
        let method = json!({
            "Name": "nomad-workloads",
            "Type": "jwt",
            "MaxTokenTTL": "1h",
            "Config": {
                "JWKSURL": format!("{}/.well-known/jwks.json", nomad.address()),
                "BoundAudiences": ["consul.io"],
                "ClaimMappings": { "nomad_namespace": "nomad_namespace", "nomad_job_id": "nomad_job_id" },
            },
        });
        consul.put("/v1/acl/auth-method", &method);
        let rule = json!({
            "AuthMethod": "nomad-workloads",
            "Selector": "value.nomad_namespace == default and value.nomad_job_id == edge",
            "BindType": "service",
            "BindName": IDENTITY,
        });
        consul.put("/v1/acl/binding-rule", &rule);
        Some(Self {
            nomad,
            consul,
            host,
            sidecar,
        })
    }

    /// The file with the JWT of the task of this job, which is renewed before it is so old.
    fn jwt(&self, job: &str, seconds: u64) -> PathBuf {
        block_in_place(|| {
            self.nomad.run_workload(job, "consul.io", seconds);
            let file = self.nomad.secrets(job).join("nomad_consul.jwt");
            wait_until("the task has its JWT", || file.exists());
            file
        })
    }

    /// A gateway that logs in with this file.
    async fn gateway(self, jwt: &Path) -> (Mesh, Nomad, Host, Sidecar) {
        let keys = at(&self.consul);
        let file = jwt.display().to_string();
        let login =
            format!("[consul.login]\nauth_method = \"nomad-workloads\"\ntoken_file = {file:?}\n");
        let mesh = Mesh::starting(Authority::new(), self.consul, &keys, &login).await;
        (mesh, self.nomad, self.host, self.sidecar)
    }
}

/// What a token may be by its login.
fn identities(tokens: &[Value]) -> Vec<&Value> {
    let all = tokens.iter();
    all.map(|token| &token["ServiceIdentities"][0]["ServiceName"])
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_of_nomad_is_the_gateways_service_by_the_jwt_that_nomad_gives_it() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let jwt = scene.jwt("edge", 3600);
    let (mut mesh, _nomad, host, _sidecar) = scene.gateway(&jwt).await;
    mesh.is_ready().await;
    assert_eq!(mesh.greets(NAME).await, "vm");
    assert_eq!(identities(&tokens(&mesh.consul)), [IDENTITY]);
    let tags = plain_tags("web", "web.example.test");
    mesh.consul.register(&tagged("web", host.address, &tags));
    mesh.route("web@consul").await;
    assert_eq!(mesh.greets("web.example.test").await, "vm");

    let Mesh {
        gateway, consul, ..
    } = mesh;
    gateway.shutdown.begin_drain();
    gateway.finished.await.unwrap().unwrap();
    assert_eq!(tokens(&consul), [Value::Null; 0], "it has logged out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_of_another_job_is_nobody_and_that_is_told() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let jwt = scene.jwt("stranger", 3600);
    let (mut mesh, _nomad, _host, _sidecar) = scene.gateway(&jwt).await;
    mesh.readyz_says("consul is not asked without the ACL token that a login was to give")
        .await;
    let text = fs::read_to_string(&jwt).unwrap();
    let (status, parts) = mesh.gateway.ask_admin("/readyz").await;
    assert_eq!(status, 503, "{parts}");
    assert!(!parts.contains(text.trim()), "{parts}");
    assert!(parts.contains("403"), "{parts}");
    assert_eq!(tokens(&mesh.consul), [Value::Null; 0]);
    let record = mesh.refuses(NAME).await;
    assert_eq!(record["reason"], "unknown_name", "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whenever_nomad_renews_the_jwt_of_its_task_there_is_a_token_for_it() {
    if !peers::long() {
        return;
    }
    let Some(scene) = Scene::start().await else {
        return;
    };
    let jwt = scene.jwt("edge", 30);
    let first = fs::read_to_string(&jwt).unwrap();
    let (mut mesh, _nomad, _host, _sidecar) = scene.gateway(&jwt).await;
    mesh.is_ready().await;
    let mut tunnel = mesh.open(NAME).await.unwrap();
    let before = tokens(&mesh.consul).len();
    let long = Duration::from_secs(90);
    until("nomad has renewed the JWT", long, || {
        fs::read_to_string(&jwt).is_ok_and(|now| now != first)
    })
    .await;
    until("there is a token for it", long, || {
        tokens(&mesh.consul).len() > before
    })
    .await;
    tunnel.is_alive().await;
    tunnel.end().await;
    assert_eq!(mesh.gateway.ended().await["reason"], "closed");
    assert_eq!(mesh.greets(NAME).await, "vm");
    mesh.is_ready().await;
}
