//! The index of routes: one look-up by listener, name, client and ALPN, whose cost does not grow with the number of hosts.

use std::cmp::Reverse;
use std::sync::Arc;

use super::shards::Shards;
use super::{ListenerId, Route, Source};
use crate::name::{HostName, WildcardDepth};
use crate::rule::{Facts, Key};

mod shadows;

pub use shadows::Shadows;

/// The routes of a gateway. Cloning shares everything; a change to the clone copies only what it touches.
#[derive(Clone, Debug, Default)]
pub struct Table {
    exact: Shards<HostName, Bucket>,
    wildcard: Shards<HostName, Bucket>,
    regexp: Arc<Bucket>,
    any: Arc<Bucket>,
    all: Shards<RouteId, Arc<Route>>,
}

/// What makes a route the same route from one snapshot to the next.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId {
    /// Who told us of it.
    pub source: Source,
    /// Its name there.
    pub name: Arc<str>,
}

impl Route {
    /// What makes it the same route from one snapshot to the next.
    pub fn id(&self) -> RouteId {
        RouteId {
            source: self.source,
            name: Arc::clone(&self.name),
        }
    }
}

impl Table {
    /// The route for a client, if any matches: the one that precedes all others that match.
    ///
    /// Precedence: the higher priority; then exact before wildcard before regular expression before the rest; then
    /// source and name. But where a route of the file claims the name (matches, and is no default route), only routes
    /// of the file count: no tag takes a name away from the operator.
    pub fn find(&self, listener: ListenerId, facts: &Facts<'_>) -> Option<&Arc<Route>> {
        let mut claim = None;
        self.improve(&mut claim, listener, facts, Entry::is_claim);
        let mut best = claim;
        self.improve(&mut best, listener, facts, |entry| {
            claim.is_none() || entry.route.source == Source::File
        });
        best.map(|entry| &entry.route)
    }

    /// Adds a route, or replaces the one of the same source and name.
    pub fn insert(&mut self, route: Arc<Route>) {
        self.remove(&route.id());
        for key in route.rule.keys() {
            let precedence = Precedence::of(&route, &key);
            let entry = Entry {
                precedence,
                claim: Entry::claims(&route),
                route: Arc::clone(&route),
            };
            self.change(&key, |bucket| bucket.insert(entry));
        }
        self.all.change(route.id(), |slot| *slot = Some(route));
    }

    /// Takes a route out.
    pub fn remove(&mut self, id: &RouteId) {
        let Some(route) = self.all.find(id).cloned() else {
            return;
        };
        for key in route.rule.keys() {
            self.change(&key, |bucket| bucket.remove(id));
        }
        self.all.change(id.clone(), |slot| *slot = None);
    }

    /// A route by its source and name.
    pub fn route(&self, id: &RouteId) -> Option<&Arc<Route>> {
        self.all.find(id)
    }

    /// Every route, by source and name.
    pub fn routes(&self) -> Vec<&Arc<Route>> {
        let mut routes: Vec<_> = self.all.values().collect();
        routes.sort_unstable_by_key(|route| (route.source, &route.name));
        routes
    }

    /// Replaces `best` by the first that matches among `these`, if it precedes it.
    fn improve<'a>(
        &'a self,
        best: &mut Option<&'a Entry>,
        listener: ListenerId,
        facts: &Facts<'_>,
        these: impl Fn(&Entry) -> bool,
    ) {
        for bucket in self.buckets(facts.name, facts.wildcard) {
            for entry in &bucket.entries {
                if best.is_some_and(|best| best.precedence <= entry.precedence) {
                    break;
                }
                let Route {
                    listeners, rule, ..
                } = &*entry.route;
                if these(entry) && listeners.contain(listener) && rule.matches(facts) {
                    *best = Some(entry);
                    break;
                }
            }
        }
    }

    /// Where the routes under a key stand.
    fn bucket(&self, key: &Key) -> Option<&Bucket> {
        match key {
            Key::Exact(name) => self.exact.find(name.as_str()),
            Key::Wildcard(parent) => self.wildcard.find(parent.as_str()),
            Key::Regexp => Some(&self.regexp),
            Key::Any => Some(&self.any),
        }
    }

    /// The places of the index where routes for a name stand.
    fn buckets(
        &self,
        name: Option<&HostName>,
        depth: WildcardDepth,
    ) -> impl Iterator<Item = &Bucket> {
        let exact = name.and_then(|name| self.exact.find(name.as_str()));
        let first = name.and_then(HostName::parent);
        let parents = std::iter::successors(first, move |parent| match depth {
            WildcardDepth::One => None,
            WildcardDepth::Many => parent.split_once('.').map(|(_, rest)| rest),
        });
        let wildcards = parents.filter_map(|parent| self.wildcard.find(parent));
        exact
            .into_iter()
            .chain(wildcards)
            .chain([&*self.regexp, &*self.any])
    }

    fn change(&mut self, key: &Key, change: impl FnOnce(&mut Bucket)) {
        let names = match key {
            Key::Exact(name) => (&mut self.exact, name),
            Key::Wildcard(parent) => (&mut self.wildcard, parent),
            Key::Regexp => return change(Arc::make_mut(&mut self.regexp)),
            Key::Any => return change(Arc::make_mut(&mut self.any)),
        };
        names.0.change(names.1.clone(), |slot| {
            change(slot.get_or_insert_default());
            if slot
                .as_ref()
                .is_some_and(|bucket| bucket.entries.is_empty())
            {
                *slot = None;
            }
        });
    }
}

/// The routes that share a key, in the order of precedence.
#[derive(Clone, Debug, Default)]
struct Bucket {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    precedence: Precedence,
    claim: bool,
    route: Arc<Route>,
}

impl Entry {
    /// Whether the operator wrote the route for names, not for whatever else may come.
    fn claims(route: &Route) -> bool {
        route.source == Source::File && !route.rule.is_default()
    }

    fn is_claim(&self) -> bool {
        self.claim
    }
}

impl Bucket {
    fn insert(&mut self, entry: Entry) {
        let before = |other: &Entry| other.precedence < entry.precedence;
        let at = self.entries.partition_point(before);
        self.entries.insert(at, entry);
    }

    fn remove(&mut self, id: &RouteId) {
        self.entries.retain(|entry| entry.route.id() != *id);
    }
}

/// How narrowly a key names its hosts; the narrower goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Exact,
    Wildcard,
    Regexp,
    Any,
}

/// Which of two routes that match goes first: the lesser one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Precedence {
    priority: Reverse<i64>,
    kind: Kind,
    source: Source,
    name: Arc<str>,
}

impl Precedence {
    fn of(route: &Route, key: &Key) -> Self {
        Self {
            priority: Reverse(route.priority),
            kind: match key {
                Key::Exact(_) => Kind::Exact,
                Key::Wildcard(_) => Kind::Wildcard,
                Key::Regexp => Kind::Regexp,
                Key::Any => Kind::Any,
            },
            source: route.source,
            name: Arc::clone(&route.name),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
