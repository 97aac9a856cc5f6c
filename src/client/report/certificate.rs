//! What is wrong with the certificate that the gateway shows.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::{CertificateError, OtherError};

use super::Report;
use crate::client::connect::Connect;
use crate::client::exit::Exit;
use crate::tls;
use crate::tls::pin::{NotPinned, Pin};

impl Connect {
    /// A certificate that does not prove the name, by what is wrong with it.
    pub(super) fn untrusted(&self, error: &CertificateError) -> Report {
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
        let (exit, message, hint) = match error {
            CertificateError::UnknownIssuer if self.trust.roots.is_empty() => (
                Exit::Untrusted,
                format!("the certificate for {name} is from a CA that this system does not trust"),
                "if the CA is a private one, name its certificate: --ca FILE".to_owned(),
            ),
            CertificateError::UnknownIssuer => (
                Exit::Untrusted,
                format!("the certificate for {name} is not from a CA in the --ca files"),
                "with --ca only those CAs are trusted; ask the gateway's operator for the right one"
                    .to_owned(),
            ),
            CertificateError::BadSignature => (
                Exit::Untrusted,
                format!(
                    "the certificate for {name} is from another CA with the name of a trusted one"
                ),
                "the CA may have been made anew: get its present certificate for --ca FILE"
                    .to_owned(),
            ),
            CertificateError::ExpiredContext { time, not_after } => (
                Exit::Expired,
                format!(
                    "the certificate for {name} expired at {}; this machine's clock says {}",
                    date(not_after.as_secs()),
                    date(time.as_secs())
                ),
                "if the clock is right, the gateway's operator must renew it".to_owned(),
            ),
            CertificateError::NotValidYetContext { time, not_before } => (
                Exit::NotYetValid,
                format!(
                    "the certificate for {name} is valid only from {}; this machine's clock says {}",
                    date(not_before.as_secs()),
                    date(time.as_secs())
                ),
                "set the clock right; if it is right, the gateway's is not, or its CA's".to_owned(),
            ),
            CertificateError::NotValidForNameContext { presented, .. } => (
                Exit::WrongName,
                format!(
                    "the certificate is not for {name}, but for {}",
                    tls::presented(presented)
                ),
                format!(
                    "check the name; if it is right, the gateway's operator must get a certificate for {name}"
                ),
            ),
            CertificateError::Other(other) if is_a_ca(other) => (
                Exit::Untrusted,
                format!(
                    "the certificate for {name} is a CA's own, as `openssl req -x509` makes one, and no server may show it"
                ),
                self.pin_or_anew(),
            ),
            error => (
                Exit::Untrusted,
                tls::unfit(error, &format!("the certificate for {name}")),
                "ask the gateway's operator".to_owned(),
            ),
        };
        Report::new(exit, message, hint)
    }

    /// What makes a certificate trusted that no CA has signed: its key, known from elsewhere.
    fn pin_or_anew(&self) -> String {
        let chain = self.witness.chain();
        let pin = match chain.first().and_then(Pin::of) {
            Some(pin) => pin.to_string(),
            None => "sha256/…".to_owned(),
        };
        // With both, both must hold.
        let place = match self.trust.roots.is_empty() {
            true => "",
            false => " in place of --ca",
        };
        format!(
            "if the gateway's operator says that this is its key: --pin {pin}{place}; or have it issued as a server's (basicConstraints=CA:FALSE)"
        )
    }
}

fn is_a_ca(other: &OtherError) -> bool {
    matches!(
        other.0.downcast_ref(),
        Some(webpki::Error::CaUsedAsEndEntity)
    )
}

/// A time to the minute, in UTC.
pub(in crate::client) fn date(seconds: u64) -> String {
    let time = UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .unwrap_or(SystemTime::UNIX_EPOCH);
    match jiff::Timestamp::try_from(time) {
        Ok(time) => time.strftime("%F %H:%M UTC").to_string(),
        Err(_) => "a day beyond the calendar".to_owned(),
    }
}
