//! What Consul's intentions allow the gateway, asked before a sidecar cuts anybody off.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Deserialize;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::api::consul::{Client, Error, Query};
use crate::retry::chance;
use crate::snapshot::service::{Change, Service, ServiceKey};
use crate::snapshot::{Snapshot, Source};
use crate::status::State;

/// What this part is called in `/readyz`.
pub const PART: &str = "intentions";

/// So often the routes are looked at for services that are new. One atomic load.
const LOOK: Duration = Duration::from_secs(1);

/// What is allowed, or unknown, is asked again after up to so long.
///
/// 60 s: a denial that comes is enforced by the sidecar at once; only the words for it are late.
const AGAIN: Duration = Duration::from_secs(60);

/// What is denied is asked again so often, as whoever allows it wants to see it work.
const DENIED_AGAIN: Duration = Duration::from_secs(5);

/// A denial that nobody has confirmed for so long counts no more: the sidecar decides.
const LAPSES: Duration = Duration::from_secs(15);

/// As many questions are under way at once.
const AT_ONCE: usize = 4;

/// `GET /v1/connect/intentions/check`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Checked {
    allowed: bool,
}

/// What is known of one service.
#[derive(Debug)]
struct Known {
    /// As it was last told of: what has changed is asked for again.
    service: Option<Arc<Service>>,
    /// As intentions call it.
    destination: Arc<str>,
    /// When it is asked for next; `None` while it is.
    due: Option<Instant>,
    /// When it was last said to be denied, while that counts.
    denied: Option<Instant>,
    /// Why nothing is known.
    failure: Option<Arc<str>>,
}

/// Tells which services of the mesh intentions deny to `source`, as intentions call it, and which no longer, until it is to
/// stop.
///
/// Denied means that the gateway refuses its clients with that reason: through a sidecar they would get a banner and an end.
/// Needs `service:read` on the services; without it, or without an answer, everything is left to the sidecars.
pub async fn watch(
    client: Client,
    source: String,
    snapshot: Arc<ArcSwap<Snapshot>>,
    changes: Sender<Change>,
    stop: CancellationToken,
) {
    let source: Arc<str> = source.into();
    let mut intentions = Intentions::default();
    let mut asked: JoinSet<(ServiceKey, Result<bool, Arc<str>>)> = JoinSet::new();
    let mut generation = None;
    loop {
        let now = Instant::now();
        let current = snapshot.load_full();
        if generation.replace(current.generation) != Some(current.generation) {
            intentions.follow(&current, now);
        }
        drop(current);
        while asked.len() < AT_ONCE
            && let Some((key, destination)) = intentions.next(now)
        {
            let (client, source) = (client.clone(), Arc::clone(&source));
            asked.spawn(async move {
                let answer = ask(&client, &source, &destination).await;
                (key, answer)
            });
        }
        intentions.lapse(now);
        for change in intentions.changes() {
            if changes.send(change).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = changes.closed() => return,
            Some(done) = asked.join_next() => match done {
                Ok((key, answer)) => intentions.hear(&key, answer, &source, Instant::now()),
                Err(error) => if let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic);
                },
            },
            () = sleep_until(now + LOOK) => {}
        }
    }
    for change in intentions.end() {
        // Nobody listens where the process ends.
        let _ = changes.send(change).await;
    }
}

/// What intentions call a service, if it is dialled in the mesh.
fn destination(service: &Service) -> Option<Arc<str>> {
    let mesh = service.upstreams.iter().find_map(|one| one.mesh.as_ref())?;
    Some(mesh.intention_name().into())
}

async fn ask(client: &Client, source: &str, destination: &str) -> Result<bool, Arc<str>> {
    let query = Query {
        path: &["connect", "intentions", "check"],
        parameters: &[("source", source), ("destination", destination)],
        consistent: false,
    };
    let answer = client.read::<Checked>(&query).await;
    answer
        .map(|answer| answer.value.allowed)
        .map_err(|error: Error| match error.is_denied() {
            true => {
                let why = format!("{error} (its ACL token needs service:read on {destination:?})");
                why.into()
            }
            false => error.to_string().into(),
        })
}

