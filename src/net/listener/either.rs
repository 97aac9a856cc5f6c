//! A socket that listens, over TCP or as a UNIX socket.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::{Local, Lost, Tcp};
use crate::config::{Keepalive, ListenAddress};
use crate::net::raw::Accepted;
use crate::net::unix::{BindError, Place};

/// A socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// Over TCP.
    Tcp(Tcp),
    /// A UNIX socket.
    Local(Local),
}

impl Listener {
    /// Binds and listens; a UNIX socket has this mode.
    ///
    /// # Errors
    /// The system refuses, or somebody else is there.
    pub fn bind(
        address: &ListenAddress,
        mode: u32,
        keepalive: &Keepalive,
    ) -> Result<Self, BindError> {
        match address {
            ListenAddress::Tcp(address) => {
                Tcp::bind(*address, keepalive)
                    .map(Self::Tcp)
                    .map_err(|error| BindError::System {
                        address: address.to_string(),
                        error,
                    })
            }
            ListenAddress::Unix(path) => Local::bind(path, mode).map(Self::Local),
        }
    }

    /// For those who are accepted from now on.
    ///
    /// # Errors
    /// The system's, when it refuses the values.
    pub fn keep_alive(&self, keepalive: &Keepalive) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.keep_alive(keepalive),
            // Whoever is on this machine is gone when its process is.
            Self::Local(_) => Ok(()),
        }
    }

    /// Gives the file of a UNIX socket another mode.
    ///
    /// # Errors
    /// The system's.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        match self {
            Self::Tcp(_) => Ok(()),
            Self::Local(local) => local.set_mode(mode),
        }
    }

    /// The address bound, with its port.
    pub fn address(&self) -> ListenAddress {
        match self {
            Self::Tcp(tcp) => ListenAddress::Tcp(tcp.address()),
            Self::Local(local) => ListenAddress::Unix(local.path().to_owned()),
        }
    }

    /// Where the file of a UNIX socket was put that is its own.
    pub fn place(&self) -> Option<Place> {
        match self {
            Self::Tcp(_) => None,
            Self::Local(local) => local.place(),
        }
    }

    /// Whether it stands for all addresses and takes no IPv4 clients: one that was adopted may.
    pub fn refuses_ipv4(&self) -> bool {
        matches!(self, Self::Tcp(tcp) if tcp.refuses_ipv4())
    }

    /// Accepts for ever, until the future is dropped: each connection goes to `take`, which must not wait;
    /// each failure to `failed`.
    pub async fn accept(&self, mut take: impl FnMut(Accepted), failed: impl FnMut(&io::Error)) {
        match self {
            Self::Tcp(tcp) => {
                let take = |tcp, client| take(Accepted::Tcp(tcp, client));
                tcp.accept(take, failed).await;
            }
            Self::Local(local) => local.accept(take, failed).await,
        }
    }

    /// Takes who is in the queue of a UNIX socket at the moment; there the kernel has looked at the mode when they connected.
    ///
    /// # Errors
    /// The system's: somebody may be in the queue still.
    pub fn take_queued(&self, take: impl FnMut(Accepted)) -> io::Result<()> {
        match self {
            Self::Tcp(_) => Ok(()),
            Self::Local(local) => local.take_queued(take),
        }
    }

    /// Takes what the kernel has accepted already and nobody has taken, then stops listening, as [`Tcp::close`] does. Must
    /// run on the runtime.
    ///
    /// # Errors
    /// Somebody waited to the end, and is reset by the kernel.
    pub async fn close<Room>(
        self,
        room: impl FnMut() -> Option<Room>,
        mut take: impl FnMut(Accepted, Room),
        failed: impl FnMut(&io::Error),
        give_up: impl Future<Output = ()>,
    ) -> Result<(), Lost> {
        match self {
            Self::Tcp(tcp) => {
                let take = |tcp: TcpStream, client: SocketAddr, room| {
                    take(Accepted::Tcp(tcp, client), room);
                };
                tcp.close(room, take, failed, give_up).await
            }
            Self::Local(local) => local.close(room, take, failed, give_up).await,
        }
    }
}
