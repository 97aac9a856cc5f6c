//! Pins: the public key that a server must have, known beforehand, in place of a CA's word or beside it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use data_encoding::BASE64;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::certificate::X509Certificate;

use super::files::parse;
use super::signatures::Signatures;

/// The SHA-256 of a certificate's SubjectPublicKeyInfo, as in RFC 7469 §2.4: another certificate for the same key has the
/// same pin.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin([u8; SHA256_OUTPUT_LEN]);

/// Why a text is no pin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PinError(&'static str);

/// The server's key is not one of those that were pinned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its key is not a pinned one, but {found}")]
pub struct NotPinned {
    /// The pin of the key that it has.
    pub found: Pin,
}

impl Pin {
    /// The pin of a certificate's key; `None` if it is no certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        parse(certificate).as_ref().map(Self::of_parsed)
    }

    fn of_parsed(certificate: &X509Certificate<'_>) -> Self {
        let hash = digest(&SHA256, certificate.public_key().raw);
        let mut pin = Self([0; SHA256_OUTPUT_LEN]);
        // Of this length by its type.
        pin.0
            .iter_mut()
            .zip(hash.as_ref())
            .for_each(|(to, from)| *to = *from);
        pin
    }
}

/// `sha256/` and 44 characters of base64; curl's form, with two slashes, is understood.
impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let rest = text.strip_prefix("sha256/").ok_or(PinError(
            "a pin is `sha256/` and the SHA-256 of a public key in base64",
        ))?;
        // Base64 may itself begin with a slash: the length tells.
        let curls = rest.strip_prefix('/').filter(|rest| rest.len() == 44);
        let base64 = curls.unwrap_or(rest);
        let bytes = BASE64.decode(base64.as_bytes()).ok();
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or(PinError(
                "after `sha256/` come 44 characters of base64, the last of them `=`",
            ))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256/{}", BASE64.encode(&self.0))
    }
}

/// As it is written.
impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Verifies a server otherwise than by its chain alone. That it has the key of the certificate it shows is verified always.
#[derive(Debug)]
pub(super) enum ByKey {
    /// Its key must be one of these; and its chain be good, if there is something that verifies chains. Without that, name and
    /// dates are verified here.
    Pinned(Vec<Pin>, Option<Arc<dyn ServerCertVerifier>>),
    /// Whoever it is: for what is spelled `insecure` alone.
    Anybody,
}

impl ServerCertVerifier for ByKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Self::Pinned(pins, chain) = self else {
            return Ok(ServerCertVerified::assertion());
        };
        let parsed = parse(end_entity).ok_or(CertificateError::BadEncoding)?;
        let found = Pin::of_parsed(&parsed);
        if !pins.contains(&found) {
            let other = OtherError(Arc::new(NotPinned { found }));
            return Err(CertificateError::Other(other).into());
        }
        if let Some(chain) = chain {
            return chain.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
        }
        is_valid_at(&parsed, now)?;
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Signatures::new().tls12(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Signatures::new().tls13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Signatures::new().schemes()
    }
}

