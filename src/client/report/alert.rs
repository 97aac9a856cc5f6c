//! What a gateway answers in place of a handshake (RFC 8446 §6.2).

use std::path::Path;
use std::time::SystemTime;

use rustls::AlertDescription;

use super::Report;
use super::certificate::date;
use crate::client::connect::Connect;
use crate::client::exit::Exit;
use crate::tls::alert::{Meaning, Named};
use crate::tls::files;

impl Connect {
    /// What the gateway means by an alert.
    pub(super) fn alert(&self, alert: AlertDescription) -> Report {
        let (gateway, name) = (&self.gateway, self.server_name());
        let is_asked = self.witness.asked().is_some();
        match Meaning::of(alert) {
            Meaning::NoRoute => Report::new(
                Exit::UnknownName,
                format!("the gateway {gateway} has no route for {name}"),
                "check the name; the gateway's operator sees its routes at /v1/routes",
            ),
            Meaning::CertificateRequired => self.client_certificate(alert),
            Meaning::CertificateExpired | Meaning::CertificateRefused if is_asked => {
                self.client_certificate(alert)
            }
            Meaning::CertificateExpired | Meaning::CertificateRefused => self.refuses(
                alert,
                "it has not asked for a certificate of yours: what it means, its log says",
            ),
            // Of TLS 1.2 it is what OpenSSL says to who shows none.
            Meaning::Other
                if alert == AlertDescription::HandshakeFailure
                    && is_asked
                    && self.certificate.is_none() =>
            {
                self.client_certificate(alert)
            }
            Meaning::NotLetIn => Report::new(
                Exit::NotAllowed,
                format!(
                    "the gateway does not let you in to {name} ({})",
                    Named(alert)
                ),
                "its route is probably for other addresses than yours: use the network it is meant for, or ask the gateway's operator",
            ),
            Meaning::Full => Report::new(
                Exit::Limit,
                format!("the gateway has as many connections to {name} as it takes"),
                "close some of yours, or try again in a while; the gateway's log says which limit it is",
            ),
            Meaning::NoProtocol => Report::new(
                Exit::Handshake,
                format!("the route for {name} takes only clients of certain protocols (ALPN)"),
                "it is not meant for tunnels; ask the gateway's operator for one that is",
            ),
            Meaning::Broken => Report::new(
                Exit::RouteBroken,
                format!("the gateway cannot serve {name} ({})", Named(alert)),
                "its route is probably broken: the gateway's operator sees why at /v1/routes",
            ),
            Meaning::Other => self.refuses(
                alert,
                "the two may have no TLS version or cipher in common; the gateway's log says why",
            ),
        }
    }

    fn refuses(&self, alert: AlertDescription, hint: &str) -> Report {
        let (name, alert) = (self.server_name(), Named(alert));
        let message = format!("the gateway refuses the handshake for {name} ({alert})");
        Report::new(Exit::Handshake, message, hint)
    }

    /// The gateway wants a certificate, or another one than it was shown.
    fn client_certificate(&self, alert: AlertDescription) -> Report {
        let name = self.server_name();
        let Some((chain, _)) = &self.certificate else {
            return Report::new(
                Exit::CertificateRequired,
                format!(
                    "the gateway asks for a client certificate for {name} ({})",
                    Named(alert)
                ),
                "name yours: --cert FILE --key FILE",
            );
        };
        let not_before = begins_later(chain);
        let chain = chain.display();
        match (alert, not_before) {
            // Some servers have one alert for both ends of its time (RFC 8446 §6.2), others tell this end as a bad certificate.
            (
                AlertDescription::CertificateExpired | AlertDescription::BadCertificate,
                Some((not_before, now)),
            ) => Report::new(
                Exit::CertificateRefused,
                format!(
                    "your certificate in {chain} is valid only from {not_before}; this machine's clock says {now}"
                ),
                "set the clock right; if it is right, wait for that time, or get a certificate that is valid now",
            ),
            (AlertDescription::CertificateExpired, None) => Report::new(
                Exit::CertificateExpired,
                format!("your certificate in {chain} has expired, says the gateway"),
                "get a new one from who issued it; if it has not expired, a clock is wrong, here or there",
            ),
            _ => Report::new(
                Exit::CertificateRefused,
                format!(
                    "the gateway does not accept the certificate in {chain} ({})",
                    Named(alert)
                ),
                format!("name one from a CA that is accepted for {name}; its operator knows which"),
            ),
        }
    }
}

/// When the first certificate of this file becomes valid, if that is still to come, and what the clock says.
fn begins_later(chain: &Path) -> Option<(String, String)> {
    let (not_before, now) = (files::validity_of(chain)?.0, SystemTime::now());
    let shown = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        date(since.unwrap_or_default().as_secs())
    };
    (not_before > now).then(|| (shown(not_before), shown(now)))
}
