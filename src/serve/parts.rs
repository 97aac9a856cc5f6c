//! What runs because of the configuration, and changes with it while the gateway runs.

use std::collections::BTreeSet;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::{self, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

mod prepared;

use super::consul::Consul;
use super::expiry::Watching;
use super::keep::Keeping;
use super::listeners::{Bound, Listeners, OpenError, Serving};
use super::load::{self, Loaded, Shortage};
use super::names::Names;
use super::nomad::Nomad;
use super::publish::Configured;
use crate::api::consul::Client;
use crate::config::{self, Checked, Log};
use crate::lifecycle::Wish;
use crate::name::HostName;
use crate::net::resolve::Answer;
use crate::retry::Backoff;
use crate::snapshot::service::Change;
use crate::status::{State, Status};
use crate::tls::passphrase::Given;
use crate::watch::{self, Files};

/// The part of the status that tells of the configuration.
const CONFIGURATION: &str = "configuration";

/// The part of the status that tells of the listeners.
const LISTENERS: &str = "listeners";

/// The part of the status that tells which tunnels are open to the network; absent where none is.
const INSECURE_LISTEN: &str = "insecure_listen";

/// What systemd is told.
const SERVING: &str = "serving";

/// Before the first try after a refusal that may pass; the pauses double up to [`LONGEST_PAUSE`].
///
/// 1 s: each try reads everything, which takes half a second where there are 100,000 routes.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// 30 s: whoever frees an address sees it served within half a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What goes to the publisher: changes of one kind each, and configurations, which answer when they are published.
#[derive(Debug)]
pub(super) struct News {
    pub(super) answers: Sender<Answer>,
    pub(super) changes: Sender<Change>,
    pub(super) configured: Sender<(Configured, oneshot::Sender<()>)>,
}

/// What runs because of the configuration.
#[derive(Debug)]
pub(super) struct Parts {
    serving: Serving,
    status: Status,
    news: News,
    /// Where the configuration is read again.
    source: config::Source,
    /// Whether nothing is written in the configuration that serves.
    is_blank: bool,
    /// What opens encrypted keys that name no passphrase.
    given: Given,
    /// What the last configuration was read from, good or not.
    files: Files,
    log: Log,
    /// How the state is kept.
    keeping: Keeping,
    /// Whether the configuration that serves wants one.
    wants_sandbox: bool,
    /// What TLS is made from at the moment.
    loaded: Loaded,
    listeners: Listeners,
    names: Names,
    /// The names that services of discovery are registered with.
    named: sync::watch::Receiver<BTreeSet<HostName>>,
    consul: Option<Consul>,
    /// What asks Consul, for whoever logs out of it at the end.
    asking: Arc<ArcSwapOption<Client>>,
    /// What was refused last, if it is tried again.
    retrying: Option<Retrying>,
    nomad: Option<Nomad>,
    /// Who watches the certificates that are shown to those who are dialled.
    expiring: Option<Watching>,
    /// All of it: a part that ends by a defect is noticed here.
    tasks: JoinSet<()>,
}

/// Why a configuration does not serve.
#[derive(Debug)]
struct Refused {
    why: String,
    /// Whether trying again may do, though nothing changes in the files.
    may_pass: bool,
}

/// A configuration that was refused for a reason that may pass, and when it is tried again.
#[derive(Debug)]
struct Retrying {
    why: String,
    pauses: Backoff,
    next: Instant,
}

impl Parts {
    /// Nothing yet; later configurations are read from where the first one was.
    pub(super) fn new(
        serving: Serving,
        status: Status,
        news: News,
        first: &Checked,
        keeping: Keeping,
        named: sync::watch::Receiver<BTreeSet<HostName>>,
    ) -> Self {
        Self {
            serving,
            status,
            news,
            source: first.source.clone(),
            is_blank: first.is_blank,
            given: first.given.clone(),
            files: first.warnings.files.clone(),
            log: first.config.log,
            wants_sandbox: first.config.sandbox,
            loaded: Loaded::default(),
            keeping,
            listeners: Listeners::default(),
            names: Names::default(),
            named,
            consul: None,
            asking: Arc::default(),
            retrying: None,
            nomad: None,
            expiring: None,
            tasks: JoinSet::new(),
        }
    }

    /// Follows the wishes, one after the other, and the files; watches what runs. Ends only by a defect.
    pub(super) async fn run(mut self, mut wishes: Receiver<Wish>) {
        let mut changed = Box::pin(watch::changed(self.files.clone()));
        loop {
            tokio::select! {
                () = &mut changed => {
                    if self.serving.shutdown.is_draining() {
                        tracing::warn!("the configuration has changed, and is read by the next one: this gateway is stopping");
                        changed = Box::pin(watch::changed(Files::default()));
                        continue;
                    }
                    // What is wrong has been told.
                    let _ = self.reload("a changed file").await;
                    changed = Box::pin(watch::changed(self.files.clone()));
                }
                () = sleep_until(self.next_try()), if self.retrying.is_some() => {
                    let before = self.files.clone();
                    self.try_again().await;
                    if self.files != before {
                        changed = Box::pin(watch::changed(self.files.clone()));
                    }
                }
                () = sleep_until(self.next_bind()), if self.is_bound_again() => {
                    self.bind_again().await;
                }
                Ok(()) = self.named.changed() => {
                    let named = self.named.borrow_and_update().clone();
                    (self.names).serve(named, &self.news.answers, &mut self.tasks);
                }
                Some(ended) = self.tasks.join_next() => {
                    if let Err(defect) = ended && defect.is_panic() {
                        resume_unwind(defect.into_panic());
                    }
                }
                Some(Wish { by, outcome }) = wishes.recv() => {
                    // Who asks before the files are read gets what they hold: one reading is enough for all.
                    let mut outcomes = vec![outcome];
                    while outcomes.len() < wishes.max_capacity() && let Ok(also) = wishes.try_recv() {
                        outcomes.push(also.outcome);
                    }
                    let told = self.reload(by).await;
                    changed = Box::pin(watch::changed(self.files.clone()));
                    for outcome in outcomes.into_iter().flatten() {
                        // Whoever asked may have gone.
                        let _ = outcome.send(told.clone());
                    }
                }
                else => std::future::pending().await,
            }
        }
    }

    /// Reads the configuration anew, and serves from it if it is good.
    async fn reload(&mut self, by: &str) -> Result<(), String> {
        if self.serving.shutdown.is_draining() {
            let why = "the gateway is stopping: its configuration is not read again";
            tracing::warn!(by, "{why}");
            return Err(why.to_owned());
        }
        let notify = self.serving.handed.notify.clone();
        notify.reloading().await;
        tracing::info!(by, path = %self.source, "reading the configuration");
        self.retrying = None;
        let read = self.follow(false).await;
        let told = match read {
            Ok(()) => {
                self.serves();
                Ok(())
            }
            Err(refused) => {
                let why = refused.why.clone();
                self.refuse(refused);
                Err(why)
            }
        };
        let status = match &told {
            Ok(()) => SERVING,
            Err(_) => "serving by the configuration before: the new one is refused, see the log",
        };
        if !self.serving.shutdown.is_draining() {
            notify.ready(status).await;
        }
        told
    }

    /// Reads anew what was refused for a reason that may have passed. What changes nothing is told to nobody.
    async fn try_again(&mut self) {
        if self.serving.shutdown.is_draining() {
            self.retrying = None;
            return;
        }
        match self.follow(true).await {
            Ok(()) => {
                self.retrying = None;
                self.serves();
                self.serving.handed.notify.ready(SERVING).await;
            }
            Err(refused) => match &mut self.retrying {
                Some(same) if same.why == refused.why => {
                    same.next = Instant::now() + same.pauses.next();
                    self.serving.metrics.reloaded(false);
                }
                _ => self.refuse(refused),
            },
        }
    }

    /// Binds what was closed in vain and is gone since.
    async fn bind_again(&mut self) {
        // Nobody new is wanted.
        if self.serving.shutdown.is_draining() {
            return;
        }
        (self.listeners)
            .try_again(&self.serving, &mut self.tasks)
            .await;
        self.status.set(LISTENERS, self.listeners.state());
    }

    fn is_bound_again(&self) -> bool {
        self.listeners.next_try().is_some() && !self.serving.shutdown.is_draining()
    }

    fn next_bind(&self) -> Instant {
        self.listeners.next_try().unwrap_or_else(Instant::now)
    }

    fn next_try(&self) -> Instant {
        let retrying = self.retrying.as_ref();
        retrying.map_or_else(Instant::now, |retrying| retrying.next)
    }

    /// The new configuration is followed.
    fn serves(&self) {
        tracing::info!("the new configuration serves");
        self.status.set(CONFIGURATION, self.certificates());
        self.serving.metrics.reloaded(true);
    }

    /// It is not, and tried again where that may do.
    fn refuse(&mut self, Refused { why, may_pass }: Refused) {
        let listeners = self.listeners.state();
        let before = match listeners {
            State::Ready | State::Noted(_) => "the one before serves on",
            _ => "the one before serves on, but for what was closed in vain",
        };
        self.status.set(LISTENERS, listeners);
        tracing::error!("the new configuration is refused, {before}:\n{why}");
        let what = load::first_mistake(&why);
        let again = if may_pass { "; it is tried again" } else { "" };
        let what = format!("the file was changed and is refused, {before}: {what}{again}");
        self.status.set(CONFIGURATION, State::Degraded(what));
        self.serving.metrics.reloaded(false);
        self.retrying = may_pass.then(|| {
            let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
            let next = Instant::now() + pauses.next();
            Retrying { why, pauses, next }
        });
    }

    /// What there is to say of the certificates of a configuration that serves.
    fn certificates(&self) -> State {
        let kept = self.loaded.kept.iter();
        let kept: Vec<String> = kept.map(|chain| chain.display().to_string()).collect();
        if kept.is_empty() {
            return State::Ready;
        }
        let what = format!(
            "these certificates do not serve as they are, what they were before is shown: {}",
            kept.join(", ")
        );
        tracing::warn!("{what}");
        State::Degraded(what)
    }

    /// Reads the configuration, and serves from it if it is good. `quietly` only what happens is logged, nothing that was found.
    async fn follow(&mut self, quietly: bool) -> Result<(), Refused> {
        let (source, given) = (self.source.clone(), self.given.clone());
        let checked = tokio::task::spawn_blocking(move || source.reload(&given)).await;
        let checked = checked.map_err(|defect| Refused::new(defect.to_string(), false))?;
        self.files = match &checked {
            Ok(checked) => checked.warnings.files.clone(),
            Err(mistakes) => mistakes.files.clone(),
        };
        let checked = checked
            .and_then(|checked| checked.following(self.is_blank))
            .map_err(|mistakes| Refused::new(mistakes.render(false), mistakes.may_pass))?;
        let is_blank = checked.is_blank;
        if checked.warnings.warnings() > 0 && !quietly {
            tracing::warn!("\n{}", checked.warnings.render(false));
        }
        let (answers, resolving) = (self.names)
            .first_answers(&checked.config, |_| false, quietly)
            .await;
        let (mut configured, mut prepared) = self.prepare(checked).await.map_err(|error| {
            let open = error.downcast_ref::<OpenError>();
            let may_pass = error.is::<Shortage>() || open.is_some_and(OpenError::may_pass);
            Refused::new(format!("{error:#}"), may_pass)
        })?;
        let stopping = || Refused::new("the gateway is stopping".to_owned(), false);
        // The stop may have come while names were asked for.
        if self.serving.shutdown.is_draining() {
            return Err(stopping());
        }
        configured.answers = answers;
        prepared.resolving = resolving;
        (self.listeners.narrow(&prepared.opened).await)
            .map_err(|error| Refused::new(error.to_string(), error.may_pass()))?;
        let (published, told) = oneshot::channel();
        let sent = self.news.configured.send((configured, published)).await;
        // What has been bound is closed again.
        if sent.is_err() || told.await.is_err() {
            return Err(stopping());
        }
        self.take(prepared).await;
        self.is_blank = is_blank;
        Ok(())
    }

    /// Asks for the names of the first configuration that are not `known` from the disk.
    pub(super) async fn ask_first(
        &self,
        configured: &Configured,
        prepared: &mut prepared::Prepared,
        known: impl Fn(&HostName) -> bool,
    ) -> Vec<Answer> {
        let asked = self.names.first_answers(&configured.config, known, false);
        let (answers, resolving) = asked.await;
        prepared.resolving = resolving;
        answers
    }

    /// What asks Consul, if anything does, from now on and as long as the parts run.
    pub(super) fn asking(&self) -> Arc<ArcSwapOption<Client>> {
        Arc::clone(&self.asking)
    }

    /// Where clients connect, and operators.
    pub(super) fn addresses(&self) -> Bound {
        self.listeners.addresses()
    }
}

impl Refused {
    fn new(mut why: String, may_pass: bool) -> Self {
        if may_pass {
            why = format!(
                "{}\nhint: this may pass: it is tried again of itself, every {LONGEST_PAUSE:?} at last",
                why.trim_end()
            );
        }
        Self { why, may_pass }
    }
}
