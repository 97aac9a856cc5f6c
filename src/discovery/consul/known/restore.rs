//! What was kept by a process before: served in place of what Consul does not tell, until it does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::super::exposure;
use super::super::stored::{self, Kept, Stored};
use super::{Held, Known};
use crate::state::Part;

impl Known {
    /// What is read is kept from now on, beside what was kept before: that is missed like anything that was listed.
    pub(in super::super) fn keep(&mut self, part: Part, stored: Option<Stored>) {
        self.part = Some(part);
        if let Some(stored) = stored {
            let names = stored.services.keys().cloned();
            self.doubts.begin_with(names, stored.sight);
            self.catalog.begin_with(stored.sidecars);
            self.stored = stored.services;
        }
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

    /// All that is known is so: it is kept with this time, unless something is in doubt.
    pub(in super::super) fn confirm(&mut self) {
        if self.part.is_none() || self.is_hidden || !self.is_whole() {
            return;
        }
        // Whatever could not be read until now.
        self.restore_all();
        if let (Some(part), Some(sight)) = (&self.part, self.doubts.settled()) {
            if !std::mem::replace(&mut self.is_confirmed, true) {
                part.retain(|name| self.services.contains_key(name));
            }
            stored::confirm(part, sight, self.catalog.sidecars());
        }
    }

    pub(super) fn restore(&mut self, stored: BTreeMap<Arc<str>, Kept>) {
        for (name, Kept { found, filtered }) in stored {
            // The catalog may have come, and not ask for its routes any more.
            let is_gone = self.index.is_some() && !self.is_missed(&name);
            if is_gone || self.services.contains_key(&name) {
                continue;
            }
            let service = exposure::service(&found, &self.exposure);
            if service.routes.is_empty() && service.skipped.is_empty() && !self.is_wanted(&name) {
                continue;
            }
            let held = Held {
                told: self.tell(&name, service),
                nodes: BTreeSet::new(),
                speakers: BTreeSet::new(),
                sidecars: found.sidecars.as_ref().map(Vec::len),
                filtered,
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
