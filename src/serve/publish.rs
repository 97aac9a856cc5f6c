//! The only writer of snapshots: takes in what changed, compiles, and publishes the result as one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::mpsc::Receiver;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

mod configured;
mod dangling;
mod named;
mod report;

use super::addresses::Addresses;
use crate::config::RemovedRoutes;
use crate::metrics::Metrics;
use crate::name::HostName;
use crate::net::resolve::Answer;
use crate::net::session::Sessions;
use crate::reason::Reason;
use crate::snapshot::Snapshot;
use crate::snapshot::compile::{Inputs, compile, update};
use crate::snapshot::service::{Change, Service, ServiceKey};
use crate::snapshot::table::RouteId;
use crate::state::{GRACE, written};
use crate::status::{State, Status};
pub(super) use configured::Configured;
use dangling::Dangling;
pub(super) use named::names;
use named::{Named, moved};

/// The part of the status that tells of upstreams' names.
pub(super) const NAMES: &str = "names";

/// Holds the inputs and publishes what they compile to.
pub(super) struct Publisher {
    inputs: Inputs,
    cell: Arc<ArcSwap<Snapshot>>,
    metrics: Arc<Metrics>,
    status: Status,
    /// Names that have not been answered yet, for good or ill.
    waiting: BTreeSet<HostName>,
    /// Whether all were, once: names that a later configuration adds keep nobody away who was served before.
    has_been_ready: bool,
    /// Names without any address but what the disk may have.
    failing: BTreeSet<HostName>,
    /// What services are registered with.
    named: Named,
    /// Until when names without an answer wait for what the disk has of them.
    grace: Option<Instant>,
    /// What they name of the file in vain.
    dangling: Dangling,
    /// What the disk has.
    kept: Addresses,
    /// What was last told of what is served from there.
    told_restored: Option<SystemTime>,
    /// Routes that are gone, and whose connections have not been told.
    gone: Vec<RouteId>,
    /// The number of the last one.
    published: watch::Sender<u64>,
}

impl Publisher {
    /// Publishes the first snapshot, in this cell.
    pub(super) fn new(
        inputs: Inputs,
        cell: Arc<ArcSwap<Snapshot>>,
        metrics: Arc<Metrics>,
        status: Status,
        mut kept: Addresses,
        told_names: watch::Sender<BTreeSet<HostName>>,
    ) -> Self {
        let first = compile(&inputs, None, &metrics);
        metrics.published(first.generation);
        let published = watch::Sender::new(first.generation);
        expiries(&inputs, &metrics);
        cell.store(Arc::new(first));
        let waiting = names(&inputs.config);
        kept.retain(&waiting);
        let grace = (!waiting.is_empty()).then(|| Instant::now() + GRACE);
        let mut publisher = Self {
            inputs,
            cell,
            metrics,
            status,
            waiting,
            has_been_ready: false,
            failing: BTreeSet::new(),
            named: Named::new(told_names),
            grace,
            dangling: Dangling::default(),
            kept,
            told_restored: None,
            gone: Vec::new(),
            published,
        };
        publisher.report();
        publisher
    }

