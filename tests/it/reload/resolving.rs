//! A DNS server that is slow to answer for a name that a new configuration adds: what waits for it, how long, and what not.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::version::TLS13;
use tokio::io::AsyncReadExt;
use tokio::net::UdpSocket;
use tokio::sync::watch;

use super::{EDGE, echoes, eventually, route};
use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::network;
use crate::support::PATIENCE;
use crate::upstream::Upstream;

/// What a new configuration waits for its names, as the README says.
const AWAITED: Duration = Duration::from_secs(2);

/// The type of a question for IPv4 addresses (RFC 1035 §3.2.2).
const A: u16 = 1;

/// A DNS server that says nothing until it is released, then 127.0.0.1 to every name.
struct Slow {
    /// How many have asked.
    asked: watch::Receiver<usize>,
    release: watch::Sender<bool>,
}

impl Slow {
    /// On port 53 of this network, where the machine's resolver now asks.
    async fn start(authority: &Authority) -> Self {
        let settings = authority.write("resolv.conf", "nameserver 127.0.0.1\n");
        let mut mount = Command::new("mount");
        mount.arg("--bind").arg(settings).arg("/etc/resolv.conf");
        assert!(mount.status().unwrap().success());
        let socket = UdpSocket::bind("127.0.0.1:53").await.unwrap();
        let (count, asked) = watch::channel(0);
        let (release, mut released) = watch::channel(false);
        tokio::spawn(async move {
            let (mut waiting, mut question) = (Vec::new(), [0; 512]);
            loop {
                tokio::select! {
                    got = socket.recv_from(&mut question) => {
                        let (length, from) = got.unwrap();
                        waiting.push((question[..length].to_vec(), from));
                        count.send_modify(|count| *count += 1);
                    }
                    Ok(()) = released.changed() => {}
                }
                if *released.borrow() {
                    for (question, from) in waiting.drain(..) {
                        socket.send_to(&answer(&question), from).await.unwrap();
                    }
                }
            }
        });
        Self { asked, release }
    }
}

/// The answer to a question (RFC 1035 §4.1).
fn answer(question: &[u8]) -> Vec<u8> {
    const HEADER: usize = 12;
    let name = question[HEADER..].iter().position(|byte| *byte == 0);
    let end = HEADER + name.unwrap() + 1;
    let kind = u16::from_be_bytes([question[end], question[end + 1]]);
    let answers = u8::from(kind == A);
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, answers, 0, 0, 0, 0]);
    answer.extend(&question[HEADER..end + 4]);
    if kind == A {
        // The name of the question, an address of the Internet, for a minute.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(Ipv4Addr::LOCALHOST.octets());
    }
    answer
}

#[test]
fn a_name_that_is_answered_late_holds_up_a_reload_for_two_seconds_and_its_own_route_until_it_is() {
    network::of_its_own(
        "reload::resolving::a_name_that_is_answered_late_holds_up_a_reload_for_two_seconds_and_its_own_route_until_it_is",
        a_name_that_is_answered_late(),
    );
}

async fn a_name_that_is_answered_late() {
    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    let mut slow = Slow::start(&authority).await;
    let (echo, greeter) = (Upstream::echo().await, Upstream::greeter("hello").await);
    let tables = format!("admin = \"127.0.0.1:0\"\n{EDGE}{}", route("a", &echo));
    let mut gateway = Gateway::start(&authority, &tables).await;
    let client = Arc::new(authority.client(&[&TLS13]));
    let mut tunnel = gateway
        .connect_tls(&client, "a.example.test")
        .await
        .unwrap();

    let port = greeter.address.port();
    let late =
        format!("[routes.b]\nhost = \"b.example.test\"\nupstream = \"slow.internal:{port}\"\n");
    gateway.rewrite(&authority, &format!("{tables}{late}"));
    let begin = Instant::now();
    let reload = gateway.reload.clone();
    let reading = tokio::spawn(async move { reload.done("a test").await });
    slow.asked.wait_for(|count| *count > 0).await.unwrap();
    // Until then everything is as it was.
    echoes(&mut tunnel).await;
    let new = gateway.connect_tls(&client, "b.example.test").await;
    assert!(new.is_err());
    assert_eq!(gateway.ended().await["reason"], "unknown_name");
    assert!(!reading.is_finished());

    reading.await.unwrap().unwrap();
    let took = begin.elapsed();
    assert!(AWAITED <= took && took < PATIENCE, "{took:?}");
    // It is there, and refuses: its upstream is not known. The others are served, and the gateway stays ready.
    let _ = gateway.connect_tls(&client, "b.example.test").await;
    let record = gateway.ended().await;
    assert_eq!(record["route"], "b", "{record}");
    assert_eq!(record["reason"], "no_healthy_upstream", "{record}");
    echoes(&mut tunnel).await;
    let (status, ready) = gateway.ask_admin("/readyz").await;
    assert_eq!(status, 200, "{ready}");
    assert!(
        ready.contains("names degraded: not resolved yet: slow.internal"),
        "{ready}"
    );

    slow.release.send_replace(true);
    eventually("it is served", async || {
        let mut said = String::new();
        match gateway.connect_tls(&client, "b.example.test").await {
            Ok(mut tls) => tls.read_to_string(&mut said).await.is_ok() && said == "hello",
            Err(_) => false,
        }
    })
    .await;
    let (_, ready) = gateway.ask_admin("/readyz").await;
    assert!(ready.contains("names ready"), "{ready}");
}
