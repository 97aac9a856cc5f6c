//! Nomad's own services (`provider = "nomad"`), watched: which have routes, where they are dialled, and what changed.

mod answers;
mod known;
mod listing;
mod report;

use std::future;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::exposure::Exposure;
use super::pulse;
use crate::api::http::{Answer, Client, Error, Query, TokenId, Watch};
use crate::config::Namespaces;
use crate::snapshot::service::{Change, Service};
use answers::{Registrations, Services};
use known::Known;
use report::Report;

/// What this part is called in `/readyz`.
pub const PART: &str = "nomad";

/// The namespace whose services are known by their names alone.
const DEFAULT: &str = "default";

/// What a watch has told, and how it came to know: for the watch that follows it.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Every service that has been told of, and is not gone.
    pub services: Vec<Arc<Service>>,
    /// Whether everything was known once.
    pub is_complete: bool,
    /// As whom Nomad was asked last.
    token: Option<TokenId>,
}

/// Tells of every service of Nomad's own that is exposed, and of what changes, until the receiver is gone or it is to stop.
///
/// A blocking query for each namespace (`/v1/services`), or one for all, tells that something has changed. What it says is
/// compared with what it said before, and the services that it concerns are read again (`/v1/service/NAME`), or all that are
/// routed where it does not tell. What fails or is doubted stays as it was last known. What was told `before` is held to be so:
/// only what differs is told.
///
/// Nomad asks its leader, if nobody allows it to be `stale`: there is no stricter mode, and a doubt is settled by the same
/// question asked again, twice, for the one namespace that is doubted.
///
/// Returns what has been told, all of which has been sent.
pub async fn watch(
    client: Client,
    namespaces: Namespaces,
    exposure: Exposure,
    before: Told,
    changes: mpsc::Sender<Change>,
    stop: CancellationToken,
) -> Told {
    let (send, mut polled) = mpsc::channel(1);
    let mut watcher = Watcher {
        report: Report::after(before.is_complete),
        known: Known::new(exposure, &namespaces, before),
        tasks: JoinSet::new(),
        is_asking: false,
        client,
    };
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
        };
        watcher.hear(heard, Instant::now());
    }
}

/// What a service is called here: as in Nomad, and of another namespace than `default` with that after a dot, which no name in
/// Nomad has.
pub(super) fn key(namespace: &str, name: &str) -> Arc<str> {
    match namespace {
        DEFAULT => name.into(),
        _ => format!("{name}.{namespace}").into(),
    }
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
    known: Known,
    report: Report,
    /// The polls, and the reads under way: they end with it.
    tasks: JoinSet<Heard>,
    /// Whether a namespace is being asked for the sake of a doubt.
    is_asking: bool,
}

impl Watcher {
    fn poll(&mut self, query: Arc<str>, send: mpsc::Sender<Heard>) {
        let client = self.client.clone();
        let mut watch = Watch::new(client, &["services"], &[("namespace", &query)]);
        self.tasks.spawn(async move {
            loop {
                let answer = Heard::Listed(Arc::clone(&query), watch.next().await);
                if let Err(mpsc::error::SendError(unheard)) = send.send(answer).await {
                    return unheard;
                }
            }
        });
    }

    /// Asks every now and then whether anybody answers.
    fn feel_pulse(&mut self, send: mpsc::Sender<Heard>) {
        let client = self.client.clone();
        self.tasks.spawn(async move {
            loop {
                let felt = Heard::Pulse(pulse::beat(&client, None).await);
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
            let client = self.client.clone();
            self.tasks.spawn(async move {
                let (namespace, own) = parts(&name);
                let query = Query {
                    path: &["service", own],
                    parameters: &[("namespace", namespace)],
                    ..Query::default()
                };
                let read = client.read(&query).await;
                Heard::Read(Arc::clone(&name), read.map(|answer| answer.value))
            });
        }
        if !self.is_asking
            && let Some((_, namespace)) = self.known.ask_at(now).filter(|(at, _)| *at <= now)
        {
            self.is_asking = true;
            let (client, namespace) = (self.client.clone(), Arc::clone(namespace));
            self.tasks.spawn(async move {
                let query = Query {
                    path: &["services"],
                    parameters: &[("namespace", &namespace)],
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
        ask.into_iter().chain(read).min()
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
        let mut news = self.known.changes();
        let state = self.report.news(&self.known);
        news.extend(state.map(|state| Change::State(PART.into(), state)));
        news
    }
}

/// An error as it is told to people.
fn told(error: &Error) -> String {
    match error.is_denied() {
        true => format!(
            "{error} (its token needs read-job on each namespace, or to be that of a workload there)"
        ),
        false => error.to_string(),
    }
}
