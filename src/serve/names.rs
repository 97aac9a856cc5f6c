//! The names of upstreams that are kept resolved, as the configuration has them.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout_at};
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use crate::config::Config;
use crate::name::HostName;
use crate::net::resolve::{Answer, Resolving};

/// How long a new configuration waits for the names that it has more than the last one, all together.
///
/// 2 s: a resolver asks a server twice within 10 s; what it has not answered by now is served when it is.
const AWAITED: Duration = Duration::from_secs(2);

/// The names, each with what keeps it resolved.
#[derive(Debug, Default)]
pub(super) struct Names {
    kept: BTreeMap<HostName, AbortHandle>,
    /// Those of the configuration.
    configured: BTreeSet<HostName>,
    /// Those of services.
    served: BTreeSet<HostName>,
}

impl Names {
    /// Asks for the names that this configuration has more than the last one, so that no route of it is published without
    /// endpoints for want of a moment, and that a start serves from its first connection on. Those that are `known` otherwise are
    /// not waited for. `quietly` nothing of it is logged.
    pub(super) async fn first_answers(
        &self,
        config: &Config,
        known: impl Fn(&HostName) -> bool,
        quietly: bool,
    ) -> (Vec<Answer>, BTreeMap<HostName, Resolving>) {
        let mut asked = JoinSet::new();
        for name in super::publish::names(config) {
            if !self.configured.contains(&name) && !known(&name) {
                let asking = async move {
                    let mut resolving = Resolving::new(name.clone());
                    let answer = resolving.ask().await;
                    (name, resolving, answer)
                };
                match quietly {
                    true => asked.spawn(asking.with_subscriber(NoSubscriber::new())),
                    false => asked.spawn(asking),
                };
            }
        }
        let (mut answers, mut names) = (Vec::new(), BTreeMap::new());
        let late = Instant::now() + AWAITED;
        while let Ok(Some(done)) = timeout_at(late, asked.join_next()).await {
            match done {
                Ok((name, resolving, answer)) => {
                    answers.extend(answer);
                    names.insert(name, resolving);
                }
                Err(defect) if defect.is_panic() => resume_unwind(defect.into_panic()),
                // The process ends.
                Err(_) => {}
            }
        }
        if !asked.is_empty() && !quietly {
            let names = asked.len();
            tracing::warn!(names, awaited = ?AWAITED, "new names of upstreams have no answer yet");
        }
        (answers, names)
    }

    /// Keeps these names of the configuration resolved, and no others of it; some have been asked for already.
    pub(super) fn take(
        &mut self,
        names: BTreeSet<HostName>,
        resolving: BTreeMap<HostName, Resolving>,
        answers: &Sender<Answer>,
        tasks: &mut JoinSet<()>,
    ) {
        self.configured = names;
        self.keep(resolving, answers, tasks);
    }

    /// Keeps these names of services resolved, and no others of them.
    pub(super) fn serve(
        &mut self,
        names: BTreeSet<HostName>,
        answers: &Sender<Answer>,
        tasks: &mut JoinSet<()>,
    ) {
        self.served = names;
        self.keep(BTreeMap::new(), answers, tasks);
    }

    fn keep(
        &mut self,
        mut resolving: BTreeMap<HostName, Resolving>,
        answers: &Sender<Answer>,
        tasks: &mut JoinSet<()>,
    ) {
        let Self {
            kept,
            configured,
            served,
        } = self;
        kept.retain(|name, resolving| {
            let stays = configured.contains(name) || served.contains(name);
            if !stays {
                resolving.abort();
            }
            stays
        });
        for name in configured.union(served) {
            kept.entry(name.clone()).or_insert_with_key(|name| {
                let begun = resolving.remove(name);
                let begun = begun.unwrap_or_else(|| Resolving::new(name.clone()));
                tasks.spawn(begun.follow(answers.clone()))
            });
        }
    }
}
