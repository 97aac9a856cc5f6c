//! Middlewares of routes: whom they let in, whom they refuse before anything is done for him, and what a reload keeps.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::authority::Authority;
use crate::gateway::{Gateway, answer};
use crate::hello_bytes::{self as hello, ACCESS_DENIED, framed};
use crate::support::PATIENCE;
use crate::upstream::{Upstream, echo};

/// A gateway behind a proxy, which is the test itself, with routes that ask something of their clients.
struct Scene {
    authority: Authority,
    gateway: Gateway,
    client: Arc<ClientConfig>,
    dialled: Arc<AtomicUsize>,
    upstream: Upstream,
}

impl Scene {
    /// With this much for each source on the routes `few` and `both`.
    async fn with(most: usize) -> Self {
        let authority = Authority::new();
        authority.issue_files("edge", &["*.example.test"]);
        let dialled = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&dialled);
        let upstream = Upstream::tcp(move |tcp| {
            count.fetch_add(1, Ordering::SeqCst);
            echo(tcp)
        })
        .await;
        let gateway = Gateway::start(&authority, &tables(most, &upstream, "")).await;
        Self {
            client: Arc::new(authority.client(&[&TLS13])),
            authority,
            gateway,
            dialled,
            upstream,
        }
    }

    /// From now on with this much, and these lines of the route `few`.
    async fn reload(&self, most: usize, few: &str) {
        let tables = tables(most, &self.upstream, few);
        self.gateway.rewrite(&self.authority, &tables);
        self.gateway.reload.done("a test").await.unwrap();
    }

    async fn from(&self, client: &str) -> TcpStream {
        let mut tcp = self.gateway.connect().await;
        tcp.write_all(header(client).as_bytes()).await.unwrap();
        tcp
    }

    /// A tunnel of this client, once a byte has come back through it.
    async fn tunnel(&self, client: &str, route: &str) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(format!("{route}.example.test")).unwrap();
        let connector = TlsConnector::from(Arc::clone(&self.client));
        let mut tls = connector.connect(name, self.from(client).await).await?;
        alive(&mut tls).await?;
        Ok(tls)
    }

    /// That client is told that it may not, and the upstream hears nothing of it; what is written of it.
    async fn refuses(&mut self, client: &str, route: &str, reason: &str) -> Value {
        let dials = self.dialled.load(Ordering::SeqCst);
        let mut tcp = self.from(client).await;
        let hello = framed(&hello::named(format!("{route}.example.test")), &[]);
        tcp.write_all(&hello).await.unwrap();
        let (alert, reset) = answer(&mut tcp).await;
        let record = self.gateway.ended().await;
        assert_eq!(alert, ACCESS_DENIED, "{client}: {record}");
        assert!(!reset, "{client}: the alert may be lost");
        assert_eq!(record["reason"], reason, "{client}: {record}");
        assert_eq!(record["fault"], "client", "{record}");
        assert_eq!(record["route"], route, "{record}");
        assert_eq!(self.dialled.load(Ordering::SeqCst), dials, "{client}");
        record
    }

    /// That client is served, and is gone again.
    async fn serves(&mut self, client: &str, route: &str) {
        drop(self.tunnel(client, route).await.unwrap());
        let record = self.gateway.ended().await;
        assert_eq!(record["route"], route, "{record}");
    }

    /// Waits until that client is served.
    async fn takes(&self, client: &str, route: &str) -> TlsStream<TcpStream> {
        let late = Instant::now() + PATIENCE;
        loop {
            if let Ok(tunnel) = self.tunnel(client, route).await {
                return tunnel;
            }
            assert!(Instant::now() < late, "{client} is not let in");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn alive(tls: &mut TlsStream<TcpStream>) -> io::Result<()> {
    tls.write_all(b"x").await?;
    tls.read_exact(&mut [0]).await.map(drop)
}

/// What a proxy says of this client.
fn header(client: &str) -> String {
    let (family, to) = match client.parse().unwrap() {
        IpAddr::V4(_) => ("TCP4", "198.51.100.2"),
        IpAddr::V6(_) => ("TCP6", "2001:db8::2"),
    };
    format!("PROXY {family} {client} {to} 4711 443\r\n")
}

fn tables(most: usize, upstream: &Upstream, few: &str) -> String {
    let address = upstream.address;
    let few = match few {
        "" => "middlewares = [\"few\"]",
        few => few,
    };
    format!(
        "listen = [{{ address = \"127.0.0.1:0\", proxy_protocol = {{ from = [\"127.0.0.1\"] }} }}]\n\
         admin = \"127.0.0.1:0\"\n\
         certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
         [middlewares.office]\nip_allow_list = [\"10.1.0.0/16\", \"2001:db8:1::/48\"]\n\
         [middlewares.wide]\nip_allow_list = [\"10.0.0.0/8\", \"192.0.2.7\"]\n\
         [middlewares.few]\nin_flight_conn = {most}\n\
         [routes.office]\nhost = \"office.example.test\"\nupstream = \"{address}\"\nmiddlewares = [\"office\"]\n\
         [routes.both]\nhost = \"both.example.test\"\nupstream = \"{address}\"\nmiddlewares = [\"wide\", \"office\", \"few\"]\n\
         [routes.few]\nhost = \"few.example.test\"\nupstream = \"{address}\"\n{few}\n\
         [routes.free]\nhost = \"free.example.test\"\nupstream = \"{address}\"\n"
    )
}

#[tokio::test]
async fn a_client_that_a_list_does_not_name_is_told_so_and_no_other() {
    let mut scene = Scene::with(9).await;
    for client in ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8:1:2::3"] {
        scene.serves(client, "office").await;
    }
    for client in ["10.2.0.1", "::ffff:10.2.0.1", "2001:db8:2::1", "127.0.0.1"] {
        let record = scene.refuses(client, "office", "client_not_allowed").await;
        let detail = record["detail"].as_str().unwrap();
        assert!(detail.contains("`ip_allow_list`"), "{detail}");
        scene.serves(client, "free").await;
    }
    // Of several lists each must hold him.
    scene.serves("10.1.2.3", "both").await;
    for client in ["10.2.0.1", "192.0.2.7", "2001:db8:1::1"] {
        scene.refuses(client, "both", "client_not_allowed").await;
    }
}

#[tokio::test]
async fn a_source_has_so_many_connections_on_a_route_at_once_and_one_more_when_one_has_ended() {
    let mut scene = Scene::with(2).await;
    for (one, same, other) in [
        ("10.1.0.1", "::ffff:10.1.0.1", "10.1.0.2"),
        ("2001:db8:7:7::1", "2001:db8:7:7::2", "2001:db8:7:8::1"),
    ] {
        let mut first = scene.tunnel(one, "few").await.unwrap();
        let mut second = scene.tunnel(same, "few").await.unwrap();
        for client in [one, same] {
            let record = scene.refuses(client, "few", "in_flight_limit").await;
            let detail = record["detail"].as_str().unwrap();
            assert!(detail.contains("`in_flight_conn`"), "{detail}");
            // Of another route it has as many again, and others have theirs.
            scene.serves(client, "free").await;
        }
        scene.serves(other, "few").await;
        alive(&mut first).await.unwrap();
        alive(&mut second).await.unwrap();
        drop(first);
        assert_eq!(scene.gateway.ended().await["route"], "few");
        let third = scene.takes(same, "few").await;
        drop((second, third));
        for _ in 0..2 {
            assert_eq!(scene.gateway.ended().await["route"], "few");
        }
    }
    let (_, metrics) = scene.gateway.ask_admin("/metrics").await;
    let series = "portcullis_limit_exceeded_total{limit=\"in_flight_conn\",enforced=\"true\"} 4";
    assert!(metrics.contains(series), "{metrics}");
}

#[tokio::test]
async fn no_reload_forgets_who_is_in_and_none_ends_them() {
    let mut scene = Scene::with(1).await;
    let mut tunnel = scene.tunnel("10.1.0.1", "few").await.unwrap();
    for (most, few) in [
        (1, "# another line\nmiddlewares = [\"few\"]"),
        (1, "max_connections = 9\nmiddlewares = [\"few\"]"),
        (1, "middlewares = [\"few\", \"office\"]"),
        (0, ""),
    ] {
        scene.reload(most, few).await;
        scene.refuses("10.1.0.1", "few", "in_flight_limit").await;
        alive(&mut tunnel).await.unwrap();
    }
    scene.refuses("10.1.0.2", "few", "in_flight_limit").await;
    scene.reload(2, "").await;
    let second = scene.tunnel("10.1.0.1", "few").await.unwrap();
    scene.refuses("10.1.0.1", "few", "in_flight_limit").await;
    scene.reload(1, "").await;
    drop(second);
    assert_eq!(scene.gateway.ended().await["route"], "few");
    scene.refuses("10.1.0.1", "few", "in_flight_limit").await;
    drop(tunnel);
    assert_eq!(scene.gateway.ended().await["route"], "few");
    scene.takes("10.1.0.1", "few").await;
}
