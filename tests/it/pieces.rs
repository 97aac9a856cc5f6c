//! Hellos in every kind of pieces, and what follows them at once: nothing is lost, nothing is taken for something else.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::version::{TLS12, TLS13};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, yield_now};

use crate::gateway::{answer, exchange};
use crate::hello_bytes::{self as hello, HANDSHAKE, framed, record};
use crate::scene::{Scene, finish};

/// Post-quantum key shares made hellos longer than a segment: <https://tldr.fail>.
#[tokio::test]
async fn a_hello_split_between_any_two_bytes_ends_tls_for_the_same_route() {
    let mut scene = Scene::with("").await;
    let config = scene.client(&[&TLS13]);
    let (_, message) = hello::client(&config, "open.example.test");
    assert!(message.len() > 1200, "a hybrid key share is in it");
    let segments = (1..message.len() + 5).map(|at| Cut {
        segment: at,
        record: usize::MAX,
    });
    every(&mut scene, &config, segments.collect()).await;
}

/// CVE-2026-32305 of Traefik: a name beyond the first record was not seen, and the default options were used.
#[tokio::test]
async fn a_hello_in_two_records_split_anywhere_ends_tls_for_the_same_route() {
    let mut scene = Scene::with("").await;
    let config = scene.client(&[&TLS13]);
    let (_, message) = hello::client(&config, "open.example.test");
    // The segment ends somewhere in the second record, its header included.
    let cuts = (1..message.len()).map(|at| Cut {
        segment: at + 5 + at % 11,
        record: at,
    });
    every(&mut scene, &config, cuts.collect()).await;
}

/// Where a hello is cut: the records' bytes after so many, the message after so many.
#[derive(Clone, Copy, Debug)]
struct Cut {
    segment: usize,
    record: usize,
}

/// A client for each cut, many at a time: each must get through to the upstream of the route `open`.
async fn every(scene: &mut Scene, config: &Arc<ClientConfig>, cuts: Vec<Cut>) {
    let address = scene.gateway.address;
    for some in cuts.chunks(64) {
        let mut clients = JoinSet::new();
        for &cut in some {
            clients.spawn(one(address, Arc::clone(config), cut));
        }
        clients.join_all().await;
        for _ in some {
            let record = scene.gateway.ended().await;
            assert_eq!(
                (&record["reason"], &record["route"]),
                (&"closed".into(), &"open".into()),
                "{record}"
            );
        }
    }
    assert!(scene.gateway.has_no_more_records());
    assert_eq!(scene.dials(), cuts.len());
}

async fn one(address: SocketAddr, config: Arc<ClientConfig>, cut: Cut) {
    let (mut tls, message) = hello::client(&config, "open.example.test");
    let bytes = framed(&message, &[cut.record.min(message.len())]);
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    in_pieces(&mut tcp, &bytes, &[cut.segment]).await;
    let heard = finish(&mut tcp, &mut tls, b"word").await;
    assert_eq!(
        heard.unwrap_or_else(|error| panic!("{cut:?}: {error}")),
        b"word"
    );
}

