//! A gateway whose services a real Consul tells it of, most of them behind real sidecars.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ClientConfig;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::client::TlsStream;

use crate::authority::Authority;
use crate::consul::{Consul, Leaf, Options, STRICT, Sidecar, meshed, service, uris};
use crate::gateway::Gateway;
use crate::ports;
use crate::support::PATIENCE;
use crate::upstream::{Upstream, echo};

mod announced;
mod broken;
mod changes;
mod datacenters;
mod file;
mod gateways;
mod half_close;
mod health;
mod instances;
mod intentions;
mod login;
mod middlewares;
mod native;
mod options;
mod ready;
mod rights;
mod scale;
mod sidecars;
mod speed;
mod ssh;
mod tagged_choices;
mod tagged_dials;
mod tagged_routes;
mod transports;
mod ways;
mod workload;

/// The service that the gateway is in the mesh; nobody registers it.
const IDENTITY: &str = "portcullis";

/// A gateway beside an agent, with a certificate for every `NAME.example.test`.
struct Mesh {
    gateway: Gateway,
    authority: Authority,
    client: Arc<ClientConfig>,
    consul: Consul,
}

impl Mesh {
    /// Starts both; none where there is no Consul.
    async fn start() -> Option<Self> {
        Some(Self::with(Consul::strict()?, "", "").await)
    }

    /// Starts an agent, a service behind a sidecar, and the gateway, which is ready; none where one of them is missing.
    async fn before(proxy: Proxy, service: Value, authority: Authority) -> Option<(Self, Sidecar)> {
        Self::beside(Consul::strict()?, proxy, service, authority).await
    }

    /// The same with this agent.
    async fn beside(
        consul: Consul,
        proxy: Proxy,
        service: Value,
        authority: Authority,
    ) -> Option<(Self, Sidecar)> {
        let name = service["Name"].as_str().unwrap().to_owned();
        consul.register(&meshed(service, ports::free()));
        let sidecar = match proxy {
            Proxy::BuiltIn => consul.builtin_sidecar(&name),
            Proxy::Envoy => consul.envoy_sidecar(&name)?,
        };
        let keys = at(&consul);
        let mesh = Self::starting(authority, consul, &keys, "").await;
        mesh.is_ready().await;
        Some((mesh, sidecar))
    }

    /// Starts the gateway with these keys in `[consul]` and these tables besides; it is ready.
    async fn with(consul: Consul, keys: &str, tables: &str) -> Self {
        let keys = at(&consul) + keys;
        let mesh = Self::starting(Authority::new(), consul, &keys, tables).await;
        mesh.is_ready().await;
        mesh
    }

    /// Starts the gateway with these keys in `[consul]`, which must lead to the agent, and these tables besides.
    async fn starting(authority: Authority, consul: Consul, keys: &str, tables: &str) -> Self {
        Self::without(&[], authority, consul, keys, tables).await
    }

    /// The same, where these files are lost between the check of the configuration and the start.
    async fn without(
        lost: &[&str],
        authority: Authority,
        consul: Consul,
        keys: &str,
        tables: &str,
    ) -> Self {
        authority.issue_files("edge", &["*.example.test", "simple01.domain.com"]);
        let checked = Gateway::load(&authority, &configuration(keys, tables));
        for name in lost {
            fs::remove_file(authority.folder().join(name)).unwrap();
        }
        Self {
            gateway: Gateway::serve(checked).await,
            client: Arc::new(authority.client(rustls::ALL_VERSIONS)),
            authority,
            consul,
        }
    }

    /// Waits until a series of `/metrics` has this value.
    async fn counts(&self, series: &str, value: u64) {
        let late = Instant::now() + PATIENCE;
        loop {
            let found = self.gateway.metric(series).await;
            if found == Some(value) {
                return;
            }
            assert!(Instant::now() < late, "{series} is {found:?}, not {value}");
            sleep(POLL).await;
        }
    }

    /// Waits until the gateway says that it should get traffic.
    async fn is_ready(&self) {
        let late = Instant::now() + PATIENCE;
        loop {
            let (status, parts) = self.gateway.ask_admin("/readyz").await;
            if status == 200 {
                return;
            }
            assert!(Instant::now() < late, "not ready: {parts}");
            sleep(POLL).await;
        }
    }

