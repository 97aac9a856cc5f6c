//! How tags ask for their service to be dialled, and to what of the file they may lead, with a real Consul.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis::net::proxy_header::Header;
use rustls::version::{TLS12, TLS13};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Host, Mesh, plain_tags, tagged, tags};
use crate::authority::Authority;
use crate::consul::{Consul, meshed};
use crate::ports;
use crate::upstream::{Upstream, echo};

/// The tags of a route to a service that is dialled plainly, with these of its `loadbalancer`.
fn dialled(name: &str, more: &[&str]) -> Vec<String> {
    with(
        plain_tags(name, &format!("{name}.example.test")),
        name,
        more,
    )
}

fn with(mut tags: Vec<String>, name: &str, more: &[&str]) -> Vec<String> {
    let more = more.iter();
    tags.extend(more.map(|tag| format!("traefik.tcp.services.{name}.loadbalancer.{tag}")));
    tags
}

/// The tags of a route that leads to this upstream of the file.
fn leading(name: &str, to: &str) -> Vec<String> {
    let mut tags = plain_tags(name, &format!("{name}.example.test"));
    tags.retain(|tag| !tag.contains(".service="));
    tags.push(format!("traefik.tcp.routers.{name}.service={to}"));
    tags
}

impl Mesh {
    /// Waits until a route is broken; gives the reason.
    async fn breaks(&self, route: &str) -> String {
        let reason = |routes: &super::Routes| {
            let route = routes.route(route)?;
            route["broken_reason"].as_str().map(str::to_owned)
        };
        let routes = self.told(route, |routes| reason(routes).is_some()).await;
        reason(&routes).unwrap()
    }

