//! A real Consul agent on ports of its own: started, asked, told, stopped and restarted.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Value, json};

use crate::authority::Authority;
use crate::support::{Child, PATIENCE, wait_until};
use crate::{peers, ports};

pub(crate) use http::{Answer, exchange};

mod beside;
mod between;
mod catalog;
mod http;
mod leaf;
mod own_ca;
mod proof;
mod sidecar;
mod strict;

pub(crate) use between::{Altered, Between, Fault};
pub(crate) use catalog::{Status, meshed, service, sidecar};
pub(crate) use leaf::{Leaf, uris};
pub(crate) use own_ca::{certificate, self_signed};
pub(crate) use sidecar::Sidecar;
pub(crate) use strict::{ITSELF, NODES, RIGHTS, SERVICES, STRICT, STRICT_PERSISTENT};

/// The token that may do everything, where tokens are asked for ([`Options::acl`]).
pub(crate) const MANAGEMENT: &str = "6f2b9a52-3c1d-4a7e-9b46-0d5f8c7e1a23";

/// What an agent without data says when its services may come: it has a leader, and the catalog has its node.
const NODE_IS_KNOWN: &str = "agent: Synced node info";

/// A server agent, alone in its datacenter, `dc1` most often; dropped, it is killed. Its calls wait, and panic if it says no.
pub(crate) struct Consul {
    /// First, so that it is dead when its folder goes.
    child: Option<Child>,
    program: PathBuf,
    options: Options,
    /// Its CA for HTTPS, and the folder of its files.
    authority: Authority,
    client: Option<Arc<ClientConfig>>,
    ports: Ports,
    /// Where servers of other datacenters join the one that this is beside.
    primary: Option<u16>,
    /// Where the server is whose client this is; a server itself without.
    server: Option<u16>,
}

/// How an agent is started; by default in memory, open to all, over plain HTTP.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options {
    /// Its data outlives a restart. It takes two to five seconds to be ready then, not a third of one.
    pub(crate) persistent: bool,
    /// Nothing is seen or done without a token (`default_policy = "deny"`).
    pub(crate) acl: bool,
    /// The gateway has a token, and sidecars accept everybody ([`Consul::keys`]).
    pub(crate) gateway: bool,
    /// How its API is reached.
    pub(crate) http: Http,
    /// Servers of other datacenters may join it ([`Consul::start_beside`]).
    pub(crate) wan: bool,
}

/// An agent that can be restarted with its data.
pub(crate) const PERSISTENT: Options = Options {
    persistent: true,
    acl: false,
    gateway: false,
    http: Http::Tcp,
    wan: false,
};

/// How the API of an agent is reached.
#[derive(Clone, Copy, Default, PartialEq)]
pub(crate) enum Http {
    #[default]
    Tcp,
    /// A UNIX socket.
    Unix,
    /// HTTPS, whose CA stands in `ca.pem` of [`Consul::folder`].
    Tls,
    /// HTTPS that asks for a certificate; one stands in `client.pem` and `client.key`.
    MutualTls,
}

struct Ports {
    http: u16,
    grpc: u16,
    server: u16,
    serf: u16,
    wan: u16,
}

