//! What to tell a person of a failure: one line of what happened, one of what to do, and an exit code for scripts.

use std::fmt;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::{AlertDescription, CertificateError, Error as TlsError};

use super::connect::{Connect, Failure};
use super::gateway::Unreachable;
use crate::net::dial::DialError;
use crate::tls::pin::NotPinned;
use crate::tls::{self, HandshakeError};

/// A failure as a person is told it: `portcullis: MESSAGE`, then `hint: HINT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What happened, in lower case.
    pub message: String,
    /// What to do about it.
    pub hint: String,
    /// What a script sees.
    pub exit: Exit,
}

/// What a failure is about, as an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// stdin or stdout failed.
    Stdio = 1,
    /// The arguments, or a file that they name.
    Usage = 2,
    /// The gateway: no address, no answer.
    Unreachable = 10,
    /// No TLS handshake with it.
    Handshake = 11,
    /// It did not prove the target's name.
    Untrusted = 12,
    /// It has no route for that name.
    NoRoute = 13,
    /// It wants a client certificate, or another one.
    ClientCertificate = 14,
    /// Nothing behind it took the connection.
    Upstream = 15,
    /// The tunnel broke off.
    BrokeOff = 16,
}

impl Report {
    pub(super) fn new(exit: Exit, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: hint.into(),
            exit,
        }
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
        let (gateway, target) = (&self.gateway, &self.target);
        match failure {
            Failure::Files(error) => Report::new(
                Exit::Usage,
                error.to_string(),
                error.help().unwrap_or("look at the files that are named"),
            ),
            Failure::Resolve(error) => Report::new(
                Exit::Unreachable,
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
                Exit::Handshake,
                format!(
                    "{gateway} took the connection, but no TLS handshake within {:?}",
                    self.timeout
                ),
                format!("check that {} is the gateway's port", gateway.port),
            ),
            Failure::Handshake(HandshakeError::Io(error)) => self.hung_up(error),
            Failure::Handshake(HandshakeError::Tls(error)) => self.tls(error),
            Failure::NothingCame => Report::new(
                Exit::Upstream,
                format!("the gateway closed the tunnel to {target} before a byte came back"),
                format!(
                    "what stands behind {target} is down or refuses connections; the gateway's log says which"
                ),
            ),
            Failure::BrokeOff(error) => Report::new(
                Exit::BrokeOff,
                match error {
                    Some(error) => format!("the tunnel to {target} broke off: {error}"),
                    None => format!("the tunnel to {target} broke off"),
                },
                "connect again; if it breaks off again, the gateway's log says which side did",
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
                Exit::Unreachable,
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
        let how = match error.kind() {
            io::ErrorKind::UnexpectedEof => "closed",
            _ => "reset",
        };
        Report::new(
            Exit::Handshake,
            format!("{} {how} the connection in the TLS handshake", self.gateway),
            format!(
                "check that {} is the gateway's port; it may also have no route for {} and be set not to say so",
                self.gateway.port,
                self.server_name()
            ),
        )
    }

    fn tls(&self, error: &TlsError) -> Report {
        match error {
            TlsError::AlertReceived(alert) => self.alert(*alert),
            TlsError::InvalidCertificate(error) => self.untrusted(error),
            TlsError::InvalidMessage(_) => Report::new(
                Exit::Handshake,
                format!("{} does not speak TLS", self.gateway),
                format!("check that {} is the gateway's port", self.gateway.port),
            ),
            error => Report::new(
                Exit::Handshake,
                format!("no TLS handshake with {}: {error}", self.gateway),
                "the gateway must speak TLS 1.2 or 1.3; is there something in between?",
            ),
        }
    }

    fn untrusted(&self, error: &CertificateError) -> Report {
        let name = self.server_name();
        if let CertificateError::Other(other) = error
            && let Some(NotPinned { found }) = other.0.downcast_ref()
        {
            return Report::new(
                Exit::Untrusted,
                format!("the certificate for {name} has another key than the pinned one: {found}"),
                "if the gateway's operator has changed its key, pin that one; if not, somebody stands in between",
            );
        }
        let (message, hint) = match error {
            CertificateError::UnknownIssuer if self.trust.roots.is_empty() => (
                format!("the certificate for {name} is from a CA that this system does not trust"),
                "if the CA is a private one, name its certificate: --ca FILE".to_owned(),
            ),
            CertificateError::UnknownIssuer => (
                format!("the certificate for {name} is not from a CA in the --ca files"),
                "with --ca only those CAs are trusted; ask the gateway's operator for the right one".to_owned(),
            ),
            CertificateError::BadSignature => (
                format!("the certificate for {name} is from another CA with the name of a trusted one"),
                "the CA may have been made anew: get its present certificate for --ca FILE".to_owned(),
            ),
            CertificateError::Expired => (
                format!("the certificate for {name} has expired"),
                "ask the gateway's operator to renew it, and check this machine's clock".to_owned(),
            ),
            CertificateError::ExpiredContext { not_after, .. } => (
                format!("the certificate for {name} expired on {}", day(not_after.as_secs())),
                "ask the gateway's operator to renew it, and check this machine's clock".to_owned(),
            ),
            CertificateError::NotValidYet => (
                format!("the certificate for {name} is not valid yet"),
                "check this machine's clock".to_owned(),
            ),
            CertificateError::NotValidYetContext { not_before, .. } => (
                format!("the certificate for {name} is valid only from {}", day(not_before.as_secs())),
                "check this machine's clock".to_owned(),
            ),
            CertificateError::NotValidForNameContext { presented, .. } => (
                format!("the certificate is not for {name}, but for {}", tls::presented(presented)),
                format!("check the name; if it is right, the gateway's operator must get a certificate for {name}"),
            ),
            error => (
                format!("the certificate for {name} cannot be trusted: {error}"),
                "ask the gateway's operator".to_owned(),
            ),
        };
        Report::new(Exit::Untrusted, message, hint)
    }

    /// What the gateway answered in place of a handshake (RFC 8446 §6.2).
    fn alert(&self, alert: AlertDescription) -> Report {
        let name = self.server_name();
        match (alert, &self.certificate) {
            (AlertDescription::UnrecognisedName, _) => Report::new(
                Exit::NoRoute,
                format!("the gateway {} has no route for {name}", self.gateway),
                "check the name; the gateway's operator sees its routes at /v1/routes",
            ),
            (AlertDescription::CertificateRequired, None) => Report::new(
                Exit::ClientCertificate,
                format!("the gateway asks for a client certificate for {name}"),
                "name yours: --cert FILE --key FILE",
            ),
            (
                AlertDescription::CertificateRequired
                | AlertDescription::NoCertificate
                | AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::DecryptError,
                certificate,
            ) => match certificate {
                Some((chain, _)) => Report::new(
                    Exit::ClientCertificate,
                    format!(
                        "the gateway does not accept the certificate in {} ({})",
                        chain.display(),
                        words(alert)
                    ),
                    format!("it may have expired, or not be from a CA that is accepted for {name}"),
                ),
                None => Report::new(
                    Exit::ClientCertificate,
                    format!(
                        "the gateway does not let anybody in to {name} without a certificate ({})",
                        words(alert)
                    ),
                    "name yours: --cert FILE --key FILE",
                ),
            },
            (AlertDescription::AccessDenied, _) => Report::new(
                Exit::Handshake,
                format!(
                    "the gateway does not let you in to {name} ({})",
                    words(alert)
                ),
                "it may be for other addresses than yours, for other certificates, or have enough connections of yours: the gateway's log says why",
            ),
            (AlertDescription::NoApplicationProtocol, _) => Report::new(
                Exit::Handshake,
                format!("the route for {name} takes only clients of certain protocols (ALPN)"),
                "it is not meant for tunnels; ask the gateway's operator for one that is",
            ),
            (AlertDescription::InternalError, _) => Report::new(
                Exit::Handshake,
                format!("the gateway cannot serve {name} ({})", words(alert)),
                "its route may be broken: the gateway's operator sees why at /v1/routes",
            ),
            (alert, _) => Report::new(
                Exit::Handshake,
                format!(
                    "the gateway refuses the handshake for {name} ({})",
                    words(alert)
                ),
                "the two may have no TLS version or cipher in common; the gateway's log says why",
            ),
        }
    }
}

/// An alert as it is named in RFC 8446 §6: `UnknownCA` is `alert unknown_ca`.
fn words(alert: AlertDescription) -> String {
    if let AlertDescription::Unknown(number) = alert {
        return format!("alert {number}");
    }
    let mut text = String::from("alert ");
    let mut after_lower = false;
    for c in format!("{alert:?}").chars() {
        if c.is_ascii_uppercase() && after_lower {
            text.push('_');
        }
        after_lower = c.is_ascii_lowercase();
        text.push(c.to_ascii_lowercase());
    }
    text
}

/// A time as its day in UTC.
fn day(seconds: u64) -> String {
    let time = UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .unwrap_or(SystemTime::UNIX_EPOCH);
    match jiff::Timestamp::try_from(time) {
        Ok(time) => time.strftime("%F").to_string(),
        Err(_) => "a day beyond the calendar".to_owned(),
    }
}

/// A text without anything that would begin another line or command a terminal.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
