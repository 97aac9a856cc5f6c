//! How long an endpoint that cannot be dialled is passed over, and which connection tries it again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::upstream::Endpoint;

/// How long an endpoint is passed over after its first failure.
///
/// 1 s: a service that restarts is back in about that, and of a burst of connections one pays for it.
const FIRST: Duration = Duration::from_secs(1);

/// The longest that an endpoint is passed over; each failure doubles the time up to here.
///
/// 60 s: one connection a minute that waits for a dial in vain is no load, and whoever mends an endpoint sees it used.
const LONGEST: Duration = Duration::from_secs(60);

/// What is known of an endpoint: from the dials before, and from the checks, where it is checked. Each judges for itself.
#[derive(Debug, Default)]
pub struct EndpointState {
    dials: Dials,
    check: Checks,
}

/// What the dials before tell.
///
/// One word, so that two connections never see half a change: 0 while it is in; else the time until which it is out, in
/// milliseconds since the beginning, and in the low bits how often it has failed in a row.
#[derive(Debug)]
struct Dials(AtomicU64);

/// Before there was any endpoint.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

const FAILURES: u64 = 0xFFFF;
const SHIFT: u32 = 16;

/// In the place of a time: a connection is trying it at this moment, and the others wait for what comes of it.
const PROBED: u64 = u64::MAX >> SHIFT;

/// An endpoint that is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Out {
    /// How often it has failed in a row.
    pub failures: u64,
    /// Until it is tried again; nothing when it is due, or being tried.
    pub left: Duration,
}

/// What the last check has told.
#[derive(Debug, Default)]
struct Checks {
    /// Whether there is a reason, for connections, which read nothing else.
    fails: AtomicBool,
    last: Mutex<Option<Result<(), Arc<str>>>>,
}

impl Default for Dials {
    /// Nothing is known.
    fn default() -> Self {
        LazyLock::force(&BEGIN);
        Self(AtomicU64::new(0))
    }
}

impl EndpointState {
    /// Whether it is passed over; `None` while nothing is known against it.
    pub fn out(&self, now: Instant) -> Option<Out> {
        let word = self.dials.0.load(Ordering::Relaxed);
        let left = match word >> SHIFT {
            PROBED => 0,
            until => until.saturating_sub(milliseconds(now)),
        };
        (word != 0).then_some(Out {
            failures: word & FAILURES,
            left: Duration::from_millis(left),
        })
    }

    /// Whether a connection whose turn it is may have it: it is in, or its time is over and nobody tries it yet.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        is_open(self.dials.0.load(Ordering::Relaxed), now)
    }

    /// What its last check came to: `Err` says why it failed. `None` before the first one.
    pub fn check(&self) -> Option<Result<(), Arc<str>>> {
        let last = self.check.last.lock();
        last.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes in what a check came to. Tells whether that is news: it has failed, or passes again.
    pub fn checked(&self, outcome: Result<(), Arc<str>>) -> bool {
        let fails = outcome.is_err();
        *(self.check.last.lock()).unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.check.fails.swap(fails, Ordering::Relaxed) != fails
    }

    /// It is checked no more: nothing is known.
    pub fn unchecked(&self) {
        *(self.check.last.lock()).unwrap_or_else(PoisonError::into_inner) = None;
        self.check.fails.store(false, Ordering::Relaxed);
    }

    /// Whether its last check failed.
    pub(super) fn fails(&self) -> bool {
        self.check.fails.load(Ordering::Relaxed)
    }

    /// An endpoint that answered has refused the gateway after all. Tells for how long it is passed over from `now` on, if it
    /// is this failure that counts.
    pub fn failed_late(&self, now: Instant) -> Option<Duration> {
        let word = milliseconds(now + FIRST) << SHIFT | 1;
        let relaxed = Ordering::Relaxed;
        let taken = (self.dials.0).compare_exchange(0, word, relaxed, relaxed);
        taken.is_ok().then_some(FIRST)
    }
}

