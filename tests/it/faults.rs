//! A gateway whose Consul, mesh or sidecars fail: what is served on, what is refused, and what it says of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::authority::Authority;
use crate::consul::{Consul, service, sidecar};
use crate::gateway::{Gateway, ask};
use crate::mesh;
use crate::program::Program;
use crate::support::PATIENCE;
use crate::upstream::{Upstream, echo};

mod answers;
mod emptied;
mod faulty;
mod identity;
mod impostors;
mod outage;
mod passed_over;
mod rotation;

/// The service that each test has, and the host of its route; it echoes.
const NAME: &str = "simple01";
const HOST: &str = "simple01.domain.com";
const ROUTE: &str = "simple01@consul";

/// A route of the file, to an echo that Consul does not know.
const FILE_HOST: &str = "file.domain.com";

/// More than any connection takes that is not kept waiting; the gateway's own deadline of a dial is 5 s.
const PROMPT: Duration = Duration::from_secs(3);

/// A gateway that asks an agent, or what stands before it: in the test's own process, or in one of its own.
struct Scene<G = Gateway> {
    gateway: G,
    admin: SocketAddr,
    way: Way,
    _stage: Stage,
}

/// What a gateway needs besides.
struct Stage {
    /// Its folder holds the gateway's configuration.
    authority: Authority,
    _file: Upstream,
}

impl Scene {
    /// A gateway that is ready, and has the route; these keys lead to the agent, and those stand in its section besides.
    async fn start(agent: &str, keys: &str) -> Self {
        Self::start_unready(agent, keys).await.settled().await
    }

    /// The same, which listens.
    async fn start_unready(agent: &str, keys: &str) -> Self {
        let (stage, tables) = Stage::for_gateway(agent, keys).await;
        let gateway = Gateway::start(&stage.authority, &tables).await;
        let (address, admin) = (gateway.address, gateway.admin());
        Self::on(stage, gateway, address, admin)
    }
}

impl Scene<Program> {
    /// The same in a process of its own, whose log is its own, too.
    async fn start_apart(agent: &str, keys: &str) -> Self {
        let (stage, tables) = Stage::for_gateway(agent, keys).await;
        let tables = format!("log = {{ format = \"json\" }}\n{tables}");
        let program = Program::start(&stage.authority, &tables);
        let (address, admin) = (program.listener, program.admin);
        Self::on(stage, program, address, admin).settled().await
    }

    /// Waits until this part says that it is degraded, and the same is in `/v1/routes`, the log and a metric; returns what it says.
    async fn tells(&self, part: &str) -> String {
        self.is_degraded(part).await;
        let listed = self.part(part).await;
        assert_eq!(listed["state"], "degraded", "{listed}");
        assert!(!listed["text"].as_str().unwrap().is_empty(), "{listed}");
        let (_, metrics) = ask(self.admin, "/metrics").await;
        let series = format!("portcullis_part_state{{part=\"{part}\",state=\"degraded\"}} 1");
        assert!(metrics.contains(&series), "{metrics}");
        // Other words for it may have come since, and are not all logged.
        self.until(&format!("the log says it of {part}"), async || {
            let told = self.state(part).await;
            let warnings = self.logged("WARN").into_iter();
            let mut said =
                warnings.flat_map(|line| [line["error"].clone(), line["message"].clone()]);
            said.any(|words| words.as_str().is_some_and(|words| told.contains(words)))
        })
        .await;
        self.state(part).await
    }

    /// What it has logged at this level.
    fn logged(&self, level: &str) -> Vec<Value> {
        let lines = self.gateway.child.stderr();
        let lines = lines.iter().map(|line| serde_json::from_str(line).unwrap());
        lines
            .filter(|line: &Value| line["level"] == level)
            .collect()
    }
}

impl Stage {
    async fn for_gateway(agent: &str, keys: &str) -> (Self, String) {
        let authority = Authority::new();
        authority.issue_files("edge", &["*.domain.com"]);
        let file = Upstream::echo().await;
        let tables = format!(
            "admin = \"127.0.0.1:0\"\n\
             certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
             [routes.file]\nhost = \"{FILE_HOST}\"\nupstream = \"{}\"\n\
             [consul]\n{agent}mesh_identity = \"portcullis\"\n{keys}\n",
            file.address
        );
        let stage = Self {
            authority,
            _file: file,
        };
        (stage, tables)
    }
}

