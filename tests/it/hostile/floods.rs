//! Floods of what costs the sender little, through a whole gateway: borne up to a count, and then ended with one record.

use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};

use crate::differential::forge::{self, DATA, Forge};
use crate::gateway::answer;
use crate::hello_bytes::framed;
use crate::scene::Scene;
use crate::support::PATIENCE;

/// What an attacker repeats after a word has gone through, and what the record must say of it then.
async fn flood(
    scene: &mut Scene,
    version: &'static rustls::SupportedProtocolVersion,
    what: &str,
    say: impl Fn(&mut Forge) -> Vec<u8>,
) {
    let (tcp, mut forge) = scene.through(version).await;
    let (mut from, mut to) = tcp.into_split();
    let sending = async {
        // Ten thousand would be said in a moment, were they taken.
        for _ in 0..10_000 {
            if to.write_all(&say(&mut forge)).await.is_err() {
                break;
            }
        }
    };
    // It ends for the one who sends as for the one who hears.
    let hearing = async { from.read_to_end(&mut Vec::new()).await };
    let both = async { tokio::join!(sending, hearing) };
    let ended = timeout(PATIENCE, both).await;
    ended.expect("the flood is borne for ever").1.ok();
    let record = scene.gateway.ended().await;
    assert_eq!(record["reason"], "client_reset", "{what}: {record}");
    assert_eq!(record["fault"], "client", "{what}: {record}");
    assert_eq!(record["bytes_up"], 4, "{what}: {record}");
    assert!(scene.gateway.has_no_more_records(), "{what}");
}

#[tokio::test]
async fn a_flood_of_what_says_nothing_ends_the_tunnel_of_its_sender_alone() {
    let mut scene = Scene::with("").await;
    let (mut honest, mut other) = scene.through(&TLS13).await;
    flood(&mut scene, &TLS13, "updates of keys", |forge| {
        forge.update_keys(false)
    })
    .await;
    flood(&mut scene, &TLS13, "updates that ask for ours", |forge| {
        forge.update_keys(true)
    })
    .await;
    flood(&mut scene, &TLS13, "empty records", |forge| forge.data(b"")).await;
    flood(&mut scene, &TLS13, "padding alone", |forge| {
        forge.padded(DATA, b"", 16_384)
    })
    .await;
    flood(&mut scene, &TLS12, "empty records of TLS 1.2", |forge| {
        forge.data(b"")
    })
    .await;
    flood(&mut scene, &TLS13, "warnings", |forge| forge.alert(1, 90)).await;
    // Half a message of a handshake, with the rest to come for ever.
    flood(&mut scene, &TLS13, "an endless message", |forge| {
        forge.record(forge::HANDSHAKE, &[1, 0xff, 0xff, 0xff].repeat(4_000))
    })
    .await;
    assert_eq!(
        echo(&mut honest, &mut other, b"still here").await,
        b"still here"
    );
    drop(honest);
    scene.gateway.ended().await;
    scene.serves_on().await;
}

/// CVE-2009-3555 and CVE-2011-1473: a second handshake within the first, to inject a prefix, or to use up a processor.
#[tokio::test]
async fn renegotiation_is_refused_once_and_then_ends_the_tunnel() {
    let mut scene = Scene::with("").await;
    let config = std::sync::Arc::new(scene.authority.client(&[&TLS12]));
    let (mut tcp, mut forge) = scene.through(&TLS12).await;
    let hello = forge.hello(&config);
    tcp.write_all(&hello).await.unwrap();
    assert_eq!(echo(&mut tcp, &mut forge, b"goes on").await, b"goes on");
    tcp.shutdown().await.unwrap();
    answer(&mut tcp).await;
    assert_eq!(scene.gateway.ended().await["reason"], "closed");
    flood(&mut scene, &TLS12, "renegotiation", |forge| {
        forge.hello(&config)
    })
    .await;
    scene.serves_on().await;
}

