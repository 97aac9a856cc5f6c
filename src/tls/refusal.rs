//! Why a handshake failed, in words that a person can act on.

use rustls::{AlertDescription, CertificateError, Error};
use rustls_pki_types::UnixTime;

use super::alert::{Meaning, Named};
use super::names::presented;
use super::verify::WrongIdentity;

/// rustls's own words, or ours where those leave something to be guessed, or would show what the peer has written as it is.
pub(super) fn describe(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(refused) => unfit(refused, "the peer's certificate"),
        Error::AlertReceived(alert) => format!("{} ({})", said(*alert), Named(*alert)),
        error => error.to_string(),
    }
}

/// What a peer says by an alert, be it a server or a client.
fn said(alert: AlertDescription) -> &'static str {
    match (alert, Meaning::of(alert)) {
        (AlertDescription::UnknownCA, _) => "the peer trusts no CA that our certificate leads to",
        (_, Meaning::NoRoute) => "the peer does not serve this name, or has no certificate for it",
        (_, Meaning::NotLetIn) => "the peer does not let us in",
        (_, Meaning::Full) => "the peer calls it off",
        (_, Meaning::Broken) => "something of the peer's own has failed",
        (_, Meaning::NoProtocol) => "the peer takes no protocol (ALPN) that we offer",
        (_, Meaning::CertificateRequired) => "the peer requires a certificate of ours",
        (_, Meaning::CertificateExpired) => "our certificate has expired, says the peer",
        (_, Meaning::CertificateRefused) => "the peer does not accept our certificate",
        (_, Meaning::Other) => "the peer breaks off",
    }
}

/// Why a certificate is refused, in a sentence that begins with `whose`.
pub fn unfit(refused: &CertificateError, whose: &str) -> String {
    let text = match refused {
        CertificateError::UnknownIssuer => "leads to no CA that is trusted here",
        CertificateError::BadSignature => {
            "is from another CA with the name of a trusted one, or its key is not the peer's"
        }
        CertificateError::ExpiredContext { not_after, .. } => {
            return format!("{whose}, or one above it, expired at {}", date(*not_after));
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            return format!(
                "{whose}, or one above it, is not valid before {}: is a clock wrong?",
                date(*not_before)
            );
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented: names,
        } => {
            return format!(
                "{whose} is not for {}, but for {}",
                expected.to_str(),
                presented(names)
            );
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "or one above it is for another purpose (extended key usage)"
        }
        CertificateError::Other(other) => match (other.0.downcast_ref(), other.0.downcast_ref()) {
            (Some(wrong), _) => return WrongIdentity::to_string(wrong),
            (_, Some(webpki::Error::NameConstraintViolation)) => {
                "has a CA above it that constrains names to others, or constrains URIs, which webpki always rejects: \
                 have that CA issued without a URI name constraint"
            }
            (_, Some(webpki::Error::CaUsedAsEndEntity)) => {
                "is a CA's own, which no server may show"
            }
            (_, Some(webpki::Error::UnsupportedCertVersion)) => {
                "or one above it is not of X.509 version 3"
            }
            _ => return format!("{whose} cannot be used: {other}"),
        },
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "or one above it is signed with an algorithm that is not supported"
        }
        other => return format!("{whose} cannot be used: {other}"),
    };
    format!("{whose} {text}")
}

fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| "an odd time".to_owned(), |at| at.to_string())
}
