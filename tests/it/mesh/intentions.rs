//! What becomes of a connection that an intention denies, and what the log makes of it.

use serde_json::Value;
use tokio::time::Instant;

use super::{Host, IDENTITY, Mesh, Proxy, routed};
use crate::authority::Authority;
use crate::support::PATIENCE;
use crate::vm::{Vm, Way, end};

const NAME: &str = "vm.example.test";

#[tokio::test(flavor = "multi_thread")]
async fn an_ssh_that_envoy_ends_at_its_first_byte_is_told_as_a_possible_denial() {
    let authority = Authority::new();
    let Some(vm) = Vm::start(NAME, &authority).await else {
        return;
    };
    let service = routed("vm", NAME, vm.address);
    let Some((mut mesh, _sidecar)) = Mesh::before(Proxy::Envoy, service, authority).await else {
        return;
    };
    let person = vm.person(Way::Connect, mesh.gateway.address);
    person.succeeds(person.ssh("true"), b"").await;
    let record = mesh.gateway.ended().await;
    assert_eq!(record["reason"], "closed", "{record}");

    mesh.consul.intend(IDENTITY, "vm", false);
    // Envoy hears of it a moment later.
    let late = Instant::now() + PATIENCE;
    let denied = loop {
        let done = end(person.ssh("true"), b"").await;
        let record = mesh.gateway.ended().await;
        if !done.status.success() {
            break record;
        }
        assert_eq!(record["reason"], "closed", "{record}");
        assert!(Instant::now() < late, "the intention has no effect");
    };
    assert_eq!(denied["reason"], "possible_intention_denial", "{denied}");
    assert_eq!(denied["fault"], "upstream", "{denied}");
    names_both_sides(&denied);
    // sshd's banner, unless ssh was faster with its own: Envoy ends at the first byte of a client.
    assert!(denied["bytes_down"].as_u64().unwrap() < 100, "{denied}");

    mesh.consul.intend(IDENTITY, "vm", true);
    let late = Instant::now() + PATIENCE;
    while !end(person.ssh("true"), b"").await.status.success() {
        let record = mesh.gateway.ended().await;
        assert_eq!(record["reason"], "possible_intention_denial", "{record}");
        assert!(Instant::now() < late, "the intention has no effect");
    }
    let record = mesh.gateway.ended().await;
    assert_eq!(record["reason"], "closed", "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn consuls_built_in_sidecar_refuses_whom_an_intention_denies_and_the_log_hints_at_it() {
    let host = Host::start("vm").await;
    let service = routed("vm", NAME, host.address);
    let scene = Mesh::before(Proxy::BuiltIn, service, Authority::new()).await;
    let Some((mut mesh, _sidecar)) = scene else {
        return;
    };
    assert_eq!(mesh.greets(NAME).await, "vm");

    mesh.consul.intend(IDENTITY, "vm", false);
    let late = Instant::now() + PATIENCE;
    while let Ok(tunnel) = mesh.open(NAME).await {
        tunnel.end().await;
        mesh.gateway.ended().await;
        assert!(Instant::now() < late, "the intention has no effect");
    }
    let denied = mesh.gateway.ended().await;
    assert_eq!(denied["reason"], "upstream_tls", "{denied}");
    let detail = denied["detail"].as_str().unwrap();
    assert!(detail.contains("intention"), "{denied}");
    names_both_sides(&denied);

    mesh.consul.intend(IDENTITY, "vm", true);
    let late = Instant::now() + PATIENCE;
    while mesh.open(NAME).await.is_err() {
        assert!(Instant::now() < late, "the intention has no effect");
    }
}

/// Who may not reach whom: with that an operator finds the intention.
fn names_both_sides(record: &Value) {
    let detail = record["detail"].as_str().unwrap();
    for side in [IDENTITY, "vm"] {
        assert!(detail.contains(side), "{side} is not named: {detail}");
    }
}
