//! The section of Nomad in a configuration that changes: added, another agent, none at all.

use std::sync::Arc;

use rustls::version::TLS13;

use super::{EDGE, echoes, eventually};
use crate::authority::Authority;
use crate::fake_consul::Fault;
use crate::fake_nomad::FakeNomad;
use crate::gateway::Gateway;
use crate::upstream::Upstream;

/// The section for this Nomad.
fn section(nomad: &FakeNomad) -> String {
    let address = nomad.address();
    format!(
        "admin = \"127.0.0.1:0\"\n{EDGE}[nomad]\nallow_local_addresses = true\naddress = \"{address}\"\n"
    )
}

fn register(nomad: &FakeNomad, name: &str, upstream: &Upstream) {
    let tags = [
        format!("traefik.tcp.routers.{name}.rule=HostSNI(`{name}.example.test`)"),
        format!("traefik.tcp.routers.{name}.tls=true"),
    ];
    nomad.change(|world| world.register("default", name, upstream.address.port(), &tags));
}

#[tokio::test]
async fn a_section_of_nomad_comes_changes_and_goes_without_a_restart() {
    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    let echo = Upstream::echo().await;
    let (first, second) = (FakeNomad::start().await, FakeNomad::start().await);
    for name in ["a", "b"] {
        register(&first, name, &echo);
    }
    register(&second, "b", &echo);
    let none = format!("admin = \"127.0.0.1:0\"\n{EDGE}");
    let gateway = Gateway::start(&authority, &none).await;
    let client = Arc::new(authority.client(&[&TLS13]));
    let served = async |name: &str| {
        let name = format!("{name}.example.test");
        gateway.connect_tls(&client, &name).await.is_ok()
    };
    let ready = async || gateway.ask_admin("/readyz").await;
    let take = async |text: &str| {
        gateway.rewrite(&authority, text);
        gateway.reload.done("a test").await.unwrap();
    };
    take(&section(&first)).await;
    eventually("both are routed", async || {
        ready().await.0 == 200 && served("a").await && served("b").await
    })
    .await;
    let mut tunnel = gateway
        .connect_tls(&client, "b.example.test")
        .await
        .unwrap();

    // One that does not answer yet takes nothing down.
    second.change(|world| {
        world.faults.insert("", Fault::Hang);
    });
    take(&section(&second)).await;
    eventually("it is told", async || {
        ready().await.1.contains("nomad degraded:")
    })
    .await;
    assert_eq!(ready().await.0, 200);
    assert!(served("a").await && served("b").await);

    take(&section(&first)).await;
    second.change(|world| world.faults.clear());
    take(&section(&second)).await;
    eventually("what it does not have is gone", async || !served("a").await).await;
    assert!(served("b").await);
    eventually("it is ready", async || {
        ready().await.1.contains("nomad ready")
    })
    .await;

    take(&none).await;
    eventually("without the section nothing of it is left", async || {
        !served("b").await && !ready().await.1.contains("nomad")
    })
    .await;
    let (_, routes) = gateway.ask_admin("/v1/routes").await;
    assert!(!routes.contains("@nomad"), "{routes}");
    // Removed routes keep their tunnels, if nothing else is written.
    echoes(&mut tunnel).await;
}
