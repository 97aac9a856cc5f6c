//! What a peer signs in a handshake, which proves that it holds the key of its certificate: verified alike by every verifier.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm};

/// The algorithms of the provider.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signatures(WebPkiSupportedAlgorithms);

impl Signatures {
    pub(super) fn new() -> Self {
        Self(super::provider().signature_verification_algorithms)
    }

    /// Those for the chains of certificates.
    pub(super) fn of_chains(&self) -> &'static [&'static dyn SignatureVerificationAlgorithm] {
        self.0.all
    }

    /// In TLS 1.2 (RFC 5246 §7.4.3).
    pub(super) fn tls12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    /// In TLS 1.3 (RFC 8446 §4.4.3).
    pub(super) fn tls13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    /// What is offered to the peer.
    pub(super) fn schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
