//! The log: diagnostics on stderr, and one line for each ended connection on stdout from a writer that never stalls one.

use std::fmt;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{Directive, LevelFilter};

mod access;
mod diagnostics;
mod line;

pub use access::AccessLog;
pub use diagnostics::Diagnostics;
pub(crate) use line::{escape, printable};

use crate::config::{ListenAddress, LogFormat};
use crate::reason::Reason;

/// Starts the diagnostic log (`tracing`) on stderr: text on a terminal, JSON elsewhere, filtered by `PORTCULLIS_LOG` (default `info`).
///
/// Nobody waits for whoever reads it, or ceased to: what finds no room is lost and counted. Keep what is returned until the
/// process ends; its end waits for the last messages.
///
/// A second call changes nothing. Directives of the filter that make no sense are named in a warning and left out.
#[must_use]
pub fn init(format: LogFormat) -> Diagnostics {
    let written = std::env::var("PORTCULLIS_LOG").unwrap_or_default();
    let (good, nonsense): (Vec<&str>, Vec<&str>) =
        (written.split(',').filter(|one| !one.is_empty()))
            .partition(|one| one.parse::<Directive>().is_ok());
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse_lossy(good.join(","));
    let diagnostics = Diagnostics::start(Box::new(std::io::stderr()));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(diagnostics.queue());
    // An error means that a subscriber is already there, as when tests share a process.
    let _ = if stderr_is_json(format) {
        tracing::subscriber::set_global_default(subscriber.json().flatten_event(true).finish())
    } else {
        tracing::subscriber::set_global_default(subscriber.with_ansi(colours_stderr()).finish())
    };
    for directive in nonsense {
        tracing::warn!(
            directive,
            "PORTCULLIS_LOG: this directive makes no sense, and is left out"
        );
    }
    diagnostics
}

/// Whether the diagnostic log is for machines.
pub(crate) fn stderr_is_json(format: LogFormat) -> bool {
    is_json(format, std::io::stderr().is_terminal())
}

/// Whether what goes to stderr has colours: on a terminal, unless `NO_COLOR` is set and not empty (no-color.org).
pub(crate) fn colours_stderr() -> bool {
    std::io::stderr().is_terminal() && wants_colours()
}

/// The same of stdout.
pub(crate) fn colours_stdout() -> bool {
    std::io::stdout().is_terminal() && wants_colours()
}

fn wants_colours() -> bool {
    let is_dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
    !is_dumb && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Who has connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Over TCP, from this address.
    Tcp(SocketAddr),
    /// Over a UNIX socket: the user's ID.
    Unix(u32),
}

impl Client {
    /// The address, if it has one.
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(address),
            Self::Unix(_) => None,
        }
    }

    /// The user's ID, if it came over a UNIX socket.
    pub fn uid(self) -> Option<u32> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(uid) => Some(uid),
        }
    }
}

/// `192.0.2.7:50123`, or `unix`: a user is no address.
impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(_) => f.write_str("unix"),
        }
    }
}

impl From<SocketAddr> for Client {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// What is known of a connection when it ends.
#[derive(Clone, Debug)]
pub struct Record {
    /// When it was accepted.
    pub time: SystemTime,
    /// The client; with a PROXY header, the one that it tells of.
    pub client: Client,
    /// Who has sent the PROXY header.
    pub peer: Option<SocketAddr>,
    /// What the connection is called in PROXY headers, if it is called anything there.
    pub unique_id: Option<Box<[u8]>>,
    /// The address that the listener is bound to.
    pub listener: ListenAddress,
    /// The name in the hello as sent, not normalised; `None` if there was none or no hello was read.
    pub sni: Option<String>,
    /// The protocol agreed with the client on a terminated route, or the first one offered on another.
    pub alpn: Option<Vec<u8>>,
    /// The TLS version agreed with the client on a terminated route, such as `1.3`.
    pub tls: Option<&'static str>,
    /// The route's name.
    pub route: Option<Arc<str>>,
    /// The upstream's name.
    pub upstream: Option<Arc<str>>,
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

impl Record {
    /// That of a connection that was accepted now, of which no more is known: if nothing is ever added, it is a defect.
    pub fn new(client: Client, listener: ListenAddress) -> Self {
        Self {
            time: SystemTime::now(),
            client,
            peer: None,
            unique_id: None,
            listener,
            sni: None,
            alpn: None,
            tls: None,
            route: None,
            upstream: None,
            endpoint: None,
            bytes_up: 0,
            bytes_down: 0,
            hello_time: None,
            handshake_time: None,
            dial_time: None,
            duration: Duration::ZERO,
            reason: Reason::Internal,
            detail: None,
        }
    }
}

fn is_json(format: LogFormat, terminal: bool) -> bool {
    match format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_text_and_everything_else_json_unless_told_otherwise() {
        for terminal in [true, false] {
            assert_eq!(is_json(LogFormat::Auto, terminal), !terminal);
            assert!(is_json(LogFormat::Json, terminal));
            assert!(!is_json(LogFormat::Text, terminal));
        }
    }
}
