//! What is told of services: what has changed, what is gone, and what their owners may want to know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

use super::{Held, Known};
use crate::snapshot::Source;
use crate::snapshot::service::{Change, Service, ServiceKey, Skipped};

/// What Consul calls the sidecar of a service, unless its owner says otherwise.
const SIDECAR: &str = "-sidecar-proxy";

impl Known {
    /// Consul lists a service and cannot be asked for it. That is its owner's affair, unless it served before.
    pub(in super::super) fn refused(&mut self, name: &Arc<str>, why: String, now: Instant) {
        let held = self.services.get(name);
        if held.is_some_and(|held| held.told.is_used()) || self.is_wanted(name) {
            return self.read(name, Err(why), now);
        }
        self.forget(name);
        let service = Service {
            skipped: vec![Skipped {
                instance: None,
                router: None,
                reason: why.into(),
            }],
            ..self.bare(name)
        };
        let held = Held {
            told: self.tell(name, service),
            nodes: BTreeSet::new(),
            speakers: BTreeSet::new(),
            sidecars: None,
            filtered: false,
        };
        self.services.insert(Arc::clone(name), held);
        self.reads.done(name, Ok(()), now);
    }

    /// Tells of those of these services that ask for nothing that is served here, by their tags in the catalog. They are
    /// never read: there may be many, and nothing would come of it.
    pub(super) fn note(&mut self, names: BTreeSet<Arc<str>>) {
        for name in names {
            let tags = match self.is_read(&name) || self.is_called_like_a_sidecar(&name) {
                true => None,
                false => self.catalog.tags(&name),
            };
            let Some(note) = tags.and_then(|tags| self.exposure.note(tags)) else {
                if self.noted.remove(&name).is_some() && !self.services.contains_key(&name) {
                    self.changes.push(Change::Gone(self.key(&name)));
                }
                continue;
            };
            let service = Service {
                notes: vec![note],
                ..self.bare(&name)
            };
            if self.noted.get(&name).is_none_or(|last| **last != service) {
                let service = Arc::new(service);
                self.changes.push(Change::Service(Arc::clone(&service)));
                self.noted.insert(name, service);
            }
        }
    }

    /// Tells of a service, if that is news.
    pub(super) fn tell(&mut self, name: &Arc<str>, service: Service) -> Arc<Service> {
        match self.services.get(name).map(|held| &held.told) {
            Some(last) if **last == service => Arc::clone(last),
            _ => {
                let service = Arc::new(service);
                self.changes.push(Change::Service(Arc::clone(&service)));
                service
            }
        }
    }

    /// Nothing is kept of it any more.
    pub(super) fn forget(&mut self, name: &str) {
        self.stored.remove(name);
        self.restored.remove(name);
        self.withheld.remove(name);
        if let Some(part) = &self.part {
            part.remove(name);
        }
    }

    pub(super) fn give_up(&mut self, name: &Arc<str>) {
        self.forget(name);
        if self.services.remove(name).is_some() {
            self.changes.push(Change::Gone(self.key(name)));
        }
        self.note([Arc::clone(name)].into());
    }

    /// Those of a service that is not read are never looked at, and their tags are copies of its own.
    fn is_called_like_a_sidecar(&self, name: &str) -> bool {
        let beside = name.strip_suffix(SIDECAR);
        beside.is_some_and(|beside| self.catalog.lists(beside))
    }

    fn key(&self, name: &Arc<str>) -> ServiceKey {
        ServiceKey {
            source: Source::Consul,
            place: self.place.clone(),
            name: Arc::clone(name),
        }
    }

    /// A service of which nothing is to be said.
    fn bare(&self, name: &Arc<str>) -> Service {
        Service {
            key: self.key(name),
            upstreams: Vec::new(),
            routes: Vec::new(),
            middlewares: BTreeMap::new(),
            skipped: Vec::new(),
            notes: Vec::new(),
            restored: None,
        }
    }
}
