//! The gateway's identity in a mesh, and what verifies the services it dials there.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore};

use super::client::{self, ClientError, Part};
use super::files::{FileError, add_roots, certify, parse, validity};
use super::names::Names;
use super::pem::Pem;
use super::verify::Proof;
use crate::name::{NameError, SpiffeId};

/// A certificate of a mesh, with the roots that the mesh trusts at the same time.
#[derive(Clone)]
pub struct Identity {
    /// Who we are.
    pub id: SpiffeId,
    /// The certificate and whatever else leads to a root, as the CA sent it, and the key.
    pub certificate: Arc<CertifiedKey>,
    /// Every root that is listed, active or not: during a rotation certificates of both are about.
    pub roots: Arc<RootCertStore>,
    /// When the certificate ends.
    pub not_after: SystemTime,
    /// The last one in another trust domain, as long as it is good: the mesh was made anew, and sidecars of before that
    /// still run know no other.
    pub former: Option<Arc<Identity>>,
}

impl Identity {
    /// A certificate among these roots.
    pub fn new(leaf: &Leaf, roots: Arc<RootCertStore>) -> Self {
        Self {
            id: leaf.id.clone(),
            certificate: Arc::clone(&leaf.certificate),
            roots,
            not_after: leaf.not_after,
            former: None,
        }
    }

    /// What dials a service that must prove to be `peer`: our certificate is shown, its chain must lead to one of the
    /// roots, and its one URI must equal the ID. No ALPN is offered, and no session resumed.
    pub fn client_config(&self, peer: &SpiffeId) -> Result<Arc<ClientConfig>, ClientError> {
        let part = self.part(peer);
        client::from_parts(part.roots, Some(part.certificate), part.proof)
    }

    /// The same for a service that may be one of the former mesh: then it must prove to be `former_peer`, under the roots
    /// of there, and is shown our certificate of there.
    pub fn client_config_with_former(
        &self,
        peer: &SpiffeId,
        former: &Self,
        former_peer: &SpiffeId,
    ) -> Result<Arc<ClientConfig>, ClientError> {
        client::in_one_mesh_of(self.part(peer), former.part(former_peer))
    }

    fn part(&self, peer: &SpiffeId) -> Part {
        Part {
            roots: Arc::clone(&self.roots),
            certificate: Arc::clone(&self.certificate),
            proof: Proof::Spiffe(peer.clone()),
        }
    }
}

/// Without the certificate, which has the key beside it.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("id", &self.id)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// A certificate that a mesh's CA has issued to us, with its key (X.509-SVID).
#[derive(Clone)]
pub struct Leaf {
    /// Who it says we are: its one URI.
    pub id: SpiffeId,
    /// The certificate, whatever else leads to a root, and the key.
    pub certificate: Arc<CertifiedKey>,
    /// When it begins.
    pub not_before: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
    /// Chain and key as they came, to be kept.
    pub text: Arc<LeafText>,
}

/// The PEM of a [`Leaf`]. It has no `Debug`: the key is in it.
#[derive(PartialEq, Eq)]
pub struct LeafText {
    /// The chain, its own certificate first.
    pub chain: String,
    /// The key.
    pub key: String,
}

/// PEM that came from elsewhere than a file. It may be a key: it has no `Debug`.
#[derive(Clone, Copy)]
pub struct PemText<'a> {
    /// What stands for it in messages.
    pub source: &'a str,
    /// The text.
    pub text: &'a str,
}

impl Leaf {
    /// Takes a chain, its own certificate first, and its key (SEC 1, PKCS#1 or PKCS#8). They are checked to belong
    /// together; whether the time is right, the caller judges.
    pub fn from_pem(chain: PemText<'_>, key: PemText<'_>) -> Result<Self, LeafError> {
        let text = LeafText {
            chain: chain.text.to_owned(),
            key: key.text.to_owned(),
        };
        let (chain_source, key_source) = (Path::new(chain.source), Path::new(key.source));
        let chain = Pem::parse(chain.text.as_bytes(), chain_source)?;
        let key = Pem::parse(key.text.as_bytes(), key_source)?;
        let pair = certify(
            chain.certificates()?,
            key.plain_key()?,
            chain_source,
            key_source,
        )?;
        let own = pair.cert.first().ok_or(LeafError::Unreadable)?;
        let (not_before, not_after) = parse(own)
            .map(|own| validity(&own))
            .ok_or(LeafError::Unreadable)?;
        let names = Names::of(own).ok_or(LeafError::Unreadable)?;
        let uri = names.only_uri();
        let uri = uri.ok_or_else(|| LeafError::NotOneUri(names.to_string()))?;
        Ok(Self {
            id: SpiffeId::parse(uri)?,
            certificate: Arc::new(pair),
            not_before,
            not_after,
            text: Arc::new(text),
        })
    }
}

/// Without the certificate, which has the key beside it.
impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf")
            .field("id", &self.id)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Why a certificate gives no identity.
#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    /// The chain or the key does not serve, or they do not belong together.
    #[error("{0}")]
    Pem(#[from] FileError),
    /// It cannot be read whole.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// It has no URI, or several; what it has instead, escaped.
    #[error("the certificate must hold one URI, and holds {0}")]
    NotOneUri(String),
    /// Its URI is no SPIFFE ID.
    #[error("{0}")]
    NoId(#[from] NameError),
}

/// The roots among some PEM texts, and what is wrong with those of them that hold none: the others are trusted still.
pub fn roots<'a>(texts: impl IntoIterator<Item = PemText<'a>>) -> (RootCertStore, Vec<FileError>) {
    let (mut roots, mut errors) = (RootCertStore::empty(), Vec::new());
    for PemText { source, text } in texts {
        let source = Path::new(source);
        let added =
            Pem::parse(text.as_bytes(), source).and_then(|pem| add_roots(&pem, source, &mut roots));
        errors.extend(added.err());
    }
    (roots, errors)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
