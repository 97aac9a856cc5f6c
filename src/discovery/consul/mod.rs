//! Consul's catalog, watched: which services have routes, where they are dialled, and what changed.

mod answers;
mod catalog;
mod checks;
mod doubt;
mod known;
mod listing;
mod reads;
mod report;
mod stored;

use std::collections::{BTreeMap, BTreeSet};
use std::future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::exposure::Exposure;
use super::tags::asks_for_mesh;
use crate::api::consul::{Answer, Client, Error, Query, TokenId, Watch};
use crate::snapshot::service::{Change, Service};
use crate::state::{GRACE, Opened, written};
use answers::{Checks, Entries, Services};
use known::{Known, Read};
use listing::listing;
use report::{Poll, Report};
use stored::Stored;

/// What this part is called in `/readyz`.
pub const PART: &str = "consul";

/// Between two questions whether Consul is there: a blocking query that waits looks like one that hangs.
///
/// 10 s: it costs an agent nothing, and an operator who looks at `/readyz` sees a hanging one within a quarter of a minute.
const PULSE: Duration = Duration::from_secs(10);

/// How long the answer may take. 5 s: it comes from memory; an election in between may take as long.
const PULSE_ANSWER: Duration = Duration::from_secs(5);

/// What a watch has told, and how it came to know: for the watch that follows it.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Every service that has been told of, and is not gone.
    pub services: Vec<Arc<Service>>,
    /// Whether everything was known once.
    pub is_complete: bool,
    /// As whom the catalog was asked last.
    token: Option<TokenId>,
    /// Whether something was left out of its answer.
    filtered: bool,
    /// The services that are from the disk, as Consul has not told them since.
    restored: BTreeSet<Arc<str>>,
    /// When those had been confirmed.
    confirmed: Option<SystemTime>,
    /// Why they are refused by now, and as what they were served before.
    refused: Option<Arc<str>>,
    withheld: BTreeMap<Arc<str>, Arc<Service>>,
    /// Whether the disk has services that nobody has been told of yet.
    leaves_stored: bool,
}

impl Told {
    /// Whether nothing on the disk is any better.
    pub fn replaces_stored(&self) -> bool {
        self.is_complete && !self.leaves_stored
    }

    /// Whether it is served: all was known once, and is not refused for its age.
    pub fn is_served(&self) -> bool {
        self.is_complete && self.refused.is_none()
    }
}

