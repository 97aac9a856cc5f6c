//! `ClientConfig`s: for the upstreams of the gateway, and for `portcullis connect`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, ConfigBuilder, DistinguishedName, RootCertStore, SignatureScheme, WantsVerifier,
};
use rustls_native_certs::CertificateResult;
use rustls_pki_types::ServerName;

use super::ciphers::Ciphers;
use super::files::{FileError, Pair, load_roots};
use super::key::KeyFile;
use super::known::Known;
use super::pem::unreadable;
use super::verify::{Proof, Verifier};
use crate::retry;

mod person;
mod witness;

pub use person::{Trust, person};
pub use witness::{Asked, Witness};

/// A configuration, and what it was made from.
#[derive(Clone, Debug)]
pub struct Made {
    /// The configuration.
    pub config: Arc<ClientConfig>,
    roots: Arc<RootCertStore>,
    certificate: Option<Arc<CertifiedKey>>,
    proof: Proof,
    alpn: Vec<String>,
    ciphers: Option<Ciphers>,
}

impl Made {
    /// As [`config`] makes it, but that it offers these protocols and, if they are written, these cipher suites alone; or one of those, if it was made from the same: with it go the chains that it has verified.
    ///
    /// Files are compared by what they hold, and are read for it. Of a certificate the chain tells of its key too.
    ///
    /// # Errors
    /// As for [`config`].
    pub fn following<'a>(
        roots: &[PathBuf],
        certificate: Option<(&Path, &KeyFile)>,
        proof: Proof,
        alpn: &[String],
        ciphers: Option<&Ciphers>,
        previous: impl IntoIterator<Item = &'a Self>,
    ) -> Result<Self, ClientError> {
        let (roots, certificate) = read(roots, certificate)?;
        let chain = |certificate: &Option<Arc<CertifiedKey>>| {
            certificate.as_ref().map(|key| key.cert.clone())
        };
        let same = |made: &&Self| {
            made.proof == proof
                && made.alpn == alpn
                && made.ciphers.as_ref() == ciphers
                && made.roots.roots == roots.roots
                && chain(&made.certificate) == chain(&certificate)
        };
        if let Some(same) = previous.into_iter().find(same) {
            return Ok(same.clone());
        }
        let verifier = verifier(Arc::clone(&roots), proof.clone())?;
        let mut provider = super::provider();
        if let Some(ciphers) = ciphers {
            ciphers.restrict(Arc::make_mut(&mut provider));
        }
        let mut config = verified_by(verifier, certificate.clone(), provider)?;
        config.alpn_protocols = alpn.iter().map(|name| name.clone().into_bytes()).collect();
        Ok(Self {
            config: Arc::new(config),
            alpn: alpn.to_vec(),
            ciphers: ciphers.cloned(),
            roots,
            certificate,
            proof,
        })
    }
}

/// Makes a configuration that verifies the chain against `roots` (the system's when empty) and always the proof,
/// and shows `certificate` (chain, key) if the peer asks for one. Offers no ALPN.
pub fn config(
    roots: &[PathBuf],
    certificate: Option<(&Path, &KeyFile)>,
    proof: Proof,
) -> Result<Arc<ClientConfig>, ClientError> {
    let (roots, certificate) = read(roots, certificate)?;
    from_parts(roots, certificate, proof)
}

fn read(
    roots: &[PathBuf],
    certificate: Option<(&Path, &KeyFile)>,
) -> Result<(Arc<RootCertStore>, Option<Arc<CertifiedKey>>), ClientError> {
    let roots = match roots {
        [] => system_roots()?,
        files => load_roots(files)?,
    };
    let certificate = match certificate {
        Some((chain, key)) => Some(Arc::new(Pair::load(chain, key)?.key)),
        None => None,
    };
    Ok((Arc::new(roots), certificate))
}

/// The same from what is already in memory.
///
/// Sessions are never resumed. A resumed handshake shows the peer's certificate to nobody, so that neither new roots nor
/// an expiry would be noticed; and tunnels are long: a few signatures less are not worth that.
pub fn from_parts(
    roots: Arc<RootCertStore>,
    certificate: Option<Arc<CertifiedKey>>,
    proof: Proof,
) -> Result<Arc<ClientConfig>, ClientError> {
    let verifier = verifier(roots, proof)?;
    let config = verified_by(verifier, certificate, super::provider())?;
    Ok(Arc::new(config))
}