fn is_open(word: u64, now: Instant) -> bool {
    word == 0 || word >> SHIFT <= milliseconds(now)
}

/// As far as the word goes: nine thousand years.
fn milliseconds(now: Instant) -> u64 {
    let since = now.saturating_duration_since(*BEGIN).as_millis();
    u64::try_from(since).map_or(PROBED - 1, |since| since.min(PROBED - 1))
}

/// How long an endpoint is out after so many failures in a row.
fn time_out(failures: u64) -> Duration {
    let doubled = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    let factor = 1_u32.checked_shl(doubled).unwrap_or(u32::MAX);
    FIRST.saturating_mul(factor).min(LONGEST)
}

/// One connection's try at an endpoint. Who drops it without a word leaves the endpoint as it was before.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// What to dial.
    pub endpoint: &'a Endpoint,
    state: &'a EndpointState,
    /// The state that a failure would follow. `None` where a failure says nothing new: the endpoint is out already.
    seen: Option<u64>,
    /// What the endpoint goes back to if nothing comes of the try.
    before: Option<u64>,
}

impl<'a> Attempt<'a> {
    /// A try at an endpoint that is in, or due: of several connections the first has it. `None` where it is out.
    pub(super) fn open(
        endpoint: &'a Endpoint,
        state: &'a EndpointState,
        now: Instant,
    ) -> Option<Self> {
        let word = state.dials.0.load(Ordering::Relaxed);
        if !is_open(word, now) {
            return None;
        }
        let mut attempt = Self {
            endpoint,
            state,
            seen: Some(word),
            before: None,
        };
        if word != 0 {
            let probed = PROBED << SHIFT | word & FAILURES;
            attempt.swap(word, probed).then_some(())?;
            attempt.seen = Some(probed);
            attempt.before = Some(word);
        }
        Some(attempt)
    }

    /// A try at an endpoint that is out, because no other is left.
    pub(super) fn last_resort(endpoint: &'a Endpoint, state: &'a EndpointState) -> Self {
        Self {
            endpoint,
            state,
            seen: None,
            before: None,
        }
    }

    /// The endpoint answered and proved what it must: nothing is known against it any more. Tells whether anything was.
    pub fn succeeded(mut self) -> bool {
        self.before = None;
        self.state.dials.0.swap(0, Ordering::Relaxed) != 0
    }

    /// The endpoint could not be used. Tells for how long it is passed over from `now` on, if it is this failure that
    /// counts: of connections that were under way together the first one's does.
    pub fn failed(mut self, now: Instant) -> Option<Duration> {
        self.before = None;
        let seen = self.seen?;
        let failures = FAILURES.min((seen & FAILURES) + 1);
        let time = time_out(failures);
        let until = milliseconds(now + time);
        self.swap(seen, until << SHIFT | failures).then_some(time)
    }

    fn swap(&self, from: u64, to: u64) -> bool {
        (self.state.dials.0)
            .compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let (Some(seen), Some(before)) = (self.seen, self.before) {
            self.swap(seen, before);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint {
            address: "10.0.0.1:22".parse().unwrap(),
            configured: "10.0.0.1:22".into(),
            weight: 1,
        }
    }

    /// What one connection after the other meets.
    struct Desk {
        endpoint: Endpoint,
        state: EndpointState,
        now: Cell<Instant>,
    }

    impl Desk {
        fn new() -> Self {
            Self {
                endpoint: endpoint(),
                state: EndpointState::default(),
                now: Cell::new(Instant::now()),
            }
        }

        fn dial(&self) -> Option<Attempt<'_>> {
            Attempt::open(&self.endpoint, &self.state, self.now())
        }

        fn now(&self) -> Instant {
            self.now.get()
        }

        fn pass(&self, time: Duration) {
            self.now.set(self.now() + time);
        }

        fn out(&self) -> Option<(u64, f64)> {
            let out = self.state.out(self.now())?;
            Some((out.failures, out.left.as_secs_f64()))
        }
    }

