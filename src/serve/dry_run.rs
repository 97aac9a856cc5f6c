//! A start without listeners: what a gateway would serve by a configuration, found out once.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::addresses::Addresses;
use super::load::{self, Loaded};
use super::names::Names;
use super::publish::{self, Configured, Publisher};
use super::{consul, listeners, nomad};
use crate::config::Checked;
use crate::log::AccessLog;
use crate::metrics::Metrics;
use crate::name::HostName;
use crate::net::resolve::Answer;
use crate::net::session::Sessions;
use crate::snapshot::Snapshot;
use crate::snapshot::service::Change;
use crate::status::{State, Status};
use crate::tls::mesh::Identity;

/// How often it is looked at whether everything has been heard, for which there is no event.
const LOOK: Duration = Duration::from_millis(20);

/// What comes in a burst (services, then the identity, then what both are compiled to) comes closer together than this.
const QUIET: Duration = Duration::from_millis(250);

/// The same where services are registered with names, which are asked of DNS servers: two answers of a slow one fit.
const QUIET_WITH_NAMES: Duration = Duration::from_secs(2);

/// What keeps it from being ready is told when it has lasted so long: most Consuls have answered by then.
const PATIENT: Duration = Duration::from_secs(1);

/// For logging out of Consul at the end.
const GOODBYE: Duration = Duration::from_secs(2);

/// What a gateway would serve.
#[derive(Debug)]
pub struct Found {
    /// Its routes, and what was skipped.
    pub snapshot: Arc<Snapshot>,
    /// What each part says of itself.
    pub parts: BTreeMap<Arc<str>, State>,
    /// The gateway's own identity in the mesh, if it has one.
    pub identity: Option<Arc<Identity>>,
}

impl Found {
    /// Whether everything was heard.
    pub fn is_whole(&self) -> bool {
        is_whole(&self.parts)
    }
}

/// Finds out what a gateway with this configuration would serve, by the parts that a start has: sources are asked, names
/// resolved, everything compiled. Nothing is listened on, nothing dialled but what is asked, nothing kept on the disk.
///
/// Ends when everything has been heard, after `patience`, or by an interrupt (SIGINT), with what there is then. What keeps it
/// waiting is told to `waiting` when it changes.
///
/// # Errors
/// What the configuration names cannot be used, such as the CAs for Consul.
pub async fn dry_run(
    checked: Checked,
    patience: Duration,
    mut waiting: impl FnMut(&str, &str),
) -> anyhow::Result<Found> {
    let (metrics, status) = (Metrics::new(), Status::default());
    let cell = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
    let sessions = Sessions::new(AccessLog::off(), Arc::clone(&metrics));
    let (answers, heard) = mpsc::channel(64);
    let (changes, told) = mpsc::channel(64);
    let (passed, learnt) = mpsc::channel(64);
    let (known, identity) = watch::channel(None);
    let (_none, read) = mpsc::channel(1);

    // Files are read for it, and a system's roots are hundreds.
    let loading = tokio::task::spawn_blocking(move || load::load(checked, &Loaded::default()));
    let (config, loaded) = loading.await.context("it cannot be loaded")??;
    let (client, agent) = (consul::client(&config)?, nomad::client(&config)?);
    let (listeners, own) = listeners::planned(&config);
    let next_consul = consul::prepare(client, &config, &own);
    let next_nomad = nomad::prepare(agent, &config, &own);
    let names = publish::names(&config);
    let configured = Configured {
        config,
        loaded,
        listeners,
        own,
        answers: Vec::new(),
    };

    let (told_names, named) = watch::channel(BTreeSet::new());
    let publisher = Publisher::new(
        configured.inputs(),
        Arc::clone(&cell),
        metrics,
        status.clone(),
        Addresses::default(),
        told_names,
    );
    let published = publisher.published();
    let mut tasks = JoinSet::new();
    tasks.spawn(note_identity(told, passed, known));
    tasks.spawn(publisher.run(heard, learnt, read, sessions));
    let mut resolving = Names::default();
    resolving.take(names, BTreeMap::new(), &answers, &mut tasks);
    let (mut running, mut in_nomad) = (None, None);
    let news = (&changes, &cell);
    consul::take(&mut running, next_consul, None, news, &status, &mut tasks).await;
    nomad::take(
        &mut in_nomad,
        next_nomad,
        None,
        &changes,
        &status,
        &mut tasks,
    )
    .await;

    let mut settling = Settling {
        status: status.clone(),
        published,
        named,
        resolving,
        answers,
    };
    tokio::select! {
        () = settling.settle(patience, &mut tasks, &mut waiting) => {}
        // Where no signal can be listened for, it ends the process.
        Ok(()) = tokio::signal::ctrl_c() => {}
    }
    let found = Found {
        snapshot: cell.load_full(),
        parts: status.parts(),
        identity: identity.borrow().clone(),
    };
    // A token of a login ends with it. Whoever does not answer has been waited for long enough.
    let ending = consul::take(&mut running, None, None, news, &status, &mut tasks);
    let _ = timeout(GOODBYE, ending).await;
    Ok(found)
}

/// Passes everything on to the publisher, which tells nobody of the identity unless something is dialled with it.
async fn note_identity(
    mut told: Receiver<Change>,
    passed: Sender<Change>,
    known: watch::Sender<Option<Arc<Identity>>>,
) {
    while let Some(change) = told.recv().await {
        if let Change::Identity(identity) = &change {
            known.send_replace(identity.clone());
        }
        if passed.send(change).await.is_err() {
            return;
        }
    }
}

/// What is looked at until everything has been heard.
struct Settling {
    status: Status,
    published: watch::Receiver<u64>,
    /// The names that services are registered with.
    named: watch::Receiver<BTreeSet<HostName>>,
    resolving: Names,
    answers: Sender<Answer>,
}

impl Settling {
    async fn settle(
        &mut self,
        patience: Duration,
        tasks: &mut JoinSet<()>,
        waiting: &mut impl FnMut(&str, &str),
    ) {
        let start = Instant::now();
        let mut quiet_since = start;
        let mut quiet = QUIET;
        let mut last = self.status.parts();
        let mut told = BTreeMap::new();
        while start.elapsed() < patience {
            tokio::select! {
                () = sleep(LOOK) => {}
                Ok(()) = self.named.changed() => {
                    let named = self.named.borrow_and_update().clone();
                    quiet = if named.is_empty() { QUIET } else { QUIET_WITH_NAMES };
                    self.resolving.serve(named, &self.answers, tasks);
                }
                Some(ended) = tasks.join_next() => {
                    if let Err(defect) = ended && defect.is_panic() {
                        resume_unwind(defect.into_panic());
                    }
                }
            }
            let parts = self.status.parts();
            let is_new = self.published.has_changed().unwrap_or(false);
            self.published.mark_unchanged();
            if is_new || parts != last {
                quiet_since = Instant::now();
                last = parts;
            }
            if is_whole(&last) && quiet_since.elapsed() >= quiet {
                return;
            }
            if start.elapsed() < PATIENT {
                continue;
            }
            for (part, state) in &last {
                if let State::NotReady(why) = state
                    && told.insert(Arc::clone(part), why.clone()).as_ref() != Some(why)
                {
                    waiting(part, why);
                }
            }
        }
    }
}

fn is_whole(parts: &BTreeMap<Arc<str>, State>) -> bool {
    !(parts.values()).any(|state| matches!(state, State::NotReady(_)))
}
