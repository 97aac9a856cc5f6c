//! Nomad's own services (`provider = "nomad"`), watched: which have routes, where they are dialled, and what changed.

mod answers;
mod asking;
mod known;
mod listing;
mod report;

use std::future;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::exposure::Exposure;
use super::keeping::Left;
use super::pulse;
use crate::api::http::{Answer, Client, Error, Query, TokenId, Watch};
use crate::config::nomad as names;
use crate::config::nomad::DEFAULT;
use crate::snapshot::service::{Change, Service};
use crate::state::{GRACE, Opened, written};
use answers::{Registrations, Services};
pub use asking::Asking;
use asking::told;
use known::{Known, Stored};
use report::Report;

/// What this part is called in `/readyz`, and on the disk.
pub const PART: &str = "nomad";

/// What a watch has told, and how it came to know: for the watch that follows it.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Every service that has been told of, and is not gone.
    pub services: Vec<Arc<Service>>,
    /// Whether everything was known once.
    pub is_complete: bool,
    /// As whom Nomad was asked last.
    token: Option<TokenId>,
    /// What becomes of what is from the disk.
    kept: Left,
}

impl Told {
    /// Whether nothing on the disk is any better.
    pub fn replaces_stored(&self) -> bool {
        self.is_complete && !self.kept.has_waiting()
    }

    /// Whether it is served: all was known once, and is not refused for its age.
    pub fn is_served(&self) -> bool {
        self.is_complete && !self.kept.is_refused()
    }
}

/// Tells of every service of Nomad's own that is exposed, and of what changes, until the receiver is gone or it is to stop.
///
/// A blocking query for each namespace (`/v1/services`), or one for all, tells that something has changed. What it says is
/// compared with what it said before, and the services that it concerns are read again (`/v1/service/NAME`), or all that are
/// routed where it does not tell. What fails or is doubted stays as it was last known. What was told `before` is held to be so:
/// only what differs is told.
///
/// Nomad asks its leader, if nobody allows it to be `stale`: there is no stricter mode, and a doubt is settled by the leader,
/// asked again, twice, for the one namespace that is doubted.
///
/// What is known is kept in `state`. What was kept there before, if that is to be served, is if Nomad cannot be heard at once.
///
/// Returns what has been told, all of which has been sent.
pub async fn watch(
    client: Client,
    asking: Asking,
    exposure: Exposure,
    before: Told,
    state: Option<Opened>,
    changes: mpsc::Sender<Change>,
    stop: CancellationToken,
) -> Told {
    let (send, mut polled) = mpsc::channel(1);
    let restored = before.kept.confirmed();
    let mut watcher = Watcher {
        report: Report::after(before.is_complete, restored),
        told_restored: restored,
        told_refused: false,
        known: Known::new(exposure, &asking.namespaces, asking.refresh, before),
        tasks: JoinSet::new(),
        is_asking: false,
        held_back: None,
        client,
        asking: Arc::new(asking),
    };
    if let Some(opened) = state {
        watcher.begin_with(opened);
    }
    for query in watcher.known.queries() {
        watcher.poll(query, send.clone());
    }
    watcher.feel_pulse(send);
    loop {
        watcher.ask();
        for change in watcher.news() {
            if changes.send(change).await.is_err() {
                return watcher.told();
            }
        }
        let wake_at = watcher.wake_at();
        let wake = async {
            match wake_at {
                Some(at) => sleep_until(at).await,
                None => future::pending().await,
            }
        };
        let turned = watcher.known.turned();
        let turn = async {
            match turned {
                Some(turned) => turned.await,
                None => future::pending().await,
            }
        };
        let heard = tokio::select! {
            () = changes.closed() => return watcher.told(),
            () = stop.cancelled() => return watcher.told(),
            Some(heard) = polled.recv() => heard,
            Some(done) = watcher.tasks.join_next() => match done {
                Ok(heard) => heard,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => continue,
                },
            },
            () = wake => continue,
            () = turn => continue,
        };
        watcher.hear(heard, Instant::now());
    }
}

