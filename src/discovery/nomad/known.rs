//! What is known of Nomad's services, and what follows from an answer: what to read again, and what has changed.

mod restore;
mod space;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::super::doubt::Doubts;
use super::super::exposure::{self, Exposure};
use super::super::keeping::Keeping;
use super::super::reads::Reads;
use super::answers::{Names, Registrations, Services};
use super::listing::found;
use super::{Told, key, parts};
use crate::api::http::Answer;
use crate::config::Namespaces;
use crate::snapshot::Source;
use crate::snapshot::service::{Change, Service, ServiceKey};
pub(super) use restore::Stored;
use space::Space;

/// A service whose reading fails is told of after as many tries: a single one is soon made good.
const TRIES_IN_SILENCE: u32 = 2;

/// The first pass, and one after a failure, waits for as many tries to read a service, and no longer: others work.
const TRIES_WAITED_FOR: u32 = 3;

/// What is asked in one blocking query: a namespace, or `*` for all that the token may read.
pub(super) const ALL: &str = "*";

/// Answers go in; what is to be read, and what has changed, come out.
#[derive(Debug)]
pub(super) struct Known {
    exposure: Exposure,
    /// The last index that each query has told, by its namespace or `*`; `None` before its first answer.
    indexes: BTreeMap<Arc<str>, Option<u64>>,
    spaces: BTreeMap<Arc<str>, Space>,
    reads: Reads,
    services: BTreeMap<Arc<str>, Arc<Service>>,
    /// Whether a sweep over everything is owed before anything is whole.
    is_stale: bool,
    keeping: Keeping,
    changes: Vec<Change>,
}

impl Known {
    /// What a watch before this one has told is known, but for namespaces that are not asked for any more, and read again as
    /// soon as anything is. In quiet times everything is read again each `refresh`.
    pub(super) fn new(
        exposure: Exposure,
        namespaces: &Namespaces,
        refresh: Duration,
        before: Told,
    ) -> Self {
        let queries: Vec<Arc<str>> = match namespaces {
            Namespaces::All => vec![ALL.into()],
            Namespaces::Only(names) => names.iter().map(|name| name.as_str().into()).collect(),
        };
        let mut known = Self {
            exposure,
            indexes: queries
                .iter()
                .map(|query| (Arc::clone(query), None))
                .collect(),
            spaces: BTreeMap::new(),
            reads: Reads::new(refresh),
            services: BTreeMap::new(),
            is_stale: false,
            keeping: Keeping::after(before.kept),
            changes: Vec::new(),
        };
        let mut inherited: BTreeMap<Arc<str>, BTreeSet<Arc<str>>> = BTreeMap::new();
        for service in before.services {
            let name = Arc::clone(&service.key.name);
            let (namespace, _) = parts(&name);
            if *namespaces != Namespaces::All && !queries.iter().any(|of| **of == *namespace) {
                known.keeping.forget(&name);
                known.changes.push(Change::Gone(service.key.clone()));
                continue;
            }
            let names = inherited.entry(namespace.into()).or_default();
            names.insert(Arc::clone(&name));
            known.services.insert(name, service);
        }
        for (namespace, names) in inherited {
            let space = Space {
                doubts: Doubts::inheriting(names, before.token, false),
                ..Space::default()
            };
            known.spaces.insert(namespace, space);
        }
        known
    }

    /// What is asked again and again.
    pub(super) fn queries(&self) -> Vec<Arc<str>> {
        self.indexes.keys().cloned().collect()
    }

    /// Takes in the answer to a query.
    pub(super) fn catalog(&mut self, query: &Arc<str>, mut answer: Answer<Services>, now: Instant) {
        let Services {
            mut namespaces,
            unreadable,
        } = std::mem::take(&mut answer.value);
        let answer = answer.map(drop);
        let had_begun = self.has_begun();
        let before = self
            .indexes
            .insert(Arc::clone(query), Some(answer.index))
            .flatten();
        let asked: Vec<Arc<str>> = match &**query {
            ALL => {
                let known = self.spaces.keys().chain(namespaces.keys());
                known
                    .cloned()
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .collect()
            }
            _ => vec![Arc::clone(query)],
        };
        let (mut has_changed, mut is_settled) = (false, false);
        for namespace in asked {
            let names = namespaces.remove(&namespace).unwrap_or_default();
            let taken = self.take_names(&namespace, (names, unreadable), &answer, false, now);
            has_changed |= taken.has_changed;
            is_settled |= taken.is_settled;
        }
        if !self.has_begun() {
            return;
        }
        let Some(before) = before.filter(|_| had_begun && !is_settled) else {
            return self.start_anew(now);
        };
        if answer.index < before || (answer.index > before && !has_changed) {
            self.reads.sweep_now(now);
        } else if has_changed {
            self.reads.sweep_soon(now);
        }
    }

