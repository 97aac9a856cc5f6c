//! Wires every part of a gateway: reads, binds, publishes, accepts, and drains.

use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};

mod addresses;
mod consul;
mod doctor;
mod drain;
mod dry_run;
mod expiry;
mod in_vain;
mod keep;
mod listeners;
mod load;
mod names;
mod nomad;
mod parts;
mod publish;

use crate::admin::{self, BindError};
use crate::api::consul::Client;
use crate::config::{Checked, ListenAddress};
use crate::health;
use crate::lifecycle::{Handed, Notify, Reload, Shutdown, Wish};
use crate::log::AccessLog;
use crate::metrics::Metrics;
use crate::name::HostName;
use crate::net::limits::files;
use crate::net::session::Sessions;
use crate::proxy::Proxy;
use crate::snapshot::Snapshot;
use crate::state::State;
use crate::status::{self, Status};
use addresses::Addresses;
pub use doctor::examine;
pub use dry_run::{Found, dry_run};
use keep::Keeping;
use listeners::{OpenError, Serving};
use parts::{News, Parts};
use publish::Publisher;

/// A gateway that runs. Dropping it ends everything at once.
#[derive(Debug)]
pub struct Gateway {
    /// The addresses bound, in the order of the configuration.
    pub addresses: Vec<SocketAddr>,
    /// Where tunnels begin, by their names.
    pub tunnels: Vec<(Arc<str>, ListenAddress)>,
    /// The admin address bound, if there is one.
    pub admin: Option<ListenAddress>,
    shutdown: Shutdown,
    cell: Arc<ArcSwap<Snapshot>>,
    sessions: Sessions,
    log: AccessLog,
    notify: Notify,
    /// Where the last good state is kept.
    state: Option<Arc<State>>,
    /// What asks Consul, if anything does.
    asking: Arc<ArcSwapOption<Client>>,
    /// What runs beside the connections (accepting, publishing, resolving, the admin interface): ends with the gateway.
    tasks: JoinSet<()>,
}

/// Starts a gateway: everything is read and bound before the first connection is taken, or nothing starts.
///
/// Must be called on a runtime. Sessions are written to `log`; `shutdown` makes it stop, and `wishes` make it read its
/// configuration again, from now on. What was handed over is listened on, and told that the gateway serves: when it
/// accepts, whatever its parts wait for. Who waits for Consul before he starts the next thing might wait for each other.
pub async fn start(
    checked: Checked,
    log: AccessLog,
    shutdown: Shutdown,
    (reload, wishes): (Reload, mpsc::Receiver<Wish>),
    handed: Handed,
) -> anyhow::Result<Gateway> {
    listeners::claim(&handed.sockets, &checked.config)?;
    let notify = handed.notify.clone();
    let metrics = Metrics::new();
    metrics.access_log(log.clone());
    let status = Status::default();
    let cell = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
    let sessions = Sessions::new(log.clone(), Arc::clone(&metrics));
    let proxy = Arc::new(Proxy::new(Arc::clone(&cell), sessions.clone()));
    let sources = admin::Sources {
        snapshot: Arc::clone(&cell),
        status: status.clone(),
        metrics: Arc::clone(&metrics),
        limiter: Arc::clone(proxy.limiter()),
        reload,
        token: Arc::default(),
    };
    let serving = Serving {
        proxy,
        sources,
        metrics: Arc::clone(&metrics),
        shutdown: shutdown.clone(),
        handed,
    };
    let (answers, heard) = mpsc::channel(64);
    let (changes, learnt) = mpsc::channel(64);
    let (configured, read) = mpsc::channel(1);
    let news = News {
        answers,
        changes,
        configured,
    };

    if let Some(sandbox) = &serving.handed.sandbox {
        let lack = sandbox.extent().lack();
        let state = lack.map_or(status::State::Ready, |lack| {
            status::State::Degraded(lack.to_owned())
        });
        status.set("sandbox", state);
        metrics.sandbox(sandbox.extent().as_str());
    }

    let keeping = Keeping::start(
        checked.config.state.as_ref(),
        &status,
        &metrics,
        checked.config.consul.as_ref(),
    );
    let state = keeping.state.clone();
    let kept = Addresses::of(state.as_deref(), publish::NAMES);
    let (told_names, named) = watch::channel(BTreeSet::new());
    let mut parts = Parts::new(serving, status.clone(), news, &checked, keeping, named);
    let (configured, mut prepared) = parts.prepare(checked).await?;
    // It is bound: who comes meanwhile waits in the queue, and finds what he asks for.
    let known = |name: &HostName| kept.knows(name);
    let answers = parts.ask_first(&configured, &mut prepared, known).await;
    let mut publisher = Publisher::new(
        configured.inputs(),
        Arc::clone(&cell),
        Arc::clone(&metrics),
        status.clone(),
        kept,
        told_names,
    );
    publisher.hear(answers);
    let published = publisher.published();
    let files = files::limit();
    let connections = files::room(files);
    tracing::info!(
        files,
        connections,
        "the open files that the system allows have room for so many connections"
    );
    let mut tasks = JoinSet::new();
    tasks.spawn(publisher.run(heard, learnt, read, sessions.clone()));
    let looks = published.clone();
    tasks.spawn(in_vain::watch(Arc::clone(&cell), looks, metrics));
    tasks.spawn(health::watch(Arc::clone(&cell), published, status.clone()));
    parts.take(prepared).await;
    let bound = parts.addresses();
    let asking = parts.asking();
    notify.ready("serving").await;
    tasks.spawn(notify.clone().live());
    tasks.spawn(parts.run(wishes));
    Ok(Gateway {
        addresses: bound.listeners,
        tunnels: bound.tunnels,
        admin: bound.admin,
        shutdown,
        cell,
        sessions,
        log,
        notify,
        state,
        asking,
        tasks,
    })
}

impl Gateway {
    /// What makes it stop, from anywhere.
    pub fn shutdown(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Serves until told to drain and every tunnel has ended, or was ended near the drain's deadline.
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
        let limits = self.cell.load().limits.clone();
        let state = self.state.take();
        let (shutdown, notify) = (&self.shutdown, &self.notify);
        drain::drain(shutdown, &self.sessions, &limits, notify, state, &self.log).await;
        if let Some(client) = self.asking.swap(None) {
            client.log_out().await;
        }
        tracing::info!("stopped");
        match defect {
            Some(defect) => Err(defect).context("a part of the gateway has died"),
            None => Ok(()),
        }
    }
}

/// Whether a gateway did not start because somebody else listens where it would.
pub fn is_in_use(error: &anyhow::Error) -> bool {
    let system = |cause: &(dyn Error + 'static)| match cause.downcast_ref() {
        Some(
            OpenError::Listen { error, .. }
            | OpenError::Bind(BindError::System { error, .. })
            | OpenError::Admin(BindError::System { error, .. }),
        ) => Some(error.kind()),
        _ => None,
    };
    let mut kinds = error.chain().filter_map(system);
    kinds.any(|kind| kind == io::ErrorKind::AddrInUse)
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
