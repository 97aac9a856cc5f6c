//! The rights of the gateway's ACL token: what is missing is told, and what they hide stays hidden.

use super::{Host, IDENTITY, Mesh, at, plain_tags, routed, tagged};
use crate::authority::Authority;
use crate::consul::{Consul, Options, Sidecar, meshed};
use crate::ports;

const NAME: &str = "vm.example.test";

const IDENTITY_RIGHT: &str = r#"service "portcullis" { policy = "write" }"#;
const SERVICES: &str = r#"service_prefix "" { policy = "read" }"#;
const NODES: &str = r#"node_prefix "" { policy = "read" }"#;

/// A gateway with these rights, and the service that it is to route.
async fn with(rights: &[&str]) -> Option<(Mesh, Host, Sidecar)> {
    let consul = Consul::start_with(Options {
        acl: true,
        ..Options::default()
    })?;
    let host = Host::start("vm").await;
    consul.register(&meshed(routed("vm", NAME, host.address), ports::free()));
    let sidecar = consul.builtin_sidecar("vm");
    consul.intend(IDENTITY, "vm", true);
    let authority = Authority::new();
    authority.write("token", &consul.token(&rights.join("\n")));
    let keys = at(&consul) + "token_file = \"token\"";
    let mesh = Mesh::starting(authority, consul, &keys, "").await;
    Some((mesh, host, sidecar))
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_be_its_service_that_is_told() {
    let Some((mesh, _host, _sidecar)) = with(&[SERVICES, NODES]).await else {
        return;
    };
    mesh.readyz_says("the token needs service:write on `portcullis`")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_rights_on_prefixes_hide_is_not_routed_and_all_else_is() {
    let services = r#"service_prefix "vm" { policy = "read" }"#;
    let rights = [IDENTITY_RIGHT, services, NODES];
    let Some((mut mesh, host, _sidecar)) = with(&rights).await else {
        return;
    };
    let hidden = plain_tags("secret", "secret.example.test");
    mesh.consul
        .register(&tagged("secret", host.address, &hidden));
    mesh.is_ready().await;
    assert_eq!(mesh.greets(NAME).await, "vm");
    let seen = plain_tags("vm2", "vm2.example.test");
    mesh.consul.register(&tagged("vm2", host.address, &seen));
    mesh.route("vm2@consul").await;
    assert!(mesh.routes().await.route("secret@consul").is_none());
    let record = mesh.refuses("secret.example.test").await;
    assert_eq!(record["reason"], "unknown_name", "{record}");
}