    /// Takes in the answer to the question about one namespace that was asked for the sake of a doubt.
    pub(super) fn asked(
        &mut self,
        namespace: &Arc<str>,
        mut answer: Answer<Services>,
        now: Instant,
    ) {
        let mut services = std::mem::take(&mut answer.value);
        let names = services.namespaces.remove(namespace).unwrap_or_default();
        let listed = (names, services.unreadable);
        let taken = self.take_names(namespace, listed, &answer.map(drop), true, now);
        if taken.is_settled && self.has_begun() {
            self.start_anew(now);
        } else if taken.has_changed {
            self.reads.sweep_soon(now);
        }
    }

    /// The question that was asked for the sake of a doubt has no answer.
    pub(super) fn unanswered(&mut self, namespace: &Arc<str>, now: Instant) {
        if let Some(space) = self.spaces.get_mut(namespace) {
            space.doubts.unanswered(now);
        }
    }

    /// The namespace that is to be asked for the sake of a doubt, and when.
    pub(super) fn ask_at(&self, now: Instant) -> Option<(Instant, &Arc<str>)> {
        let spaces = self.spaces.iter();
        let doubted = spaces.filter_map(|(name, space)| Some((space.doubts.ask_at(now)?, name)));
        doubted.min()
    }

    /// Takes in what was read of a service, or why it could not be read: then it stays as it was.
    pub(super) fn read(
        &mut self,
        name: &Arc<str>,
        outcome: Result<Registrations, String>,
        now: Instant,
    ) {
        let outcome = outcome.and_then(|registrations| self.take(name, &registrations));
        self.reads.done(name, outcome, now);
    }

    /// Everything may have changed.
    pub(super) fn start_anew(&mut self, now: Instant) {
        self.is_stale = true;
        self.reads.sweep_now(now);
    }

    /// The service that is to be read next, if there is one now.
    pub(super) fn next(&mut self, now: Instant) -> Option<Arc<str>> {
        if !self.has_begun() {
            return None;
        }
        if self.reads.is_sweep_due(now) {
            let routed = self.spaces.values().flat_map(Space::routed);
            let wanted = self.exposure.wanted.keys();
            let wanted = wanted.map(|name| name.as_str().into());
            let names = routed.chain(self.services.keys().cloned()).chain(wanted);
            let names = names.collect();
            self.reads.sweep(names, now);
            self.is_stale = false;
        }
        self.reads.next(now)
    }

