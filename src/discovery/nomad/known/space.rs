//! What is known of one namespace of Nomad's: what is listed there, and what of that is doubted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::super::doubt::Doubts;
use super::super::super::exposure::Exposure;

/// A namespace. Each is doubted for itself: a token that may no longer read one is answered as if it were empty where all are
/// asked for at once, and refused where it is asked for alone, as it is when an answer is doubted.
#[derive(Debug, Default)]
pub(super) struct Space {
    pub(super) listed: BTreeMap<Arc<str>, Listed>,
    pub(super) doubts: Doubts,
    /// How many entries of its last list could not be read: what is not in it may be one of those.
    pub(super) unreadable: usize,
}

#[derive(Debug, PartialEq)]
pub(super) struct Listed {
    /// Those of all its instances, sorted.
    tags: Vec<Arc<str>>,
    /// Whether it is read: there may be routes among them, or an upstream of the file stands for it.
    is_routed: bool,
}

impl Space {
    /// Takes in what is listed now; returns the names that came, left, or have other tags.
    pub(super) fn take(
        &mut self,
        names: BTreeMap<Arc<str>, Vec<Arc<str>>>,
        unreadable: usize,
        exposure: &Exposure,
    ) -> BTreeSet<Arc<str>> {
        self.unreadable = unreadable;
        let mut old = std::mem::take(&mut self.listed);
        let mut changed = BTreeSet::new();
        for (name, tags) in names {
            let same = old.remove(&name).filter(|before| before.tags == tags);
            let listed = same.unwrap_or_else(|| {
                changed.insert(Arc::clone(&name));
                let is_wanted = exposure.wanted.contains_key(&*name);
                let is_routed = is_wanted || exposure.may_be_routed(&tags);
                Listed { tags, is_routed }
            });
            self.listed.insert(name, listed);
        }
        match unreadable {
            0 => changed.extend(old.into_keys()),
            _ => self.listed.append(&mut old),
        }
        changed
    }

    /// Whether there may be routes to it, or an upstream of the file stands for it.
    pub(super) fn is_routed(&self, name: &str) -> bool {
        self.listed.get(name).is_some_and(|listed| listed.is_routed)
    }

    /// The services of which that is so.
    pub(super) fn routed(&self) -> impl Iterator<Item = Arc<str>> {
        let routed = self.listed.iter().filter(|(_, listed)| listed.is_routed);
        routed.map(|(name, _)| Arc::clone(name))
    }
}