/// What a service [is called](crate::config::NomadService::key) here.
pub(super) fn key(namespace: &str, name: &str) -> Arc<str> {
    names::key(namespace, name).into()
}

/// The namespace of a service, and what it is called there.
pub(super) fn parts(key: &str) -> (&str, &str) {
    match key.split_once('.') {
        Some((name, namespace)) => (namespace, name),
        None => (DEFAULT, key),
    }
}

/// What has come.
enum Heard {
    /// The answer to a query, by its namespace.
    Listed(Arc<str>, Result<Answer<Services>, Error>),
    /// What keeps Nomad from answering whatever it is asked, if anything does.
    Pulse(Option<String>),
    Read(Arc<str>, Result<Registrations, Error>),
    /// A namespace, asked for the sake of a doubt.
    Asked(Arc<str>, Result<Answer<Services>, Error>),
}

struct Watcher {
    client: Client,
    asking: Arc<Asking>,
    known: Known,
    report: Report,
    /// The polls, and the reads under way: they end with it.
    tasks: JoinSet<Heard>,
    /// Whether a namespace is being asked for the sake of a doubt.
    is_asking: bool,
    /// Until when what is on the disk waits for Nomad, and when it was confirmed.
    held_back: Option<(Instant, SystemTime)>,
    /// What was last told of what is served from the disk, and of what is refused.
    told_restored: Option<SystemTime>,
    told_refused: bool,
}

impl Watcher {
    fn begin_with(&mut self, Opened { part, stored }: Opened) {
        let stored = stored.and_then(|stored| {
            let stored = stored.as_ref();
            let read = stored.map(|stored| Stored::read(stored, &self.asking.namespaces));
            let read = read.transpose();
            read.inspect_err(
                |error| tracing::error!(%error, "the services on the disk cannot be read"),
            )
        });
        let stored = stored.unwrap_or_else(|why| {
            tracing::error!(
                "which services the disk had is not known: until nomad has answered, another route may take their clients"
            );
            self.report.refused(why);
            None
        });
        let confirmed = stored.as_ref().map(|stored| stored.confirmed);
        self.held_back = confirmed.map(|confirmed| (Instant::now() + GRACE, confirmed));
        self.known.keep(part, stored);
    }

    /// Serves what is on the disk, if it is time to; what is too old is restored as refused.
    fn restore(&mut self, now: Instant) {
        if let Some((until, confirmed)) = self.held_back
            && (until <= now || self.report.is_troubled())
        {
            self.held_back = None;
            let too_old = self.known.judge_kept().err();
            self.known.restore_all();
            match too_old {
                Some(why) if !self.known.is_restored() => self.report.refused(why),
                // What is refused is told of by name.
                Some(_) => self.report.restored(confirmed),
                None if self.known.is_restored() || !self.known.is_whole() => {
                    let at = written(confirmed);
                    tracing::warn!(confirmed = %at, "nomad's services are served from the disk, as they were");
                    self.report.restored(confirmed);
                }
                None => {}
            }
        }
    }

    fn poll(&mut self, query: Arc<str>, send: mpsc::Sender<Heard>) {
        let asking = Arc::clone(&self.asking);
        let parameters = asking.parameters(&query);
        let mut watch = Watch::new(self.client.clone(), &["services"], &parameters);
        drop(parameters);
        self.tasks.spawn(async move {
            loop {
                let answer = watch.next().await;
                let answer = answer
                    .and_then(|answer| asking.fresh(answer).inspect_err(|_| watch.begin_anew()));
                let answer = Heard::Listed(Arc::clone(&query), answer);
                if let Err(mpsc::error::SendError(unheard)) = send.send(answer).await {
                    return unheard;
                }
            }
        });
    }

