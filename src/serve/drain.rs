//! The end of a gateway: it is ready no more, then nobody new comes in, then an end for those who find none.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use crate::config::Limits;
use crate::lifecycle::{Notify, Shutdown};
use crate::log::AccessLog;
use crate::net::session::Sessions;
use crate::reason::Reason;
use crate::state::State;

/// Sees a drain that has begun to its end, which comes no later than `drain_delay` and `drain_timeout` after the call (and
/// 1 s, in which those that were refused last read why), and at once where everything is cut. The last state and the last
/// lines of the log then take 2 s at most, together.
///
/// 1. Whoever asks hears that it is not ready; clients are still accepted, until load balancers have heard.
/// 2. Nobody new is accepted; those in the queue are. Tunnels go on.
/// 3. Those that still run are ended evenly over `drain_spread`, the last part of `drain_timeout` and half of it at most.
pub(super) async fn drain(
    shutdown: &Shutdown,
    sessions: &Sessions,
    limits: &Limits,
    notify: &Notify,
    state: Option<Arc<State>>,
    log: &AccessLog,
) {
    let (delay, timeout) = (limits.drain_delay, limits.drain);
    // Whoever has just come is to be served, however short the time is.
    let spread = limits.drain_spread.min(timeout / 2);
    let closing = Instant::now() + delay;
    let deadline = closing + timeout;
    let running = sessions.count();
    tracing::info!(running, ?delay, ?timeout, "draining");
    let stages = async {
        let status = format!("draining: {running} connections");
        notify.stopping(delay + timeout, &status).await;
        sleep_until(closing).await;
        shutdown.close();
        tracing::info!(running = sessions.count(), "accepting nobody new");
        sleep_until(deadline - spread).await;
        let running = sessions.count();
        tracing::warn!(
            running,
            ?spread,
            "the drain's deadline: ending what still runs"
        );
        sessions.end(Reason::Drained, spread, |_| true).await;
        sleep_until(deadline).await;
    };
    let is_drained = tokio::select! {
        () = shutdown.drained() => true,
        () = shutdown.cutting() => false,
        () = stages => false,
    };
    if !is_drained {
        shutdown.cut();
        sessions.close(Reason::Drained);
        shutdown.drained().await;
    }
    // Both are bounded, and the last things that anybody waits for: at the same time.
    let writing = state.map(|state| tokio::task::spawn_blocking(move || state.close()));
    log.flush();
    if let Some(writing) = writing {
        let _ = writing.await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use tokio::task::JoinSet;

    use super::*;
    use crate::metrics::Metrics;

    const LIMITS: (u64, u64, u64) = (5, 100, 20);

    /// A gateway that drains, with the time since then.
    struct Desk {
        shutdown: Shutdown,
        sessions: Sessions,
        begin: Instant,
        /// What still runs, each until it is told to end; with when that was.
        tunnels: JoinSet<Duration>,
    }

    impl Desk {
        fn new(tunnels: usize) -> Self {
            let sessions = Sessions::new(AccessLog::off(), Metrics::new());
            let mut desk = Self {
                shutdown: Shutdown::new(),
                sessions,
                begin: Instant::now(),
                tunnels: JoinSet::new(),
            };
            // As a listener's task does.
            let shutdown = desk.shutdown.clone();
            tokio::spawn(desk.shutdown.track(async move { shutdown.closing().await }));
            for _ in 0..tunnels {
                desk.tunnel();
            }
            desk
        }

        fn tunnel(&mut self) {
            let address: SocketAddr = "192.0.2.1:2222".parse().unwrap();
            let (session, told) = self.sessions.begin(address.into(), address.into());
            let begin = self.begin;
            self.tunnels.spawn(self.shutdown.track(async move {
                assert_eq!(told.await, Ok(Reason::Drained));
                drop(session);
                begin.elapsed()
            }));
        }

        async fn drain(&self) -> Duration {
            self.drain_within(LIMITS).await
        }

        async fn drain_within(&self, (delay, timeout, spread): (u64, u64, u64)) -> Duration {
            self.shutdown.begin_drain();
            let limits = Limits {
                drain_delay: Duration::from_secs(delay),
                drain: Duration::from_secs(timeout),
                drain_spread: Duration::from_secs(spread),
                ..Limits::default()
            };
            let notify = Notify::default();
            let log = AccessLog::off();
            drain(&self.shutdown, &self.sessions, &limits, &notify, None, &log).await;
            self.begin.elapsed()
        }
    }

    /// Within a few turns of the clock.
    fn is(time: Duration, seconds: u64) -> bool {
        time.abs_diff(Duration::from_secs(seconds)) < Duration::from_millis(100)
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_runs_it_is_over_when_the_listeners_are_closed() {
        let (delay, ..) = LIMITS;
        let time = Desk::new(0).drain().await;
        assert!(is(time, delay), "{time:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_runs_is_ended_evenly_over_the_last_part_of_the_time() {
        let (delay, timeout, spread) = LIMITS;
        let mut desk = Desk::new(10);
        let time = desk.drain().await;
        assert!(time <= Duration::from_secs(delay + timeout), "{time:?}");
        let mut ends = Vec::new();
        while let Some(end) = desk.tunnels.join_next().await {
            ends.push(end.unwrap());
        }
        ends.sort();
        for (turn, end) in (0..).zip(&ends) {
            let due = delay + timeout - spread + turn * spread / 10;
            assert!(is(*end, due), "{end:?} and not {due} s");
        }
        assert_eq!(ends.len(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_time_is_shorter_than_the_spread_nothing_is_ended_in_its_first_half() {
        let mut desk = Desk::new(10);
        desk.drain_within((0, 4, 20)).await;
        let mut ends = Vec::new();
        while let Some(end) = desk.tunnels.join_next().await {
            ends.push(end.unwrap());
        }
        assert!(is(*ends.iter().min().unwrap(), 2), "{ends:?}");
        assert!(ends.iter().all(|end| *end <= Duration::from_secs(4)));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_comes_while_the_others_are_ended_ends_at_the_deadline() {
        let (delay, timeout, spread) = LIMITS;
        let mut desk = Desk::new(1);
        let late = desk.begin + Duration::from_secs(delay + timeout - spread / 2);
        let (shutdown, sessions) = (desk.shutdown.clone(), desk.sessions.clone());
        let begin = desk.begin;
        let address: SocketAddr = "192.0.2.1:2222".parse().unwrap();
        desk.tunnels.spawn(desk.shutdown.track(async move {
            sleep_until(late).await;
            let (_session, told) = sessions.begin(address.into(), address.into());
            assert!(shutdown.is_draining());
            assert_eq!(told.await, Ok(Reason::Drained));
            begin.elapsed()
        }));
        let time = desk.drain().await;
        assert!(is(time, delay + timeout), "{time:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_ends_everything_at_once_in_each_stage() {
        let (delay, timeout, spread) = LIMITS;
        for second in [1, delay + 1, delay + timeout - spread / 2] {
            let desk = Desk::new(3);
            let shutdown = desk.shutdown.clone();
            let at = desk.begin + Duration::from_secs(second);
            let cut = async move {
                sleep_until(at).await;
                shutdown.cut();
            };
            let (time, ()) = tokio::join!(desk.drain(), cut);
            assert!(is(time, second), "{time:?} and not {second} s");
        }
    }
}
