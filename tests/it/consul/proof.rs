//! The agent and its sidecars are what the gateway's tests take them for.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Consul, Http, Options, Ports, Sidecar, Status, meshed, service, sidecar};
use crate::bao::Bao;
use crate::ports;
use crate::support::{PATIENCE, wait_until};
use crate::upstream::{Upstream, echo};

const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 2222);

#[test]
fn a_service_is_registered_changed_and_gone() {
    let Some(consul) = Consul::start() else {
        return;
    };
    let health = || consul.health("service", "vm");
    let plain = service("vm", SocketAddr::from(ADDRESS), &["a"]);
    consul.register(&meshed(plain, ports::free()));
    assert_eq!(health(), ["passing"]);
    let tags = consul.get("/v1/catalog/services");
    assert_eq!(tags["vm"], json!(["a"]));

    consul.set_status("vm", Status::Warning);
    assert_eq!(health(), ["warning"]);
    consul.set_status("vm", Status::Critical);
    assert_eq!(health(), ["critical"]);
    wait_until("the sidecar is as critical as its service", || {
        consul.health("connect", "vm") == ["critical"]
    });
    consul.set_status("vm", Status::Passing);
    assert_eq!(health(), ["passing"]);

    consul.service_maintenance("vm", true);
    assert_eq!(health(), ["maintenance"]);
    consul.service_maintenance("vm", false);
    assert_eq!(health(), ["passing"]);
    consul.node_maintenance(true);
    assert_eq!(health(), ["maintenance"]);
    consul.node_maintenance(false);
    assert_eq!(health(), ["passing"]);

    consul.register(&service("vm", SocketAddr::from(ADDRESS), &["c"]));
    assert_eq!(consul.get("/v1/catalog/services")["vm"], json!(["c"]));

    consul.deregister("vm");
    assert!(health().is_empty());
    assert!(consul.health("connect", "vm").is_empty());
}

#[test]
fn its_data_outlives_its_process_and_an_agent_without_data_is_another_cluster() {
    let persistent = Options {
        persistent: true,
        ..Options::default()
    };
    let Some(mut consul) = Consul::start_with(persistent) else {
        return;
    };
    let plain = service("vm", SocketAddr::from(ADDRESS), &[]);
    consul.register(&plain);
    consul.register(&sidecar(&plain, ports::free()));
    let (address, id) = (consul.address(), consul.spiffe_id("vm"));

    consul.kill();
    assert!(consul.ask("GET", "/v1/catalog/services", None, "").is_err());
    consul.restart();
    assert_eq!(consul.health("service", "vm"), ["passing"]);
    wait_until("the sidecar's check has been made", || {
        consul.health("connect", "vm") == ["passing"]
    });
    assert_eq!(consul.spiffe_id("vm"), id);

    consul.stop();
    consul.restart_empty();
    assert!(consul.health("service", "vm").is_empty());
    assert_ne!(consul.spiffe_id("vm"), id);
    assert_eq!(consul.address(), address);
}

#[test]
fn a_token_may_do_what_its_rules_say_and_without_one_nothing_is_seen() {
    let acl = Options {
        acl: true,
        ..Options::default()
    };
    let Some(consul) = Consul::start_with(acl) else {
        return;
    };
    consul.register(&service("vm", SocketAddr::from(ADDRESS), &[]));
    let reader = consul
        .token("service_prefix \"\" { policy = \"read\" } node_prefix \"\" { policy = \"read\" }");
    let path = "/v1/catalog/services";
    assert!(!consul.get(path)["vm"].is_null());
    let answer = consul.get_as(Some(&reader), path);
    assert!(!answer.json()["vm"].is_null(), "{answer:?}");
    let answer = consul.get_as(None, path);
    assert_eq!((answer.status, answer.json()), (200, json!({})));
    let policy = "x-consul-default-acl-policy: deny";
    assert!(answer.head.to_lowercase().contains(policy), "{answer:?}");

    let leaf = "/v1/agent/connect/ca/leaf/gate";
    assert_eq!(consul.get_as(Some(&reader), leaf).status, 403);
    let gate = consul.token("service \"gate\" { policy = \"write\" }");
    assert_eq!(consul.get_as(Some(&gate), leaf).status, 200);
}

#[test]
fn it_is_reached_over_a_unix_socket_or_https_with_or_without_a_certificate() {
    for (http, scheme) in [
        (Http::Unix, "unix:///"),
        (Http::Tls, "https://"),
        (Http::MutualTls, "https://"),
    ] {
        let options = Options {
            http,
            ..Options::default()
        };
        let Some(mut consul) = Consul::start_with(options) else {
            return;
        };
        assert!(consul.address().starts_with(scheme));
        assert_eq!(consul.get("/v1/agent/self")["Config"]["NodeName"], "test");
        let done = consul.command(&["members"]).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        if http == Http::MutualTls {
            let without = Arc::new(consul.authority.client(rustls::ALL_VERSIONS));
            consul.client = Some(without);
            assert!(consul.ask("GET", "/v1/agent/self", None, "").is_err());
        }
    }
}

#[test]
fn an_agent_whose_port_is_taken_is_told_from_one_that_fails() {
    let Some(consul) = Consul::start() else {
        return;
    };
    let Some(mut other) = Consul::start() else {
        return;
    };
    other.kill();
    for taken in 0..4 {
        let (ours, theirs) = (&mut other.ports, &consul.ports);
        *ours = Ports::free();
        match taken {
            0 => ours.http = theirs.http,
            1 => ours.grpc = theirs.grpc,
            2 => ours.server = theirs.server,
            _ => ours.serf = theirs.serf,
        }
        assert!(!other.launch(super::NODE_IS_KNOWN));
    }
}

