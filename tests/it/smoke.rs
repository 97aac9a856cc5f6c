//! The shortest way through: a name, a route, bytes there and back.

use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::upstream::{Upstream, echo};

#[tokio::test]
async fn a_terminated_route_echoes_and_its_session_is_recorded() {
    let authority = Authority::new();
    authority.issue_files("edge", &["echo.example.test"]);
    let upstream = Upstream::echo().await;
    let mut gateway = Gateway::start(
        &authority,
        &format!(
            r#"
            certificates = [{{ chain = "edge.pem", key = "edge.key" }}]
            [routes.echo]
            host = "echo.example.test"
            upstream = "{}"
            "#,
            upstream.address
        ),
    )
    .await;
    let config = Arc::new(authority.client(&[&TLS12, &TLS13]));
    let mut client = gateway
        .connect_tls(&config, "echo.example.test")
        .await
        .unwrap();
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"hello");
    let record = gateway.ended().await;
    assert_eq!(record["reason"], "closed", "{record}");
    assert_eq!(record["route"], "echo");
    assert_eq!(record["sni"], "echo.example.test");
    assert_eq!(record["bytes_up"], 5);
    assert_eq!(record["bytes_down"], 5);
    assert_eq!(record["tls"], "1.3");
}

#[tokio::test]
async fn a_passed_through_route_lets_the_upstream_end_tls() {
    let authority = Authority::new();
    let issued = authority.issue(&["pass.example.test"]);
    let upstream = Upstream::tls(issued.server(&[&TLS12, &TLS13]), echo).await;
    let mut gateway = Gateway::start(
        &authority,
        &format!(
            r#"
            [routes.pass]
            host = "pass.example.test"
            passthrough = true
            upstream = "{}"
            "#,
            upstream.address
        ),
    )
    .await;
    let config = Arc::new(authority.client(&[&TLS12, &TLS13]));
    let mut client = gateway
        .connect_tls(&config, "pass.example.test")
        .await
        .unwrap();
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"hello");
    assert_eq!(gateway.ended().await["reason"], "closed");
}

#[tokio::test]
async fn an_upstream_that_speaks_first_is_heard_and_answered() {
    let authority = Authority::new();
    authority.issue_files("edge", &["ssh.example.test"]);
    let upstream = Upstream::tcp(|mut tcp| async move {
        tcp.write_all(b"who is there?").await.unwrap();
        echo(tcp).await;
    })
    .await;
    let gateway = Gateway::start(
        &authority,
        &format!(
            r#"
            certificates = [{{ chain = "edge.pem", key = "edge.key" }}]
            [routes.ssh]
            host = "ssh.example.test"
            upstream = "{}"
            "#,
            upstream.address
        ),
    )
    .await;
    let config = Arc::new(authority.client(&[&TLS12, &TLS13]));
    let mut client = gateway
        .connect_tls(&config, "ssh.example.test")
        .await
        .unwrap();
    let mut question = [0; 13];
    client.read_exact(&mut question).await.unwrap();
    assert_eq!(&question, b"who is there?");
    client.write_all(b"me").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"me");
}
