//! Active checks of upstreams: who fails is passed over and comes back, over every way that an upstream is reached.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::support::PATIENCE;
use crate::upstream::Upstream;

const NAME: &str = "edge.example.test";

/// How long a test lets pass between two looks.
const POLL: Duration = Duration::from_millis(5);

/// Asks ten times a second, for an answer that begins so.
const ASKING: &str = "health_check = { send = \"PING\\n\", expect = \"PONG\", interval = \"100ms\", timeout = \"2s\" }";

/// A gateway whose one route ends TLS and goes to this upstream, and a client of it.
struct Scene {
    gateway: Gateway,
    client: Arc<ClientConfig>,
}

impl Scene {
    async fn new(authority: &Authority, upstream: &str) -> Self {
        authority.issue_files("edge", &[NAME]);
        Self {
            gateway: Gateway::start(authority, &tables(upstream)).await,
            client: Arc::new(authority.client(&[&TLS13])),
        }
    }

    /// The endpoint that one connection gets.
    async fn visit(&mut self) -> SocketAddr {
        let connected = self.gateway.connect_tls(&self.client, NAME).await;
        let mut client = connected.unwrap();
        let _ = client.write_all(b"hello").await;
        let _ = client.shutdown().await;
        let _ = client.read_to_end(&mut Vec::new()).await;
        let record = self.gateway.ended().await;
        record["endpoint"].as_str().unwrap().parse().unwrap()
    }

    /// How `/v1/routes` shows the check of an endpoint: its state, and its error.
    async fn shown(&self, address: SocketAddr) -> (String, String) {
        let shown = self.gateway.endpoint(address).await;
        let text = |key: &str| shown[key].as_str().unwrap_or_default().to_owned();
        (text("check"), text("check_error"))
    }

    /// Waits until the check of an endpoint is shown so; gives its error.
    async fn becomes(&self, address: SocketAddr, state: &str) -> String {
        let late = Instant::now() + PATIENCE;
        loop {
            let (shown, error) = self.shown(address).await;
            if shown == state {
                return error;
            }
            assert!(
                Instant::now() < late,
                "{shown} in place of {state}: {error}"
            );
            sleep(POLL).await;
        }
    }

    /// Waits until `/readyz` tells this of the health of upstreams, or nothing.
    async fn is_told(&self, what: Option<&str>) {
        let late = Instant::now() + PATIENCE;
        loop {
            let (status, body) = self.gateway.ask_admin("/readyz").await;
            let is_so = match what {
                Some(what) => body.contains(what),
                None => !body.contains("health"),
            };
            if is_so {
                assert_eq!(status, 200, "{body}");
                return;
            }
            assert!(Instant::now() < late, "{body}");
            sleep(POLL).await;
        }
    }

    /// How many endpoints are in a state.
    async fn count(&self, state: &str) -> Option<u64> {
        let series = format!("portcullis_upstream_endpoints{{upstream=\"u\",state=\"{state}\"}}");
        self.gateway.metric(&series).await
    }
}

fn tables(upstream: &str) -> String {
    format!(
        "admin = \"127.0.0.1:0\"\n\
         certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
         [routes.edge]\nhost = \"{NAME}\"\nupstream = \"u\"\n{upstream}"
    )
}

/// What answers checks, rightly or wrongly, and greets who says anything else.
#[derive(Clone, Default)]
struct Pinged {
    is_wrong: Arc<AtomicBool>,
    checks: Arc<AtomicUsize>,
}

impl Pinged {
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(self, mut stream: S) {
        let mut asked = [0; 5];
        if stream.read_exact(&mut asked).await.is_err() {
            return;
        }
        if &asked == b"PING\n" {
            self.checks.fetch_add(1, Ordering::SeqCst);
            let is_wrong = self.is_wrong.load(Ordering::SeqCst);
            let answer = if is_wrong {
                "POOR\n"
            } else {
                "PONG, and more\n"
            };
            // In two parts: an answer may come in pieces.
            let (one, two) = answer.split_at(2);
            let _ = stream.write_all(one.as_bytes()).await;
            let _ = stream.flush().await;
            let _ = stream.write_all(two.as_bytes()).await;
        } else {
            let _ = stream.write_all(b"greetings").await;
        }
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }

