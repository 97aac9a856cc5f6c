//! A client in the clear, over TCP or a UNIX socket: nothing but a reset tells it that bytes are missing.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use tokio::net::{TcpStream, UnixStream};

use super::relay::{self, Socket as _};
use super::stream::receive;
use crate::log::Client;
use crate::tls::End;

/// A connection that was accepted, and whose it is.
#[derive(Debug)]
pub enum Accepted {
    /// Over TCP, from this address.
    Tcp(TcpStream, SocketAddr),
    /// Over a UNIX socket, of this user.
    Unix(UnixStream, u32),
}

/// A connection by itself.
#[derive(Debug)]
pub enum Socket {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a UNIX socket.
    Unix(UnixStream),
}

impl Accepted {
    /// The connection, and who it is, for the record.
    pub fn into_parts(self) -> (Socket, Client) {
        match self {
            Self::Tcp(tcp, address) => (Socket::Tcp(tcp), Client::Tcp(address)),
            Self::Unix(unix, uid) => (Socket::Unix(unix), Client::Unix(uid)),
        }
    }
}

/// The stream of such a client. Dropped before the bytes towards it have come to a clean end, it is reset: what came is not to be
/// taken for all (over a UNIX socket nothing can tell that).
#[derive(Debug)]
pub struct Raw {
    socket: Socket,
    is_whole: bool,
}

impl Raw {
    /// Nothing has come for it yet.
    pub fn new(socket: Socket) -> Self {
        Self {
            socket,
            is_whole: false,
        }
    }

    /// The address that it has connected to, over TCP.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(tcp) => tcp.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let (Socket::Tcp(tcp), false) = (&self.socket, self.is_whole) {
            tcp.reset();
        }
    }
}

impl relay::Stream for Raw {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<Option<End>>> {
        match &mut self.socket {
            Socket::Tcp(tcp) => receive(tcp, cx, take),
            Socket::Unix(unix) => receive(unix, cx, take),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Socket::Unix(unix) => Pin::new(unix).poll_write(cx, buf),
        }
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        &mut self,
        cx: &mut Context<'_>,
        end: End,
        last: bool,
    ) -> Poll<io::Result<()>> {
        self.is_whole = end == End::Clean;
        match &mut self.socket {
            _ if last || end == End::Truncated => Poll::Ready(Ok(())),
            Socket::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Socket::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
        }
    }

    fn plain(&self) -> Option<&TcpStream> {
        match &self.socket {
            Socket::Tcp(tcp) => Some(tcp),
            Socket::Unix(_) => None,
        }
    }
}
