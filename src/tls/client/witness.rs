//! What a server shows in a handshake, noted for a person: its chain, and whether it asks for a certificate.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// What was shown in the last handshake.
#[derive(Debug, Default)]
pub struct Witness(Mutex<Shown>);

#[derive(Debug, Default)]
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    asked: Option<Asked>,
}

/// A server's wish for a client certificate (RFC 8446 §4.3.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The names of the CAs it takes, in DER; none where it names none (§4.2.4).
    pub authorities: Vec<Vec<u8>>,
    /// Whether there was one to show.
    pub was_shown: bool,
}

impl Witness {
    /// The server's certificates, its own first; none where the handshake did not get so far.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.with(|shown| shown.chain.clone())
    }

    /// Whether it asked for a certificate.
    pub fn asked(&self) -> Option<Asked> {
        self.with(|shown| shown.asked.clone())
    }

    fn with<T>(&self, look: impl FnOnce(&mut Shown) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Does what is inside, and notes what it is shown.
#[derive(Debug)]
pub(super) struct Witnessed<T> {
    inner: T,
    witness: Arc<Witness>,
}

impl<T> Witnessed<T> {
    pub(super) fn new(inner: T, witness: &Arc<Witness>) -> Self {
        Self {
            inner,
            witness: Arc::clone(witness),
        }
    }
}

impl ServerCertVerifier for Witnessed<Arc<dyn ServerCertVerifier>> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.witness.with(|shown| {
            let chain = std::iter::once(end_entity).chain(intermediates);
            shown.chain = chain.map(|one| one.clone().into_owned()).collect();
        });
        (self.inner).verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

impl ResolvesClientCert for Witnessed<Option<Arc<CertifiedKey>>> {
    fn resolve(&self, asked: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.witness.with(|shown| {
            shown.asked = Some(Asked {
                authorities: asked.iter().map(|name| name.to_vec()).collect(),
                was_shown: self.inner.is_some(),
            });
        });
        self.inner.clone()
    }

    fn has_certs(&self) -> bool {
        self.inner.is_some()
    }
}