    /// Asks every now and then whether anybody answers.
    fn feel_pulse(&mut self, send: mpsc::Sender<Heard>) {
        let (client, asking) = (self.client.clone(), Arc::clone(&self.asking));
        self.tasks.spawn(async move {
            loop {
                let felt = Heard::Pulse(pulse::beat(&client, asking.of_region()).await);
                if let Err(mpsc::error::SendError(unheard)) = send.send(felt).await {
                    return unheard;
                }
            }
        });
    }

    /// Asks whatever is to be asked now.
    fn ask(&mut self) {
        let now = Instant::now();
        while !self.is_silent()
            && let Some(name) = self.known.next(now)
        {
            let (client, asking) = (self.client.clone(), Arc::clone(&self.asking));
            self.tasks.spawn(async move {
                let (namespace, own) = parts(&name);
                let query = Query {
                    path: &["service", own],
                    parameters: &asking.parameters(namespace),
                    ..Query::default()
                };
                let read = client.read(&query).await;
                let read = read.and_then(|answer| asking.fresh(answer));
                Heard::Read(Arc::clone(&name), read.map(|answer| answer.value))
            });
        }
        if !self.is_asking
            && let Some((_, namespace)) = self.known.ask_at(now).filter(|(at, _)| *at <= now)
        {
            self.is_asking = true;
            let (client, namespace) = (self.client.clone(), Arc::clone(namespace));
            let asking = Arc::clone(&self.asking);
            self.tasks.spawn(async move {
                let query = Query {
                    path: &["services"],
                    parameters: &asking.of_the_leader(&namespace),
                    ..Query::default()
                };
                let answer = client.read(&query).await;
                Heard::Asked(Arc::clone(&namespace), answer)
            });
        }
    }

    fn is_silent(&self) -> bool {
        self.report.is_silent(self.known.queries().len())
    }

    /// When something is to be asked though nothing has come.
    fn wake_at(&self) -> Option<Instant> {
        let ask = self.known.ask_at(Instant::now()).map(|(at, _)| at);
        let ask = ask.filter(|_| !self.is_asking);
        let read = self.known.wake_at().filter(|_| !self.is_silent());
        let restore = self.held_back.map(|(until, _)| until);
        ask.into_iter().chain(read).chain(restore).min()
    }

    fn hear(&mut self, heard: Heard, now: Instant) {
        match heard {
            Heard::Listed(query, answer) => {
                if self.report.heard(&query, answer.as_ref().err().map(told)) {
                    self.known.start_anew(now);
                }
                if let Ok(answer) = answer {
                    self.known.catalog(&query, answer, now);
                }
            }
            Heard::Pulse(trouble) => {
                if self.report.felt(trouble) {
                    self.known.start_anew(now);
                }
            }
            Heard::Read(name, read) => {
                let read = read.map_err(|error| told(&error));
                self.known.read(&name, read, now);
            }
            Heard::Asked(namespace, answer) => {
                self.is_asking = false;
                match answer {
                    Ok(answer) => self.known.asked(&namespace, answer, now),
                    Err(_) => self.known.unanswered(&namespace, now),
                }
            }
        }
    }

    fn told(&self) -> Told {
        Told {
            is_complete: self.report.is_complete(),
            ..self.known.told()
        }
    }

    /// What has changed, and then what there is to say of it.
    fn news(&mut self) -> Vec<Change> {
        self.restore(Instant::now());
        if !self.report.is_troubled() {
            self.known.confirm();
        }
        self.known.judge();
        let mut news = self.known.changes();
        let is_withheld = self.known.refusal().is_some();
        let restored = self.known.restored().filter(|_| !is_withheld);
        // Judged after it: with this all may have become known.
        let state = self.report.news(&self.known);
        let is_refused = is_withheld || self.report.is_refused();
        if std::mem::replace(&mut self.told_restored, restored) != restored {
            news.push(Change::Restored(PART.into(), restored));
        }
        if std::mem::replace(&mut self.told_refused, is_refused) != is_refused {
            news.push(Change::Refused(PART.into(), is_refused));
        }
        news.extend(state.map(|state| Change::State(PART.into(), state)));
        news
    }
}
