//! What is known of Consul's services, and what follows from an answer: what to read again, and what has changed.

mod restore;
mod seeking;
mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::super::doubt::{ASKED_AGAIN, Doubts};
use super::super::exposure::{self, Exposure};
use super::super::instance::Found;
use super::super::reads::Reads;
use super::super::terms::Terms;
use super::Told;
use super::answers;
use super::catalog::Catalog;
use super::checks::Checks;
use super::listing::{Listing, Newest};
use super::nodes::Looks;
use super::stored;
use crate::api::consul::Answer;
use crate::config::Place;
use crate::snapshot::service::{Change, Service};
use crate::state::Part;

/// While ACLs hide some services, whether they still do is asked so often. 60 s: as often as what is seen is read again.
const LOOKED_AGAIN: Duration = Duration::from_secs(60);

/// The first pass, and one after a failure, waits for as many tries to read a service, and no longer: others work.
const TRIES_WAITED_FOR: u32 = 3;

/// Everything that is known. Answers go in; what is to be read, and what has changed, come out.
#[derive(Debug)]
pub(super) struct Known {
    /// The label of the catalog.
    place: Option<Arc<str>>,
    exposure: Exposure,
    /// The last index of the catalog; `None` before its first answer.
    index: Option<u64>,
    catalog: Catalog,
    /// `None` before their first answer.
    checks: Option<Checks>,
    /// The index of that, or of the last.
    checked: u64,
    doubts: Doubts,
    reads: Reads,
    looks: Looks,
    /// Whether the catalog is to be asked for as it is, as the services are: the poll may hang.
    is_to_be_listed: bool,
    services: BTreeMap<Arc<str>, Held>,
    /// Those that are not read, and were told of all the same: their tags ask for nothing that is served here.
    noted: BTreeMap<Arc<str>, Arc<Service>>,
    /// The datacenter that answers, once an answer has told.
    datacenter: Option<Arc<str>>,
    /// Whether it was asked without a token where what no policy allows is denied.
    is_denied: bool,
    /// Whether the last answer about the catalog left something out that the token may not see.
    filtered: bool,
    /// When the catalog was last asked for the sake of a doubt.
    asked: Option<Instant>,
    /// Whether a sweep over everything is owed before anything is whole.
    is_stale: bool,
    /// Where what is read is kept, if anywhere.
    part: Option<Part>,
    /// What was kept by a process before, and neither served nor read yet.
    stored: BTreeMap<Arc<str>, Found>,
    /// What is served from there, as nothing newer was read.
    restored: BTreeSet<Arc<str>>,
    /// When all of that had been confirmed.
    confirmed: Option<SystemTime>,
    /// Why it is refused by now, and as what it was served before.
    refused: Option<Arc<str>>,
    withheld: BTreeMap<Arc<str>, Arc<Service>>,
    /// Whether all that was kept has been confirmed once, or is kept no more.
    is_confirmed: bool,
    changes: Vec<Change>,
}

/// A service that has been told of.
#[derive(Debug)]
struct Held {
    told: Arc<Service>,
    nodes: BTreeSet<Arc<str>>,
    speakers: BTreeSet<Arc<str>>,
    /// How many spoke for it in the mesh, where anybody has looked.
    sidecars: Option<usize>,
    filtered: bool,
    newest: Newest,
}

impl Known {
    /// Knows nothing, and would read nothing again.
    pub(super) fn unknowing() -> Self {
        let place = Place::default();
        Self::new(&place, Exposure::default(), Duration::MAX, Told::default())
    }

    /// What a watch before this one has told is known, and read again as soon as anything is.
    /// In quiet times everything is read again each `refresh`.
    pub(super) fn new(place: &Place, exposure: Exposure, refresh: Duration, before: Told) -> Self {
        let services = before.services.into_iter().map(|told| {
            let held = Held {
                told,
                nodes: BTreeSet::new(),
                speakers: BTreeSet::new(),
                sidecars: None,
                filtered: false,
                newest: Newest::default(),
            };
            (Arc::clone(&held.told.key.name), held)
        });
        let services: BTreeMap<_, _> = services.collect();
        let names = services.keys().cloned().collect();
        Self {
            place: place.label.clone(),
            exposure,
            doubts: Doubts::inheriting(names, before.token, before.filtered),
            services,
            noted: before.noted,
            restored: before.restored,
            confirmed: before.confirmed,
            refused: before.refused,
            withheld: before.withheld,
            reads: Reads::new(refresh),
            looks: Looks::default(),
            is_to_be_listed: false,
            index: None,
            catalog: Catalog::default(),
            checks: None,
            checked: 0,
            datacenter: place.datacenter.as_deref().map(Into::into),
            is_denied: false,
            filtered: false,
            asked: None,
            is_stale: false,
            part: None,
            stored: BTreeMap::new(),
            is_confirmed: false,
            changes: Vec::new(),
        }
    }

