//! A listener that accepts, from the socket that is bound to its end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::wanted::Wanted;
use super::{OpenError, Serving};
use crate::config::{self, Keepalive, ListenAddress};
use crate::lifecycle::Socket;
use crate::net::limits::Room;
use crate::net::listener::{Listener, Local, Tcp};
use crate::net::raw::Accepted;
use crate::net::unix::Place;
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
    pub(super) written: Wanted,
    pub(super) bound: ListenAddress,
    /// Of its own UNIX socket.
    place: Option<Place>,
    /// For those who come from now on, with the mode of a UNIX socket. Dropped, it ends the task.
    settings: watch::Sender<(Keepalive, u32)>,
    /// Asks for those who are in the queue of its UNIX socket to be taken.
    queued: mpsc::Sender<oneshot::Sender<io::Result<()>>>,
    /// Hears when the task has ended.
    closed: oneshot::Receiver<Infallible>,
}

impl Running {
    pub(super) fn start(
        id: ListenerId,
        written: Wanted,
        socket: Listener,
        keepalive: Keepalive,
        serving: Serving,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let (bound, place) = (socket.address(), socket.place());
        let (settings, changes) = watch::channel((keepalive, written.mode()));
        let (queued, asked) = mpsc::channel(1);
        let (open, closed) = oneshot::channel();
        let tracked = serving.shutdown.clone();
        tasks.spawn(tracked.track(async move {
            accept(id, socket, changes, asked, serving).await;
            drop(open);
        }));
        Self {
            id,
            written,
            bound,
            place,
            settings,
            queued,
            closed,
        }
    }

    /// Goes on so, for those who come from now on.
    pub(super) fn go_on(&mut self, written: Wanted, keepalive: Keepalive) {
        self.settings.send_replace((keepalive, written.mode()));
        self.written = written;
    }

    /// Takes the rights from its UNIX socket that it will not have any more, and everyone out of its queue who has come by
    /// them; those that it will have come by [`Self::go_on`].
    pub(super) async fn narrow(&self, wanted: &Wanted) -> Result<(), OpenError> {
        let (mode, kept) = (self.written.mode(), self.written.mode() & wanted.mode());
        let narrowed = match &self.place {
            Some(place) if kept != mode => match place.set_mode(kept) {
                Ok(()) => self.take_queued().await,
                Err(error) => Err(error),
            },
            _ => Ok(()),
        };
        narrowed.map_err(|error| OpenError::Listen {
            address: self.bound.clone(),
            error,
        })
    }

    async fn take_queued(&self) -> io::Result<()> {
        let (told, outcome) = oneshot::channel();
        // Where nobody hears, nobody accepts any more.
        let closed = || io::ErrorKind::NotConnected.into();
        self.queued.send(told).await.map_err(|_| closed())?;
        outcome.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Whether nobody finds it any more: the file of its UNIX socket was removed, or another has taken its place.
    pub(super) fn is_lost(&self) -> bool {
        self.place.as_ref().is_some_and(|place| !place.is_own())
    }

    /// What those who come at the moment get.
    pub(super) fn keepalive(&self) -> Keepalive {
        self.settings.borrow().0
    }

    /// Whether nothing can be bound there while this one is.
    pub(super) fn blocks(&self, address: SocketAddr) -> bool {
        (self.bound.tcp()).is_some_and(|bound| config::overlap(bound, address))
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
    mut settings: watch::Receiver<(Keepalive, u32)>,
    mut queued: mpsc::Receiver<oneshot::Sender<io::Result<()>>>,
    serving: Serving,
) {
    let Serving {
        proxy,
        metrics,
        shutdown,
        ..
    } = serving;
    let address = listener.address();
    let counter = metrics.accepted(&address);
    let take = |accepted: Accepted, room: Option<Room>| {
        counter.inc();
        let (proxy, snapshot) = (Arc::clone(&proxy), proxy.snapshot());
        let at = (id, address.clone());
        let handling = async move {
            // It takes this up in its first step.
            drop(room);
            proxy.handle(accepted, at, snapshot).await;
        };
        tokio::spawn(shutdown.track(handling));
    };
    let failed = |error: &io::Error| {
        metrics.accept_failed(error);
        tracing::warn!(%address, %error, "cannot accept");
    };
    let is_stop = {
        // One future for all turns: begun anew it would forget how long it pauses.
        let mut accepting = pin!(listener.accept(|accepted| take(accepted, None), failed));
        loop {
            tokio::select! {
                // First: who is not accepted yet need not be refused for want of room.
                biased;
                () = shutdown.closing() => break true,
                changed = settings.changed() => match changed {
                    Ok(()) => {
                        let (keepalive, mode) = *settings.borrow_and_update();
                        if let Err(error) = listener.keep_alive(&keepalive) {
                            tracing::warn!(%address, %error, "the keepalive cannot be changed");
                        }
                        if let Err(error) = listener.set_mode(mode) {
                            tracing::warn!(%address, %error, "the mode of the socket cannot be changed");
                        }
                    }
                    Err(_) => break false,
                },
                Some(told) = queued.recv() => {
                    // Whoever asks waits.
                    let _ = told.send(listener.take_queued(|accepted| take(accepted, None)));
                }
                () = &mut accepting => {}
            }
        }
    };
    // Whoever asks in vain must not wait for the end of the queue.
    drop(queued);
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
        metrics.lost(&address, lost.0.unwrap_or(1));
        tracing::error!(%address, waiting = lost.0, "{lost}");
    }
}

/// Takes the socket that was handed over for this address, or binds one.
pub(super) fn bind(
    address: &ListenAddress,
    mode: u32,
    keepalive: &Keepalive,
    serving: &Serving,
) -> Result<Listener, OpenError> {
    let adopted = match serving.handed.sockets.at(address) {
        Ok(None) => return Listener::bind(address, mode, keepalive).map_err(OpenError::Bind),
        Ok(Some(Socket::Tcp(socket))) => Tcp::adopt(socket, keepalive).map(Listener::Tcp),
        Ok(Some(Socket::Unix(socket))) => {
            let ListenAddress::Unix(path) = address else {
                return Err(OpenError::Listen {
                    address: address.clone(),
                    error: io::ErrorKind::InvalidInput.into(),
                });
            };
            Local::adopt(socket, path.clone()).map(Listener::Local)
        }
        Err(error) => Err(error),
    };
    adopted.map_err(|error| OpenError::Listen {
        address: address.clone(),
        error,
    })
}