#[derive(Debug, Default)]
struct Intentions {
    services: BTreeMap<ServiceKey, Known>,
    told: Option<State>,
    news: Vec<Change>,
}

impl Intentions {
    /// The services of the mesh that there are now.
    fn follow(&mut self, snapshot: &Snapshot, now: Instant) {
        let services = snapshot.services().into_iter();
        let services = services.filter(|service| service.key.source == Source::Consul);
        let wanted: BTreeMap<ServiceKey, (Arc<str>, &Arc<Service>)> = services
            .filter_map(|service| {
                let destination = destination(service)?;
                Some((service.key.clone(), (destination, service)))
            })
            .collect();
        let Self { services, news, .. } = self;
        services.retain(|key, known| {
            let stays = wanted.contains_key(key);
            if !stays && known.denied.is_some() {
                news.push(Change::Intention(key.clone(), false));
            }
            stays
        });
        for (key, (destination, service)) in wanted {
            let known = services.entry(key).or_insert_with(|| Known {
                service: None,
                destination,
                due: Some(now),
                denied: None,
                failure: None,
            });
            let last = known.service.as_ref();
            if last.is_none_or(|last| !Arc::ptr_eq(last, service)) {
                known.service = Some(Arc::clone(service));
                // One that is being asked for is asked for again by the clock.
                known.due = known.due.map(|due| due.min(now));
            }
        }
    }

    /// The next that is to be asked for.
    fn next(&mut self, now: Instant) -> Option<(ServiceKey, Arc<str>)> {
        let is_due = |known: &Known| known.due.is_some_and(|due| due <= now);
        let (key, known) = self.services.iter_mut().find(|(_, known)| is_due(known))?;
        known.due = None;
        Some((key.clone(), Arc::clone(&known.destination)))
    }

    fn hear(
        &mut self,
        key: &ServiceKey,
        answer: Result<bool, Arc<str>>,
        source: &str,
        now: Instant,
    ) {
        let Some(known) = self.services.get_mut(key) else {
            return;
        };
        let was_denied = known.denied.is_some();
        known.failure = answer.as_ref().err().cloned();
        match answer {
            Ok(true) => known.denied = None,
            Ok(false) => known.denied = Some(now),
            Err(_) => {}
        }
        let is_denied = known.denied.is_some();
        let again = if is_denied { DENIED_AGAIN } else { AGAIN };
        // Up to a tenth less, so that those that were asked together do not come back together.
        known.due = Some(now + again.mul_f64(1.0 - chance() / 10.0));
        if was_denied != is_denied {
            let destination = &known.destination;
            match is_denied {
                true => {
                    tracing::warn!(%destination, source, "denied by intention: clients of this service are refused");
                }
                false => tracing::info!(%destination, source, "an intention allows it again"),
            }
            self.news.push(Change::Intention(key.clone(), is_denied));
        }
    }

    /// Takes back what nobody has confirmed.
    fn lapse(&mut self, now: Instant) {
        for (key, known) in &mut self.services {
            if known.denied.is_some_and(|at| at + LAPSES <= now) {
                known.denied = None;
                self.news.push(Change::Intention(key.clone(), false));
            }
        }
    }

    /// What has changed, and then what there is to say of it.
    fn changes(&mut self) -> Vec<Change> {
        let failures = self.services.values();
        let mut failures = failures.filter_map(|known| known.failure.as_ref());
        let state = match (failures.next(), failures.count()) {
            (None, _) => State::Ready,
            (Some(why), more) => State::Degraded(format!(
                "of {} services it is not known whether an intention denies them, and their sidecars decide: {why}",
                1 + more
            )),
        };
        let mut news = std::mem::take(&mut self.news);
        if self.told.as_ref() != Some(&state) {
            self.told = Some(state.clone());
            news.push(Change::State(PART.into(), state));
        }
        news
    }

