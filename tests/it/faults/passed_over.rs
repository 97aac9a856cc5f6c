//! Instances that do not answer while Consul still thinks well of them: passed over, and tried again.

use std::future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;

use super::{HOST, NAME, ROUTE, Scene, own_sidecar, tags};
use crate::consul::{Consul, service, sidecar};
use crate::upstream::{Upstream, echo};

/// An instance of the service, and its sidecar, which listens there.
fn register_instance(consul: &Consul, id: &str, sidecar_at: SocketAddr) {
    let tags = tags(NAME);
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let mut instance = service(NAME, sidecar_at, &tags);
    instance["ID"] = json!(id);
    let mut beside = sidecar(&instance, sidecar_at.port());
    beside["ID"] = json!(format!("{id}-sidecar-proxy"));
    beside["Proxy"]["DestinationServiceID"] = json!(id);
    beside["Check"] = json!(null);
    consul.register(&instance);
    consul.register(&beside);
}

/// A port that nobody listens on until it is told to.
fn dead() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// A port that swallows every connection, as a machine that is gone: its queue is full.
async fn deaf() -> (Socket, TcpStream, SocketAddr) {
    let (socket, address) = dead();
    socket.listen(0).unwrap();
    let queued = TcpStream::connect(address).await.unwrap();
    (socket, queued, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_does_not_answer_is_passed_over_and_comes_back() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let alive = Upstream::tls(own_sidecar(&consul), echo).await;
    let (deaf, queued, gone) = deaf().await;
    register_instance(&consul, "alive", alive.address);
    register_instance(&consul, "gone", gone);
    let scene = with_two_instances(&consul, "\n[limits]\ndial_timeout = \"1s\"").await;

    // Who comes to it waits until it is given up, and so does who tries it again; nobody fails.
    let began = Instant::now();
    for _ in 0..40 {
        assert_eq!(scene.way.echo(HOST).await, Ok(()));
    }
    // Were it not passed over, twenty would have waited.
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );

    // It answers again, and gets its share.
    drop((queued, deaf));
    let (count, counted) = tokio::sync::watch::channel(0);
    let listener = std::net::TcpListener::bind(gone).unwrap();
    let back = listening(listener, own_sidecar(&consul), count);
    scene
        .until("it is used again", async || {
            assert_eq!(scene.way.echo(HOST).await, Ok(()));
            *counted.borrow() > 0
        })
        .await;
    back.abort();
}

/// As a sidecar does that is stopped, or has too much to do: its kernel answers in its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_takes_connections_and_never_speaks_tls_is_given_up_for_the_other_in_time() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let alive = Upstream::tls(own_sidecar(&consul), echo).await;
    let (taken, hangs) = tokio::sync::watch::channel(0);
    let silent = Upstream::tcp(move |tcp| {
        taken.send_modify(|count| *count += 1);
        async move {
            let _ = tcp.readable().await;
            future::pending::<()>().await;
        }
    })
    .await;
    register_instance(&consul, "alive", alive.address);
    register_instance(&consul, "silent", silent.address);
    let mut scene = with_two_instances(&consul, "\n[limits]\ndial_timeout = \"1s\"").await;
    // One of two comes to it first.
    for _ in 0..2 {
        assert_eq!(scene.way.echo(HOST).await, Ok(()));
        let record = scene.gateway.ended().await;
        assert_eq!(record["reason"], "closed", "{record}");
        assert_eq!(record["endpoint"], alive.address.to_string(), "{record}");
    }
    assert_eq!(*hangs.borrow(), 1);
    // Those who follow are not kept waiting, each for a second; now and then one tries it again.
    let began = Instant::now();
    for _ in 0..40 {
        assert_eq!(scene.way.echo(HOST).await, Ok(()));
    }
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn when_no_instance_answers_they_are_tried_all_the_same() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let (one, one_at) = dead();
    let (_other, other_at) = dead();
    register_instance(&consul, "one", one_at);
    register_instance(&consul, "other", other_at);
    let mut scene = Scene::start_unready(&consul.keys(), "").await;
    scene
        .until("it has both instances", async || {
            let route = scene.route(ROUTE).await;
            route["endpoints"]
                .as_array()
                .is_some_and(|all| all.len() == 2)
        })
        .await;
    scene.is_ready().await;
    for _ in 0..6 {
        assert!(scene.way.echo(HOST).await.is_err());
        let record = scene.gateway.ended().await;
        assert_eq!(record["reason"], "dial_failed", "{record}");
    }
    // The next connection finds it: nobody waits until it is forgiven.
    drop(one);
    let (count, _counted) = tokio::sync::watch::channel(0);
    let listener = std::net::TcpListener::bind(one_at).unwrap();
    let back = listening(listener, own_sidecar(&consul), count);
    let began = Instant::now();
    assert_eq!(scene.way.echo(HOST).await, Ok(()));
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    back.abort();
}

/// A gateway that is ready, with these tables besides, and knows both instances.
async fn with_two_instances(consul: &Consul, tables: &str) -> Scene {
    let scene = Scene::start_unready(&consul.keys(), tables).await;
    scene.is_ready().await;
    scene
        .until("it has both instances", async || {
            let route = scene.route(ROUTE).await;
            let endpoints = route["endpoints"].as_array();
            endpoints.is_some_and(|all| all.len() == 2)
        })
        .await;
    scene
}

/// A sidecar on a port of before, which counts its connections.
fn listening(
    listener: std::net::TcpListener,
    config: std::sync::Arc<rustls::ServerConfig>,
    count: tokio::sync::watch::Sender<usize>,
) -> tokio::task::JoinHandle<()> {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            if let Ok(stream) = acceptor.accept(tcp).await {
                count.send_modify(|count| *count += 1);
                tokio::spawn(echo(stream));
            }
        }
    })
}