/// What asks for the proof, and remembers the chains that it has found good.
fn verifier(
    roots: Arc<RootCertStore>,
    proof: Proof,
) -> Result<Arc<dyn ServerCertVerifier>, rustls::Error> {
    let verifier = match proof {
        Proof::ServerName => by_name(roots)?,
        proof => Arc::new(Verifier::new(roots, proof)),
    };
    Ok(Arc::new(Known::new(verifier)))
}

/// rustls's own: the chain, the dates and the name (RFC 9525).
fn by_name(roots: Arc<RootCertStore>) -> Result<Arc<dyn ServerCertVerifier>, rustls::Error> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, super::provider()).build();
    verifier
        .map(|verifier| verifier as _)
        .map_err(|error| rustls::Error::General(error.to_string()))
}

fn verified_by(
    verifier: Arc<dyn ServerCertVerifier>,
    certificate: Option<Arc<CertifiedKey>>,
    provider: Arc<CryptoProvider>,
) -> Result<ClientConfig, rustls::Error> {
    let builder = builder(provider)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match certificate {
        Some(pair) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair))),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// What is asked of a peer in one mesh, and shown to it.
pub(super) struct Part {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) certificate: Arc<CertifiedKey>,
    /// Any but [`Proof::ServerName`].
    pub(super) proof: Proof,
}

/// For a peer that is in one of two meshes, the likelier first: all that one of them asks for it must prove, and it is
/// shown the certificate of the one whose roots it names.
pub(super) fn in_one_mesh_of(
    likelier: Part,
    other: Part,
) -> Result<Arc<ClientConfig>, ClientError> {
    let certificates = vec![
        (likelier.roots.subjects(), likelier.certificate),
        (other.roots.subjects(), other.certificate),
    ];
    let verifier = Verifier::new(likelier.roots, likelier.proof).or(other.roots, other.proof);
    let mut config = builder(super::provider())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Known::new(Arc::new(verifier))))
        .with_client_cert_resolver(Arc::new(ByRoots(certificates)));
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn builder(
    provider: Arc<CryptoProvider>,
) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
}

/// The certificate that goes with each set of roots.
#[derive(Debug)]
struct ByRoots(Vec<(Vec<DistinguishedName>, Arc<CertifiedKey>)>);

impl ResolvesClientCert for ByRoots {
    fn resolve(&self, asked: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let is_asked = |roots: &[DistinguishedName]| {
            let mut roots = roots.iter();
            roots.any(|root| asked.contains(&root.as_ref()))
        };
        let known = self.0.iter().find(|(roots, _)| is_asked(roots));
        // A peer need not say whom it trusts (RFC 8446 §4.2.4).
        let (_, certificate) = known.or_else(|| self.0.first())?;
        Some(Arc::clone(certificate))
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

/// For a hello that names nobody, where the proof is another than the name: of an address nothing is said (RFC 6066 §3).
pub fn no_server_name() -> ServerName<'static> {
    ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// The CAs that this system trusts; one at least. Reads a few hundred KiB from the disk.
///
/// Some that cannot be read are passed over: a chain that needs them is refused later, by name.
fn system_roots() -> Result<RootCertStore, ClientError> {
    usable(rustls_native_certs::load_native_certs())
}

fn usable(found: CertificateResult) -> Result<RootCertStore, ClientError> {
    for error in &found.errors {
        // Some of them are not all of them: who trusts those alone refuses good peers until he reads them again.
        if let rustls_native_certs::ErrorKind::Io { inner, path } = &error.kind
            && retry::may_pass(inner)
        {
            return Err(unreadable(path, inner).into());
        }
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if !roots.is_empty() {
        return Ok(roots);
    }
    Err(ClientError::NoSystemRoots(match found.errors.first() {
        Some(error) => format!("this system's trusted CAs cannot be read: {error}"),
        None => "this system has no trusted CAs".to_owned(),
    }))
}

/// Why there can be no TLS to a peer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A file of roots, the chain or its key does not serve.
    #[error(transparent)]
    File(#[from] FileError),
    /// No CA file is named, and the system has none.
    #[error("{0}")]
    NoSystemRoots(String),
    /// The TLS library refused.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
}

impl ClientError {
    /// What to do about it.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::File(error) => error.help.as_deref(),
            Self::NoSystemRoots(_) => Some(
                "install the package ca-certificates, or name the file of the CA that the peer's certificate comes from",
            ),
            Self::Tls(_) => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
