//! The `ClientConfig` of `portcullis connect`: whom a person trusts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;

use super::super::files::{Pair, load_roots};
use super::super::key::KeyFile;
use super::super::pin::{ByKey, Pin};
use super::witness::{Witness, Witnessed};
use super::{ClientError, by_name, system_roots, verified_by};

/// Whom a person's client takes for the server. The default trusts the system's CAs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// PEM files with the CAs that its chain must lead to. Empty: the system's, or none at all if a key is pinned.
    pub roots: Vec<PathBuf>,
    /// If not empty, its key must be one of these. Without `roots` that stands for the chain; name and dates are verified.
    pub pins: Vec<Pin>,
    /// Nothing is asked of it, and all else here is passed over.
    pub insecure: bool,
}

/// Makes a configuration for one connection of a person's: it verifies what `trust` says, and the name unless that is
/// insecure; shows `certificate` (chain, key) if it is asked for, and offers these protocols. What the server shows in a
/// handshake by it is noted by `witness`, also where that fails.
///
/// The system's CAs are read only where they are needed.
///
/// # Errors
/// A file that is named, or the system's CAs, do not serve.
pub fn person(
    trust: &Trust,
    certificate: Option<(&Path, &KeyFile)>,
    alpn: &[Vec<u8>],
    witness: &Arc<Witness>,
) -> Result<Arc<ClientConfig>, ClientError> {
    let certificate = match certificate {
        Some((chain, key)) => Some(Arc::new(Pair::load(chain, key)?.key)),
        None => None,
    };
    let verifier = Arc::new(Witnessed::new(verifier(trust)?, witness));
    let mut config = verified_by(verifier, None, super::super::provider())?;
    config.client_auth_cert_resolver = Arc::new(Witnessed::new(certificate, witness));
    config.alpn_protocols = alpn.to_vec();
    Ok(Arc::new(config))
}

fn verifier(trust: &Trust) -> Result<Arc<dyn ServerCertVerifier>, ClientError> {
    let roots = match trust.roots.as_slice() {
        _ if trust.insecure => None,
        [] if !trust.pins.is_empty() => None,
        [] => Some(system_roots()?),
        files => Some(load_roots(files)?),
    };
    let chain: Option<Arc<dyn ServerCertVerifier>> = match roots {
        Some(roots) => Some(by_name(Arc::new(roots))?),
        None => None,
    };
    Ok(match (chain, trust.pins.as_slice()) {
        _ if trust.insecure => Arc::new(ByKey::Anybody),
        (Some(chain), []) => chain,
        (chain, pins) => Arc::new(ByKey::Pinned(pins.to_vec(), chain)),
    })
}
