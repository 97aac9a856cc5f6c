//! When the gateway says that it should get traffic: with Consul's services and its own identity, and not before.

use tokio::time::{Instant, sleep};

use super::{Host, Mesh, POLL, at, routed};
use crate::authority::Authority;
use crate::consul::{Consul, meshed};
use crate::ports;
use crate::support::PATIENCE;

const NAME: &str = "vm.example.test";

#[tokio::test(flavor = "multi_thread")]
async fn it_is_not_ready_before_consul_answers_and_has_its_routes_when_it_is() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let host = Host::start("vm").await;
    consul.register(&meshed(routed("vm", NAME, host.address), ports::free()));
    let _sidecar = consul.builtin_sidecar("vm");
    consul.freeze();
    let keys = at(&consul);
    let mut mesh = Mesh::starting(Authority::new(), consul, &keys, "").await;
    waits(&mesh).await;
    let record = mesh.refuses(NAME).await;
    assert_eq!(record["reason"], "unknown_name", "{record}");

    mesh.consul.thaw();
    mesh.is_ready().await;
    assert_eq!(mesh.greets(NAME).await, "vm");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_starts_before_consul_is_ready_when_consul_is() {
    let Some(mut consul) = Consul::strict() else {
        return;
    };
    consul.kill();
    let keys = at(&consul);
    let mut mesh = Mesh::starting(Authority::new(), consul, &keys, "").await;
    waits(&mesh).await;

    mesh.consul.restart();
    mesh.is_ready().await;
    let host = Host::start("vm").await;
    let service = meshed(routed("vm", NAME, host.address), ports::free());
    mesh.consul.register(&service);
    let _sidecar = mesh.consul.builtin_sidecar("vm");
    mesh.route("vm@consul").await;
    assert_eq!(mesh.greets(NAME).await, "vm");
}

/// Waits until both parts say that they wait for Consul, and the gateway so that it should get no traffic.
async fn waits(mesh: &Mesh) {
    let late = Instant::now() + PATIENCE;
    loop {
        let (status, parts) = mesh.gateway.ask_admin("/readyz").await;
        assert_eq!(status, 503, "{parts}");
        let says = |part: &str| parts.contains(&format!("{part} not ready: "));
        if says("consul") && says("mesh identity") {
            return;
        }
        assert!(Instant::now() < late, "{parts}");
        sleep(POLL).await;
    }
}
