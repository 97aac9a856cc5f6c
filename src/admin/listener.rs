//! Where the admin interface listens: a TCP address, or a UNIX socket for its owner only.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::oneshot;

use crate::config::ListenAddress;
use crate::net::unix::{self, Place, SocketFile};

pub use crate::net::unix::BindError;

/// What accepts connections to the admin interface.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    /// Dropped after the socket, as fields are in their order.
    open: Option<oneshot::Sender<Infallible>>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, SocketFile),
}

impl Listener {
    /// Binds the address. The file of a UNIX socket has mode 0600 from its first moment, takes the place of one
    /// that nobody listens on, and goes with the listener.
    pub async fn bind(address: &ListenAddress) -> Result<Self, BindError> {
        match address {
            ListenAddress::Tcp(address) => {
                let bound = async {
                    let listener = TcpListener::bind(address).await?;
                    let address = listener.local_addr()?;
                    Ok(Self::of(Socket::Tcp(listener, address)))
                };
                bound.await.map_err(|error| BindError::System {
                    address: address.to_string(),
                    error,
                })
            }
            ListenAddress::Unix(path) => {
                let (listener, file) = unix::bind(path, 0o600)?;
                let listener = (listener.set_nonblocking(true))
                    .and_then(|()| UnixListener::from_std(listener))
                    .map_err(|error| BindError::System {
                        address: path.display().to_string(),
                        error,
                    })?;
                Ok(Self::of(Socket::Unix(listener, file)))
            }
        }
    }

    fn of(socket: Socket) -> Self {
        Self { socket, open: None }
    }

    /// Hears when it is dropped, and its address free.
    pub fn closed(&mut self) -> oneshot::Receiver<Infallible> {
        let (open, closed) = oneshot::channel();
        self.open = Some(open);
        closed
    }

    /// Where it listens: with the port that the system chose, if it did.
    pub fn address(&self) -> ListenAddress {
        match &self.socket {
            Socket::Tcp(_, address) => ListenAddress::Tcp(*address),
            Socket::Unix(_, file) => ListenAddress::Unix(file.path().to_owned()),
        }
    }

    /// Where the file of a UNIX socket was put.
    pub fn place(&self) -> Option<Place> {
        match &self.socket {
            Socket::Tcp(..) => None,
            Socket::Unix(_, file) => Some(file.place()),
        }
    }

    /// Whether programs of this machine only, its browsers among them, can connect over TCP.
    pub(super) fn is_loopback(&self) -> bool {
        matches!(&self.socket, Socket::Tcp(_, address) if address.ip().to_canonical().is_loopback())
    }

    /// The next connection; errors are logged and waited out.
    pub(super) async fn accept(&self) -> Stream {
        loop {
            let accepted = match &self.socket {
                Socket::Tcp(listener, _) => listener
                    .accept()
                    .await
                    .map(|(stream, _)| Stream::Tcp(stream)),
                Socket::Unix(listener, _) => listener
                    .accept()
                    .await
                    .map(|(stream, _)| Stream::Unix(stream)),
            };
            match accepted {
                Ok(stream) => return stream,
                // The peer went away while it waited in the queue.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // Most often no file descriptor is left: a second may free one.
                Err(error) => {
                    tracing::warn!(%error, "the admin interface cannot accept a connection");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// An accepted connection.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}