    /// Tells of each snapshot that is published from now on, by its number.
    pub(super) fn published(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// Takes in answers, changes and configurations until none are to come. What waits together is published as one.
    pub(super) async fn run(
        mut self,
        mut answers: Receiver<Answer>,
        mut changes: Receiver<Change>,
        mut configured: Receiver<(Configured, oneshot::Sender<()>)>,
        sessions: Sessions,
    ) {
        let mut ending = JoinSet::new();
        loop {
            let (mut heard, mut learnt, mut next) = (Vec::new(), Vec::new(), None);
            let (mut is_late, mut is_turned) = (false, false);
            // A channel that is at its end has nothing to give, and leaves the other alone.
            tokio::select! {
                1.. = answers.recv_many(&mut heard, answers.max_capacity()) => {}
                1.. = changes.recv_many(&mut learnt, changes.max_capacity()) => {}
                Some(configured) = configured.recv() => next = Some(configured),
                Some(_) = ending.join_next() => continue,
                () = sleep_until(self.grace.unwrap_or_else(Instant::now)), if self.grace.is_some() => {
                    is_late = true;
                }
                () = self.kept.turned(), if self.kept.has_restored() => is_turned = true,
                else => return,
            }
            // Connections share this thread. Among 100,000 routes a change takes a tenth of a millisecond (a full batch
            // some of them), everything anew half a second; the way to another thread a hundredth of one.
            let taking_in = tokio::task::spawn_blocking(move || {
                if !heard.is_empty() {
                    self.hear(heard);
                }
                if is_late {
                    self.restore();
                }
                if is_turned {
                    self.judge();
                }
                if !learnt.is_empty() {
                    self.learn(learnt);
                }
                if let Some((configured, published)) = next {
                    self.configure(configured);
                    // Whoever sent it may have gone.
                    let _ = published.send(());
                }
                self
            });
            self = match taking_in.await {
                Ok(publisher) => publisher,
                Err(defect) if defect.is_panic() => resume_unwind(defect.into_panic()),
                // The process ends.
                Err(_) => return,
            };
            let gone = std::mem::take(&mut self.gone);
            if let RemovedRoutes::End(span) = self.inputs.config.limits.removed_routes
                && !gone.is_empty()
            {
                ending.spawn(end(gone, span, sessions.clone(), Arc::clone(&self.cell)));
            }
        }
    }

    /// Everything anew from this configuration, with what names resolved to and what discovery has told.
    fn configure(&mut self, mut configured: Configured) {
        let answers = std::mem::take(&mut configured.answers);
        let wanted = names(&configured.config);
        let before = names(&self.inputs.config);
        self.waiting.retain(|name| wanted.contains(name));
        let chosen = self.named.chosen();
        (self.failing).retain(|name| wanted.contains(name) || chosen.contains(name));
        (self.waiting).extend(wanted.difference(&before).cloned());
        self.kept.retain(&wanted);
        let mut addresses = std::mem::take(&mut self.inputs.addresses);
        addresses.retain(|name, _| wanted.contains(name) || chosen.contains(name));
        let consul = configured.config.consul.as_ref();
        let has_identity = consul.is_some_and(|consul| consul.mesh_identity.is_some());
        let identity = self.inputs.identity.take();
        self.inputs = Inputs {
            addresses,
            identity: identity.filter(|_| has_identity),
            denied: std::mem::take(&mut self.inputs.denied),
            ..configured.inputs()
        };
        for answer in answers {
            self.take(answer);
        }
        self.inputs.restored = self.kept.restored();
        if !has_identity {
            self.metrics.identity(None);
        }
        expiries(&self.inputs, &self.metrics);
        self.publish(&BTreeMap::new(), true);
        (self.dangling).follow(&self.cell.load(), &self.inputs.config);
        self.report();
    }

    /// Takes in what names resolve to.
    pub(super) fn hear(&mut self, answers: impl IntoIterator<Item = Answer>) {
        let before = self.inputs.addresses.clone();
        for answer in answers {
            self.take(answer);
        }
        self.follow(&before);
    }

    /// Names without an answer have waited long enough for what the disk has.
    fn restore(&mut self) {
        let before = self.inputs.addresses.clone();
        self.grace = None;
        let chosen = self.named.chosen().iter();
        let unanswered = chosen.filter(|name| !before.contains_key(*name));
        for name in self.waiting.iter().chain(unanswered) {
            let kept = self.kept.restore(name);
            (self.inputs.addresses).extend(kept.map(|addresses| (name.clone(), addresses)));
        }
        self.follow(&before);
    }

    /// What the disk has may be too old by now, or good again.
    fn judge(&mut self) {
        let before = self.inputs.addresses.clone();
        for (name, addresses) in self.kept.judge() {
            match addresses {
                Some(addresses) => drop(self.inputs.addresses.insert(name, addresses)),
                None => {
                    self.inputs.addresses.remove(&name);
                    // It has waited for its first answer long enough.
                    self.waiting.remove(&name);
                    self.failing.insert(name);
                }
            }
        }
        self.follow(&before);
    }

    /// Publishes the addresses, if they are others than these, or come from elsewhere.
    fn follow(&mut self, before: &BTreeMap<HostName, Vec<IpAddr>>) {
        let restored = self.kept.restored();
        let last = std::mem::replace(&mut self.inputs.restored, restored);
        let moved = moved(before, &self.inputs.addresses);
        if !moved.is_empty() || self.inputs.restored != last {
            let chosen = self.named.chosen();
            let everything = self.inputs.restored != last
                || !moved.is_subset(chosen)
                || !moved.is_disjoint(&names(&self.inputs.config));
            let snapshot = self.cell.load();
            let services = self.named.services(&moved).filter_map(|key| {
                let service = snapshot.service(key)?;
                Some((key.clone(), Some(Arc::clone(service))))
            });
            let services = services.collect();
            self.publish(&services, everything);
        }
        self.report();
    }

    /// Changes in the order in which they were sent: of a service, the last word counts.
    fn learn(&mut self, changes: impl IntoIterator<Item = Change>) {
        let mut services = BTreeMap::new();
        let mut states = Vec::new();
        let mut judged = BTreeSet::new();
        let mut everything = false;
        for change in changes {
            match change {
                Change::Service(service) => {
                    services.insert(service.key.clone(), Some(service));
                }
                Change::Gone(key) => {
                    services.insert(key, None);
                }
                Change::Identity(identity) => {
                    let not_after = identity.as_ref().map(|identity| identity.not_after);
                    self.metrics.identity(not_after);
                    self.inputs.identity = identity;
                    everything = true;
                }
                Change::Intention(key, is_denied) => {
                    match is_denied {
                        true => self.inputs.denied.insert(key.clone()),
                        false => self.inputs.denied.remove(&key),
                    };
                    judged.insert(key);
                }
                Change::Restored(part, confirmed) => self.metrics.restored(&part, confirmed),
                Change::Refused(part, is_refused) => self.metrics.state_refused(&part, is_refused),
                Change::State(part, state) => states.push((part, Some(state))),
                Change::Ended(part) => {
                    self.metrics.restored(&part, None);
                    self.metrics.state_refused(&part, false);
                    states.push((part, None));
                }
            }
        }
        // What has been judged otherwise is compiled anew, as it is.
        let snapshot = self.cell.load();
        for key in judged {
            if let Some(service) = snapshot.service(&key) {
                let service = Arc::clone(service);
                services.entry(key).or_insert(Some(service));
            }
        }
        drop(snapshot);
        let told = services.iter();
        let told = told.map(|(key, told)| (key, told.as_deref()));
        (self.dangling).learn(told.clone(), &self.inputs.config);
        let has_other_names = self.named.learn(told);
        if everything || !services.is_empty() {
            self.publish(&services, everything);
        }
        if has_other_names {
            self.forget_names();
            self.grace.get_or_insert_with(|| Instant::now() + GRACE);
        }
        for (part, state) in states {
            match state {
                Some(state) => self.status.set(&part, state),
                None => self.status.remove(&part),
            }
        }
    }

    /// What nobody has any more is kept for a while, as who had it may come back before its resolving has ended.
    fn forget_names(&mut self) {
        let (chosen, wanted) = (self.named.chosen(), names(&self.inputs.config));
        let is_had = |name: &HostName| chosen.contains(name) || wanted.contains(name);
        self.failing.retain(is_had);
        self.kept.serve(chosen);
        self.kept.retain(&wanted);
        if self.inputs.addresses.len() > wanted.len() + 2 * named::MOST_NAMES {
            self.inputs.addresses.retain(|name, _| is_had(name));
        }
        self.report();
    }

    fn take(&mut self, Answer { name, addresses }: Answer) {
        self.waiting.remove(&name);
        match addresses {
            Ok(addresses) => {
                self.failing.remove(&name);
                let of_service = self.named.chosen().contains(&name);
                self.kept.put(&name, &addresses, of_service);
                self.inputs.addresses.insert(name, addresses);
            }
            Err(_) => {
                if let Some(addresses) = self.kept.restore(&name) {
                    self.inputs.addresses.insert(name.clone(), addresses);
                }
                self.failing.insert(name);
            }
        }
    }

    /// Publishes these services, and everything else anew where more than services has changed.
    fn publish(&mut self, services: &BTreeMap<ServiceKey, Option<Arc<Service>>>, everything: bool) {
        let last = self.cell.load_full();
        let mut next = update(&self.inputs, &last, services, &self.metrics);
        if everything {
            let (generation, gone) = (next.generation, std::mem::take(&mut next.gone));
            next = compile(&self.inputs, Some(&next), &self.metrics);
            next.generation = generation;
            self.gone.extend(gone);
        }
        self.gone.append(&mut next.gone);
        for ((source, standing), count) in next.standings() {
            let (source, state) = (source.as_str(), standing.as_str());
            self.metrics.services(source, state, *count);
        }
        let generation = next.generation;
        self.metrics.published(generation);
        self.cell.store(Arc::new(next));
        self.published.send_replace(generation);
    }
}

/// Ends what goes through these routes, but for those that have come back by then.
async fn end(gone: Vec<RouteId>, span: Duration, sessions: Sessions, cell: Arc<ArcSwap<Snapshot>>) {
    let chosen = |route: Option<&str>| {
        let gone = gone.iter().find(|id| Some(&*id.name) == route);
        gone.is_some_and(|id| !cell.load().has(id))
    };
    sessions.end(Reason::RouteGone, span, chosen).await;
}

fn expiries(inputs: &Inputs, metrics: &Metrics) {
    let certificates = inputs.certificates.iter();
    metrics.certificates(
        certificates.map(|found| (found.source.display().to_string(), found.not_after)),
    );
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
