//! Addresses of listeners and of the admin interface that overlap with those that go: what is closed for them, and when not.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use rustls::version::TLS13;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream, UnixStream};

use super::{EDGE, dial, eventually, route, said};
use crate::authority::Authority;
use crate::gateway::{Gateway, ask};
use crate::network;
use crate::peers;
use crate::program::Program;
use crate::upstream::Upstream;

/// A gateway with these addresses.
struct Desk {
    authority: Authority,
    greeter: Upstream,
    gateway: Gateway,
}

impl Desk {
    async fn new(listen: &str, admin: &str) -> Self {
        let authority = Authority::new();
        authority.issue_files("edge", &["*.example.test"]);
        let greeter = Upstream::greeter("hello").await;
        let tables = tables(listen, admin, &greeter);
        let gateway = Gateway::start(&authority, &tables).await;
        Self {
            authority,
            greeter,
            gateway,
        }
    }

    async fn move_to(&self, listen: &str, admin: &str) -> Result<(), String> {
        let tables = tables(listen, admin, &self.greeter);
        self.gateway.rewrite(&self.authority, &tables);
        self.gateway.reload.done("a test").await
    }

    async fn serves_clients_at(&self, address: &str) {
        let client = Arc::new(self.authority.client(&[&TLS13]));
        let tls = dial(address.parse().unwrap(), &client).await.unwrap();
        assert_eq!(said(tls).await, "hello");
    }
}

fn tables(listen: &str, admin: &str, greeter: &Upstream) -> String {
    let route = route("a", greeter);
    let insecure = match admin.starts_with("127.") {
        true => "",
        false => "insecure_admin = true\n",
    };
    format!("listen = [\"{listen}\"]\nadmin = \"{admin}\"\n{insecure}{EDGE}{route}")
}

async fn serves_operators_at(address: &str) {
    let (status, ready) = ask(address.parse().unwrap(), "/readyz").await;
    assert_eq!(status, 200, "{ready}");
}

#[test]
fn the_admin_interface_moves_to_all_addresses_of_its_port_and_back() {
    network::of_its_own(
        "reload::overlap::the_admin_interface_moves_to_all_addresses_of_its_port_and_back",
        async {
            let (one, all) = ("127.0.0.1:9443", "0.0.0.0:9443");
            let desk = Desk::new("127.0.0.1:8443", one).await;
            desk.move_to("127.0.0.1:8443", all).await.unwrap();
            serves_operators_at(one).await;
            serves_operators_at("127.0.0.2:9443").await;
            desk.move_to("127.0.0.1:8443", one).await.unwrap();
            serves_operators_at(one).await;
            assert!(TcpStream::connect("127.0.0.2:9443").await.is_err());
            desk.serves_clients_at("127.0.0.1:8443").await;
        },
    );
}

#[test]
fn the_admin_interface_and_a_listener_swap_their_addresses() {
    network::of_its_own(
        "reload::overlap::the_admin_interface_and_a_listener_swap_their_addresses",
        async {
            let (one, other) = ("127.0.0.1:8443", "127.0.0.1:9443");
            let desk = Desk::new(one, other).await;
            for (listen, admin) in [(other, one), (one, other)] {
                desk.move_to(listen, admin).await.unwrap();
                desk.serves_clients_at(listen).await;
                serves_operators_at(admin).await;
            }
        },
    );
}

#[test]
fn a_listener_takes_the_address_that_the_admin_interface_leaves() {
    network::of_its_own(
        "reload::overlap::a_listener_takes_the_address_that_the_admin_interface_leaves",
        async {
            let desk = Desk::new("127.0.0.1:8443", "127.0.0.1:9443").await;
            desk.move_to("127.0.0.1:9443", "127.0.0.1:9444")
                .await
                .unwrap();
            desk.serves_clients_at("127.0.0.1:9443").await;
            serves_operators_at("127.0.0.1:9444").await;
            // The other way round: the admin interface comes where a listener was for all addresses.
            desk.move_to("0.0.0.0:8443", "127.0.0.1:9444")
                .await
                .unwrap();
            desk.move_to("127.0.0.1:7443", "127.0.0.1:8443")
                .await
                .unwrap();
            serves_operators_at("127.0.0.1:8443").await;
            desk.serves_clients_at("127.0.0.1:7443").await;
        },
    );
}

#[test]
fn what_was_closed_in_vain_serves_again_and_is_not_closed_again_before_somebody_asks() {
    network::of_its_own(
        "reload::overlap::what_was_closed_in_vain_serves_again_and_is_not_closed_again_before_somebody_asks",
        async {
            let (one, other) = ("127.0.0.1:8443", "127.0.0.1:9443");
            let desk = Desk::new(one, other).await;
            let taken = TcpListener::bind("127.0.0.3:8443").await.unwrap();
            let why = desk.move_to(other, "0.0.0.0:8443").await.unwrap_err();
            assert!(
                why.contains("cannot listen on 0.0.0.0:8443") && why.contains("serves again"),
                "{why}"
            );
            assert!(!why.contains("hint: this may pass"), "{why}");
            desk.serves_clients_at(one).await;
            serves_operators_at(other).await;
            drop(taken);
            desk.gateway.reload.done("a test").await.unwrap();
            desk.serves_clients_at(other).await;
            serves_operators_at("127.0.0.3:8443").await;
        },
    );
}

