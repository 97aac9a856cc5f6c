//! The edge certificates, indexed by the names they prove.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};

use crate::name::{HostName, HostPattern};
use crate::tls::files::Certificate;

/// The certificates of a gateway. For one name: exact before wildcard, then the longest-lived, RSA beside ECDSA. For no name
/// at all: those that are written down for that.
#[derive(Debug, Default)]
pub struct Certificates {
    all: Vec<Arc<Certificate>>,
    exact: HashMap<Box<str>, Vec<Arc<Certificate>>>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Vec<Arc<Certificate>>>,
    nameless: Vec<Arc<Certificate>>,
}

impl Certificates {
    /// Indexes certificates; those without a usable name are left out.
    pub fn new(certificates: Vec<Certificate>) -> Self {
        let mut index = Self::default();
        for certificate in certificates.into_iter().map(Arc::new) {
            let mut usable = false;
            for name in &certificate.names {
                let candidates = match name {
                    HostPattern::Exact(name) => index.exact.entry(name.as_str().into()),
                    HostPattern::Wildcard(parent) => index.wildcard.entry(parent.as_str().into()),
                    HostPattern::Any | HostPattern::Never(_) => continue,
                };
                candidates.or_default().push(Arc::clone(&certificate));
                usable = true;
            }
            if usable {
                if certificate.nameless {
                    index.nameless.push(Arc::clone(&certificate));
                }
                index.all.push(certificate);
            }
        }
        index
    }

    /// Whether it holds these certificates and no others: their chains, which tell of their keys too, from the same files.
    pub fn holds(&self, certificates: &[Certificate]) -> bool {
        let same = |(one, other): (&Arc<Certificate>, &Certificate)| {
            one.source == other.source
                && one.key.cert == other.key.cert
                && one.nameless == other.nameless
        };
        self.all.len() == certificates.len() && self.all.iter().zip(certificates).all(same)
    }

    /// Whether any certificate proves this name, or is for clients that name nobody; valid now or not.
    pub fn covers(&self, name: Option<&HostName>) -> bool {
        self.candidates(name).next().is_some()
    }

    /// Every certificate, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.all.iter()
    }

    /// The best certificate for a name, or for none, that a client with these signature schemes can check.
    ///
    /// Those valid at `now` come first, then those that list the name itself, then ECDSA and Ed25519 (faster to sign,
    /// smaller to send) before RSA, then the longest-lived. So neither a forgotten, expired certificate nor one of a kind
    /// that the client cannot check hides one that would serve.
    pub fn choose(
        &self,
        name: Option<&HostName>,
        schemes: &[SignatureScheme],
        now: SystemTime,
    ) -> Option<&Arc<Certificate>> {
        self.candidates(name)
            .filter(|(_, certificate)| certificate.key.key.choose_scheme(schemes).is_some())
            .min_by_key(|(place, certificate)| {
                let valid = (certificate.not_before..=certificate.not_after).contains(&now);
                let rsa = certificate.key.key.algorithm() == SignatureAlgorithm::RSA;
                (!valid, *place, rsa, Reverse(certificate.not_after))
            })
            .map(|(_, certificate)| certificate)
    }

    /// The certificates that prove a name, or those for no name. A `*` stands for one label (RFC 6125 §6.4.3).
    fn candidates(
        &self,
        name: Option<&HostName>,
    ) -> impl Iterator<Item = (Place, &Arc<Certificate>)> {
        let exact = match name {
            Some(name) => self.exact.get(name.as_str()),
            None => Some(&self.nameless),
        };
        let parent = name.and_then(HostName::parent);
        let wildcard = parent.and_then(|parent| self.wildcard.get(parent));
        let exact = exact.into_iter().flatten().map(|one| (Place::Exact, one));
        exact.chain(
            wildcard
                .into_iter()
                .flatten()
                .map(|one| (Place::Wildcard, one)),
        )
    }
}

/// Where a certificate lists a name; the better first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Exact,
    Wildcard,
}

impl ResolvesServerCert for Certificates {
    /// The name is parsed as for the look-up of the route, so that both mean the same host.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(HostName::parse).transpose().ok()?;
        let chosen = self.choose(name.as_ref(), hello.signature_schemes(), SystemTime::now())?;
        Some(Arc::clone(&chosen.key))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
