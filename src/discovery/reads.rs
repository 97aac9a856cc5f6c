//! Which services are read again, and when: what changed first, then sweeps over all, then what failed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::retry::Backoff;

/// Reads go on side by side, as many as the client lets through at once.
const AT_ONCE: usize = 16;

/// But where nothing has changed, and all is read again to be sure, nobody waits for it: with the polls that leaves fewer
/// than ten connections open at rest, and the agent to others.
const AT_ONCE_AT_REST: usize = 4;

/// Between sweeps for changes that nothing accounts for, when they come without pause. One that takes long is followed by
/// as long a pause.
const BETWEEN_SWEEPS: Duration = Duration::from_secs(1);

/// So many of them after a quiet time are not held up: an address that moves must not wait for one that has moved.
const SWEEPS_AT_ONCE: u32 = 3;

/// A change that is accounted for may hide another that came in the same moment: a sweep follows. 250 ms: the pace of the
/// polls, so that one sweep is for all that they tell together.
pub(super) const AFTER_A_CHANGE: Duration = Duration::from_millis(250);

/// But after the sweep before no sooner than twenty times as long as that took, within these bounds: steady churn does not
/// read everything all the time, and where a sweep costs little, nothing stays hidden for long. With a thousand services under
/// twenty changes a second, three times as long was tried: every other change took half as long again, and these no less.
const BETWEEN_CAUTIOUS_SWEEPS: (Duration, Duration) =
    (Duration::from_millis(500), Duration::from_secs(5));
const CAUTION: u32 = 20;

/// After a failure a service is read again after about this long, then after twice as long each time, up to the longest.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// What is to be read.
#[derive(Debug)]
pub(super) struct Reads {
    /// Between sweeps in quiet times.
    refresh: Duration,
    urgent: BTreeSet<Arc<str>>,
    swept: BTreeSet<Arc<str>>,
    under_way: BTreeSet<Arc<str>>,
    failed: BTreeMap<Arc<str>, Failure>,
    /// The last sweep.
    sweep: Option<Sweep>,
    next_sweep: Option<Instant>,
    /// Whether it is for a change that nothing accounts for.
    is_unexplained: bool,
    /// Whether it is for any change at all.
    is_called_for: bool,
    /// When all such sweeps so far would have been made, had they been made at even distances.
    even: Option<Instant>,
}

#[derive(Debug)]
struct Sweep {
    began: Instant,
    is_unexplained: bool,
    /// Whether something waits for it, or for what comes after it.
    is_called_for: bool,
    /// `None` while it is under way.
    took: Option<Duration>,
}

/// A service that could not be read.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) tries: u32,
    pub(super) why: String,
    again: Instant,
    backoff: Backoff,
}

impl Reads {
    /// Sweeps in quiet times too, so often.
    pub(super) fn new(refresh: Duration) -> Self {
        Self {
            refresh,
            urgent: BTreeSet::new(),
            swept: BTreeSet::new(),
            under_way: BTreeSet::new(),
            failed: BTreeMap::new(),
            sweep: None,
            next_sweep: None,
            is_unexplained: false,
            is_called_for: false,
            even: None,
        }
    }

    /// A service has changed.
    pub(super) fn now(&mut self, name: &Arc<str>) {
        self.urgent.insert(Arc::clone(name));
    }

    /// Something has changed, and nothing tells which service: a sweep is due at once, unless there were too many of late.
    pub(super) fn sweep_now(&mut self, now: Instant) {
        let ahead = BETWEEN_SWEEPS * (SWEEPS_AT_ONCE - 1);
        let earliest = self.even.and_then(|even| even.checked_sub(ahead));
        self.is_unexplained = true;
        self.sweep_by(earliest.map_or(now, |earliest| earliest.max(now)));
    }

    /// Something has changed that is accounted for.
    pub(super) fn sweep_soon(&mut self, now: Instant) {
        let (least, most) = BETWEEN_CAUTIOUS_SWEEPS;
        let after = self.sweep.as_ref().map_or(now, |sweep| {
            let pause = sweep.took.map_or(most, |took| took.saturating_mul(CAUTION));
            sweep.began + pause.clamp(least, most)
        });
        self.sweep_by(after.max(now + AFTER_A_CHANGE));
    }

    fn sweep_by(&mut self, at: Instant) {
        self.is_called_for = true;
        if let Some(sweep) = &mut self.sweep {
            sweep.is_called_for = true;
        }
        self.next_sweep = Some(self.next_sweep.map_or(at, |next| next.min(at)));
    }

    /// Whether something calls for the next sweep, and not just the time.
    pub(super) fn is_called_for(&self) -> bool {
        self.is_called_for
    }

    /// Whether a sweep is to begin; one that is under way ends first.
    pub(super) fn is_sweep_due(&self, now: Instant) -> bool {
        self.swept.is_empty() && self.next_sweep.is_some_and(|at| at <= now)
    }