#[test]
fn what_was_closed_in_vain_and_cannot_be_bound_again_is_tried_until_it_is_and_readyz_says_so() {
    network::of_its_own(
        "reload::overlap::what_was_closed_in_vain_and_cannot_be_bound_again_is_tried_until_it_is_and_readyz_says_so",
        async {
            let (one, admin) = ("10.99.0.1:8443", "127.0.0.1:9443");
            let ready = async || ask(admin.parse().unwrap(), "/readyz").await;
            let is_ready = async || ready().await.1.contains("listeners ready\n");
            address("add", "10.99.0.1/32");
            let desk = Desk::new(one, admin).await;
            let taken = TcpListener::bind("127.0.0.3:8443").await.unwrap();
            address("del", "10.99.0.1/32");
            let why = desk.move_to("0.0.0.0:8443", admin).await.unwrap_err();
            assert!(
                why.contains("cannot be bound again") && !why.contains("serves again"),
                "{why}"
            );
            let (status, parts) = ready().await;
            assert_eq!(status, 503, "{parts}");
            assert!(
                parts.contains("listeners not ready: nobody is served"),
                "{parts}"
            );
            address("add", "10.99.0.1/32");
            eventually("it listens again", is_ready).await;
            desk.serves_clients_at(one).await;

            // Where another one stays, the gateway does not stop to be ready.
            let two = |first: &str| format!("{first}\", \"127.0.0.1:7443");
            desk.move_to(&two(one), admin).await.unwrap();
            address("del", "10.99.0.1/32");
            let moved = desk.move_to(&two("0.0.0.0:8443"), admin).await;
            moved.unwrap_err();
            let (status, parts) = ready().await;
            assert_eq!(status, 200, "{parts}");
            assert!(parts.contains("listeners degraded: "), "{parts}");
            drop(taken);
            desk.gateway.reload.done("a test").await.unwrap();
            assert!(is_ready().await);
            desk.serves_clients_at("127.0.0.3:8443").await;
        },
    );
}

#[tokio::test]
async fn the_admin_interface_stays_where_another_path_leads_to_its_socket() {
    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    let greeter = Upstream::greeter("hello").await;
    let folder = authority.folder().display().to_string();
    std::fs::create_dir(format!("{folder}/run")).unwrap();
    let paths = ["run/a.sock", "run/../run/a.sock", "./run/a.sock"];
    let paths = paths.map(|path| format!("{folder}/{path}"));
    let tables = |path: &str| {
        let route = route("a", &greeter);
        format!("admin = \"unix:{path}\"\n{EDGE}{route}")
    };
    let gateway = Gateway::start(&authority, &tables(&paths[0])).await;
    for path in &paths {
        gateway.rewrite(&authority, &tables(path));
        gateway.reload.done("a test").await.unwrap();
        UnixStream::connect(path).await.unwrap();
    }
}

/// Gives this network an address, or takes it away.
fn address(what: &str, address: &str) {
    let Some(ip) = peers::require("ip", "ip") else {
        return;
    };
    let words = ["address", what, address, "dev", "lo"];
    let status = Command::new(ip).args(words).status().unwrap();
    assert!(status.success());
}

#[test]
fn the_log_says_for_how_long_nobody_was_accepted() {
    network::of_its_own(
        "reload::overlap::the_log_says_for_how_long_nobody_was_accepted",
        async {
            let authority = Authority::new();
            authority.issue_files("edge", &["*.example.test"]);
            let greeter = Upstream::greeter("hello").await;
            let tables = |admin: &str| {
                let route = route("a", &greeter);
                format!(
                    "admin = \"{admin}\"\ninsecure_admin = true\nlog.format = \"json\"\n{EDGE}{route}"
                )
            };
            let program = Program::start(&authority, &tables("127.0.0.1:9443"));
            let from = |program: &Program| program.listener.port();
            let all = SocketAddr::from(([0, 0, 0, 0], from(&program)));
            let text = format!("listen = [\"{all}\"]\n{}", tables("0.0.0.0:9443"));
            authority.write("portcullis.toml", &text);
            let line = program.child.wait_for("the gap", |line| {
                let line: Value = serde_json::from_str(line).ok()?;
                let message = "a listener was closed before another could be bound in its place";
                (line["message"] == message).then_some(line)
            });
            assert_eq!(line["level"], "WARN");
            assert_eq!(line["addresses"], format!("[{all}, 0.0.0.0:9443]"));
            // As a `Duration` writes itself.
            let gap = line["gap"].as_str().unwrap();
            assert!(
                gap.ends_with('s') && gap.as_bytes()[0].is_ascii_digit(),
                "{gap}"
            );
            let client = Arc::new(authority.client(&[&TLS13]));
            let elsewhere = SocketAddr::from(([127, 0, 0, 9], all.port()));
            eventually("it serves", async || dial(elsewhere, &client).await.is_ok()).await;
        },
    );
}
