//! Consul itself goes: killed, away from the start, another cluster in its place, or hanging.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::time::Instant;

use super::{FILE_HOST, HOST, NAME, ROUTE, Scene, register, register_with_own_sidecar};
use crate::authority::Authority;
use crate::consul::{Consul, STRICT_PERSISTENT};
use crate::ports;
use crate::program::command;
use crate::support::{Child, PATIENCE};
use crate::upstream::Upstream;

#[tokio::test(flavor = "multi_thread")]
async fn no_tunnel_connection_or_route_is_lost_while_consul_is_killed_and_restarted_with_its_data()
{
    let Some(mut consul) = Consul::start_with(STRICT_PERSISTENT) else {
        return;
    };
    let service = Upstream::echo().await;
    register(&consul, NAME, service.address, ports::free());
    // Envoy serves on without its Consul; the built-in sidecar asks it of every connection.
    let Some(_envoy) = consul.envoy_sidecar(NAME) else {
        return;
    };
    let scene = Scene::start(&consul.keys(), "").await;
    let mut tunnel = scene.tunnel().await;
    let before = scene.route(ROUTE).await;
    let traffic = scene.traffic(HOST);

    consul.kill();
    scene.is_degraded("consul").await;
    tunnel.lives().await;
    scene.works("it is dead").await;
    assert_eq!(scene.route(ROUTE).await["endpoints"], before["endpoints"]);

    consul.restart();
    scene.is_ready().await;
    tunnel.lives().await;
    scene.works("it is back").await;
    assert_eq!(scene.route(ROUTE).await["endpoints"], before["endpoints"]);

    // It hears of changes again.
    register(&consul, "simple02", service.address, ports::free());
    scene
        .until("a new service has its route", async || {
            !scene.route("simple02@consul").await.is_null()
        })
        .await;
    tunnel.lives().await;
    traffic.went_well().await;
}

