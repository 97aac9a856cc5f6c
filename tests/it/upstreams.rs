//! Reaching upstreams: shares, failover, deadlines, proof of who they are, and names.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::CertificateParams;
use rustls::ClientConfig;
use rustls::version::{TLS12, TLS13};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::support::PATIENCE;
use crate::upstream::{Upstream, echo};

const NAME: &str = "edge.example.test";

/// A gateway whose one route ends TLS and goes to this upstream.
async fn gateway(authority: &Authority, upstream: &str) -> Gateway {
    authority.issue_files("edge", &[NAME]);
    let tables = format!(
        "certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
         [routes.edge]\nhost = \"{NAME}\"\nupstream = \"u\"\n{upstream}"
    );
    Gateway::start(authority, &tables).await
}

fn client(authority: &Authority) -> Arc<ClientConfig> {
    Arc::new(authority.client(&[&TLS12, &TLS13]))
}

/// Connects, ends, and reads the answer; none if the gateway closed without a clean end.
async fn ask(gateway: &Gateway, config: &Arc<ClientConfig>) -> Option<String> {
    let mut stream = gateway.connect_tls(config, NAME).await.unwrap();
    // The gateway may have given up already.
    let _ = stream.write_all(b"hello").await;
    let _ = stream.shutdown().await;
    let mut answer = String::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
    read.expect("the gateway does not close").ok()?;
    Some(answer)
}

/// One try that must fail, with its record.
async fn refused(authority: &Authority, upstream: &str) -> Value {
    let mut gateway = gateway(authority, upstream).await;
    assert_eq!(ask(&gateway, &client(authority)).await, None);
    let record = gateway.ended().await;
    assert_eq!(record["fault"], "upstream", "{record}");
    assert_eq!(record["bytes_up"], 0, "{record}");
    assert!(gateway.has_no_more_records());
    record
}

/// An address on which nobody listens, kept from others as long as the socket lives.
fn dead() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

#[tokio::test]
async fn connections_are_shared_exactly_by_weight() {
    let authority = Authority::new();
    let (one, two, three) = (
        Upstream::greeter("one").await,
        Upstream::greeter("two").await,
        Upstream::greeter("three").await,
    );
    let never = Upstream::greeter("never").await;
    let gateway = gateway(
        &authority,
        &format!(
            "[upstreams.u]\nendpoints = [\"{}\", {{ address = \"{}\", weight = 2 }}, {{ address = \"{}\", weight = 3 }}, {{ address = \"{}\", weight = 0 }}]",
            one.address, two.address, three.address, never.address
        ),
    )
    .await;
    let config = client(&authority);
    let mut seen = HashMap::new();
    for _ in 0..24 {
        *seen
            .entry(ask(&gateway, &config).await.unwrap())
            .or_insert(0) += 1;
    }
    let expected = [("one", 4), ("two", 8), ("three", 12)];
    assert_eq!(
        seen,
        expected
            .map(|(name, count)| (name.to_owned(), count))
            .into()
    );
}

#[tokio::test]
async fn a_dead_endpoint_costs_no_connection_while_another_lives() {
    let authority = Authority::new();
    let alive = Upstream::greeter("alive").await;
    let (_kept, dead) = dead();
    let mut gateway = gateway(
        &authority,
        &format!(
            "[upstreams.u]\nendpoints = [\"{dead}\", \"{}\"]",
            alive.address
        ),
    )
    .await;
    let config = client(&authority);
    for _ in 0..6 {
        assert_eq!(ask(&gateway, &config).await.as_deref(), Some("alive"));
        let record = gateway.ended().await;
        assert_eq!(record["reason"], "closed", "{record}");
        assert_eq!(record["endpoint"], alive.address.to_string());
    }
    assert!(gateway.has_no_more_records());
}

#[tokio::test]
async fn when_every_endpoint_is_dead_the_client_is_closed_and_there_is_one_record() {
    let authority = Authority::new();
    let (kept, also_kept) = (dead(), dead());
    let upstream = format!(
        "[upstreams.u]\nendpoints = [\"{}\", \"{}\"]",
        kept.1, also_kept.1
    );
    let record = refused(&authority, &upstream).await;
    assert_eq!(record["reason"], "dial_failed", "{record}");
    let detail = record["detail"].as_str().unwrap();
    assert!(detail.contains("refused"), "{detail}");
}

