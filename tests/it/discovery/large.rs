//! A Consul that answers with far more than makes sense: what was known is served, why is told, and memory stays bounded.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::route;
use crate::authority::Authority;
use crate::fake_consul::{FakeConsul, Fault, World};
use crate::gateway::ask;
use crate::program::Program;
use crate::support::PATIENCE;
use crate::upstream::Upstream;

/// More than the 64 MiB that are taken of one answer.
const LARGE: usize = 100_000_000;

/// How long the test lets pass between two looks.
const POLL: Duration = Duration::from_millis(10);

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_a_hundred_megabytes_changes_nothing_is_told_and_is_not_held_in_memory() {
    let consul = FakeConsul::start().await;
    let echo = Upstream::echo().await;
    for name in ["api", "web"] {
        consul.change(|world| register(world, name, echo.address));
    }
    let gateway = Gateway::start(&consul).await;
    let mut tunnel = gateway.open("web.example.test").await;
    let before = gateway.peak();

    for asked in ["catalog/services", "health/state/any"] {
        consul.fail(asked, Fault::Large(LARGE));
        let told = gateway.readyz_says("is larger than 67108864 bytes").await;
        assert!(told.contains(asked), "{told}");
        assert!(told.contains("an ACL token with service:read"), "{told}");
        gateway
            .tells_everywhere("is larger than 67108864 bytes")
            .await;
        echoes(&mut tunnel).await;
        echoes(&mut gateway.open("api.example.test").await).await;
        consul.change(|world| world.faults.clear());
        gateway.readyz_says("consul ready").await;
    }

    // Every service at once, as something has changed and nothing tells what.
    consul.change(|world| {
        world.faults.insert("health/service/", Fault::Large(LARGE));
        world.index = [50, 50];
    });
    let told = gateway
        .readyz_says("2 of consul's services cannot be read")
        .await;
    assert!(told.contains("is larger than"), "{told}");
    gateway
        .tells_everywhere("of consul's services cannot be read")
        .await;
    echoes(&mut tunnel).await;
    let most = gateway.peak() - before;
    assert!(most < 2 * 64 * 1024 + 32 * 1024, "{most} KiB more");

    consul.change(|world| {
        world.faults.clear();
        register(world, "new", echo.address);
    });
    gateway.readyz_says("consul ready").await;
    echoes(&mut gateway.open("new.example.test").await).await;
    echoes(&mut tunnel).await;
}

/// A few bytes each, of which much would be made.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_a_million_little_things_is_refused_before_it_takes_all_memory() {
    let consul = FakeConsul::start().await;
    let echo = Upstream::echo().await;
    consul.change(|world| register(world, "web", echo.address));
    let gateway = Gateway::start(&consul).await;
    let before = gateway.peak();
    let list = |element: &str| format!("[{}{element}]", format!("{element},").repeat(4_000_000));
    let names: Vec<String> = (0..400_000).map(|n| format!("\"{n:x}\":[]")).collect();
    for (asked, body) in [
        ("health/service/", list("1")),
        ("health/service/", list("{}")),
        ("catalog/services", format!("{{{}}}", names.join(","))),
        ("catalog/services", format!("{{\"a\":{}}}", list("\"\""))),
        ("health/state/any", list("{}")),
    ] {
        consul.change(|world| {
            world.faults.insert(asked, Fault::Bytes(body.into_bytes()));
            world.index = world.index.map(|index| index + 10);
        });
        gateway.readyz_says("more than ").await;
        echoes(&mut gateway.open("web.example.test").await).await;
        consul.change(|world| {
            world.faults.clear();
            world.index = world.index.map(|index| index + 10);
        });
        gateway.readyz_says("consul ready").await;
    }
    let most = gateway.peak() - before;
    assert!(most < 256 * 1024, "{most} KiB more");
}

pub(super) fn register(world: &mut World, name: &str, address: SocketAddr) {
    let tags = route(&format!("{name}.example.test"));
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    world.register(name, &tags);
    let entries = world.services.get_mut(name).unwrap();
    entries[0]["Service"]["Port"] = json!(address.port());
}

/// The real program: what it holds in memory is nobody else's.
pub(super) struct Gateway {
    pub(super) program: Program,
    client: Arc<ClientConfig>,
    _authority: Authority,
}

impl Gateway {
    pub(super) async fn start(consul: &FakeConsul) -> Self {
        let authority = Authority::new();
        authority.issue_files("edge", &["*.example.test"]);
        let tables = format!(
            "admin = \"127.0.0.1:0\"\nlog = {{ format = \"json\" }}\n\
             certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
             [consul]\naddress = \"http://{}\"\n",
            consul.address()
        );
        let gateway = Self {
            program: Program::start(&authority, &tables),
            client: Arc::new(authority.client(rustls::ALL_VERSIONS)),
            _authority: authority,
        };
        gateway.readyz_says("consul ready").await;
        gateway
    }

    /// Waits until `/readyz` holds this text, and that traffic may come all the time; returns all that it says.
    async fn readyz_says(&self, text: &str) -> String {
        let late = Instant::now() + PATIENCE;
        loop {
            let (_, told) = ask(self.program.admin, "/readyz").await;
            if told.contains(text) {
                assert!(!told.contains("not ready"), "{told}");
                return told;
            }
            assert!(Instant::now() < late, "{text}: {told}");
            sleep(POLL).await;
        }
    }

    /// Waits until the log, `/v1/routes` and a metric say this of Consul.
    async fn tells_everywhere(&self, text: &str) {
        let child = &self.program.child;
        child.wait_for(text, |line| line.contains(text).then_some(()));
        let (_, routes) = ask(self.program.admin, "/v1/routes").await;
        let routes: Value = serde_json::from_str(&routes).unwrap();
        let mut parts = routes["parts"].as_array().unwrap().iter();
        let says = |part: &Value| {
            part["text"]
                .as_str()
                .is_some_and(|said| said.contains(text))
        };
        assert!(parts.any(says), "{routes}");
        let (_, metrics) = ask(self.program.admin, "/metrics").await;
        let series = "portcullis_part_state{part=\"consul\",state=\"degraded\"} 1";
        assert!(metrics.contains(series), "{metrics}");
    }

    pub(super) async fn open(&self, host: &str) -> TlsStream<TcpStream> {
        let late = Instant::now() + PATIENCE;
        loop {
            match self.try_open(host).await {
                Ok(stream) => return stream,
                Err(error) => assert!(Instant::now() < late, "{host}: {error}"),
            }
            sleep(POLL).await;
        }
    }

    async fn try_open(&self, host: &str) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let tcp = TcpStream::connect(self.program.listener).await?;
        let connector = TlsConnector::from(Arc::clone(&self.client));
        connector.connect(name, tcp).await
    }

    /// The most that was resident at a time, in KiB (proc_pid_status(5)).
    fn peak(&self) -> u64 {
        let path = format!("/proc/{}/status", self.program.child.id());
        let status = fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.unwrap().split_whitespace().next();
        number.unwrap().parse().unwrap()
    }
}

pub(super) async fn echoes(tunnel: &mut TlsStream<TcpStream>) {
    tunnel.write_all(b"still there?").await.unwrap();
    let mut heard = [0; 12];
    tunnel.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still there?");
}
