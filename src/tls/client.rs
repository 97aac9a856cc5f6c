//! `ClientConfig`s: for the upstreams of the gateway, and for `portcullis connect`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};

use super::files::{FileError, Pair, load_roots};

/// Makes a configuration that verifies the chain against `roots` (the system's when empty) and always the name,
/// and shows `certificate` (chain, key) if the peer asks for one. Offers no ALPN.
pub fn config(
    roots: &[PathBuf],
    certificate: Option<(&Path, &Path)>,
) -> Result<Arc<ClientConfig>, ClientError> {
    let roots = match roots {
        [] => system_roots()?,
        files => load_roots(files)?,
    };
    let certificate = match certificate {
        Some((chain, key)) => Some(Arc::new(Pair::load(chain, key)?.key)),
        None => None,
    };
    from_parts(Arc::new(roots), certificate)
}

/// The same from what is already in memory.
///
/// Sessions are never resumed. A resumed handshake shows the peer's certificate to nobody, so that neither new roots nor
/// an expiry would be noticed; and tunnels are long: a few signatures less are not worth that.
pub fn from_parts(
    roots: Arc<RootCertStore>,
    certificate: Option<Arc<CertifiedKey>>,
) -> Result<Arc<ClientConfig>, ClientError> {
    let builder = ClientConfig::builder_with_provider(super::provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match certificate {
        Some(pair) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair))),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The CAs that this system trusts; one at least. Reads a few hundred KiB from the disk.
///
/// Some that cannot be read are passed over: a chain that needs them is refused later, by name.
pub fn system_roots() -> Result<RootCertStore, ClientError> {
    let found = rustls_native_certs::load_native_certs();
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
