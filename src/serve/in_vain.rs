//! What is asked for in vain, logged and counted as it changes: what services do not get, and routes that get no clients.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep};

use crate::log::printable;
use crate::metrics::Metrics;
use crate::name::quoted;
use crate::snapshot::Snapshot;
use crate::snapshot::service::{Service, ServiceKey};
use crate::snapshot::table::RouteId;

/// Snapshots are looked at so far apart, and at most a twentieth of the time: who hides whom among 100,000 routes takes
/// a fraction of a second to find out.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
const SHARE: u32 = 20;

/// So many lines are logged at once, and one in so long afterwards; the rest is a number in one line a look. Whoever
/// may register services can spoil ten thousand of them, again and again.
const AT_ONCE: u32 = 20;
const EACH: Duration = Duration::from_secs(1);

/// As much is shown of a reason, in bytes: it may quote tags.
const REASON_SHOWN: usize = 500;

/// Looks at what is published, until nothing is any more.
pub(super) async fn watch(
    cell: Arc<ArcSwap<Snapshot>>,
    mut published: Receiver<u64>,
    metrics: Arc<Metrics>,
) {
    let mut told = Told::default();
    loop {
        published.mark_unchanged();
        let snapshot = cell.load_full();
        // Connections share this thread.
        let looking = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let news = told.follow(&snapshot, began);
            (told, news, began.elapsed())
        });
        let (news, took);
        (told, news, took) = match looking.await {
            Ok(looked) => looked,
            Err(defect) if defect.is_panic() => resume_unwind(defect.into_panic()),
            // The process ends.
            Err(_) => return,
        };
        metrics.shadowed(told.shadowed.len());
        news.iter().for_each(News::log);
        sleep(BETWEEN_LOOKS.max(SHARE * took)).await;
        if published.changed().await.is_err() {
            return;
        }
    }
}

/// What was asked for in vain when it was last looked at.
#[derive(Debug, Default)]
struct Told {
    /// The services of which something is skipped.
    skipped: BTreeMap<ServiceKey, Arc<Service>>,
    /// The routes that get no clients, and who takes them.
    shadowed: BTreeMap<RouteId, RouteId>,
    words: Words,
}

impl Told {
    /// Takes in what is published now; returns what is to be logged of it.
    fn follow(&mut self, snapshot: &Snapshot, now: Instant) -> Vec<News> {
        let mut news = Vec::new();
        let services = snapshot.services().into_iter();
        let skipped: BTreeMap<_, _> = services
            .filter(|service| !service.skipped.is_empty())
            .map(|service| (service.key.clone(), Arc::clone(service)))
            .collect();
        for (key, service) in &skipped {
            let last = self.skipped.get(key);
            if !last.is_some_and(|last| is_skipped_alike(last, service)) {
                news.push(News::Skipped(Arc::clone(service)));
            }
        }
        let shadowed = self.shadows(snapshot);
        for (route, by) in &shadowed {
            if self.shadowed.get(route) != Some(by) {
                news.push(News::Shadowed(route.clone(), by.clone()));
            }
        }
        let no_more = self.skipped.keys().filter(|key| !skipped.contains_key(key));
        let mended = no_more.filter(|key| snapshot.service(key).is_some());
        news.extend(mended.cloned().map(News::Mended));
        let no_more = self.shadowed.keys();
        let no_more = no_more.filter(|route| !shadowed.contains_key(route));
        let lit = no_more.filter(|route| snapshot.table.route(route).is_some());
        news.extend(lit.cloned().map(News::Lit));
        (self.skipped, self.shadowed) = (skipped, shadowed);
        self.words.limit(news, now)
    }

