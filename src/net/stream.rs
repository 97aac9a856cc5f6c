//! A connection as a relay sees it: TCP, or TLS over it.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::promised::Promised;
use super::relay;
use crate::tls::{self, End};

/// How much is read from plain TCP at a time.
///
/// 64 KiB: larger reads gained nothing on loopback. One such buffer exists per thread, not per connection.
const CHUNK: usize = 64 * 1024;

thread_local! {
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into_boxed_slice());
}

/// A connection to a client or to an upstream.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP, or TLS that somebody else ends.
    Tcp(TcpStream),
    /// TLS that ends here; boxed because it is many times larger.
    Tls(Box<tls::Stream>),
    /// TLS to a gateway that says whether it reaches what stands behind it; boxed for the same reason.
    Promised(Box<Promised>),
}

impl relay::Stream for Stream {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<Option<End>>> {
        match self {
            Self::Tcp(tcp) => relay::Stream::poll_receive(tcp, cx, take),
            Self::Tls(tls) => tls.poll_receive(cx, take),
            Self::Promised(promised) => promised.poll_receive(cx, take),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => tls.poll_write(cx, buf),
            Self::Promised(promised) => promised.tls_mut().poll_write(cx, buf),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => tls.poll_flush(cx),
            Self::Promised(promised) => promised.tls_mut().poll_flush(cx),
        }
    }

    fn poll_shutdown(
        &mut self,
        cx: &mut Context<'_>,
        end: End,
        last: bool,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => relay::Stream::poll_shutdown(tcp, cx, end, last),
            Self::Tls(tls) => tls.poll_shutdown(cx, end),
            Self::Promised(promised) => promised.tls_mut().poll_shutdown(cx, end),
        }
    }

    fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Tls(_) | Self::Promised(_) => None,
        }
    }
}

impl relay::Socket for Stream {
    fn reset(&self) {
        match self {
            Self::Tcp(tcp) => tcp.reset(),
            Self::Tls(tls) => tls.reset(),
            Self::Promised(promised) => promised.tls().reset(),
        }
    }

    fn into_tcp(self) -> TcpStream {
        match self {
            Self::Tcp(tcp) => tcp,
            Self::Tls(tls) => tls.into_tcp(),
            Self::Promised(promised) => promised.into_tls().into_tcp(),
        }
    }
}

/// Reads once from a stream without TLS.
pub(super) fn receive(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    take: &mut dyn FnMut(&[u8]),
) -> Poll<io::Result<Option<End>>> {
    READ.with_borrow_mut(|buffer| {
        let mut read = ReadBuf::new(buffer);
        ready!(Pin::new(stream).poll_read(cx, &mut read))?;
        take(read.filled());
        let ended = read.filled().is_empty();
        Poll::Ready(Ok(ended.then_some(End::Clean)))
    })
}

impl relay::Stream for TcpStream {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<Option<End>>> {
        receive(self, cx, take)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(self), cx, buf)
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>, _: End, last: bool) -> Poll<io::Result<()>> {
        match last {
            true => Poll::Ready(Ok(())),
            false => AsyncWrite::poll_shutdown(Pin::new(self), cx),
        }
    }

    fn plain(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl relay::Socket for TcpStream {
    fn reset(&self) {
        // RFC 9293 §3.10.4: closing with no time to linger sends RST.
        let _ = socket2::SockRef::from(self).set_linger(Some(Duration::ZERO));
    }

    fn into_tcp(self) -> TcpStream {
        self
    }
}

impl relay::Stream for tls::Stream {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<Option<End>>> {
        self.poll_receive(cx, take)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write(cx, buf)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>, end: End, _: bool) -> Poll<io::Result<()>> {
        self.poll_shutdown(cx, end)
    }
}

impl relay::Socket for tls::Stream {
    fn reset(&self) {
        self.tcp().reset();
    }

    fn into_tcp(self) -> TcpStream {
        self.into_tcp()
    }
}
