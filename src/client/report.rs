//! What to tell a person of a failure: one line of what happened, one of what to do, and an exit code for scripts.

use std::fmt;
use std::io;

use rustls::Error as TlsError;
use serde::Serialize;

mod alert;
pub(super) mod certificate;
mod refusal;

pub(crate) use refusal::remedy;

use super::connect::Connect;
use super::exit::Exit;
use super::failure::Failure;
use super::gateway::Unreachable;
use crate::net::dial::DialError;
use crate::tls::HandshakeError;

/// A failure as a person is told it: `portcullis: MESSAGE`, then `hint: HINT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What happened, in lower case. What is not known but concluded is said to be.
    pub message: String,
    /// What to do about it.
    pub hint: String,
    /// What a script sees.
    pub exit: Exit,
}

/// A report for a program.
#[derive(Serialize)]
struct Json<'a> {
    error: &'a str,
    hint: &'a str,
    code: u8,
    reason: &'a str,
}

impl Report {
    /// A report of something that ends with this code.
    pub(crate) fn new(exit: Exit, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: hint.into(),
            exit,
        }
    }

    /// The same as an object of JSON, in one line: `error`, `hint`, `code` and its word, `reason`.
    pub fn json(&self) -> String {
        let json = Json {
            error: &self.message,
            hint: &self.hint,
            code: self.exit.code(),
            reason: self.exit.as_str(),
        };
        // Of texts and a number nothing can fail. A terminal may show it, too.
        let text = serde_json::to_string(&json).unwrap_or_default();
        let mut shown = String::new();
        for c in text.chars() {
            match turns(c) {
                true => shown.push_str(&format!("\\u{:04x}", u32::from(c))),
                false => shown.push(c),
            }
        }
        shown
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (message, hint) = (one_line(&self.message), one_line(&self.hint));
        write!(f, "portcullis: {message}\nhint: {hint}")
    }
}

impl Connect {
    /// What to tell of a failure of this connection.
    pub fn report(&self, failure: &Failure) -> Report {
        let gateway = &self.gateway;
        match failure {
            Failure::Files(error) => Report::new(
                Exit::Usage,
                error.to_string(),
                error.help().unwrap_or("look at the files that are named"),
            ),
            Failure::Resolve(error) => Report::new(
                Exit::NoAddress,
                format!(
                    "cannot find the address of the gateway {}: {error}",
                    gateway.host
                ),
                "check --gateway; a private name may need a VPN or another DNS server",
            ),
            Failure::Unreachable(unreachable) => self.unreachable(unreachable),
            Failure::Proxy(error) => self.proxy_failed(error),
            Failure::DialTimeout => self.no_answer(self.timeout),
            Failure::HandshakeTimeout => Report::new(
                Exit::HandshakeEnded,
                format!(
                    "{gateway} took the connection, but no TLS handshake within {:?}",
                    self.timeout
                ),
                format!(
                    "check that {} is the gateway's port; if it is, the gateway hangs, or something in between does",
                    gateway.port
                ),
            ),
            Failure::Handshake(HandshakeError::Io(error)) => self.hung_up(error),
            Failure::Handshake(HandshakeError::NotTls(opening)) => self.not_tls(opening),
            Failure::Handshake(HandshakeError::Tls(error)) => self.tls(error),
            Failure::Refused(refusal) => self.refused(refusal),
            failure => self.ended(failure),
        }
    }

    /// The end of a connection whose handshake was finished.
    fn ended(&self, failure: &Failure) -> Report {
        let target = &self.target;
        match failure {
            Failure::NoFrame(time) => Report::new(
                Exit::UpstreamDown,
                format!("the gateway has not reached {target} within {time:?}"),
                "what stands behind it does not answer: is it up? --timeout waits longer",
            ),
            Failure::NoStatus => Report::new(
                Exit::CutOff,
                format!("the gateway hung up before it had reached {target}"),
                "it was probably just stopped: connect again",
            ),
            Failure::NothingCame { was_reached: true } => Report::new(
                Exit::UpstreamDown,
                format!("{target} took the connection, and ended it without a word"),
                "what stands there is probably not ready, or refuses you at the first byte, as a mesh does: the gateway's log says which",
            ),
            Failure::NothingCame { .. } => Report::new(
                Exit::UpstreamDown,
                format!("the gateway closed the tunnel to {target} before a byte came back"),
                format!(
                    "what stands behind {target} is probably down, or refuses connections; the gateway's log says which"
                ),
            ),
            Failure::EndedAfterBanner => Report::new(
                Exit::MeshDenial,
                format!("{target} greeted, and hung up at the first word from here"),
                "in a mesh, probably an intention denies it to the gateway (consul intention check); elsewhere its own log says why",
            ),
            Failure::CutOff => Report::new(
                Exit::CutOff,
                format!("the tunnel to {target} was cut off"),
                "probably the gateway was stopped or has reached a limit, or the target broke off: connect again; the gateway's log says which",
            ),
            Failure::BrokeOff(error) => Report::new(
                Exit::BrokeOff,
                format!("the tunnel to {target} broke off: {error}"),
                "probably the network, or the gateway's machine, has failed: connect again; if the gateway still runs, its log says more",
            ),
            Failure::Silent(time) => Report::new(
                Exit::BrokeOff,
                format!("nothing came from {target} for {time:?} after the end of the input"),
                "keep the input open for as long as the answer may take",
            ),
            Failure::Input(error) => Report::new(
                Exit::Stdio,
                format!("cannot read stdin: {error}"),
                "stdin is what goes to the target: connect it to a pipe or a file",
            ),
            Failure::Output(error) => Report::new(
                Exit::Stdio,
                format!("cannot write to stdout: {error}"),
                "stdout is where the answer goes: connect it to a pipe or a file",
            ),
            other => Report::new(
                Exit::Handshake,
                format!("{} makes no sense: {other}", self.gateway),
                "is there something in between that changes what the gateway says?",
            ),
        }
    }

