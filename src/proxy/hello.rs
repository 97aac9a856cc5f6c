//! Reading a client's hello: the bytes are kept, rustls parses them, and only what it refuses is answered.

use rustls::server::{Accepted, AcceptedAlert, Acceptor};
use rustls::{Error, InvalidMessage, PeerIncompatible};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_util::bytes::BufMut;

use crate::name::HostName;
use crate::tls;

/// How much is read at a time: a usual hello, hybrid key share included, in one read.
const READ: usize = 4096;

/// The first byte of a TLS record that carries a handshake (RFC 8446 §5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// A whole hello.
pub struct Hello {
    /// Everything read from the client so far, the hello first.
    bytes: Vec<u8>,
    /// The name it asks for, as sent.
    pub sni: Option<String>,
    /// The same name as routes and certificates know it; `None` also for an IP address, which is no name (RFC 6066 §3).
    pub name: Option<HostName>,
    /// The protocols it offers, in its order (RFC 7301).
    pub alpn: Vec<Vec<u8>>,
}

/// Why there is no hello.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// The client closed or reset the connection first.
    #[error("the client went away after {bytes} bytes of hello")]
    Gone {
        /// What had arrived.
        bytes: usize,
    },
    /// The first byte already begins no handshake of TLS.
    #[error("the first byte does not begin a tls handshake")]
    NotTls,
    /// It offers nothing that is still safe.
    #[error("the client offers nothing newer than tls 1.1")]
    TooOld,
    /// rustls refuses it.
    #[error("{error}")]
    Bad {
        /// Why.
        error: Error,
        /// Whether rustls had an alert for it, which is sent already.
        answered: bool,
    },
    /// It is larger than the limit.
    #[error("no whole hello within {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// Its name is one that no route can have.
    #[error("the name in the hello is not a host name")]
    BadName,
}

impl Hello {
    /// Reads a client's hello, of at most `limit` bytes as they come over the wire, `bytes` of which are here already. The
    /// caller sets the deadline.
    pub async fn read(
        tcp: &mut TcpStream,
        mut bytes: Vec<u8>,
        limit: usize,
    ) -> Result<Self, HelloError> {
        if bytes.is_empty() {
            // Nothing is allocated for a client that has said nothing.
            tcp.readable()
                .await
                .map_err(|_| HelloError::Gone { bytes: 0 })?;
        }
        let mut acceptor = Acceptor::default();
        let mut taken = 0;
        loop {
            if bytes.len() == taken {
                receive(tcp, &mut bytes, limit).await?;
            }
            while let Some(mut rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
                // Reading from memory takes nothing only when rustls has no room left for an unfinished hello.
                match acceptor.read_tls(&mut rest) {
                    Ok(n) if n > 0 => taken += n,
                    _ => return Err(HelloError::TooLarge { limit }),
                }
                match acceptor.accept() {
                    Ok(Some(accepted)) => return Self::new(bytes, &accepted),
                    Ok(None) => {}
                    Err(_) if bytes.first() != Some(&HANDSHAKE_RECORD) => {
                        return Err(HelloError::NotTls);
                    }
                    Err((error, alert)) => return Err(refused(tcp, error, alert, limit)),
                }
            }
        }
    }

    /// Every byte that was read: what ends TLS takes in the same hello, and so does the upstream of a pass-through route.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn new(bytes: Vec<u8>, accepted: &Accepted) -> Result<Self, HelloError> {
        let hello = accepted.client_hello();
        let sni = hello.server_name().map(str::to_owned);
        let name = match sni.as_deref().map(HostName::parse) {
            None => None,
            Some(Ok(name)) => Some(name),
            Some(Err(_)) => return Err(HelloError::BadName),
        };
        let alpn = hello
            .alpn()
            .map(|offered| offered.map(<[u8]>::to_vec).collect())
            .unwrap_or_default();
        Ok(Self {
            bytes,
            sni,
            name,
            alpn,
        })
    }
}

/// What rustls refused. Its alert goes out, but for the cases in which another tells the client more.
fn refused(tcp: &TcpStream, error: Error, alert: AcceptedAlert, limit: usize) -> HelloError {
    match error {
        // The extension came with TLS 1.2 (RFC 5246 §7.4.1.4.1); rustls misses it before it looks at the versions.
        Error::PeerIncompatible(PeerIncompatible::SignatureAlgorithmsExtensionRequired) => {
            HelloError::TooOld
        }
        Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge) => {
            HelloError::TooLarge { limit }
        }
        error => HelloError::Bad {
            error,
            answered: tls::send_alert(tcp, alert),
        },
    }
}

/// Reads once more, within the limit.
pub(super) async fn receive(
    tcp: &mut TcpStream,
    bytes: &mut Vec<u8>,
    limit: usize,
) -> Result<(), HelloError> {
    let room = limit.saturating_sub(bytes.len()).min(READ);
    if room == 0 {
        return Err(HelloError::TooLarge { limit });
    }
    let gone = HelloError::Gone { bytes: bytes.len() };
    if tcp.readable().await.is_err() {
        return Err(gone);
    }
    // Not at each read: a hello that comes byte by byte would be copied as often.
    if bytes.len() == bytes.capacity() {
        bytes.reserve_exact(room);
    }
    match tcp.read_buf(&mut BufMut::limit(bytes, room)).await {
        Ok(0) | Err(_) => Err(gone),
        Ok(_) => Ok(()),
    }
}
