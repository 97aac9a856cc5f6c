//! What was kept by a process before: served in place of what Consul does not tell, until it does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use super::super::super::exposure;
use super::super::super::instance::Found;
use super::super::Told;
use super::super::stored::{self, Stored};
use super::{Held, Known, Newest};
use crate::snapshot::service::Service;
use crate::state::Part;

impl Known {
    /// What has been told, for the watch that follows this one.
    pub(in super::super) fn told(&self) -> Told {
        let (token, filtered) = self.doubts.asker();
        let services = self.services.values();
        Told {
            services: services.map(|held| Arc::clone(&held.told)).collect(),
            noted: self.noted.clone(),
            token,
            filtered,
            restored: self.restored.clone(),
            confirmed: self.restored(),
            refused: self.refused.clone(),
            withheld: self.withheld.clone(),
            leaves_stored: !self.stored.is_empty(),
            ..Told::default()
        }
    }

    /// What is read is kept from now on, beside what was kept before: that is missed like anything that was listed.
    pub(in super::super) fn keep(&mut self, part: Part, stored: Option<Stored>) {
        self.part = Some(part);
        if let Some(stored) = stored {
            let names = stored.services.keys().cloned();
            self.doubts.begin_with(names, stored.sight);
            self.catalog.begin_with(stored.sidecars);
            self.stored = stored.services;
            self.confirmed = Some(stored.confirmed);
        }
    }

    /// Whether what was kept is young enough to be served; where it is not, it is restored as refused.
    ///
    /// # Errors
    /// It is too old.
    pub(in super::super) fn judge_stored(&self) -> Result<(), String> {
        let judged = self.part.as_ref().zip(self.confirmed);
        judged.map_or(Ok(()), |(part, at)| part.judge(at))
    }

    /// Serves what was kept, where nothing newer was read.
    pub(in super::super) fn restore_all(&mut self) {
        let stored = std::mem::take(&mut self.stored);
        self.restore(stored);
    }

    /// Whether something is served that was kept by a process before, and not read since.
    pub(in super::super) fn is_restored(&self) -> bool {
        !self.restored.is_empty()
    }

    /// When that was confirmed, if there is something.
    pub(in super::super) fn restored(&self) -> Option<SystemTime> {
        self.confirmed.filter(|_| self.is_restored())
    }

    /// Why that is refused, if it is, and whether nothing else is known.
    pub(in super::super) fn refusal(&self) -> Option<(&str, bool)> {
        let why = self.refused.as_deref()?;
        let is_all = self.withheld.len() == self.services.len();
        (!self.withheld.is_empty()).then_some((why, is_all))
    }

    /// Judges the age of what is served from the disk. What is too old loses its endpoints, and its routes stay and refuse: no
    /// name falls to another route, and nobody's tunnel ends. What is good again is served again.
    pub(in super::super) fn judge(&mut self) {
        let judged = self.part.as_ref().zip(self.restored());
        let refused = judged.and_then(|(part, at)| part.judge(at).err());
        if refused.is_some() == self.refused.is_some() {
            return;
        }
        self.refused = refused.map(Into::into);
        let withheld = std::mem::take(&mut self.withheld);
        match &self.refused {
            Some(why) => {
                tracing::error!("consul's services from the disk are served no longer: {why}");
            }
            None if withheld.is_empty() => {}
            None => tracing::warn!("consul's services are served from the disk again"),
        }
        for name in self.restored.clone() {
            let known = withheld.get(&name);
            let held = self.services.get(&name).map(|held| &held.told);
            if let Some(service) = known.or(held).cloned() {
                let told = self.tell_restored(&name, service);
                if let Some(held) = self.services.get_mut(&name) {
                    held.told = told;
                }
            }
        }
    }

    /// Waits until that is judged otherwise; `None` if there is nothing to judge.
    pub(in super::super) fn turned(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let (part, at) = (self.part.as_ref()?, self.restored()?);
        Some(part.turned(at, self.refused.is_none()))
    }

    /// Tells of a service as the disk has it, or that it is refused.
    fn tell_restored(&mut self, name: &Arc<str>, service: Arc<Service>) -> Arc<Service> {
        match self.refused.clone() {
            None => self.tell(name, Service::clone(&service)),
            Some(why) => {
                let emptied = service.emptied(&why);
                self.withheld.insert(Arc::clone(name), service);
                self.tell(name, emptied)
            }
        }
    }

    /// All that is known is so: it is kept with this time, unless something is in doubt.
    pub(in super::super) fn confirm(&mut self) {
        if self.part.is_none() || self.is_hidden() || !self.is_whole() {
            return;
        }
        // Whatever could not be read until now.
        self.restore_all();
        if let (Some(part), Some(sight)) = (&self.part, self.doubts.settled()) {
            if !std::mem::replace(&mut self.is_confirmed, true) {
                part.retain(|name| self.services.contains_key(name));
            }
            // It does not become young by what is said of others.
            for name in self.withheld.keys() {
                part.remove(name);
            }
            stored::confirm(part, sight, self.catalog.sidecars());
        }
    }

    pub(super) fn restore(&mut self, stored: BTreeMap<Arc<str>, Found>) {
        // Before anybody is told of it: what is too old is never served, not for a moment.
        if self.restored.is_empty() {
            self.refused = self.judge_stored().err().map(Into::into);
        }
        for (name, found) in stored {
            // The catalog may have come, and not ask for its routes any more.
            let is_gone = self.index.is_some() && !self.is_missed(&name);
            if is_gone || self.services.contains_key(&name) {
                continue;
            }
            let mut service = exposure::service(&found, &self.exposure);
            if service.routes.is_empty() && service.skipped.is_empty() && !self.is_wanted(&name) {
                continue;
            }
            service.restored = self.confirmed;
            let held = Held {
                told: self.tell_restored(&name, service.into()),
                nodes: BTreeSet::new(),
                speakers: BTreeSet::new(),
                sidecars: found.sidecars.as_ref().map(Vec::len),
                filtered: found.filtered,
                newest: Newest::default(),
            };
            self.services.insert(Arc::clone(&name), held);
            self.restored.insert(name);
        }
    }

    /// Whether it is asked for, or missing in doubt.
    fn is_missed(&self, name: &str) -> bool {
        self.catalog.is_routed(name) || self.is_wanted(name) || self.doubts.keep(name)
    }
}