/// Writes bytes in pieces that end at these places. The gateway runs on the same thread and has read one before the
/// next is sent.
async fn in_pieces(tcp: &mut TcpStream, bytes: &[u8], ends: &[usize]) {
    let mut start = 0;
    for end in ends.iter().copied().chain([bytes.len()]) {
        let end = end.clamp(start, bytes.len());
        tcp.write_all(&bytes[start..end]).await.unwrap();
        start = end;
        for _ in 0..3 {
            yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_hello_may_come_byte_by_byte_and_in_records_of_one_byte() {
    let mut scene = Scene::with("").await;
    let config = scene.client(&[&TLS12, &TLS13]);
    for whole_records in [true, false] {
        let (mut tls, message) = hello::client(&config, "open.example.test");
        let bytes = if whole_records {
            framed(&message, &[])
        } else {
            hello::crumbs(&message)
        };
        for step in [1, bytes.len()] {
            let mut tcp = scene.gateway.connect().await;
            let ends: Vec<usize> = (1..bytes.len()).step_by(step).collect();
            in_pieces(&mut tcp, &bytes, &ends).await;
            if step > 1 {
                assert_eq!(finish(&mut tcp, &mut tls, b"word").await.unwrap(), b"word");
                assert_eq!(scene.gateway.ended().await["reason"], "closed");
            } else {
                tcp.shutdown().await.unwrap();
                assert_eq!(answer(&mut tcp).await.0[..3], [HANDSHAKE, 3, 3]);
                assert_eq!(scene.gateway.ended().await["route"], "open");
            }
        }
    }
    let crumbs = hello::crumbs(&hello::named("pass.example.test"));
    let told = scene.tell_all(&crumbs).await;
    assert!(told.answer == crumbs, "the records go up as they came");
    assert_eq!(told.record["route"], "pass");
}

#[tokio::test]
async fn a_hello_passed_on_arrives_as_it_was_cut() {
    let mut scene = Scene::with("").await;
    let message = hello::named("pass.example.test");
    let address = scene.gateway.address;
    for at in 1..message.len() {
        let bytes = framed(&message, &[at]);
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        in_pieces(&mut tcp, &bytes, &[at, at + 5, at + 10]).await;
        tcp.shutdown().await.unwrap();
        assert!(answer(&mut tcp).await == (bytes, false), "cut at {at}");
        let record = scene.gateway.ended().await;
        assert_eq!(
            (&record["reason"], &record["route"]),
            (&"closed".into(), &"pass".into())
        );
    }
}

#[tokio::test]
async fn what_follows_the_hello_at_once_is_passed_on_with_it() {
    let mut scene = Scene::with("").await;
    let more: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
    let message = hello::named("pass.example.test");
    for head in [framed(&message, &[]), hello::crumbs(&message)] {
        let bytes = [head, more.clone()].concat();
        let tcp = scene.gateway.connect().await;
        let (mut reader, mut writer) = tcp.into_split();
        let sent = bytes.clone();
        tokio::spawn(async move {
            writer.write_all(&sent).await.unwrap();
        });
        let mut echoed = Vec::new();
        reader.read_to_end(&mut echoed).await.unwrap();
        assert!(echoed == bytes);
        let record = scene.gateway.ended().await;
        assert_eq!(
            (&record["reason"], &record["bytes_up"]),
            (&"closed".into(), &Value::from(bytes.len()))
        );
    }
}

/// rustls takes 65,535 bytes and the change of cipher behind them has one more: that byte is in our hands alone.
#[tokio::test]
async fn no_byte_behind_a_hello_is_lost_to_a_terminated_route() {
    let mut scene = Scene::with("").await;
    let change_of_cipher = record(20, &[1]);
    for size in [None, Some(65_510)] {
        let mut config = scene.authority.client(&[&TLS13]);
        if let Some(size) = size {
            config.alpn_protocols = filling(&config, size);
        }
        let (mut tls, message) = hello::client(&Arc::new(config), "open.example.test");
        let bytes = [framed(&message, &[]), change_of_cipher.clone()].concat();
        assert!(size.is_none() || bytes.len() == 65_536, "{}", bytes.len());
        let mut tcp = scene.gateway.connect().await;
        tcp.write_all(&bytes).await.unwrap();
        assert_eq!(finish(&mut tcp, &mut tls, b"word").await.unwrap(), b"word");
        let record = scene.gateway.ended().await;
        assert_eq!(
            (&record["reason"], &record["route"]),
            (&"closed".into(), &"open".into())
        );
    }
}

/// Protocols that make a client's hello so long.
fn filling(config: &ClientConfig, size: usize) -> Vec<Vec<u8>> {
    let mut least = config.clone();
    least.alpn_protocols = vec![vec![b'x']];
    let least_size = hello::client(&Arc::new(least), "open.example.test").1.len();
    let mut missing = size - least_size;
    let mut protocols = vec![vec![b'x']];
    // Each comes with its length in a byte.
    while missing >= 512 {
        protocols.push(vec![b'y'; 255]);
        missing -= 256;
    }
    for length in [missing / 2, missing - missing / 2] {
        protocols.push(vec![b'z'; length - 1]);
    }
    protocols
}

/// CVE-2026-1642 of nginx: what came before the handshake was taken for what came through it.
#[tokio::test]
async fn plain_data_behind_a_hello_never_reaches_the_upstream() {
    let mut scene = Scene::with("").await;
    for name in ["open.example.test", "mutual.example.test"] {
        let hello = framed(&hello::named(name), &[]);
        let told = scene.tell(&[hello, record(23, b"injected")].concat()).await;
        assert_eq!(told.record["reason"], "handshake_failed", "{}", told.record);
        assert_eq!(scene.dials(), 0);
    }
}

#[tokio::test]
async fn a_second_hello_cannot_change_the_name() {
    let mut scene = Scene::with("").await;
    // A share that no server has asked for: it answers with a HelloRetryRequest (RFC 8446 §4.1.4).
    let retried = |name: &str, share: &[u8]| {
        let mut extensions = hello::tls13();
        extensions.retain(|extension| extension.0 != 51);
        extensions.push(hello::Extension(51, share.to_vec()));
        extensions.push(hello::server_name(&[(0, name.as_bytes())]));
        framed(&hello::message(0x0303, &extensions), &[])
    };
    let mut tcp = scene.gateway.connect().await;
    tcp.write_all(&retried("open.example.test", &[0, 0]))
        .await
        .unwrap();
    let mut header = [0; 5];
    tcp.read_exact(&mut header).await.unwrap();
    let mut retry = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    tcp.read_exact(&mut retry).await.unwrap();
    let share = [&[0, 36, 0, 29, 0, 32][..], &[9; 32]].concat();
    let (rest, _) = exchange(tcp, &retried("mutual.example.test", &share)).await;
    assert!(!rest.starts_with(&[HANDSHAKE]), "no handshake goes on");
    let record = scene.gateway.ended().await;
    assert_eq!(
        (&record["reason"], &record["route"]),
        (&"handshake_failed".into(), &"open".into())
    );
    assert_eq!(scene.dials(), 0);
}

#[tokio::test]
async fn what_a_client_sends_with_the_end_of_its_handshake_reaches_the_upstream() {
    let mut scene = Scene::with("").await;
    let word = vec![b'w'; 40_000];
    for version in [&TLS12, &TLS13] {
        let (mut tls, message) = hello::client(&scene.client(&[version]), "open.example.test");
        let mut tcp = scene.gateway.connect().await;
        tcp.write_all(&framed(&message, &[])).await.unwrap();
        assert!(finish(&mut tcp, &mut tls, &word).await.unwrap() == word);
        let record = scene.gateway.ended().await;
        assert_eq!(
            (&record["reason"], &record["bytes_up"]),
            (&"closed".into(), &word.len().into())
        );
    }
}
