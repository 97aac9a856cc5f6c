//! Nomad's services on the disk, and upstreams of the file that stand for one: with a real Nomad.

use super::*;

/// The keys of a gateway that keeps its state beside its configuration.
const KEPT: &str = "state_dir = \"state\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_starts_while_nomad_is_away_serves_from_the_disk_and_follows_it_when_it_is_back()
 {
    let Some(mut nomad) = block_in_place(|| Nomad::start(false)) else {
        return;
    };
    let echo = Upstream::echo().await;
    run(&nomad, "web", &echo, &tags("web"));
    run(&nomad, "gone", &echo, &tags("gone"));
    let authority = Authority::new();
    let keys = format!("address = \"{}\"\n", nomad.address());
    let edge = Edge::start_with(authority, KEPT, &keys, &[]).await;
    edge.eventually("both are served", async || {
        edge.serves("web").await && edge.serves("gone").await
    })
    .await;
    let authority = edge.stop().await;

    block_in_place(|| nomad.kill());
    let edge = Edge::start_with(authority, KEPT, &keys, &[]).await;
    let (_, parts) = edge.readyz().await;
    assert!(parts.contains(", from the disk"), "{parts}");
    assert!(edge.serves("web").await && edge.serves("gone").await);
    let (_, routes) = edge.gateway.ask_admin("/v1/routes").await;
    assert!(routes.contains("\"from_disk\""), "{routes}");
    let (_, metrics) = edge.gateway.ask_admin("/metrics").await;
    let restored = "portcullis_state_restored_timestamp_seconds{part=\"nomad\"}";
    assert!(metrics.contains(restored), "{metrics}");

    block_in_place(|| nomad.restart());
    block_in_place(|| nomad.stop("gone"));
    edge.eventually("what is true is served, and nothing else", async || {
        let is_ready = edge.readyz().await.1.contains("nomad ready");
        is_ready && edge.serves("web").await && !edge.serves("gone").await
    })
    .await;
    let (_, metrics) = edge.gateway.ask_admin("/metrics").await;
    assert!(!metrics.contains(restored), "{metrics}");

    // What is gone is not on the disk any more either.
    let authority = edge.stop().await;
    block_in_place(|| nomad.kill());
    let edge = Edge::start_with(authority, KEPT, &keys, &[]).await;
    assert!(edge.serves("web").await && !edge.serves("gone").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_nomad_is_not_served_what_was_kept_of_the_first() {
    let Some(nomad) = block_in_place(|| Nomad::start(false)) else {
        return;
    };
    let echo = Upstream::echo().await;
    run(&nomad, "web", &echo, &tags("web"));
    let keys = format!("address = \"{}\"\n", nomad.address());
    let edge = Edge::start_with(Authority::new(), KEPT, &keys, &[]).await;
    edge.eventually("it is served", async || edge.serves("web").await)
        .await;
    let authority = edge.stop().await;
    // Nobody listens there.
    let edge = Edge::unready(authority, KEPT, "address = \"127.0.0.1:1\"\n", &[]).await;
    edge.eventually("it waits", async || {
        let (status, parts) = edge.readyz().await;
        status == 503 && parts.contains("waiting for nomad")
    })
    .await;
    assert!(!edge.serves("web").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_of_the_file_stands_for_a_service_of_nomad_as_it_comes_moves_and_goes() {
    let Some(nomad) = block_in_place(|| Nomad::start(false)) else {
        return;
    };
    let keys = format!("address = \"{}\"\n", nomad.address());
    let file = "[routes.web]\nhost = \"web.example.test\"\nupstream = \"web\"\n\
        [upstreams.web]\nnomad_service = \"board\"\n";
    let edge = Edge::start_with(Authority::new(), "", &format!("{keys}{file}"), &[]).await;
    let (_, routes) = edge.gateway.ask_admin("/v1/routes").await;
    assert!(routes.contains("nomad has no service `board`"), "{routes}");

    // It asks for nothing itself: the operator's word is enough.
    let (echo, other) = (Upstream::echo().await, Upstream::echo().await);
    run(&nomad, "board", &echo, &[]);
    edge.eventually("it is served", async || edge.serves("web").await)
        .await;
    run(&nomad, "board", &other, &[]);
    drop(echo);
    edge.eventually("it is served where it is now", async || {
        edge.serves("web").await
    })
    .await;
    block_in_place(|| nomad.stop("board"));
    edge.eventually("its route stays, and refuses", async || {
        let (_, routes) = edge.gateway.ask_admin("/v1/routes").await;
        routes.contains("nomad has no service `board`")
    })
    .await;
    assert!(!edge.serves("web").await);
}
