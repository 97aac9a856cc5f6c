//! How long a relay waits for a byte.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// A timer that exists only while there is a limit.
#[derive(Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    last: Option<Instant>,
    half: bool,
}

impl Timer {
    /// Ready when nothing has moved for `limit`. `half` starts the count anew when it changes.
    pub(super) fn poll(
        &mut self,
        limit: Option<Duration>,
        moved: bool,
        half: bool,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let Some(limit) = limit else {
            return Poll::Pending;
        };
        let now = Instant::now();
        if moved || half != self.half || self.last.is_none() {
            self.last = Some(now);
        }
        let due = self.last.unwrap_or(now) + limit;
        // A stale timer is left to fire: it costs one wake-up, setting it anew would cost every chunk.
        if half != self.half || self.sleep.is_none() {
            self.half = half;
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
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
    }
}