    /// Begins a sweep over these.
    pub(super) fn sweep(&mut self, names: BTreeSet<Arc<str>>, now: Instant) {
        // One that is being read is read again after that; the sweep does not wait for it.
        let (again, names) = (names.into_iter()).partition(|name| self.under_way.contains(name));
        self.swept = names;
        self.urgent.extend::<BTreeSet<_>>(again);
        let sweep = Sweep {
            began: now,
            is_unexplained: std::mem::take(&mut self.is_unexplained),
            is_called_for: std::mem::take(&mut self.is_called_for),
            took: None,
        };
        if sweep.is_unexplained {
            self.even = Some(self.even.map_or(now, |even| even.max(now)) + BETWEEN_SWEEPS);
        }
        self.sweep = Some(sweep);
        self.next_sweep = Some(now + self.refresh);
        self.end_sweep(now);
    }

    /// The next to be read, if there is one and not enough are under way. One that changes while it is read is read again.
    pub(super) fn next(&mut self, now: Instant) -> Option<Arc<str>> {
        if self.under_way.len() >= AT_ONCE {
            return None;
        }
        let again = self.failed.iter().filter(|(_, failed)| failed.again <= now);
        let is_at_rest = (self.sweep.as_ref()).is_some_and(|sweep| !sweep.is_called_for);
        let may_sweep = !is_at_rest || self.under_way.len() < AT_ONCE_AT_REST;
        let swept = self.swept.iter().filter(|_| may_sweep);
        let waiting = self.urgent.iter().chain(swept);
        let mut waiting = waiting.chain(again.map(|(name, _)| name));
        let name = waiting
            .find(|name| !self.under_way.contains(*name))?
            .clone();
        self.urgent.remove(&name);
        self.swept.remove(&name);
        self.under_way.insert(Arc::clone(&name));
        Some(name)
    }

    /// A service was read, or could not be.
    pub(super) fn done(&mut self, name: &Arc<str>, outcome: Result<(), String>, now: Instant) {
        self.under_way.remove(name);
        match outcome {
            Ok(()) => drop(self.failed.remove(name)),
            Err(why) => {
                let before = self.failed.remove(name);
                let (tries, mut backoff) = match before {
                    Some(failed) => (failed.tries, failed.backoff),
                    None => (0, Backoff::new(FIRST_RETRY, LONGEST_RETRY)),
                };
                let failure = Failure {
                    tries: tries + 1,
                    why,
                    again: now + backoff.next(),
                    backoff,
                };
                self.failed.insert(Arc::clone(name), failure);
            }
        }
        self.end_sweep(now);
    }

    /// A service is not read any more.
    pub(super) fn forget(&mut self, name: &str) {
        self.urgent.remove(name);
        self.swept.remove(name);
        self.failed.remove(name);
    }

    /// Whether nothing is being read, and nothing waits but what has failed.
    pub(super) fn are_done(&self) -> bool {
        self.urgent.is_empty() && self.swept.is_empty() && self.under_way.is_empty()
    }

    /// What could not be read when it was last tried.
    pub(super) fn failed(&self) -> &BTreeMap<Arc<str>, Failure> {
        &self.failed
    }

