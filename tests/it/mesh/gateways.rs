//! Services outside the mesh, which a terminating gateway speaks for.

use std::net::SocketAddr;

use serde_json::json;

use super::{Host, Mesh, Speaker, tags};
use crate::consul::Consul;
use crate::ports;

/// The service by which the gateway is known.
const GATEWAY: &str = "egress";

/// Registers a service of a machine that has no agent, as whoever is outside the mesh is.
fn outside(consul: &Consul, name: &str, address: SocketAddr) {
    let service = json!({
        "Node": "elsewhere",
        "Address": "127.0.0.1",
        "Service": {
            "ID": name,
            "Service": name,
            "Address": address.ip(),
            "Port": address.port(),
            "Tags": tags(name, &format!("{name}.example.test")),
        },
    });
    consul.put("/v1/catalog/register", &service);
}

/// Lets the gateway speak for these.
fn link(consul: &Consul, services: &[&str]) {
    let services: Vec<_> = (services.iter())
        .map(|name| json!({ "Name": name }))
        .collect();
    let entry = json!({ "Kind": "terminating-gateway", "Name": GATEWAY, "Services": services });
    consul.put("/v1/config", &entry);
}

#[tokio::test(flavor = "multi_thread")]
async fn services_outside_are_reached_through_envoy_which_shows_the_certificate_of_each() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let (db, ldap) = (Host::start("db").await, Host::start("ldap").await);
    outside(&consul, "db", db.address);
    outside(&consul, "ldap", ldap.address);
    link(&consul, &["db", "ldap"]);
    consul.register_gateway(GATEWAY, ports::free());
    let Some(envoy) = consul.envoy_gateway(GATEWAY) else {
        return;
    };
    let listed = consul.get("/v1/health/connect/db");
    assert_eq!(listed[0]["Service"]["Kind"], "terminating-gateway");

    let mut mesh = Mesh::with(consul, "", "").await;
    for name in ["db", "ldap"] {
        let route = mesh.route(&format!("{name}@consul")).await;
        // It has one address for both: the name in TLS tells it which is meant, and that one it proves to be.
        assert_eq!(route["upstream"]["spiffe"], mesh.consul.spiffe_id(name));
        assert_eq!(
            mesh.routes().await.endpoints(&format!("{name}@consul")),
            [(envoy.address, 1)]
        );
        assert_eq!(mesh.greets(&format!("{name}.example.test")).await, name);
    }
    assert!(mesh.routes().await.route("egress@consul").is_none());
    assert_eq!((db.dials(), ldap.dials()), (1, 1));

    // What it no longer speaks for is not dialled around it.
    link(&mesh.consul, &["ldap"]);
    mesh.told("it is nobody's", |routes| {
        routes.endpoints("db@consul").is_empty()
    })
    .await;
    let record = mesh.refuses("db.example.test").await;
    assert_eq!(record["bytes_up"], 0, "{record}");
    assert_eq!(mesh.greets("ldap.example.test").await, "ldap");
    assert_eq!(db.dials(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_does_not_prove_to_be_the_service_that_is_meant_is_refused() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let db = Host::start("db").await;
    outside(&consul, "db", db.address);
    link(&consul, &["db"]);
    // It shows its own certificate.
    let gateway = Speaker::start("gateway", &consul.leaf(GATEWAY)).await;
    consul.register_gateway(GATEWAY, gateway.address().port());
    let mut mesh = Mesh::with(consul, "", "").await;
    mesh.route("db@consul").await;
    let record = mesh.refuses("db.example.test").await;
    assert_eq!(record["reason"], "upstream_identity", "{record}");
    let detail = record["detail"].as_str().unwrap();
    assert!(
        detail.contains("svc/egress") && detail.contains("svc/db"),
        "{detail}"
    );
    assert!(gateway.clients().is_empty(), "it was believed");
    assert_eq!(db.dials(), 0);
}
