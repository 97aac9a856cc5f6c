//! The names in Consul's catalog: which of them ask for routes, and which are those of sidecars.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::exposure::Exposure;

/// What the catalog listed last, and what was learnt of its names.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    listed: BTreeMap<Arc<str>, Listed>,
    /// The names of sidecars, each with the services that they stand beside.
    sidecars: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
}

#[derive(Debug, PartialEq)]
struct Listed {
    /// Those of all its instances, sorted.
    tags: Vec<Arc<str>>,
    /// Whether there may be routes among them.
    routers: bool,
}

impl Catalog {
    /// The names of sidecars, each with the services that they stand beside, as they were known before.
    pub(super) fn begin_with(&mut self, sidecars: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>) {
        self.sidecars = sidecars;
    }

    /// The same, as they are known now.
    pub(super) fn sidecars(&self) -> &BTreeMap<Arc<str>, BTreeSet<Arc<str>>> {
        &self.sidecars
    }

    /// Takes in what is listed now; returns the names that came, left, or have other tags.
    pub(super) fn take(
        &mut self,
        names: BTreeMap<Arc<str>, Vec<Arc<str>>>,
        exposure: &Exposure,
    ) -> BTreeSet<Arc<str>> {
        let mut old = std::mem::take(&mut self.listed);
        let mut changed = BTreeSet::new();
        for (name, tags) in names {
            let before = old.remove(&name);
            let same = before.filter(|before| before.tags == tags);
            let listed = same.unwrap_or_else(|| {
                changed.insert(Arc::clone(&name));
                let routers = exposure.may_be_routed(&tags);
                Listed { tags, routers }
            });
            self.listed.insert(name, listed);
        }
        changed.extend(old.into_keys());
        self.sidecars
            .retain(|name, _| self.listed.contains_key(name));
        changed
    }

    /// Whether the name itself is listed.
    pub(super) fn lists(&self, name: &str) -> bool {
        self.listed.contains_key(name)
    }

    /// Whether nothing is listed at all.
    pub(super) fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// Whether the name is that of sidecars.
    pub(super) fn is_sidecar(&self, name: &str) -> bool {
        self.sidecars.contains_key(name)
    }

    /// Whether tags ask for routes to the service: its own, or its sidecars' where it has no instance.
    pub(super) fn is_routed(&self, name: &str) -> bool {
        match self.listed.get(name) {
            Some(listed) => listed.routers && !self.sidecars.contains_key(name),
            None => self.is_stood_for(name),
        }
    }

    /// Every service for which [`is_routed`](Self::is_routed) holds.
    pub(super) fn routed(&self) -> BTreeSet<Arc<str>> {
        let beside = self.sidecars.values().flatten();
        let all = self.listed.keys().chain(beside);
        all.filter(|name| self.is_routed(name)).cloned().collect()
    }

    /// The names of sidecars whose tags ask for routes.
    pub(super) fn routed_sidecars(&self) -> impl Iterator<Item = &Arc<str>> {
        self.sidecars.keys().filter(|name| self.has_routers(name))
    }

    /// Whether the sidecars of a service must be known, by what tags say.
    pub(super) fn asks_for_mesh(&self, name: &str, exposure: &Exposure) -> bool {
        match self.listed.get(name) {
            Some(listed) => exposure.terms.may_ask_for_mesh(&listed.tags),
            None => self.is_stood_for(name),
        }
    }

    /// The tags of all instances of a name that is listed, and is not one of sidecars.
    pub(super) fn tags(&self, name: &str) -> Option<&[Arc<str>]> {
        let listed = self.listed.get(name).filter(|_| !self.is_sidecar(name));
        listed.map(|listed| &*listed.tags)
    }

    /// Learns which services the instances of this name stand beside; returns those that were not known.
    pub(super) fn learn(&mut self, name: &Arc<str>, beside: BTreeSet<Arc<str>>) -> Vec<Arc<str>> {
        if beside.is_empty() || !self.lists(name) {
            self.sidecars.remove(name);
            return Vec::new();
        }
        let known = self.sidecars.entry(Arc::clone(name)).or_default();
        let new = beside.difference(known).cloned().collect();
        *known = beside;
        new
    }

    fn is_stood_for(&self, name: &str) -> bool {
        let mut sidecars = self.sidecars.iter();
        sidecars.any(|(sidecar, beside)| beside.contains(name) && self.has_routers(sidecar))
    }

    fn has_routers(&self, name: &str) -> bool {
        self.listed.get(name).is_some_and(|listed| listed.routers)
    }
}
