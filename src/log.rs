//! The log: diagnostics on stderr, and one line for each ended connection on stdout from a writer that never stalls one.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use crate::config::LogFormat;
use crate::reason::Reason;

/// Starts the diagnostic log (`tracing`) on stderr: text on a terminal, JSON elsewhere, filtered by `PORTCULLIS_LOG` (default `info`).
pub fn init(format: LogFormat) {
    let _ = format;
    todo!()
}

/// What is known of a connection when it ends.
#[derive(Clone, Debug)]
pub struct Record {
    /// When it was accepted.
    pub time: SystemTime,
    /// The client's address.
    pub client: SocketAddr,
    /// The listener's address, as configured.
    pub listener: SocketAddr,
    /// The name in the hello as sent, not normalised, bounded; `None` if there was none or no hello was read.
    pub sni: Option<String>,
    /// The protocol agreed with the client on a terminated route, or the first one offered on another.
    pub alpn: Option<Vec<u8>>,
    /// The TLS version agreed with the client on a terminated route, such as `1.3`.
    pub tls: Option<&'static str>,
    /// The route's name.
    pub route: Option<std::sync::Arc<str>>,
    /// The upstream's name.
    pub upstream: Option<std::sync::Arc<str>>,
    /// The endpoint that took the connection, or the last that was tried.
    pub endpoint: Option<SocketAddr>,
    /// Bytes from the client to the upstream (on pass-through: with the hello).
    pub bytes_up: u64,
    /// Bytes from the upstream to the client.
    pub bytes_down: u64,
    /// From accept to the whole hello.
    pub hello_time: Option<Duration>,
    /// From the hello to the end of the client's handshake.
    pub handshake_time: Option<Duration>,
    /// From then to an upstream ready for bytes.
    pub dial_time: Option<Duration>,
    /// From accept to the end.
    pub duration: Duration,
    /// Why it ended.
    pub reason: Reason,
    /// What the reason's word does not say: the error's text, if there was one.
    pub detail: Option<String>,
}

/// The writer of records. Cloning gives another handle of the same writer.
#[derive(Clone, Debug)]
pub struct AccessLog {}

impl AccessLog {
    /// Starts the writer's thread. Lines are dropped and counted when it is more than 8,192 behind.
    pub fn start(format: LogFormat, out: Box<dyn Write + Send>) -> Self {
        let _ = (format, out);
        todo!()
    }

    /// Hands over a record; never waits.
    pub fn write(&self, record: Record) {
        let _ = record;
        todo!()
    }

    /// How many lines were dropped so far.
    pub fn dropped(&self) -> u64 {
        todo!()
    }

    /// Waits until every line handed over before is written; for the end of the process.
    pub fn flush(&self) {
        todo!()
    }
}
