//! How long to wait before what has failed is tried again.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::time::Duration;

use rustix::io::Errno;

/// Pauses between attempts: they grow with each failure, and no two processes keep the same ones.
///
/// A pause is drawn from the upper half of its length. Gateways that lost the same server at the same moment come back
/// spread over that time, and none comes at once.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    length: Duration,
}

impl Backoff {
    /// Pauses of at most `first` at the beginning, doubled by each failure, and never longer than `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            length: first.min(most),
        }
    }

    /// How long to wait now, after one more failure.
    #[expect(
        clippy::should_implement_trait,
        reason = "it never ends: an Option would have to be unwrapped"
    )]
    pub fn next(&mut self) -> Duration {
        let length = self.length;
        self.length = length.saturating_mul(2).min(self.most);
        length.mul_f64(0.5 + chance() / 2.0)
    }

    /// It has succeeded: the next failure is a first one again.
    pub fn reset(&mut self) {
        self.length = self.first.min(self.most);
    }
}

/// 250 ms, doubled, at most 30 s: the seventh failure in a row, half a minute after the first, brings the longest pause.
///
/// 250 ms: a connection cut by a restart is back before a person notices, and a server that refuses all sees four
/// attempts in the first second at most. 30 s: what was mended is found within half a minute, and an outage of hours is
/// two questions a minute from each gateway, which no server feels.
impl Default for Backoff {
    fn default() -> Self {
        Self::new(Duration::from_millis(250), Duration::from_secs(30))
    }
}

/// Whether what the system refuses now it may grant later, though the same is asked for: an address is taken, or not there
/// yet, or there is too little of something (descriptors, memory, room on a disk).
pub fn may_pass(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::ADDRINUSE
                | Errno::ADDRNOTAVAIL
                | Errno::MFILE
                | Errno::NFILE
                | Errno::NOMEM
                | Errno::NOBUFS
                | Errno::AGAIN
                | Errno::NOSPC
        )
    )
}

/// A number from 0 to 1, by chance: the keys of a `RandomState` come from the system, and differ for each.
pub fn chance() -> f64 {
    let bits = RandomState::new().hash_one(0u8) >> 32;
    bits as f64 / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_each_within_the_upper_half_of_its_length() {
        let mut backoff = Backoff::default();
        for milliseconds in [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            let most = Duration::from_millis(milliseconds);
            let pause = backoff.next();
            assert!(pause <= most && pause >= most / 2, "{pause:?} of {most:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(250));
    }

    #[test]
    fn a_shortage_or_a_taken_address_may_pass_and_a_missing_file_or_right_does_not() {
        let passes = |errno: Errno| may_pass(&io::Error::from(errno));
        assert!(passes(Errno::ADDRINUSE) && passes(Errno::MFILE) && passes(Errno::NOMEM));
        assert!(!passes(Errno::NOENT) && !passes(Errno::ACCESS) && !passes(Errno::AFNOSUPPORT));
        assert!(!may_pass(&io::Error::other("of a test")));
    }

    #[test]
    fn no_two_keep_the_same_pauses() {
        let pauses = |_| {
            let mut backoff = Backoff::default();
            [(); 8].map(|()| backoff.next())
        };
        let of_many: std::collections::BTreeSet<_> = (0..8).map(pauses).collect();
        assert_eq!(of_many.len(), 8);
    }

    #[test]
    fn a_first_pause_is_never_longer_than_the_longest() {
        let mut backoff = Backoff::new(Duration::from_secs(9), Duration::from_secs(1));
        assert!(backoff.next() <= Duration::from_secs(1));
        backoff.reset();
        assert!(backoff.next() <= Duration::from_secs(1));
    }
}
