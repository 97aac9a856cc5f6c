//! The services of a source on the disk: kept as they are read, and served in place of what it does not tell, until it does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::instance::Found;
use super::stored;
use crate::snapshot::service::Service;
use crate::state::Part;

/// What is kept, and what becomes of what was kept by a process before.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// Where what is read is kept, if anywhere.
    part: Option<Part>,
    /// What was kept before, and is neither served nor read yet.
    waiting: BTreeMap<Arc<str>, Found>,
    /// What is served from there, as nothing newer was read.
    restored: BTreeSet<Arc<str>>,
    /// When all of that had been confirmed.
    confirmed: Option<SystemTime>,
    /// Why it is refused by now, and as what it was served before.
    refused: Option<Arc<str>>,
    withheld: BTreeMap<Arc<str>, Arc<Service>>,
    /// Whether all that was kept has been confirmed once, or is kept no more.
    is_confirmed: bool,
}

/// What of it a watch leaves to the one that follows it.
#[derive(Clone, Debug, Default)]
pub(super) struct Left {
    restored: BTreeSet<Arc<str>>,
    confirmed: Option<SystemTime>,
    refused: Option<Arc<str>>,
    withheld: BTreeMap<Arc<str>, Arc<Service>>,
    has_waiting: bool,
}

impl Left {
    /// Whether the disk has services that nobody has been told of yet.
    pub(super) fn has_waiting(&self) -> bool {
        self.has_waiting
    }

    /// When what is served from the disk had been confirmed, if something is.
    pub(super) fn confirmed(&self) -> Option<SystemTime> {
        self.confirmed
    }

    /// Whether what is from the disk is refused.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.is_some()
    }
}

impl Keeping {
    /// Goes on with what a watch has left, and keeps nothing yet.
    pub(super) fn after(left: Left) -> Self {
        Self {
            restored: left.restored,
            confirmed: left.confirmed,
            refused: left.refused,
            withheld: left.withheld,
            ..Self::default()
        }
    }

    pub(super) fn left(&self) -> Left {
        Left {
            restored: self.restored.clone(),
            confirmed: self.restored(),
            refused: self.refused.clone(),
            withheld: self.withheld.clone(),
            has_waiting: !self.waiting.is_empty(),
        }
    }

    /// Keeps what is read from now on, beside what was kept before and confirmed then.
    pub(super) fn begin(
        &mut self,
        part: Part,
        kept: Option<(SystemTime, BTreeMap<Arc<str>, Found>)>,
    ) {
        self.part = Some(part);
        if let Some((confirmed, services)) = kept {
            self.confirmed = Some(confirmed);
            self.waiting = services;
        }
    }

    /// Whether anything is kept.
    pub(super) fn is_kept(&self) -> bool {
        self.part.is_some()
    }

    /// Whether what was kept is young enough to be served; where it is not, it is restored as refused.
    ///
    /// # Errors
    /// It is too old.
    pub(super) fn judge_kept(&self) -> Result<(), String> {
        let judged = self.part.as_ref().zip(self.confirmed);
        judged.map_or(Ok(()), |(part, at)| part.judge(at))
    }

    /// The names of what was kept before, and is neither served nor read yet.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Arc<str>> {
        self.waiting.keys()
    }

    /// Hands out what waits and is to be restored now.
    pub(super) fn take_waiting(&mut self, now: impl Fn(&str) -> bool) -> BTreeMap<Arc<str>, Found> {
        // Before anybody is told of it: what is too old is never served, not for a moment.
        if self.restored.is_empty() {
            self.refused = self.judge_kept().err().map(Into::into);
        }
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let (taken, waiting) = waiting.partition(|(name, _)| now(name));
        self.waiting = waiting;
        taken
    }

    /// A service as the disk has it, or as refused: so it is to be told.
    pub(super) fn restore(&mut self, name: &Arc<str>, mut service: Service) -> Service {
        service.restored = self.confirmed;
        self.restored.insert(Arc::clone(name));
        self.shown(name, service.into())
    }

    /// Whether something is served that was kept by a process before, and not read since.
    pub(super) fn is_restored(&self) -> bool {
        !self.restored.is_empty()
    }

    /// When that was confirmed, if there is something.
    pub(super) fn restored(&self) -> Option<SystemTime> {
        self.confirmed.filter(|_| self.is_restored())
    }

    /// Why that is refused, if it is, and whether nothing else is known among so many services.
    pub(super) fn refusal(&self, services: usize) -> Option<(&str, bool)> {
        let why = self.refused.as_deref()?;
        (!self.withheld.is_empty()).then_some((why, self.withheld.len() == services))
    }

    /// Judges the age of what is served from the disk; gives what is to be told where that turns, of services as they are
    /// `held`. What is too old loses its endpoints, and its routes stay and refuse: no name falls to another route, and nobody's
    /// tunnel ends. What is good again is served again.
    pub(super) fn judge(
        &mut self,
        source: &str,
        held: impl Fn(&str) -> Option<Arc<Service>>,
    ) -> Vec<(Arc<str>, Service)> {
        let judged = self.part.as_ref().zip(self.restored());
        let refused = judged.and_then(|(part, at)| part.judge(at).err());
        if refused.is_some() == self.refused.is_some() {
            return Vec::new();
        }
        self.refused = refused.map(Into::into);
        let withheld = std::mem::take(&mut self.withheld);
        match &self.refused {
            Some(why) => {
                tracing::error!("{source}'s services from the disk are served no longer: {why}");
            }
            None if withheld.is_empty() => {}
            None => tracing::warn!("{source}'s services are served from the disk again"),
        }
        let restored = self.restored.clone().into_iter();
        restored
            .filter_map(|name| {
                let service = withheld.get(&name).cloned().or_else(|| held(&name))?;
                let shown = self.shown(&name, service);
                Some((name, shown))
            })
            .collect()
    }

    /// Waits until that is judged otherwise; `None` if there is nothing to judge.
    pub(super) fn turned(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let (part, at) = (self.part.as_ref()?, self.restored()?);
        Some(part.turned(at, self.refused.is_none()))
    }

    /// A service was read: what the disk had of it counts no more.
    pub(super) fn put(&mut self, found: &Found) {
        let name = &found.key.name;
        self.waiting.remove(name);
        self.restored.remove(name);
        self.withheld.remove(name);
        if let Some(part) = &self.part {
            stored::put(part, found);
        }
    }

    /// Nothing is kept of it any more.
    pub(super) fn forget(&mut self, name: &str) {
        self.waiting.remove(name);
        self.restored.remove(name);
        self.withheld.remove(name);
        if let Some(part) = &self.part {
            part.remove(name);
        }
    }

    /// All that is known is so, by this note: it is kept with the time, and nothing that is not known.
    pub(super) fn confirm(&mut self, is_known: impl Fn(&str) -> bool, note: &impl Serialize) {
        let Some(part) = &self.part else { return };
        if !std::mem::replace(&mut self.is_confirmed, true) {
            part.retain(is_known);
        }
        // It does not become young by what is said of others.
        for name in self.withheld.keys() {
            part.remove(name);
        }
        part.confirm(note);
    }

    fn shown(&mut self, name: &Arc<str>, service: Arc<Service>) -> Service {
        match self.refused.clone() {
            None => Service::clone(&service),
            Some(why) => {
                let emptied = service.emptied(&why);
                self.withheld.insert(Arc::clone(name), service);
                emptied
            }
        }
    }
}
