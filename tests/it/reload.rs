//! Configurations that change while the gateway runs: what serves, what stays, and what is refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::client::TlsStream;

use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::support::PATIENCE;
use crate::upstream::Upstream;

const EDGE: &str = "certificates = [{ chain = \"edge.pem\", key = \"edge.key\" }]\n";

/// A route of this name to this upstream.
fn route(name: &str, upstream: &Upstream) -> String {
    let address = upstream.address;
    format!("[routes.{name}]\nhost = \"{name}.example.test\"\nupstream = \"{address}\"\n")
}

async fn said(mut tls: TlsStream<TcpStream>) -> String {
    let mut said = String::new();
    tls.read_to_string(&mut said).await.unwrap();
    said
}

#[tokio::test]
async fn a_changed_route_leads_elsewhere_and_its_old_tunnel_stays() {
    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    let (echo, greeter) = (Upstream::echo().await, Upstream::greeter("hello").await);
    let gateway = Gateway::start(&authority, &format!("{EDGE}{}", route("a", &echo))).await;
    let client = Arc::new(authority.client(&[&TLS13]));
    let mut tunnel = gateway
        .connect_tls(&client, "a.example.test")
        .await
        .unwrap();

    gateway.rewrite(&authority, &format!("{EDGE}{}", route("a", &greeter)));
    gateway.reload.done("a test").await.unwrap();

    let tls = gateway
        .connect_tls(&client, "a.example.test")
        .await
        .unwrap();
    assert_eq!(said(tls).await, "hello");
    tunnel.write_all(b"still here").await.unwrap();
    let mut back = [0; 10];
    tunnel.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"still here");
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_with_its_place_and_the_one_before_serves_on() {
    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    let greeter = Upstream::greeter("hello").await;
    let tables = format!("admin = \"127.0.0.1:0\"\n{EDGE}{}", route("a", &greeter));
    let gateway = Gateway::start(&authority, &tables).await;

    gateway.rewrite(&authority, &format!("{tables}upstraem = \"a:1\"\n"));
    let why = gateway.reload.done("a test").await.unwrap_err();
    assert!(
        why.contains("upstraem") && why.contains("portcullis.toml:"),
        "{why}"
    );
    let (_, ready) = gateway.ask_admin("/readyz").await;
    assert!(ready.contains("configuration degraded:"), "{ready}");
    let (_, metrics) = gateway.ask_admin("/metrics").await;
    assert!(metrics.contains("portcullis_configuration_reads_total{outcome=\"refused\"} 1"));
    let client = Arc::new(authority.client(&[&TLS13]));
    let tls = gateway
        .connect_tls(&client, "a.example.test")
        .await
        .unwrap();
    assert_eq!(said(tls).await, "hello");

    gateway.rewrite(&authority, &tables);
    gateway.reload.done("a test").await.unwrap();
    let (_, ready) = gateway.ask_admin("/readyz").await;
    assert!(ready.contains("configuration ready"), "{ready}");
}

#[tokio::test]
async fn a_changed_file_is_served_without_anybody_asking() {
    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    let greeter = Upstream::greeter("hello").await;
    let tables = format!("{EDGE}{}", route("a", &greeter));
    let gateway = Gateway::start(&authority, &tables).await;
    let client = Arc::new(authority.client(&[&TLS13]));
    assert!(
        gateway
            .connect_tls(&client, "b.example.test")
            .await
            .is_err()
    );

    gateway.rewrite(&authority, &format!("{tables}{}", route("b", &greeter)));
    eventually("the new route serves", async || {
        gateway.connect_tls(&client, "b.example.test").await.is_ok()
    })
    .await;

    let serial =
        |tls: TlsStream<TcpStream>| tls.get_ref().1.peer_certificates().unwrap()[0].clone();
    let before = serial(
        gateway
            .connect_tls(&client, "a.example.test")
            .await
            .unwrap(),
    );
    authority.issue_files("edge", &["*.example.test"]);
    eventually("the new certificate is shown", async || {
        serial(
            gateway
                .connect_tls(&client, "a.example.test")
                .await
                .unwrap(),
        ) != before
    })
    .await;
}

/// Waits for what the gateway does of itself.
async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let late = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < late, "waited in vain until {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