/// What is nearly all padding costs the gateway no more than its sender, and what is in it arrives.
#[tokio::test]
async fn sixteen_kibibyte_records_of_one_byte_of_content_arrive_byte_by_byte() {
    const RECORDS: usize = 1_000;
    let mut scene = Scene::with("").await;
    let (tcp, mut forge) = scene.through(&TLS13).await;
    let (mut from, mut to) = tcp.into_split();
    let mut bytes: Vec<u8> = (0..RECORDS)
        .flat_map(|n| forge.padded(DATA, &[n as u8], 16_383))
        .collect();
    bytes.extend(forge.close_notify());
    let sending = async {
        to.write_all(&bytes).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let mut echoed = Vec::new();
    let (_, read) = tokio::join!(sending, from.read_to_end(&mut echoed));
    read.unwrap();
    let expected: Vec<u8> = (0..RECORDS).map(|n| n as u8).collect();
    assert!(forge::text(forge.hear(&echoed)) == expected);
    let record = scene.gateway.ended().await;
    assert_eq!(record["reason"], "closed", "{record}");
    assert_eq!(record["bytes_up"], RECORDS + 4, "{record}");
}

#[tokio::test]
async fn what_comes_behind_a_close_notify_reaches_no_upstream() {
    let mut scene = Scene::with("").await;
    for version in [&TLS12, &TLS13] {
        let (mut tcp, mut forge) = scene.through(version).await;
        let bytes = [
            forge.data(b"before"),
            forge.close_notify(),
            forge.data(b"behind"),
            b"no TLS at all".to_vec(),
        ];
        tcp.write_all(&bytes.concat()).await.unwrap();
        tcp.shutdown().await.unwrap();
        let (heard, _) = answer(&mut tcp).await;
        assert_eq!(forge::text(forge.hear(&heard)), b"before");
        let record = scene.gateway.ended().await;
        assert_eq!(record["reason"], "closed", "{record}");
        assert_eq!(record["bytes_up"], 4 + 6, "{record}");
    }
    scene.serves_on().await;
}

/// CVE-2026-22045 and GHSA-89p3-4642-cr2w of Traefik, once more: neither half of a handshake lifts the deadline of the other.
#[tokio::test]
async fn a_handshake_that_drips_on_after_its_hello_ends_at_the_same_deadline() {
    let mut scene = Scene::with("limits.handshake_timeout = \"300ms\"").await;
    let (hello, _) = scene.attacker(&TLS13).step(&[]);
    let (mut from, mut to) = scene.gateway.connect().await.into_split();
    to.write_all(&hello).await.unwrap();
    let drip = tokio::spawn(async move {
        // A record that would take six minutes at this pace.
        let record = [&[DATA, 3, 3, 0x40, 0][..], &[0; 16_384]].concat();
        let mut pace = interval(Duration::from_millis(20));
        for byte in record {
            pace.tick().await;
            if to.write_all(&[byte]).await.is_err() {
                break;
            }
        }
    });
    let _ = from.read_to_end(&mut Vec::new()).await;
    let record = scene.gateway.ended().await;
    assert_eq!(record["reason"], "handshake_timeout", "{record}");
    assert_eq!(scene.dials(), 0);
    drip.abort();
}

/// One byte a second, at a twentieth of the time: a person who types, not an attack, once the handshake is over.
#[tokio::test]
async fn one_who_writes_a_byte_now_and_then_is_served_and_never_idle() {
    let mut scene = Scene::with("limits.idle_timeout = \"1s\"").await;
    let (mut tcp, mut forge) = scene.through(&TLS13).await;
    let mut pace = interval(Duration::from_millis(50));
    for n in 0..40 {
        pace.tick().await;
        assert_eq!(echo(&mut tcp, &mut forge, &[n]).await, [n]);
    }
    let end = forge.close_notify();
    tcp.write_all(&end).await.unwrap();
    tcp.shutdown().await.unwrap();
    answer(&mut tcp).await;
    let record = scene.gateway.ended().await;
    assert_eq!(
        (&record["reason"], &record["bytes_up"]),
        (&"closed".into(), &44.into())
    );
}

/// What a client may say that never reads is what the kernel holds, and no more. When it is gone, its upstream waits for the
/// gateway to read as the gateway does for the upstream: a deadlock that ends after ten seconds.
#[tokio::test]
async fn a_client_that_never_reads_holds_up_nobody_and_leaves_nothing_behind() {
    let mut scene = Scene::with("").await;
    let (tcp, mut forge) = scene.through(&TLS13).await;
    let record = forge.data(&[7; 16_384]);
    let mut sent = record.len();
    tcp.writable().await.unwrap();
    let mut rest = record;
    // Everything that it says comes back, until both ways are full.
    loop {
        let written = timeout(Duration::from_millis(300), async {
            loop {
                tcp.writable().await.unwrap();
                if let Ok(written) = tcp.try_write(&rest) {
                    return written;
                }
            }
        });
        let Ok(written) = written.await else {
            break;
        };
        rest.drain(..written);
        if rest.is_empty() {
            rest = forge.data(&[7; 16_384]);
            sent += rest.len();
        }
    }
    // Four sockets' buffers, as large as the kernel makes them.
    assert!(sent < 96 << 20, "{sent}");
    scene.serves_on().await;
    drop(tcp);
    assert_eq!(scene.gateway.ended().await["reason"], "client_reset");
}

/// Says something, and hears it back.
async fn echo(tcp: &mut TcpStream, forge: &mut Forge, text: &[u8]) -> Vec<u8> {
    let record = forge.data(text);
    tcp.write_all(&record).await.unwrap();
    let mut heard = Vec::new();
    let mut bytes = vec![0; 1 << 16];
    while heard.len() < text.len() {
        let count = timeout(PATIENCE, tcp.read(&mut bytes))
            .await
            .unwrap()
            .unwrap();
        assert!(count > 0, "the gateway has ended it");
        heard.extend(forge::text(forge.hear(&bytes[..count])));
    }
    heard
}

/// A flood that is not even TLS to a route that passes through is the upstream's business, and counted.
#[tokio::test]
async fn what_is_passed_through_is_not_looked_at_and_ends_with_its_upstream() {
    let mut scene = Scene::with("").await;
    let hello = framed(&crate::hello_bytes::named("pass.example.test"), &[]);
    let bytes = [hello, b"\x17\x03\x03\x00\x00".repeat(10_000)].concat();
    let (mut from, mut to) = scene.gateway.connect().await.into_split();
    let sending = async {
        to.write_all(&bytes).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let mut echoed = Vec::new();
    let (_, read) = tokio::join!(sending, from.read_to_end(&mut echoed));
    read.unwrap();
    assert!(echoed == bytes);
    let record = scene.gateway.ended().await;
    assert_eq!(
        (&record["reason"], &record["bytes_up"]),
        (&"closed".into(), &bytes.len().into())
    );
}
