//! The section of Consul in a configuration that changes: another agent, another token, none at all.

use std::sync::Arc;

use rustls::version::TLS13;

use super::{EDGE, echoes, eventually};
use crate::authority::Authority;
use crate::fake_consul::FakeConsul;
use crate::gateway::Gateway;
use crate::upstream::Upstream;

/// The section for this Consul.
fn section(consul: &FakeConsul) -> String {
    let address = consul.address();
    format!("admin = \"127.0.0.1:0\"\n{EDGE}[consul]\naddress = \"{address}\"\n")
}

fn register(consul: &FakeConsul, name: &str, upstream: &Upstream) {
    let rule = format!("traefik.tcp.routers.{name}.rule=HostSNI(`{name}.example.test`)");
    let tls = format!("traefik.tcp.routers.{name}.tls=true");
    let tags = ["traefik.enable=true", &rule, &tls];
    consul.change(|world| {
        world.register(name, &tags);
        let port = upstream.address.port();
        world.services.get_mut(name).unwrap()[0]["Service"]["Port"] = port.into();
    });
}

#[tokio::test]
async fn another_consul_leaves_the_routes_that_it_has_too_and_ends_those_that_it_has_not() {
    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    let echo = Upstream::echo().await;
    let (first, second) = (FakeConsul::start().await, FakeConsul::start().await);
    for name in ["a", "b"] {
        register(&first, name, &echo);
    }
    register(&second, "b", &echo);
    let gateway = Gateway::start(&authority, &section(&first)).await;
    let client = Arc::new(authority.client(&[&TLS13]));
    let served = async |name: &str| {
        let name = format!("{name}.example.test");
        gateway.connect_tls(&client, &name).await.is_ok()
    };
    let ready = async || gateway.ask_admin("/readyz").await;
    eventually("both are routed", async || {
        ready().await.0 == 200 && served("a").await && served("b").await
    })
    .await;
    let mut tunnel = gateway
        .connect_tls(&client, "b.example.test")
        .await
        .unwrap();

    // One that does not answer yet takes nothing down.
    second.fail("", crate::fake_consul::Fault::Hang);
    gateway.rewrite(&authority, &section(&second));
    gateway.reload.done("a test").await.unwrap();
    eventually("it is told", async || {
        ready().await.1.contains("consul degraded:")
    })
    .await;
    assert_eq!(ready().await.0, 200);
    assert!(served("a").await && served("b").await);

    gateway.rewrite(&authority, &section(&first));
    gateway.reload.done("a test").await.unwrap();
    second.change(|world| world.faults.clear());
    gateway.rewrite(&authority, &section(&second));
    gateway.reload.done("a test").await.unwrap();
    eventually("what it does not have is gone", async || !served("a").await).await;
    assert!(served("b").await);
    eventually("it is ready", async || {
        ready().await.1.contains("consul ready")
    })
    .await;

    gateway.rewrite(&authority, &format!("admin = \"127.0.0.1:0\"\n{EDGE}"));
    gateway.reload.done("a test").await.unwrap();
    eventually("without the section nothing of it is left", async || {
        !served("b").await && !ready().await.1.contains("consul")
    })
    .await;
    let (_, metrics) = gateway.ask_admin("/v1/routes").await;
    assert!(!metrics.contains("@consul"), "{metrics}");
    // Removed routes keep their tunnels, if nothing else is written.
    echoes(&mut tunnel).await;
}
