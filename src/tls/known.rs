//! Chains that were verified before: the same bytes are not verified again while they are valid.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

/// How many chains are remembered; the next one begins anew.
///
/// 256: more endpoints than one upstream has.
const MOST: usize = 256;

/// The most bytes of a chain that is remembered.
///
/// 8 KiB: a leaf and two intermediates of RSA-4096 take 5. So an upstream that shows ever new ones has 2 MiB at most.
const LARGEST: usize = 8 * 1024;

/// A verifier that remembers which chains it has found good: an upstream shows the same one at each dial, and the CA's
/// signature on it is the dearest thing to verify there.
///
/// Whether a chain leads to a root and says the right name depends on its bytes, the roots, the name and the time alone. The
/// roots are those of this verifier, the rest is compared. That the peer holds the key it proves in each handshake
/// (RFC 8446 §4.4.3), and that is never remembered. Refusals are not, either.
#[derive(Debug)]
pub(super) struct Known {
    verifier: Arc<dyn ServerCertVerifier>,
    /// By the peer's own certificate.
    chains: Mutex<HashMap<CertificateDer<'static>, Chain>>,
}

/// A chain that was good.
#[derive(Debug)]
struct Chain {
    intermediates: Vec<CertificateDer<'static>>,
    name: ServerName<'static>,
    /// When it was verified: a clock that is put back makes it be verified anew.
    since: UnixTime,
    /// The last second in which every certificate of it is valid.
    until: UnixTime,
}

impl Known {
    pub(super) fn new(verifier: Arc<dyn ServerCertVerifier>) -> Self {
        Self {
            verifier,
            chains: Mutex::default(),
        }
    }
}

impl Chain {
    /// `None` for a chain that is not to be remembered: too large, or it cannot be told how long it is good.
    fn new(
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Option<Self> {
        let length: usize = intermediates.iter().map(|der| der.len()).sum();
        if end_entity.len() + length > LARGEST {
            return None;
        }
        let mut until = last_second(end_entity)?;
        for intermediate in intermediates {
            until = until.min(last_second(intermediate)?);
        }
        let owned = |der: &CertificateDer<'_>| der.clone().into_owned();
        Some(Self {
            intermediates: intermediates.iter().map(owned).collect(),
            name: name.to_owned(),
            since: now,
            until: UnixTime::since_unix_epoch(Duration::from_secs(until)),
        })
    }

    fn is(
        &self,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> bool {
        self.intermediates == intermediates
            && self.name == *name
            && (self.since..=self.until).contains(&now)
    }
}

/// The end of a certificate's validity (RFC 5280 §4.1.2.5), in seconds since 1970.
fn last_second(certificate: &CertificateDer<'_>) -> Option<u64> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    u64::try_from(parsed.validity().not_after.timestamp()).ok()
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chains = || self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |chain: &Chain| chain.is(intermediates, server_name, now);
        if chains().get(end_entity).is_some_and(known) {
            return Ok(ServerCertVerified::assertion());
        }
        let verified = self.verifier.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        if let Some(chain) = Chain::new(end_entity, intermediates, server_name, now) {
            let mut chains = chains();
            if chains.len() >= MOST {
                chains.clear();
            }
            chains.insert(end_entity.clone().into_owned(), chain);
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
