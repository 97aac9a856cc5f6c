//! Sidecars that are registered by themselves: several of a service, under any name and id.

use serde_json::{Value, json};

use super::{Mesh, Speaker, routed};
use crate::consul::Consul;

const NAME: &str = "vm.example.test";

/// A proxy of `vm` that is called so, beside the instance of this id or none that it tells.
fn proxy(name: &str, id: &str, beside: Option<&str>, speaker: &Speaker) -> Value {
    let mut proxy = json!({
        "Kind": "connect-proxy",
        "Name": name,
        "ID": id,
        "Address": "127.0.0.1",
        "Port": speaker.address().port(),
        "Proxy": { "DestinationServiceName": "vm" },
        "Check": { "TTL": "1h", "Status": "passing" },
    });
    if let Some(beside) = beside {
        proxy["Proxy"]["DestinationServiceID"] = json!(beside);
    }
    proxy
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sidecar_of_a_service_is_dialled_whatever_it_is_called_and_none_is_routed() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let leaf = consul.leaf("vm");
    let [first, second, third] = [
        Speaker::start("first", &leaf).await,
        Speaker::start("second", &leaf).await,
        Speaker::start("third", &leaf).await,
    ];
    // Nobody listens where the service itself is said to be.
    let mut service = routed("vm", NAME, "127.0.0.1:1".parse().unwrap());
    service["ID"] = json!("vm-of-today");
    consul.register(&service);
    let beside = Some("vm-of-today");
    consul.register(&proxy("front", "front-7", beside, &first));
    consul.register(&proxy("front", "front-8", beside, &second));
    consul.register(&proxy("vm-sidecar-proxy", "other", None, &third));

    let mut mesh = Mesh::with(consul, "", "").await;
    let all = [&first, &second, &third];
    let mut addresses = all.map(|speaker| (speaker.address(), 1));
    addresses.sort_unstable();
    let routes = mesh.told("all are known", |routes| {
        routes.endpoints("vm@consul") == addresses
    });
    let routes = routes.await;
    let names: Vec<_> = (routes.0["routes"].as_array().unwrap().iter())
        .map(|route| route["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["vm@consul"], "a sidecar is no service");
    let mut greetings = Vec::new();
    for _ in 0..6 {
        greetings.push(mesh.greets(NAME).await);
    }
    greetings.sort_unstable();
    assert_eq!(
        greetings,
        ["first", "first", "second", "second", "third", "third"]
    );

    // Those that stand beside the instance go with it; of the third nobody knows whose it is.
    mesh.consul.service_maintenance("vm-of-today", true);
    mesh.told("one is left", |routes| {
        routes.endpoints("vm@consul") == [(third.address(), 1)]
    })
    .await;
    assert_eq!(mesh.greets(NAME).await, "third");
    mesh.consul.deregister("other");
    mesh.told("none is left", |routes| {
        routes.endpoints("vm@consul").is_empty()
    })
    .await;
    let record = mesh.refuses(NAME).await;
    assert_eq!(record["reason"], "no_healthy_upstream", "{record}");
    assert!(
        record["detail"].to_string().contains("maintenance"),
        "{record}"
    );
}

/// Its address is one that only a transparent proxy knows the way to.
#[tokio::test(flavor = "multi_thread")]
async fn the_virtual_address_of_a_service_is_never_dialled() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let speaker = Speaker::start("vm", &consul.leaf("vm")).await;
    consul.register(&routed("vm", NAME, "127.0.0.1:1".parse().unwrap()));
    consul.register(&proxy("front", "front-7", Some("vm"), &speaker));
    let listed = consul.get("/v1/health/connect/vm");
    let tagged = &listed[0]["Service"]["TaggedAddresses"]["consul-virtual"];
    let address = tagged["Address"].as_str().unwrap();
    assert!(address.starts_with("240."), "{listed}");

    let mut mesh = Mesh::with(consul, "tagged_address = \"wan\"\n", "").await;
    mesh.route("vm@consul").await;
    assert_eq!(
        mesh.routes().await.endpoints("vm@consul"),
        [(speaker.address(), 1)]
    );
    assert_eq!(mesh.greets(NAME).await, "vm");
}
