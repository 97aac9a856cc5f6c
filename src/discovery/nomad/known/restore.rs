//! What was kept of Nomad's services by a process before: served in place of what Nomad does not tell, until it does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::Namespaces;
use crate::snapshot::Source;
use crate::snapshot::service::ServiceKey;
use crate::state::{self, Part};

use super::super::super::doubt::Sight;
use super::super::super::exposure;
use super::super::super::instance::Found;
use super::super::super::stored;
use super::super::{Told, parts};
use super::{ALL, Known, Space};

/// What was kept, as long as nothing newer has come.
#[derive(Debug)]
pub(in super::super) struct Stored {
    /// When Nomad last confirmed it.
    pub(in super::super) confirmed: SystemTime,
    /// The last answer about each namespace: by this a later one is doubted.
    sights: BTreeMap<String, Sight>,
    services: BTreeMap<Arc<str>, Found>,
}

impl Stored {
    /// What is of these namespaces.
    ///
    /// # Errors
    /// It was written by something else than this.
    pub(in super::super) fn read(
        stored: &state::Stored,
        namespaces: &Namespaces,
    ) -> Result<Self, String> {
        let is_asked = |namespace: &str| match namespaces {
            Namespaces::All => true,
            Namespaces::Only(names) => names.iter().any(|name| name == namespace),
        };
        let services = stored::services(stored, |name| ServiceKey {
            place: None,
            source: Source::Nomad,
            name: Arc::clone(name),
        })?;
        let mut sights: BTreeMap<String, Sight> = stored.note()?;
        sights.retain(|namespace, _| is_asked(namespace));
        Ok(Self {
            confirmed: stored.confirmed,
            sights,
            services: services
                .filter(|(name, _)| is_asked(parts(name).0))
                .collect(),
        })
    }
}

impl Known {
    /// What has been told, for the watch that follows this one.
    pub(in super::super) fn told(&self) -> Told {
        let mut tokens = self
            .spaces
            .values()
            .filter_map(|space| space.doubts.asker().0);
        Told {
            services: self.services.values().cloned().collect(),
            is_complete: false,
            token: tokens.next(),
            kept: self.keeping.left(),
        }
    }

    /// What is read is kept from now on, beside what was kept before: that is missed like anything that was listed.
    pub(in super::super) fn keep(&mut self, part: Part, stored: Option<Stored>) {
        let Some(stored) = stored else {
            return self.keeping.begin(part, None);
        };
        for (namespace, sight) in stored.sights {
            let names = stored.services.keys();
            let names = names.filter(|name| parts(name).0 == namespace).cloned();
            let space = self.spaces.entry(namespace.as_str().into()).or_default();
            space.doubts.begin_with(names, sight);
        }
        self.keeping
            .begin(part, Some((stored.confirmed, stored.services)));
    }

    /// Serves what was kept, where nothing newer was read.
    pub(in super::super) fn restore_all(&mut self) {
        self.restore(|_| true);
    }

    /// Judges the age of what is served from the disk.
    pub(in super::super) fn judge(&mut self) {
        let services = &self.services;
        let turned = (self.keeping).judge("nomad", |name| services.get(name).cloned());
        for (name, service) in turned {
            self.tell(&name, service);
        }
    }

    /// All that is known is so: it is kept with this time, unless something is in doubt.
    pub(in super::super) fn confirm(&mut self) {
        if !self.keeping.is_kept() || !self.is_whole() {
            return;
        }
        // Whatever could not be read until now.
        self.restore_all();
        let settled = self.spaces.iter().map(|(namespace, space)| {
            let sight = space.doubts.settled()?;
            (space.unreadable == 0).then(|| (namespace.to_string(), sight))
        });
        let settled: Option<BTreeMap<String, Sight>> = settled.collect();
        if let Some(sights) = settled {
            let services = &self.services;
            (self.keeping).confirm(|name| services.contains_key(name), &sights);
        }
    }

    /// Restores those of what was kept that are to be served now.
    pub(super) fn restore(&mut self, now: impl Fn(&str) -> bool) {
        for (name, found) in self.keeping.take_waiting(now) {
            // Its namespace may have been told, and not ask for its routes any more.
            if self.services.contains_key(&name) || self.is_gone(&name) {
                continue;
            }
            let service = exposure::service(&found, &self.exposure);
            if service.is_idle() && !self.is_wanted(&name) {
                continue;
            }
            let service = self.keeping.restore(&name, service);
            self.tell(&name, service);
        }
    }

    /// Whether the list of its namespace has come, and it is neither in it nor missing in doubt.
    fn is_gone(&self, name: &str) -> bool {
        let namespace = parts(name).0;
        let mut indexes = self.indexes.iter();
        let is_told =
            indexes.any(|(query, index)| index.is_some() && [ALL, namespace].contains(&&**query));
        let space = self.spaces.get(namespace);
        let is_there = |space: &Space| space.is_routed(name) || space.doubts.keep(name);
        is_told && !space.is_some_and(is_there) && !self.is_wanted(name)
    }
}