    /// Waits until `/readyz` holds this text.
    async fn readyz_says(&self, text: &str) {
        let late = Instant::now() + PATIENCE;
        loop {
            let (_, parts) = self.gateway.ask_admin("/readyz").await;
            if parts.contains(text) {
                return;
            }
            assert!(Instant::now() < late, "{text:?} is not said: {parts}");
            sleep(POLL).await;
        }
    }

    /// What `/v1/routes` tells now.
    async fn routes(&self) -> Routes {
        let (status, body) = self.gateway.ask_admin("/v1/routes").await;
        assert_eq!(status, 200, "{body}");
        Routes(serde_json::from_str(&body).unwrap())
    }

    /// Waits until `/v1/routes` tells this.
    async fn told(&self, what: &str, is_so: impl Fn(&Routes) -> bool) -> Routes {
        let late = Instant::now() + PATIENCE;
        loop {
            let routes = self.routes().await;
            if is_so(&routes) {
                return routes;
            }
            let all = &routes.0;
            assert!(Instant::now() < late, "waited in vain until {what}: {all}");
            sleep(POLL).await;
        }
    }

    /// Waits until there is a route of this name that can be used.
    async fn route(&self, name: &str) -> Value {
        let routes = self.told(name, |routes| {
            let route = routes.route(name);
            route.is_some_and(|route| !route["endpoints"].as_array().unwrap().is_empty())
        });
        routes.await.route(name).unwrap().clone()
    }

    /// A connection to a [`Host`] under this name.
    async fn open(&self, host: &str) -> io::Result<Tunnel> {
        Tunnel::open(self.gateway.connect_tls(&self.client, host).await?).await
    }

    /// Who answers under this name; the connection ends well.
    async fn greets(&mut self, host: &str) -> String {
        let tunnel = self.open(host).await.unwrap();
        let greeting = tunnel.greeting.clone();
        tunnel.end().await;
        let record = self.gateway.ended().await;
        assert_eq!(record["sni"], host, "{record}");
        assert_eq!(record["reason"], "closed", "{record}");
        greeting
    }

    /// What is written of a connection under this name, which gets no answer.
    async fn refuses(&mut self, host: &str) -> Value {
        let answer = self.open(host).await;
        assert!(answer.is_err(), "{host} is answered");
        let record = self.gateway.ended().await;
        assert_eq!(record["sni"], host, "{record}");
        record
    }
}

/// How long a test lets pass between two looks.
const POLL: Duration = Duration::from_millis(2);

/// The two that speak for a service in the mesh.
#[derive(Clone, Copy)]
enum Proxy {
    /// Consul's own.
    BuiltIn,
    /// Envoy, by Consul's own configuration of it.
    Envoy,
}

/// The keys that lead to an agent, with the gateway's token where there is one.
fn at(consul: &Consul) -> String {
    consul.keys()
}

/// The configuration of a gateway, with an admin interface and these keys in `[consul]`.
fn configuration(keys: &str, tables: &str) -> String {
    format!(
        "admin = \"127.0.0.1:0\"\n\
         certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
         [consul]\nmesh_identity = \"{IDENTITY}\"\n{keys}\n{tables}"
    )
}

/// The answer of `/v1/routes`.
struct Routes(Value);

impl Routes {
    /// The route of this name, if there is one.
    fn route(&self, name: &str) -> Option<&Value> {
        let mut routes = self.0["routes"].as_array().unwrap().iter();
        routes.find(|route| route["name"] == name)
    }

    /// What a service has asked for in vain, and why.
    fn skipped(&self, service: &str) -> Vec<&Value> {
        let skipped = self.0["skipped"].as_array().unwrap().iter();
        skipped
            .filter(|entry| entry["service"] == service)
            .collect()
    }

    /// The addresses that a route dials, with their weights.
    fn endpoints(&self, route: &str) -> Vec<(SocketAddr, u64)> {
        let route = self.route(route);
        let endpoints = route.and_then(|route| route["endpoints"].as_array());
        let endpoint = |endpoint: &Value| {
            let address = endpoint["address"].as_str().unwrap();
            (
                address.parse().unwrap(),
                endpoint["weight"].as_u64().unwrap(),
            )
        };
        endpoints.into_iter().flatten().map(endpoint).collect()
    }
}

/// The tags of a service that a gateway is to route through the mesh, as a job for Traefik carries them.
pub(crate) fn tags(name: &str, host: &str) -> Vec<String> {
    let mut tags = plain_tags(name, host);
    tags.push("traefik.consulcatalog.connect=true".to_owned());
    tags
}

