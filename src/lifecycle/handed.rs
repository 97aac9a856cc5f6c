//! What whoever starts a process hands over to it: listening sockets (sd_listen_fds(3)), and whom to tell.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use listenfd::ListenFd;
use socket2::SockRef;

use super::Notify;
use crate::sandbox::Sandbox;

/// What was handed over; nothing, by default.
#[derive(Clone, Debug, Default)]
pub struct Handed {
    /// Sockets on which clients may wait already.
    pub sockets: Sockets,
    /// The service manager.
    pub notify: Notify,
    /// What this process has entered; `None` where it is not the gateway's alone.
    pub sandbox: Option<Sandbox>,
}

/// Sockets that were bound by somebody else, who keeps them when this process ends.
#[derive(Clone, Debug, Default)]
pub struct Sockets(Arc<[(SocketAddr, TcpListener)]>);

/// What was handed over cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum NotListening {
    /// It is no TCP socket.
    #[error("the service manager has handed over what is no TCP socket: {0}")]
    NotTcp(io::Error),
    /// It does not listen: `Accept=yes` hands over the connections themselves.
    #[error(
        "the service manager has handed over a TCP socket that does not listen (descriptor {0})"
    )]
    Connected(usize),
    /// Two listen on one address: the clients of one of them would never be served.
    #[error("the service manager has handed over two sockets that listen on {0}")]
    Twice(SocketAddr),
}

/// The first descriptor that is handed over (`SD_LISTEN_FDS_START`).
const FIRST: usize = 3;

impl Sockets {
    /// Those that the environment names: `LISTEN_FDS`, unless `LISTEN_PID` is another process. Both variables are removed,
    /// and no child gets the sockets; so this must be called before the process has a second thread.
    ///
    /// # Errors
    /// One of them is not what can be listened on.
    pub fn from_env() -> Result<Self, NotListening> {
        let mut handed = ListenFd::from_env();
        let mut sockets: Vec<(SocketAddr, TcpListener)> = Vec::new();
        for at in 0..handed.len() {
            let socket = handed.take_tcp_listener(at).map_err(NotListening::NotTcp)?;
            let Some(socket) = socket else { continue };
            if !SockRef::from(&socket).is_listener().unwrap_or(false) {
                return Err(NotListening::Connected(FIRST + at));
            }
            let address = socket.local_addr().map_err(NotListening::NotTcp)?;
            if sockets.iter().any(|(other, _)| *other == address) {
                return Err(NotListening::Twice(address));
            }
            sockets.push((address, socket));
        }
        Ok(Self(sockets.into()))
    }

    /// Their addresses, in the order in which they were handed over.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().map(|(address, _)| *address)
    }

    /// The one that is bound to this address. It may be taken again when it was given back.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn at(&self, address: SocketAddr) -> io::Result<Option<TcpListener>> {
        let found = self.0.iter().find(|(bound, _)| *bound == address);
        found.map(|(_, socket)| socket.try_clone()).transpose()
    }
}
