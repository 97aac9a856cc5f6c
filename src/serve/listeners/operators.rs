//! The admin interface as it runs: it comes, stays and goes with the configuration, as listeners do.

use std::convert::Infallible;
use std::net::SocketAddr;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Serving;
use crate::admin;
use crate::config::{self, ListenAddress};
use crate::net::unix;

/// The admin interface, until it is closed.
#[derive(Debug)]
pub(super) struct Admin {
    /// As it is written: with port 0 where the system chose one.
    pub(super) written: ListenAddress,
    pub(super) bound: ListenAddress,
    /// Of a UNIX socket.
    place: Option<unix::Place>,
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
        let (bound, place) = (listener.address(), listener.place());
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
            place,
            stop,
            closed,
        }
    }

    /// Whether it is where this is written, which may be another path to the same UNIX socket.
    pub(super) fn is_at(&self, written: &ListenAddress) -> bool {
        self.written.is_at(written)
    }

    /// Whether nobody finds it any more: the file of its UNIX socket was removed, or another has taken its place.
    pub(super) fn is_lost(&self) -> bool {
        self.place.as_ref().is_some_and(|place| !place.is_own())
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
