//! What a tunnel does where it cannot go on: its client is reset, and the log says why.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{NAME, Pair, VERIFIED, said_and_heard, worker};
use crate::authority::Authority;
use crate::edge::read_all;
use crate::gateway::{Gateway, ask};
use crate::support::PATIENCE;
use crate::upstream::{Upstream, echo};

const LISTEN: &str = "listen = \"127.0.0.1:0\"\n";

/// What becomes of a client that says a word: it is reset, and this is the record.
pub(super) async fn refused(worker: &mut Gateway) -> Value {
    let mut tcp = worker.connect().await;
    // It may be reset by then.
    let _ = tcp.write_all(b"word").await;
    let (heard, error) = read_all(&mut tcp).await;
    assert!(heard.is_empty());
    let reset = Some(std::io::ErrorKind::ConnectionReset);
    let record = worker.ended().await;
    assert_eq!(error, reset, "{record}");
    record
}

#[tokio::test]
async fn a_master_that_does_not_prove_who_it_is_hears_nothing_and_the_client_is_reset() {
    let other = Authority::new();
    let roots = other.folder().join("ca.pem").display().to_string();
    let wrong_ca = VERIFIED.replace("CA/ca.pem", &roots);
    let wrong_name = VERIFIED.replace(NAME, "other.example.test");
    for (keys, reason, told) in [
        (wrong_ca, "upstream_identity", "from another CA"),
        // It has no such name, and says so itself.
        (
            wrong_name,
            "upstream_tls",
            "the peer does not serve this name, or has no certificate for it (alert unrecognized_name)",
        ),
    ] {
        let mut pair = Pair::with(LISTEN, &keys).await;
        let record = refused(&mut pair.worker).await;
        assert_eq!(record["reason"], reason, "{record}");
        assert_eq!(record["fault"], "upstream");
        assert_eq!(record["bytes_up"], 0);
        let detail = record["detail"].as_str().unwrap();
        assert!(detail.contains(told), "{detail}");
    }
}

#[tokio::test]
async fn a_master_that_refuses_the_certificate_is_named_so_and_the_client_is_reset() {
    let stranger = Authority::new();
    stranger.issue_files("worker", &["worker.example.test"]);
    let folder = format!("{}/", stranger.folder().display());
    let other = VERIFIED
        .replace("CA/worker.pem", &format!("{folder}worker.pem"))
        .replace("CA/worker.key", &format!("{folder}worker.key"));
    let none = VERIFIED.replace(", chain = \"CA/worker.pem\", key = \"CA/worker.key\"", "");
    for (keys, told) in [
        (
            other,
            "tls: the peer does not accept our certificate (alert decrypt_error)",
        ),
        (
            none,
            "tls: the peer requires a certificate of ours (alert certificate_required)",
        ),
    ] {
        let mut pair = Pair::with(LISTEN, &keys).await;
        let record = refused(&mut pair.worker).await;
        assert_eq!(record["reason"], "upstream_tls", "{record}");
        assert_eq!(record["detail"], told);
        let record = pair.master.ended().await;
        assert_eq!(record["reason"], "client_certificate", "{record}");
    }
}

#[tokio::test]
async fn a_tunnel_starts_though_nobody_is_there_and_each_connection_says_what_is_missing() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = free.local_addr().unwrap();
    drop(free);
    for (to, reason, told) in [
        (gone.to_string(), "dial_failed", "refused"),
        (
            "no-such-host.invalid:8443".to_owned(),
            "no_healthy_upstream",
            "no address of no-such-host.invalid is known",
        ),
    ] {
        let keys = format!("[tunnels.t]\n{LISTEN}to = \"{to}\"\nserver_name = \"{NAME}\"\n");
        let mut worker = Gateway::start(&Authority::new(), &keys).await;
        let record = refused(&mut worker).await;
        assert_eq!(record["reason"], reason, "{record}");
        let detail = record["detail"].as_str().unwrap();
        assert!(detail.contains(told), "{detail}");
    }
}