    fn unreachable(&self, unreachable: &Unreachable) -> Report {
        let Unreachable { address, error } = unreachable;
        let gateway = &self.gateway;
        let refused =
            matches!(error, DialError::Tcp(e) if e.kind() == io::ErrorKind::ConnectionRefused);
        let shown = match gateway.to_string() {
            typed if typed == address.to_string() => typed,
            typed => format!("{typed} ({address})"),
        };
        if refused {
            return Report::new(
                Exit::Refused,
                format!("the gateway {shown} refuses connections"),
                format!(
                    "is it running, and is {} its port? (--gateway HOST:PORT)",
                    gateway.port
                ),
            );
        }
        Report::new(
            Exit::Unreachable,
            format!("cannot connect to the gateway {shown}: {error}"),
            "check this machine's network: VPN, routes, firewall",
        )
    }

    /// The connection ended in the middle of the handshake.
    fn hung_up(&self, error: &io::Error) -> Report {
        let (gateway, port, name) = (&self.gateway, self.gateway.port, self.server_name());
        let (how, why) = match error.kind() {
            io::ErrorKind::UnexpectedEof => (
                "closed",
                format!("it may also have no route for {name} and be set not to say so"),
            ),
            _ => (
                "reset",
                "it may also have as many connections as it takes, from here or in all".to_owned(),
            ),
        };
        Report::new(
            Exit::HandshakeEnded,
            format!("{gateway} {how} the connection in the TLS handshake"),
            format!("check that {port} is the gateway's port; {why}"),
        )
    }

    fn tls(&self, error: &TlsError) -> Report {
        match error {
            TlsError::AlertReceived(alert) => self.alert(*alert),
            TlsError::InvalidCertificate(error) => self.untrusted(error),
            TlsError::InvalidMessage(_) => Report::new(
                Exit::Handshake,
                format!(
                    "{} began a TLS handshake, and what it said then makes no sense: {error}",
                    self.gateway
                ),
                "is there something in between that changes what the gateway says?",
            ),
            error => Report::new(
                Exit::Handshake,
                format!("no TLS handshake with {}: {error}", self.gateway),
                "the gateway must speak TLS 1.2 or 1.3; is there something in between?",
            ),
        }
    }

    fn not_tls(&self, opening: &[u8]) -> Report {
        let what = match opening {
            [b'H', b'T', b'T', b'P', b'/', ..] => ": it answers in HTTP",
            [b'S', b'S', b'H', b'-', ..] => ": an SSH server answers",
            _ => "",
        };
        let gateway = &self.gateway;
        let hint = match (&self.proxy, what) {
            (Some(proxy), _) => format!(
                "check that {} is the gateway's port; if it is, the proxy {proxy} answers in its place, or adds something to its 200: --proxy none goes without it",
                gateway.port
            ),
            (None, "") => format!(
                "check that {} is the gateway's port, and not one without TLS",
                gateway.port
            ),
            (None, _) => format!(
                "{} is another service's port: name the gateway's (--gateway HOST:PORT)",
                gateway.port
            ),
        };
        Report::new(
            Exit::NotTls,
            format!("{gateway} does not speak TLS{what}"),
            hint,
        )
    }
}

/// A text without anything that would begin another line or command a terminal.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars() {
        if c.is_control() || turns(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// Whether a letter is none: it is invisible, or turns the order of others, so that a line says what it does not.
fn turns(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
