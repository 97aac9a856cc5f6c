//! Limits on who is let in and how long a tunnel lasts: enforced and only counted, and who is in stays.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::config;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::authority::Authority;
use crate::gateway::{Gateway, answer, exchange};
use crate::network;
use crate::peers;
use crate::support::PATIENCE;
use crate::upstream::Upstream;

mod usage;

/// A gateway with two routes, `a` and `b`, and what clients of it need.
struct Scene {
    authority: Authority,
    gateway: Gateway,
    client: Arc<ClientConfig>,
    upstream: Upstream,
}

impl Scene {
    /// With these lines in `[limits]`, and these of the route `a`.
    async fn with(limits: &str, route: &str) -> Self {
        let authority = Authority::new();
        authority.issue_files("edge", &["*.example.test"]);
        let upstream = Upstream::echo().await;
        let tables = tables(limits, route, &upstream);
        let gateway = Gateway::start(&authority, &tables).await;
        let client = Arc::new(authority.client(&[&TLS13]));
        Self {
            authority,
            gateway,
            client,
            upstream,
        }
    }

    /// From now on with these lines in `[limits]`.
    async fn reload(&self, limits: &str) -> Result<(), String> {
        let tables = tables(limits, "", &self.upstream);
        self.gateway.rewrite(&self.authority, &tables);
        self.gateway.reload.done("a test").await
    }

    /// A tunnel from an address of this machine, once a byte has come back through it.
    async fn tunnel(&self, from: &str, name: &str) -> io::Result<TlsStream<TcpStream>> {
        let tcp = dial(from, self.gateway.address).await?;
        let name = ServerName::try_from(format!("{name}.example.test")).unwrap();
        let connector = TlsConnector::from(Arc::clone(&self.client));
        let mut tls = connector.connect(name, tcp).await?;
        echo(&mut tls).await?;
        Ok(tls)
    }

    async fn open(&self, count: usize) -> Vec<TlsStream<TcpStream>> {
        let mut tunnels = Vec::new();
        for _ in 0..count {
            tunnels.push(self.tunnel("127.0.0.1", "a").await.unwrap());
        }
        tunnels
    }

    /// A client from there is closed at once without a byte, for this reason.
    async fn refuses(&mut self, from: &str, reason: &str, fault: &str) {
        assert!(is_reset(from, self.gateway.address).await);
        let record = self.gateway.ended().await;
        assert_eq!(record["reason"], reason, "{record}");
        assert_eq!(record["fault"], fault, "{record}");
        assert_eq!(record["route"], Value::Null, "{record}");
    }

