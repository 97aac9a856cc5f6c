//! A place in the mesh for a test: a service's leaf and the roots, as the agent's API gives them.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::Consul;

/// An identity in the mesh, and what it trusts.
pub(crate) struct Leaf {
    /// The leaf itself, then the certificates between it and a root.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// Its SPIFFE ID.
    pub(crate) id: String,
    /// Every root that the agent lists.
    pub(crate) roots: Arc<RootCertStore>,
    key: PrivateKeyDer<'static>,
}

impl Consul {
    /// The leaf of a service, registered or not, as of now.
    pub(crate) fn leaf(&self, service: &str) -> Leaf {
        let leaf = self.get(&format!("/v1/agent/connect/ca/leaf/{service}"));
        let text = |field: &str| leaf[field].as_str().unwrap().as_bytes();
        let chain = CertificateDer::pem_slice_iter(text("CertPEM"));
        let mut roots = RootCertStore::empty();
        for root in self.get("/v1/agent/connect/ca/roots")["Roots"]
            .as_array()
            .unwrap()
        {
            let pem = root["RootCert"].as_str().unwrap();
            roots
                .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
                .unwrap();
        }
        Leaf {
            chain: chain.map(Result::unwrap).collect(),
            id: leaf["ServiceURI"].as_str().unwrap().to_owned(),
            roots: Arc::new(roots),
            key: PrivateKeyDer::from_pem_slice(text("PrivateKeyPEM")).unwrap(),
        }
    }

    /// The SPIFFE ID that a service has in this mesh.
    pub(crate) fn spiffe_id(&self, service: &str) -> String {
        let roots = self.get("/v1/agent/connect/ca/roots");
        let trust_domain = roots["TrustDomain"].as_str().unwrap();
        format!("spiffe://{trust_domain}/ns/default/dc/dc1/svc/{service}")
    }
}

impl Leaf {
    /// A client with this identity, which accepts a server of exactly this SPIFFE ID under any of the roots.
    pub(crate) fn client(&self, server: &str) -> ClientConfig {
        let verifier = Exactly {
            id: server.to_owned(),
            roots: Arc::clone(&self.roots),
        };
        ClientConfig::builder_with_provider(portcullis::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .unwrap()
    }

    /// A server with this identity, which accepts every client of the mesh: a sidecar of the test's own.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        let provider = portcullis::tls::provider();
        let roots = Arc::clone(&self.roots);
        let clients = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(self.chain.clone(), self.key.clone_key());
        Arc::new(config.unwrap())
    }
}

/// Accepts one SPIFFE ID, whatever the name that was asked for.
#[derive(Debug)]
struct Exactly {
    id: String,
    roots: Arc<RootCertStore>,
}

impl ServerCertVerifier for Exactly {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let algorithms = portcullis::tls::provider().signature_verification_algorithms;
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            between,
            now,
            algorithms.all,
        )?;
        match uris(leaf).as_slice() {
            [id] if *id == self.id => Ok(ServerCertVerified::assertion()),
            _ => Err(CertificateError::NotValidForName.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = portcullis::tls::provider().signature_verification_algorithms;
        verify_tls12_signature(message, leaf, signed, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = portcullis::tls::provider().signature_verification_algorithms;
        verify_tls13_signature(message, leaf, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = portcullis::tls::provider().signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// The URIs among a certificate's names.
pub(crate) fn uris(certificate: &CertificateDer<'_>) -> Vec<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).unwrap();
    let names = certificate.subject_alternative_name().unwrap();
    let names = names.map(|names| names.value.general_names.iter());
    let uris = names.into_iter().flatten().filter_map(|name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    });
    uris.collect()
}
