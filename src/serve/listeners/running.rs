//! A listener that accepts, from the socket that is bound to its end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::Serving;
use crate::config::{self, Keepalive};
use crate::net::limits::Room;
use crate::net::listener::Listener;
use crate::snapshot::ListenerId;

/// How long a listener that is removed goes on trying to accept those in its queue where descriptors or memory lack.
///
/// 2 s: another may wait for its address, and whoever comes there is not served in between.
const REMOVED: Duration = Duration::from_secs(2);

/// One that accepts, until it is closed.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) id: ListenerId,
    /// As it is written: with port 0 where the system chose one.
    pub(super) written: config::Listener,
    pub(super) bound: SocketAddr,
    /// For those who come from now on. Dropped, it ends the task.
    keepalive: watch::Sender<Keepalive>,
    /// Hears when the task has ended.
    closed: oneshot::Receiver<Infallible>,
}

impl Running {
    pub(super) fn start(
        id: ListenerId,
        written: config::Listener,
        socket: Listener,
        keepalive: Keepalive,
        serving: Serving,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let bound = socket.address();
        let (keepalive, changes) = watch::channel(keepalive);
        let (open, closed) = oneshot::channel();
        let tracked = serving.shutdown.clone();
        tasks.spawn(tracked.track(async move {
            accept(id, socket, changes, serving).await;
            drop(open);
        }));
        Self {
            id,
            written,
            bound,
            keepalive,
            closed,
        }
    }

    /// Goes on so, for those who come from now on.
    pub(super) fn go_on(&mut self, written: config::Listener, keepalive: Keepalive) {
        self.keepalive.send_replace(keepalive);
        self.written = written;
    }

    /// What those who come at the moment get.
    pub(super) fn keepalive(&self) -> Keepalive {
        *self.keepalive.borrow()
    }

    /// Whether nothing can be bound there while this one is.
    pub(super) fn blocks(&self, address: SocketAddr) -> bool {
        config::overlap(self.bound, address)
    }

    /// Takes whom the kernel has accepted already, and ends; who holds what is returned hears when the address is free.
    pub(super) fn close(self) -> oneshot::Receiver<Infallible> {
        self.closed
    }
}

/// Accepts on one listener until it is to be closed, and leaves nobody in its queue.
async fn accept(
    id: ListenerId,
    listener: Listener,
    mut keepalive: watch::Receiver<Keepalive>,
    serving: Serving,
) {
    let Serving {
        proxy,
        metrics,
        shutdown,
        ..
    } = serving;
    let address = listener.address();
    let accepted = metrics.accepted(address);
    let take = |tcp: TcpStream, client: SocketAddr, room: Option<Room>| {
        accepted.inc();
        let proxy = Arc::clone(&proxy);
        let handling = async move {
            // It takes this up in its first step.
            drop(room);
            proxy.handle(tcp, client, id, address).await;
        };
        tokio::spawn(shutdown.track(handling));
    };
    let failed = |error: &io::Error| {
        metrics.accept_failed(error);
        tracing::warn!(%address, %error, "cannot accept");
    };
    let is_stop = {
        // One future for all turns: begun anew it would forget how long it pauses.
        let mut accepting = pin!(listener.accept(|tcp, client| take(tcp, client, None), failed));
        loop {
            tokio::select! {
                // First: who is not accepted yet need not be refused for want of room.
                biased;
                () = shutdown.closing() => break true,
                changed = keepalive.changed() => match changed {
                    Ok(()) => {
                        if let Err(error) = listener.keep_alive(&keepalive.borrow_and_update()) {
                            tracing::warn!(%address, %error, "the keepalive cannot be changed");
                        }
                    }
                    Err(_) => break false,
                },
                () = &mut accepting => {}
            }
        }
    };
    // At a stop nobody else comes: those who wait can wait for room. Where a listener is removed they are as all others.
    let room = || match is_stop {
        true => proxy.room().map(Some),
        false => Some(None),
    };
    // What a stop ends gives back descriptors to its last moment.
    let give_up = async {
        tokio::select! {
            () = shutdown.cutting() => {}
            () = tokio::time::sleep(REMOVED), if !is_stop => {}
        }
    };
    if let Err(lost) = listener.close(room, take, failed, give_up).await {
        metrics.lost(address, lost.0.unwrap_or(1));
        tracing::error!(%address, waiting = lost.0, "{lost}");
    }
}

/// Takes the socket that was handed over for this address, or binds one.
pub(super) fn bind(
    address: SocketAddr,
    keepalive: &Keepalive,
    serving: &Serving,
) -> io::Result<Listener> {
    match serving.handed.sockets.at(address)? {
        Some(socket) => Listener::adopt(socket, keepalive),
        None => Listener::bind(address, keepalive),
    }
}
