//! What runs because of the configuration, and changes with it while the gateway runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::consul::{self, Consul};
use super::listeners::{Listeners, Opened, Serving};
use super::load::{self, Loaded};
use super::names::Names;
use super::nomad::{self, Nomad};
use super::publish::Configured;
use crate::admin;
use crate::config::{self, AdminAddress, Checked, Keepalive, Log, Token};
use crate::lifecycle::Wish;
use crate::name::HostName;
use crate::net::limits::files;
use crate::net::resolve::{Answer, Resolving};
use crate::snapshot::service::Change;
use crate::state::{self, Settings};
use crate::status::{State, Status};
use crate::watch::{self, Files};

/// The part of the status that tells of the configuration.
const CONFIGURATION: &str = "configuration";

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
    sources: admin::Sources,
    news: News,
    path: PathBuf,
    /// What the last configuration was read from, good or not.
    files: Files,
    log: Log,
    /// Where the state is kept, and how the configuration of the start had it.
    state: Option<Arc<state::State>>,
    keeping: Option<Settings>,
    /// Whether the configuration that serves wants one.
    wants_sandbox: bool,
    /// What TLS is made from at the moment.
    loaded: Loaded,
    listeners: Listeners,
    admin: Option<Admin>,
    names: Names,
    consul: Option<Consul>,
    nomad: Option<Nomad>,
    /// All of it: a part that ends by a defect is noticed here.
    tasks: JoinSet<()>,
}

/// The admin interface.
#[derive(Debug)]
struct Admin {
    written: AdminAddress,
    bound: AdminAddress,
    stop: CancellationToken,
}

/// What runs from the next configuration on: everything is bound, and nobody is served by it yet.
#[derive(Debug)]
pub(super) struct Prepared {
    opened: Opened,
    keepalive: Keepalive,
    log: Log,
    wants_sandbox: bool,
    loaded: Loaded,
    keeping: Option<Settings>,
    names: BTreeSet<HostName>,
    /// Those that have been asked for.
    resolving: BTreeMap<HostName, Resolving>,
    admin: Option<AdminChange>,
    token: Option<Token>,
    consul: Option<consul::Prepared>,
    nomad: Option<nomad::Prepared>,
}

#[derive(Debug)]
enum AdminChange {
    Stays,
    New(AdminAddress, admin::Listener),
}

