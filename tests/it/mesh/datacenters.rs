//! Services of several datacenters, each with a catalog of its own, through one gateway.

use super::{Host, Mesh, at, plain_tags, routed, tagged};
use crate::authority::Authority;
use crate::consul::{Consul, Options, STRICT, meshed, service};
use crate::ports;

/// Two datacenters, joined.
fn both() -> Option<(Consul, Consul)> {
    let near = Consul::start_with(Options {
        wan: true,
        ..STRICT
    })?;
    let far = near.start_beside();
    Some((near, far))
}

const DATACENTERS: &str = "datacenters = [\"dc1\", \"dc2\"]\n";

#[tokio::test(flavor = "multi_thread")]
async fn services_of_two_datacenters_are_told_apart_and_reached_in_their_own() {
    let Some((near, far)) = both() else {
        return;
    };
    let (near_host, far_host) = (Host::start("near").await, Host::start("far").await);
    near.register(&tagged(
        "web",
        near_host.address,
        &plain_tags("web", "near.example.test"),
    ));
    far.register(&tagged(
        "web",
        far_host.address,
        &plain_tags("web", "far.example.test"),
    ));
    let sidecar_host = Host::start("vm of dc2").await;
    far.register(&meshed(
        routed("vm", "vm.example.test", sidecar_host.address),
        ports::free(),
    ));
    let _sidecar = far.builtin_sidecar("vm");
    let plain = Host::start("db of dc2").await;
    far.register(&service("db", plain.address, &[]));

    let keys = at(&near) + DATACENTERS;
    let tables = r#"
        [routes.db]
        host = "db.example.test"
        upstream = "db"
        [upstreams.db]
        service = "db"
        datacenter = "dc2"
        mesh = false
    "#;
    let mut mesh = Mesh::starting(Authority::new(), near, &keys, tables).await;
    mesh.is_ready().await;
    mesh.route("web@consul").await;
    mesh.route("web@consul-dc2").await;
    assert_eq!(mesh.greets("near.example.test").await, "near");
    assert_eq!(mesh.greets("far.example.test").await, "far");
    assert_eq!(mesh.greets("db.example.test").await, "db of dc2");

    let route = mesh.route("vm@consul-dc2").await;
    let id = route["upstream"]["spiffe"].as_str().unwrap();
    assert!(id.ends_with("/ns/default/dc/dc2/svc/vm"), "{id}");
    assert_eq!(mesh.greets("vm.example.test").await, "vm of dc2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datacenter_that_is_lost_keeps_its_routes_and_holds_up_no_other() {
    let Some((near, mut far)) = both() else {
        return;
    };
    let (near_host, far_host) = (Host::start("near").await, Host::start("far").await);
    far.register(&tagged(
        "web",
        far_host.address,
        &plain_tags("web", "far.example.test"),
    ));
    let keys = at(&near) + DATACENTERS;
    let mut mesh = Mesh::starting(Authority::new(), near, &keys, "").await;
    mesh.is_ready().await;
    mesh.route("web@consul-dc2").await;

    far.kill();
    mesh.consul.register(&tagged(
        "web",
        near_host.address,
        &plain_tags("web", "near.example.test"),
    ));
    mesh.route("web@consul").await;
    mesh.readyz_says("consul-dc2 degraded: ").await;
    assert_eq!(mesh.greets("near.example.test").await, "near");
    assert_eq!(mesh.greets("far.example.test").await, "far");
    let (status, parts) = mesh.gateway.ask_admin("/readyz").await;
    assert_eq!(status, 200, "{parts}");
    assert!(
        parts.contains("\nconsul ready\n") || parts.starts_with("consul ready\n"),
        "{parts}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datacenter_that_is_not_there_is_told_with_what_to_do_and_the_others_serve() {
    let Some(near) = Consul::strict() else {
        return;
    };
    let host = Host::start("near").await;
    near.register(&tagged(
        "web",
        host.address,
        &plain_tags("web", "near.example.test"),
    ));
    let keys = at(&near) + DATACENTERS;
    let mut mesh = Mesh::starting(Authority::new(), near, &keys, "").await;
    mesh.is_ready().await;
    assert_eq!(mesh.greets("near.example.test").await, "near");
    mesh.readyz_says("`consul catalog datacenters` lists those")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_of_a_consul_that_has_none_are_told_with_what_to_do() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let keys = at(&consul) + "namespaces = [\"team\"]\n";
    let mesh = Mesh::starting(Authority::new(), consul, &keys, "").await;
    mesh.readyz_says("only Consul Enterprise has them: leave `namespaces`")
        .await;
    let (status, _) = mesh.gateway.ask_admin("/readyz").await;
    assert_eq!(status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_datacenters_that_claim_one_host_the_name_that_comes_first_wins() {
    let Some((near, far)) = both() else {
        return;
    };
    let (near_host, far_host) = (Host::start("near").await, Host::start("far").await);
    for name in ["b", "c"] {
        let tags = plain_tags(name, "one.example.test");
        near.register(&tagged(name, near_host.address, &tags));
    }
    for name in ["a", "b"] {
        let tags = plain_tags(name, "one.example.test");
        far.register(&tagged(name, far_host.address, &tags));
    }
    let keys = at(&near) + DATACENTERS;
    let mut mesh = Mesh::starting(Authority::new(), near, &keys, "").await;
    mesh.is_ready().await;
    for name in ["a@consul-dc2", "b@consul", "b@consul-dc2", "c@consul"] {
        mesh.route(name).await;
    }
    let routes = mesh.routes().await;
    let shadow = |name| &routes.route(name).unwrap()["shadowed_by"]["name"];
    assert_eq!(shadow("b@consul"), "a@consul-dc2");
    assert_eq!(shadow("b@consul-dc2"), "a@consul-dc2");
    assert_eq!(mesh.greets("one.example.test").await, "far");
    far.deregister("a");
    mesh.told("a is gone", |routes| routes.route("a@consul-dc2").is_none())
        .await;
    assert_eq!(mesh.greets("one.example.test").await, "near");
}