    fn shadows(&self, snapshot: &Snapshot) -> BTreeMap<RouteId, RouteId> {
        let mut shadows = snapshot.table.shadows();
        let mut shadowed = BTreeMap::new();
        for route in snapshot.table.routes() {
            if let Some(by) = shadows.of(route) {
                shadowed.insert(route.id(), by.id());
            }
        }
        if !shadows.is_complete() {
            // What was not looked at is as it was.
            for (route, by) in &self.shadowed {
                let are_there = [route, by].map(|id| snapshot.table.route(id).is_some());
                if are_there == [true; 2] {
                    shadowed.entry(route.clone()).or_insert_with(|| by.clone());
                }
            }
        }
        shadowed
    }
}

/// Whether the same was skipped, in whatever order, and of whichever of several instances.
fn is_skipped_alike(last: &Arc<Service>, now: &Arc<Service>) -> bool {
    let asked = |service: &Arc<Service>| -> BTreeSet<_> {
        let skipped = service.skipped.iter();
        skipped
            .map(|skipped| (skipped.router.clone(), Arc::clone(&skipped.reason)))
            .collect()
    };
    Arc::ptr_eq(last, now) || asked(last) == asked(now)
}

/// Something that has changed.
#[derive(Clone, Debug, PartialEq)]
enum News {
    /// Something is skipped of the service, or something else than before.
    Skipped(Arc<Service>),
    /// Nothing is skipped of it any more.
    Mended(ServiceKey),
    /// The first gets no clients, as the second takes all of them.
    Shadowed(RouteId, RouteId),
    /// It may get clients again.
    Lit(RouteId),
    /// So many of the first kind, the third, and the others have no line of their own.
    More(usize, usize, usize),
}

impl News {
    fn log(&self) {
        match self {
            Self::Skipped(service) => {
                let Some(first) = service.skipped.first() else {
                    return;
                };
                tracing::warn!(
                    service = %quoted(&service.key.name),
                    source = %service.key.provider(),
                    instance = first.instance.as_deref().map(quoted),
                    router = first.router.as_deref().map(quoted),
                    reason = %printable(&*first.reason, REASON_SHOWN),
                    others = service.skipped.len() - 1,
                    "a service asks for what it does not get"
                );
            }
            Self::Mended(key) => tracing::info!(
                service = %quoted(&key.name),
                source = %key.provider(),
                "a service gets all that it asks for again"
            ),
            Self::Shadowed(route, by) => tracing::warn!(
                route = %quoted(&route.name),
                source = route.source.as_str(),
                by = %quoted(&by.name),
                by_source = by.source.as_str(),
                "a route gets no clients: another takes all of them"
            ),
            Self::Lit(route) => tracing::info!(
                route = %quoted(&route.name),
                source = route.source.as_str(),
                "a route may get clients again: no other takes all of them"
            ),
            Self::More(skipped, shadowed, mended) => tracing::warn!(
                skipped,
                shadowed,
                mended,
                "more services and routes ask in vain, or do so no more, than have a line each: /v1/routes lists them"
            ),
        }
    }
}

/// How many lines there may be.
#[derive(Debug, Default)]
struct Words {
    /// When all lines so far would have been logged, had they come at even distances.
    even: Option<Instant>,
}

impl Words {
    /// The first of these, and the number of the rest.
    fn limit(&mut self, mut news: Vec<News>, now: Instant) -> Vec<News> {
        let even = self.even.map_or(now, |even| even.max(now));
        let ahead = even.duration_since(now).as_secs_f64() / EACH.as_secs_f64();
        // What is begun of a line's time counts as all of it.
        let room = AT_ONCE.saturating_sub(ahead.ceil() as u32);
        let rest = news.split_off(news.len().min(room as usize));
        let lines = u32::try_from(news.len()).unwrap_or(AT_ONCE);
        self.even = Some(even + EACH * lines);
        if !rest.is_empty() {
            let count = |is_it: fn(&&News) -> bool| rest.iter().filter(is_it).count();
            let skipped = count(|one| matches!(one, News::Skipped(_)));
            let shadowed = count(|one| matches!(one, News::Shadowed(..)));
            let others = rest.len() - skipped - shadowed;
            news.push(News::More(skipped, shadowed, others));
        }
        news
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
