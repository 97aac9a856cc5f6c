//! One tunnel: TLS to the gateway, which must prove the target's name, and stdin and stdout through it.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::gateway::{self, Gateway, Unreachable};
use super::stdio::{Over, Stdio};
use crate::config::Limits;
use crate::name::HostName;
use crate::net;
use crate::net::relay::{self, Outcome, Patience};
use crate::net::session::Tally;
use crate::tls::client::{self, ClientError};
use crate::tls::key::KeyFile;
use crate::tls::verify::Proof;
use crate::tls::{self, End, HandshakeError};

/// What to connect to, and how.
#[derive(Clone, Debug)]
pub struct Connect {
    /// Whom to dial.
    pub gateway: Gateway,
    /// Whom to reach through it.
    pub target: HostName,
    /// The name to ask for and to have proven; the target's when `None`.
    pub server_name: Option<HostName>,
    /// PEM files with the CAs to trust; the system's when empty.
    pub roots: Vec<PathBuf>,
    /// PEM files with the certificate to show, chain and key, if the gateway asks for one.
    pub certificate: Option<(PathBuf, KeyFile)>,
    /// For name, TCP and TLS together.
    pub timeout: Duration,
}

/// Why there is no tunnel, or not a whole one.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A file that was named, or the system's CAs, do not serve.
    #[error("{0}")]
    Files(ClientError),
    /// The gateway's name has no address.
    #[error("{0}")]
    Resolve(io::Error),
    /// None of its addresses takes connections.
    #[error("{0}")]
    Unreachable(Unreachable),
    /// No TCP connection in time.
    #[error("no connection in time")]
    DialTimeout,
    /// TCP, but no TLS in time.
    #[error("no handshake in time")]
    HandshakeTimeout,
    /// TLS failed, or the peer did not prove the name. A refused client certificate comes as this too, whenever it is told.
    #[error("{0}")]
    Handshake(HandshakeError),
    /// The connection was given up before a byte had come, as a gateway does whose upstream cannot be reached.
    #[error("ended before the first byte")]
    NothingCame,
    /// The connection broke after bytes had come: with an error, or by an end that TLS had not announced.
    #[error("broke off")]
    BrokeOff(Option<io::Error>),
    /// Nothing came for this long after the input had ended.
    #[error("silent for {0:?}")]
    Silent(Duration),
    /// stdin cannot be read.
    #[error("{0}")]
    Input(io::Error),
    /// stdout cannot be written.
    #[error("{0}")]
    Output(io::Error),
}

impl Connect {
    /// Opens the tunnel. The chain and the name are verified always: there is no way to leave that out.
    pub async fn open(&self) -> Result<Box<tls::Stream>, Failure> {
        let certificate = self.certificate.as_ref();
        let certificate = certificate.map(|(chain, key)| (chain.as_path(), key));
        let config =
            client::config(&self.roots, certificate, Proof::ServerName).map_err(Failure::Files)?;
        let deadline = Instant::now() + self.timeout;

        let dialled = timeout_at(deadline, async {
            let addresses = self.gateway.resolve().await.map_err(Failure::Resolve)?;
            gateway::race(addresses).await.map_err(Failure::Unreachable)
        });
        let tcp = dialled.await.map_err(|_| Failure::DialTimeout)??;

        let name = self.server_name().as_str().to_owned();
        let name = ServerName::try_from(name).map_err(|error| {
            Failure::Handshake(rustls::Error::General(error.to_string()).into())
        })?;
        match timeout_at(deadline, tls::Stream::connect(tcp, config, name)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(failed)) => {
                // So that the gateway hears why, and can log it.
                net::close(failed.tcp).await;
                Err(Failure::Handshake(failed.error))
            }
            Err(_) => Err(Failure::HandshakeTimeout),
        }
    }

    /// The name that is asked for and must be proven.
    pub fn server_name(&self) -> &HostName {
        self.server_name.as_ref().unwrap_or(&self.target)
    }
}

/// How long a tunnel may go on whose user has hung up.
///
/// 1 s: what ssh wrote last is in the pipe, and the gateway's answer a round trip away. Nobody waits for it.
const FAREWELL: Duration = Duration::from_secs(1);

/// Relays between stdin and stdout and the tunnel until both directions have ended; sets `input_ended` when stdin has.
///
/// The end of stdin goes up and leaves the answer alone; the end of the answer closes stdout and leaves the input
/// alone, unless that is typed by a person. When the user has `hung_up`, or nobody reads stdout any more, the last of
/// the input still goes up and the tunnel ends as it should, so that neither end takes it for a failure.
pub async fn relay(
    mut tunnel: Box<tls::Stream>,
    input_ended: &AtomicBool,
    hung_up: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let reader_gone = Notify::new();
    let mut stdio = Stdio::new(input_ended, &reader_gone);
    let patience = Patience::endless(Limits::default().half_closed);
    let (mut up, mut down) = (Tally::default(), Tally::default());
    let relay = relay::relay(
        &mut stdio,
        &mut *tunnel,
        Vec::new(),
        &patience,
        &mut up,
        &mut down,
    );
    let farewell = async {
        tokio::select! {
            () = hung_up => {}
            () = reader_gone.notified() => {}
        }
        tokio::time::sleep(FAREWELL).await;
    };
    let outcome = tokio::select! {
        relayed = relay => relayed.outcome,
        () = farewell => return Ok(()),
    };
    let nothing_came = down.bytes() == 0;
    match (stdio.into_over(), outcome) {
        (Some(Over::Peer(End::Truncated)), _) if nothing_came => Err(Failure::NothingCame),
        (Some(Over::Peer(End::Truncated)), _) => Err(Failure::BrokeOff(None)),
        (Some(Over::Peer(End::Clean)), _) | (None, Outcome::Closed) => Ok(()),
        (Some(Over::Output(e)), _) => Err(Failure::Output(e)),
        (None, Outcome::UpstreamFailed(e)) => Err(broken(e, nothing_came)),
        (None, Outcome::ClientFailed(e)) => Err(Failure::Input(e)),
        (None, Outcome::Idle | Outcome::Lifetime | Outcome::HalfClosed) => {
            Err(Failure::Silent(patience.half_closed))
        }
    }
}

fn broken(error: io::Error, nothing_came: bool) -> Failure {
    match tls::late_refusal(&error) {
        Some(refused) if nothing_came => Failure::Handshake(refused),
        None if nothing_came && error.kind() == io::ErrorKind::ConnectionReset => {
            Failure::NothingCame
        }
        _ => Failure::BrokeOff(Some(error)),
    }
}
