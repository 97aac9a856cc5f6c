//! Where instances are dialled that are registered otherwise than with a plain address, with a real Consul.

use serde_json::json;

use super::{Host, Mesh, at, configuration, plain_tags, tagged};
use crate::consul::Consul;

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_name_is_resolved_and_a_tagged_address_is_dialled_where_that_is_wanted() {
    let Some(consul) = Consul::start() else {
        return;
    };
    let (named, lan) = (Host::start("named").await, Host::start("lan").await);
    let mut by_name = tagged(
        "named",
        named.address,
        &plain_tags("named", "named.example.test"),
    );
    by_name["Address"] = json!("localhost");
    consul.register(&by_name);
    // Nobody listens at its plain address.
    let nowhere = "127.0.0.1:1".parse().unwrap();
    let mut by_tag = tagged("lan", nowhere, &plain_tags("lan", "lan.example.test"));
    by_tag["TaggedAddresses"] =
        json!({ "lan": { "Address": "127.0.0.1", "Port": lan.address.port() } });
    consul.register(&by_tag);

    let mut mesh = Mesh::with(consul, "tagged_address = \"lan\"\n", "").await;
    mesh.route("lan@consul").await;
    assert_eq!(mesh.greets("lan.example.test").await, "lan");
    // The name stands for this machine.
    let told = mesh.told("the name is known", |routes| {
        routes.route("named@consul").is_some()
    });
    let empty = told.await.route("named@consul").unwrap()["upstream"]["empty"].to_string();
    assert!(empty.contains("localhost"), "{empty}");

    let keys = at(&mesh.consul) + "tagged_address = \"lan\"\nallow_local_addresses = true\n";
    let text = configuration(&keys, "");
    mesh.gateway.rewrite(&mesh.authority, &text);
    mesh.gateway.reload.done("a test").await.unwrap();
    mesh.route("named@consul").await;
    assert_eq!(mesh.greets("named.example.test").await, "named");
}
