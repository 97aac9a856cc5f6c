//! How long a relay waits for a byte, and how long it lasts.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::Patience;
use crate::metrics::Limit;

/// A timer that exists only while there is a limit.
#[derive(Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    last: Option<Instant>,
    half: bool,
    /// What is only counted has been.
    counted_idle: bool,
    counted_age: bool,
}

/// What a relay has had too much of.
#[derive(Clone, Copy)]
pub(super) enum Over {
    Silence,
    Age,
}

impl Timer {
    /// Ready when patience is at its end. Silence counts anew when one direction has ended: `half_closed` is the limit then.
    pub(super) fn poll(
        &mut self,
        patience: &Patience,
        moved: bool,
        half_closed: Option<Duration>,
        cx: &mut Context<'_>,
    ) -> Poll<Over> {
        let half = half_closed.is_some();
        let silence = half_closed.or(patience.idle.max.filter(|_| !self.counted_idle));
        if silence.is_some() && (moved || half != self.half || self.last.is_none()) {
            self.last = Some(Instant::now());
        }
        let changed = half != self.half;
        self.half = half;
        let silent = silence.and_then(|limit| Some((self.last? + limit, Over::Silence)));
        let until = patience.until.filter(|_| !self.counted_age);
        let old = until.map(|until| (until, Over::Age));
        let next = [silent, old].into_iter().flatten();
        let Some((due, over)) = next.min_by_key(|(due, _)| *due) else {
            self.sleep = None;
            return Poll::Pending;
        };
        // A stale timer is left to fire: it costs one wake-up, setting it anew would cost every chunk.
        if changed || self.sleep.is_none() {
            self.sleep = Some(Box::pin(tokio::time::sleep_until(due)));
        }
        let Some(sleep) = self.sleep.as_mut() else {
            return Poll::Pending;
        };
        // The limit has become shorter.
        if due < sleep.deadline() {
            sleep.as_mut().reset(due);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if due <= Instant::now() {
                break;
            }
            sleep.as_mut().reset(due);
        }
        if self.ends(patience, over) {
            return Poll::Ready(over);
        }
        // It goes on, with the limit that is left.
        self.sleep = None;
        self.poll(patience, false, half_closed, cx)
    }

    /// Counts what is over a limit; whether it ends there.
    fn ends(&mut self, patience: &Patience, over: Over) -> bool {
        let exceeded = &patience.exceeded;
        match over {
            Over::Silence if self.half => true,
            Over::Silence => {
                self.counted_idle = true;
                (exceeded.count(Limit::Idle, patience.idle.enforce)).is_err()
            }
            Over::Age => {
                self.counted_age = true;
                (exceeded.count(Limit::Lifetime, patience.ends_then)).is_err()
            }
        }
    }
}