/// As in a cluster: the agent of this machine lives on, and answers from what it has where it can.
#[tokio::test(flavor = "multi_thread")]
async fn no_tunnel_connection_or_route_is_lost_while_the_server_behind_the_agent_is_away() {
    let Some(mut server) = Consul::start_with(STRICT_PERSISTENT) else {
        return;
    };
    let agent = server.start_client();
    let service = Upstream::echo().await;
    register(&agent, NAME, service.address, ports::free());
    let Some(_envoy) = agent.envoy_sidecar(NAME) else {
        return;
    };
    let scene = Scene::start(&agent.keys(), "").await;
    let mut tunnel = scene.tunnel().await;
    let before = scene.route(ROUTE).await;
    let traffic = scene.traffic(HOST);

    server.kill();
    scene.is_degraded("consul").await;
    tunnel.lives().await;
    scene.works("its server is dead").await;
    assert_eq!(scene.route(ROUTE).await["endpoints"], before["endpoints"]);

    server.restart();
    scene.is_ready().await;
    tunnel.lives().await;
    register(&agent, "simple02", service.address, ports::free());
    scene
        .until("a new service has its route", async || {
            !scene.route("simple02@consul").await.is_null()
        })
        .await;
    scene.works("its server is back").await;
    assert_eq!(scene.route(ROUTE).await["endpoints"], before["endpoints"]);
    tunnel.lives().await;
    traffic.went_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consul_that_has_lost_its_data_takes_no_route_and_no_identity_away() {
    let Some(mut consul) = Consul::strict() else {
        return;
    };
    let old = register_with_own_sidecar(&consul).await;
    let scene = Scene::start(&consul.keys(), "").await;
    let mut tunnel = scene.tunnel().await;
    let traffic = scene.traffic(HOST);

    consul.restart_empty();
    let told = async || scene.is_degraded("consul").await;
    let says_what_is_missing = async || told().await.contains(NAME);
    scene
        .until("it says what is missing", says_what_is_missing)
        .await;
    // Longer than an empty answer of the same cluster is doubted.
    let late = tokio::time::Instant::now() + Duration::from_secs(12);
    while tokio::time::Instant::now() < late {
        scene.works("another cluster is there").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tunnel.lives().await;
    traffic.went_well().await;

    // The same service comes to the new cluster, with a sidecar that has a leaf of its CA.
    let new = register_with_own_sidecar(&consul).await;
    scene
        .until("the new instance has taken over", async || {
            let route = scene.route(ROUTE).await;
            let endpoints = route["endpoints"].as_array().cloned().unwrap_or_default();
            let addresses = endpoints.iter().map(|endpoint| &endpoint["address"]);
            addresses.eq([&new.address.to_string()]) && scene.serves().await
        })
        .await;
    scene.is_ready().await;
    drop(old);
    scene.works("the new cluster has taken over").await;
    tunnel.lives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_of_the_file_serve_before_consul_is_there_and_its_own_as_soon_as_it_is() {
    let Some(mut consul) = Consul::strict() else {
        return;
    };
    consul.kill();
    let scene = Scene::start_unready(&consul.keys(), "").await;
    assert_eq!(scene.way.echo(FILE_HOST).await, Ok(()));
    scene
        .until("consul is missed", async || {
            scene.state("consul").await.contains("cannot be reached")
        })
        .await;
    let (status, text) = scene.readyz().await;
    assert_eq!(status, 503, "{text}");
    assert!(
        scene.state("consul").await.starts_with("not ready: "),
        "{text}"
    );
    let identity = scene.state("mesh identity").await;
    assert!(identity.starts_with("not ready: "), "{text}");

    consul.restart();
    let _sidecar = register_with_own_sidecar(&consul).await;
    scene.is_ready().await;
    scene
        .until("its route serves", async || scene.serves().await)
        .await;
    scene.works("it has come").await;
    assert_eq!(scene.way.echo(FILE_HOST).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consul_that_hangs_from_the_start_keeps_no_route_of_the_file_and_is_used_when_it_answers()
{
    let Some(consul) = Consul::strict() else {
        return;
    };
    let _sidecar = register_with_own_sidecar(&consul).await;
    consul.freeze();
    let scene = Scene::start_unready(&consul.keys(), "").await;
    assert_eq!(scene.way.echo(FILE_HOST).await, Ok(()));
    let (status, text) = scene.readyz().await;
    assert_eq!(status, 503, "{text}");
    assert!(scene.way.echo(HOST).await.is_err());
    consul.thaw();
    scene.is_ready().await;
    scene
        .until("its route serves", async || scene.serves().await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consul_that_hangs_is_waited_for_and_what_it_says_then_is_taken_at_once() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let sidecar = register_with_own_sidecar(&consul).await;
    let scene = Scene::start(&consul.keys(), "").await;
    let mut tunnel = scene.tunnel().await;
    let traffic = scene.traffic(HOST);
    consul.freeze();
    tokio::time::sleep(Duration::from_secs(2)).await;
    scene.works("it hangs").await;
    tunnel.lives().await;
    consul.thaw();
    register(&consul, "simple02", sidecar.address, sidecar.address.port());
    scene
        .until("a new service has its route", async || {
            !scene.route("simple02@consul").await.is_null()
        })
        .await;
    traffic.went_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consul_that_hangs_is_told_of_and_nothing_is_lost() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let _sidecar = register_with_own_sidecar(&consul).await;
    let scene = Scene::start(&consul.keys(), "").await;
    let mut tunnel = scene.tunnel().await;
    let traffic = scene.traffic(HOST);
    consul.freeze();
    // A question that waits for a change looks the same: it is noticed when Consul is asked whether it is there.
    scene
        .until_within(Duration::from_secs(60), "it is degraded", async || {
            scene.state("consul").await.starts_with("degraded: ")
        })
        .await;
    scene.works("it hangs").await;
    tunnel.lives().await;
    consul.thaw();
    scene
        .until_within(Duration::from_secs(60), "every part is ready", async || {
            scene
                .readyz()
                .await
                .1
                .lines()
                .all(|line| line.ends_with(" ready"))
        })
        .await;
    scene.works("it answers again").await;
    tunnel.lives().await;
    traffic.went_well().await;
}

/// Whoever asks at the wrong moment must not be told of the parts alone that have begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_starts_says_at_no_moment_that_it_is_ready_before_consul_answers() {
    let hangs = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    let admin = authority.folder().join("admin");
    let tables = format!(
        "admin = \"unix:{}\"\ncertificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
         [log]\nformat = \"json\"\n[consul]\naddress = \"{}\"\n",
        admin.display(),
        hangs.local_addr().unwrap(),
    );
    let request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    for _ in 0..10 {
        let command = command(&authority, "127.0.0.1:0".parse().unwrap(), &tables, &[]);
        let child = Child::spawn(&command);
        let late = Instant::now() + PATIENCE;
        let mut answer = String::new();
        while !answer.contains("listeners ready") {
            assert!(Instant::now() < late, "{answer} {}", child.all());
            answer.clear();
            if let Ok(mut asked) = UnixStream::connect(&admin).await {
                // It may not have been listening yet, or be from before.
                let _ = asked.write_all(request).await;
                let _ = asked.read_to_string(&mut answer).await;
            }
            assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        assert!(answer.contains("consul not ready"), "{answer}");
    }
}
