//! Middlewares in the tags of services: their own, another service's and the file's; and that none is left out.

use serde_json::json;

use super::{Host, Mesh, plain_tags, tagged};
use crate::consul::Consul;

const FILE: &str = r#"
    [middlewares.here]
    ip_allow_list = ["127.0.0.0/8"]
    [middlewares.elsewhere]
    ip_allow_list = ["192.0.2.0/24"]
"#;

/// The tags of a route with these middlewares, and these tags besides.
fn asking(name: &str, middlewares: &str, more: &[&str]) -> Vec<String> {
    let mut tags = plain_tags(name, &format!("{name}.example.test"));
    tags.push(format!(
        "traefik.tcp.routers.{name}.middlewares={middlewares}"
    ));
    tags.extend(
        more.iter()
            .map(|tag| format!("traefik.tcp.middlewares.{tag}")),
    );
    tags
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_reached_by_those_whom_its_middlewares_let_in() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let mut mesh = Mesh::with(consul, "", FILE).await;
    let host = Host::start("host").await;
    // The service, what its router names and it defines, and why its clients are refused, if they are.
    let services = [
        ("here", "here@file", &[][..], None),
        (
            "elsewhere",
            "elsewhere@file",
            &[],
            Some("client_not_allowed"),
        ),
        (
            "own",
            "m",
            &["m.ipallowlist.sourcerange=10.0.0.0/8, 127.0.0.1"],
            None,
        ),
        (
            "old",
            "M@consulcatalog",
            &["m.ipwhitelist.sourcerange=10.0.0.0/8"],
            Some("client_not_allowed"),
        ),
        (
            "both",
            "here@file,m",
            &["m.ipallowlist.sourcerange=10.0.0.0/8"],
            Some("client_not_allowed"),
        ),
        (
            "nobody",
            "n",
            &["n.inflightconn.amount=0"],
            Some("in_flight_limit"),
        ),
        ("lost", "lost@file", &[], Some("route_broken")),
        ("missing", "here", &[], Some("route_broken")),
        (
            "wrong",
            "w,here@file",
            &["w.ipallowlist.sourcerange=127.0.0.1/33"],
            Some("route_broken"),
        ),
        (
            "empty",
            "e",
            &["e.ipallowlist.sourcerange="],
            Some("route_broken"),
        ),
    ];
    for (name, middlewares, more, _) in services {
        let tags = asking(name, middlewares, more);
        mesh.consul.register(&tagged(name, host.address, &tags));
    }
    for (name, _, _, refused) in services {
        let route = mesh.route(&format!("{name}@consul")).await;
        let is_broken = refused == Some("route_broken");
        assert_eq!(route["action"] == "broken", is_broken, "{route}");
        assert_eq!(route["broken_reason"].is_string(), is_broken, "{route}");
        let host_name = format!("{name}.example.test");
        let dials = host.dials();
        match refused {
            None => assert_eq!(mesh.greets(&host_name).await, "host"),
            Some(reason) => {
                let record = mesh.refuses(&host_name).await;
                assert_eq!(record["reason"], reason, "{record}");
                assert_eq!(host.dials(), dials, "{name}");
            }
        }
    }
    let here =
        json!([{ "name": "here", "ip_allow_list": ["127.0.0.0/8"], "in_flight_conn": null }]);
    assert_eq!(mesh.route("here@consul").await["middlewares"], here);

    // Mended in the tags or in the file, it serves.
    let tags = asking(
        "wrong",
        "w,here@file",
        &["w.ipallowlist.sourcerange=127.0.0.1/32"],
    );
    mesh.consul.register(&tagged("wrong", host.address, &tags));
    mesh.told("it is mended", |routes| {
        routes.route("wrong@consul").unwrap()["action"] != "broken"
    })
    .await;
    assert_eq!(mesh.greets("wrong.example.test").await, "host");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_middleware_of_another_service_is_had_as_long_as_it_says_one_thing() {
    let Some(mut mesh) = Mesh::start().await else {
        return;
    };
    let host = Host::start("host").await;
    let tags = asking("web", "m@consul", &[]);
    mesh.consul.register(&tagged("web", host.address, &tags));
    mesh.route("web@consul").await;
    assert_eq!(
        mesh.refuses("web.example.test").await["reason"],
        "route_broken"
    );

    let defining = |name: &str, networks: &str| {
        let tag = format!("traefik.tcp.middlewares.m.ipallowlist.sourcerange={networks}");
        tagged(name, host.address, &[tag])
    };
    let is_broken = |broken: bool| {
        move |routes: &super::Routes| {
            (routes.route("web@consul").unwrap()["action"] == "broken") == broken
        }
    };
    mesh.consul.register(&defining("edge", "127.0.0.1"));
    mesh.told("it is defined", is_broken(false)).await;
    assert_eq!(mesh.greets("web.example.test").await, "host");

    mesh.consul.register(&defining("other", "0.0.0.0/0"));
    let routes = mesh.told("two differ", is_broken(true)).await;
    let reason = routes.route("web@consul").unwrap()["broken_reason"].to_string();
    assert!(reason.contains("`edge` and `other` define"), "{reason}");
    assert_eq!(
        mesh.refuses("web.example.test").await["reason"],
        "route_broken"
    );

    mesh.consul.deregister("other");
    mesh.told("they do no more", is_broken(false)).await;
    assert_eq!(mesh.greets("web.example.test").await, "host");
    mesh.consul.deregister("edge");
    mesh.told("nobody defines it", is_broken(true)).await;
    assert_eq!(
        mesh.refuses("web.example.test").await["reason"],
        "route_broken"
    );
}
