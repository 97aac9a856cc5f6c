//! Services of Consul where the configuration has a say: as upstreams of its routes, and without the mesh.

use serde_json::json;

use super::{Host, Mesh, at, configuration, plain_tags, tagged, tags};
use crate::consul::{Consul, meshed, service};
use crate::ports;

#[tokio::test(flavor = "multi_thread")]
async fn a_route_of_the_file_reaches_a_service_of_consul_with_the_mesh_and_without() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let host = Host::start("vm").await;
    consul.register(&meshed(service("vm", host.address, &[]), ports::free()));
    let sidecar = consul.builtin_sidecar("vm");
    let tables = r#"
        [routes.meshed]
        host = "meshed.example.test"
        upstream = "meshed"
        [routes.plain]
        host = "plain.example.test"
        upstream = "plain"
        [upstreams.meshed]
        service = "vm"
        [upstreams.plain]
        service = "vm"
        mesh = false
    "#;
    let mut mesh = Mesh::with(consul, "", tables).await;
    let routes = mesh.routes().await;
    assert_eq!(routes.endpoints("meshed"), [(sidecar.address, 1)]);
    assert_eq!(routes.endpoints("plain"), [(host.address, 1)]);
    let upstream = |route| &routes.route(route).unwrap()["upstream"];
    assert_eq!(upstream("meshed")["mesh"], true);
    assert_eq!(upstream("meshed")["spiffe"], mesh.consul.spiffe_id("vm"));
    assert_eq!(upstream("plain")["mesh"], false);
    assert_eq!(upstream("plain")["tls"], false);

    assert_eq!(mesh.greets("meshed.example.test").await, "vm");
    assert_eq!(mesh.greets("plain.example.test").await, "vm");

    // Nothing but the sidecar stands for the service where the mesh is asked for.
    drop(sidecar);
    let dials = host.dials();
    let record = mesh.refuses("meshed.example.test").await;
    assert_eq!(record["reason"], "dial_failed", "{record}");
    assert_eq!(host.dials(), dials);
    assert_eq!(mesh.greets("plain.example.test").await, "vm");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_routed_by_tags_under_our_own_prefix_too() {
    let Some(mut mesh) = Mesh::start().await else {
        return;
    };
    let host = Host::start("ours").await;
    let tags: Vec<String> = tags("ours", "ours.example.test")
        .iter()
        .map(|tag| tag.replace("traefik.", "portcullis."))
        .collect();
    let ours = tagged("ours", host.address, &tags);
    mesh.consul.register(&meshed(ours, ports::free()));
    let sidecar = mesh.consul.builtin_sidecar("ours");
    let route = mesh.route("ours@consul").await;
    assert_eq!(route["warnings"], json!([]), "{route}");
    assert_eq!(
        route["endpoints"][0]["address"],
        sidecar.address.to_string()
    );
    assert_eq!(mesh.greets("ours.example.test").await, "ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_ask_for_the_mesh_is_dialled_plainly_and_flagged() {
    let Some(mut mesh) = Mesh::start().await else {
        return;
    };
    let host = Host::start("plain").await;
    let tags = plain_tags("plain", "plain.example.test");
    let plain = tagged("plain", host.address, &tags);
    mesh.consul.register(&plain);
    let route = mesh.route("plain@consul").await;
    assert_eq!(route["upstream"]["mesh"], false, "{route}");
    let warnings = route["warnings"].to_string();
    assert!(warnings.contains("plain TCP"), "{route}");
    assert!(warnings.contains("consulcatalog.connect=true"), "{route}");
    assert_eq!(mesh.greets("plain.example.test").await, "plain");

    // A sidecar beside it changes nothing as long as the tags do not ask for it.
    mesh.consul.register(&meshed(plain, ports::free()));
    let sidecar = mesh.consul.builtin_sidecar("plain");
    assert_eq!(mesh.greets("plain.example.test").await, "plain");
    let routes = mesh.routes().await;
    assert_eq!(routes.endpoints("plain@consul"), [(host.address, 1)]);
    drop(sidecar);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_of_the_file_for_whatever_is_named_hides_those_of_tags_and_that_is_told() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let (own, theirs) = (Host::start("own").await, Host::start("theirs").await);
    let tags = plain_tags("vm", "vm.example.test");
    consul.register(&tagged("vm", theirs.address, &tags));
    let tags = plain_tags("wide", "*.example.test");
    consul.register(&tagged("wide", theirs.address, &tags));
    let tables = format!(
        "[routes.any]\nrule = \"HostSNIRegexp(`.+`)\"\nupstream = \"{}\"\n",
        own.address
    );
    let keys = at(&consul);
    let mut mesh = Mesh::with(consul, "", &tables).await;
    for name in ["vm@consul", "wide@consul"] {
        let route = mesh.route(name).await;
        let by = json!({ "source": "file", "name": "any" });
        assert_eq!(route["shadowed_by"], by, "{route}");
    }
    assert_eq!(mesh.greets("vm.example.test").await, "own");

    // One for what no other route takes leaves it alone.
    let text = configuration(
        &keys,
        &tables.replace("HostSNIRegexp(`.+`)", "HostSNI(`*`)"),
    );
    mesh.gateway.rewrite(&mesh.authority, &text);
    mesh.gateway.reload.done("a test").await.unwrap();
    let routes = mesh.routes().await;
    assert!(routes.route("vm@consul").unwrap()["shadowed_by"].is_null());
    assert_eq!(mesh.greets("vm.example.test").await, "theirs");
}