    #[test]
    fn each_failure_doubles_the_time_up_to_a_minute() {
        let desk = Desk::new();
        let mut times = Vec::new();
        for failures in 1..=9 {
            let time = desk.dial().unwrap().failed(desk.now()).unwrap();
            times.push(time.as_secs());
            assert_eq!(desk.out(), Some((failures, time.as_secs_f64())));
            assert!(desk.dial().is_none());
            desk.pass(time - Duration::from_millis(1));
            assert!(desk.dial().is_none());
            desk.pass(Duration::from_millis(1));
        }
        assert_eq!(times, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        let long = FAILURES << 8;
        assert_eq!(time_out(long), LONGEST);
    }

    #[test]
    fn one_success_forgets_every_failure() {
        let desk = Desk::new();
        for _ in 0..3 {
            let time = desk.dial().unwrap().failed(desk.now()).unwrap();
            desk.pass(time);
        }
        assert!(desk.dial().unwrap().succeeded());
        assert_eq!(desk.out(), None);
        assert!(!desk.dial().unwrap().succeeded(), "nothing was against it");
        let time = desk.dial().unwrap().failed(desk.now()).unwrap();
        assert_eq!(time, FIRST);
    }

    #[test]
    fn of_connections_that_were_under_way_together_one_failure_counts() {
        let desk = Desk::new();
        let together = [desk.dial(), desk.dial(), desk.dial()].map(Option::unwrap);
        // The last of them has waited for its deadline, when the time of the first is over.
        let late = desk.now() + Duration::from_secs(5);
        let times = together.map(|attempt| attempt.failed(late));
        assert_eq!(times, [Some(FIRST), None, None]);
    }

    #[test]
    fn when_its_time_is_over_one_connection_tries_it_and_the_others_pass() {
        let desk = Desk::new();
        desk.dial().unwrap().failed(desk.now()).unwrap();
        desk.pass(FIRST);
        assert_eq!(desk.out(), Some((1, 0.0)), "it is due");
        let probe = desk.dial().unwrap();
        // However long it takes.
        desk.pass(10 * LONGEST);
        assert!(desk.dial().is_none());
        assert_eq!(desk.out(), Some((1, 0.0)), "it is being tried");
        assert_eq!(probe.failed(desk.now()), Some(2 * FIRST));
        assert_eq!(desk.out(), Some((2, 2.0)));
    }

    #[test]
    fn a_try_that_comes_to_nothing_leaves_it_to_the_next() {
        let desk = Desk::new();
        desk.dial().unwrap().failed(desk.now()).unwrap();
        desk.pass(FIRST);
        drop(desk.dial().unwrap());
        assert_eq!(desk.out(), Some((1, 0.0)));
        assert_eq!(desk.dial().unwrap().failed(desk.now()), Some(2 * FIRST));
    }

    #[test]
    fn what_fails_as_a_last_resort_is_out_no_longer_for_it_and_what_answers_is_in() {
        let desk = Desk::new();
        desk.dial().unwrap().failed(desk.now()).unwrap();
        let last_resort = || Attempt::last_resort(&desk.endpoint, &desk.state);
        assert_eq!(last_resort().failed(desk.now()), None);
        assert_eq!(desk.out(), Some((1, 1.0)));
        assert!(last_resort().succeeded());
        assert_eq!(desk.out(), None);
    }

    #[test]
    fn a_hundred_thousand_failures_in_a_row_are_counted_as_far_as_there_is_room() {
        let desk = Desk::new();
        desk.state.dials.0.store(FAILURES, Ordering::Relaxed);
        let time = desk.dial().unwrap().failed(desk.now());
        assert_eq!(time, Some(LONGEST));
        assert_eq!(desk.out(), Some((FAILURES, 60.0)));
    }
}
