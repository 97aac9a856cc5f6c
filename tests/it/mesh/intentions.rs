//! What becomes of a connection that an intention denies, and what the log makes of it.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::Instant;

use super::{Host, IDENTITY, Mesh, Proxy, Routes, at, routed};
use crate::authority::Authority;
use crate::consul::{Consul, ITSELF, NODES, RIGHTS, meshed};
use crate::ports;
use crate::support::PATIENCE;
use crate::vm::{Vm, Way, end};

const NAME: &str = "vm.example.test";

/// What keeps the gateway from the service.
#[derive(Clone, Copy)]
enum Denial {
    /// An intention that says so, where all is allowed that none denies.
    Said,
    /// That none allows it, where that is needed.
    Unsaid,
}

impl Denial {
    /// The gateway may reach the service, until [`Self::begin`].
    fn prepare(self, consul: &Consul) {
        if let Self::Unsaid = self {
            consul.intend(IDENTITY, "vm", true);
            consul.deny_by_default();
        }
    }

    fn begin(self, consul: &Consul) {
        match self {
            Self::Said => consul.intend(IDENTITY, "vm", false),
            Self::Unsaid => consul.forget_intentions("vm"),
        }
    }
}

/// As in a cluster without ACLs.
#[tokio::test(flavor = "multi_thread")]
async fn a_banner_and_the_end_that_envoy_makes_of_it_are_told_as_a_possible_denial() {
    a_banner_and_its_end_are_told(Consul::start(), Denial::Said).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_they_are_where_no_intention_allows_what_acls_deny_by_default() {
    a_banner_and_its_end_are_told(Consul::strict(), Denial::Unsaid).await;
}

/// A client that speaks at once, as ssh does, may be ended before sshd's banner has come or after.
async fn a_banner_and_its_end_are_told(consul: Option<Consul>, denial: Denial) {
    let authority = Authority::new();
    let (Some(consul), Some(vm)) = (consul, Vm::start(NAME, &authority).await) else {
        return;
    };
    denial.prepare(&consul);
    let service = routed("vm", NAME, vm.address);
    let scene = Mesh::beside(consul, Proxy::Envoy, service, authority).await;
    let Some((mut mesh, _sidecar)) = scene else {
        return;
    };
    let person = vm.person(Way::Connect, mesh.gateway.address);
    person.succeeds(person.ssh("true"), b"").await;
    let record = mesh.gateway.ended().await;
    assert_eq!(record["reason"], "closed", "{record}");

    denial.begin(&mesh.consul);
    // Envoy hears of it a moment later.
    let late = Instant::now() + PATIENCE;
    while end(person.ssh("true"), b"").await.status.success() {
        mesh.gateway.ended().await;
        assert!(Instant::now() < late, "the intention has no effect");
    }
    mesh.gateway.ended().await;
    // What a person reads, and what whoever runs the gateway does.
    for way in [Way::Connect, Way::SClient] {
        let person = vm.person(way, mesh.gateway.address);
        let ended = end(person.ssh("true"), b"").await;
        let read = String::from_utf8_lossy(&ended.stderr).into_owned();
        println!("ssh by {way:?}, which an intention denies:\n{read}");
        assert_eq!(ended.status.code(), Some(255), "{read}");
        let is_closed = ["Connection closed", "Connection reset"];
        assert!(is_closed.iter().any(|text| read.contains(text)), "{read}");
        let denied = mesh.gateway.ended().await;
        assert_eq!(denied["reason"], "possible_intention_denial", "{denied}");
        names_both_sides(&denied);
    }

    let tls = mesh.gateway.connect_tls(&mesh.client, NAME).await.unwrap();
    let mut tls = BufReader::new(tls);
    let mut banner = String::new();
    tls.read_line(&mut banner).await.unwrap();
    assert!(banner.starts_with("SSH-2.0-"), "{banner}");
    tls.write_all(b"SSH-2.0-somebody\r\n").await.unwrap();
    tls.flush().await.unwrap();
    let rest = tls.read_to_end(&mut Vec::new()).await;
    assert!(matches!(rest, Ok(0) | Err(_)), "{rest:?}");
    drop(tls);
    let denied = mesh.gateway.ended().await;
    assert_eq!(denied["reason"], "possible_intention_denial", "{denied}");
    assert_eq!(denied["fault"], "upstream", "{denied}");
    names_both_sides(&denied);

    mesh.consul.intend(IDENTITY, "vm", true);
    let late = Instant::now() + PATIENCE;
    while !end(person.ssh("true"), b"").await.status.success() {
        mesh.gateway.ended().await;
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

/// What a person reads, too: the end before any banner, and not the banner of a host that then is gone.
#[tokio::test(flavor = "multi_thread")]
async fn what_consul_says_is_denied_is_refused_before_a_banner_and_served_again_when_it_is_allowed()
{
    let authority = Authority::new();
    let Some(vm) = Vm::start(NAME, &authority).await else {
        return;
    };
    let Some(consul) = Consul::strict() else {
        return;
    };
    consul.register(&meshed(routed("vm", NAME, vm.address), ports::free()));
    let Some(_sidecar) = consul.envoy_sidecar("vm") else {
        return;
    };
    consul.deny_by_default();
    let keys = at(&consul) + "check_intentions = true\n";
    let mut mesh = Mesh::starting(authority, consul, &keys, "").await;
    mesh.is_ready().await;
    mesh.told("vm is denied", is_denied).await;
    let person = vm.person(Way::Connect, mesh.gateway.address);
    let ended = end(person.ssh("true"), b"").await;
    assert!(!ended.status.success());
    let read = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(read.contains("closed"), "{read}");
    let record = mesh.gateway.ended().await;
    assert_eq!(record["reason"], "denied_by_intention", "{record}");
    assert_eq!(record["bytes_down"], 0, "{record}");
    names_both_sides(&record);

    mesh.consul.intend(IDENTITY, "vm", true);
    mesh.told("vm is allowed", |routes| !is_denied(routes))
        .await;
    let late = Instant::now() + PATIENCE;
    // Envoy may hear of it later.
    while !end(person.ssh("true"), b"").await.status.success() {
        assert!(Instant::now() < late, "the intention has no effect");
    }
    let (_, parts) = mesh.gateway.ask_admin("/readyz").await;
    assert!(parts.contains("intentions"), "{parts}");
}

/// Consul's own answer, or none: what may not be asked is no denial.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_may_not_ask_is_told_of_and_never_a_denial() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    consul.deny_by_default();
    let host = Host::start("vm").await;
    consul.register(&meshed(routed("vm", NAME, host.address), ports::free()));
    let _sidecar = consul.builtin_sidecar("vm");
    consul.intend(IDENTITY, "vm", false);
    let token = consul.token(&RIGHTS.join("\n"));
    let keys = consul.way() + &format!("token = \"{token}\"\ncheck_intentions = true\n");
    let mut mesh = Mesh::starting(Authority::new(), consul, &keys, "").await;
    mesh.is_ready().await;
    mesh.told("vm is denied", is_denied).await;
    assert_eq!(mesh.refuses(NAME).await["reason"], "denied_by_intention");

    // What is known of the service stays, as it is only hidden; the denial is one that nobody confirms.
    let rights = [ITSELF, NODES].join("\n");
    mesh.consul.change_rights(&token, &rights);
    mesh.readyz_says("intentions degraded: ").await;
    mesh.readyz_says("(its ACL token needs service:read on \"vm\")")
        .await;
    mesh.told("its sidecar decides", |routes| !is_denied(routes))
        .await;
    let record = mesh.refuses(NAME).await;
    assert_eq!(record["reason"], "upstream_tls", "{record}");
    assert_eq!(mesh.gateway.ask_admin("/readyz").await.0, 200);

    mesh.consul.intend(IDENTITY, "vm", true);
    let late = Instant::now() + PATIENCE;
    while mesh.open(NAME).await.is_err() {
        assert!(Instant::now() < late, "it is not served");
    }
    let (_, parts) = mesh.gateway.ask_admin("/readyz").await;
    assert!(parts.contains("intentions degraded: "), "{parts}");
}

fn is_denied(routes: &Routes) -> bool {
    let route = routes.route("vm@consul").map(|route| &route["warnings"]);
    route.is_some_and(|warnings| warnings.to_string().contains("denied by intention"))
}

/// Who may not reach whom: with that an operator finds the intention.
fn names_both_sides(record: &Value) {
    let detail = record["detail"].as_str().unwrap();
    for side in [IDENTITY, "vm"] {
        assert!(detail.contains(side), "{side} is not named: {detail}");
    }
}