#[tokio::test]
async fn no_more_endpoints_are_tried_than_the_limit_says() {
    let authority = Authority::new();
    let (kept, also_kept) = (dead(), dead());
    let alive = Upstream::greeter("alive").await;
    let mut gateway = gateway(
        &authority,
        &format!(
            "[upstreams.u]\nendpoints = [\"{}\", \"{}\", \"{}\"]\n[limits]\ndial_attempts = 1",
            kept.1, also_kept.1, alive.address
        ),
    )
    .await;
    let config = client(&authority);
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(ask(&gateway, &config).await);
        gateway.ended().await;
    }
    // Each dead one costs the connection whose turn it is; after that it is passed over.
    let failed = answers.iter().filter(|answer| answer.is_none()).count();
    assert!(failed >= 2, "{answers:?}");
}

#[tokio::test]
async fn a_passed_through_client_is_closed_too_when_no_endpoint_answers() {
    let authority = Authority::new();
    let (_kept, dead) = dead();
    let tables =
        format!("[routes.pass]\nhost = \"{NAME}\"\npassthrough = true\nupstream = \"{dead}\"");
    let mut gateway = Gateway::start(&authority, &tables).await;
    let refused = gateway.connect_tls(&client(&authority), NAME).await;
    assert_eq!(
        refused.unwrap_err().kind(),
        std::io::ErrorKind::UnexpectedEof
    );
    assert_eq!(gateway.ended().await["reason"], "dial_failed");
}

