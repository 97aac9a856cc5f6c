//! Wires every part of a gateway: reads, binds, publishes, accepts, and drains.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

mod consul;
mod load;
mod publish;

use crate::admin;
use crate::config::{AdminAddress, Checked};
use crate::lifecycle::Shutdown;
use crate::log::AccessLog;
use crate::metrics::Metrics;
use crate::net::listener::Listener;
use crate::net::resolve;
use crate::net::session::Sessions;
use crate::proxy::Proxy;
use crate::reason::Reason;
use crate::snapshot::compile::Inputs;
use crate::snapshot::{self, ListenerId};
use crate::status::{State, Status};
use load::Loaded;
use publish::Publisher;

/// A gateway that runs. Dropping it ends everything at once.
#[derive(Debug)]
pub struct Gateway {
    /// The addresses bound, in the order of the configuration.
    pub addresses: Vec<SocketAddr>,
    /// The admin address bound, if there is one.
    pub admin: Option<AdminAddress>,
    shutdown: Shutdown,
    drain: std::time::Duration,
    sessions: Sessions,
    log: AccessLog,
    /// What runs beside the connections (accepting, publishing, resolving, the admin interface): ends with the gateway.
    tasks: JoinSet<()>,
}

/// Starts a gateway: everything is read and bound before the first connection is taken, or nothing starts.
///
/// Must be called on a runtime. Sessions are written to `log`; `shutdown` makes it stop, from now on.
pub async fn start(
    checked: Checked,
    log: AccessLog,
    shutdown: Shutdown,
) -> anyhow::Result<Gateway> {
    let metrics = Metrics::new();
    metrics.access_log(log.clone());
    let status = Status::default();

    let (config, loaded) = load::load(checked);
    let Loaded {
        certificates,
        policies,
        client_configs,
    } = loaded;
    let drain = config.limits.drain;
    metrics.certificates(
        (certificates.iter()).map(|found| (found.source.display().to_string(), found.not_after)),
    );
    let mut bound = Vec::new();
    let mut listeners = BTreeMap::new();
    for (id, listener) in (0..).map(ListenerId).zip(&config.listeners) {
        let socket = Listener::bind(listener.address, &config.limits.keepalive)
            .with_context(|| format!("cannot listen on {}", listener.address))?;
        listeners.insert(
            id,
            snapshot::Listener {
                unknown_name: listener.unknown_name,
                ..Default::default()
            },
        );
        bound.push((id, socket));
    }
    let admin = match &config.admin {
        Some(address) => Some(admin::Listener::bind(address).await?),
        None => None,
    };
    let admin_address = admin.as_ref().map(admin::Listener::address);
    let mut own: Vec<SocketAddr> = bound.iter().map(|(_, socket)| socket.address()).collect();
    if let Some(AdminAddress::Tcp(address)) = admin_address {
        own.push(address);
    }
    let own: Arc<[SocketAddr]> = own.into();
    let mut tasks = JoinSet::new();
    // For the parts that find services and keep the identity; the publisher goes on while anyone holds it.
    let (changes, learnt) = mpsc::channel(64);
    consul::start(&config, &own, &changes, &status, &mut tasks)?;
    drop(changes);
    let inputs = Inputs {
        config,
        listeners,
        own,
        certificates,
        policies,
        client_configs,
        addresses: BTreeMap::new(),
        identity: None,
    };

    let publisher = Publisher::new(inputs, Arc::clone(&metrics), status.clone());
    let cell = publisher.cell();
    let (answers, received) = mpsc::channel(64);
    for name in publisher.names() {
        tasks.spawn(resolve::watch(name, answers.clone()));
    }
    drop(answers);
    tasks.spawn(publisher.run(received, learnt));

    if let Some(listener) = admin {
        let sources = admin::Sources {
            snapshot: Arc::clone(&cell),
            status: status.clone(),
            metrics: Arc::clone(&metrics),
        };
        tracing::info!(address = %listener.address(), "admin interface");
        tasks.spawn(admin::serve(listener, sources, shutdown.clone()));
    }

    let sessions = Sessions::new(log.clone(), Arc::clone(&metrics));
    let proxy = Arc::new(Proxy::new(cell, sessions.clone()));
    let addresses = bound.iter().map(|(_, socket)| socket.address()).collect();
    for (id, socket) in bound {
        tracing::info!(address = %socket.address(), "listening");
        let accepting = accept(
            id,
            socket,
            Arc::clone(&proxy),
            Arc::clone(&metrics),
            shutdown.clone(),
        );
        tasks.spawn(shutdown.track(accepting));
    }
    status.set("listeners", State::Ready);
    Ok(Gateway {
        addresses,
        admin: admin_address,
        shutdown,
        drain,
        sessions,
        log,
        tasks,
    })
}

impl Gateway {
    /// What makes it stop, from anywhere.
    pub fn shutdown(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Serves until told to drain and every tunnel has ended, or the drain's deadline cut those that had not.
    ///
    /// # Errors
    /// A part of the gateway has died of a defect. It drains then too: what starts it anew mends it, and without that
    /// part nothing would.
    pub async fn finished(mut self) -> anyhow::Result<()> {
        let defect = tokio::select! {
            () = self.shutdown.draining() => None,
            defect = first_defect(&mut self.tasks) => Some(defect),
        };
        if let Some(defect) = &defect {
            tracing::error!(%defect, "a part of the gateway has died");
            self.shutdown.begin_drain();
        }
        let running = self.shutdown.running();
        tracing::info!(running, limit = ?self.drain, "draining");
        let is_drained = tokio::select! {
            () = self.shutdown.drained() => true,
            () = self.shutdown.cutting() => false,
            () = tokio::time::sleep(self.drain) => {
                let running = self.shutdown.running();
                tracing::warn!(running, "the drain's deadline passed: ending what still runs");
                self.shutdown.cut();
                false
            }
        };
        if !is_drained {
            self.sessions.close(Reason::Drained);
            self.shutdown.drained().await;
        }
        self.log.flush();
        tracing::info!("stopped");
        match defect {
            Some(defect) => Err(defect).context("a part of the gateway has died"),
            None => Ok(()),
        }
    }
}

/// Waits for a part that ends by a panic; one that has done its work is none.
async fn first_defect(tasks: &mut JoinSet<()>) -> JoinError {
    while let Some(ended) = tasks.join_next().await {
        if let Err(defect) = ended {
            return defect;
        }
    }
    std::future::pending().await
}

/// Accepts on one listener until the drain begins, and leaves nobody in its queue.
async fn accept(
    id: ListenerId,
    listener: Listener,
    proxy: Arc<Proxy>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
) {
    let address = listener.address();
    let accepted = metrics.accepted(address);
    let take = |tcp: TcpStream, client: SocketAddr| {
        accepted.inc();
        let proxy = Arc::clone(&proxy);
        let handling = async move { proxy.handle(tcp, client, id, address).await };
        tokio::spawn(shutdown.track(handling));
    };
    let failed = |error: &std::io::Error| {
        metrics.accept_failed(error);
        tracing::warn!(%address, %error, "cannot accept");
    };
    tokio::select! {
        () = listener.accept(take, failed) => {}
        () = shutdown.draining() => {}
    }
    listener.close(take, failed).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_dies_is_noticed_and_one_that_has_done_its_work_is_not() {
        let mut tasks = JoinSet::new();
        tasks.spawn(async {});
        tasks.spawn(async { panic!("of a test") });
        assert!(first_defect(&mut tasks).await.is_panic());
        assert!(tasks.is_empty());
    }
}
