//! Configurations that change while the gateway runs: what serves, what stays, and what is refused.

use std::fs::OpenOptions;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::network;
use crate::support::PATIENCE;
use crate::upstream::Upstream;

mod consul;
mod live;
mod nomad;
mod overlap;
mod queue;
mod resolving;
mod retry;
mod tickets;
mod tunnels;
mod wishes;

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
    echoes(&mut tunnel).await;
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
        why.contains("upstraem") && why.contains("portcullis.toml:7:1") && why.contains("^^^^^^^^"),
        "{why}"
    );
    let (_, ready) = gateway.ask_admin("/readyz").await;
    assert!(ready.contains("configuration degraded:"), "{ready}");
    assert!(ready.contains("portcullis.toml:7:1)"), "{ready}");
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
async fn a_file_without_a_word_is_refused_where_the_one_before_said_something() {
    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    let greeter = Upstream::greeter("hello").await;
    let tables = format!("{EDGE}{}", route("a", &greeter));
    let gateway = Gateway::start(&authority, &tables).await;
    for blank in ["", "\n# [routes.a]\n"] {
        authority.write("portcullis.toml", blank);
        let why = gateway.reload.done("a test").await.unwrap_err();
        assert!(
            why.contains("nothing is written in the file, and there was before"),
            "{why}"
        );
    }
    let client = Arc::new(authority.client(&[&TLS13]));
    let tls = gateway
        .connect_tls(&client, "a.example.test")
        .await
        .unwrap();
    assert_eq!(said(tls).await, "hello");
}

