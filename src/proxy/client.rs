//! The client of a connection, as a relay sees it: at the edge, where TLS tells it of missing bytes, or in the clear.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use tokio::net::TcpStream;

use super::failure::{Answer, Ending, Failure};
use super::status;
use crate::net::raw::Raw;
use crate::net::relay::{self, Socket as _};
use crate::net::{Stream, canonical};
use crate::tls::{self, End};

/// A client that is ready for bytes.
pub(super) enum Client {
    /// Of a route: TLS that ends here, or passes.
    Edge(Stream),
    /// Of a tunnel; boxed, so that no tunnel of a route is larger for it.
    Raw(Box<Raw>),
}

impl Client {
    /// Its upstream is there. Where that ends TLS without a word, a client in the clear would take it for a whole answer.
    pub(super) async fn reached(&mut self, upstream: &mut Stream) -> Result<(), Failure> {
        match (self, upstream) {
            (Self::Edge(stream), _) => status::ok(stream).await?,
            (Self::Raw(_), Stream::Tls(tls)) => tls.must_end(),
            (Self::Raw(_), Stream::Promised(promised)) => promised.tls_mut().must_end(),
            (Self::Raw(_), Stream::Tcp(_)) => {}
        }
        Ok(())
    }

    /// Its upstream is not there: who asked is told why.
    pub(super) async fn refuse(self, failure: Failure) -> Ending {
        match self {
            Self::Edge(stream) => status::failed(stream, failure).await,
            // Dropped, it is reset.
            Self::Raw(_) => failure.into(),
        }
    }

    /// The end of its connection, for this reason.
    pub(super) fn fail(self, failure: Failure) -> Ending {
        match self {
            // It may still be sending; a reset on top would cost it the upstream's last words.
            Self::Edge(stream) => failure.answered(stream.into_tcp(), Answer::Close),
            // Dropped, it is reset.
            Self::Raw(_) => failure.into(),
        }
    }

    /// The address that it has connected to.
    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        let address = match self {
            Self::Edge(Stream::Tcp(tcp)) => tcp.local_addr().ok(),
            Self::Edge(Stream::Tls(tls)) => tls.tcp().local_addr().ok(),
            // No gateway of its own: it is dialled, and has not come.
            Self::Edge(Stream::Promised(_)) => None,
            Self::Raw(raw) => raw.local_address(),
        };
        address.map(canonical)
    }

    /// Its TLS, if that ends here.
    pub(super) fn tls(&self) -> Option<&tls::Stream> {
        match self {
            Self::Edge(Stream::Tls(tls)) => Some(tls),
            Self::Edge(Stream::Tcp(_) | Stream::Promised(_)) | Self::Raw(_) => None,
        }
    }
}

impl relay::Stream for Client {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<Option<End>>> {
        match self {
            Self::Edge(stream) => stream.poll_receive(cx, take),
            Self::Raw(raw) => raw.poll_receive(cx, take),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Edge(stream) => stream.poll_write(cx, buf),
            Self::Raw(raw) => raw.poll_write(cx, buf),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Edge(stream) => stream.poll_flush(cx),
            Self::Raw(raw) => raw.poll_flush(cx),
        }
    }

    fn poll_shutdown(
        &mut self,
        cx: &mut Context<'_>,
        end: End,
        last: bool,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Edge(stream) => stream.poll_shutdown(cx, end, last),
            Self::Raw(raw) => raw.poll_shutdown(cx, end, last),
        }
    }

    fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Edge(stream) => stream.plain(),
            Self::Raw(raw) => raw.plain(),
        }
    }
}
