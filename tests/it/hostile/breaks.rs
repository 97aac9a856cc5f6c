//! Connections that are reset, by either side, at every step of their life: one record each, and nothing else is harmed.

use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::yield_now;

use crate::authority::Authority;
use crate::differential::forge::Handshake;
use crate::gateway::{Gateway, answer};
use crate::hello_bytes::{framed, named};
use crate::scene::Scene;
use crate::upstream::Upstream;

/// How far a client gets before it breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Connected,
    HalfAHello,
    AHello,
    /// What the gateway answers to the hello is read.
    Answered,
    HalfAFinish,
    AFinish,
    HalfARecord,
    ARecord,
    Closed,
}

const STEPS: [Step; 9] = [
    Step::Connected,
    Step::HalfAHello,
    Step::AHello,
    Step::Answered,
    Step::HalfAFinish,
    Step::AFinish,
    Step::HalfARecord,
    Step::ARecord,
    Step::Closed,
];

#[tokio::test]
async fn a_client_that_resets_at_any_step_of_its_life_leaves_one_record_of_its_own_fault() {
    let mut scene = Scene::with("").await;
    for version in [&TLS12, &TLS13] {
        for step in STEPS {
            for at_once in [true, false] {
                let mut tcp = scene.gateway.connect().await;
                go(&mut tcp, scene.attacker(version), step).await;
                if !at_once {
                    // The gateway has seen what came so far; it runs on the same thread.
                    for _ in 0..20 {
                        yield_now().await;
                    }
                }
                reset(tcp);
                let record = scene.gateway.ended().await;
                let what = format!("{step:?}, {version:?}: {record}");
                let reason = record["reason"].as_str().unwrap();
                let expected: &[&str] = match step {
                    Step::Connected | Step::HalfAHello => &["client_gone"],
                    // As much was seen of it as had been read when the reset came.
                    Step::AHello | Step::Answered | Step::HalfAFinish => {
                        &["client_gone", "handshake_failed"]
                    }
                    Step::AFinish | Step::HalfARecord | Step::ARecord => {
                        &["client_gone", "handshake_failed", "client_reset"]
                    }
                    Step::Closed => &["client_gone", "handshake_failed", "client_reset", "closed"],
                };
                assert!(expected.contains(&reason), "{what}");
                assert_eq!(record["fault"] == "client", reason != "closed", "{what}");
            }
        }
    }
    assert!(scene.gateway.has_no_more_records());
    scene.serves_on().await;
}

#[tokio::test]
async fn a_client_that_resets_what_is_passed_through_leaves_one_record_too() {
    let mut scene = Scene::with("").await;
    let hello = framed(&named("pass.example.test"), &[]);
    for sent in [0, 3, 5, 50, hello.len() - 1, hello.len()] {
        for read in [false, true] {
            let mut tcp = scene.gateway.connect().await;
            tcp.write_all(&hello[..sent]).await.unwrap();
            if read && sent == hello.len() {
                tcp.read_exact(&mut vec![0; sent]).await.unwrap();
            }
            reset(tcp);
            let record = scene.gateway.ended().await;
            let reason = record["reason"].as_str().unwrap();
            let whole = sent == hello.len();
            assert!(
                reason == "client_gone" || whole && reason == "client_reset",
                "{sent}: {record}"
            );
        }
    }
    assert!(scene.gateway.has_no_more_records());
    scene.serves_on().await;
}

/// The client's socket ends without a reset, which could cost it the last words; what is missing its own TLS tells it.
#[tokio::test]
async fn an_upstream_that_resets_at_any_step_is_recorded_as_its_fault() {
    let hello = framed(&named("pass.example.test"), &[]);
    for heard in [0, 1, hello.len()] {
        for said in [0, 1, 70_000] {
            let upstream = Upstream::tcp(move |mut tcp| async move {
                tcp.read_exact(&mut vec![0; heard]).await.unwrap();
                tcp.write_all(&vec![7; said]).await.unwrap();
                reset(tcp);
            })
            .await;
            let tables = format!(
                "[routes.pass]\nhost = \"pass.example.test\"\npassthrough = true\nupstream = \"{}\"\n",
                upstream.address
            );
            let mut gateway = Gateway::start(&Authority::new(), &tables).await;
            let mut tcp = gateway.connect().await;
            tcp.write_all(&hello).await.unwrap();
            let (heard_of_it, _) = answer(&mut tcp).await;
            assert!(heard_of_it.len() <= said);
            drop(tcp);
            let record = gateway.ended().await;
            assert_eq!(
                (&record["reason"], &record["fault"]),
                (&"upstream_reset".into(), &"upstream".into()),
                "{heard} {said}: {record}"
            );
            assert!(gateway.has_no_more_records());
        }
    }
}

/// Goes through the handshake with `open` and beyond it, up to this step.
async fn go(tcp: &mut TcpStream, mut handshake: Handshake, last: Step) {
    let (hello, _) = handshake.step(&[]);
    match last {
        Step::Connected => return,
        Step::HalfAHello => return tcp.write_all(&hello[..hello.len() / 2]).await.unwrap(),
        _ => tcp.write_all(&hello).await.unwrap(),
    }
    if last == Step::AHello {
        return;
    }
    let mut received = vec![0; 1 << 16];
    let mut owed = Vec::new();
    loop {
        let count = tcp.read(&mut received).await.unwrap();
        let (said, through) = handshake.step(&received[..count]);
        owed.extend(said);
        // TLS 1.2 says the last word of the handshake to the client.
        if through || !owed.is_empty() {
            match last {
                Step::Answered => return,
                Step::HalfAFinish => return tcp.write_all(&owed[..owed.len() / 2]).await.unwrap(),
                _ => tcp.write_all(&owed).await.unwrap(),
            }
            owed.clear();
        }
        if through {
            break;
        }
    }
    let mut forge = handshake.forge();
    let record = forge.data(&[7; 1000]);
    match last {
        Step::AFinish => {}
        Step::HalfARecord => tcp.write_all(&record[..500]).await.unwrap(),
        Step::ARecord => tcp.write_all(&record).await.unwrap(),
        _ => {
            let end = forge.close_notify();
            tcp.write_all(&[record, end].concat()).await.unwrap();
        }
    }
}

pub(super) fn reset(tcp: TcpStream) {
    SockRef::from(&tcp)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}
