//! Checks that tags of a real Consul ask for: of an instance itself, and through a sidecar with the gateway's identity.

use serde_json::Value;

use tokio::io::AsyncReadExt;

use super::{Host, Mesh, Proxy, plain_tags, tagged, tags};
use crate::authority::Authority;
use crate::consul::{Consul, meshed};
use crate::upstream::Upstream;

/// These tags, and what asks for an answer that begins so.
fn expecting(mut tags: Vec<String>, name: &str, answer: &str) -> Vec<String> {
    let check = format!("traefik.tcp.services.{name}.loadbalancer.healthcheck");
    tags.push(format!("{check}=true"));
    tags.push(format!("{check}.interval=1s"));
    tags.push(format!("{check}.expect={answer}"));
    tags
}

/// Waits until the only endpoint of a route is in this state; gives the route.
async fn becomes(mesh: &Mesh, name: &str, state: &str) -> Value {
    let what = format!("{name} is {state}");
    let routes = mesh.told(&what, |routes| {
        let route = routes.route(name);
        route.is_some_and(|route| route["endpoints"][0]["check"] == state)
    });
    routes.await.route(name).unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_tags_ask_to_be_checked_is_checked_as_it_is_dialled() {
    let (vm, plain) = (Host::start("vm").await, Host::start("plain").await);
    let asked = tagged(
        "vm",
        vm.address,
        &expecting(tags("vm", "vm.example.test"), "vm", "vm"),
    );
    let before = Mesh::before(Proxy::BuiltIn, asked, Authority::new());
    let Some((mut mesh, sidecar)) = before.await else {
        return;
    };
    let route = becomes(&mesh, "vm@consul", "passing").await;
    assert_eq!(route["upstream"]["mesh"], true, "{route}");
    assert_eq!(mesh.greets("vm.example.test").await, "vm");

    let tags = plain_tags("plain", "plain.example.test");
    let register = |answer: &str| {
        let tags = expecting(tags.clone(), "plain", answer);
        mesh.consul.register(&tagged("plain", plain.address, &tags));
    };
    register("plain");
    becomes(&mesh, "plain@consul", "passing").await;
    register("nobody");
    let route = becomes(&mesh, "plain@consul", "failing").await;
    let why = route["endpoints"][0]["check_error"].as_str().unwrap();
    assert!(why.starts_with("it answered \"plain"), "{route}");
    // Nobody else is there to be tried.
    assert_eq!(mesh.greets("plain.example.test").await, "plain");

    drop(sidecar);
    becomes(&mesh, "vm@consul", "failing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_proves_to_be_another_service_fails_its_check_for_that_reason() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let host = Host::start("vm").await;
    // Its certificate is of the same mesh, and good for somebody else.
    let other = consul.leaf("other");
    let impostor = Upstream::tls(other.server(), |mut tls| async move {
        let _ = tls.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let asked = expecting(tags("vm", "vm.example.test"), "vm", "vm");
    let asked = tagged("vm", host.address, &asked);
    consul.register(&meshed(asked, impostor.address.port()));
    let mesh = Mesh::with(consul, "", "").await;
    let route = becomes(&mesh, "vm@consul", "failing").await;
    let why = route["endpoints"][0]["check_error"].as_str().unwrap();
    assert!(why.contains("svc/other"), "{route}");
    assert_eq!(host.dials(), 0);
}