/// The same for a service that is dialled plainly: what there is to be said of most tags has nothing to do with the mesh.
fn plain_tags(name: &str, host: &str) -> Vec<String> {
    vec![
        "traefik.enable=true".to_owned(),
        format!("traefik.tcp.routers.{name}.entrypoints=https"),
        format!("traefik.tcp.routers.{name}.tls=true"),
        format!("traefik.tcp.routers.{name}.rule=HostSNI(`{host}`)"),
        format!("traefik.tcp.routers.{name}.service={name}"),
    ]
}

/// A service with the tags of the mesh, to be registered.
fn routed(name: &str, host: &str, address: SocketAddr) -> Value {
    tagged(name, address, &tags(name, host))
}

/// An agent that denies what no policy and no intention allows, without a token for the gateway, and with a service that it
/// may reach by this name.
async fn denying(name: &str) -> Option<(Consul, Host, Sidecar)> {
    let consul = Consul::start_with(Options {
        gateway: false,
        ..STRICT
    })?;
    let host = Host::start("vm").await;
    consul.register(&meshed(routed("vm", name, host.address), ports::free()));
    let sidecar = consul.builtin_sidecar("vm");
    consul.intend(IDENTITY, "vm", true);
    Some((consul, host, sidecar))
}

/// A service with these tags, to be registered.
fn tagged(name: &str, address: SocketAddr, tags: &[String]) -> Value {
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    service(name, address, &tags)
}

/// A server that says its name in a line of its own, and then sends back what comes.
struct Host {
    address: SocketAddr,
    dialled: Arc<AtomicUsize>,
    _upstream: Upstream,
}

impl Host {
    async fn start(name: &'static str) -> Self {
        let dialled = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&dialled);
        let upstream = Upstream::tcp(move |mut tcp: TcpStream| {
            count.fetch_add(1, Ordering::SeqCst);
            async move {
                let greeting = format!("{name}\n");
                if tcp.write_all(greeting.as_bytes()).await.is_ok() {
                    echo(tcp).await;
                }
            }
        })
        .await;
        Self {
            address: upstream.address,
            dialled,
            _upstream: upstream,
        }
    }

    /// How many connections it has had, from whomever.
    fn dials(&self) -> usize {
        self.dialled.load(Ordering::SeqCst)
    }
}

/// What speaks for a service in the mesh by itself: it says its name in a line of its own, and then sends back what comes.
struct Speaker {
    upstream: Upstream,
    clients: Arc<Mutex<Vec<String>>>,
}

impl Speaker {
    async fn start(name: &'static str, leaf: &Leaf) -> Self {
        let clients = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&clients);
        let upstream = Upstream::tls(leaf.server(), move |mut tls| {
            let shown = tls.get_ref().1.peer_certificates().unwrap();
            all.lock().unwrap().extend(uris(&shown[0]));
            async move {
                let greeting = format!("{name}\n");
                if tls.write_all(greeting.as_bytes()).await.is_ok() {
                    echo(tls).await;
                }
            }
        })
        .await;
        Self { upstream, clients }
    }

    fn address(&self) -> SocketAddr {
        self.upstream.address
    }

    /// The SPIFFE IDs of those who have believed it.
    fn clients(&self) -> Vec<String> {
        self.clients.lock().unwrap().clone()
    }
}

/// A connection through the gateway to a [`Host`] or a [`Speaker`].
struct Tunnel {
    stream: TlsStream<TcpStream>,
    /// What the host has said first.
    greeting: String,
}

impl Tunnel {
    async fn open(stream: TlsStream<TcpStream>) -> io::Result<Self> {
        let mut tunnel = Self {
            stream,
            greeting: String::new(),
        };
        tunnel.greeting = tunnel.line().await?;
        Ok(tunnel)
    }

    /// Fails unless a word goes there and comes back.
    async fn is_alive(&mut self) {
        self.stream.write_all(b"still there?\n").await.unwrap();
        assert_eq!(self.line().await.unwrap(), "still there?");
    }

    /// Ends it as a client does who has all it wanted.
    async fn end(mut self) {
        self.stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let ended = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await;
        if let Err(error) = ended.unwrap() {
            // Consul's own sidecar omits the close_notify if it ends while its last write has not returned.
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
        assert!(rest.is_empty(), "{rest:?}");
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        loop {
            let byte = timeout(PATIENCE, self.stream.read_u8());
            match byte.await.expect("neither a word nor an end")? {
                b'\n' => return Ok(String::from_utf8(line).unwrap()),
                byte => line.push(byte),
            }
        }
    }
}