    /// Nothing is denied by word of one who asks no more.
    fn end(self) -> Vec<Change> {
        let denied = self.services.into_iter();
        let denied = denied.filter(|(_, known)| known.denied.is_some());
        let changes = denied.map(|(key, _)| Change::Intention(key, false));
        changes.chain([Change::Ended(PART.into())]).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::name::MeshService;
    use crate::snapshot::service::{Dialling, ServiceUpstream};

    fn web() -> (Intentions, ServiceKey) {
        let key = ServiceKey {
            source: Source::Consul,
            place: None,
            name: "web".into(),
        };
        let known = Known {
            service: None,
            destination: "web".into(),
            due: Some(Instant::now()),
            denied: None,
            failure: None,
        };
        let mut intentions = Intentions::default();
        intentions.services.insert(key.clone(), known);
        (intentions, key)
    }

    fn denials(changes: &[Change]) -> Vec<bool> {
        let denials = changes.iter().filter_map(|change| match change {
            Change::Intention(_, is_denied) => Some(*is_denied),
            _ => None,
        });
        denials.collect()
    }

    /// By its name alone Consul would take it for another, that of the default namespace.
    #[test]
    fn a_service_is_asked_about_by_its_namespace() {
        let upstream = |mesh| ServiceUpstream {
            name: "web@consul-team".into(),
            endpoints: Vec::new(),
            named: Vec::new(),
            mesh,
            empty: None,
            check: None,
            dialling: Ok(Dialling::default()),
        };
        let of = |upstreams| Service {
            key: web().1,
            upstreams,
            routes: Vec::new(),
            middlewares: BTreeMap::new(),
            skipped: Vec::new(),
            restored: None,
            notes: Vec::new(),
        };
        let mesh = MeshService {
            partition: None,
            namespace: "team".into(),
            datacenter: "dc1".into(),
            service: "web".into(),
        };
        let both = of(vec![upstream(None), upstream(Some(mesh))]);
        assert_eq!(destination(&both).as_deref(), Some("team/web"));
        assert_eq!(destination(&of(vec![upstream(None)])), None);
    }

    #[tokio::test]
    async fn a_denial_is_asked_for_again_soon_and_counts_no_longer_than_it_is_confirmed() {
        let (mut intentions, key) = web();
        let begun = Instant::now();
        assert!(intentions.next(begun).is_some());
        assert!(intentions.next(begun).is_none(), "it is being asked");
        intentions.hear(&key, Ok(false), "edge", begun);
        assert_eq!(denials(&intentions.changes()), [true]);
        assert!(intentions.next(begun + DENIED_AGAIN).is_some());
        intentions.hear(&key, Err("no answer".into()), "edge", begun + DENIED_AGAIN);
        intentions.lapse(begun + LAPSES / 2);
        let changes = intentions.changes();
        assert!(denials(&changes).is_empty(), "{changes:?}");
        let told = |changes: &[Change]| format!("{changes:?}").contains("no answer");
        assert!(told(&changes), "{changes:?}");
        intentions.lapse(begun + LAPSES);
        assert_eq!(denials(&intentions.changes()), [false]);
    }

    #[tokio::test]
    async fn what_is_allowed_is_asked_for_again_within_the_minute_and_an_end_takes_denials_back() {
        let (mut intentions, key) = web();
        let begun = Instant::now();
        intentions.hear(&key, Ok(true), "edge", begun);
        assert!(denials(&intentions.changes()).is_empty());
        assert!(intentions.next(begun + AGAIN / 2).is_none());
        assert!(intentions.next(begun + AGAIN).is_some());
        intentions.hear(&key, Ok(false), "edge", begun + AGAIN);
        assert_eq!(denials(&intentions.changes()), [true]);
        assert_eq!(denials(&intentions.end()), [false]);
    }
}
