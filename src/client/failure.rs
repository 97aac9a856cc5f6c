//! Why there is no tunnel, or not a whole one.

use std::io;
use std::time::Duration;

use super::gateway::Unreachable;
use super::proxy::ProxyError;
use crate::net::frame::{FrameError, Refusal};
use crate::tls::HandshakeError;
use crate::tls::client::ClientError;

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
    /// The proxy opened no way to it.
    #[error("{0}")]
    Proxy(ProxyError),
    /// No TCP connection in time.
    #[error("no connection in time")]
    DialTimeout,
    /// TCP, but no TLS in time.
    #[error("no handshake in time")]
    HandshakeTimeout,
    /// TLS failed, or the peer did not prove the name. A refused client certificate comes as this too, whenever it is told.
    #[error("{0}")]
    Handshake(HandshakeError),
    /// The gateway says that it has no way to the target, and why.
    #[error("{0}")]
    Refused(Refusal),
    /// The gateway has promised a status frame, and sent something else.
    #[error("{0}")]
    BadFrame(FrameError),
    /// The gateway has promised a status frame, and none came for this long.
    #[error("no status within {0:?}")]
    NoFrame(Duration),
    /// The gateway has promised a status frame, and gave the connection up before it.
    #[error("ended before the status")]
    NoStatus,
    /// The connection was given up before a byte had come.
    #[error("ended before the first byte")]
    NothingCame {
        /// The gateway had said that the target took the connection.
        was_reached: bool,
    },
    /// An SSH server's banner came, and after the first word from here nothing but the end.
    #[error("ended after the banner")]
    EndedAfterBanner,
    /// The tunnel ended after bytes had come, by an end that TLS had not announced: who ends TLS has cut it.
    #[error("cut off")]
    CutOff,
    /// The connection broke after bytes had come.
    #[error("{0}")]
    BrokeOff(io::Error),
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