/// A key is pinned for as long as its owner has said that its certificate is good (RFC 5280 §4.1.2.5).
fn is_valid_at(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let time = |time: i64| {
        let seconds = u64::try_from(time).unwrap_or(0);
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    };
    let validity = certificate.validity();
    let not_before = time(validity.not_before.timestamp());
    let not_after = time(validity.not_after.timestamp());
    if now < not_before {
        return Err(CertificateError::NotValidYetContext {
            time: now,
            not_before,
        });
    }
    if now > not_after {
        return Err(CertificateError::ExpiredContext {
            time: now,
            not_after,
        });
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use rustls::ServerConfig;
    use rustls::sign::SingleCertAndKey;

    use super::super::client::{Trust, person};
    use super::super::options::Options;
    use super::super::server::ServerPolicy;
    use super::super::test_certs::{Ca, Handshake, Issued, handshake, write};
    use super::*;

    const NAME: &str = "db.example.com";

    fn meet(trust: &Trust, certificate: &Issued) -> Handshake {
        let resolver = Arc::new(SingleCertAndKey::from(certificate.certified_key()));
        let policy = ServerPolicy::new(&Options::default(), resolver, None).unwrap();
        let server: Arc<ServerConfig> = Arc::clone(policy.config(&[]));
        let client = person(trust, None, &[], &Arc::default()).unwrap();
        handshake(&client, NAME, |_| server)
    }

    fn refusal(trust: &Trust, certificate: &Issued) -> CertificateError {
        match meet(trust, certificate).client_result {
            Err(Error::InvalidCertificate(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    fn pin(certificate: &Issued) -> Pin {
        Pin::of(&certificate.chain[0]).unwrap()
    }

    #[test]
    fn a_pin_is_read_as_it_is_shown_and_as_curl_writes_it() {
        let hash = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let pin: Pin = format!("sha256/{hash}").parse().unwrap();
        assert_eq!(format!("sha256//{hash}").parse(), Ok(pin));
        assert_eq!(pin.to_string(), format!("sha256/{hash}"));
        let slash = "/7DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let pin: Pin = format!("sha256/{slash}").parse().unwrap();
        assert_eq!(pin.to_string(), format!("sha256/{slash}"));
        assert_eq!(format!("sha256//{slash}").parse(), Ok(pin));
        for (text, says) in [
            (hash, "`sha256/`"),
            ("sha1/AAAA", "`sha256/`"),
            ("sha256/AAAA", "44 characters"),
            (
                "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
                "44 characters",
            ),
            (
                "sha256///7DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=0",
                "44 characters",
            ),
        ] {
            let error = text.parse::<Pin>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_pin_alone_stands_for_the_chain_and_not_for_name_and_dates() {
        let ca = Ca::new("ca");
        let good = ca.issue(&[NAME]);
        let trust = |certificate: &Issued| Trust {
            pins: vec![pin(certificate)],
            ..Trust::default()
        };
        let both = Trust {
            pins: vec![pin(&ca.issue(&[NAME])), pin(&good)],
            ..Trust::default()
        };
        assert!(meet(&trust(&good), &good).is_ok());
        assert!(meet(&both, &good).is_ok());

        let stranger = ca.issue(&[NAME]);
        let refused = refusal(&trust(&good), &stranger).to_string();
        assert!(refused.contains(&pin(&stranger).to_string()), "{refused}");
        let other = ca.issue(&["other.example.com"]);
        assert!(matches!(
            refusal(&trust(&other), &other),
            CertificateError::NotValidForNameContext { .. }
        ));
        let mut request = ca.request(&[NAME]);
        request.not_after = request.not_before;
        let expired = request.issue();
        assert!(matches!(
            refusal(&trust(&expired), &expired),
            CertificateError::ExpiredContext { .. }
        ));
        let mut request = ca.request(&[NAME]);
        request.not_before = request.not_after;
        let future = request.issue();
        assert!(matches!(
            refusal(&trust(&future), &future),
            CertificateError::NotValidYetContext { .. }
        ));
    }

    #[test]
    fn with_a_ca_beside_it_both_must_be_met() {
        let folder = tempfile::tempdir().unwrap();
        let (ca, other) = (Ca::new("ca"), Ca::new("other"));
        let (good, foreign) = (ca.issue(&[NAME]), other.issue(&[NAME]));
        let trust = Trust {
            roots: vec![write(folder.path(), "ca.pem", ca.pem())],
            pins: vec![pin(&good), pin(&foreign)],
            insecure: false,
        };
        assert!(meet(&trust, &good).is_ok());
        assert_eq!(refusal(&trust, &foreign), CertificateError::UnknownIssuer);
        let unpinned = refusal(&trust, &ca.issue(&[NAME])).to_string();
        assert!(unpinned.contains("NotPinned"), "{unpinned}");
    }

    #[test]
    fn only_insecure_takes_anybody() {
        let stranger = Ca::new("stranger").issue(&["other.example.com"]);
        let trust = Trust {
            insecure: true,
            ..Trust::default()
        };
        assert!(meet(&trust, &stranger).is_ok());
    }
}