    /// Takes in the catalog. `asked` says that it was asked for the sake of a doubt, in consistent mode.
    pub(super) fn catalog(
        &mut self,
        mut answer: Answer<answers::Services>,
        asked: bool,
        now: Instant,
    ) {
        let changed = self
            .catalog
            .take(std::mem::take(&mut answer.value.0), &self.exposure);
        let answer = answer.map(drop);
        let before = self.index.replace(answer.index);
        self.is_denied = answer.token.is_anonymous() && answer.default_deny;
        self.filtered = answer.filtered;
        if asked || (answer.filtered && !self.catalog.is_empty() && self.asked.is_none()) {
            self.asked = Some(now);
        }

        let mut listed = self.catalog.routed();
        let wanted = self.exposure.wanted.keys().map(String::as_str);
        let wanted = wanted.filter(|name| self.catalog.lists(name));
        listed.extend(wanted.map(Arc::from));
        let is_listed = |name: &str| self.catalog.lists(name);
        let was_inheriting = self.doubts.is_inheriting();
        let gone = self.doubts.judge(&answer, &listed, is_listed, asked, now);
        let stored = std::mem::take(&mut self.stored).into_iter();
        let (missing, stored) = stored.partition(|(name, _)| self.doubts.keep(name));
        self.stored = stored;
        self.restore(missing);
        for name in gone {
            self.stored.remove(&name);
            if self.is_wanted(&name) {
                self.reads.now(&name);
            } else {
                self.reads.forget(&name);
                self.give_up(&name);
            }
        }
        self.note(changed.iter().chain(self.noted.keys()).cloned().collect());
        if !self.has_begun() {
            return;
        }
        // What was known before has been kept so far, whatever was read of it.
        let is_settled = was_inheriting && !self.doubts.is_inheriting();
        let Some(before) = before.filter(|_| !is_settled) else {
            return self.start_anew(now);
        };
        let has_mesh = self.services.values().any(|held| held.sidecars.is_some());
        for name in &changed {
            // A stranger may be the sidecar of a service that we know.
            let may_speak = has_mesh && self.catalog.lists(name);
            if self.is_read(name) || may_speak {
                self.reads.now(name);
            }
        }
        let told = tells_of(before, answer.index);
        self.read_again(|held| {
            !held.speakers.is_disjoint(&changed) || told.contains(&held.newest.instance)
        });
        if answer.index < before {
            self.looks.forget();
            self.reads.sweep_now(now);
        } else if answer.index > before || !changed.is_empty() {
            self.seek(!changed.is_empty(), now);
        }
    }

    /// Takes in the catalog as it was asked for beside the poll; one that is behind tells nothing.
    pub(super) fn listed(&mut self, answer: Answer<answers::Services>, now: Instant) {
        if self.index.is_some_and(|index| answer.index > index) {
            self.catalog(answer, false, now);
        }
    }

    /// Whether it is to be asked for now; and then no more.
    pub(super) fn is_to_be_listed(&mut self) -> bool {
        std::mem::take(&mut self.is_to_be_listed)
    }

    /// Takes in all checks.
    pub(super) fn checks(&mut self, answer: answers::Checks, index: u64, now: Instant) {
        let before = std::mem::replace(&mut self.checked, index);
        let Some(checks) = &mut self.checks else {
            // What is read before the checks are known may change without being noticed.
            self.checks.insert(Checks::default()).take(answer);
            if self.has_begun() {
                self.start_anew(now);
            }
            return;
        };
        let touched = checks.take(answer);
        self.read_touched(&touched);
        let told = tells_of(before, index);
        self.read_again(|held| told.contains(&held.newest.check));
    }

    /// Takes in what was read of a service, or why it could not be read: then it stays as it was.
    pub(super) fn read(&mut self, name: &Arc<str>, outcome: Result<Listing, String>, now: Instant) {
        let outcome = outcome.and_then(|listing| self.take(name, listing));
        self.reads.done(name, outcome, now);
    }

    /// The question that was asked for the sake of a doubt has no answer.
    pub(super) fn unanswered(&mut self, now: Instant) {
        self.asked = Some(now);
        self.doubts.unanswered(now);
    }

    /// Everything may have changed.
    pub(super) fn start_anew(&mut self, now: Instant) {
        self.is_stale = true;
        self.looks.forget();
        self.reads.sweep_now(now);
    }

