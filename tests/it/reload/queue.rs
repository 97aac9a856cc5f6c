//! Listeners and the admin interface that go while people come: whoever was let in is served.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use portcullis::config::ListenAddress;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{EDGE, dial, eventually, route, said};
use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::network;
use crate::upstream::Upstream;

/// Fewer than the descriptors that a process usually may have, at both ends.
const COMING: usize = 300;

#[test]
fn whoever_is_in_the_queue_of_a_listener_that_goes_is_served() {
    network::of_its_own(
        "reload::queue::whoever_is_in_the_queue_of_a_listener_that_goes_is_served",
        whoever_is_in_the_queue(),
    );
}

async fn whoever_is_in_the_queue() {
    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    let greeter = Upstream::greeter("hello").await;
    let tables = format!("admin = false\n{EDGE}{}", route("a", &greeter));
    let gateway = Gateway::start(&authority, &tables).await;
    let client = Arc::new(authority.client(&[&TLS13]));
    let listen = |addresses: &str| {
        let text = format!("listen = [\"127.0.0.1:0\"{addresses}]\n{tables}");
        authority.write("portcullis.toml", &text);
    };
    let (all, one) = ("[::]:8443", SocketAddr::from(([127, 0, 0, 1], 8443)));
    // First the one for all addresses goes for a specific one, then that goes for none.
    for (before, after) in [
        (format!(", \"{all}\""), format!(", \"{one}\"")),
        (format!(", \"{one}\""), String::new()),
    ] {
        listen(&before);
        gateway.reload.done("a test").await.unwrap();
        said(dial(one, &client).await.unwrap()).await;
        let count = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&count);
        let coming = thread::spawn(move || come(one, &counting));
        eventually("some have come", async || count.load(Relaxed) > 9).await;
        let asked = Instant::now();
        listen(&after);
        gateway.reload.done("a test").await.unwrap();
        let came = tokio::task::spawn_blocking(|| coming.join().unwrap());
        let came = came.await.unwrap();
        assert!(!came.is_empty());
        eprintln!("{} came while {before} became {after}", came.len());
        for (when, tcp) in came {
            let tcp = asynchronous(tcp);
            let name = ServerName::try_from("a.example.test").unwrap();
            let tls = TlsConnector::from(Arc::clone(&client))
                .connect(name, tcp)
                .await;
            match tls {
                Ok(tls) => assert_eq!(said(tls).await, "hello"),
                // In the moment in which the socket was closed: whoever comes after the wish has no promise.
                Err(error) => assert!(when > asked, "{error}"),
            }
        }
        if !after.is_empty() {
            assert_eq!(said(dial(one, &client).await.unwrap()).await, "hello");
        }
    }
}

/// As many as come to an address before it is gone, each with when it was there.
fn come(to: SocketAddr, count: &AtomicUsize) -> Vec<(Instant, std::net::TcpStream)> {
    let mut came = Vec::new();
    while came.len() < COMING {
        match std::net::TcpStream::connect(to) {
            Ok(tcp) => came.push((Instant::now(), tcp)),
            Err(_) => break,
        }
        count.fetch_add(1, Relaxed);
        thread::sleep(Duration::from_micros(300));
    }
    came
}

fn asynchronous(tcp: std::net::TcpStream) -> TcpStream {
    tcp.set_nonblocking(true).unwrap();
    TcpStream::from_std(tcp).unwrap()
}

#[test]
fn whoever_comes_by_a_listener_that_goes_must_bring_what_it_asks_for() {
    network::of_its_own(
        "reload::queue::whoever_comes_by_a_listener_that_goes_must_bring_what_it_asks_for",
        whoever_comes_by_a_listener_that_goes(),
    );
}

async fn whoever_comes_by_a_listener_that_goes() {
    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    let greeter = Upstream::greeter("hello").await;
    let tables = format!("admin = false\n{EDGE}{}", route("a", &greeter));
    let mut gateway = Gateway::start(&authority, &tables).await;
    let asking = SocketAddr::from(([127, 0, 0, 1], 8443));
    let listen = |more: &str| {
        let text = format!("listen = [\"127.0.0.1:0\"{more}]\n{tables}");
        authority.write("portcullis.toml", &text);
    };
    let more =
        format!(", {{ address = \"{asking}\", proxy_protocol = {{ from = [\"127.0.0.9/32\"] }} }}");
    for _ in 0..5 {
        listen(&more);
        gateway.reload.done("a test").await.unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&count);
        let coming = thread::spawn(move || come(asking, &counting));
        eventually("some have come", async || count.load(Relaxed) > 9).await;
        let asked = Instant::now();
        listen("");
        gateway.reload.done("a test").await.unwrap();
        let came = tokio::task::spawn_blocking(|| coming.join().unwrap());
        let came = came.await.unwrap();
        // Each of those, and what is left of the others is read in the next round.
        for _ in came.iter().filter(|(when, _)| *when < asked) {
            let record = gateway.ended().await;
            assert_eq!(record["reason"], "no_proxy_header", "{record}");
        }
    }
}

#[tokio::test]
async fn the_admin_interface_goes_and_moves_with_the_configuration() {
    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    let greeter = Upstream::greeter("hello").await;
    let tables = |admin: &str| format!("admin = {admin}\n{EDGE}{}", route("a", &greeter));
    let gateway = Gateway::start(&authority, &tables("\"127.0.0.1:0\"")).await;
    let Some(ListenAddress::Tcp(before)) = gateway.admin else {
        panic!("no address");
    };
    let socket = authority.folder().join("admin.sock");
    let unix = format!("\"unix:{}\"", socket.display());
    let is_there = async || tokio::net::UnixStream::connect(&socket).await.is_ok();
    gateway.rewrite(&authority, &tables(&unix));
    gateway.reload.done("a test").await.unwrap();
    assert!(is_there().await);
    eventually("nobody listens where it was", async || {
        TcpStream::connect(before).await.is_err()
    })
    .await;

    // A reload that fails further on leaves it as it was.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = format!(
        "listen = [\"127.0.0.1:0\", \"{address}\"]\n{}",
        tables("false")
    );
    authority.write("portcullis.toml", &text);
    let why = gateway.reload.done("a test").await.unwrap_err();
    assert!(why.contains("cannot listen on"), "{why}");
    assert!(is_there().await);

    gateway.rewrite(&authority, &tables("false"));
    gateway.reload.done("a test").await.unwrap();
    eventually("it is gone", async || !is_there().await).await;
    let client = Arc::new(authority.client(&[&TLS13]));
    let tls = gateway.connect_tls(&client, "a.example.test").await;
    assert_eq!(said(tls.unwrap()).await, "hello");
}
