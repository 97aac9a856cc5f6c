//! The TLS of both sides: one certificate, TLS 1.3, one suite, one key exchange.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use clap::ValueEnum;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore,
    ServerConfig, SignatureScheme,
};

/// The name of the route that ends TLS.
pub(crate) const TERMINATED: &str = "terminate.bench.test";
/// The name of the route that passes it through.
pub(crate) const PASSED: &str = "pass.bench.test";

/// The name of the route that ends TLS, and opens mutual TLS to a service of a mesh.
pub(crate) const MESHED: &str = "mesh.bench.test";
/// What the service of the mesh proves to be.
const SERVICE: &str = "spiffe://bench.test/ns/default/dc/dc1/svc/service";
/// What the gateway proves to be there.
const GATEWAY: &str = "spiffe://bench.test/ns/default/dc/dc1/svc/gateway";
/// A name that the service has too, for those that can ask no more than that.
const SERVICE_NAME: &str = "service.bench.test";

/// The key exchange that the client offers.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Exchange {
    /// The cheapest one in common use.
    X25519,
    /// The hybrid with ML-KEM-768: 1.2 kB more each way.
    X25519mlkem768,
}

/// Writes a self-signed certificate for the names of the routes and its key, and the mesh: a CA and two identities.
pub(crate) fn write_certificate(folder: &Path) -> anyhow::Result<()> {
    let names = [TERMINATED, PASSED, MESHED].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names)?;
    std::fs::write(folder.join("edge.pem"), made.cert.pem())?;
    write_key(&folder.join("edge.key"), &made.signing_key)?;

    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // OpenSSL takes a certificate for self-signed whose issuer is called as it is itself.
    ca.distinguished_name.push(DnType::CommonName, "mesh CA");
    let ca_key = KeyPair::generate()?;
    let certificate = ca.self_signed(&ca_key)?;
    std::fs::write(folder.join("mesh-ca.pem"), certificate.pem())?;
    let issuer = Issuer::new(ca, ca_key);
    for (file, id) in [("service", SERVICE), ("gateway", GATEWAY)] {
        let mut params = CertificateParams::new([SERVICE_NAME.to_owned()])?;
        params.subject_alt_names.push(SanType::URI(id.try_into()?));
        let key = KeyPair::generate()?;
        let issued = params.signed_by(&key, &issuer)?;
        std::fs::write(folder.join(format!("{file}.pem")), issued.pem())?;
        write_key(&folder.join(format!("{file}.key")), &key)?;
    }
    Ok(())
}

/// Writes a key that only its owner may read.
fn write_key(path: &Path, key: &KeyPair) -> anyhow::Result<()> {
    std::fs::write(path, key.serialize_pem())?;
    Ok(std::fs::set_permissions(
        path,
        Permissions::from_mode(0o600),
    )?)
}

/// A server that shows the certificate of this folder.
pub(crate) fn server(folder: &Path) -> anyhow::Result<Arc<ServerConfig>> {
    let key = PrivateKeyDer::from_pem_file(folder.join("edge.key"))?;
    let config = ServerConfig::builder_with_provider(portcullis::tls::provider())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate(folder, "edge.pem")?], key)?;
    Ok(Arc::new(config))
}

/// The service of the mesh: whoever comes must show a certificate of the mesh's CA.
pub(crate) fn service(folder: &Path) -> anyhow::Result<Arc<ServerConfig>> {
    let key = PrivateKeyDer::from_pem_file(folder.join("service.key"))?;
    let roots = Arc::new(mesh_roots(folder)?);
    let provider = portcullis::tls::provider();
    let clients = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(clients.build()?)
        .with_single_cert(vec![certificate(folder, "service.pem")?], key)?;
    // Some proxies would come back with a ticket: each connection is to have a whole handshake.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// What the plain relay dials that service with, and the name that it asks for.
pub(crate) fn mesh(folder: &Path) -> anyhow::Result<(Arc<ClientConfig>, ServerName<'static>)> {
    let key = PrivateKeyDer::from_pem_file(folder.join("gateway.key"))?;
    let mut config = ClientConfig::builder_with_provider(portcullis::tls::provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(mesh_roots(folder)?)
        .with_client_auth_cert(vec![certificate(folder, "gateway.pem")?], key)?;
    config.resumption = Resumption::disabled();
    Ok((Arc::new(config), ServerName::try_from(SERVICE_NAME)?))
}

fn mesh_roots(folder: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(folder, "mesh-ca.pem")?)?;
    Ok(roots)
}

/// A client that trusts the certificate of this folder, and makes a whole handshake each time.
pub(crate) fn client(
    folder: &Path,
    exchange: Exchange,
    proof: Proof,
) -> anyhow::Result<Arc<ClientConfig>> {
    let edge = certificate(folder, "edge.pem")?;
    let mut roots = RootCertStore::empty();
    roots.add(edge.clone())?;
    let group = match exchange {
        Exchange::X25519 => kx_group::X25519,
        Exchange::X25519mlkem768 => kx_group::X25519MLKEM768,
    };
    let provider = CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![group],
        ..CryptoProvider::clone(&portcullis::tls::provider())
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    if proof == Proof::Assumed {
        let known = Arc::new(Known(edge));
        config.dangerous().set_certificate_verifier(known);
    }
    Ok(Arc::new(config))
}

/// What a client asks of the certificate that it is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// What clients ask: the chain, the name, the signature of the handshake.
    Asked,
    /// That it is the one that was expected: checking the signature would take longer than making it, so that the client
    /// were what limits.
    Assumed,
}

/// The only certificate that is taken.
#[derive(Debug)]
struct Known(CertificateDer<'static>);

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *shown == self.0 {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// The bytes of a hello that asks for this name.
pub(crate) fn hello(config: &Arc<ClientConfig>, name: &'static str) -> anyhow::Result<Vec<u8>> {
    let name = ServerName::try_from(name)?;
    let mut hello = Vec::new();
    ClientConnection::new(Arc::clone(config), name)?.write_tls(&mut hello)?;
    Ok(hello)
}

fn certificate(folder: &Path, name: &str) -> anyhow::Result<CertificateDer<'static>> {
    let file = folder.join(name);
    CertificateDer::from_pem_file(&file).with_context(|| format!("cannot read {}", file.display()))
}
