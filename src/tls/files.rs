//! Certificates, keys and roots read from PEM files, and what is wrong with them when they do not serve.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::time::ASN1Time;

use crate::name::HostPattern;

use super::key::{Key, KeyFile, SecretKey};
pub use super::pem::FileError;
use super::pem::Pem;
pub(crate) use super::pem::{missing, shell_word};

/// A certificate with its key, checked to belong together, and what a choice among certificates needs.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The names it proves: its DNS SANs, one at least. Never `Any` or `Never`.
    pub names: Vec<HostPattern>,
    /// Whether it is for clients that name no host as well. Default: false.
    pub nameless: bool,
    /// When it ends. It is loaded even if that is past: clients refuse it, and they can say so.
    pub not_after: SystemTime,
    /// When it begins.
    pub not_before: SystemTime,
    /// The chain and the signer.
    pub key: Arc<CertifiedKey>,
    /// The file that the chain came from, for messages.
    pub source: PathBuf,
    /// What serves but should be mended, each with the file it is about.
    pub warnings: Vec<String>,
}

impl Certificate {
    /// Reads a chain and its key, and checks that they belong together. Both may stand in one file. An encrypted key is
    /// opened, which may ask for its passphrase, and takes seconds.
    pub fn load(chain: &Path, key: &KeyFile) -> Result<Self, FileError> {
        let pair = Pair::load(chain, key)?;
        let mut certificate = Self::new(pair.key, chain)?;
        certificate.warnings.splice(..0, pair.warnings);
        Ok(certificate)
    }

    /// Reads the names and the validity of a chain that is already in memory; `source` stands for it in messages.
    pub fn new(key: CertifiedKey, source: &Path) -> Result<Self, FileError> {
        let leaf = key.cert.first().ok_or_else(|| not_a_certificate(source))?;
        let leaf = parse(leaf).ok_or_else(|| not_a_certificate(source))?;
        let names = dns_names(&leaf);
        if names.is_empty() {
            return Err(FileError::new(
                source,
                "the certificate names no host: none of its subject alternative names is a usable DNS name",
                "have it issued with subjectAltName=DNS:HOST; the common name is not read, by clients neither",
            ));
        }
        let (not_before, not_after) = validity(&leaf);
        let warnings = leaf.is_ca().then(|| {
            format!(
                "{}: the certificate is a CA's; many clients refuse it as a server's",
                source.display()
            )
        });
        Ok(Self {
            names,
            nameless: false,
            not_after,
            not_before,
            warnings: warnings.into_iter().collect(),
            key: Arc::new(key),
            source: source.to_owned(),
        })
    }
}

/// Reads the CA certificates of some PEM files; at least one each.
pub fn load_roots(files: &[PathBuf]) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for path in files {
        add_roots(&Pem::read(path)?, path, &mut roots)?;
    }
    Ok(roots)
}

/// Adds every certificate of a PEM; at least one.
pub(super) fn add_roots(
    pem: &Pem,
    source: &Path,
    roots: &mut RootCertStore,
) -> Result<(), FileError> {
    for (index, certificate) in pem.certificates()?.iter().enumerate() {
        roots.add(certificate.clone()).map_err(|error| {
            let message = format!("certificate {} in it cannot be trusted: {error}", index + 1);
            FileError::new(
                source,
                message,
                "name a file of CA certificates (X.509 version 3)",
            )
        })?;
    }
    Ok(())
}

/// What a chain that the process shows to those whom it dials says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnCertificate {
    /// The file that the chain came from.
    pub source: PathBuf,
    /// When its certificate begins.
    pub not_before: SystemTime,
    /// When it ends. It is loaded even if that is past: who is shown it refuses it, and can say so.
    pub not_after: SystemTime,
    /// Whether it may be a client's (`extendedKeyUsage`, RFC 5280 §4.2.1.12): whoever verifies refuses it otherwise.
    pub is_for_clients: bool,
}

/// A chain and its key, whatever they are for: a client's certificate needs no name.
pub struct Pair {
    /// The chain and the signer.
    pub key: CertifiedKey,
    /// What it says of itself.
    pub own: OwnCertificate,
    /// What serves but should be mended, each with the file it is about.
    pub warnings: Vec<String>,
}

impl Pair {
    /// Whether a chain and its key would load, for a person who has not been asked for a passphrase: a key that needs one is
    /// not opened, and whether it belongs to the chain is not known.
    pub fn check(chain: &Path, key: &Path) -> Result<(), FileError> {
        match Pem::read_with_key(key)?.key()? {
            Key::Encrypted(_) => Pem::read(chain)?.certificates().map(drop),
            Key::Plain(_) | Key::Traditional => Self::load(chain, &KeyFile::from(key)).map(drop),
        }
    }

