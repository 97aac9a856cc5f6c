//! What is tried: one relay between two sockets, through either path.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use portcullis::net::relay::{Outcome, Patience, Socket, relay};
use portcullis::net::session::Tally;
use portcullis::net::{self, Stream};
use portcullis::reason::Reason;
use portcullis::tls::{self, HandshakeError, HandshakeFailed};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, Error, InvalidMessage, ServerConfig};
use tokio::net::TcpStream;

use super::buffered::{Buffered, ReadWrite};
use crate::support::PATIENCE;

pub(super) const NAME: &str = "gate.example.test";

/// Which implementation moves the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// Ours: rustls's unbuffered connections, and splice(2) between bare sockets.
    Unbuffered,
    /// The reference: tokio-rustls, and read and write between bare sockets.
    Buffered,
}

pub(super) const PATHS: [Path; 2] = [Path::Unbuffered, Path::Buffered];

/// How the tunnel treats TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Terminate,
    ReEncrypt,
    Pass,
    /// Towards the upstream alone.
    Originate,
}

/// The TLS of both sides.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
    /// How much of a client's hello our path reads before it begins with TLS.
    pub(super) kept: usize,
}

/// How a tunnel ended, and how many bytes were counted in it.
#[derive(Debug, PartialEq)]
pub(super) struct Ended {
    pub(super) how: How,
    pub(super) reason: Reason,
    pub(super) up: u64,
    pub(super) down: u64,
}

#[derive(Debug, PartialEq)]
pub(super) enum How {
    NoClient(Why),
    NoUpstream(Why),
    Closed,
    ClientFailed(Why),
    UpstreamFailed(Why),
    Idle,
    HalfClosed,
}

/// An error, as far as it can be compared.
#[derive(Debug, PartialEq)]
pub(super) enum Why {
    Io(ErrorKind),
    Tls(rustls::Error),
}

impl Ended {
    fn new(how: How, up: u64, down: u64) -> Self {
        Self {
            reason: how.reason(),
            how,
            up,
            down,
        }
    }
}

impl How {
    /// The word that the access log has for it, as `src/proxy/failure.rs` chooses it.
    fn reason(&self) -> Reason {
        let unproven = |why: &Why| {
            matches!(
                why,
                Why::Tls(Error::InvalidCertificate(_) | Error::NoCertificatesPresented)
            )
        };
        match self {
            Self::NoClient(why) if unproven(why) => Reason::ClientCertificate,
            Self::NoClient(_) => Reason::HandshakeFailed,
            Self::NoUpstream(why) if unproven(why) => Reason::UpstreamIdentity,
            Self::NoUpstream(_) => Reason::UpstreamTls,
            Self::Closed => Reason::Closed,
            Self::ClientFailed(_) => Reason::ClientReset,
            Self::UpstreamFailed(_) => Reason::UpstreamReset,
            Self::Idle => Reason::IdleTimeout,
            Self::HalfClosed => Reason::HalfClosedTimeout,
        }
    }
}

impl Mode {
    /// Whether there is TLS to end with the client, and to begin with the upstream.
    pub(super) fn tls(self) -> [bool; 2] {
        [
            matches!(self, Self::Terminate | Self::ReEncrypt),
            matches!(self, Self::Originate | Self::ReEncrypt),
        ]
    }
}

impl Gate {
    /// Carries one tunnel to its end.
    pub(super) async fn carry(
        self,
        path: Path,
        mode: Mode,
        client: TcpStream,
        upstream: TcpStream,
    ) -> Ended {
        let carried = match path {
            Path::Unbuffered => self.unbuffered(mode, client, upstream).await,
            Path::Buffered => self.buffered(mode, client, upstream).await,
        };
        carried.unwrap_or_else(|how| Ended::new(how, 0, 0))
    }

