//! `ClientConfig`s: for the upstreams of the gateway, and for `portcullis connect`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, ConfigBuilder, DistinguishedName, RootCertStore, SignatureScheme, WantsVerifier,
};
use rustls_native_certs::CertificateResult;
use rustls_pki_types::ServerName;

use super::files::{FileError, Pair, load_roots};
use super::key::KeyFile;
use super::known::Known;
use super::pem::unreadable;
use super::verify::{Proof, Verifier};
use crate::retry;

mod person;
mod witness;

pub use person::{Trust, person, witnessed};
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
}

impl Made {
    /// As [`config`] makes it, but that it offers these protocols; or one of those, if it was made from the same: with it go the chains that it has verified.
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
        previous: impl IntoIterator<Item = &'a Self>,
    ) -> Result<Self, ClientError> {
        let (roots, certificate) = read(roots, certificate)?;
        let chain = |certificate: &Option<Arc<CertifiedKey>>| {
            certificate.as_ref().map(|key| key.cert.clone())
        };
        let same = |made: &&Self| {
            made.proof == proof
                && made.alpn == alpn
                && made.roots.roots == roots.roots
                && chain(&made.certificate) == chain(&certificate)
        };
        if let Some(same) = previous.into_iter().find(same) {
            return Ok(same.clone());
        }
        let config = from_parts(Arc::clone(&roots), certificate.clone(), proof.clone())?;
        let mut config = Arc::unwrap_or_clone(config);
        config.alpn_protocols = alpn.iter().map(|name| name.clone().into_bytes()).collect();
        Ok(Self {
            config: Arc::new(config),
            alpn: alpn.to_vec(),
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
    let verifier = match proof {
        Proof::ServerName => by_name(roots)?,
        proof => Arc::new(Verifier::new(roots, proof)),
    };
    let verifier = Arc::new(Known::new(verifier));
    Ok(Arc::new(verified_by(verifier, certificate)?))
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
) -> Result<ClientConfig, rustls::Error> {
    let builder = builder()?
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
    let mut config = builder()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Known::new(Arc::new(verifier))))
        .with_client_cert_resolver(Arc::new(ByRoots(certificates)));
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(super::provider()).with_safe_default_protocol_versions()
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
mod tests {
    use rustls::{AlertDescription, CertificateError, Error, HandshakeKind, ServerConfig};

    use super::super::options::{ClientAuth, Options};
    use super::super::server::ServerPolicy;
    use super::super::test_certs::{Ca, Handshake, Issued, handshake, write};
    use super::*;

    const NAME: &str = "db.example.com";

    /// A peer with this certificate, which asks for one if `clients` is a CA file.
    fn peer(certificate: &Issued, clients: Option<PathBuf>) -> Arc<ServerConfig> {
        let options = Options {
            client_auth: clients.map_or(ClientAuth::None, |file| ClientAuth::Required(vec![file])),
            ..Options::default()
        };
        let resolver = Arc::new(SingleCertAndKey::from(certificate.certified_key()));
        Arc::clone(
            ServerPolicy::new(&options, resolver, None)
                .unwrap()
                .config(&[]),
        )
    }

    fn meet(client: &Arc<ClientConfig>, name: &str, peer: &Arc<ServerConfig>) -> Handshake {
        handshake(client, name, |_| Arc::clone(peer))
    }

    /// CVE-2025-66491 of Traefik: a switch for verification that meant its opposite.
    #[test]
    fn a_peer_is_verified_against_the_roots_named_and_by_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let ca = Ca::new("ca");
        let roots = write(directory.path(), "ca.pem", ca.pem());
        let client = config(&[roots], None, Proof::ServerName).unwrap();
        assert!(meet(&client, NAME, &peer(&ca.issue(&[NAME]), None)).is_ok());

        let stranger = Ca::new("ca").issue(&[NAME]);
        let refused = meet(&client, NAME, &peer(&stranger, None)).client_result;
        assert!(
            matches!(refused, Err(Error::InvalidCertificate(_))),
            "{refused:?}"
        );

        let refused = meet(
            &client,
            "other.example.com",
            &peer(&ca.issue(&[NAME]), None),
        );
        assert!(matches!(
            refused.client_result,
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForNameContext { .. }
            ))
        ));
    }

    #[test]
    fn an_expired_peer_is_refused() {
        let ca = Ca::new("ca");
        let mut request = ca.request(&[NAME]);
        request.not_after = request.not_before;
        let refused = meet(
            &from_parts(ca.roots(), None, Proof::ServerName).unwrap(),
            NAME,
            &peer(&request.issue(), None),
        );
        assert!(matches!(
            refused.client_result,
            Err(Error::InvalidCertificate(
                CertificateError::ExpiredContext { .. }
            ))
        ));
    }

    #[test]
    fn a_certificate_is_shown_to_a_peer_that_asks_even_one_without_a_host_name() {
        let directory = tempfile::tempdir().unwrap();
        let (servers, clients) = (Ca::new("servers"), Ca::new("clients"));
        let roots = [write(directory.path(), "servers.pem", servers.pem())];
        let peer = peer(
            &servers.issue(&[NAME]),
            Some(write(directory.path(), "clients.pem", clients.pem())),
        );
        let laptop = clients.issue(&[]);
        let (chain, key) = laptop.write(directory.path(), "laptop");

        let shown = meet(
            &config(&roots, Some((&chain, &key.into())), Proof::ServerName).unwrap(),
            NAME,
            &peer,
        );
        assert!(shown.is_ok(), "{:?}", shown.server_result);
        assert_eq!(
            shown.server.unwrap().peer_certificates(),
            Some(&laptop.chain[..])
        );

        let missing = meet(
            &config(&roots, None, Proof::ServerName).unwrap(),
            NAME,
            &peer,
        );
        let alert = Error::AlertReceived(AlertDescription::CertificateRequired);
        assert_eq!(missing.client_result, Err(alert));
    }

    #[test]
    fn nothing_is_resumed_and_no_protocol_is_offered() {
        let ca = Ca::new("ca");
        let client = from_parts(ca.roots(), None, Proof::ServerName).unwrap();
        let peer = peer(&ca.issue(&[NAME]), None);
        for _ in 0..2 {
            let handshake = meet(&client, NAME, &peer);
            assert!(handshake.is_ok());
            assert_ne!(
                handshake.client.handshake_kind(),
                Some(HandshakeKind::Resumed)
            );
        }
        assert!(client.alpn_protocols.is_empty());
    }

    #[test]
    fn a_file_that_does_not_serve_is_named_with_its_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let ca = Ca::new("ca");
        let roots = write(directory.path(), "ca.pem", ca.pem());
        let (chain, key) = ca.issue(&[NAME]).write(directory.path(), "laptop");
        let error = config(
            std::slice::from_ref(&roots),
            Some((&key, &KeyFile::from(chain))),
            Proof::ServerName,
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{}: this is a key, not a certificate", key.display())
        );
        assert_eq!(error.help(), Some("are the chain and the key swapped?"));
        let error = config(&[key], None, Proof::ServerName).unwrap_err();
        assert!(matches!(error, ClientError::File(_)));
    }

    #[test]
    fn a_system_without_trusted_cas_is_an_error_and_not_a_client_that_trusts_nobody() {
        let error = usable(CertificateResult::default()).unwrap_err();
        assert_eq!(error.to_string(), "this system has no trusted CAs");
        assert!(
            error
                .help()
                .unwrap()
                .contains("install the package ca-certificates")
        );
        let mut found = CertificateResult::default();
        found.certs.extend(Ca::new("ca").issue(&[NAME]).chain);
        assert_eq!(usable(found).unwrap().len(), 2);
    }
}