    /// Who answers so many connections under this name, how often each; the log names the same.
    async fn shares(&mut self, host: &str, count: usize) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for _ in 0..count {
            let tunnel = self.open(host).await.unwrap();
            let greeting = tunnel.greeting.clone();
            tunnel.end().await;
            let record = self.gateway.ended().await;
            let upstream = record["upstream"].as_str().unwrap();
            assert!(upstream.starts_with(&greeting), "{greeting}: {record}");
            *shares.entry(greeting).or_default() += 1;
        }
        shares
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_speaks_tls_must_prove_the_name_that_its_transport_says() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let authority = Authority::new();
    let server = authority.issue(&["web.internal"]).server(&[&TLS12, &TLS13]);
    let upstream = Upstream::tls(server, |mut tls| async move {
        let _ = tls.write_all(b"behind tls\n").await;
        let _ = tls.shutdown().await;
        let _ = tls.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let tables = "[transports.web.tls]\nroots = [\"ca.pem\"]\nserver_name = \"web.internal\"\n\
         [transports.wrong.tls]\nroots = [\"ca.pem\"]\nserver_name = \"other.internal\"\n\
         [transports.plain]\ndial_timeout = \"2s\"\n";
    for (name, more) in [
        (
            "right",
            &["server.tls=true", "serverstransport=web@file"][..],
        ),
        ("wrong", &["server.tls=true", "serverstransport=wrong@file"]),
        ("gone", &["server.tls=true", "serverstransport=gone@file"]),
        ("plain", &["server.tls=true", "serverstransport=plain@file"]),
        ("alone", &["server.tls=true"]),
        ("unasked", &["serverstransport=web@file"]),
    ] {
        consul.register(&tagged(name, upstream.address, &dialled(name, more)));
    }
    let keys = super::at(&consul);
    let mut mesh = Mesh::starting(authority, consul, &keys, tables).await;
    mesh.is_ready().await;
    let right = mesh.route("right@consul").await;
    assert_eq!(right["upstream"]["server_name"], "web.internal", "{right}");
    assert_eq!(mesh.greets("right.example.test").await, "behind tls");

    mesh.route("wrong@consul").await;
    let record = mesh.refuses("wrong.example.test").await;
    assert_eq!(record["reason"], "upstream_identity", "{record}");

    for (name, why) in [
        ("gone", "add a [transports.gone] section"),
        ("plain", "add [transports.plain.tls]"),
        ("alone", "loadbalancer.serverstransport=NAME@file"),
    ] {
        let reason = mesh.breaks(&format!("{name}@consul")).await;
        assert!(reason.contains(why), "{name}: {reason}");
        let record = mesh.refuses(&format!("{name}.example.test")).await;
        assert_eq!(record["reason"], "route_broken", "{record}");
    }
    assert_eq!(mesh.routes().await.skipped("alone").len(), 1);
    // As in Traefik: not without `server.tls`, and it is said.
    let unasked = mesh.route("unasked@consul").await;
    assert_eq!(unasked["upstream"]["tls"], false, "{unasked}");
    let warnings = unasked["warnings"].to_string();
    assert!(warnings.contains("do not ask for it"), "{warnings}");

    // What is missing comes with the configuration.
    let text = super::configuration(
        &keys,
        &tables.replace("[transports.plain]", "[transports.gone]"),
    );
    let text = text + "tls = { roots = [\"ca.pem\"], server_name = \"web.internal\" }\n";
    mesh.gateway.rewrite(&mesh.authority, &text);
    mesh.gateway.reload.done("a test").await.unwrap();
    assert_eq!(mesh.greets("gone.example.test").await, "behind tls");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_in_the_mesh_is_told_who_the_client_is_where_its_tags_ask_for_it() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let upstream = Upstream::told().await;
    let tables = "[transports.told]\nproxy_protocol = \"v2\"\n\
         [transports.told.tls]\nroots = [\"ca.pem\"]\nserver_name = \"nobody.internal\"\n";
    let cases = [
        ("none", &[][..], None),
        ("v1", &["proxyprotocol.version=1"], Some("v1")),
        (
            "v2",
            &["proxyprotocol=true", "terminationdelay=-1"],
            Some("v2"),
        ),
        (
            "named",
            &["server.tls=true", "serverstransport=told@file"],
            Some("v2"),
        ),
    ];
    let mut sidecars = Vec::new();
    for (name, more, _) in cases {
        let tags = with(tags(name, &format!("{name}.example.test")), name, more);
        consul.register(&meshed(
            tagged(name, upstream.address, &tags),
            ports::free(),
        ));
        sidecars.push(consul.builtin_sidecar(name));
    }
    let mut mesh = Mesh::with(consul, "", tables).await;
    for (name, _, version) in cases {
        let route = mesh.route(&format!("{name}@consul")).await;
        assert_eq!(route["upstream"]["mesh"], true, "{route}");
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
        drop(tls);
        mesh.gateway.ended().await;
    }
    let named = mesh.route("named@consul").await;
    let warnings = named["warnings"].to_string();
    assert!(warnings.contains("the mesh brings its own"), "{warnings}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_lead_to_weighted_upstreams_of_the_file_whose_members_may_come_and_go() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let (blue, green) = (Host::start("blue").await, Host::start("green").await);
    let tables = format!(
        "[upstreams.blue]\naddress = \"{}\"\n\
         [upstreams.both]\nweighted = [{{ upstream = \"blue\", weight = 3 }}, {{ upstream = \"green@consul\", weight = 1 }}]\n",
        blue.address
    );
    let register = |consul: &Consul| {
        let green = tagged("green", green.address, &dialled("green", &[]));
        consul.register(&green);
    };
    register(&consul);
    consul.register(&tagged("web", blue.address, &leading("web", "both@file")));
    let mut strict = leading("strict", "both@file");
    strict.push("traefik.consulcatalog.connect=true".to_owned());
    consul.register(&tagged("strict", blue.address, &strict));
    let mut mesh = Mesh::with(consul, "", &tables).await;
    mesh.route("green@consul").await;
    let both = || BTreeMap::from([("blue".to_owned(), 6), ("green".to_owned(), 2)]);
    mesh.told("the route", |routes| routes.route("web@consul").is_some())
        .await;
    assert_eq!(mesh.shares("web.example.test", 8).await, both());

    // Nothing weaker than the mesh.
    let reason = mesh.breaks("strict@consul").await;
    assert!(reason.contains("asks for the mesh"), "{reason}");
    mesh.refuses("strict.example.test").await;

    let green_is = |routes: &super::Routes, is_out: bool| {
        let route = routes.route("web@consul");
        let why = route.map(|route| route["members"][1]["passed_over"].clone());
        why.is_some_and(|why| why.is_string() == is_out)
    };
    mesh.consul.deregister("green");
    mesh.told("green is out", |routes| green_is(routes, true))
        .await;
    let alone = BTreeMap::from([("blue".to_owned(), 8)]);
    assert_eq!(mesh.shares("web.example.test", 8).await, alone);
    register(&mesh.consul);
    let routes = mesh
        .told("green is in", |routes| green_is(routes, false))
        .await;
    let members = &routes.route("web@consul").unwrap()["members"];
    let names: Vec<&Value> = (0..2).map(|n| &members[n]["upstream"]["name"]).collect();
    assert_eq!(names, ["blue", "green@consul"]);
    assert_eq!(mesh.shares("web.example.test", 8).await, both());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_service_asks_of_whoever_dials_it_holds_for_the_routers_of_others_too() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let authority = Authority::new();
    let server = authority.issue(&["web.internal"]).server(&[&TLS12, &TLS13]);
    let upstream = Upstream::tls(server, |mut tls| async move {
        let _ = tls.write_all(b"behind tls\n").await;
        let _ = tls.shutdown().await;
        let _ = tls.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let tables = "[transports.web.tls]\nroots = [\"ca.pem\"]\nserver_name = \"web.internal\"\n\
         [upstreams.share]\nweighted = [\"web@consul\"]\n";
    let secure = ["server.tls=true", "serverstransport=web@file"];
    // Its tcp service has another name than the service has.
    let mut own = with(plain_tags("web", "web.example.test"), "inner", &secure);
    own.retain(|tag| !tag.contains(".service="));
    consul.register(&tagged("web", upstream.address, &own));
    consul.register(&tagged(
        "other",
        upstream.address,
        &leading("other", "web@consulcatalog"),
    ));
    consul.register(&tagged(
        "shared",
        upstream.address,
        &leading("shared", "share@file"),
    ));
    let keys = super::at(&consul);
    let mut mesh = Mesh::starting(authority, consul, &keys, tables).await;
    mesh.is_ready().await;
    for name in ["web", "other"] {
        let route = mesh.route(&format!("{name}@consul")).await;
        assert_eq!(route["upstream"]["tls"], true, "{route}");
    }
    for name in ["web", "other", "shared"] {
        let host = format!("{name}.example.test");
        assert_eq!(mesh.greets(&host).await, "behind tls", "{name}");
    }

    // Of two that are dialled in different ways neither is chosen.
    own.push("traefik.tcp.services.bare.loadbalancer.server.port=1".to_owned());
    own.push("traefik.tcp.routers.web.service=inner".to_owned());
    mesh.consul.register(&tagged("web", upstream.address, &own));
    let reason = mesh.breaks("other@consul").await;
    assert!(reason.contains("in different ways"), "{reason}");
    mesh.refuses("other.example.test").await;
    assert_eq!(mesh.greets("web.example.test").await, "behind tls");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transport_that_changes_under_traffic_counts_for_new_connections_and_touches_no_tunnel() {
    const CLIENTS: usize = 8;
    const HELD: usize = 40;
    let Some(consul) = Consul::strict() else {
        return;
    };
    // It says which header came, and then sends back what comes.
    let upstream = Upstream::tcp(|mut tcp: TcpStream| async move {
        let mut all = Vec::new();
        let version = loop {
            // Consul looks whether somebody is there, and says nothing.
            if tcp.read_buf(&mut all).await.unwrap_or(0) == 0 {
                return;
            }
            if all.starts_with(b"PROXY ") && all.ends_with(b"\r\n") {
                break "v1";
            }
            if all.starts_with(b"\r\n\r\n\0")
                && Header::parse(&all).is_ok_and(|found| found.is_some())
            {
                break "v2";
            }
        };
        if tcp
            .write_all(format!("{version}\n").as_bytes())
            .await
            .is_ok()
        {
            echo(tcp).await;
        }
    })
    .await;
    let tables = |version: &str| format!("[transports.told]\nproxy_protocol = \"{version}\"\n");
    let asked = dialled("web", &["serverstransport=told@file"]);
    consul.register(&tagged("web", upstream.address, &asked));
    let keys = super::at(&consul);
    let mesh = Mesh::with(consul, "", &tables("v1")).await;
    mesh.route("web@consul").await;
    let host = "web.example.test";
    let mut held = Vec::new();
    for _ in 0..HELD {
        let tunnel = mesh.open(host).await.unwrap();
        assert_eq!(tunnel.greeting, "v1");
        held.push(tunnel);
    }

    let mesh = Arc::new(mesh);
    let (seen, mut told) = mpsc::unbounded_channel();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (mesh, seen) = (Arc::clone(&mesh), seen.clone());
        clients.spawn(async move {
            loop {
                // Nobody is refused, at no moment.
                let mut tunnel = mesh.open(host).await.unwrap();
                tunnel.is_alive().await;
                let greeting = tunnel.greeting.clone();
                tunnel.end().await;
                if seen.send(greeting).is_err() {
                    return;
                }
            }
        });
    }
    for _ in 0..2 * CLIENTS {
        assert_eq!(told.recv().await.unwrap(), "v1");
    }
    let text = super::configuration(&keys, &tables("v2"));
    mesh.gateway.rewrite(&mesh.authority, &text);
    mesh.gateway.reload.done("a test").await.unwrap();
    // What was begun by then may be of before; nothing that begins now is.
    assert_eq!(mesh.open(host).await.unwrap().greeting, "v2");
    let mut after = 0;
    while after < 4 * CLIENTS {
        after += usize::from(told.recv().await.unwrap() == "v2");
    }
    drop(told);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    for tunnel in &mut held {
        tunnel.is_alive().await;
    }
}