    async fn unbuffered(
        self,
        mode: Mode,
        client: TcpStream,
        upstream: TcpStream,
    ) -> Result<Ended, How> {
        let [ends, begins] = mode.tls();
        let client = match ends {
            false => Stream::Tcp(client),
            true => {
                let received = received(&client, self.kept).await;
                let received = received.map_err(|e| How::NoClient(e.into()))?;
                match tls::Stream::accept(client, received, self.server).await {
                    Ok(client) => Stream::Tls(client),
                    Err(failed) => return Err(How::NoClient(told(failed).await)),
                }
            }
        };
        let upstream = match begins {
            false => Stream::Tcp(upstream),
            true => match tls::Stream::connect(upstream, self.client, name()).await {
                Ok(upstream) => Stream::Tls(upstream),
                Err(failed) => return Err(How::NoUpstream(told(failed).await)),
            },
        };
        Ok(join(client, upstream).await)
    }

    async fn buffered(
        self,
        mode: Mode,
        client: TcpStream,
        upstream: TcpStream,
    ) -> Result<Ended, How> {
        let (server, config) = (self.server, self.client);
        let accept = async |client| {
            let accepted = Buffered::accept(client, server).await;
            accepted.map_err(|e| How::NoClient(e.into()))
        };
        let connect = async |upstream| {
            let connected = Buffered::connect(upstream, config, name()).await;
            connected.map_err(|e| How::NoUpstream(e.into()))
        };
        Ok(match mode {
            Mode::Pass => join(ReadWrite(client), ReadWrite(upstream)).await,
            Mode::Terminate => join(accept(client).await?, ReadWrite(upstream)).await,
            Mode::Originate => join(ReadWrite(client), connect(upstream).await?).await,
            Mode::ReEncrypt => {
                let client = accept(client).await?;
                join(client, connect(upstream).await?).await
            }
        })
    }
}

impl From<io::Error> for Why {
    fn from(error: io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
        match tls {
            Some(tls) => Self::Tls(Clone::clone(tls)),
            // rustls's own buffer is full of one message: it has no error of its own for that.
            None if error.kind() == ErrorKind::InvalidData => {
                Self::Tls(InvalidMessage::HandshakePayloadTooLarge.into())
            }
            None => Self::Io(error.kind()),
        }
    }
}

impl From<HandshakeError> for Why {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Tls(error) => Self::Tls(error),
            HandshakeError::NotTls(_) => Self::Tls(InvalidMessage::InvalidContentType.into()),
            HandshakeError::Io(error) => error.into(),
        }
    }
}

/// The first so many bytes, or fewer.
async fn received(tcp: &TcpStream, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(count);
    if count == 0 {
        return Ok(bytes);
    }
    loop {
        tcp.readable().await?;
        match tcp.try_read_buf(&mut bytes) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            read => return read.map(|_| bytes),
        }
    }
}

async fn join(mut client: impl Socket, mut upstream: impl Socket) -> Ended {
    // A test gives up before.
    let mut patience = Patience::endless(2 * PATIENCE);
    patience.idle.max = Some(2 * PATIENCE);
    let (mut up, mut down) = (Tally::default(), Tally::default());
    let early = Vec::new();
    let relayed = relay(
        &mut client,
        &mut upstream,
        early,
        &patience,
        &mut up,
        &mut down,
    )
    .await;
    let how = match relayed.outcome {
        Outcome::Closed => How::Closed,
        Outcome::ClientFailed(e) => How::ClientFailed(e.into()),
        Outcome::UpstreamFailed(e) => How::UpstreamFailed(e.into()),
        Outcome::Idle | Outcome::Lifetime => How::Idle,
        Outcome::HalfClosed => How::HalfClosed,
    };
    Ended::new(how, up.bytes(), down.bytes())
}

/// Why a handshake failed; lets the alert arrive.
async fn told(failed: HandshakeFailed) -> Why {
    net::close(failed.tcp).await;
    failed.error.into()
}

fn name() -> ServerName<'static> {
    ServerName::try_from(NAME).unwrap()
}