    /// When something is to be done that no answer will remind of.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let sweep = self.next_sweep.filter(|_| self.swept.is_empty());
        let idle = self.failed.iter();
        let idle = idle.filter(|(name, _)| !self.under_way.contains(*name));
        let again = idle.map(|(_, failed)| failed.again).min();
        let again = again.filter(|_| self.under_way.len() < AT_ONCE);
        [sweep, again].into_iter().flatten().min()
    }

    fn end_sweep(&mut self, now: Instant) {
        if let Some(sweep) = &mut self.sweep
            && sweep.took.is_none()
            && self.swept.is_empty()
            && self.under_way.is_empty()
        {
            let took = now - sweep.began;
            sweep.took = Some(took);
            if sweep.is_unexplained {
                let more = (took * 2).saturating_sub(BETWEEN_SWEEPS);
                self.even = self.even.map(|even| even + more);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    const REFRESH: Duration = Duration::from_secs(60);

    fn names(range: std::ops::Range<usize>) -> BTreeSet<Arc<str>> {
        range.map(|n| format!("s{n:04}").into()).collect()
    }

    /// All that is given out now.
    fn given(reads: &mut Reads, now: Instant) -> Vec<Arc<str>> {
        std::iter::from_fn(|| reads.next(now)).collect()
    }

    #[test]
    fn what_changed_goes_before_a_sweep_and_few_go_at_once() {
        let now = Instant::now();
        let mut reads = Reads::new(REFRESH);
        reads.sweep_now(now);
        reads.sweep(names(0..1000), now);
        let first = given(&mut reads, now);
        assert_eq!(first.len(), AT_ONCE);
        assert!(reads.wake_at().is_none(), "an answer will come");
        reads.now(&"s0500".into());
        reads.done(&first[0], Ok(()), now);
        assert_eq!(given(&mut reads, now), ["s0500".into()]);
    }

    /// Sweeps over one service, which takes so long; returns when the next one may begin.
    fn swept(reads: &mut Reads, now: Instant, takes: Duration) -> Instant {
        reads.sweep_now(now);
        assert!(reads.is_sweep_due(now));
        reads.sweep(names(0..1), now);
        let name = reads.next(now).unwrap();
        reads.done(&name, Ok(()), now + takes);
        reads.next_sweep = None;
        reads.sweep_now(now + takes);
        reads.wake_at().unwrap()
    }

    #[test]
    fn sweeps_without_pause_are_a_second_apart_and_long_ones_more() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut reads = Reads::new(REFRESH);
        let mut now = start;
        let mut at = Vec::new();
        for _ in 0..6 {
            now = swept(&mut reads, now, second / 10);
            at.push((now - start).as_millis());
        }
        assert_eq!(at, [100, 200, 1000, 2000, 3000, 4000]);
        let quiet = now + 60 * second;
        let next = swept(&mut reads, quiet, 3 * second);
        assert_eq!(next, quiet + 4 * second, "it took three");
    }

    #[test]
    fn what_is_read_again_though_nothing_has_changed_is_read_by_few_at_once_until_something_has() {
        let start = Instant::now();
        let mut reads = Reads::new(REFRESH);
        reads.sweep_now(start);
        reads.sweep(names(0..100), start);
        let mut now = start;
        for name in given(&mut reads, now) {
            reads.done(&name, Ok(()), now);
        }
        while let Some(name) = reads.next(now) {
            reads.done(&name, Ok(()), now);
        }
        now += REFRESH;
        assert!(reads.is_sweep_due(now));
        reads.sweep(names(0..100), now);
        assert_eq!(given(&mut reads, now).len(), AT_ONCE_AT_REST);
        reads.now(&"s0099".into());
        assert_eq!(given(&mut reads, now), ["s0099".into()], "it has changed");
        reads.sweep_soon(now);
        let more = given(&mut reads, now).len();
        assert_eq!(more, AT_ONCE - AT_ONCE_AT_REST - 1, "a sweep waits");
    }

    #[test]
    fn one_service_that_is_never_answered_holds_no_sweep_up() {
        let now = Instant::now();
        let mut reads = Reads::new(REFRESH);
        reads.sweep(names(0..3), now);
        let hangs = reads.next(now).unwrap();
        while let Some(name) = reads.next(now) {
            reads.done(&name, Ok(()), now);
        }
        reads.sweep_now(now);
        assert!(reads.is_sweep_due(now));
        reads.sweep(names(0..3), now);
        assert_eq!(given(&mut reads, now).len(), 2);
        reads.done(&hangs, Err("late".to_owned()), now);
        assert_eq!(given(&mut reads, now), [hangs]);
    }

    #[test]
    fn a_change_that_is_accounted_for_is_followed_by_a_sweep_in_a_while() {
        let start = Instant::now();
        let mut reads = Reads::new(REFRESH);
        reads.sweep(BTreeSet::new(), start);
        assert_eq!(reads.wake_at(), Some(start + REFRESH));
        let (least, most) = BETWEEN_CAUTIOUS_SWEEPS;
        reads.sweep_soon(start);
        assert_eq!(reads.wake_at(), Some(start + least), "it took no time");
        for (took, pause) in [(100, 2000), (1000, most.as_millis())] {
            reads.sweep(names(0..1), start);
            let name = reads.next(start).unwrap();
            let took = Duration::from_millis(took);
            reads.done(&name, Ok(()), start + took);
            reads.next_sweep = None;
            reads.sweep_soon(start + took);
            assert_eq!((reads.wake_at().unwrap() - start).as_millis(), pause);
        }
        reads.sweep(BTreeSet::new(), start + most);
        let later = start + REFRESH / 2;
        reads.sweep_soon(later);
        assert_eq!(reads.wake_at(), Some(later + AFTER_A_CHANGE));
    }

    #[test]
    fn what_fails_is_read_again_after_a_growing_while() {
        let mut now = Instant::now();
        let mut reads = Reads::new(REFRESH);
        let web: Arc<str> = "web".into();
        reads.now(&web);
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert_eq!(given(&mut reads, now), [Arc::clone(&web)]);
            reads.done(&web, Err("why".to_owned()), now);
            assert_eq!(given(&mut reads, now), []);
            let again = reads.wake_at().unwrap();
            waits.push((again - now).as_secs_f64());
            now = again;
        }
        for (wait, most) in waits
            .iter()
            .zip([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0])
        {
            assert!((most / 2.0..=most).contains(wait), "{waits:?}");
        }
        reads.now(&web);
        given(&mut reads, now);
        reads.done(&web, Ok(()), now);
        assert!(reads.failed().is_empty() && reads.are_done());
    }
}
