//! Where instances are dialled that are registered otherwise than with a plain address, with a real Consul.

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::{Host, Mesh, at, configuration, plain_tags, tagged};
use crate::consul::Consul;
use crate::upstream::{Upstream, echo};

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_name_is_resolved_and_a_tagged_address_is_dialled_where_that_is_wanted() {
    let Some(consul) = Consul::strict() else {
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

/// Whoever registers may write the keys in either case; Consul answers in its own.
#[tokio::test(flavor = "multi_thread")]
async fn the_wan_address_is_dialled_where_that_is_wanted_with_its_own_port_or_the_services() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let (one, two) = (Host::start("one").await, Host::start("two").await);
    let nowhere = "127.0.0.1:1".parse().unwrap();
    let mut own_port = tagged("one", nowhere, &plain_tags("one", "one.example.test"));
    own_port["TaggedAddresses"] =
        json!({ "wan": { "address": "127.0.0.1", "port": one.address.port() } });
    consul.register(&own_port);
    let mut its_port = tagged("two", two.address, &plain_tags("two", "two.example.test"));
    its_port["Address"] = json!("192.0.2.1");
    its_port["TaggedAddresses"] = json!({
        "wan_ipv4": { "Address": "192.0.2.2", "Port": 1 },
        "wan": { "Address": "127.0.0.1", "Port": 0 },
    });
    consul.register(&its_port);
    let mut mesh = Mesh::with(consul, "tagged_address = \"wan\"\n", "").await;
    for name in ["one", "two"] {
        mesh.route(&format!("{name}@consul")).await;
        assert_eq!(mesh.greets(&format!("{name}.example.test")).await, name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_with_an_ipv6_address_is_dialled() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        return println!("skipped: this machine has no IPv6");
    };
    let Some(consul) = Consul::strict() else {
        return;
    };
    let host = Upstream::on(listener, |mut tcp| async move {
        if tcp.write_all(b"six\n").await.is_ok() {
            echo(tcp).await;
        }
    });
    let tags = plain_tags("six", "six.example.test");
    consul.register(&tagged("six", host.address, &tags));
    let mut mesh = Mesh::with(consul, "", "").await;
    mesh.route("six@consul").await;
    assert_eq!(
        mesh.routes().await.endpoints("six@consul"),
        [(host.address, 1)]
    );
    assert_eq!(mesh.greets("six.example.test").await, "six");
}