#[test]
fn a_frozen_agent_accepts_connections_and_answers_when_it_thaws() {
    let Some(consul) = Consul::start() else {
        return;
    };
    consul.freeze();
    let mut tcp = std::net::TcpStream::connect(("127.0.0.1", consul.ports.http)).unwrap();
    tcp.write_all(b"GET /v1/status/leader HTTP/1.0\r\n\r\n")
        .unwrap();
    tcp.set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let silence = tcp.read(&mut [0]).unwrap_err();
    assert_eq!(silence.kind(), ErrorKind::WouldBlock);
    consul.thaw();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_built_in_sidecar_lets_the_mesh_reach_a_service_and_no_one_else() {
    let Some(mesh) = Mesh::start().await else {
        return;
    };
    let sidecar = mesh.consul.builtin_sidecar("vm");
    let leaf = mesh.consul.leaf("gate");
    let mut stream = mesh.connect(sidecar.address, leaf.client(&mesh.id)).await;
    stream.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"hello");

    let other = leaf.client(&mesh.consul.spiffe_id("other"));
    let refused = handshake(sidecar.address, other).await;
    assert!(refused.unwrap_err().contains("NotValidForName"));
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_as_a_sidecar_keeps_a_half_closed_connection_and_obeys_intentions() {
    let Some(mesh) = Mesh::start().await else {
        return;
    };
    let Some(sidecar) = mesh.consul.envoy_sidecar("vm") else {
        return;
    };
    let client = mesh.consul.leaf("gate").client(&mesh.id);
    let mut stream = mesh.connect(sidecar.address, client.clone()).await;
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "hello, and then its end");

    // Envoy hears of intentions from the agent, and has no way to tell us.
    mesh.consul.intend("gate", "vm", false);
    while mesh.answers(&sidecar, &client).await {}
    mesh.consul.delete("/v1/config/service-intentions/vm");
    while !mesh.answers(&sidecar, &client).await {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_in_openbao_issues_leaves_with_certificates_that_lead_to_the_old_root() {
    let Some(mesh) = Mesh::start().await else {
        return;
    };
    let Some(bao) = Bao::start() else {
        return;
    };
    let before = mesh.consul.leaf("gate");
    assert_eq!((before.chain.len(), before.roots.len()), (1, 1));
    let sidecar = mesh.consul.builtin_sidecar("vm");
    mesh.consul.use_vault_ca(&bao);
    let after = mesh.consul.leaf("new");
    assert_eq!((after.chain.len(), after.roots.len()), (3, 2));
    // Who has not heard of the new root reaches who has a new leaf, and the other way round.
    let server = Upstream::tls(after.server(), echo).await;
    mesh.connect(server.address, before.client(&after.id)).await;
    mesh.connect(sidecar.address, after.client(&mesh.id)).await;
}

impl Consul {
    /// The worst of the checks of each instance.
    fn health(&self, kind: &str, name: &str) -> Vec<&'static str> {
        let entries = self.get(&format!("/v1/health/{kind}/{name}"));
        let instances = entries.as_array().unwrap().iter();
        instances.map(worst).collect()
    }
}

fn worst(entry: &Value) -> &'static str {
    let checks = entry["Checks"].as_array().unwrap();
    let is_maintenance = |check: &Value| {
        let id = check["CheckID"].as_str().unwrap();
        id == "_node_maintenance" || id.starts_with("_service_maintenance:")
    };
    if checks.iter().any(is_maintenance) {
        return "maintenance";
    }
    let is = |status: &&str| checks.iter().any(|check| check["Status"] == *status);
    ["critical", "warning"]
        .into_iter()
        .find(is)
        .unwrap_or("passing")
}

/// An agent with the service `vm`, which answers after its client's end.
struct Mesh {
    consul: Consul,
    /// The SPIFFE ID of `vm`.
    id: String,
    _service: Upstream,
}

impl Mesh {
    async fn start() -> Option<Self> {
        let consul = Consul::start()?;
        let upstream = Upstream::tcp(async |mut tcp: TcpStream| {
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = tcp.read(&mut buffer).await {
                tcp.write_all(&buffer[..count]).await.unwrap();
            }
            let _ = tcp.write_all(b", and then its end").await;
        })
        .await;
        consul.register(&meshed(service("vm", upstream.address, &[]), ports::free()));
        Some(Self {
            id: consul.spiffe_id("vm"),
            consul,
            _service: upstream,
        })
    }

    async fn connect(&self, address: SocketAddr, client: ClientConfig) -> TlsStream<TcpStream> {
        handshake(address, client).await.unwrap()
    }

    async fn answers(&self, sidecar: &Sidecar, client: &ClientConfig) -> bool {
        let mut stream = self.connect(sidecar.address, client.clone()).await;
        stream.write_all(b"hello").await.unwrap();
        let count = stream.read(&mut [0; 5]).await;
        assert!(!sidecar.child.has_ended(), "{}", sidecar.child.all());
        count.is_ok_and(|count| count > 0)
    }
}

async fn handshake(
    address: SocketAddr,
    client: ClientConfig,
) -> Result<TlsStream<TcpStream>, String> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("vm.example.test").unwrap();
    let connector = TlsConnector::from(Arc::new(client));
    let done = connector.connect(name, tcp).await;
    done.map_err(|error| error.to_string())
}
