//! Services that speak for themselves in the mesh, as native ones do: with the certificate that Consul gave them.

use serde_json::{Value, json};

use super::{Mesh, Speaker, routed};
use crate::consul::Consul;

const NAME: &str = "vm.example.test";

/// A service that is registered as native, with what listens there.
fn native(speaker: &Speaker) -> Value {
    let mut service = routed("vm", NAME, speaker.address());
    service["Connect"] = json!({ "Native": true });
    service
}

#[tokio::test(flavor = "multi_thread")]
async fn a_native_service_is_reached_with_its_own_certificate_and_refused_with_anothers() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let own = Speaker::start("native", &consul.leaf("vm")).await;
    consul.register(&native(&own));
    let mut mesh = Mesh::with(consul, "", "").await;
    let route = mesh.route("vm@consul").await;
    assert_eq!(route["upstream"]["spiffe"], mesh.consul.spiffe_id("vm"));
    assert_eq!(route["warnings"], json!([]), "{route}");
    assert_eq!(mesh.greets(NAME).await, "native");
    assert_eq!(own.clients(), [mesh.consul.spiffe_id(super::IDENTITY)]);

    let other = Speaker::start("another", &mesh.consul.leaf("other")).await;
    mesh.consul.register(&native(&other));
    mesh.told("it has moved", |routes| {
        routes.endpoints("vm@consul") == [(other.address(), 1)]
    })
    .await;
    let record = mesh.refuses(NAME).await;
    assert_eq!(record["reason"], "upstream_identity", "{record}");
    let detail = record["detail"].as_str().unwrap();
    assert!(detail.contains("svc/other"), "{detail}");
    assert_eq!(record["bytes_up"], 0, "{record}");
    assert!(other.clients().is_empty(), "it was believed");
}
