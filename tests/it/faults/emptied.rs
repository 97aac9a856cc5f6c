//! Services that are gone, and those that only seem to be: deregistered, or hidden from a token that lost its rights.

use std::time::{Duration, Instant};

use super::{HOST, NAME, ROUTE, Scene, register, register_with_own_sidecar};
use crate::consul::{Consul, ITSELF, NODES, RIGHTS, SERVICES};
use crate::peers;

/// What the gateway needs to find services, and to be one of the mesh.
fn rights() -> String {
    RIGHTS.join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn that_the_last_service_was_deregistered_is_believed_after_two_reads_five_seconds_apart() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let sidecar = register_with_own_sidecar(&consul).await;
    register(&consul, "simple02", sidecar.address, sidecar.address.port());
    let scene = Scene::start(&consul.keys(), "").await;
    let mut tunnel = scene.tunnel().await;

    // Among others one service may go at once.
    consul.deregister("simple02-sidecar-proxy");
    consul.deregister("simple02");
    let began = Instant::now();
    scene
        .until("one is gone", async || {
            scene.route("simple02@consul").await.is_null()
        })
        .await;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    scene.works("the other is there").await;
    scene.is_ready().await;

    let began = Instant::now();
    consul.deregister(NAME);
    consul.deregister("simple01-sidecar-proxy");
    let told = scene.is_degraded("consul").await;
    assert!(told.contains(NAME), "{told}");
    assert!(scene.serves().await);
    scene
        .until("it is gone", async || scene.route(ROUTE).await.is_null())
        .await;
    let took = began.elapsed();
    let believed = Duration::from_secs(5)..Duration::from_secs(15);
    assert!(believed.contains(&took), "{took:?}");
    assert!(scene.way.echo(HOST).await.is_err());
    scene.is_ready().await;
    tunnel.lives().await;

    // And it may come again.
    consul.register(&crate::consul::service("other", sidecar.address, &[]));
    register(&consul, NAME, sidecar.address, sidecar.address.port());
    scene
        .until("it is back", async || scene.serves().await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_loses_its_rights_takes_no_route_away() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let token = consul.token(&rights());
    let sidecar = register_with_own_sidecar(&consul).await;
    let scene = Scene::start_apart(&consul.way(), &format!("token = \"{token}\"")).await;
    let mut tunnel = scene.tunnel().await;
    let traffic = scene.traffic(HOST);

    // It may still be itself, and sees nothing.
    consul.change_rights(&token, ITSELF);
    // A question that waits is answered when something changes.
    register(&consul, "simple02", sidecar.address, sidecar.address.port());
    let told = scene.tells("consul").await;
    assert!(told.contains("ACL"), "{told}");
    // Longer than an empty answer is doubted that hides nothing.
    let late = Instant::now() + Duration::from_secs(12);
    while Instant::now() < late {
        scene.works("it sees nothing").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tunnel.lives().await;

    consul.change_rights(&token, &rights());
    scene.is_ready().await;
    scene
        .until("a new service has its route", async || {
            !scene.route("simple02@consul").await.is_null()
        })
        .await;
    scene.works("it sees again").await;
    traffic.went_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_deleted_takes_no_route_away_and_another_in_its_file_is_taken() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let token = consul.token(&rights());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &token).unwrap();
    let sidecar = register_with_own_sidecar(&consul).await;
    let keys = format!("token_file = \"{}\"", file.path().display());
    let scene = Scene::start_apart(&consul.way(), &keys).await;
    let mut tunnel = scene.tunnel().await;
    let traffic = scene.traffic(HOST);

    consul.delete_token(&token);
    register(&consul, "simple02", sidecar.address, sidecar.address.port());
    let told = scene.tells("consul").await;
    assert!(told.contains("ACL not found"), "{told}");
    let logged = scene.gateway.child.all();
    assert!(!told.contains(&token) && !logged.contains(&token), "{told}");
    scene.works("its token is gone").await;

    std::fs::write(file.path(), consul.token(&rights())).unwrap();
    scene.is_ready().await;
    scene
        .until("a new service has its route", async || {
            !scene.route("simple02@consul").await.is_null()
        })
        .await;
    tunnel.lives().await;
    traffic.went_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_takes_no_route_away_and_another_in_its_file_is_taken() {
    if !peers::long() {
        return;
    }
    let Some(consul) = Consul::strict() else {
        return;
    };
    // The shortest that Consul allows.
    let token = consul.token_for("60s", &rights());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &token).unwrap();
    let _sidecar = register_with_own_sidecar(&consul).await;
    let keys = format!("token_file = \"{}\"", file.path().display());
    let scene = Scene::start_apart(&consul.way(), &keys).await;
    let mut tunnel = scene.tunnel().await;
    // It reaps them at its leisure, and answers a question that waits when that ends.
    let long = Duration::from_secs(180);
    let parts = ["mesh identity", "consul"];
    let expired = async |part| scene.state(part).await.contains("ACL not found");
    scene
        .until_within(long, "it has expired", async || {
            expired(parts[0]).await || expired(parts[1]).await
        })
        .await;
    for part in parts {
        if expired(part).await {
            scene.tells(part).await;
        }
    }
    scene.works("its token has expired").await;
    tunnel.lives().await;
    std::fs::write(file.path(), consul.token(&rights())).unwrap();
    scene.is_ready().await;
    scene.works("it has another").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_the_right_to_its_identity_is_not_ready_and_says_so() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let token = consul.token(&[SERVICES, NODES].join("\n"));
    let _sidecar = register_with_own_sidecar(&consul).await;
    let scene = Scene::start_unready(&consul.way(), &format!("token = \"{token}\"")).await;
    scene
        .until("it says so", async || {
            let state = scene.state("mesh identity").await;
            state.starts_with("not ready: ") && state.contains("403")
        })
        .await;
    assert_eq!(scene.readyz().await.0, 503);
    assert_eq!(scene.way.echo(super::FILE_HOST).await, Ok(()));
    assert!(scene.way.echo(HOST).await.is_err());

    consul.change_rights(&token, &rights());
    scene.is_ready().await;
    scene
        .until("its route serves", async || scene.serves().await)
        .await;
}
