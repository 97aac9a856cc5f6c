//! Consul's catalog, watched: which services have routes, where they are dialled, and what changed.

mod answers;
mod aside;
mod asking;
mod catalog;
mod checks;
pub mod intentions;
mod known;
mod listing;
mod nodes;
mod report;
mod stored;

pub use asking::{Asking, part};

use std::collections::{BTreeMap, BTreeSet};
use std::future;
use std::sync::Arc;
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::exposure::Exposure;
use super::pulse;
use crate::api::consul::{Answer, Client, Error, Query, TokenId, Watch};
use crate::snapshot::service::{Change, Service, ServiceKey};
use crate::state::{GRACE, Opened, written};
use answers::{Checks, Services};
use aside::aside;
use asking::told;
use known::Known;
pub use listing::Addressing;
use listing::Listing;
use nodes::{Look, look};
use report::{Poll, Report};
use stored::Stored;

/// What a watch has told, and how it came to know: for the watch that follows it.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Every service that has been told of, and is not gone.
    pub services: Vec<Arc<Service>>,
    /// Those of which there was only something to be noted.
    noted: BTreeMap<Arc<str>, Arc<Service>>,
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
    /// Each of them, and each of which there was only something to be noted.
    pub fn keys(&self) -> impl Iterator<Item = &ServiceKey> {
        let all = self.services.iter().chain(self.noted.values());
        all.map(|service| &service.key)
    }

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
/// `health/connect/NAME`); where it does not tell, those that have changed on their nodes (`catalog/node-services/NODE`), or
/// all. What fails or is doubted stays as it was last known. What was
/// told `before` is held to be so: only what differs is told, and what is found no more, by the rules for any other.
///
/// What is known is kept in `state`. What was kept there before, if that is to be served, is if Consul cannot be heard at once.
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
    let mut watcher = Watcher {
        report: Report::after(&asking.place, before.is_complete, before.confirmed),
        told_restored: before.confirmed,
        told_refused: false,
        known: Known::new(&asking.place, exposure, asking.refresh, before),
        tasks: JoinSet::new(),
        is_asking: false,
        held_back: None,
        client,
        part: part(&asking.place).into(),
        asking,
    };
    if let Some(opened) = state {
        watcher.begin_with(opened);
    }
    watcher.poll(&["catalog", "services"], Heard::Catalog, &send);
    watcher.poll(&["health", "state", "any"], Heard::Checks, &send);
    watcher.feel_pulse(send);
    loop {
        watcher.ask();
        for change in watcher.news().await {
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
        watcher.hear(heard, Instant::now()).await;
    }
}

/// What has come.
enum Heard {
    Catalog(Result<Answer<Services>, Error>),
    Checks(Result<Answer<Checks>, Error>),
    /// What keeps Consul from answering whatever it is asked, if anything does.
    Pulse(Option<String>),
    Read(Arc<str>, Box<Result<Listing, Error>>),
    /// What is registered on the nodes.
    Looked(Look),
    /// The catalog, as it is every now and then.
    Listed(Result<Answer<Services>, Error>),
    /// The catalog, asked for the sake of a doubt.
    Asked(Result<Answer<Services>, Error>),
}