/// What waits for its bytes would wait for ever, and keep every later change waiting.
#[tokio::test]
async fn a_fifo_in_the_place_of_the_configuration_is_refused_and_holds_up_no_later_change() {
    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    let greeter = Upstream::greeter("hello").await;
    let tables = format!("{EDGE}{}", route("a", &greeter));
    let gateway = Gateway::start(&authority, &tables).await;
    let path = authority.folder().join("portcullis.toml");
    std::fs::remove_file(&path).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let asked = timeout(PATIENCE, gateway.reload.done("a test")).await;
    // Whoever waits in it for a writer has one, or this test would not end either.
    let freed = OpenOptions::new().read(true).write(true).open(&path);
    drop(freed.unwrap());
    let why = asked.expect("it waits in the fifo").unwrap_err();
    assert!(why.contains("it is no regular file"), "{why}");

    std::fs::remove_file(&path).unwrap();
    gateway.rewrite(&authority, &format!("{tables}{}", route("b", &greeter)));
    gateway.reload.done("a test").await.unwrap();
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

#[tokio::test]
async fn tunnels_of_a_route_that_is_removed_go_on_or_end_as_is_written() {
    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    let echo = Upstream::echo().await;
    let limits = |removed: &str| format!("[limits]\nremoved_routes = \"{removed}\"\n");
    let (a, b) = (route("a", &echo), route("b", &echo));
    let mut gateway = Gateway::start(&authority, &format!("{EDGE}{a}{b}")).await;
    let client = Arc::new(authority.client(&[&TLS13]));
    let mut kept = gateway
        .connect_tls(&client, "a.example.test")
        .await
        .unwrap();
    echoes(&mut kept).await;
    gateway.rewrite(&authority, &format!("{EDGE}{b}"));
    gateway.reload.done("a test").await.unwrap();
    echoes(&mut kept).await;
    assert!(
        gateway
            .connect_tls(&client, "a.example.test")
            .await
            .is_err()
    );
    assert_eq!(gateway.ended().await["reason"], "unknown_name");

    let mut ended = gateway
        .connect_tls(&client, "b.example.test")
        .await
        .unwrap();
    echoes(&mut ended).await;
    gateway.rewrite(&authority, &format!("{EDGE}{a}{}", limits("close")));
    gateway.reload.done("a test").await.unwrap();
    assert_eq!(gateway.ended().await["reason"], "route_gone");
    assert!(ended.read(&mut [0]).await.is_err(), "no clean end");

    // The first one's route is another of the same name by now.
    echoes(&mut kept).await;
    gateway.rewrite(&authority, &format!("{EDGE}{}", limits("1s")));
    let begin = Instant::now();
    gateway.reload.done("a test").await.unwrap();
    assert_eq!(gateway.ended().await["reason"], "route_gone");
    assert!(begin.elapsed() < PATIENCE);
}

#[test]
fn listeners_come_stay_and_go() {
    network::of_its_own(
        "reload::listeners_come_stay_and_go",
        listeners_come_stay_and_go_alone(),
    );
}

async fn listeners_come_stay_and_go_alone() {
    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    let greeter = Upstream::greeter("hello").await;
    let tables = format!("{EDGE}{}", route("a", &greeter));
    let gateway = Gateway::start(&authority, &format!("admin = \"127.0.0.1:0\"\n{tables}")).await;
    let client = Arc::new(authority.client(&[&TLS13]));
    let free = SocketAddr::from(([127, 0, 0, 2], 8443));

    let listen =
        |addresses: &str| format!("listen = [{addresses}]\nadmin = \"127.0.0.1:0\"\n{tables}");
    authority.write(
        "portcullis.toml",
        &listen(&format!("\"127.0.0.1:0\", \"{free}\"")),
    );
    gateway.reload.done("a test").await.unwrap();
    for address in [gateway.address, free] {
        assert_eq!(said(dial(address, &client).await.unwrap()).await, "hello");
    }

    // All addresses of the same port: the one that stands there goes first.
    let all = SocketAddr::from(([0, 0, 0, 0], free.port()));
    authority.write(
        "portcullis.toml",
        &listen(&format!("\"127.0.0.1:0\", \"{all}\"")),
    );
    gateway.reload.done("a test").await.unwrap();
    for address in [
        gateway.address,
        free,
        SocketAddr::from(([127, 0, 0, 3], free.port())),
    ] {
        assert_eq!(said(dial(address, &client).await.unwrap()).await, "hello");
    }

    authority.write("portcullis.toml", &listen("\"127.0.0.1:0\""));
    gateway.reload.done("a test").await.unwrap();
    eventually("nobody listens there", async || {
        TcpStream::connect(free).await.is_err()
    })
    .await;
    assert_eq!(
        said(dial(gateway.address, &client).await.unwrap()).await,
        "hello"
    );
}

#[test]
fn an_address_that_is_taken_leaves_every_listener_as_it_was() {
    network::of_its_own(
        "reload::an_address_that_is_taken_leaves_every_listener_as_it_was",
        an_address_that_is_taken_leaves_every_listener_as_it_was_alone(),
    );
}

async fn an_address_that_is_taken_leaves_every_listener_as_it_was_alone() {
    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    let greeter = Upstream::greeter("hello").await;
    let tables = format!("admin = false\n{EDGE}{}", route("a", &greeter));
    let gateway = Gateway::start(&authority, &tables).await;
    let client = Arc::new(authority.client(&[&TLS13]));
    let free = SocketAddr::from(([127, 0, 0, 2], 8443));
    let listen = |addresses: &str| format!("listen = [{addresses}]\n{tables}");
    authority.write(
        "portcullis.toml",
        &listen(&format!("\"127.0.0.1:0\", \"{free}\"")),
    );
    gateway.reload.done("a test").await.unwrap();

    let taken = TcpListener::bind(("127.0.0.3", free.port())).await.unwrap();
    let all = SocketAddr::from(([0, 0, 0, 0], free.port()));
    authority.write(
        "portcullis.toml",
        &listen(&format!("\"127.0.0.1:0\", \"{all}\"")),
    );
    let why = gateway.reload.done("a test").await.unwrap_err();
    assert!(why.contains(&format!("cannot listen on {all}")), "{why}");
    for address in [gateway.address, free] {
        assert_eq!(said(dial(address, &client).await.unwrap()).await, "hello");
    }
    drop(taken);
}

async fn dial(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("a.example.test").unwrap();
    TlsConnector::from(Arc::clone(config))
        .connect(name, tcp)
        .await
}

async fn echoes(tunnel: &mut TlsStream<TcpStream>) {
    tunnel.write_all(b"there?").await.unwrap();
    let mut back = [0; 6];
    tunnel.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"there?");
}

/// Waits for what the gateway does of itself.
async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let late = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < late, "waited in vain until {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
