//! The admin interface as it runs: it comes, stays and goes with the configuration, as listeners do.

use std::convert::Infallible;
use std::net::SocketAddr;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Serving;
use crate::admin;
use crate::config::{self, ListenAddress};

/// The admin interface, until it is closed.
#[derive(Debug)]
pub(super) struct Admin {
    /// As it is written: with port 0 where the system chose one.
    pub(super) written: ListenAddress,
    pub(super) bound: ListenAddress,
    stop: CancellationToken,
    /// Hears when its address is free.
    closed: oneshot::Receiver<Infallible>,
}

impl Admin {
    pub(super) fn start(
        written: ListenAddress,
        mut listener: admin::Listener,
        serving: &Serving,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let bound = listener.address();
        let closed = listener.closed();
        let stop = CancellationToken::new();
        tasks.spawn(admin::serve(
            listener,
            serving.sources.clone(),
            serving.shutdown.clone(),
            stop.clone(),
        ));
        Self {
            written,
            bound,
            stop,
            closed,
        }
    }

    /// Whether it is where this is written, which may be another path to the same UNIX socket.
    pub(super) fn is_at(&self, written: &ListenAddress) -> bool {
        self.written.is_at(written)
    }

    /// Whether nothing can be bound there while this one is.
    pub(super) fn blocks(&self, address: SocketAddr) -> bool {
        matches!(self.bound, ListenAddress::Tcp(bound) if config::overlap(bound, address))
    }

    /// Takes nobody new, and ends with its last answer; who holds what is returned hears when the address is free, which is
    /// before that: whoever has asked for a reload waits for his answer here.
    pub(super) fn close(self) -> oneshot::Receiver<Infallible> {
        self.stop.cancel();
        self.closed
    }
}