    /// Waits until a client from there is let in.
    async fn takes(&self, from: &str) -> TlsStream<TcpStream> {
        let late = Instant::now() + PATIENCE;
        loop {
            if let Ok(tunnel) = self.tunnel(from, "a").await {
                return tunnel;
            }
            assert!(Instant::now() < late, "nobody is let in");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// How often a limit was met.
    async fn count(&self, limit: &str, enforced: bool) -> u64 {
        let labels = format!("limit=\"{limit}\",enforced=\"{enforced}\"");
        let count = self.sample("exceeded_total", &labels).await;
        count.unwrap_or_else(|| panic!("no {labels}"))
    }

    /// What `/metrics` tells of a series of limits.
    async fn sample(&self, name: &str, labels: &str) -> Option<u64> {
        let series = format!("portcullis_limit_{name}{{{labels}}}");
        self.gateway.metric(&series).await
    }
}

fn tables(limits: &str, route: &str, upstream: &Upstream) -> String {
    let address = upstream.address;
    format!(
        "admin = \"127.0.0.1:0\"\ncertificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
         [limits]\n{limits}\n\
         [routes.a]\nhost = \"a.example.test\"\nupstream = \"{address}\"\n{route}\n\
         [routes.b]\nhost = \"b.example.test\"\nupstream = \"{address}\"\n"
    )
}

/// A connection from an address of this machine. One that is reset at once may be before it is told that it stands.
async fn dial(from: &str, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.bind(SocketAddr::new(from.parse().unwrap(), 0))?;
    socket.connect(to).await
}

/// Whether a client from there is closed with a reset, and without a byte.
async fn is_reset(from: &str, to: SocketAddr) -> bool {
    match dial(from, to).await {
        Ok(tcp) => exchange(tcp, b"\x16\x03\x01").await == (Vec::new(), true),
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

async fn echo(tls: &mut TlsStream<TcpStream>) -> io::Result<()> {
    tls.write_all(b"there?").await?;
    let mut back = [0; 6];
    timeout(PATIENCE, tls.read_exact(&mut back))
        .await
        .expect("an answer")?;
    assert_eq!(&back, b"there?");
    Ok(())
}

async fn all_echo(tunnels: &mut [TlsStream<TcpStream>]) {
    for tunnel in tunnels {
        echo(tunnel).await.unwrap();
    }
}

#[tokio::test]
async fn the_limit_of_all_connections_refuses_newcomers_and_leaves_those_who_are_in() {
    let mut scene = Scene::with("connections = 2", "").await;
    let mut tunnels = scene.open(2).await;
    for source in ["127.0.0.1", "127.0.0.2"] {
        scene.refuses(source, "connection_limit", "gateway").await;
    }
    assert_eq!(scene.count("connections", true).await, 2);
    all_echo(&mut tunnels).await;
    drop(tunnels.pop());
    tunnels.push(scene.takes("127.0.0.2").await);
    all_echo(&mut tunnels).await;
}

#[tokio::test]
async fn strangers_who_say_nothing_take_half_of_all_connections_at_most() {
    let mut scene = Scene::with("connections = 4\nhandshakes = 100", "").await;
    let mut silent = Vec::new();
    for source in ["127.0.0.2", "127.0.0.3"] {
        silent.push(dial(source, scene.gateway.address).await.unwrap());
    }
    scene
        .refuses("127.0.0.4", "handshake_limit", "gateway")
        .await;
    drop(silent.pop());
    let mut tunnels = vec![
        scene.takes("127.0.0.1").await,
        scene.takes("127.0.0.1").await,
    ];
    all_echo(&mut tunnels).await;
}

#[tokio::test]
async fn handshakes_that_are_not_finished_refuse_newcomers_and_no_tunnel_is_one() {
    let mut scene = Scene::with("handshakes = 2", "").await;
    let mut tunnels = scene.open(4).await;
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(scene.gateway.connect().await);
    }
    scene
        .refuses("127.0.0.2", "handshake_limit", "gateway")
        .await;
    all_echo(&mut tunnels).await;
    assert_eq!(scene.count("handshakes", true).await, 1);
    drop(silent);
    tunnels.push(scene.takes("127.0.0.2").await);
    all_echo(&mut tunnels).await;
}

#[tokio::test]
async fn a_source_that_has_as_many_as_it_may_is_refused_and_harms_no_other() {
    let mut scene = Scene::with("per_source = 2", "").await;
    let mut tunnels = scene.open(2).await;
    for _ in 0..20 {
        scene.refuses("127.0.0.1", "source_limit", "client").await;
    }
    tunnels.push(scene.tunnel("127.0.0.2", "a").await.unwrap());
    tunnels.push(scene.tunnel("127.0.0.2", "b").await.unwrap());
    scene.refuses("127.0.0.2", "source_limit", "client").await;
    all_echo(&mut tunnels).await;
    assert_eq!(scene.count("per_source", true).await, 21);
    drop(tunnels.remove(0));
    tunnels.push(scene.takes("127.0.0.1").await);
}

#[tokio::test]
async fn a_source_that_comes_too_often_is_refused_and_harms_no_other() {
    let mut scene = Scene::with("accept_rate = { per_second = 1, burst = 3 }", "").await;
    let started = Instant::now();
    let mut tunnels = scene.open(3).await;
    // On a slow machine the fourth may come by right: a second later.
    if started.elapsed() < Duration::from_millis(500) {
        scene.refuses("127.0.0.1", "rate_limit", "client").await;
        assert_eq!(scene.count("accept_rate", true).await, 1);
    }
    tunnels.push(scene.tunnel("127.0.0.2", "a").await.unwrap());
    all_echo(&mut tunnels).await;
    // With time it may come again.
    scene.takes("127.0.0.1").await;
}

#[tokio::test]
async fn a_route_that_has_as_many_as_it_may_is_refused_and_harms_no_other() {
    let mut scene = Scene::with("", "max_connections = 1").await;
    let mut tunnels = scene.open(1).await;
    let refused = scene.tunnel("127.0.0.1", "a").await.unwrap_err();
    assert!(refused.to_string().contains("InternalError"), "{refused}");
    let record = scene.gateway.ended().await;
    assert_eq!(record["reason"], "route_limit", "{record}");
    assert_eq!(record["route"], "a", "{record}");
    tunnels.push(scene.tunnel("127.0.0.1", "b").await.unwrap());
    tunnels.push(scene.tunnel("127.0.0.1", "b").await.unwrap());
    all_echo(&mut tunnels).await;
    assert_eq!(scene.count("per_route", true).await, 1);
    drop(tunnels.remove(0));
    scene.takes("127.0.0.1").await;
}

#[tokio::test]
async fn what_is_not_enforced_refuses_nobody_and_is_counted() {
    let one = "max = 1, enforce = \"dry-run\"";
    let limits = format!(
        "connections = {{ {one} }}\nhandshakes = {{ {one} }}\nper_source = {{ {one} }}\n\
         per_route = {{ {one} }}\n\
         accept_rate = {{ per_second = 1, burst = 1, enforce = \"dry-run\" }}"
    );
    let scene = Scene::with(&limits, "").await;
    let started = Instant::now();
    // Its handshake never ends: each of the others is one too many.
    let silent = scene.gateway.connect().await;
    let mut tunnels = scene.open(2).await;
    let was_quick = started.elapsed() < Duration::from_millis(900);
    all_echo(&mut tunnels).await;
    for limit in ["connections", "handshakes", "per_source"] {
        assert_eq!(scene.count(limit, false).await, 2, "{limit}");
        assert_eq!(scene.count(limit, true).await, 0, "{limit}");
    }
    assert_eq!(scene.count("per_route", false).await, 1);
    let often = scene.count("accept_rate", false).await;
    assert!(often == 2 || !was_quick, "{often}");
    drop(silent);
}

#[tokio::test]
async fn limits_that_change_hold_for_newcomers_and_end_nobody() {
    let mut scene = Scene::with("", "").await;
    let mut tunnels = scene.open(4).await;
    scene
        .reload("per_source = 2\nconnections = 3")
        .await
        .unwrap();
    all_echo(&mut tunnels).await;
    scene
        .refuses("127.0.0.1", "connection_limit", "gateway")
        .await;
    scene.reload("per_source = 2").await.unwrap();
    scene.refuses("127.0.0.1", "source_limit", "client").await;
    scene.reload("per_route = 4").await.unwrap();
    scene.tunnel("127.0.0.1", "a").await.unwrap_err();
    assert_eq!(scene.gateway.ended().await["reason"], "route_limit");
    scene.reload("").await.unwrap();
    tunnels.extend(scene.open(1).await);
    all_echo(&mut tunnels).await;

    let why = scene.reload("connections = 10000000").await.unwrap_err();
    assert!(
        why.contains("`limits.connections` allows 10000000"),
        "{why}"
    );
    all_echo(&mut tunnels).await;
}

#[tokio::test]
async fn tunnels_end_when_they_have_lasted_long_enough_and_not_all_at_once() {
    const TUNNELS: usize = 8;
    let mut scene = Scene::with("lifetime = \"1s\"", "").await;
    let mut tunnels = scene.open(TUNNELS).await;
    let mut lasted = Vec::new();
    for _ in 0..TUNNELS {
        let record = scene.gateway.ended().await;
        assert_eq!(record["reason"], "lifetime_limit", "{record}");
        assert_eq!(record["fault"], "none", "{record}");
        lasted.push(record["duration_ms"].as_f64().unwrap());
    }
    let shortest = lasted.iter().copied().fold(f64::INFINITY, f64::min);
    let longest = lasted.iter().copied().fold(0.0, f64::max);
    assert!(shortest >= 900.0, "{lasted:?}");
    // Of eight by chance within 100 ms, all within 10 ms: once in ten million runs.
    assert!(longest - shortest > 10.0, "{lasted:?}");
    for tunnel in &mut tunnels {
        assert!(tunnel.read(&mut [0]).await.is_err(), "no clean end");
    }
    assert_eq!(scene.count("lifetime", true).await, TUNNELS as u64);
}

#[tokio::test]
async fn limits_of_time_that_are_not_enforced_are_counted_and_end_nothing() {
    let second = "{ max = \"1s\", enforce = \"dry-run\" }";
    let scene = Scene::with(&format!("lifetime = {second}\nidle_timeout = {second}"), "").await;
    let mut tunnels = scene.open(2).await;
    let late = Instant::now() + PATIENCE;
    while scene.count("lifetime", false).await < 2 || scene.count("idle_timeout", false).await < 2 {
        assert!(Instant::now() < late, "they are not counted");
        sleep(Duration::from_millis(20)).await;
    }
    all_echo(&mut tunnels).await;
    for limit in ["lifetime", "idle_timeout"] {
        assert_eq!(scene.count(limit, false).await, 2, "{limit}");
        assert_eq!(scene.count(limit, true).await, 0, "{limit}");
    }
}

/// A client that is refused by its route is there until it closes, and must not keep the next from the route.
#[tokio::test]
async fn one_that_its_route_refused_takes_up_no_place_of_the_route() {
    let mut scene = Scene::with("", "max_connections = 1").await;
    let tunnels = scene.open(1).await;
    let hello = {
        let name = ServerName::try_from("a.example.test").unwrap();
        let mut tls = rustls::ClientConnection::new(Arc::clone(&scene.client), name).unwrap();
        let mut hello = Vec::new();
        tls.write_tls(&mut hello).unwrap();
        hello
    };
    let mut lingering = scene.gateway.connect().await;
    lingering.write_all(&hello).await.unwrap();
    assert_eq!(scene.gateway.ended().await["reason"], "route_limit");
    drop(tunnels);
    assert_eq!(scene.gateway.ended().await["route"], "a");
    scene.takes("127.0.0.1").await;
    let (alert, _) = answer(&mut lingering).await;
    assert_eq!(alert, [21, 3, 3, 0, 2, 2, 80]);
}

#[test]
fn an_ipv6_network_and_a_mapped_ipv4_address_are_one_source_each() {
    network::of_its_own(
        "limits::an_ipv6_network_and_a_mapped_ipv4_address_are_one_source_each",
        an_ipv6_network_and_a_mapped_ipv4_address_are_one_source_each_alone(),
    );
}

async fn an_ipv6_network_and_a_mapped_ipv4_address_are_one_source_each_alone() {
    let ip = peers::require("ip", "ip").unwrap();
    for address in ["fd00:1::1", "fd00:1::2", "fd00:2::1"] {
        let mut add = Command::new(&ip);
        add.args([
            "address",
            "add",
            &format!("{address}/128"),
            "dev",
            "lo",
            "nodad",
        ]);
        if !add.status().unwrap().success() {
            return peers::skip_or_fail("no IPv6 on this machine");
        }
    }
    let authority = Authority::new();
    let path = authority.write(
        "portcullis.toml",
        "listen = [\"[::]:8443\"]\nadmin = false\nlimits.per_source = 1\n",
    );
    let checked = config::load(&path).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let mut gateway = Gateway::serve(checked).await;
    let v6 = SocketAddr::new("fd00:1::1".parse().unwrap(), 8443);
    let v4 = SocketAddr::from(([127, 0, 0, 1], 8443));
    let mapped = SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), 8443);
    for (first, second, other) in [
        (("fd00:1::1", v6), ("fd00:1::2", v6), ("fd00:2::1", v6)),
        (
            ("127.0.0.1", v4),
            ("::ffff:127.0.0.1", mapped),
            ("127.0.0.2", v4),
        ),
    ] {
        // Of two who come together either may be the first.
        let mut clients = Vec::new();
        for (from, to) in [first, second] {
            clients.extend(dial(from, to).await.ok());
        }
        assert_eq!(gateway.ended().await["reason"], "source_limit");
        exchange(dial(other.0, other.1).await.unwrap(), b"x").await;
        assert_eq!(gateway.ended().await["reason"], "not_tls");
        for tcp in &mut clients {
            // One of them may have been refused.
            let _ = tcp.write_all(b"x").await;
        }
        assert_eq!(gateway.ended().await["reason"], "not_tls");
        assert!(gateway.has_no_more_records());
    }
}
