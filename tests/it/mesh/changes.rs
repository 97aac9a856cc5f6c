//! What changes in Consul changes here, in `/v1/routes` and on the wire; what is connected stays so.

use std::net::SocketAddr;

use serde_json::json;

use super::{Host, Mesh, at, configuration, plain_tags, routed, tagged};
use crate::consul::{Consul, Status, meshed};
use crate::gateway::Gateway;
use crate::ports;

#[tokio::test(flavor = "multi_thread")]
async fn a_service_comes_moves_to_another_host_and_goes() {
    let Some(mut mesh) = Mesh::start().await else {
        return;
    };
    let host = Host::start("vm").await;
    // When the last service goes, it is doubted whether that is so: this one stays.
    let other = plain_tags("other", "other.example.test");
    let other = tagged("other", host.address, &other);
    mesh.consul.register(&other);
    let record = mesh.refuses("a.example.test").await;
    assert_eq!(record["reason"], "unknown_name", "{record}");

    let port = ports::free();
    let service = meshed(routed("vm", "a.example.test", host.address), port);
    mesh.consul.register(&service);
    let _sidecar = mesh.consul.builtin_sidecar("vm");
    let route = mesh.route("vm@consul").await;
    assert_eq!(route["rule"], "HostSNI(`a.example.test`)");
    let mut tunnel = mesh.open("a.example.test").await.unwrap();
    tunnel.is_alive().await;

    let service = meshed(routed("vm", "b.example.test", host.address), port);
    mesh.consul.register(&service);
    mesh.told("the host has moved", |routes| {
        let route = routes.route("vm@consul");
        route.is_some_and(|route| route["rule"] == "HostSNI(`b.example.test`)")
    })
    .await;
    let record = mesh.refuses("a.example.test").await;
    assert_eq!(record["reason"], "unknown_name", "{record}");
    assert_eq!(mesh.greets("b.example.test").await, "vm");
    tunnel.is_alive().await;

    mesh.consul.deregister("vm");
    mesh.told("the route is gone", |routes| {
        routes.route("vm@consul").is_none()
    })
    .await;
    let record = mesh.refuses("b.example.test").await;
    assert_eq!(record["reason"], "unknown_name", "{record}");
    tunnel.is_alive().await;

    mesh.consul.register(&service);
    mesh.route("vm@consul").await;
    assert_eq!(mesh.greets("b.example.test").await, "vm");
    tunnel.is_alive().await;
    tunnel.end().await;
    assert_eq!(mesh.gateway.ended().await["reason"], "closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_maintenance_or_critical_keeps_its_route_and_gets_no_new_connection() {
    let Some(mut mesh) = Mesh::start().await else {
        return;
    };
    let host = Host::start("vm").await;
    let service = routed("vm", "vm.example.test", host.address);
    mesh.consul.register(&meshed(service, ports::free()));
    let _sidecar = mesh.consul.builtin_sidecar("vm");
    mesh.route("vm@consul").await;
    let mut tunnel = mesh.open("vm.example.test").await.unwrap();

    for (out, why) in [
        (Out::Service, "maintenance"),
        (Out::Node, "maintenance"),
        (Out::Check, "critical"),
        (Out::NodeCheck, "critical"),
    ] {
        out.set(&mesh.consul, true);
        // The check of the sidecar may follow first, and says only that something is critical.
        mesh.told(why, |routes| {
            let upstream = &routes.route("vm@consul").unwrap()["upstream"];
            let empty = upstream["empty"].as_str();
            empty.is_some_and(|empty| empty.contains(why))
                && routes.endpoints("vm@consul").is_empty()
        })
        .await;
        let dials = host.dials();
        let record = mesh.refuses("vm.example.test").await;
        assert_eq!(record["reason"], "no_healthy_upstream", "{record}");
        assert!(record["detail"].to_string().contains(why), "{record}");
        assert_eq!(host.dials(), dials);
        tunnel.is_alive().await;

        out.set(&mesh.consul, false);
        mesh.route("vm@consul").await;
        assert_eq!(mesh.greets("vm.example.test").await, "vm");
        tunnel.is_alive().await;
    }

    // A warning takes nothing away.
    mesh.consul.set_status("vm", Status::Warning);
    assert_eq!(mesh.greets("vm.example.test").await, "vm");
    tunnel.is_alive().await;
    tunnel.end().await;
}

/// What takes an instance out of service.
#[derive(Clone, Copy)]
enum Out {
    /// Its own maintenance.
    Service,
    /// That of its node.
    Node,
    /// A check that fails.
    Check,
    /// A check of its node that fails, which is one of no service.
    NodeCheck,
}

impl Out {
    fn set(self, consul: &Consul, out: bool) {
        match self {
            Self::Service => consul.service_maintenance("vm", out),
            Self::Node => consul.node_maintenance(out),
            Self::Check if out => consul.set_status("vm", Status::Critical),
            Self::Check => consul.set_status("vm", Status::Passing),
            Self::NodeCheck if out => consul.set_node_check("disk", Status::Critical),
            Self::NodeCheck => consul.set_node_check("disk", Status::Passing),
        }
    }
}

/// Behind the wider name anybody may stand: who asks for one service is never given another.
#[tokio::test(flavor = "multi_thread")]
async fn while_all_instances_of_a_service_are_critical_no_client_of_it_comes_to_a_wildcard_beside_it()
 {
    let Some(mut mesh) = Mesh::start().await else {
        return;
    };
    let (host, wide) = (Host::start("vm").await, Host::start("wide").await);
    let mut sidecars = Vec::new();
    for id in ["one", "two"] {
        let mut instance = routed("vm", "vm.example.test", host.address);
        instance["ID"] = json!(id);
        let mut instance = meshed(instance, ports::free());
        instance["Connect"]["SidecarService"]["Checks"][0]["AliasService"] = json!(id);
        mesh.consul.register(&instance);
        sidecars.push(mesh.consul.builtin_sidecar(id));
    }
    let wildcard = plain_tags("wide", "*.example.test");
    let wildcard = tagged("wide", wide.address, &wildcard);
    mesh.consul.register(&wildcard);
    mesh.route("wide@consul").await;
    mesh.route("vm@consul").await;
    assert_eq!(mesh.greets("vm.example.test").await, "vm");
    assert_eq!(mesh.greets("other.example.test").await, "wide");

    let dials = wide.dials();
    for id in ["one", "two"] {
        mesh.consul.set_status(id, Status::Critical);
    }
    mesh.told("none is left", |routes| {
        routes.endpoints("vm@consul").is_empty()
    })
    .await;
    // So it is for a gateway that has never known it otherwise.
    let text = configuration(&at(&mesh.consul), "");
    let other = Gateway::start(&mesh.authority, &text).await;
    for gateway in [None, Some(other)] {
        if let Some(gateway) = gateway {
            mesh.gateway = gateway;
            mesh.is_ready().await;
        }
        for _ in 0..3 {
            let record = mesh.refuses("vm.example.test").await;
            assert_eq!(record["reason"], "no_healthy_upstream", "{record}");
            assert_eq!(record["route"], "vm@consul", "{record}");
            assert!(
                record["detail"].to_string().contains("critical"),
                "{record}"
            );
        }
    }
    assert_eq!(wide.dials(), dials);
    assert_eq!(mesh.greets("other.example.test").await, "wide");

    mesh.consul.set_status("two", Status::Passing);
    mesh.route("vm@consul").await;
    assert_eq!(mesh.greets("vm.example.test").await, "vm");
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_share_new_connections_by_weights_that_change_with_their_health() {
    let Some(mut mesh) = Mesh::start().await else {
        return;
    };
    let [first, second] = [Host::start("first").await, Host::start("second").await];
    let instance = |host: &Host, id: &str, passing: u32| {
        let tags = plain_tags("vm", "vm.example.test");
        let mut instance = tagged("vm", host.address, &tags);
        instance["ID"] = json!(id);
        instance["Weights"] = json!({ "Passing": passing, "Warning": 1 });
        instance
    };
    mesh.consul.register(&instance(&first, "one", 1));
    mesh.route("vm@consul").await;
    let mut tunnel = mesh.open("vm.example.test").await.unwrap();
    assert_eq!(tunnel.greeting, "first");

    mesh.consul.register(&instance(&second, "two", 1));
    shares(&mesh, [(first.address, 1), (second.address, 1)]).await;
    assert_eq!(greetings(&mut mesh, 4).await, [2, 2]);

    mesh.consul.register(&instance(&second, "two", 3));
    shares(&mesh, [(first.address, 1), (second.address, 3)]).await;
    assert_eq!(greetings(&mut mesh, 8).await, [2, 6]);

    mesh.consul.set_status("two", Status::Warning);
    shares(&mesh, [(first.address, 1), (second.address, 1)]).await;
    assert_eq!(greetings(&mut mesh, 4).await, [2, 2]);

    mesh.consul.set_status("two", Status::Critical);
    mesh.told("one is left", |routes| {
        routes.endpoints("vm@consul") == [(first.address, 1)]
    })
    .await;
    assert_eq!(greetings(&mut mesh, 4).await, [4, 0]);

    mesh.consul.set_status("two", Status::Passing);
    shares(&mesh, [(first.address, 1), (second.address, 3)]).await;
    mesh.consul.deregister("one");
    mesh.told("the other is left", |routes| {
        routes.endpoints("vm@consul") == [(second.address, 3)]
    })
    .await;
    assert_eq!(greetings(&mut mesh, 4).await, [0, 4]);
    tunnel.is_alive().await;
    tunnel.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_instance_is_reached_through_its_own_sidecar() {
    let Some(mut mesh) = Mesh::start().await else {
        return;
    };
    let [first, second] = [Host::start("first").await, Host::start("second").await];
    let instance = |host: &Host, id: &str, port: u16| {
        let mut instance = routed("vm", "vm.example.test", host.address);
        instance["ID"] = json!(id);
        let mut instance = meshed(instance, port);
        instance["Connect"]["SidecarService"]["Checks"][0]["AliasService"] = json!(id);
        instance
    };
    mesh.consul
        .register(&instance(&first, "one", ports::free()));
    let one = mesh.consul.builtin_sidecar("one");
    mesh.route("vm@consul").await;
    let mut tunnel = mesh.open("vm.example.test").await.unwrap();
    assert_eq!(tunnel.greeting, "first");

    let mut second = instance(&second, "two", ports::free());
    mesh.consul.register(&second);
    let two = mesh.consul.builtin_sidecar("two");
    shares(&mesh, [(one.address, 1), (two.address, 1)]).await;
    assert_eq!(greetings(&mut mesh, 4).await, [2, 2]);

    // In the mesh the weights are the sidecar's own, as for Consul's own clients.
    second["Connect"]["SidecarService"]["Weights"] = json!({ "Passing": 3, "Warning": 1 });
    mesh.consul.register(&second);
    shares(&mesh, [(one.address, 1), (two.address, 3)]).await;
    assert_eq!(greetings(&mut mesh, 8).await, [2, 6]);

    mesh.consul.service_maintenance("one", true);
    mesh.told("one is left", |routes| {
        routes.endpoints("vm@consul") == [(two.address, 3)]
    })
    .await;
    assert_eq!(greetings(&mut mesh, 2).await, [0, 2]);
    tunnel.is_alive().await;
    tunnel.end().await;
}

/// Waits until the route has these endpoints.
async fn shares(mesh: &Mesh, mut shares: [(SocketAddr, u64); 2]) {
    shares.sort_unstable();
    mesh.told("the shares are these", |routes| {
        routes.endpoints("vm@consul") == shares
    })
    .await;
}

/// How many of so many connections each of the two gets.
async fn greetings(mesh: &mut Mesh, count: usize) -> [usize; 2] {
    let mut greetings = [0; 2];
    for _ in 0..count {
        match mesh.greets("vm.example.test").await.as_str() {
            "first" => greetings[0] += 1,
            _ => greetings[1] += 1,
        }
    }
    greetings
}
