//! What is told of services: what has changed, what is gone, and what their owners may want to know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

use super::super::checks::Checks;
use super::{Held, Known, Newest};
use crate::snapshot::Source;
use crate::snapshot::service::{Change, Service, ServiceKey, Skipped};

/// What Consul calls the sidecar of a service, unless its owner says otherwise.
const SIDECAR: &str = "-sidecar-proxy";

/// A service whose reading fails is told of after as many tries: a single one is soon made good.
const TRIES_IN_SILENCE: u32 = 2;

/// What an operator may look at where ACLs hide something that is missed.
pub(super) const HIDDEN: &str = "; ACLs hide something from the gateway's token: has it `node_prefix \"\" { policy = \"read\" }`, \
     and service:read on the names of its sidecars too?";

impl Known {
    /// What an operator should know of it, though Consul answers.
    pub(in super::super) fn trouble(&self) -> Option<String> {
        if let Some(doubt) = self.doubts.told("consul") {
            return Some(doubt);
        }
        if self.shows_nothing() {
            return Some(self.nothing_shown().to_owned());
        }
        let mut failed = self.reads.failed().iter();
        let (name, first) = failed.find(|(_, failed)| failed.tries >= TRIES_IN_SILENCE)?;
        let more = failed.filter(|(_, failed)| failed.tries >= TRIES_IN_SILENCE);
        Some(format!(
            "{} of consul's services cannot be read, and stay as they were; {name:?}: {}",
            1 + more.count(),
            first.why
        ))
    }

    /// What is no trouble: a token with the least rights does not see what is not the gateway's affair.
    pub(in super::super) fn remark(&self) -> Option<&'static str> {
        (self.filtered && !self.catalog.is_empty())
            .then_some("ACLs hide some of consul's services from the gateway's token")
    }

    /// Whether nothing at all can be seen, for want of rights: whoever shall see nothing needs no gateway.
    pub(in super::super) fn is_hidden(&self) -> bool {
        self.shows_nothing() && (self.is_denied || self.sees_no_check())
    }

    /// Whether no service is listed, and ACLs hide some, as far as can be told.
    pub(super) fn shows_nothing(&self) -> bool {
        self.has_begun() && self.catalog.is_empty() && (self.is_denied || self.filtered)
    }

    fn nothing_shown(&self) -> &'static str {
        if self.is_denied {
            "consul lists nothing: it denies what no policy allows, and no ACL token is sent"
        } else if self.sees_no_check() {
            "consul lists nothing, no service and no check of a node: ACLs hide them from the gateway's token, which needs \
             `node_prefix \"\" { policy = \"read\" }` beside service:read, or sees no instance of anything"
        } else {
            "consul lists no service, and ACLs hide some from the gateway's token: it needs service:read on what is routed, \
             `service_prefix \"\" { policy = \"read\" }` for all"
        }
    }

    fn sees_no_check(&self) -> bool {
        self.checks.as_ref().is_none_or(Checks::is_empty)
    }

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
            newest: Newest::default(),
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