impl<G> Scene<G> {
    fn on(stage: Stage, gateway: G, address: SocketAddr, admin: SocketAddr) -> Self {
        let way = Way {
            gateway: address,
            client: Arc::new(stage.authority.client(&[&TLS13])),
        };
        Self {
            gateway,
            admin,
            way,
            _stage: stage,
        }
    }

    /// The same once it is ready, and has the route.
    async fn settled(self) -> Self {
        self.is_ready().await;
        self.until("it has the route", async || self.serves().await)
            .await;
        self
    }

    /// Whether a connection to the route's host reaches the service.
    async fn serves(&self) -> bool {
        self.way.echo(HOST).await.is_ok()
    }

    /// Panics unless the route stands as it should and connections reach the service.
    async fn works(&self, what: &str) {
        let route = self.route(ROUTE).await;
        assert_eq!(route["action"], "terminate", "{what}: {route}");
        assert_eq!(route["broken_reason"], Value::Null, "{what}: {route}");
        for _ in 0..3 {
            let done = self.way.echo(HOST).await;
            assert_eq!(done, Ok(()), "{what}: {}", self.readyz().await.1);
        }
    }

    /// The route of this name; null if there is none.
    async fn route(&self, name: &str) -> Value {
        let (_, text) = ask(self.admin, "/v1/routes").await;
        let list: Value = serde_json::from_str(&text).unwrap();
        let mut routes = list["routes"].as_array().unwrap().iter();
        let found = routes.find(|route| route["name"] == name);
        found.cloned().unwrap_or_default()
    }

    /// What `/v1/routes` says of a part.
    async fn part(&self, name: &str) -> Value {
        let (_, text) = ask(self.admin, "/v1/routes").await;
        let list: Value = serde_json::from_str(&text).unwrap();
        let mut parts = list["parts"].as_array().unwrap().iter();
        let found = parts.find(|part| part["name"] == name);
        found.cloned().unwrap_or_default()
    }

    async fn readyz(&self) -> (u16, String) {
        ask(self.admin, "/readyz").await
    }

    /// What a part says of itself.
    async fn state(&self, part: &str) -> String {
        let (_, text) = self.readyz().await;
        let mut lines = text.lines();
        let state = lines.find_map(|line| line.strip_prefix(part)?.strip_prefix(' '));
        state.unwrap_or("unknown").to_owned()
    }

    /// Waits until every part is ready.
    async fn is_ready(&self) {
        self.until("every part is ready", async || {
            let (status, text) = self.readyz().await;
            status == 200 && text.lines().all(|line| line.ends_with(" ready"))
        })
        .await;
    }

    /// Waits until a part says that it is degraded, which takes no traffic away; returns what it says.
    async fn is_degraded(&self, part: &str) -> String {
        self.until(&format!("{part} is degraded"), async || {
            self.state(part).await.starts_with("degraded: ")
        })
        .await;
        assert_eq!(self.readyz().await.0, 200);
        self.state(part).await
    }

    /// How many connections of the route ended for this reason, by the metrics.
    async fn ended_for(&self, reason: &str) -> u64 {
        let (_, text) = ask(self.admin, "/metrics").await;
        let begin = "portcullis_connections_ended_total{";
        let ended = text.lines().filter(|line| line.starts_with(begin));
        let labels = [format!("route=\"{ROUTE}\""), format!("reason=\"{reason}\"")];
        let counts = ended.filter(|line| labels.iter().all(|label| line.contains(label)));
        counts
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }

    /// Waits for what no event tells; panics with the states if it does not come in [`PATIENCE`].
    async fn until(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        self.until_within(PATIENCE, what, is_so).await;
    }