    async fn plain(&self) -> Upstream {
        let pinged = self.clone();
        Upstream::tcp(move |tcp| pinged.clone().serve(tcp)).await
    }

    fn answers_wrongly(&self, is_wrong: bool) {
        self.is_wrong.store(is_wrong, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn an_endpoint_that_answers_wrongly_is_passed_over_until_it_answers_rightly() {
    let authority = Authority::new();
    let (one, other) = (Pinged::default(), Pinged::default());
    let (first, second) = (one.plain().await, other.plain().await);
    let upstream = format!(
        "[upstreams.u]\nendpoints = [\"{}\", \"{}\"]\n{ASKING}",
        first.address, second.address
    );
    let mut scene = Scene::new(&authority, &upstream).await;
    scene.becomes(first.address, "passing").await;
    scene.becomes(second.address, "passing").await;
    assert_eq!(scene.count("passing").await, Some(2));

    other.answers_wrongly(true);
    let why = scene.becomes(second.address, "failing").await;
    assert_eq!(why, "it answered \"POOR\", which is not what is expected");
    for _ in 0..6 {
        assert_eq!(scene.visit().await, first.address);
    }
    assert_eq!(scene.count("failing").await, Some(1));
    scene.is_told(None).await;

    other.answers_wrongly(false);
    scene.becomes(second.address, "passing").await;
    let visits = [scene.visit().await, scene.visit().await];
    assert!(visits.contains(&first.address) && visits.contains(&second.address));
}

#[tokio::test]
async fn where_every_endpoint_fails_all_are_tried_and_the_status_says_so() {
    let authority = Authority::new();
    let wrong = Pinged::default();
    wrong.answers_wrongly(true);
    let only = wrong.plain().await;
    let upstream = format!("[upstreams.u]\naddress = \"{}\"\n{ASKING}", only.address);
    let mut scene = Scene::new(&authority, &upstream).await;
    scene.becomes(only.address, "failing").await;
    scene
        .is_told(Some(
            "every endpoint fails its health check, and all are tried: u",
        ))
        .await;
    assert_eq!(scene.visit().await, only.address);
    wrong.answers_wrongly(false);
    scene.becomes(only.address, "passing").await;
    scene.is_told(None).await;
}

#[tokio::test]
async fn a_check_without_bytes_is_a_connection_and_may_go_to_another_port() {
    let authority = Authority::new();
    let upstream = Pinged::default().plain().await;
    // Nobody listens there yet; nobody else gets it while the socket is kept.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    let tables = format!(
        "[upstreams.u]\naddress = \"{}\"\nhealth_check = {{ port = {port}, interval = \"100ms\" }}",
        upstream.address
    );
    let scene = Scene::new(&authority, &tables).await;
    let why = scene.becomes(upstream.address, "failing").await;
    assert!(why.contains("refused"), "{why}");
    socket.listen(64).unwrap();
    socket.set_nonblocking(true).unwrap();
    let _listener = TcpListener::from_std(socket.into()).unwrap();
    scene.becomes(upstream.address, "passing").await;
}

#[tokio::test]
async fn a_check_over_tls_asks_for_the_proof_that_connections_ask_for() {
    let authority = Authority::new();
    let pinged = Pinged::default();
    let serving = |name: &str| {
        let (config, pinged) = (authority.issue(&[name]).server(&[&TLS13]), pinged.clone());
        Upstream::tls(config, move |stream| pinged.clone().serve(stream))
    };
    let (right, stranger) = (serving("db.test").await, serving("stranger.test").await);
    let upstream = format!(
        "[upstreams.u]\nendpoints = [\"{}\", \"{}\"]\n{ASKING}\ntls = {{ roots = [\"ca.pem\"], server_name = \"db.test\" }}",
        right.address, stranger.address
    );
    let mut scene = Scene::new(&authority, &upstream).await;
    scene.becomes(right.address, "passing").await;
    let why = scene.becomes(stranger.address, "failing").await;
    assert!(why.contains("tls: "), "{why}");
    for _ in 0..4 {
        assert_eq!(scene.visit().await, right.address);
    }
}

#[tokio::test]
async fn a_reload_keeps_what_is_known_and_the_end_of_a_check_forgets_it() {
    let authority = Authority::new();
    let (one, other) = (Pinged::default(), Pinged::default());
    other.answers_wrongly(true);
    let (first, second) = (one.plain().await, other.plain().await);
    let endpoints = |more: &str| {
        format!(
            "[upstreams.u]\nendpoints = [\"{}\", \"{}\"]\n{more}",
            first.address, second.address
        )
    };
    let mut scene = Scene::new(&authority, &endpoints(ASKING)).await;
    scene.becomes(second.address, "failing").await;
    // From now on nobody asks for an hour: what is known can only be what was.
    let seldom = endpoints(&ASKING.replace("100ms", "1h"));
    scene.gateway.rewrite(&authority, &tables(&seldom));
    scene.gateway.reload.done("a test").await.unwrap();
    let asked = other.checks.load(Ordering::SeqCst);
    assert_eq!(scene.shown(second.address).await.0, "failing");
    for _ in 0..4 {
        assert_eq!(scene.visit().await, first.address);
    }
    assert!(other.checks.load(Ordering::SeqCst) <= asked + 1);

    scene.gateway.rewrite(&authority, &tables(&endpoints("")));
    scene.gateway.reload.done("a test").await.unwrap();
    assert_eq!(scene.shown(second.address).await.0, "");
    let visits = [scene.visit().await, scene.visit().await];
    assert!(visits.contains(&second.address), "{visits:?}");
}

#[tokio::test]
async fn a_thousand_endpoints_are_checked_so_many_at_once() {
    let authority = Authority::new();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counting, highest) = (Arc::clone(&now), Arc::clone(&most));
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let upstream = Upstream::on(listener, move |mut tcp| {
        let (now, most) = (Arc::clone(&counting), Arc::clone(&highest));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let _ = tcp.read_exact(&mut [0; 5]).await;
            // Long enough for the others to come, if they were let.
            sleep(Duration::from_millis(20)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            let _ = tcp.write_all(b"PONG").await;
            let _ = tcp.read_to_end(&mut Vec::new()).await;
        }
    });
    let port = upstream.address.port();
    let endpoints: Vec<String> = (0..1000)
        .map(|n| format!("\"127.0.{}.{}:{port}\"", n / 200 + 1, n % 200 + 1))
        .collect();
    let asking = ASKING.replace("2s", "30s");
    let tables = format!(
        "[upstreams.u]\nendpoints = [{}]\n{asking}",
        endpoints.join(", ")
    );
    let scene = Scene::new(&authority, &tables).await;
    let late = Instant::now() + 2 * PATIENCE;
    while scene.count("passing").await != Some(1000) {
        assert!(Instant::now() < late, "{:?}", scene.count("passing").await);
        sleep(10 * POLL).await;
    }
    assert_eq!(scene.count("failing").await, Some(0));
    let most = most.load(Ordering::SeqCst);
    assert!((8..=64).contains(&most), "{most} at once");
}

#[tokio::test]
async fn an_upstream_that_waits_for_a_proxy_header_is_sent_one_of_nobody() {
    const LOCAL: [u8; 16] = *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    let authority = Authority::new();
    let pinged = Pinged::default();
    let upstream = Upstream::tcp(move |mut tcp| {
        let pinged = pinged.clone();
        async move {
            let mut header = [0; LOCAL.len()];
            if tcp.read_exact(&mut header).await.is_ok() && header == LOCAL {
                pinged.serve(tcp).await;
            }
        }
    })
    .await;
    let tables = format!(
        "[upstreams.u]\naddress = \"{}\"\nproxy_protocol = \"v2\"\n{ASKING}",
        upstream.address
    );
    let scene = Scene::new(&authority, &tables).await;
    scene.becomes(upstream.address, "passing").await;
}