impl Parts {
    /// Nothing yet; later configurations are read from where the first one was.
    pub(super) fn new(
        serving: Serving,
        status: Status,
        sources: admin::Sources,
        news: News,
        first: &Checked,
        state: &Option<Arc<state::State>>,
    ) -> Self {
        Self {
            serving,
            status,
            sources,
            news,
            path: first.warnings.path.clone(),
            files: first.warnings.files.clone(),
            log: first.config.log,
            wants_sandbox: first.config.sandbox,
            loaded: Loaded::default(),
            state: state.clone(),
            keeping: first.config.state.clone(),
            listeners: Listeners::default(),
            admin: None,
            names: Names::default(),
            consul: None,
            nomad: None,
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
        let read = self.read(by).await;
        let status = match &read {
            Ok(()) => "serving",
            Err(_) => "serving by the configuration before: the new one is refused, see the log",
        };
        if !self.serving.shutdown.is_draining() {
            notify.ready(status).await;
        }
        read
    }

    async fn read(&mut self, by: &str) -> Result<(), String> {
        tracing::info!(by, path = %self.path.display(), "reading the configuration");
        match self.follow().await {
            Ok(()) => {
                tracing::info!("the new configuration serves");
                self.status.set(CONFIGURATION, self.certificates());
                self.serving.metrics.reloaded(true);
                Ok(())
            }
            Err(why) => {
                tracing::error!(
                    "the new configuration is refused, the one before serves on:\n{why}"
                );
                let what = load::first_mistake(&why);
                let what = format!(
                    "the file was changed and is refused, the one before serves on: {what}"
                );
                self.status.set(CONFIGURATION, State::Degraded(what));
                self.serving.metrics.reloaded(false);
                Err(why)
            }
        }
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

    async fn follow(&mut self) -> Result<(), String> {
        let path = self.path.clone();
        let checked = tokio::task::spawn_blocking(move || config::load(&path)).await;
        let checked = checked.map_err(|defect| defect.to_string())?;
        self.files = match &checked {
            Ok(checked) => checked.warnings.files.clone(),
            Err(mistakes) => mistakes.files.clone(),
        };
        let checked = checked.map_err(|mistakes| mistakes.render(false))?;
        if checked.warnings.warnings() > 0 {
            tracing::warn!("\n{}", checked.warnings.render(false));
        }
        let (answers, resolving) = self.names.first_answers(&checked.config).await;
        let prepared = self.prepare(checked).await;
        let (mut configured, mut prepared) = prepared.map_err(|error| format!("{error:#}"))?;
        // The stop may have come while names were asked for.
        if self.serving.shutdown.is_draining() {
            return Err("the gateway is stopping".to_owned());
        }
        configured.answers = answers;
        prepared.resolving = resolving;
        let (published, told) = oneshot::channel();
        let sent = self.news.configured.send((configured, published)).await;
        // What has been bound is closed again.
        if sent.is_err() || told.await.is_err() {
            return Err("the gateway is stopping".to_owned());
        }
        self.take(prepared).await;
        Ok(())
    }

    /// Makes and binds all that this configuration needs.
    ///
    /// # Errors
    /// Something cannot be bound, or made from it. Everything is then as it was.
    pub(super) async fn prepare(
        &mut self,
        checked: Checked,
    ) -> anyhow::Result<(Configured, Prepared)> {
        files::suffice(&checked.config.limits, files::limit())?;
        let before = self.loaded.clone();
        // Files are read for it, and a system's roots are hundreds.
        let loading = tokio::task::spawn_blocking(move || load::load(checked, &before));
        let (config, loaded) = loading.await.context("it cannot be loaded")?;
        let admin = match (&config.admin, &self.admin) {
            (None, _) => None,
            (Some(written), Some(running)) if running.written == *written => {
                Some(AdminChange::Stays)
            }
            (Some(written), _) => {
                self.permits(written)?;
                let listener = admin::Listener::bind(written).await?;
                Some(AdminChange::New(written.clone(), listener))
            }
        };
        // The only step that a step behind it could not take back: the last one but those that cannot fail.
        let (client, nomad) = (consul::client(&config)?, nomad::client(&config)?);
        let opened = (self.listeners)
            .open(&config, &self.serving, &mut self.tasks)
            .await?;
        let mut own = opened.addresses();
        let bound = match &admin {
            None => None,
            Some(AdminChange::Stays) => self.admin.as_ref().map(|admin| admin.bound.clone()),
            Some(AdminChange::New(_, listener)) => Some(listener.address()),
        };
        if let Some(AdminAddress::Tcp(address)) = bound {
            own.push(address);
        }
        let own: Arc<[SocketAddr]> = own.into();
        let (listeners, names) = (opened.described(), super::publish::names(&config));
        let prepared = Prepared {
            opened,
            keepalive: config.limits.keepalive,
            log: config.log,
            wants_sandbox: config.sandbox,
            loaded: loaded.clone(),
            keeping: config.state.clone(),
            names,
            resolving: BTreeMap::new(),
            admin,
            token: config.admin_token.clone(),
            consul: consul::prepare(client, &config, &own),
            nomad: nomad::prepare(nomad, &config, &own),
        };
        let configured = Configured {
            config,
            loaded,
            listeners,
            own,
            answers: Vec::new(),
        };
        Ok((configured, prepared))
    }

    /// Serves from it, and ends what it has no more. It is published by now.
    pub(super) async fn take(&mut self, prepared: Prepared) {
        let Prepared {
            opened,
            keepalive,
            log,
            wants_sandbox,
            loaded,
            keeping,
            names,
            resolving,
            admin,
            token,
            consul,
            nomad,
        } = prepared;
        self.loaded = loaded;
        self.sources.token.store(token.map(Arc::new));
        (self.listeners).take(opened, keepalive, &self.serving, &mut self.tasks);
        self.take_admin(admin);
        (self.names).take(names, resolving, &self.news.answers, &mut self.tasks);
        consul::take(
            &mut self.consul,
            consul,
            self.state.as_deref(),
            &self.news.changes,
            &self.status,
            &mut self.tasks,
        )
        .await;
        let (changes, status) = (&self.news.changes, &self.status);
        nomad::take(&mut self.nomad, nomad, changes, status, &mut self.tasks).await;
        if self.keeping != keeping {
            tracing::warn!("`state_dir` has changed: it is kept so from the next start on");
        }
        if self.log != log {
            tracing::warn!("[log] has changed: the log is written so from the next start on");
        }
        if self.serving.handed.sandbox.is_some() && self.wants_sandbox != wants_sandbox {
            tracing::warn!("`insecure_no_sandbox` has changed: it counts at the next start");
        }
        self.wants_sandbox = wants_sandbox;
    }

    /// # Errors
    /// The admin interface would be where the sandbox lets nothing be made.
    fn permits(&self, admin: &AdminAddress) -> anyhow::Result<()> {
        match (admin, &self.serving.handed.sandbox) {
            (AdminAddress::Unix(path), Some(sandbox)) if !sandbox.permits_socket(path) => {
                anyhow::bail!(
                    "`admin` cannot become {admin}: the sandbox was entered at the start, and a UNIX socket can be made \
                     in no other directory until the next one; restart, or keep the directory"
                )
            }
            _ => Ok(()),
        }
    }

    fn take_admin(&mut self, change: Option<AdminChange>) {
        let next = match change {
            Some(AdminChange::Stays) => return,
            Some(AdminChange::New(written, listener)) => {
                let bound = listener.address();
                tracing::info!(address = %bound, "admin interface");
                let stop = CancellationToken::new();
                self.tasks.spawn(admin::serve(
                    listener,
                    self.sources.clone(),
                    self.serving.shutdown.clone(),
                    stop.clone(),
                ));
                Some(Admin {
                    written,
                    bound,
                    stop,
                })
            }
            None => None,
        };
        if let Some(before) = std::mem::replace(&mut self.admin, next) {
            before.stop.cancel();
        }
    }

    /// Where clients connect, in the order of the configuration, and operators.
    pub(super) fn addresses(&self) -> (Vec<SocketAddr>, Option<AdminAddress>) {
        let admin = self.admin.as_ref().map(|admin| admin.bound.clone());
        (self.listeners.addresses(), admin)
    }
}
