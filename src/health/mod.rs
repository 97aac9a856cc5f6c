//! Active checks of upstreams: which endpoints are due, so many at once, and what their outcomes change.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

mod check;

use crate::metrics::Checked;
use crate::retry::chance;
use crate::snapshot::Snapshot;
use crate::snapshot::upstream::Upstream;
use crate::status::{State, Status};
use check::{Check, Outcome};

/// The part of the status that tells of upstreams of which every endpoint fails its check; it is there only then.
pub const PART: &str = "health";

/// As many checks run at once; the others wait for their turn.
///
/// 64: a thousand endpoints that all hang for 5 s are through in 80 s, and what they take of open files is noticed by no
/// connection.
const AT_ONCE: usize = 64;

/// How long after a new snapshot it is read for what is to be checked: a burst of them is read once.
///
/// 500 ms: what is new waits for its first check far longer than that.
const SETTLING: Duration = Duration::from_millis(500);

/// As many upstreams are named in the status.
const NAMED: usize = 5;

/// Checks what the snapshots in the cell want checked; `published` tells of each that is new. Ends with its sender.
///
/// An endpoint counts as good until its first check, which comes at a moment by chance within the first interval: neither a
/// start nor a reload brings a burst. What is checked already goes on in its own time, whatever is published.
pub async fn watch(cell: Arc<ArcSwap<Snapshot>>, mut published: Receiver<u64>, status: Status) {
    let mut board = Board::new(status);
    let mut running = JoinSet::new();
    // The first one may have been published before anybody could be told.
    let mut read_at = Some(Instant::now());
    loop {
        let due = board.next().filter(|_| running.len() < AT_ONCE);
        let now = Instant::now();
        tokio::select! {
            told = published.changed() => match told {
                Ok(()) => _ = read_at.get_or_insert(now + SETTLING),
                Err(_) => return,
            },
            () = sleep_until(read_at.unwrap_or(now)), if read_at.is_some() => {
                read_at = None;
                board.follow(&cell.load());
            }
            () = sleep_until(due.unwrap_or(now)), if due.is_some() => {
                if let Some((key, check)) = board.take(&cell.load()) {
                    running.spawn(async move { (key, check.run().await) });
                }
            }
            Some(ended) = running.join_next() => match ended {
                Ok((key, outcome)) => board.learn(key, outcome, &cell.load()),
                Err(defect) if defect.is_panic() => resume_unwind(defect.into_panic()),
                // The process ends.
                Err(_) => return,
            },
        }
    }
}

/// An endpoint of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    upstream: Arc<str>,
    address: SocketAddr,
}

/// What is checked, and when next.
#[derive(Debug)]
struct Board {
    status: Status,
    /// When the next check of each begins; `None` while one runs.
    known: HashMap<Key, Option<Instant>>,
    /// The same in the order of time.
    due: BTreeSet<(Instant, Key)>,
    /// The upstreams that are checked.
    upstreams: BTreeSet<Arc<str>>,
    /// Those of which every endpoint fails.
    failing: BTreeSet<Arc<str>>,
}

impl Board {
    fn new(status: Status) -> Self {
        Self {
            status,
            known: HashMap::new(),
            due: BTreeSet::new(),
            upstreams: BTreeSet::new(),
            failing: BTreeSet::new(),
        }
    }