    /// The service that is to be read next, if there is one now, and whether its sidecars are.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Arc<str>, bool)> {
        if !self.has_begun() {
            return None;
        }
        if self.reads.is_sweep_due(now) {
            self.is_to_be_listed |= !self.reads.is_called_for();
            self.reads.sweep(self.swept(), now);
            self.is_stale = false;
        }
        let name = self.reads.next(now)?;
        let wanted = self.exposure.wanted.get(&*name).into_iter().flatten();
        let mesh = wanted.into_iter().any(|wanted| wanted.mesh);
        let mesh = mesh || self.catalog.asks_for_mesh(&name, &self.exposure);
        Some((name, mesh))
    }

    /// When [`next`](Self::next) is to be called though nothing has come.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.has_begun().then(|| self.reads.wake_at()).flatten()
    }

    /// Whether what a watch before this one knew has not been found or missed in an answer that can be believed.
    pub(super) fn is_inheriting(&self) -> bool {
        self.doubts.is_inheriting()
    }

    /// When the catalog is to be asked in consistent mode, for the sake of a doubt.
    pub(super) fn ask_at(&self, now: Instant) -> Option<Instant> {
        // A policy that changes wakes no blocking query, and one that is woken answers by the rights that it began with.
        let pause = match self.filtered {
            _ if self.shows_nothing() => Some(ASKED_AGAIN),
            true => Some(LOOKED_AGAIN),
            false => None,
        };
        let again = pause.map(|pause| self.asked.map_or(now, |asked| asked + pause));
        let doubted = self.doubts.ask_at(now);
        doubted.into_iter().chain(again).min()
    }

    /// What has changed since this was last called, in order.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Whether everything has been read that was to be read, as far as it can be.
    pub(super) fn is_whole(&self) -> bool {
        let failed = self.reads.failed().values();
        self.has_begun()
            && !self.is_stale
            && self.reads.are_done()
            && failed
                .into_iter()
                .all(|failed| failed.tries >= TRIES_WAITED_FOR)
    }

    /// Under which terms tags are read.
    pub(super) fn terms(&self) -> &Terms {
        &self.exposure.terms
    }

    /// The datacenter for a service that nothing is listed of. Nothing is dialled by it, so Consul's default will do.
    pub(super) fn datacenter(&self) -> Arc<str> {
        self.datacenter.clone().unwrap_or_else(|| "dc1".into())
    }

    /// Both long polls have answered. What is read before may change unnoticed.
    fn has_begun(&self) -> bool {
        self.index.is_some() && self.checks.is_some()
    }

    fn is_wanted(&self, name: &str) -> bool {
        self.exposure.wanted.contains_key(name)
    }

    /// Whether a change of this name concerns us.
    fn is_read(&self, name: &str) -> bool {
        self.catalog.is_routed(name)
            || self.catalog.is_sidecar(name)
            || self.is_wanted(name)
            || self.services.contains_key(name)
    }

    fn read_again(&mut self, concerns: impl Fn(&Held) -> bool) {
        for (name, held) in &self.services {
            if concerns(held) {
                self.reads.now(name);
            }
        }
    }

    fn take(&mut self, name: &Arc<str>, listing: Listing) -> Result<(), String> {
        let filtered = listing.found.filtered;
        if let Some(datacenter) = &listing.datacenter {
            self.datacenter = Some(Arc::clone(datacenter));
        }
        if !listing.is_empty && listing.unreadable == 0 {
            for beside in self.catalog.learn(name, listing.stands_for.clone()) {
                if self.is_read(&beside) {
                    self.reads.now(&beside);
                }
            }
        }
        if !self.is_read(name) {
            return Ok(());
        }
        if listing.unreadable > 0 {
            let entries = listing.unreadable;
            return Err(format!(
                "of {entries} of its entries nobody can say what they ask for"
            ));
        }
        let sidecars = listing.found.sidecars.as_ref().map(Vec::len);
        if listing.is_empty {
            if self.doubts.keep(name) {
                return Ok(());
            }
            // Where it has no instance, its sidecars are what is listed.
            let is_hidden = self.catalog.is_routed(name) && sidecars.unwrap_or_default() == 0;
            if self.catalog.lists(name) || is_hidden {
                let hidden = if filtered { telling::HIDDEN } else { "" };
                return Err(format!(
                    "the catalog lists it, and nothing is listed of it{hidden}"
                ));
            }
        }
        let held = self.services.get(name);
        let had_sidecars = held.filter(|held| held.sidecars > Some(0));
        if sidecars == Some(0) && had_sidecars.is_some_and(|held| filtered && !held.filtered) {
            let why =
                "nothing that speaks for it in the mesh is listed, and what ACLs hide has changed";
            return Err(why.to_owned());
        }

        if filtered && held.is_none_or(|held| !held.filtered) {
            tracing::warn!(service = ?name, "ACLs hide some of a service from the gateway's token");
        }
        let service = exposure::service(&listing.found, &self.exposure);
        if service.is_idle() && !self.is_wanted(name) {
            self.give_up(name);
            return Ok(());
        }
        self.stored.remove(name);
        self.restored.remove(name);
        self.withheld.remove(name);
        if let Some(part) = &self.part {
            stored::put(part, &listing.found);
        }
        let held = Held {
            told: self.tell(name, service),
            nodes: listing.nodes,
            speakers: listing.speakers,
            sidecars,
            filtered,
            newest: listing.newest,
        };
        self.services.insert(Arc::clone(name), held);
        Ok(())
    }
}

/// The indexes of what an answer of a poll may tell for the first time. One that goes back, or stays, tells of none: without
/// that, an agent whose index is always 1 would have all read again by each answer.
fn tells_of(before: u64, index: u64) -> RangeInclusive<u64> {
    before.saturating_add(1)..=index
}

#[cfg(test)]
mod tests;
