//! The ways to an agent: HTTP, a UNIX socket, HTTPS with and without a certificate, and what the environment says; most without ACLs.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsConnector;

use super::{Host, Mesh, POLL, Tunnel, configuration, routed};
use crate::authority::Authority;
use crate::consul::{Consul, Http, Options, STRICT, meshed};
use crate::gateway::ask;
use crate::ports;
use crate::program::Program;
use crate::support::PATIENCE;

const NAME: &str = "vm.example.test";

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_reached_over_plain_http() {
    an_agent_is_reached(Http::Tcp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_reached_over_a_unix_socket() {
    an_agent_is_reached(Http::Unix).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_reached_over_https() {
    an_agent_is_reached(Http::Tls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_asks_for_a_certificate_is_shown_one() {
    an_agent_is_reached(Http::MutualTls).await;
}

/// One without ACLs, as all others of these tests have them.
async fn an_agent_is_reached(http: Http) {
    let options = Options {
        http,
        ..Options::default()
    };
    let Some(consul) = Consul::start_with(options) else {
        return;
    };
    let host = Host::start("vm").await;
    consul.register(&meshed(routed("vm", NAME, host.address), ports::free()));
    let _sidecar = consul.builtin_sidecar("vm");
    let mut mesh = Mesh::with(consul, "", "").await;
    assert_eq!(mesh.greets(NAME).await, "vm");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_finds_the_agent_by_the_variables_that_every_client_of_consul_knows() {
    let options = Options {
        http: Http::MutualTls,
        ..STRICT
    };
    let Some(consul) = Consul::start_with(options) else {
        return;
    };
    let host = Host::start("vm").await;
    consul.register(&meshed(routed("vm", NAME, host.address), ports::free()));
    let _sidecar = consul.builtin_sidecar("vm");

    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    let tables = configuration("", "[log]\nformat = \"json\"\n");
    let program = Program::start_with(&authority, &tables, &consul.gateway_environment());
    let late = Instant::now() + PATIENCE;
    loop {
        let (status, parts) = ask(program.admin, "/readyz").await;
        if status == 200 {
            break;
        }
        assert!(Instant::now() < late, "{parts}; {}", program.child.all());
        sleep(POLL).await;
    }
    let client = TlsConnector::from(Arc::new(authority.client(rustls::ALL_VERSIONS)));
    let tcp = TcpStream::connect(program.listener).await.unwrap();
    let name = ServerName::try_from(NAME).unwrap();
    let tunnel = Tunnel::open(client.connect(name, tcp).await.unwrap()).await;
    let tunnel = tunnel.unwrap();
    assert_eq!(tunnel.greeting, "vm");
    tunnel.end().await;
}
