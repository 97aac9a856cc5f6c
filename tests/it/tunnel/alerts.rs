//! What a gateway says by an alert to a tunnel that leads through it: in words, and held against it where another may do better.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::NAME;
use super::refusals::{by_gateway, refused};
use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::upstream::Upstream;

/// A gateway in front of an echo, its route with these keys, and a tunnel to it.
struct Scene {
    authority: Authority,
    master: Gateway,
    worker: Gateway,
    _echo: Upstream,
}

impl Scene {
    async fn new(route: &str, tables: &str, mend: impl Fn(String) -> String) -> Self {
        let (authority, echo) = (Authority::new(), Upstream::echo().await);
        authority.issue_files("master", &[NAME]);
        let master = format!(
            "certificates = [{{ chain = \"master.pem\", key = \"master.key\" }}]\n\
             [routes.taskd]\nhost = \"{NAME}\"\nupstream = \"{}\"\n{route}{tables}",
            echo.address
        );
        let master = Gateway::start(&authority, &master).await;
        let tunnel = mend(by_gateway(&authority, master.address));
        let tables = format!("admin = \"127.0.0.1:0\"\n{tunnel}");
        Self {
            worker: Gateway::start(&Authority::new(), &tables).await,
            authority,
            master,
            _echo: echo,
        }
    }

    /// It is refused in these words; so many failures are counted against the gateway.
    async fn is_refused(&mut self, told: &str, failures: u64) {
        let record = refused(&mut self.worker).await;
        assert_eq!(record["reason"], "refused_by_gateway", "{record}");
        assert_eq!(record["detail"], told);
        let (_, routes) = self.worker.ask_admin("/v1/routes").await;
        let routes: Value = serde_json::from_str(&routes).unwrap();
        let endpoint = &routes["tunnels"][0]["endpoints"][0];
        assert_eq!(endpoint["failures"], failures, "{routes}");
    }
}

#[tokio::test]
async fn one_connection_too_many_is_told_and_held_against_nobody() {
    for (alpn, told) in [
        (
            "",
            "the gateway has as many connections to master.example.test as it takes (alert user_canceled)",
        ),
        // Who does not ask for the status hears it from no alert.
        (
            "alpn = [\"h2\"]\n",
            "the gateway cannot serve master.example.test, or no more connections to it (alert internal_error)",
        ),
    ] {
        let mend = |tunnel: String| tunnel.replace("name =", &format!("{alpn}name ="));
        let mut scene = Scene::new("max_connections = 1\n", "", mend).await;
        let mut first = scene.worker.connect().await;
        first.write_all(b"word").await.unwrap();
        first.read_exact(&mut [0; 4]).await.unwrap();
        scene.is_refused(told, 0).await;
        assert_eq!(scene.master.ended().await["reason"], "route_limit");
        first.write_all(b"more").await.unwrap();
        first.read_exact(&mut [0; 4]).await.unwrap();
    }
}

#[tokio::test]
async fn an_address_that_a_gateway_does_not_take_is_told_and_so_is_a_name_which_another_may_have() {
    let elsewhere = "[middlewares.inside]\nip_allow_list = [\"10.9.0.0/16\"]\n";
    let mut scene = Scene::new("middlewares = [\"inside\"]\n", elsewhere, |it| it).await;
    let told = "the gateway does not let us in to master.example.test (alert access_denied)";
    scene.is_refused(told, 0).await;
    let mend = |tunnel: String| tunnel.replace(NAME, "other.example.test");
    let mut scene = Scene::new("", "", mend).await;
    let told = "the gateway has no route for other.example.test (alert unrecognized_name)";
    scene.is_refused(told, 1).await;
}

/// In TLS 1.3 it comes when the handshake seems complete.
#[tokio::test]
async fn a_certificate_that_a_gateway_misses_or_does_not_take_is_told_and_another_gateway_tried_next()
 {
    let mutual = "[tls.options.mutual]\nclient_auth = \"required\"\nclient_ca = [\"ca.pem\"]\n";
    let mutual = |mend| Scene::new("tls_options = \"mutual\"\n", mutual, mend);
    let none: fn(String) -> String = |tunnel| tunnel;
    let mut scene = mutual(none).await;
    let told = "the gateway asks for a client certificate for master.example.test (alert certificate_required)";
    scene.is_refused(told, 1).await;
    assert_eq!(scene.master.ended().await["reason"], "client_certificate");

    let stranger = Authority::new();
    stranger.issue_files("worker", &["worker.example.test"]);
    let folder = stranger.folder().display().to_string();
    let tables = by_gateway(&scene.authority, scene.master.address).replace(
        "\"] }",
        &format!("\"], chain = \"{folder}/worker.pem\", key = \"{folder}/worker.key\" }}"),
    );
    scene.worker = Gateway::start(
        &Authority::new(),
        &format!("admin = \"127.0.0.1:0\"\n{tables}"),
    )
    .await;
    let told =
        "the gateway does not accept our certificate for master.example.test (alert decrypt_error)";
    scene.is_refused(told, 1).await;
}
