//! The end of a process in three steps: drain (it is ready no more), close (take nobody new, finish what runs), cut.

use std::future::Future;
use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod early;
mod handed;
mod notify;
mod reload;

pub use early::Early;
pub use handed::{Handed, Malformed, NotListening, Socket, Sockets};
pub use notify::Notify;
pub use reload::{Reload, Wish};

/// Tells every task of a process when to drain, to close and to stop, and knows which of them still run.
///
/// Cloning gives another handle of the same process.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    close: CancellationToken,
    cut: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// A process that goes on until it is told otherwise.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins to drain: readiness ends, everything else goes on.
    pub fn begin_drain(&self) {
        self.drain.cancel();
        self.tasks.close();
    }

    /// Listeners stop accepting, running tunnels go on. Drains first if that had not begun.
    pub fn close(&self) {
        self.begin_drain();
        self.close.cancel();
    }

    /// Ends what still runs. Closes first if that had not happened.
    pub fn cut(&self) {
        self.close();
        self.cut.cancel();
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Returns when the drain has begun.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Returns when nobody new is to be taken.
    pub async fn closing(&self) {
        self.close.cancelled().await;
    }

    /// Returns when what still runs must end.
    pub async fn cutting(&self) {
        self.cut.cancelled().await;
    }

    /// Makes a future count as running until it ends or is dropped. It runs where the caller spawns it.
    ///
    /// Track what accepts connections too, not only the connections: else the last one taken from the queue
    /// can come after [`drained`](Self::drained) has returned.
    pub fn track<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        self.tasks.track_future(future)
    }

    /// How many tracked futures run.
    pub fn running(&self) -> usize {
        self.tasks.len()
    }

    /// Returns when the drain has begun and nothing that was tracked still runs.
    pub async fn drained(&self) {
        self.tasks.wait().await;
    }
}

/// Listens for SIGTERM, SIGINT and SIGHUP from this call on. The future that it returns must be polled: the first
/// SIGTERM or SIGINT drains, the second one cuts, and then it ends. SIGHUP asks for the configuration to be read again.
///
/// # Errors
/// The system's, when it refuses the handlers.
pub fn signals(shutdown: Shutdown, reload: Reload) -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        let mut next = async || {
            loop {
                tokio::select! {
                    _ = terminate.recv() => return "SIGTERM",
                    _ = interrupt.recv() => return "SIGINT",
                    _ = hang_up.recv() => reload.ask("SIGHUP"),
                }
            }
        };
        let signal = next().await;
        tracing::info!(
            signal,
            "told to stop; a second signal ends everything at once"
        );
        shutdown.begin_drain();
        let signal = next().await;
        tracing::info!(
            signal,
            running = shutdown.running(),
            "ending what still runs"
        );
        shutdown.cut();
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::task::Poll;

    use tokio::sync::oneshot;

    use super::*;

    async fn is_pending(future: std::pin::Pin<&mut impl Future>) -> bool {
        let mut future = Some(future);
        std::future::poll_fn(|cx| Poll::Ready(future.take().unwrap().poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn drained_waits_for_the_drain_and_then_for_the_last_task() {
        let shutdown = Shutdown::new();
        let (end, ended) = oneshot::channel::<()>();
        let task = tokio::spawn(shutdown.track(async move {
            let _ = ended.await;
        }));
        let mut drained = std::pin::pin!(shutdown.drained());
        assert!(is_pending(drained.as_mut()).await);
        shutdown.begin_drain();
        shutdown.draining().await;
        assert!(is_pending(drained.as_mut()).await, "a task still runs");
        assert_eq!(shutdown.running(), 1);
        end.send(()).unwrap();
        drained.await;
        task.await.unwrap();
        assert_eq!(shutdown.running(), 0);
    }

    #[tokio::test]
    async fn drained_needs_a_drain_even_if_nothing_runs() {
        let shutdown = Shutdown::new();
        assert!(is_pending(std::pin::pin!(shutdown.drained())).await);
        shutdown.begin_drain();
        shutdown.drained().await;
    }

    #[tokio::test]
    async fn what_is_taken_during_a_drain_still_counts() {
        let shutdown = Shutdown::new();
        shutdown.begin_drain();
        let late = shutdown.track(std::future::ready(()));
        assert!(is_pending(std::pin::pin!(shutdown.drained())).await);
        late.await;
        shutdown.drained().await;
    }

    #[tokio::test]
    async fn a_drain_does_not_close_nor_cut_and_a_cut_does_all() {
        let shutdown = Shutdown::new();
        shutdown.begin_drain();
        assert!(is_pending(std::pin::pin!(shutdown.closing())).await);
        shutdown.close();
        shutdown.closing().await;
        assert!(is_pending(std::pin::pin!(shutdown.cutting())).await);
        let shutdown = Shutdown::new();
        shutdown.clone().cut();
        shutdown.cutting().await;
        shutdown.closing().await;
        assert!(shutdown.is_draining());
    }
}
