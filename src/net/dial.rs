//! Dialling one endpoint: TCP, then TLS where the upstream asks for it, under one deadline.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use socket2::SockRef;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use super::relay;
use super::set_options;
use crate::config::Keepalive;
use crate::tls::{self, End, HandshakeError};

/// How to dial.
#[derive(Clone, Debug)]
pub struct Dial {
    /// TLS after TCP: what verifies the upstream, and the name it must prove.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// For all of it together.
    pub timeout: Duration,
    /// For the new socket.
    pub keepalive: Keepalive,
}

/// A connection to an upstream.
#[derive(Debug)]
pub enum Upstream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// TLS; boxed because it is many times larger.
    Tls(Box<tls::Stream>),
}

/// Why an endpoint could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// TCP was refused, or no way leads there.
    #[error("{0}")]
    Tcp(io::Error),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// TLS failed, or the upstream did not prove who it is.
    #[error("tls: {0}")]
    Tls(HandshakeError),
}

impl Dial {
    /// Dials one endpoint.
    pub async fn connect(&self, address: SocketAddr) -> Result<Upstream, DialError> {
        tokio::time::timeout(self.timeout, self.attempt(address))
            .await
            .unwrap_or(Err(DialError::Timeout(self.timeout)))
    }

    async fn attempt(&self, address: SocketAddr) -> Result<Upstream, DialError> {
        let tcp = TcpStream::connect(address).await.map_err(DialError::Tcp)?;
        set_options(SockRef::from(&tcp), &self.keepalive).map_err(DialError::Tcp)?;
        let Some((config, name)) = &self.tls else {
            return Ok(Upstream::Tcp(tcp));
        };
        match tls::Stream::connect(tcp, Arc::clone(config), name.clone()).await {
            Ok(stream) => Ok(Upstream::Tls(Box::new(stream))),
            Err(failed) => Err(DialError::Tls(failed.error)),
        }
    }
}

impl relay::Stream for Upstream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => relay::Stream::poll_readable(tcp, cx),
            Self::Tls(tls) => tls.poll_readable(cx),
        }
    }

    fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => relay::Stream::try_read(tcp, buf),
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

impl relay::Socket for Upstream {
    fn reset(&self) {
        match self {
            Self::Tcp(tcp) => tcp.reset(),
            Self::Tls(tls) => tls.tcp().reset(),
        }
    }

    fn into_tcp(self) -> TcpStream {
        match self {
            Self::Tcp(tcp) => tcp,
            Self::Tls(tls) => tls.into_tcp(),
        }
    }
}
