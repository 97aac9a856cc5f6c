//! What to do about an upstream that fails, in the words of `connect` where it fails as a gateway does there.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, ClientConfig, Error};
use rustls_pki_types::ServerName;

use crate::client::report::remedy;
use crate::net::dial::DialError;
use crate::net::promised::Unkept;
use crate::snapshot::upstream::Upstream;
use crate::tls::{HandshakeError, late_refusal};

/// What is wrong, and its remedy.
pub(super) struct Fault {
    pub(super) detail: String,
    pub(super) hint: String,
}

impl Fault {
    fn new(detail: impl ToString, hint: impl Into<String>) -> Self {
        Self {
            detail: detail.to_string(),
            hint: hint.into(),
        }
    }

    /// Of one that is not dialled: its TLS could not be made.
    pub(super) fn broken(why: &str) -> Self {
        Self::new(why, "look at the files that its `tls` names")
    }
}

/// An endpoint that was dialled, and how.
pub(super) struct Dialled {
    port: u16,
    /// The name that it must prove.
    name: String,
    shows_certificate: bool,
    is_in_mesh: bool,
}

impl Dialled {
    pub(super) fn new(
        address: SocketAddr,
        tls: Option<&(Arc<ClientConfig>, ServerName<'static>)>,
        to: &Upstream,
    ) -> Self {
        Self {
            port: address.port(),
            name: tls.map_or_else(String::new, |(_, name)| name.to_str().into_owned()),
            shows_certificate: tls
                .is_some_and(|(config, _)| config.client_auth_cert_resolver.has_certs()),
            is_in_mesh: to.intention().is_some(),
        }
    }

    /// No connection came about.
    pub(super) fn failed(&self, error: &DialError) -> Fault {
        let port = self.port;
        let hint = match error {
            DialError::Timeout(_) => {
                "is it up? a firewall may be in the way; check host and port, or wait longer with --timeout"
                    .to_owned()
            }
            DialError::HandshakeTimeout(_) => {
                "is it a port with TLS? then it hangs, or something in between does; or wait longer with --timeout"
                    .to_owned()
            }
            DialError::Tcp(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                format!("is it running, and is {port} its port?")
            }
            DialError::Tcp(_) => "check this machine's network: VPN, routes, firewall".to_owned(),
            DialError::Tls(error) => self.handshake(error),
        };
        Fault::new(error, hint)
    }

    /// It has taken the handshake, and refuses what it was shown, or has no way to what it leads to, or is gone.
    pub(super) fn broke_off(&self, error: &io::Error) -> Fault {
        if let Some(refused) = late_refusal(error) {
            return self.failed(&DialError::Tls(refused));
        }
        match Unkept::of(error) {
            Some(unkept @ Unkept::Refused(refusal)) => Fault::new(unkept, remedy(refusal).1),
            Some(unkept) => Fault::new(
                unkept,
                "it was probably just stopped: try again; its own log says more",
            ),
            None => Fault::new(
                format!("took the connection, and broke off: {error}"),
                NOT_READY,
            ),
        }
    }

    /// It has taken the handshake, and is gone.
    pub(super) fn hung_up(&self) -> Fault {
        Fault::new(
            "took the connection, and ended it without a word",
            NOT_READY,
        )
    }

    /// A gateway has promised a status, and says nothing.
    pub(super) fn no_status(&self, within: Duration) -> Fault {
        Fault::new(
            format!(
                "the gateway has not reached {} within {within:?}",
                self.name
            ),
            "what stands behind it does not answer: is it up? --timeout waits longer",
        )
    }

    fn handshake(&self, error: &HandshakeError) -> String {
        let port = self.port;
        match error {
            HandshakeError::Io(_) => {
                format!("check that {port} is its port; its own log says why it hangs up")
            }
            HandshakeError::NotTls(opening) => match opening.as_slice() {
                [b'H', b'T', b'T', b'P', b'/', ..] | [b'S', b'S', b'H', b'-', ..] => {
                    format!(
                        "{port} is another service's port, or one without TLS: name the one with TLS"
                    )
                }
                _ => format!("check that {port} is its port, and not one without TLS"),
            },
            HandshakeError::Tls(Error::InvalidCertificate(error)) => self.certificate(error),
            HandshakeError::Tls(Error::AlertReceived(alert)) => self.alert(*alert),
            HandshakeError::Tls(Error::InvalidMessage(_)) => {
                format!("check that {port} is its port, and not one without TLS")
            }
            HandshakeError::Tls(_) => {
                "it must speak TLS 1.2 or 1.3; is there something in between?".to_owned()
            }
        }
    }

    /// Its certificate does not prove who it must be.
    fn certificate(&self, error: &CertificateError) -> String {
        let name = &self.name;
        let hint = match error {
            CertificateError::UnknownIssuer if self.is_in_mesh => {
                "is it in the mesh of this gateway, and is its sidecar up to date?"
            }
            CertificateError::UnknownIssuer => {
                "if the CA is a private one, name its certificate in `roots`, which are then the only CAs trusted there"
            }
            CertificateError::BadSignature => {
                "the CA may have been made anew: get its present certificate for `roots`"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "if the clock is right, whoever runs it must renew it"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "set the clock right; if it is right, the one there is not, or its CA's"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                return format!(
                    "check `server_name`; if it is right, whoever runs it must get a certificate for {name}"
                );
            }
            CertificateError::Other(_) if self.is_in_mesh => {
                "another service has its address by now, or stands in between: look at the catalog"
            }
            _ => {
                "check its address, and what must be proven (`spiffe`, `sans`); if both are right, whoever runs it must get another certificate"
            }
        };
        hint.to_owned()
    }

    /// It refuses us (RFC 8446 §6.2).
    fn alert(&self, alert: AlertDescription) -> String {
        let hint = match alert {
            AlertDescription::UnrecognisedName => {
                return format!(
                    "check the name: nothing there goes by {}; a gateway's operator sees its routes at /v1/routes",
                    self.name
                );
            }
            AlertDescription::CertificateRequired
            | AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::DecryptError => self.our_certificate(alert),
            AlertDescription::AccessDenied if self.is_in_mesh => {
                "ask who runs it for an intention that allows the gateway (consul intention check)"
            }
            AlertDescription::AccessDenied => {
                "it is probably for other addresses than this machine's: ask whoever runs it"
            }
            AlertDescription::UserCanceled => {
                "it has as many connections as it takes: try again in a while; its own log says which limit it is"
            }
            AlertDescription::NoApplicationProtocol => {
                "it takes only certain protocols: name one of them in `alpn`"
            }
            AlertDescription::InternalError => {
                "what it has there is probably broken: its own log says why, a gateway's /v1/routes too"
            }
            _ if self.shows_certificate => {
                "the two may have no TLS version or cipher in common; its own log says why"
            }
            _ => {
                "the two may have no TLS version or cipher in common, or it requires a certificate: its own log says why"
            }
        };
        hint.to_owned()
    }

    /// It wants a certificate of ours, or another one than it was shown.
    fn our_certificate(&self, alert: AlertDescription) -> &'static str {
        match alert {
            _ if self.is_in_mesh => {
                "it does not accept the gateway's identity: are both in one mesh, and is its sidecar up to date?"
            }
            _ if !self.shows_certificate => "name ours: `chain` and `key` in its `tls`",
            AlertDescription::CertificateExpired => {
                "ours has expired: get a new one from who issued it; if it has not expired, a clock is wrong, here or there"
            }
            _ => {
                "name a certificate in `chain` from a CA that is accepted there; whoever runs it knows which"
            }
        }
    }
}

const NOT_READY: &str =
    "what stands there is probably not ready, or refuses this machine: its own log says which";
