//! A map in parts: a copy of it shares them all, and a change copies one.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

/// Into how many parts a map is split.
///
/// 1,024: of 100,000 entries a change copies about a hundred, and the pointers to the parts, 8 KiB.
const PARTS: usize = 1024;

/// A map whose clones share what did not change between them.
#[derive(Clone, Debug)]
pub(super) struct Shards<K, V> {
    parts: Arc<[Arc<HashMap<K, V>>]>,
    hasher: RandomState,
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        // All the empty parts are one.
        let empty = Arc::new(HashMap::new());
        Self {
            parts: (0..PARTS).map(|_| Arc::clone(&empty)).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Shards<K, V> {
    pub(super) fn find<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.parts.get(self.part(key))?.get(key)
    }

    /// Gives `change` the value to add, alter or (by leaving `None`) take out.
    pub(super) fn change(&mut self, key: K, change: impl FnOnce(&mut Option<V>)) {
        let part = self.part(&key);
        let Some(part) = Arc::make_mut(&mut self.parts).get_mut(part) else {
            return;
        };
        let part = Arc::make_mut(part);
        let mut slot = part.remove(&key);
        change(&mut slot);
        if let Some(value) = slot {
            part.insert(key, value);
        }
    }

    /// Every value, in no order.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.parts.iter().flat_map(|part| part.values())
    }

    fn part<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        // The remainder fits: PARTS does.
        usize::try_from(self.hasher.hash_one(key) % PARTS as u64).unwrap_or(0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    impl<K, V> Shards<K, V> {
        /// How many parts this map has for itself.
        pub(in crate::snapshot) fn parts_not_shared(&self, other: &Self) -> usize {
            (self.parts.iter().zip(other.parts.iter()))
                .filter(|(a, b)| !Arc::ptr_eq(a, b))
                .count()
        }
    }

    fn filled() -> Shards<String, u32> {
        let mut map = Shards::default();
        for n in 0..10_000 {
            map.change(format!("k{n}"), |slot| *slot = Some(n));
        }
        map
    }

    #[test]
    fn what_was_put_in_is_found() {
        let map = filled();
        assert_eq!(map.find("k77"), Some(&77));
        assert_eq!(map.find("k10000"), None);
        assert_eq!(map.values().count(), 10_000);
    }

    #[test]
    fn a_change_to_a_copy_shares_every_other_part_and_leaves_the_original() {
        let map = filled();
        let mut copy = map.clone();
        copy.change("k77".into(), |slot| *slot = None);
        assert_eq!(copy.parts_not_shared(&map), 1);
        assert_eq!(map.find("k77"), Some(&77));
        assert_eq!(copy.find("k77"), None);
    }
}
