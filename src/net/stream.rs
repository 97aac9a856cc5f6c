//! A connection as a relay sees it: TCP, or TLS over it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use super::relay;
use crate::tls::{self, End};

/// A connection to a client or to an upstream.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP, or TLS that somebody else ends.
    Tcp(TcpStream),
    /// TLS that ends here; boxed because it is many times larger.
    Tls(Box<tls::Stream>),
}

impl relay::Stream for Stream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_read_ready(cx),
            Self::Tls(tls) => tls.poll_readable(cx),
        }
    }

    fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_read(buf),
            Self::Tls(tls) => tls.try_read(buf),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => tls.poll_write(cx, buf),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => tls.poll_flush(cx),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>, end: End) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => tls.poll_shutdown(cx, end),
        }
    }
}

impl relay::Socket for Stream {
    fn reset(&self) {
        match self {
            Self::Tcp(tcp) => tcp.reset(),
            Self::Tls(tls) => tls.reset(),
        }
    }

    fn into_tcp(self) -> TcpStream {
        match self {
            Self::Tcp(tcp) => tcp,
            Self::Tls(tls) => tls.into_tcp(),
        }
    }
}
