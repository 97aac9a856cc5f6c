//! What a server must prove: a name, one of several names, or a SPIFFE ID; always with a chain to a trusted root.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::EndEntityCert;

use crate::name::{HostName, SpiffeId};

/// What a server's certificate must say, beyond its chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    /// The name that was dialled (RFC 9525).
    #[default]
    ServerName,
    /// This ID, as the only URI among its subject alternative names (X.509-SVID §2).
    Spiffe(SpiffeId),
    /// One of these, among its subject alternative names; whatever name was dialled.
    AnyOf(Vec<AltName>),
}

/// A subject alternative name (RFC 5280 §4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AltName {
    /// A DNS name; a certificate's wildcard stands for one label of it.
    Dns(HostName),
    /// An address.
    Ip(IpAddr),
    /// A URI, byte by byte.
    Uri(String),
}

impl fmt::Display for AltName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => name.fmt(f),
            Self::Ip(address) => address.fmt(f),
            Self::Uri(uri) => f.write_str(uri),
        }
    }
}

/// Verifies chains against these roots and then what the certificate says of itself, instead of a host name.
#[derive(Debug)]
pub(super) struct Verifier {
    roots: Arc<RootCertStore>,
    proof: Proof,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// For any proof but [`Proof::ServerName`], which is rustls's own.
    pub(super) fn new(roots: Arc<RootCertStore>, proof: Proof) -> Self {
        Self {
            roots,
            proof,
            provider: super::provider(),
        }
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let certificate = EndEntityCert::try_from(certificate)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let uris = || certificate.valid_uri_names();
        let proven = match &self.proof {
            // Never asked for: who wants a name must not get less.
            Proof::ServerName => false,
            Proof::Spiffe(id) => {
                let mut uris = uris();
                uris.next() == Some(id.as_str()) && uris.next().is_none()
            }
            Proof::AnyOf(names) => names.iter().any(|name| match name {
                AltName::Uri(uri) => uris().any(|found| found == uri),
                AltName::Ip(address) => is_named(&certificate, &ServerName::from(*address)),
                AltName::Dns(name) => ServerName::try_from(name.as_str())
                    .is_ok_and(|name| is_named(&certificate, &name)),
            }),
        };
        if proven {
            return Ok(());
        }
        let wrong = WrongIdentity {
            wanted: self.proof.clone(),
            found: found(&certificate),
        };
        let error = OtherError(Arc::new(wrong));
        Err(Error::InvalidCertificate(CertificateError::Other(error)))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        self.check(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// A trusted certificate of somebody else.
#[derive(Debug, thiserror::Error)]
#[error("the certificate proves {found}, not {}", wanted_text(.wanted))]
struct WrongIdentity {
    wanted: Proof,
    found: String,
}

fn wanted_text(wanted: &Proof) -> String {
    match wanted {
        Proof::ServerName => "the name that was dialled".to_owned(),
        Proof::Spiffe(id) => id.to_string(),
        Proof::AnyOf(names) => {
            let names: Vec<String> = names.iter().map(AltName::to_string).collect();
            names.join(" or ")
        }
    }
}

fn is_named(certificate: &EndEntityCert<'_>, name: &ServerName<'_>) -> bool {
    certificate.verify_is_valid_for_subject_name(name).is_ok()
}

/// What a certificate says of itself, for people; a stranger may have written it.
fn found(certificate: &EndEntityCert<'_>) -> String {
    let dns = certificate.valid_dns_names();
    let names: Vec<String> = certificate
        .valid_uri_names()
        .chain(dns)
        .take(4)
        .map(|name| name.chars().take(300).collect::<String>())
        .map(|name| name.escape_debug().to_string())
        .collect();
    if names.is_empty() {
        return "no name at all".to_owned();
    }
    names.join(", ")
}
