//! Endpoints that cannot be dialled: passed over, tried again, and used once they answer.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::version::TLS13;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::support::PATIENCE;
use crate::upstream::{Upstream, echo};

const NAME: &str = "edge.example.test";

/// A gateway whose one route ends TLS and goes to this upstream, and a client of it.
struct Scene {
    gateway: Gateway,
    client: Arc<ClientConfig>,
}

impl Scene {
    async fn new(authority: &Authority, upstream: &str) -> Self {
        authority.issue_files("edge", &[NAME]);
        let tables = format!(
            "admin = \"127.0.0.1:0\"\n\
             certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
             [routes.edge]\nhost = \"{NAME}\"\nupstream = \"u\"\n{upstream}"
        );
        Self {
            gateway: Gateway::start(authority, &tables).await,
            client: Arc::new(authority.client(&[&TLS13])),
        }
    }

    /// One connection to its end: the endpoint that was dialled last, and why it ended.
    async fn visit(&mut self) -> (SocketAddr, String) {
        let connected = self.gateway.connect_tls(&self.client, NAME).await;
        let mut client = connected.unwrap();
        // A greeting, or the end of a connection that nobody took.
        let _ = client.read_u8().await;
        drop(client);
        let record = self.gateway.ended().await;
        let text = |key: &str| record[key].as_str().unwrap().to_owned();
        (text("endpoint").parse().unwrap(), text("reason"))
    }

    async fn ejections(&self) -> Option<u64> {
        let series = "portcullis_endpoint_ejections_total{upstream=\"u\"}";
        self.gateway.metric(series).await
    }
}

/// An address that nobody listens on; nobody else gets it while the socket is kept.
fn dead() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&address.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

#[tokio::test]
async fn a_dead_endpoint_costs_one_dial_and_is_used_again_once_it_answers() {
    let authority = Authority::new();
    let alive = Upstream::greeter("alive").await;
    let (socket, dead) = dead();
    // One attempt: a connection that is given the dead endpoint fails, and can be told.
    let upstream = format!(
        "[upstreams.u]\nendpoints = [\"{dead}\", \"{}\"]\n[limits]\ndial_attempts = 1",
        alive.address
    );
    let mut scene = Scene::new(&authority, &upstream).await;
    assert_eq!(scene.ejections().await, None);
    let mut failed = 0;
    while failed == 0 {
        let (endpoint, reason) = scene.visit().await;
        failed += usize::from(endpoint == dead);
        assert_eq!(reason == "dial_failed", endpoint == dead, "{reason}");
    }
    let shown = scene.gateway.endpoint(dead).await;
    assert_eq!(shown["failures"], 1, "{shown}");
    assert!(shown["out_for_seconds"].is_u64(), "{shown}");
    assert_eq!(scene.ejections().await, Some(1));

    // Nobody waits for its second to be over: whoever comes before is served by the other.
    socket.listen(64).unwrap();
    socket.set_nonblocking(true).unwrap();
    let back = TcpListener::from_std(socket.into()).unwrap();
    let greeting = tokio::spawn(async move {
        let (mut tcp, _) = back.accept().await.unwrap();
        tcp.write_all(b"back").await.unwrap();
    });
    let used = async {
        while scene.visit().await.0 != dead {}
        scene.gateway.endpoint(dead).await
    };
    let shown = timeout(PATIENCE, used).await.unwrap();
    assert_eq!(
        (&shown["failures"], &shown["out_for_seconds"]),
        (&0.into(), &Value::Null)
    );
    greeting.await.unwrap();
}

#[tokio::test]
async fn an_endpoint_that_proves_to_be_somebody_else_is_passed_over_too() {
    let authority = Authority::new();
    let stranger = authority.issue(&["stranger.test"]);
    let stranger = Upstream::tls(stranger.server(&[&TLS13]), echo).await;
    let upstream = format!(
        "[upstreams.u]\naddress = \"{}\"\ntls = {{ roots = [\"ca.pem\"], server_name = \"db.test\" }}",
        stranger.address
    );
    let mut scene = Scene::new(&authority, &upstream).await;
    for _ in 0..5 {
        // It is the only one: it is tried as if it were in.
        let (endpoint, reason) = scene.visit().await;
        assert_eq!(endpoint, stranger.address);
        assert_eq!(reason, "upstream_identity");
    }
    let failures = scene.gateway.endpoint(stranger.address).await["failures"].clone();
    let failures = failures.as_u64().unwrap();
    assert!(
        (1..5).contains(&failures),
        "one that is out fails no more for it"
    );
}
