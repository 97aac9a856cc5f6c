//! What a gateway answers in place of a handshake (RFC 8446 §6.2).

use rustls::AlertDescription;

use super::Report;
use crate::client::connect::Connect;
use crate::client::exit::Exit;
use crate::tls::alert::{Meaning, Named};

impl Connect {
    /// What the gateway means by an alert.
    pub(super) fn alert(&self, alert: AlertDescription) -> Report {
        let (gateway, name) = (&self.gateway, self.server_name());
        match Meaning::of(alert) {
            Meaning::NoRoute => Report::new(
                Exit::UnknownName,
                format!("the gateway {gateway} has no route for {name}"),
                "check the name; the gateway's operator sees its routes at /v1/routes",
            ),
            Meaning::CertificateRequired
            | Meaning::CertificateExpired
            | Meaning::CertificateRefused => self.client_certificate(alert),
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
            Meaning::Other => Report::new(
                Exit::Handshake,
                format!(
                    "the gateway refuses the handshake for {name} ({})",
                    Named(alert)
                ),
                "the two may have no TLS version or cipher in common; the gateway's log says why",
            ),
        }
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
        let chain = chain.display();
        match Meaning::of(alert) {
            Meaning::CertificateExpired => Report::new(
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