    /// When [`next`](Self::next) is to be called though nothing has come.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.has_begun().then(|| self.reads.wake_at()).flatten()
    }

    /// Whether what a watch before this one knew has not been found or missed in an answer that can be believed.
    pub(super) fn is_inheriting(&self) -> bool {
        (self.spaces.values()).any(|space| space.doubts.is_inheriting())
    }

    /// Whether something is served that was kept by a process before, and not read since.
    pub(super) fn is_restored(&self) -> bool {
        self.keeping.is_restored()
    }

    /// When that was confirmed, if there is something.
    pub(super) fn restored(&self) -> Option<SystemTime> {
        self.keeping.restored()
    }

    /// Why that is refused, if it is, and whether nothing else is known.
    pub(super) fn refusal(&self) -> Option<(&str, bool)> {
        self.keeping.refusal(self.services.len())
    }

    /// Whether what was kept is young enough to be served; where it is not, it is restored as refused.
    ///
    /// # Errors
    /// It is too old.
    pub(super) fn judge_kept(&self) -> Result<(), String> {
        self.keeping.judge_kept()
    }

    /// Waits until the age of what is served from the disk is judged otherwise; `None` if there is nothing to judge.
    pub(super) fn turned(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        self.keeping.turned()
    }

    /// What has changed since this was last called, in order.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Whether everything has been read that was to be read, as far as it can be.
    pub(super) fn is_whole(&self) -> bool {
        let mut failed = self.reads.failed().values();
        self.has_begun()
            && !self.is_stale
            && self.reads.are_done()
            && failed.all(|failed| failed.tries >= TRIES_WAITED_FOR)
    }

    /// What an operator should know of it, though Nomad answers.
    pub(super) fn trouble(&self) -> Option<String> {
        let mut spaces = self.spaces.values();
        if let Some(doubt) = spaces.find_map(|space| space.doubts.told("nomad")) {
            return Some(doubt);
        }
        let unreadable = self.spaces.values().map(|space| space.unreadable).max();
        if let Some(entries @ 1..) = unreadable {
            return Some(format!(
                "{entries} entries of nomad's list of services cannot be read: none is given up that is not in it"
            ));
        }
        let mut failed = self.reads.failed().iter();
        let (name, first) = failed.find(|(_, failed)| failed.tries >= TRIES_IN_SILENCE)?;
        let more = failed.filter(|(_, failed)| failed.tries >= TRIES_IN_SILENCE);
        Some(format!(
            "{} of nomad's services cannot be read, and stay as they were; {name:?}: {}",
            1 + more.count(),
            first.why
        ))
    }

    /// Every query has been answered. What is read before may change unnoticed.
    fn has_begun(&self) -> bool {
        self.indexes.values().all(Option::is_some)
    }

    /// What is listed in a namespace now, and how many entries could not be read.
    fn take_names(
        &mut self,
        namespace: &Arc<str>,
        (names, unreadable): (Names, usize),
        answer: &Answer<()>,
        asked: bool,
        now: Instant,
    ) -> Taken {
        let exposure = &self.exposure;
        let space = self.spaces.entry(Arc::clone(namespace)).or_default();
        let names = names
            .0
            .into_iter()
            .map(|(name, tags)| (key(namespace, &name), tags));
        let changed = space.take(names.collect(), unreadable, exposure);
        let routed = space.routed().collect();
        let Space { listed, doubts, .. } = space;
        let was_inheriting = doubts.is_inheriting();
        let is_listed = |name: &str| listed.contains_key(name);
        let gone = doubts.judge(answer, &routed, is_listed, asked, now);
        let is_settled = was_inheriting && !doubts.is_inheriting();
        let missing = self.keeping.waiting().filter(|name| doubts.keep(name));
        let missing: BTreeSet<Arc<str>> = missing.cloned().collect();
        self.restore(|name| missing.contains(name));
        for name in gone {
            if self.is_wanted(&name) {
                self.keeping.forget(&name);
                self.reads.now(&name);
            } else {
                self.reads.forget(&name);
                self.give_up(&name);
            }
        }
        for name in &changed {
            if routed.contains(name) || self.services.contains_key(name) {
                self.reads.now(name);
            }
        }
        Taken {
            has_changed: !changed.is_empty(),
            is_settled,
        }
    }

    fn take(&mut self, name: &Arc<str>, registrations: &Registrations) -> Result<(), String> {
        let (namespace, own) = parts(name);
        let space = self.spaces.get(namespace);
        let is_listed = space.is_some_and(|space| space.listed.contains_key(name));
        if !is_listed && !self.services.contains_key(name) && !self.is_wanted(name) {
            return Ok(());
        }
        if registrations.0.is_empty() {
            if space.is_some_and(|space| space.doubts.keep(name)) {
                return Ok(());
            }
            if is_listed {
                return Err("nomad lists it, and nothing is listed of it".to_owned());
            }
        }
        let mut unreadable = registrations
            .0
            .iter()
            .filter_map(|entry| entry.as_ref().err());
        if let Some(why) = unreadable.next() {
            let entries = 1 + unreadable.count();
            return Err(format!(
                "of {entries} of its entries nobody can say what they ask for: {why}"
            ));
        }
        let found = found(
            name,
            (namespace, own),
            registrations,
            self.exposure.allow_local_addresses,
        );
        let service = exposure::service(&found, &self.exposure);
        if service.is_idle() && !self.is_wanted(name) {
            self.give_up(name);
            return Ok(());
        }
        self.keeping.put(&found);
        self.tell(name, service);
        Ok(())
    }

    /// Tells of a service, if that is news.
    fn tell(&mut self, name: &Arc<str>, service: Service) {
        if self.services.get(name).is_none_or(|last| **last != service) {
            let service = Arc::new(service);
            self.changes.push(Change::Service(Arc::clone(&service)));
            self.services.insert(Arc::clone(name), service);
        }
    }

    /// Whether an upstream of the file stands for it.
    fn is_wanted(&self, name: &str) -> bool {
        self.exposure.wanted.contains_key(name)
    }

    fn give_up(&mut self, name: &Arc<str>) {
        self.keeping.forget(name);
        if self.services.remove(name).is_some() {
            self.changes.push(Change::Gone(ServiceKey {
                place: None,
                source: Source::Nomad,
                name: Arc::clone(name),
            }));
        }
    }
}

/// What a list was compared with the one before.
struct Taken {
    has_changed: bool,
    /// What a watch before this one knew has been found, or is given up.
    is_settled: bool,
}
