//! A mesh that changes its CA, and leaves that are renewed, while connections come and go.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::{HOST, NAME, Scene, own_sidecar, register};
use crate::bao::Bao;
use crate::consul::{Consul, STRICT_PERSISTENT, certificate};
use crate::peers;
use crate::ports;
use crate::support::PATIENCE;
use crate::upstream::{Upstream, echo};

/// The certificates that came with each connection of the gateway, the leaf first.
type Chains = BTreeSet<Vec<Vec<u8>>>;

/// A sidecar that keeps the certificates it was shown.
struct Watching {
    upstream: Upstream,
    shown: Arc<Mutex<Chains>>,
}

impl Watching {
    async fn start(config: Arc<ServerConfig>) -> Self {
        let shown = Arc::new(Mutex::new(Chains::new()));
        let all = Arc::clone(&shown);
        let upstream = Upstream::tls(config, move |stream: TlsStream<TcpStream>| {
            let chain = stream.get_ref().1.peer_certificates().unwrap();
            let chain = chain.iter().map(|der| der.to_vec()).collect();
            all.lock().unwrap().insert(chain);
            echo(stream)
        })
        .await;
        Self { upstream, shown }
    }

    /// How many different leaves it was shown.
    fn leaves(&self) -> usize {
        let shown = self.shown.lock().unwrap();
        shown
            .iter()
            .map(|chain| &chain[0])
            .collect::<BTreeSet<_>>()
            .len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecars_of_the_old_and_of_the_new_ca_are_both_reached_when_it_changes() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let old = Upstream::tls(own_sidecar(&consul), echo).await;
    register(&consul, NAME, old.address, old.address.port());
    register(&consul, "simple02", old.address, old.address.port());
    let scene = Scene::start(&consul.keys(), "").await;
    let mut tunnel = scene.tunnel().await;
    let traffic = scene.traffic(HOST);
    let ca = consul.use_own_ca();
    let id = consul.spiffe_id("simple02");
    let new = Upstream::tls(ca.server(&certificate(&[&id])), echo).await;
    register(&consul, "simple02", new.address, new.address.port());
    scene
        .until("the new CA is trusted", async || {
            scene.way.echo("simple02.domain.com").await.is_ok()
        })
        .await;
    scene.works("the CA has changed").await;
    scene.is_ready().await;
    tunnel.lives().await;
    traffic.went_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_that_is_renewed_ten_times_is_shown_from_the_next_connection_on_and_none_fails() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let sidecar = Watching::start(own_sidecar(&consul)).await;
    let address = sidecar.upstream.address;
    register(&consul, NAME, address, address.port());
    // New leaves are good for a quarter of a minute, and renewed before half of that is over.
    consul.shorten_leaves(75);
    let scene = Scene::start(&consul.keys(), "").await;
    let mut tunnel = scene.tunnel().await;
    let traffic = [(); 4].map(|()| scene.traffic(HOST));
    // Many are renewed at once, the others within seven seconds.
    scene
        .until_within(3 * PATIENCE, "ten leaves were shown", async || {
            sidecar.leaves() >= 10
        })
        .await;
    scene.works("the leaf was renewed").await;
    scene.is_ready().await;
    tunnel.lives().await;
    for traffic in traffic {
        traffic.went_well().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_that_ends_because_consul_is_gone_is_told_of_and_renewed_when_it_is_back() {
    if !peers::long() {
        return;
    }
    let Some(mut consul) = Consul::start_with(STRICT_PERSISTENT) else {
        return;
    };
    let sidecar = Watching::start(own_sidecar(&consul)).await;
    let address = sidecar.upstream.address;
    register(&consul, NAME, address, address.port());
    consul.shorten_leaves(75);
    let scene = Scene::start(&consul.keys(), "").await;
    let mut tunnel = scene.tunnel().await;
    consul.kill();
    scene
        .until("it says that its leaf has ended", async || {
            scene.state("mesh identity").await.contains("expired")
        })
        .await;
    let is_refused = async || scene.way.echo(HOST).await.is_err();
    scene.until("the sidecar refuses it", is_refused).await;
    tunnel.lives().await;
    consul.restart();
    scene.is_ready().await;
    scene.works("Consul is back").await;
    tunnel.lives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ca_moves_to_openbao_while_connections_come_and_go_and_none_fails() {
    if !peers::long() {
        return;
    }
    let (Some(consul), Some(bao)) = (Consul::strict(), Bao::start()) else {
        return;
    };
    let service = Upstream::echo().await;
    register(&consul, NAME, service.address, ports::free());
    register(&consul, "simple02", service.address, ports::free());
    let watching = Watching::start(consul.leaf("simple03").server()).await;
    let port = watching.upstream.address.port();
    register(&consul, "simple03", service.address, port);
    let Some(_envoy) = consul.envoy_sidecar(NAME) else {
        return;
    };
    let _builtin = consul.builtin_sidecar("simple02");
    let scene = Scene::start(&consul.keys(), "").await;
    let hosts = [HOST, "simple02.domain.com", "simple03.domain.com"];
    let mut tunnels = Vec::new();
    for host in hosts {
        scene
            .until("every route serves", async || {
                scene.way.echo(host).await.is_ok()
            })
            .await;
        tunnels.push(scene.tunnel_to(host).await);
    }
    let traffic = hosts.map(|host| scene.traffic(host));

    consul.use_vault_ca(&bao);
    // The gateway's leaf, one of Consul's intermediate CA, and the certificate that leads to the old root.
    let renewed = async || {
        watching
            .shown
            .lock()
            .unwrap()
            .iter()
            .any(|chain| chain.len() == 3)
    };
    let patience = Duration::from_secs(60);
    scene
        .until_within(patience, "the gateway has a new leaf", renewed)
        .await;
    // Those of the sidecars are renewed within the same half minute.
    tokio::time::sleep(Duration::from_secs(30)).await;
    for (mut tunnel, host) in tunnels.into_iter().zip(hosts) {
        println!("the tunnel to {host}");
        tunnel.lives().await;
    }
    scene.is_ready().await;
    for traffic in traffic {
        traffic.went_well().await;
    }
}