    /// When the next check is due.
    fn next(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// What is to be checked from now on, by a new snapshot.
    fn follow(&mut self, snapshot: &Snapshot) {
        let now = Instant::now();
        let before = std::mem::take(&mut self.known);
        let mut upstreams = BTreeSet::new();
        let failing = self.failing.clone();
        for upstream in snapshot.upstreams() {
            let Some(check) = &upstream.check else {
                if self.upstreams.contains(&upstream.name) {
                    forget(upstream);
                }
                continue;
            };
            for (endpoint, state) in upstream.checked() {
                let interval = match state.check() {
                    Some(Err(_)) => check.unhealthy_interval,
                    Some(Ok(())) | None => check.interval,
                };
                let soon = now + interval.mul_f64(chance());
                let key = Key {
                    upstream: Arc::clone(&upstream.name),
                    address: endpoint.address,
                };
                let due = match before.get(&key) {
                    // The interval has become shorter.
                    Some(Some(due)) if *due > now + interval.mul_f64(1.2) => Some(soon),
                    Some(due) => *due,
                    None => Some(soon),
                };
                self.known.insert(key, due);
            }
            self.count(upstream);
            upstreams.insert(Arc::clone(&upstream.name));
        }
        let known = self.known.iter();
        self.due = known
            .filter_map(|(key, due)| Some(((*due)?, key.clone())))
            .collect();
        self.failing.retain(|name| upstreams.contains(name));
        self.upstreams = upstreams;
        if self.failing != failing {
            self.tell();
        }
    }

    /// The check that is due; `None` where what it is of has gone since.
    fn take(&mut self, snapshot: &Snapshot) -> Option<(Key, Check)> {
        let (_, key) = self.due.pop_first()?;
        let found = snapshot.upstream(&key.upstream).filter(|upstream| {
            let mut checked = upstream.checked();
            checked.any(|(endpoint, _)| endpoint.address == key.address)
        });
        let check = found.and_then(|upstream| Check::of(upstream, key.address, snapshot));
        match check {
            Some(check) => {
                self.known.insert(key.clone(), None);
                Some((key, check))
            }
            None => {
                self.known.remove(&key);
                None
            }
        }
    }

    /// Takes in what a check came to, and says when the next one is.
    fn learn(&mut self, key: Key, outcome: Outcome, snapshot: &Snapshot) {
        let Some(slot @ None) = self.known.get_mut(&key) else {
            return;
        };
        let found = snapshot.upstream(&key.upstream);
        let Some((upstream, check)) = found.and_then(|found| Some((found, found.check.as_ref()?)))
        else {
            self.known.remove(&key);
            return;
        };
        let interval = match &outcome {
            Outcome::Failed(_) => check.unhealthy_interval,
            Outcome::Passed | Outcome::Unasked => check.interval,
        };
        // Nothing that began together stays together.
        let due = Instant::now() + interval.mul_f64(0.9 + chance() / 5.0);
        *slot = Some(due);
        self.due.insert((due, key.clone()));
        let outcome = match outcome {
            Outcome::Passed => Ok(()),
            Outcome::Failed(why) => Err(why),
            Outcome::Unasked => return,
        };
        let (name, address) = (&key.upstream, key.address);
        let mut is_news = false;
        for (endpoint, state) in upstream.checked() {
            if endpoint.address == address {
                is_news |= state.checked(outcome.clone());
            }
        }
        if is_news {
            match outcome {
                Ok(()) => {
                    tracing::info!(upstream = %name, endpoint = %address, "the endpoint passes its health check again");
                }
                Err(error) => {
                    tracing::warn!(upstream = %name, endpoint = %address, %error, "the endpoint fails its health check, and is passed over");
                }
            }
        }
        if self.count(upstream) {
            self.tell();
        }
    }

    /// Counts what is known of an upstream's endpoints. Tells whether it is news that all fail, or that not all do.
    fn count(&mut self, upstream: &Upstream) -> bool {
        let mut counts = Checked::default();
        for (_, state) in upstream.checked() {
            match state.check() {
                None => counts.unchecked += 1,
                Some(Ok(())) => counts.passing += 1,
                Some(Err(_)) => counts.failing += 1,
            }
        }
        upstream.metrics.checked(counts);
        match counts.failing > 0 && counts.passing + counts.unchecked == 0 {
            true => self.failing.insert(Arc::clone(&upstream.name)),
            false => self.failing.remove(&upstream.name),
        }
    }

    fn tell(&self) {
        if self.failing.is_empty() {
            self.status.remove(PART);
            return;
        }
        let named = self.failing.iter().take(NAMED);
        let named: Vec<&str> = named.map(|name| &**name).collect();
        let more = match self.failing.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let what = format!(
            "every endpoint fails its health check, and all are tried: {}{more}",
            named.join(", ")
        );
        self.status.set(PART, State::Degraded(what));
    }
}

/// An upstream that is checked no more.
fn forget(upstream: &Upstream) {
    for (_, state) in upstream.states() {
        state.unchecked();
    }
    upstream.metrics.checked(Checked::default());
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
