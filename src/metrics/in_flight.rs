//! How many connections each source has on a route, where a middleware limits that.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The sources that have connections, by their numbers, and how many: never more entries than there are connections, and
/// none is kept of who has left. It outlives every snapshot, so that no reload forgets who is in.
#[derive(Debug, Default)]
pub struct InFlight(Mutex<BTreeMap<u128, usize>>);

impl InFlight {
    /// One more of this source, unless it has as many as it may have. Says whether it is in.
    pub fn enter(&self, source: u128, most: usize) -> bool {
        let mut sources = self.lock();
        let has = sources.get(&source).copied().unwrap_or_default();
        if has < most {
            sources.insert(source, has + 1);
        }
        has < most
    }

    /// One of this source that was in has ended.
    pub fn leave(&self, source: u128) {
        let mut sources = self.lock();
        match sources.get_mut(&source) {
            Some(has) if *has > 1 => *has -= 1,
            _ => drop(sources.remove(&source)),
        }
    }

    /// How many sources have connections.
    pub fn sources(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u128, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_as_many_as_it_may_and_nothing_is_kept_of_who_has_left() {
        let in_flight = InFlight::default();
        assert!(in_flight.enter(1, 2) && in_flight.enter(1, 2) && in_flight.enter(2, 2));
        assert!(!in_flight.enter(1, 2) && !in_flight.enter(3, 0));
        assert_eq!(in_flight.sources(), 2);
        in_flight.leave(1);
        assert!(!in_flight.enter(1, 1) && in_flight.enter(1, 2));
        for source in [1, 1, 2] {
            in_flight.leave(source);
        }
        assert_eq!(in_flight.sources(), 0);
    }
}