/// Tells of every service in Consul's catalog that is exposed, and of what changes, until the receiver is gone or it is to stop.
///
/// Two blocking queries tell that something has changed: `catalog/services`, and `health/state/any`. What they say is
/// compared with what they said before, and the services that it concerns are read again (`health/service/NAME`,
/// `health/connect/NAME`), or all of them where it does not tell. What fails or is doubted stays as it was last known. What was
/// told `before` is held to be so: only what differs is told, and what is found no more, by the rules for any other.
///
/// What is known is kept in `state`. What was kept there before, if that is to be served, is if Consul cannot be heard at once.
///
/// Returns what has been told, all of which has been sent.
pub async fn watch(
    client: Client,
    exposure: Exposure,
    before: Told,
    state: Option<Opened>,
    changes: mpsc::Sender<Change>,
    stop: CancellationToken,
) -> Told {
    let (send, mut polled) = mpsc::channel(1);
    let mut watcher = Watcher {
        report: Report::after(before.is_complete, before.confirmed),
        told_restored: before.confirmed,
        told_refused: false,
        known: Known::new(exposure, before),
        tasks: JoinSet::new(),
        is_asking: false,
        held_back: None,
        client,
    };
    if let Some(opened) = state {
        watcher.begin_with(opened);
    }
    watcher.poll(&["catalog", "services"], Heard::Catalog, &send);
    watcher.poll(&["health", "state", "any"], Heard::Checks, &send);
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

/// What has come.
enum Heard {
    Catalog(Result<Answer<Services>, Error>),
    Checks(Result<Answer<Checks>, Error>),
    /// What keeps Consul from answering whatever it is asked, if anything does.
    Pulse(Option<String>),
    Read(Arc<str>, Result<Read, Error>),
    /// The catalog, asked for the sake of a doubt.
    Asked(Result<Answer<Services>, Error>),
}

struct Watcher {
    client: Client,
    known: Known,
    report: Report,
    /// The polls, and the reads under way: they end with it.
    tasks: JoinSet<Heard>,
    /// Whether the catalog is being asked for the sake of a doubt.
    is_asking: bool,
    /// Until when what is on the disk waits for Consul, and when it was confirmed.
    held_back: Option<(Instant, SystemTime)>,
    /// What was last told of what is served from the disk, and of what is refused.
    told_restored: Option<SystemTime>,
    told_refused: bool,
}

impl Watcher {
    fn begin_with(&mut self, Opened { part, stored }: Opened) {
        let stored = stored.and_then(|stored| {
            let read = stored.as_ref().map(Stored::read).transpose();
            read.inspect_err(
                |error| tracing::error!(%error, "the services on the disk cannot be read"),
            )
        });
        let stored = stored.unwrap_or_else(|why| {
            tracing::error!(
                "which services the disk had is not known: until consul has answered, another route may take their clients"
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
            let too_old = self.known.judge_stored().err();
            self.known.restore_all();
            match too_old {
                Some(why) if !self.known.is_restored() => self.report.refused(why),
                // What is refused is told of by name.
                Some(_) => self.report.restored(confirmed),
                None if self.known.is_restored() || !self.known.is_whole() => {
                    let at = written(confirmed);
                    tracing::warn!(confirmed = %at, "consul's services are served from the disk, as they were");
                    self.report.restored(confirmed);
                }
                None => {}
            }
        }
    }

    fn poll<T: DeserializeOwned + Send + 'static>(
        &mut self,
        path: &[&str],
        heard: fn(Result<Answer<T>, Error>) -> Heard,
        send: &mpsc::Sender<Heard>,
    ) {
        let mut watch = Watch::new(self.client.clone(), path, &[]);
        let send = send.clone();
        self.tasks.spawn(async move {
            loop {
                let answer = heard(watch.next().await);
                if let Err(mpsc::error::SendError(unheard)) = send.send(answer).await {
                    return unheard;
                }
            }
        });
    }

    /// Asks for the leader (`/v1/status/leader`, which needs no token) every now and then.
    fn feel_pulse(&mut self, send: mpsc::Sender<Heard>) {
        let client = self.client.clone();
        self.tasks.spawn(async move {
            loop {
                sleep(PULSE).await;
                let query = Query {
                    path: &["status", "leader"],
                    ..Query::default()
                };
                let answer = timeout(PULSE_ANSWER, client.read::<IgnoredAny>(&query)).await;
                let trouble = match answer {
                    Ok(answer) => answer.err().as_ref().map(told),
                    Err(_) => Some(format!("consul does not answer within {PULSE_ANSWER:?}")),
                };
                if let Err(mpsc::error::SendError(unheard)) = send.send(Heard::Pulse(trouble)).await
                {
                    return unheard;
                }
            }
        });
    }

    /// Asks whatever is to be asked now.
    fn ask(&mut self) {
        let now = Instant::now();
        while !self.report.is_silent()
            && let Some((name, mesh)) = self.known.next(now)
        {
            let (client, datacenter) = (self.client.clone(), self.known.datacenter());
            self.tasks.spawn(async move {
                let read = read(&client, &name, mesh, &datacenter).await;
                Heard::Read(name, read)
            });
        }
        if !self.is_asking && self.known.ask_at(now).is_some_and(|at| at <= now) {
            self.is_asking = true;
            let client = self.client.clone();
            self.tasks.spawn(async move {
                let query = Query {
                    path: &["catalog", "services"],
                    parameters: &[],
                    consistent: true,
                };
                Heard::Asked(client.read(&query).await)
            });
        }
    }

    /// When something is to be asked though nothing has come.
    fn wake_at(&self) -> Option<Instant> {
        let ask = self.known.ask_at(Instant::now());
        let ask = ask.filter(|_| !self.is_asking);
        let read = self.known.wake_at();
        let read = read.filter(|_| !self.report.is_silent());
        let restore = self.held_back.map(|(until, _)| until);
        ask.into_iter().chain(read).chain(restore).min()
    }

    fn hear(&mut self, heard: Heard, now: Instant) {
        match heard {
            Heard::Catalog(answer) => {
                self.polled(Poll::Catalog, answer.as_ref().err().map(told), now);
                if let Ok(answer) = answer {
                    self.known.catalog(answer, false, now);
                }
            }
            Heard::Checks(answer) => {
                self.polled(Poll::Checks, answer.as_ref().err().map(told), now);
                if let Ok(answer) = answer {
                    self.known.checks(answer.value, now);
                }
            }
            Heard::Pulse(trouble) => self.polled(Poll::Pulse, trouble, now),
            Heard::Read(name, read) => match read {
                Err(error) if error.is_unaskable() => {
                    self.known.refused(&name, error.to_string(), now);
                }
                read => self
                    .known
                    .read(&name, read.map_err(|error| told(&error)), now),
            },
            Heard::Asked(answer) => {
                self.is_asking = false;
                match answer {
                    Ok(answer) => self.known.catalog(answer, true, now),
                    Err(_) => self.known.unanswered(now),
                }
            }
        }
    }

    fn polled(&mut self, poll: Poll, error: Option<String>, now: Instant) {
        if self.report.heard(poll, error) {
            self.known.start_anew(now);
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
        let refusal = self.known.refusal();
        let restored = self.known.restored().filter(|_| refusal.is_none());
        let is_withheld = refusal.is_some();
        // Judged after it: with this all may have become known.
        let state = self.report.news(&self.known);
        let is_refused = is_withheld || self.report.is_refused();
        if std::mem::replace(&mut self.told_restored, restored) != restored {
            news.push(Change::Restored(PART, restored));
        }
        if std::mem::replace(&mut self.told_refused, is_refused) != is_refused {
            news.push(Change::Refused(PART, is_refused));
        }
        news.extend(state.map(|state| Change::State(PART, state)));
        news
    }
}

/// Reads a service; its sidecars too if they are known to be asked for, or its instances ask for them.
async fn read(
    client: &Client,
    name: &Arc<str>,
    mesh: bool,
    datacenter: &Arc<str>,
) -> Result<Read, Error> {
    let entries = async |kind| {
        let query = Query {
            path: &["health", kind, name],
            ..Query::default()
        };
        client.read::<Entries>(&query).await
    };
    let service = entries("service").await?;
    let alone = listing(name, &service.value, None, datacenter);
    let mut instances = alone.found.instances.iter();
    let asks = mesh || instances.any(|instance| asks_for_mesh(&instance.tags));
    // Nothing speaks for what is a sidecar itself.
    if !asks || !alone.stands_for.is_empty() {
        return Ok(Read {
            listing: alone,
            filtered: service.filtered,
        });
    }
    let connect = entries("connect").await?;
    Ok(Read {
        listing: listing(name, &service.value, Some(&connect.value), datacenter),
        filtered: service.filtered || connect.filtered,
    })
}

/// An error as it is told to people.
fn told(error: &Error) -> String {
    match error.is_denied() {
        true => {
            format!("{error} (its ACL token needs service:read and node:read on what is routed)")
        }
        false => error.to_string(),
    }
}
