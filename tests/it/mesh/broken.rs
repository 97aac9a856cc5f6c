//! What is wrong with one service stays with it: it is listed with its reason, and the others serve.

use serde_json::json;

use super::{Host, Mesh, Routes, at, configuration, plain_tags, routed, tagged};
use crate::authority::Authority;
use crate::consul::{Consul, meshed};
use crate::gateway::Gateway;
use crate::ports;

#[tokio::test(flavor = "multi_thread")]
async fn tags_that_make_no_sense_take_no_other_service_with_them() {
    let Some(mut mesh) = Mesh::start().await else {
        return;
    };
    let host = Host::start("good").await;
    // The service, what of its tags is changed into what, and a word of the reason.
    let bad = [
        ("plain", "tls=true", "tls=false", "TLS"),
        ("number", "service=number", "priority=soon", "soon"),
        ("key", "tls=true", "tls.nonsense=true", "nonsense"),
        ("rule", ".test`)", ".test` or so", "rule"),
        ("matcher", "HostSNI(", "HostXYZ(", "HostXYZ"),
        (
            "elsewhere",
            "entrypoints=https",
            "entrypoints=mysql",
            "mysql",
        ),
        (
            "all",
            "HostSNI(`all.example.test`)",
            "HostSNI(`*`)",
            "allow_default_from_tags",
        ),
    ];
    for (name, old, new, _) in bad {
        let tags = plain_tags(name, &format!("{name}.example.test"));
        let tags: Vec<String> = tags.iter().map(|tag| tag.replace(old, new)).collect();
        mesh.consul.register(&tagged(name, host.address, &tags));
    }
    let tags = plain_tags("good", "good.example.test");
    mesh.consul.register(&tagged("good", host.address, &tags));
    mesh.route("good@consul").await;
    assert_eq!(mesh.greets("good.example.test").await, "good");
    for (name, _, _, word) in bad {
        let routes = mesh
            .told(name, |routes| !routes.skipped(name).is_empty())
            .await;
        let skipped = routes.skipped(name);
        assert!(skipped.iter().all(|one| one["source"] == "consul"));
        let mut reasons = skipped.iter().filter_map(|one| one["reason"].as_str());
        assert!(reasons.any(|reason| reason.contains(word)), "{skipped:?}");
        // Where no instance can be read, what is known of the route stands and refuses: a wider one must not take over.
        let (action, reason) = match name {
            "number" => (Some("broken"), "route_broken"),
            _ => (None, "unknown_name"),
        };
        let route = routes.route(&format!("{name}@consul"));
        let found = route.map(|route| route["action"].as_str().unwrap());
        assert_eq!(found, action, "{name}");
        let record = mesh.refuses(&format!("{name}.example.test")).await;
        assert_eq!(record["reason"], reason, "{record}");
    }

    // Mended, each is routed as if nothing had been.
    for (name, ..) in bad {
        let host_name = format!("{name}.example.test");
        let tags = plain_tags(name, &host_name);
        mesh.consul.register(&tagged(name, host.address, &tags));
        mesh.route(&format!("{name}@consul")).await;
        assert_eq!(mesh.greets(&host_name).await, "good");
        assert!(mesh.routes().await.skipped(name).is_empty(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_for_every_name_is_taken_from_tags_where_that_is_allowed() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let host = Host::start("all").await;
    let tags = plain_tags("all", "*");
    consul.register(&tagged("all", host.address, &tags));
    let mut mesh = Mesh::with(consul, "allow_default_from_tags = true", "").await;
    let routes = mesh.routes().await;
    assert_eq!(routes.route("all@consul").unwrap()["default"], true);
    assert_eq!(mesh.greets("whatever.example.test").await, "all");
}

#[tokio::test(flavor = "multi_thread")]
async fn entry_points_of_another_name_are_ours_where_the_configuration_says_so() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let host = Host::start("vm").await;
    let tags = plain_tags("vm", "vm.example.test");
    let tags: Vec<String> = tags
        .iter()
        .map(|tag| tag.replace("entrypoints=https", "entrypoints=edge"))
        .collect();
    consul.register(&tagged("vm", host.address, &tags));
    let mut mesh = Mesh::with(consul, "entry_points = [\"edge\"]", "").await;
    assert_eq!(mesh.greets("vm.example.test").await, "vm");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_services_for_one_name_the_same_wins_in_whatever_order_they_come() {
    let Some(mut mesh) = Mesh::start().await else {
        return;
    };
    let [first, second] = [Host::start("a").await, Host::start("b").await];
    let service = |name: &str, host: &Host| {
        let tags = plain_tags(name, "both.example.test");
        tagged(name, host.address, &tags)
    };
    mesh.consul.register(&service("b", &second));
    mesh.route("b@consul").await;
    assert_eq!(mesh.greets("both.example.test").await, "b");

    mesh.consul.register(&service("a", &first));
    mesh.route("a@consul").await;
    let is_in_order = |routes: &Routes| {
        let [a, b] = ["a@consul", "b@consul"].map(|name| routes.route(name).unwrap());
        assert_eq!(a["shadowed_by"], json!(null), "{a}");
        let winner = json!({ "source": "consul", "name": "a@consul" });
        assert_eq!(b["shadowed_by"], winner, "{b}");
    };
    is_in_order(&mesh.routes().await);
    assert_eq!(mesh.greets("both.example.test").await, "a");
    mesh.counts("portcullis_routes_shadowed", 1).await;

    // A gateway that hears of both at once says the same.
    let text = configuration(&at(&mesh.consul), "");
    let other = Gateway::start(&mesh.authority, &text).await;
    let first_gateway = std::mem::replace(&mut mesh.gateway, other);
    mesh.is_ready().await;
    is_in_order(&mesh.routes().await);
    assert_eq!(mesh.greets("both.example.test").await, "a");
    mesh.counts("portcullis_routes_shadowed", 1).await;
    mesh.gateway = first_gateway;

    mesh.consul.deregister("a");
    mesh.told("the other is out of its shadow", |routes| {
        let route = routes.route("b@consul");
        route.is_some_and(|route| route["shadowed_by"].is_null())
    })
    .await;
    assert_eq!(mesh.greets("both.example.test").await, "b");
    mesh.counts("portcullis_routes_shadowed", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_this_gateway_itself_is_not_dialled() {
    let Some(mut mesh) = Mesh::start().await else {
        return;
    };
    let own = mesh.gateway.address;
    let tags = plain_tags("loop", "loop.example.test");
    mesh.consul.register(&tagged("loop", own, &tags));
    let routes = mesh
        .told("it is listed", |routes| !routes.skipped("loop").is_empty())
        .await;
    let skipped = &routes.skipped("loop")[0];
    assert_eq!(skipped["instance"], "test/loop", "{skipped}");
    let reason = skipped["reason"].as_str().unwrap();
    assert!(reason.contains(&own.to_string()), "{reason}");
    assert!(routes.endpoints("loop@consul").is_empty());
    let record = mesh.refuses("loop.example.test").await;
    assert_eq!(record["reason"], "no_healthy_upstream", "{record}");

    // Beside one that is somebody else's, it is passed over.
    let host = Host::start("good").await;
    let mut good = tagged("loop", host.address, &tags);
    good["ID"] = json!("good");
    mesh.consul.register(&good);
    mesh.route("loop@consul").await;
    for _ in 0..3 {
        assert_eq!(mesh.greets("loop.example.test").await, "good");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_asks_for_the_mesh_and_has_no_sidecar_is_never_dialled_plainly() {
    let Some(mut mesh) = Mesh::start().await else {
        return;
    };
    let host = Host::start("bare").await;
    let bare = routed("bare", "bare.example.test", host.address);
    mesh.consul.register(&bare);
    let routes = mesh
        .told("the route is there", |routes| {
            routes.route("bare@consul").is_some()
        })
        .await;
    let route = routes.route("bare@consul").unwrap();
    assert_eq!(route["action"], "broken", "{route}");
    let reason = route["broken_reason"].as_str().unwrap();
    assert!(reason.contains("sidecar"), "{reason}");
    assert!(!routes.skipped("bare").is_empty());
    let record = mesh.refuses("bare.example.test").await;
    assert_eq!(record["reason"], "route_broken", "{record}");
    assert_eq!(host.dials(), 0);

    mesh.consul.register(&meshed(bare, ports::free()));
    let sidecar = mesh.consul.builtin_sidecar("bare");
    mesh.route("bare@consul").await;
    assert_eq!(mesh.greets("bare.example.test").await, "bare");

    // A sidecar that does not run is no reason to go round it.
    drop(sidecar);
    let dials = host.dials();
    let record = mesh.refuses("bare.example.test").await;
    assert_eq!(record["reason"], "dial_failed", "{record}");
    assert_eq!(host.dials(), dials);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_identity_nothing_that_asks_for_the_mesh_is_dialled() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let host = Host::start("vm").await;
    let service = routed("vm", "vm.example.test", host.address);
    consul.register(&meshed(service, ports::free()));
    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    let text = configuration(&at(&consul), "");
    let text = text.replace("mesh_identity = \"portcullis\"\n", "");
    let gateway = Gateway::start(&authority, &text).await;
    let mut mesh = Mesh {
        gateway,
        client: authority.client(rustls::ALL_VERSIONS).into(),
        authority,
        consul,
    };
    mesh.is_ready().await;
    let record = mesh.refuses("vm.example.test").await;
    assert_eq!(record["reason"], "route_broken", "{record}");
    let detail = record["detail"].as_str().unwrap();
    assert!(detail.contains("mesh_identity"), "{detail}");
    assert_eq!(host.dials(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_at_our_own_listener_is_never_dialled_and_says_why() {
    let Some(mut mesh) = Mesh::start().await else {
        return;
    };
    let tags = plain_tags("loop", "loop.example.test");
    mesh.consul
        .register(&tagged("loop", mesh.gateway.address, &tags));
    mesh.told("it is passed over", |routes| {
        let skipped = routes.skipped("loop");
        let mut reasons = skipped.iter().filter_map(|entry| entry["reason"].as_str());
        reasons.any(|reason| reason.contains("points at this gateway's own listener"))
    })
    .await;
    let record = mesh.refuses("loop.example.test").await;
    assert_eq!(record["reason"], "no_healthy_upstream", "{record}");
    let host = Host::start("vm").await;
    mesh.consul.register(&tagged("loop", host.address, &tags));
    mesh.route("loop@consul").await;
    assert_eq!(mesh.greets("loop.example.test").await, "vm");
}