/// A listener that completes one handshake and drops every SYN after it: its queue is full.
pub(crate) async fn deaf() -> (Socket, tokio::net::TcpStream, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let queued = tokio::net::TcpStream::connect(address).await.unwrap();
    (socket, queued, address)
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_is_given_up_at_the_deadline() {
    let authority = Authority::new();
    let (_deaf, _queued, address) = deaf().await;
    let upstream =
        format!("[upstreams.u]\naddress = \"{address}\"\n[limits]\ndial_timeout = \"200ms\"");
    let record = refused(&authority, &upstream).await;
    assert_eq!(record["reason"], "dial_timeout", "{record}");
    assert_eq!(record["detail"], "no answer within 200ms");
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_costs_no_connection_while_another_lives() {
    let authority = Authority::new();
    let (_deaf, _queued, address) = deaf().await;
    let alive = Upstream::greeter("alive").await;
    let upstream = format!(
        "[upstreams.u]\nendpoints = [\"{address}\", \"{}\"]\n[limits]\ndial_timeout = \"200ms\"",
        alive.address
    );
    let gateway = gateway(&authority, &upstream).await;
    let config = client(&authority);
    for _ in 0..2 {
        assert_eq!(ask(&gateway, &config).await.as_deref(), Some("alive"));
    }
}

#[tokio::test]
async fn an_upstream_that_accepts_and_never_speaks_tls_is_given_up_at_the_deadline() {
    let authority = Authority::new();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!(
        "[upstreams.u]\naddress = \"{}\"\ntls = {{ roots = [\"ca.pem\"], server_name = \"db.test\" }}\n\
         [limits]\ndial_timeout = \"200ms\"",
        silent.local_addr().unwrap()
    );
    let record = refused(&authority, &upstream).await;
    assert_eq!(record["reason"], "dial_timeout", "{record}");
    assert_eq!(
        record["detail"],
        "it took the connection, but no TLS handshake within 200ms"
    );
}

fn over_tls(address: SocketAddr) -> String {
    format!(
        "[upstreams.u]\naddress = \"{address}\"\ntls = {{ roots = [\"ca.pem\"], server_name = \"db.test\" }}\n"
    )
}

#[tokio::test]
async fn an_upstream_that_proves_its_name_is_used_over_either_version_of_tls() {
    let authority = Authority::new();
    let issued = authority.issue(&["db.test"]);
    for version in [&TLS12, &TLS13] {
        let upstream = Upstream::tls(issued.server(&[version]), echo).await;
        let mut gateway = gateway(&authority, &over_tls(upstream.address)).await;
        let answer = ask(&gateway, &client(&authority)).await;
        assert_eq!(answer.as_deref(), Some("hello"));
        assert_eq!(gateway.ended().await["reason"], "closed");
    }
}

#[tokio::test]
async fn an_upstream_with_another_name_is_refused() {
    let authority = Authority::new();
    let issued = authority.issue(&["other.test"]);
    let upstream = Upstream::tls(issued.server(&[&TLS13]), echo).await;
    let record = refused(&authority, &over_tls(upstream.address)).await;
    assert_eq!(record["reason"], "upstream_identity", "{record}");
    let detail = record["detail"].as_str().unwrap();
    assert!(
        detail.contains("db.test") && detail.contains("other.test"),
        "{detail}"
    );
}

#[tokio::test]
async fn an_upstream_of_another_ca_is_refused() {
    let authority = Authority::new();
    let issued = Authority::new().issue(&["db.test"]);
    let upstream = Upstream::tls(issued.server(&[&TLS13]), echo).await;
    let record = refused(&authority, &over_tls(upstream.address)).await;
    assert_eq!(record["reason"], "upstream_identity", "{record}");
    let detail = record["detail"].as_str().unwrap();
    assert!(
        detail.contains("another CA with the name of a trusted one"),
        "{detail}"
    );
}

#[tokio::test]
async fn an_upstream_whose_certificate_has_ended_is_refused() {
    let authority = Authority::new();
    let mut params = CertificateParams::new(vec!["db.test".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let issued = authority.sign(params);
    let upstream = Upstream::tls(issued.server(&[&TLS13]), echo).await;
    let record = refused(&authority, &over_tls(upstream.address)).await;
    assert_eq!(record["reason"], "upstream_identity", "{record}");
    let detail = record["detail"].as_str().unwrap();
    assert!(detail.contains("expired"), "{detail}");
}

#[tokio::test]
async fn an_upstream_that_speaks_plainly_where_tls_is_due_gets_no_byte_of_the_client() {
    let authority = Authority::new();
    let upstream = Upstream::greeter("plain words").await;
    let record = refused(&authority, &over_tls(upstream.address)).await;
    assert_eq!(record["reason"], "upstream_tls", "{record}");
}

#[tokio::test]
async fn an_endpoint_that_proves_nothing_is_passed_over_for_one_that_does() {
    let authority = Authority::new();
    let stranger = Authority::new().issue(&["db.test"]);
    let stranger = Upstream::tls(stranger.server(&[&TLS13]), echo).await;
    let ours = Upstream::tls(authority.issue(&["db.test"]).server(&[&TLS13]), echo).await;
    let mut gateway = gateway(
        &authority,
        &format!(
            "[upstreams.u]\nendpoints = [\"{}\", \"{}\"]\ntls = {{ roots = [\"ca.pem\"], server_name = \"db.test\" }}",
            stranger.address, ours.address
        ),
    )
    .await;
    let config = client(&authority);
    for _ in 0..2 {
        assert_eq!(ask(&gateway, &config).await.as_deref(), Some("hello"));
        let record = gateway.ended().await;
        assert_eq!(record["endpoint"], ours.address.to_string(), "{record}");
    }
}

/// What `/readyz` says, and its status.
async fn readyz(gateway: &Gateway) -> (u16, String) {
    gateway.ask_admin("/readyz").await
}

#[tokio::test]
async fn an_upstream_by_name_is_served_once_the_name_has_an_address() {
    let authority = Authority::new();
    let upstream = Upstream::greeter("by name").await;
    let port = upstream.address.port();
    let gateway = gateway_with_admin(
        &authority,
        &format!("[upstreams.u]\naddress = \"localhost:{port}\""),
    )
    .await;
    ready(&gateway, |status, _| status == 200).await;
    let answer = ask(&gateway, &client(&authority)).await;
    assert_eq!(answer.as_deref(), Some("by name"));
}

#[tokio::test]
async fn a_name_that_does_not_exist_takes_its_own_routes_down_and_is_told() {
    let authority = Authority::new();
    let mut gateway = gateway_with_admin(
        &authority,
        "[upstreams.u]\naddress = \"no-such-host.invalid:1\"\n",
    )
    .await;
    // Before and after the answer alike.
    assert_eq!(ask(&gateway, &client(&authority)).await, None);
    let record = gateway.ended().await;
    assert_eq!(record["reason"], "no_healthy_upstream", "{record}");
    let text = ready(&gateway, |_, text| text.contains("names degraded")).await;
    assert!(text.contains("no-such-host.invalid"), "{text}");
    assert_eq!(readyz(&gateway).await.0, 200, "the other routes are served");
    assert_eq!(ask(&gateway, &client(&authority)).await, None);
    assert_eq!(gateway.ended().await["reason"], "no_healthy_upstream");
}

async fn gateway_with_admin(authority: &Authority, upstream: &str) -> Gateway {
    authority.issue_files("edge", &[NAME]);
    let tables = format!(
        "admin = \"127.0.0.1:0\"\n\
         certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
         [routes.edge]\nhost = \"{NAME}\"\nupstream = \"u\"\n{upstream}"
    );
    Gateway::start(authority, &tables).await
}

/// Waits until `/readyz` says what is expected.
async fn ready(gateway: &Gateway, is_so: impl Fn(u16, &str) -> bool) -> String {
    let waiting = async {
        loop {
            let (status, text) = readyz(gateway).await;
            if is_so(status, &text) {
                return text;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("waited in vain for /readyz")
}
