//! How tags have their service dialled and checked: with a real Consul that denies what no policy allows.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustls::version::{TLS12, TLS13};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::tagged_routes::tags;
use super::{Host, Mesh, POLL, tagged};
use crate::authority::Authority;
use crate::support::PATIENCE;
use crate::upstream::Upstream;

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_told_of_its_clients_by_the_header_that_its_tags_name_and_by_no_other() {
    let Some(mesh) = Mesh::guarded(Authority::new(), "", &[]).await else {
        return;
    };
    let upstream = Upstream::told().await;
    let cases: [(&str, &[&str], Option<&str>); 6] = [
        ("none", &[], None),
        ("off", &["S.proxyprotocol=false"], None),
        ("on", &["S.proxyprotocol=true"], Some("v2")),
        ("one", &["S.proxyprotocol.version=1"], Some("v1")),
        ("two", &["S.proxyprotocol.version=2"], Some("v2")),
        ("spelled", &["S.ProxyProtocol.Version=1"], Some("v1")),
    ];
    for (name, more, _) in cases {
        let service = tagged(name, upstream.address, &tags(name, more));
        mesh.consul.register(&service);
    }
    for (name, _, version) in cases {
        mesh.route(&format!("{name}@consul")).await;
        let name = format!("{name}.example.test");
        let mut tls = mesh.gateway.connect_tls(&mesh.client, &name).await.unwrap();
        let client = tls.get_ref().0.local_addr().unwrap();
        tls.write_all(b"word").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\n") {
            assert_ne!(tls.read_buf(&mut answer).await.unwrap(), 0, "{name}");
        }
        let expected = version.map_or("nothing\n".to_owned(), |it| format!("{it} {client}\n"));
        assert_eq!(String::from_utf8(answer).unwrap(), expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_lead_to_the_transports_and_the_weighted_upstreams_of_the_file() {
    let authority = Authority::new();
    let server = authority.issue(&["web.internal"]).server(&[&TLS12, &TLS13]);
    let secure = Upstream::tls(server, |mut tls| async move {
        let _ = tls.write_all(b"behind tls\n").await;
        let _ = tls.shutdown().await;
        let _ = tls.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let (blue, green) = (Host::start("blue").await, Host::start("green").await);
    let tables = format!(
        "[transports.web.tls]\nroots = [\"ca.pem\"]\nserver_name = \"web.internal\"\n\
         [upstreams.blue]\naddress = \"{}\"\n[upstreams.both]\n\
         weighted = [{{ upstream = \"blue\", weight = 2 }}, {{ upstream = \"green@consul\", weight = 1 }}]\n",
        blue.address
    );
    let Some(mut mesh) = Mesh::guarded(authority, &tables, &[]).await else {
        return;
    };
    let transport = &["S.server.tls=true", "S.serverstransport=web@file"];
    for (name, address, more) in [
        ("secure", secure.address, &transport[..]),
        ("green", green.address, &[]),
        ("shared", green.address, &["R.service=both@file"]),
    ] {
        mesh.consul
            .register(&tagged(name, address, &tags(name, more)));
    }
    mesh.route("secure@consul").await;
    assert_eq!(mesh.greets("secure.example.test").await, "behind tls");
    mesh.route("green@consul").await;
    mesh.told("both have members", |routes| {
        let route = routes.route("shared@consul");
        route.is_some_and(|route| (0..2).all(|n| route["members"][n]["passed_over"].is_null()))
    })
    .await;
    let mut shares: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..6 {
        *shares
            .entry(mesh.greets("shared.example.test").await)
            .or_default() += 1;
    }
    assert_eq!(shares, [("blue".into(), 4), ("green".into(), 2)].into());
}

/// Those whose client has ended hear of it, and end themselves when they are let go.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_whose_client_has_ended_may_go_on_for_as_long_as_its_tags_say() {
    let limit = "[limits]\nhalf_closed_timeout = \"2s\"\n";
    let Some(mut mesh) = Mesh::guarded(Authority::new(), limit, &[]).await else {
        return;
    };
    let (release, released) = watch::channel(false);
    let upstream = Upstream::tcp(move |mut tcp: TcpStream| {
        let mut released = released.clone();
        async move {
            let _ = tcp.read_to_end(&mut Vec::new()).await;
            if released.wait_for(|is_so| *is_so).await.is_ok() {
                let _ = tcp.write_all(b"late").await;
            }
        }
    })
    .await;
    let cases: [(&str, &[&str]); 4] = [
        ("short", &["S.terminationdelay=200"]),
        ("usual", &[]),
        ("long", &["S.TerminationDelay=3600000"]),
        ("endless", &["S.terminationdelay=-1"]),
    ];
    let mut open = BTreeMap::new();
    for (name, more) in cases {
        let service = tagged(name, upstream.address, &tags(name, more));
        mesh.consul.register(&service);
        mesh.route(&format!("{name}@consul")).await;
    }
    let ended = Instant::now();
    for (name, _) in cases {
        let host = format!("{name}.example.test");
        let mut tls = mesh.gateway.connect_tls(&mesh.client, &host).await.unwrap();
        tls.write_all(b"all I have to say").await.unwrap();
        tls.shutdown().await.unwrap();
        open.insert(name, tls);
    }
    for (name, least) in [("short", 200), ("usual", 2000)] {
        let record = mesh.gateway.ended().await;
        assert_eq!(record["sni"], format!("{name}.example.test"), "{record}");
        assert_eq!(record["reason"], "half_closed_timeout", "{record}");
        assert!(ended.elapsed().as_millis() >= least, "{name}");
    }
    // They have outlived what is the limit without a tag.
    release.send(true).unwrap();
    for name in ["long", "endless"] {
        let mut answer = Vec::new();
        let read = open.get_mut(name).unwrap().read_to_end(&mut answer);
        timeout(PATIENCE, read).await.unwrap().unwrap();
        assert_eq!(answer, b"late", "{name}");
        assert_eq!(mesh.gateway.ended().await["reason"], "closed", "{name}");
    }
}

/// What answers checks, beside the service that they are about.
#[derive(Clone, Default)]
struct Asked {
    is_well: Arc<AtomicBool>,
    is_mute: bool,
    count: Arc<AtomicUsize>,
}

impl Asked {
    fn well(is_well: bool) -> Self {
        let asked = Self::default();
        asked.is_well.store(is_well, Ordering::SeqCst);
        asked
    }

    fn on(&self, listener: TcpListener) -> Upstream {
        let asked = self.clone();
        Upstream::on(listener, move |tcp| asked.clone().serve(tcp))
    }

    async fn serve(self, mut tcp: TcpStream) {
        let mut question = [0; 6];
        if tcp.read_exact(&mut question).await.is_err() {
            return;
        }
        self.count.fetch_add(1, Ordering::SeqCst);
        if !self.is_mute {
            let is_right = &question == b"= PING" && self.is_well.load(Ordering::SeqCst);
            let answer = if is_right { "PONG, and more" } else { "POOR" };
            let _ = tcp.write_all(answer.as_bytes()).await;
        }
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

/// A listener on each of these addresses of this machine, on one port.
async fn on_one_port(addresses: [&str; 2]) -> [TcpListener; 2] {
    loop {
        let first = TcpListener::bind((addresses[0], 0)).await.unwrap();
        let port = first.local_addr().unwrap().port();
        if let Ok(second) = TcpListener::bind((addresses[1], port)).await {
            return [first, second];
        }
    }
}

/// Waits until the check of an endpoint is in this state; gives its error.
async fn becomes(mesh: &Mesh, route: &str, address: SocketAddr, state: &str) -> String {
    let find = |routes: &super::Routes| -> Option<Value> {
        let all = routes.route(route)?["endpoints"].as_array()?;
        let mut all = all.iter();
        let found = all.find(|one| one["address"] == address.to_string())?;
        (found["check"] == state).then(|| found.clone())
    };
    let what = format!("{address} of {route} is {state}");
    let routes = mesh.told(&what, |routes| find(routes).is_some()).await;
    let error = find(&routes).unwrap()["check_error"].clone();
    error.as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_checked_where_as_often_and_as_long_as_their_tags_say() {
    let Some(mut mesh) = Mesh::guarded(Authority::new(), "", &[]).await else {
        return;
    };
    let (one, other) = (Host::start("one").await, Asked::well(true));
    // The second instance is on another address, as the port of the checks is one for both.
    let [first, second] = on_one_port(["127.0.0.1", "127.0.0.2"]).await;
    let port = first.local_addr().unwrap().port();
    let well = Asked::well(true);
    let (_well, _other) = (well.on(first), other.on(second));
    let two = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let two = Upstream::on(two, |mut tcp: TcpStream| async move {
        let _ = tcp.write_all(b"two\n").await;
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    });
    let asking = |port: u16, more: &[&str]| -> Vec<String> {
        let mut all = vec![
            format!("S.healthcheck.port={port}"),
            "S.healthcheck.send== PING".to_owned(),
            "S.HealthCheck.Expect=PONG".to_owned(),
            "S.healthcheck.interval=1s".to_owned(),
        ];
        all.extend(more.iter().map(|tag| (*tag).to_owned()));
        all
    };
    let register = |id: &str, name: &str, address: SocketAddr, more: &[String]| {
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let mut service = tagged(name, address, &tags(name, &more));
        service["ID"] = id.into();
        mesh.consul.register(&service);
    };
    register("web-1", "web", one.address, &asking(port, &[]));
    register("web-2", "web", two.address, &asking(port, &[]));
    // One that fails is asked again after an hour, and one that says nothing is given a second.
    let poor = Asked::well(false);
    let poor_at = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let poor_port = poor_at.local_addr().unwrap().port();
    let _poor = poor.on(poor_at);
    let seldom = asking(poor_port, &["S.healthcheck.unhealthyinterval=1h"]);
    register("poor", "poor", one.address, &seldom);
    let mute = Asked {
        is_mute: true,
        ..Asked::default()
    };
    let mute_at = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute_port = mute_at.local_addr().unwrap().port();
    let _mute = mute.on(mute_at);
    let short = asking(mute_port, &["S.healthcheck.timeout=300ms"]);
    register("mute", "mute", one.address, &short);

    becomes(&mesh, "web@consul", one.address, "passing").await;
    becomes(&mesh, "web@consul", two.address, "passing").await;
    let why = becomes(&mesh, "poor@consul", one.address, "failing").await;
    assert!(why.contains("POOR"), "{why}");
    let asked = poor.count();
    let why = becomes(&mesh, "mute@consul", one.address, "failing").await;
    assert!(why.contains("300ms"), "{why}");

    // Who fails is passed over until it does so no more.
    other.is_well.store(false, Ordering::SeqCst);
    becomes(&mesh, "web@consul", two.address, "failing").await;
    for _ in 0..4 {
        assert_eq!(mesh.greets("web.example.test").await, "one");
    }
    other.is_well.store(true, Ordering::SeqCst);
    becomes(&mesh, "web@consul", two.address, "passing").await;
    let both = [
        mesh.greets("web.example.test").await,
        mesh.greets("web.example.test").await,
    ];
    assert!(both.contains(&"one".to_owned()) && both.contains(&"two".to_owned()));
    let late = Instant::now() + PATIENCE;
    let before = well.count();
    while well.count() < before + 3 {
        assert!(Instant::now() < late, "it is not asked every second");
        sleep(POLL).await;
    }
    assert_eq!((asked, poor.count()), (1, 1), "asked again too soon");
}