    async fn until_within(&self, patience: Duration, what: &str, is_so: impl AsyncFn() -> bool) {
        let late = Instant::now() + patience;
        while !is_so().await {
            let late = Instant::now() > late;
            assert!(
                !late,
                "waited in vain until {what}: {}",
                self.readyz().await.1
            );
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// A connection that lives until it is dropped.
    async fn tunnel(&self) -> Tunnel {
        self.tunnel_to(HOST).await
    }

    async fn tunnel_to(&self, host: &str) -> Tunnel {
        Tunnel(self.way.connect(host).await.unwrap())
    }

    /// Connections that come and go, one every few milliseconds, until they are told to stop.
    fn traffic(&self, host: &'static str) -> Traffic {
        let (way, stop) = (self.way.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let going = tokio::spawn(async move {
            let (mut count, mut failures) = (0, Vec::new());
            while !stopped.load(Ordering::SeqCst) {
                let began = Instant::now();
                count += 1;
                if let Err(why) = way.echo(host).await {
                    failures.push(format!("{why} after {:?}", began.elapsed()));
                }
                sleep(Duration::from_millis(5)).await;
            }
            (count, failures)
        });
        Traffic { stop, going }
    }
}

/// How a client comes to the gateway.
#[derive(Clone)]
struct Way {
    gateway: SocketAddr,
    client: Arc<ClientConfig>,
}

impl Way {
    async fn connect(&self, host: &str) -> Result<TlsStream<TcpStream>, String> {
        let tcp = TcpStream::connect(self.gateway).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let connector = TlsConnector::from(Arc::clone(&self.client));
        let connected = connector.connect(name, tcp).await;
        connected.map_err(|error| format!("handshake: {error}"))
    }

    /// A connection that says a word, hears it again, and ends, without being kept waiting.
    async fn echo(&self, host: &str) -> Result<(), String> {
        let exchange = async {
            let mut stream = self.connect(host).await?;
            say(&mut stream, b"hello").await?;
            let _ = stream.shutdown().await;
            Ok(())
        };
        let done = timeout(PROMPT, exchange).await;
        done.unwrap_or_else(|_| Err("kept waiting".to_owned()))
    }
}

/// Says a word and hears it again.
async fn say(stream: &mut TlsStream<TcpStream>, word: &[u8]) -> Result<(), String> {
    let written = stream.write_all(word).await;
    written.map_err(|error| format!("write: {error}"))?;
    let mut heard = vec![0; word.len()];
    let read = stream.read_exact(&mut heard).await;
    read.map_err(|error| format!("read: {error}"))?;
    assert_eq!(heard, word);
    Ok(())
}

struct Tunnel(TlsStream<TcpStream>);

impl Tunnel {
    /// Panics unless it still reaches the service.
    async fn lives(&mut self) {
        let said = timeout(PATIENCE, say(&mut self.0, b"still there")).await;
        assert_eq!(said.expect("the tunnel is silent"), Ok(()));
    }
}

struct Traffic {
    stop: Arc<AtomicBool>,
    going: JoinHandle<(usize, Vec<String>)>,
}

impl Traffic {
    /// Ends it; panics if any connection failed, or there were none.
    async fn went_well(self) {
        self.stop.store(true, Ordering::SeqCst);
        let (count, failures) = self.going.await.unwrap();
        assert!(
            failures.is_empty(),
            "{} of {count}: {failures:?}",
            failures.len()
        );
        assert!(count > 1);
    }
}

/// The tags by which a service asks for a route over the mesh, whose host is called as it is.
fn tags(name: &str) -> Vec<String> {
    mesh::tags(name, &format!("{name}.domain.com"))
}

/// Registers a service with those tags, which listens there, and its sidecar on this port of 127.0.0.1. The sidecar has no
/// check: an agent that starts with the data of another would have it critical until it was made.
fn register(consul: &Consul, name: &str, service_at: SocketAddr, sidecar_port: u16) {
    let tags = tags(name);
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let registered = service(name, service_at, &tags);
    let mut beside = sidecar(&registered, sidecar_port);
    beside["Check"] = json!(null);
    consul.register(&registered);
    consul.register(&beside);
}

/// Registers the service with a sidecar in the test's own process, which has a leaf of this moment.
async fn register_with_own_sidecar(consul: &Consul) -> Upstream {
    let sidecar = Upstream::tls(own_sidecar(consul), echo).await;
    register(consul, NAME, sidecar.address, sidecar.address.port());
    sidecar
}

/// The TLS of a sidecar in the test's own process.
fn own_sidecar(consul: &Consul) -> Arc<ServerConfig> {
    consul.leaf(NAME).server()
}
