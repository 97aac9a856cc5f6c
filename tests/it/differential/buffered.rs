//! The references: TLS as tokio-rustls drives rustls's buffered connection, and TCP by read and write alone.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use portcullis::net::relay::{Socket, Stream};
use portcullis::tls::End;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// How much is taken at a time, as by the relay's own reads.
const CHUNK: usize = 64 * 1024;

/// What a relay needs of a TLS connection, from tokio-rustls.
pub(super) struct Buffered {
    tls: TlsStream<TcpStream>,
    buffer: Box<[u8]>,
    /// Why nothing can be sent any more. The kernel tells of a reset only once.
    broken: Option<ErrorKind>,
}

impl Buffered {
    pub(super) async fn accept(tcp: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        let tls = TlsAcceptor::from(config).accept(tcp).await?;
        Ok(Self::new(TlsStream::Server(tls)))
    }

    pub(super) async fn connect(
        tcp: TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        let tls = TlsConnector::from(config).connect(name, tcp).await?;
        Ok(Self::new(TlsStream::Client(tls)))
    }

    fn new(tls: TlsStream<TcpStream>) -> Self {
        Self {
            tls,
            buffer: vec![0; CHUNK].into_boxed_slice(),
            broken: None,
        }
    }

    fn remember<T>(&mut self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(e)) = &polled {
            self.broken.get_or_insert(e.kind());
        }
        polled
    }
}

impl Stream for Buffered {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<Option<End>>> {
        // tokio-rustls sends what TLS itself owes (a refused renegotiation's alert) with the next write only.
        if self.tls.get_ref().1.wants_write() {
            let _ = self.poll_flush(cx);
        }
        let mut read = ReadBuf::new(&mut self.buffer);
        match ready!(Pin::new(&mut self.tls).poll_read(cx, &mut read)) {
            Ok(()) if read.filled().is_empty() => Poll::Ready(Ok(Some(End::Clean))),
            Ok(()) => {
                take(read.filled());
                Poll::Ready(Ok(None))
            }
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => match self.broken {
                Some(ErrorKind::ConnectionReset) => {
                    Poll::Ready(Err(ErrorKind::ConnectionReset.into()))
                }
                _ => Poll::Ready(Ok(Some(End::Truncated))),
            },
            Err(e) => Poll::Ready(Err(e)),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        let written = Pin::new(&mut self.tls).poll_write(cx, buf);
        self.remember(written)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(broken) = self.broken {
            return Poll::Ready(Err(broken.into()));
        }
        let flushed = Pin::new(&mut self.tls).poll_flush(cx);
        self.remember(flushed)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>, end: End, _: bool) -> Poll<io::Result<()>> {
        match end {
            End::Clean => Pin::new(&mut self.tls).poll_shutdown(cx),
            End::Truncated => {
                ready!(self.poll_flush(cx))?;
                Pin::new(self.tls.get_mut().0).poll_shutdown(cx)
            }
        }
    }
}

impl Socket for Buffered {
    fn reset(&self) {
        self.tls.get_ref().0.reset();
    }

    fn into_tcp(self) -> TcpStream {
        match self.tls {
            TlsStream::Client(tls) => tls.into_inner().0,
            TlsStream::Server(tls) => tls.into_inner().0,
        }
    }
}

/// A bare socket that the kernel is not asked to move bytes of.
pub(super) struct ReadWrite(pub(super) TcpStream);

impl Stream for ReadWrite {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<Option<End>>> {
        self.0.poll_receive(cx, take)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Stream::poll_write(&mut self.0, cx, buf)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Stream::poll_flush(&mut self.0, cx)
    }

    fn poll_shutdown(
        &mut self,
        cx: &mut Context<'_>,
        end: End,
        last: bool,
    ) -> Poll<io::Result<()>> {
        Stream::poll_shutdown(&mut self.0, cx, end, last)
    }
}

impl Socket for ReadWrite {
    fn reset(&self) {
        self.0.reset();
    }

    fn into_tcp(self) -> TcpStream {
        self.0
    }
}
