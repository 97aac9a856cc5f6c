//! Tunnels while things change around them: certificates, the configuration, a stop.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Pair, VERIFIED, said_and_heard, worker};
use crate::authority::Authority;
use crate::edge::read_all;
use crate::gateway::Gateway;
use crate::support::PATIENCE;
use crate::upstream::Upstream;

const LISTEN: &str = "listen = \"127.0.0.1:0\"\n";

async fn echoes(tcp: &mut TcpStream) {
    tcp.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    tcp.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"hello");
}

#[tokio::test]
async fn a_certificate_that_is_renewed_is_shown_from_the_next_connection_on_and_cuts_none() {
    let mut pair = Pair::start().await;
    let mut before = pair.connect().await;
    echoes(&mut before).await;
    // By a CA that the master does not know: what is shown is what stands in the files now.
    let other = Authority::new();
    other.issue_files("worker", &["worker.example.test"]);
    let copy = |from: &Authority, name: &str| {
        let text = std::fs::read_to_string(from.folder().join(name)).unwrap();
        pair.authority.write(name, &text);
    };
    copy(&other, "worker.key");
    copy(&other, "worker.pem");
    pair.worker.reload.done("the test").await.unwrap();
    let mut refused = pair.connect().await;
    let _ = refused.write_all(b"hello").await;
    assert!(read_all(&mut refused).await.0.is_empty());
    let [_, reason] = pair.reasons().await;
    assert_eq!(reason, "client_certificate");
    echoes(&mut before).await;
    pair.authority
        .issue_files("worker", &["worker.example.test"]);
    pair.worker.reload.done("the test").await.unwrap();
    assert_eq!(said_and_heard(pair.connect().await, b"word").await, b"word");
    assert_eq!(pair.reasons().await, ["closed", "closed"]);
    echoes(&mut before).await;
    assert!(pair.worker.has_no_more_records());
}

#[tokio::test]
async fn files_that_change_are_read_again_without_being_told() {
    let mut pair = Pair::start().await;
    let series = "portcullis_configuration_reads_total{outcome=\"taken\"}";
    let reads = pair.worker.metric(series).await;
    pair.authority
        .issue_files("worker", &["worker.example.test"]);
    let read = async {
        while pair.worker.metric(series).await == reads {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, read).await.expect("nobody has read them");
    assert_eq!(said_and_heard(pair.connect().await, b"word").await, b"word");
    assert_eq!(pair.reasons().await, ["closed", "closed"]);
}

#[tokio::test]
async fn a_reload_that_moves_a_tunnel_keeps_what_flows_and_a_bad_one_changes_nothing() {
    let pair = Pair::start().await;
    let mut kept = pair.connect().await;
    echoes(&mut kept).await;
    let socket = pair.folder.folder().join("s");
    let listen = format!("listen = \"unix:{}\"\n", socket.display());
    let tables = worker(&pair.authority, &pair.master, &listen, VERIFIED);
    pair.worker.rewrite(
        &pair.folder,
        &tables.replace("MASTER", "?").replace("to =", "too ="),
    );
    let why = pair.worker.reload.done("the test").await.unwrap_err();
    assert!(why.contains("unknown key `too`"), "{why}");
    echoes(&mut pair.connect().await).await;
    pair.worker.rewrite(&pair.folder, &tables);
    pair.worker.reload.done("the test").await.unwrap();
    echoes(&mut kept).await;
    let mut moved = tokio::net::UnixStream::connect(&socket).await.unwrap();
    moved.write_all(b"word").await.unwrap();
    let mut heard = [0; 4];
    moved.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"word");
    assert!(TcpStream::connect(pair.worker.address).await.is_err());
}

#[tokio::test]
async fn an_address_turns_from_a_tunnel_into_a_listener_for_tls_and_back() {
    let echo = crate::upstream::Upstream::echo().await;
    let folder = Authority::new();
    folder.issue_files("edge", &[super::NAME]);
    let raw = format!(
        "[tunnels.t]\nlisten = \"127.0.0.1:0\"\nupstream = \"u\"\n[upstreams.u]\naddress = \"{}\"\n",
        echo.address
    );
    let tls = format!(
        "listen = [\"127.0.0.1:0\"]\ncertificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
         [routes.r]\nhost = \"{}\"\nupstream = \"{}\"\n",
        super::NAME,
        echo.address
    );
    let gateway = crate::gateway::Gateway::start(&folder, &raw).await;
    let client = std::sync::Arc::new(folder.client(&[&rustls::version::TLS13]));
    for _ in 0..2 {
        assert_eq!(
            said_and_heard(gateway.connect().await, b"word").await,
            b"word"
        );
        gateway.rewrite(&folder, &tls);
        gateway.reload.done("the test").await.unwrap();
        gateway.connect_tls(&client, super::NAME).await.unwrap();
        gateway.rewrite(&folder, &raw);
        gateway.reload.done("the test").await.unwrap();
    }
}

#[tokio::test]
async fn a_stop_lets_tunnels_end_and_resets_those_that_do_not() {
    for (limits, reason) in [("", "closed"), ("drain_timeout = \"1s\"\n", "drained")] {
        let keys = format!("{VERIFIED}[limits]\n{limits}");
        let mut pair = Pair::with(LISTEN, &keys).await;
        let mut tcp = pair.connect().await;
        echoes(&mut tcp).await;
        pair.worker.shutdown.begin_drain();
        let refused = async {
            while TcpStream::connect(pair.worker.address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, refused)
            .await
            .expect("it goes on accepting");
        if reason == "closed" {
            echoes(&mut tcp).await;
            tcp.shutdown().await.unwrap();
        }
        let (_, error) = read_all(&mut tcp).await;
        let reset = (reason != "closed").then_some(std::io::ErrorKind::ConnectionReset);
        assert_eq!(error, reset);
        loop {
            let record = pair.worker.ended().await;
            // Who came in the last moment before the listener closed may be among them.
            if record["bytes_up"] != 0 {
                assert_eq!(record["reason"], reason, "{record}");
                break;
            }
        }
        pair.worker.finished.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_first_connection_after_a_start_finds_the_upstream_whose_name_had_to_be_resolved() {
    let echo = Upstream::echo().await;
    let tables = format!(
        "[tunnels.t]\nlisten = \"127.0.0.1:0\"\nupstream = \"echo\"\n\
         [upstreams.echo]\naddress = \"localhost:{}\"\n",
        echo.address.port()
    );
    for _ in 0..5 {
        let mut worker = Gateway::start(&Authority::new(), &tables).await;
        assert_eq!(
            said_and_heard(worker.connect().await, b"word").await,
            b"word"
        );
        assert_eq!(worker.ended().await["reason"], "closed");
    }
}