    /// Reads a chain and its key, and checks that they belong together, as [`Certificate::load`] does.
    pub fn load(chain: &Path, key: &KeyFile) -> Result<Self, FileError> {
        let key_pem = Pem::read_with_key(&key.path);
        let apart = (chain != key.path).then(|| Pem::read(chain)).transpose()?;
        let key_pem = key_pem?;
        let chain_pem = apart.as_ref().unwrap_or(&key_pem);
        let certificates = chain_pem.certificates()?;
        let opened = key.open(key_pem.key()?)?;
        let pair = certify(certificates, &opened, chain, &key.path)?;
        let mut warnings = Vec::new();
        if apart.is_some() && chain_pem.holds_key() {
            warnings.push(format!(
                "{}: holds a private key too, which is not used",
                chain.display()
            ));
        }
        let leaf = pair.cert.first().and_then(parse);
        let leaf = leaf.ok_or_else(|| not_a_certificate(chain))?;
        let (not_before, not_after) = validity(&leaf);
        let own = OwnCertificate {
            source: chain.to_owned(),
            not_before,
            not_after,
            is_for_clients: is_for_clients(&leaf),
        };
        Ok(Self {
            key: pair,
            own,
            warnings,
        })
    }
}

/// Puts a chain and its key together. Half of a rotation (a new chain with the old key) ends here.
pub(super) fn certify(
    chain: &[CertificateDer<'static>],
    key: &SecretKey,
    chain_path: &Path,
    key_path: &Path,
) -> Result<CertifiedKey, FileError> {
    if let Some(index) = chain
        .iter()
        .position(|certificate| parse(certificate).is_none())
    {
        let message = format!(
            "section {} of the chain is not an X.509 certificate",
            index + 1
        );
        return Err(FileError::new(
            chain_path,
            message,
            "the file was cut or edited: write it again",
        ));
    }
    // As the provider would, which wants a copy for itself.
    let signer = any_supported_type(key.der()).map_err(|_| {
        FileError::new(
            key_path,
            "the key is damaged, or of a kind that TLS does not use",
            "use an ECDSA (P-256, P-384, P-521), Ed25519 or RSA (2048 to 8192 bits) key",
        )
    })?;
    let pair = CertifiedKey::new(chain.to_vec(), Arc::clone(&signer));
    if pair.keys_match().is_ok() {
        return Ok(pair);
    }
    let own = chain.iter().position(|one| {
        CertifiedKey::new(vec![one.clone()], Arc::clone(&signer))
            .keys_match()
            .is_ok()
    });
    Err(match own {
        Some(index) => FileError::new(
            chain_path,
            format!(
                "the certificate of the key is number {} in the chain, not the first",
                index + 1
            ),
            "put the server's own certificate first, then each one's issuer",
        ),
        None => FileError::new(
            key_path,
            format!(
                "the key does not belong to the certificate in {}",
                chain_path.display()
            ),
            "name the key that the certificate was requested with; if they were just renewed, write both, then reload",
        ),
    })
}

pub(super) fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    match x509_parser::parse_x509_certificate(certificate) {
        Ok(([], parsed)) => Some(parsed),
        _ => None,
    }
}

fn not_a_certificate(path: &Path) -> FileError {
    FileError::new(
        path,
        "does not begin with an X.509 certificate",
        "the file was cut or edited: write it again",
    )
}

/// The usable DNS SANs, each once. Addresses and `*` alone prove no name that a client can ask for.
fn dns_names(leaf: &X509Certificate<'_>) -> Vec<HostPattern> {
    let Ok(Some(extension)) = leaf.subject_alternative_name() else {
        return Vec::new();
    };
    let mut names = Vec::new();
    for name in &extension.value.general_names {
        let GeneralName::DNSName(text) = name else {
            continue;
        };
        match HostPattern::parse(text) {
            Ok(pattern @ (HostPattern::Exact(_) | HostPattern::Wildcard(_)))
                if !names.contains(&pattern) =>
            {
                names.push(pattern);
            }
            _ => {}
        }
    }
    names
}

/// One that names no use is for any.
fn is_for_clients(leaf: &X509Certificate<'_>) -> bool {
    let uses = leaf.extended_key_usage().ok().flatten();
    uses.is_none_or(|uses| uses.value.any || uses.value.client_auth)
}

/// When the first certificate of a chain begins and ends, if this file holds one now.
pub fn validity_of(chain: &Path) -> Option<(SystemTime, SystemTime)> {
    let pem = Pem::read(chain).ok()?;
    let first = pem.certificates().ok()?.first()?;
    parse(first).map(|certificate| validity(&certificate))
}

/// When a certificate begins and ends.
pub(super) fn validity(certificate: &X509Certificate<'_>) -> (SystemTime, SystemTime) {
    let validity = certificate.validity();
    (
        system_time(validity.not_before),
        system_time(validity.not_after),
    )
}

/// Times before 1970 become 1970: nothing that old is still meant.
fn system_time(time: ASN1Time) -> SystemTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