impl Consul {
    /// Starts an agent in memory; none where there is no Consul.
    ///
    /// `let Some(consul) = Consul::start() else { return };`
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(Options::default())
    }

    /// Starts an agent; it has a leader and a CA, and its node is in the catalog.
    pub(crate) fn start_with(options: Options) -> Option<Self> {
        let authority = beside::certified();
        let mut consul = Self {
            child: None,
            program: peers::pinned("consul")?,
            client: https_client(&authority, options.http),
            options,
            authority,
            ports: Ports::free(),
            primary: None,
            server: None,
        };
        while !consul.launch(NODE_IS_KNOWN) {
            consul.ports = Ports::free();
        }
        Some(consul)
    }

    /// Starts it again on the same ports, with the data it has kept; an agent in memory has kept none.
    pub(crate) fn restart(&mut self) {
        match self.options.persistent {
            true => self.launch_again("agent.server: cluster leadership acquired"),
            false => self.restart_empty(),
        }
    }

    /// Starts it again on the same ports without any data: another cluster, with a CA of its own.
    pub(crate) fn restart_empty(&mut self) {
        self.kill();
        // There is none if it was all in memory.
        let _ = fs::remove_dir_all(self.folder().join("data"));
        self.launch_again(NODE_IS_KNOWN);
    }

    /// Ends it as `systemctl stop` would; its services stay in its data.
    pub(crate) fn stop(&mut self) {
        let child = self.child.take().expect("the agent runs");
        child.signal("TERM");
        child.finish();
    }

    /// Ends it as a lack of memory would.
    pub(crate) fn kill(&mut self) {
        self.child = None;
    }

    /// Lets it hang, with every connection open and unanswered.
    pub(crate) fn freeze(&self) {
        let child = self.child.as_ref().expect("the agent runs");
        child.signal("STOP");
        wait_until("every thread has stopped", || child.is_stopped());
    }

    /// Ends that.
    pub(crate) fn thaw(&self) {
        self.child.as_ref().expect("the agent runs").signal("CONT");
    }

    /// What `CONSUL_HTTP_ADDR` would be.
    pub(crate) fn address(&self) -> String {
        match self.options.http {
            Http::Tcp => format!("http://127.0.0.1:{}", self.ports.http),
            Http::Unix => format!("unix://{}", self.socket().display()),
            Http::Tls | Http::MutualTls => format!("https://127.0.0.1:{}", self.ports.http),
        }
    }

    /// The variables by which a program finds this agent, with this token.
    fn environment(&self, token: Option<&str>) -> Vec<(&'static str, String)> {
        let file = |name: &str| self.folder().join(name).display().to_string();
        let mut variables = vec![("CONSUL_HTTP_ADDR", self.address())];
        if matches!(self.options.http, Http::Tls | Http::MutualTls) {
            variables.push(("CONSUL_CACERT", file("ca.pem")));
        }
        if self.options.http == Http::MutualTls {
            variables.push(("CONSUL_CLIENT_CERT", file("client.pem")));
            variables.push(("CONSUL_CLIENT_KEY", file("client.key")));
        }
        if let Some(token) = token {
            variables.push(("CONSUL_HTTP_TOKEN", token.to_owned()));
        }
        variables
    }

    /// A command of the `consul` program that talks to this agent.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_with(self.token_if_needed(), arguments)
    }

    /// The same with this token.
    fn command_with(&self, token: Option<&str>, arguments: &[&str]) -> Command {
        let mut command = peers::unconfigured(&self.program, "CONSUL_");
        command.args(arguments).envs(self.environment(token));
        command
    }

    /// The folder of its files.
    pub(crate) fn folder(&self) -> &Path {
        self.authority.folder()
    }

    /// What a GET answers.
    pub(crate) fn get(&self, path: &str) -> Value {
        self.do_well("GET", path, &Value::Null)
    }

    /// Puts JSON, or nothing if it is null.
    pub(crate) fn put(&self, path: &str, body: &Value) -> Value {
        self.do_well("PUT", path, body)
    }

    /// Deletes what is there.
    pub(crate) fn delete(&self, path: &str) {
        self.do_well("DELETE", path, &Value::Null);
    }

    /// What a GET answers to this token, or to none, be it good or bad.
    pub(crate) fn get_as(&self, token: Option<&str>, path: &str) -> Answer {
        self.ask("GET", path, token, "").unwrap()
    }

    /// What a GET answers, good or bad.
    fn get_always(&self, path: &str) -> Value {
        self.get_as(self.token_if_needed(), path).json()
    }

    fn do_well(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let token = self.token_if_needed();
        let answer = self.ask(method, path, token, &body).unwrap();
        assert_eq!(answer.status, 200, "{method} {path} {body}: {answer:?}");
        answer.json()
    }

    fn token_if_needed(&self) -> Option<&'static str> {
        self.options.acl.then_some(MANAGEMENT)
    }

    fn ask(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> io::Result<Answer> {
        let token = token.map(|token| ("X-Consul-Token", token));
        if self.options.http == Http::Unix {
            let unix = UnixStream::connect(self.socket())?;
            unix.set_read_timeout(Some(PATIENCE))?;
            return http::exchange(unix, method, path, token, body);
        }
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, self.ports.http))?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        // Else the question waits 40 ms for what is said of the handshake's end.
        tcp.set_nodelay(true)?;
        let Some(client) = &self.client else {
            return http::exchange(tcp, method, path, token, body);
        };
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(Arc::clone(client), name).unwrap();
        http::exchange(StreamOwned::new(tls, tcp), method, path, token, body)
    }

    fn launch_again(&mut self, ready: &str) {
        self.kill();
        let late = Instant::now() + PATIENCE;
        while !self.launch(ready) {
            assert!(Instant::now() < late, "someone has taken the agent's ports");
        }
    }

    /// Starts it on its ports and waits until it is ready, of which it says this; false if a port is taken.
    fn launch(&mut self, ready: &str) -> bool {
        let config = self.authority.write("agent.json", &self.config());
        let mut command = peers::unconfigured(&self.program, "CONSUL_");
        command.args(["agent", "-log-level", "info", "-config-file"]);
        command.arg(config);
        if !self.options.persistent {
            command.arg("-dev");
        }
        let child = Child::spawn(&command);
        let started = child.wait_for(ready, |line| {
            let taken = line.contains("address already in use");
            (taken || line.contains(ready)).then_some(!taken)
        });
        self.child = started.then_some(child);
        if started {
            wait_until("the agent has a CA", || self.has_a_ca());
            // Whoever joins another has the tokens of that one.
            let joins = self.server.is_some() || self.primary.is_some();
            if self.options.gateway && ready == NODE_IS_KNOWN && !joins {
                self.admit_the_gateway();
            }
        }
        started
    }

    fn has_a_ca(&self) -> bool {
        let token = self.token_if_needed();
        let roots = self.ask("GET", "/v1/agent/connect/ca/roots", token, "");
        roots.is_ok_and(|answer| {
            let trust_domain = || answer.json()["TrustDomain"].as_str().map(str::to_owned);
            answer.status == 200 && trust_domain().is_some_and(|name| !name.is_empty())
        })
    }

    fn config(&self) -> String {
        let file = |name: &str| self.folder().join(name);
        let secure = matches!(self.options.http, Http::Tls | Http::MutualTls);
        let (http, https) = match secure {
            true => (-1, i32::from(self.ports.http)),
            false => (i32::from(self.ports.http), -1),
        };
        let mut config = json!({
            "node_name": self.node(),
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "connect": { "enabled": true },
            "disable_update_check": true,
            "ports": {
                "http": http,
                "https": https,
                "grpc": if secure { -1 } else { i32::from(self.ports.grpc) },
                "grpc_tls": if secure { i32::from(self.ports.grpc) } else { -1 },
                "server": self.ports.server,
                "serf_lan": self.ports.serf,
                "serf_wan": if self.options.wan { i32::from(self.ports.wan) } else { -1 },
                "dns": -1,
                // By itself every agent would give the same ports to its sidecars: a test says which.
                "sidecar_min_port": 0,
                "sidecar_max_port": 0,
            },
        });
        if let Some(server) = self.server {
            config["data_dir"] = json!(file("data"));
            config["retry_join"] = json!([format!("127.0.0.1:{server}")]);
            config["retry_interval"] = json!("1s");
        } else if self.options.persistent {
            config["server"] = json!(true);
            config["bootstrap_expect"] = json!(1);
            config["data_dir"] = json!(file("data"));
            config["performance"] = json!({ "raft_multiplier": 1 });
        }
        if let Some(primary) = self.primary {
            config["datacenter"] = json!("dc2");
            config["primary_datacenter"] = json!("dc1");
            config["retry_join_wan"] = json!([format!("127.0.0.1:{primary}")]);
            config["retry_interval_wan"] = json!("1s");
        } else if self.options.wan {
            config["primary_datacenter"] = json!("dc1");
        }
        if self.options.acl {
            let mut tokens = json!({ "initial_management": MANAGEMENT, "agent": MANAGEMENT });
            if self.primary.is_some() {
                tokens["replication"] = json!(MANAGEMENT);
            }
            config["acl"] = json!({ "enabled": true, "default_policy": "deny", "tokens": tokens });
        }
        if self.options.http == Http::Unix {
            config["addresses"] = json!({ "http": self.address() });
        }
        if secure {
            let mut tls = json!({
                "ca_file": file("ca.pem"),
                "cert_file": file("agent.pem"),
                "key_file": file("agent.key"),
            });
            config["tls"] = json!({ "grpc": tls });
            tls["verify_incoming"] = json!(self.options.http == Http::MutualTls);
            config["tls"]["https"] = tls;
        }
        config.to_string()
    }

    /// What its node is called.
    fn node(&self) -> &'static str {
        match self.server {
            None => "test",
            Some(_) => "client",
        }
    }

    /// Where its API listens, on TCP.
    pub(crate) fn http(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.http))
    }

    fn socket(&self) -> PathBuf {
        self.folder().join("consul.sock")
    }

    /// Where Envoy finds it.
    fn grpc(&self) -> String {
        let scheme = self.client.as_ref().map_or("http", |_| "https");
        format!("{scheme}://127.0.0.1:{}", self.ports.grpc)
    }
}

impl Ports {
    fn free() -> Self {
        Self {
            http: ports::free(),
            grpc: ports::free(),
            server: ports::free(),
            serf: ports::free(),
            wan: ports::free(),
        }
    }
}

/// What talks HTTPS to the agent, with a certificate if it asks for one.
fn https_client(authority: &Authority, http: Http) -> Option<Arc<ClientConfig>> {
    match http {
        Http::Tcp | Http::Unix => None,
        Http::Tls => Some(Arc::new(authority.client(&[&TLS13]))),
        Http::MutualTls => {
            let issued = authority.issue_files("client", &["client.example.test"]);
            let key = PrivateKeyDer::try_from(issued.key.serialize_der()).unwrap();
            let config = ClientConfig::builder_with_provider(portcullis::tls::provider())
                .with_protocol_versions(&[&TLS13])
                .unwrap()
                .with_root_certificates(authority.roots())
                .with_client_auth_cert(vec![issued.certificate.der().clone()], key);
            Some(Arc::new(config.unwrap()))
        }
    }
}