struct Watcher {
    /// What it is called in `/readyz`.
    part: Arc<str>,
    client: Client,
    asking: Asking,
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
            let stored = stored.as_ref();
            let read = stored.map(|stored| Stored::read(stored, &self.asking.place));
            let read = read.transpose();
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
    async fn restore(&mut self, now: Instant) {
        if let Some((until, confirmed)) = self.held_back
            && (until <= now || self.report.is_troubled())
        {
            self.held_back = None;
            let too_old = self.known.judge_stored().err();
            aside(&mut self.known, Known::restore_all).await;
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
        let asking = self.asking.clone();
        let mut watch = Watch::new(self.client.clone(), path, &asking.parameters());
        let send = send.clone();
        self.tasks.spawn(async move {
            loop {
                let answer = watch.next().await;
                let answer = answer
                    .and_then(|answer| asking.fresh(answer).inspect_err(|_| watch.begin_anew()));
                if let Err(mpsc::error::SendError(unheard)) = send.send(heard(answer)).await {
                    return unheard;
                }
            }
        });
    }

    /// Asks every now and then whether anybody answers.
    fn feel_pulse(&mut self, send: mpsc::Sender<Heard>) {
        let (client, place) = (self.client.clone(), self.asking.place.clone());
        self.tasks.spawn(async move {
            loop {
                let datacenter = place.datacenter.as_deref().map(|name| ("dc", name));
                let trouble = pulse::beat(&client, datacenter).await;
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
            let (asking, terms) = (self.asking.clone(), self.known.terms().clone());
            self.tasks.spawn(async move {
                let asks = |tags: &[Arc<str>]| mesh || terms.asks_for_mesh(tags);
                let read = asking.read(&client, &name, asks, &datacenter).await;
                Heard::Read(name, Box::new(read))
            });
        }
        if self.look_at().is_some_and(|at| at <= now) {
            let many = self.known.look(now);
            let look = look(self.client.clone(), self.asking.clone(), many);
            self.tasks.spawn(async move { Heard::Looked(look.await) });
        }
        if self.known.is_to_be_listed() {
            let (client, asking) = (self.client.clone(), self.asking.clone());
            self.tasks.spawn(async move {
                let query = Query {
                    path: &["catalog", "services"],
                    parameters: &asking.parameters(),
                    consistent: false,
                };
                let answer = client.read(&query).await;
                Heard::Listed(answer.and_then(|answer| asking.fresh(answer)))
            });
        }
        if !self.is_asking && self.known.ask_at(now).is_some_and(|at| at <= now) {
            self.is_asking = true;
            let (client, place) = (self.client.clone(), self.asking.place.clone());
            self.tasks.spawn(async move {
                let query = Query {
                    path: &["catalog", "services"],
                    parameters: &place.parameters(),
                    consistent: true,
                };
                Heard::Asked(client.read(&query).await)
            });
        }
    }

    fn look_at(&self) -> Option<Instant> {
        let at = self.known.look_at();
        at.filter(|_| !self.report.is_silent())
    }

    /// When something is to be asked though nothing has come.
    fn wake_at(&self) -> Option<Instant> {
        let ask = self.known.ask_at(Instant::now());
        let ask = ask.filter(|_| !self.is_asking);
        let read = self.known.wake_at();
        let read = read.filter(|_| !self.report.is_silent());
        let restore = self.held_back.map(|(until, _)| until);
        let all = [ask, read, self.look_at(), restore];
        all.into_iter().flatten().min()
    }

    async fn hear(&mut self, heard: Heard, now: Instant) {
        match heard {
            Heard::Catalog(answer) => {
                self.polled(
                    Poll::Catalog,
                    answer.as_ref().err().map(|error| self.told_of(error)),
                    now,
                );
                if let Ok(answer) = answer {
                    let take = move |known: &mut Known| known.catalog(answer, false, now);
                    aside(&mut self.known, take).await;
                }
            }
            Heard::Checks(answer) => {
                self.polled(
                    Poll::Checks,
                    answer.as_ref().err().map(|error| self.told_of(error)),
                    now,
                );
                if let Ok(answer) = answer {
                    let take =
                        move |known: &mut Known| known.checks(answer.value, answer.index, now);
                    aside(&mut self.known, take).await;
                }
            }
            Heard::Pulse(trouble) => self.polled(Poll::Pulse, trouble, now),
            Heard::Read(name, read) => match *read {
                Err(error) if error.is_unaskable() => {
                    self.known.refused(&name, error.to_string(), now);
                }
                read => {
                    let read = read.map_err(|error| self.told_of(&error));
                    aside(&mut self.known, move |known| known.read(&name, read, now)).await;
                }
            },
            Heard::Looked(look) => {
                aside(&mut self.known, move |known| known.looked(look, now)).await;
            }
            Heard::Listed(Ok(answer)) => {
                aside(&mut self.known, move |known| known.listed(answer, now)).await;
            }
            // The polls tell of what is wrong.
            Heard::Listed(Err(_)) => {}
            Heard::Asked(answer) => {
                self.is_asking = false;
                match answer {
                    // Nothing is given up on the word of one that may be behind.
                    Ok(answer) if !answer.stale => {
                        aside(&mut self.known, move |known| {
                            known.catalog(answer, true, now)
                        })
                        .await;
                    }
                    Ok(_) | Err(_) => self.known.unanswered(now),
                }
            }
        }
    }

    fn polled(&mut self, poll: Poll, error: Option<String>, now: Instant) {
        if self.report.heard(poll, error) {
            self.known.start_anew(now);
        }
    }

    fn told_of(&self, error: &Error) -> String {
        told(error, &self.asking.place)
    }

    fn told(&self) -> Told {
        Told {
            is_complete: self.report.is_complete(),
            ..self.known.told()
        }
    }

    /// What has changed, and then what there is to say of it.
    async fn news(&mut self) -> Vec<Change> {
        self.restore(Instant::now()).await;
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
            news.push(Change::Restored(Arc::clone(&self.part), restored));
        }
        if std::mem::replace(&mut self.told_refused, is_refused) != is_refused {
            news.push(Change::Refused(Arc::clone(&self.part), is_refused));
        }
        if !self.asking.place.is_further {
            self.report.login(self.client.login_trouble());
        }
        news.extend(state.map(|state| Change::State(Arc::clone(&self.part), state)));
        news
    }
}