/// A tunnel by a gateway there, whose CA is this one.
pub(super) fn by_gateway(authority: &Authority, gateway: SocketAddr) -> String {
    format!(
        "[tunnels.t]\n{LISTEN}gateway = \"{gateway}\"\nname = \"{NAME}\"\ntls = {{ roots = [\"{}/ca.pem\"] }}\n",
        authority.folder().display()
    )
}

#[tokio::test]
async fn what_a_gateway_says_of_a_target_that_it_does_not_reach_is_in_the_record_and_the_client_is_reset()
 {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = free.local_addr().unwrap();
    drop(free);
    let authority = Authority::new();
    authority.issue_files("master", &[NAME]);
    let tables = format!(
        "certificates = [{{ chain = \"master.pem\", key = \"master.key\" }}]\n\
         [routes.taskd]\nhost = \"{NAME}\"\nupstream = \"{gone}\"\n"
    );
    let mut master = Gateway::start(&authority, &tables).await;
    let keys = by_gateway(&authority, master.address);
    let mut worker = Gateway::start(&Authority::new(), &keys).await;
    let record = refused(&mut worker).await;
    assert_eq!(record["reason"], "refused_by_gateway", "{record}");
    assert_eq!(record["fault"], "upstream");
    let told = "the gateway says: what stands behind it takes no connections (dial_failed)";
    assert_eq!(record["detail"], told);
    assert_eq!(record["bytes_down"], 0);
    assert_eq!(master.ended().await["reason"], "dial_failed");
}

#[tokio::test]
async fn a_gateway_that_does_not_say_what_it_has_promised_is_told_and_the_client_is_reset() {
    for (says, told) in [
        (
            &b"\x01\x01\x01a\x01\x1b"[..],
            "a status frame whose text is none",
        ),
        (b"SSH-2.0-x", "a status frame of version 83"),
        (b"\x01", "ended without one"),
        (b"", "ended without one"),
    ] {
        let authority = Authority::new();
        let issued = authority.issue(&[NAME]);
        let mut config = issued.server_by(portcullis::tls::provider(), &[&rustls::version::TLS13]);
        config.alpn_protocols = vec![b"portcullis/1".to_vec()];
        let gateway = Upstream::tls(Arc::new(config), move |mut tls| async move {
            tls.write_all(says).await.unwrap();
            tls.shutdown().await.unwrap();
            let _ = tls.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let keys = by_gateway(&authority, gateway.address);
        let mut worker = Gateway::start(&Authority::new(), &keys).await;
        let record = refused(&mut worker).await;
        assert_eq!(record["reason"], "upstream_reset", "{record}");
        let detail = record["detail"].as_str().unwrap();
        assert!(detail.contains(told), "{detail}");
    }
}

/// The ten seconds are those that are promised in the document, at least so many.
#[tokio::test]
async fn a_gateway_that_never_says_what_it_has_promised_is_given_up_and_passed_over() {
    tokio::join!(given_up(b""), given_up(b"\x01\x01"));
}

/// What becomes of a client whose gateway says no more than this.
async fn given_up(says: &'static [u8]) {
    let authority = Authority::new();
    let issued = authority.issue(&[NAME]);
    let mut config = issued.server_by(portcullis::tls::provider(), &[&rustls::version::TLS13]);
    config.alpn_protocols = vec![b"portcullis/1".to_vec()];
    let (heard, mut has_heard) = tokio::sync::mpsc::unbounded_channel();
    let gateway = Upstream::tls(Arc::new(config), move |mut tls| {
        let heard = heard.clone();
        async move {
            tls.write_all(says).await.unwrap();
            tls.flush().await.unwrap();
            tls.read_exact(&mut [0; 4]).await.unwrap();
            let _ = heard.send(());
            let _ = tls.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;
    let tables = by_gateway(&authority, gateway.address);
    let mut worker = Gateway::start(
        &Authority::new(),
        &format!("admin = \"127.0.0.1:0\"\n{tables}"),
    )
    .await;
    let mut tcp = worker.connect().await;
    tcp.write_all(b"word").await.unwrap();
    timeout(PATIENCE, has_heard.recv()).await.unwrap();
    let waited = std::time::Instant::now();
    let (down, error) = read_all(&mut tcp).await;
    assert!(down.is_empty() && waited.elapsed() > std::time::Duration::from_secs(9));
    assert_eq!(error, Some(std::io::ErrorKind::ConnectionReset));
    let record = worker.ended().await;
    assert_eq!(record["reason"], "upstream_reset", "{record}");
    let told = "the gateway has promised a status, and sends none within 20s";
    assert_eq!(record["detail"], told);
    let (_, routes) = worker.ask_admin("/v1/routes").await;
    let routes: Value = serde_json::from_str(&routes).unwrap();
    assert_eq!(
        routes["tunnels"][0]["endpoints"][0]["failures"], 1,
        "{routes}"
    );
}

#[tokio::test]
async fn a_gateway_that_takes_no_protocol_it_does_not_know_is_dialled_once_more_without() {
    let authority = Authority::new();
    let issued = authority.issue(&[NAME]);
    let mut config = issued.server_by(portcullis::tls::provider(), &[&rustls::version::TLS13]);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let gateway = Upstream::tls(Arc::new(config), echo).await;
    let keys = by_gateway(&authority, gateway.address);
    let mut worker = Gateway::start(&Authority::new(), &keys).await;
    let tcp = worker.connect().await;
    assert_eq!(said_and_heard(tcp, b"word").await, b"word");
    assert_eq!(worker.ended().await["reason"], "closed");
}

#[tokio::test]
async fn half_an_answer_is_not_taken_for_a_whole_one() {
    // Says a word inside TLS, and goes without `close_notify`.
    let authority = Authority::new();
    let issued = authority.issue(&[NAME]);
    let cut = Upstream::tls(
        issued.server(&[&rustls::version::TLS13]),
        |mut tls| async move {
            tls.write_all(b"half").await.unwrap();
            tls.flush().await.unwrap();
            let (mut tcp, _) = tls.into_inner();
            tcp.shutdown().await.unwrap();
            let _ = tcp.read_to_end(&mut Vec::new()).await;
        },
    )
    .await;
    let keys = format!(
        "[tunnels.t]\n{LISTEN}to = \"{}\"\nserver_name = \"{NAME}\"\ntls = {{ roots = [\"{}/ca.pem\"] }}\n",
        cut.address,
        authority.folder().display()
    );
    let mut worker = Gateway::start(&Authority::new(), &keys).await;
    let mut tcp = worker.connect().await;
    let (heard, error) = read_all(&mut tcp).await;
    assert_eq!(heard, b"half");
    assert_eq!(error, Some(std::io::ErrorKind::ConnectionReset));
    let record = worker.ended().await;
    assert_eq!(record["reason"], "upstream_reset", "{record}");
    let detail = record["detail"].as_str().unwrap();
    assert!(detail.contains("close_notify"), "{detail}");
}

#[tokio::test]
async fn a_tunnel_has_so_many_connections_as_it_may() {
    let keys = format!("max_connections = 1\n{VERIFIED}");
    let mut pair = Pair::with(LISTEN, &keys).await;
    let mut first = pair.connect().await;
    first.write_all(b"word").await.unwrap();
    first.read_exact(&mut [0; 4]).await.unwrap();
    assert_eq!(refused(&mut pair.worker).await["reason"], "route_limit");
    drop(first);
    assert_eq!(pair.worker.ended().await["route"], "clusterd");
}

#[tokio::test]
async fn programs_of_this_machine_come_as_often_as_they_like_and_strangers_do_not() {
    let (authority, upstream) = (Authority::new(), Upstream::echo().await);
    // Both legs in one process, as a master has them.
    let tables = format!(
        "listen = [\"127.0.0.1:0\"]\n{}[tunnels.t]\n{LISTEN}upstream = \"near\"\n[upstreams.near]\naddress = \"{}\"\n\
         [limits]\naccept_rate = {{ per_second = 1, burst = 1 }}\n",
        super::master(&authority, &upstream),
        upstream.address
    );
    let mut both = Gateway::start(&authority, &tables).await;
    let tunnel = both.tunnels[0].1.tcp().unwrap();
    for _ in 0..20 {
        let tcp = TcpStream::connect(tunnel).await.unwrap();
        assert_eq!(super::said_and_heard(tcp, b"word").await, b"word");
        assert_eq!(both.ended().await["reason"], "closed");
    }
    // The bucket of 127.0.0.1 is as it was: one is left for those who ask for TLS. The other may be reset by then.
    let _first = both.connect().await;
    let _second = TcpStream::connect(both.address).await;
    assert_eq!(both.ended().await["reason"], "rate_limit");
    assert!(both.has_no_more_records(), "the first one was refused, too");
}

#[tokio::test]
async fn a_plain_listener_that_others_reach_is_shown_wherever_an_operator_looks() {
    let authority = Authority::new();
    let tables = "admin = \"127.0.0.1:0\"\n[tunnels.t]\nlisten = \"0.0.0.0:0\"\ninsecure_listen = true\n\
                  to = \"127.0.0.1:1\"\nserver_name = \"x.test\"\n";
    let checked = Gateway::load(&authority, tables);
    let warnings = checked.warnings.render(false);
    assert!(
        warnings.contains("takes bytes of the network in the clear"),
        "{warnings}"
    );
    let worker = Gateway::serve(checked).await;
    let (status, ready) = ask(worker.admin(), "/readyz").await;
    assert_eq!(status, 200, "{ready}");
    assert!(ready.contains("insecure_listen"), "{ready}");
    assert!(ready.contains("`t` on 0.0.0.0:0"), "{ready}");
    let series = "portcullis_part_state{part=\"insecure_listen\",state=\"noted\"}";
    assert_eq!(worker.metric(series).await, Some(1));
    // Taken away, it is gone from there.
    let closed = tables
        .replace("0.0.0.0:0", "127.0.0.1:0")
        .replace("insecure_listen = true\n", "");
    worker.rewrite(&authority, &closed);
    worker.reload.done("the test").await.unwrap();
    let (_, ready) = ask(worker.admin(), "/readyz").await;
    assert!(!ready.contains("insecure_listen"), "{ready}");
}

#[tokio::test]
async fn a_tunnel_that_is_taken_away_refuses_those_who_come_in_the_same_moment() {
    let mut pair = Pair::start().await;
    let mut kept = pair.connect().await;
    kept.write_all(b"word").await.unwrap();
    kept.read_exact(&mut [0; 4]).await.unwrap();
    let tables = worker(&pair.authority, &pair.master, LISTEN, VERIFIED);
    pair.worker
        .rewrite(&pair.folder, &tables.replace("clusterd", "other"));
    pair.worker.reload.done("the test").await.unwrap();
    // It is the tunnel that is gone, not what flows through it.
    kept.write_all(b"more").await.unwrap();
    kept.read_exact(&mut [0; 4]).await.unwrap();
    let series = "portcullis_connections_active{route=\"clusterd\"}";
    assert_eq!(pair.worker.metric(series).await, Some(1));
    drop(kept);
    assert_eq!(pair.worker.ended().await["route"], "clusterd");
    // Nothing counts on it any more once the session is gone, which is a moment later.
    let forgotten = async {
        while pair.worker.metric(series).await.is_some() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, forgotten).await.expect("its series stay");
}
