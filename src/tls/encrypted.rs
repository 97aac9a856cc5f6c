//! Encrypted PKCS#8 keys (RFC 5958 §3): what they are encrypted with, how much work that is, and how they are opened.

use std::fmt::Write;

use pkcs8::der::asn1::{AnyRef, ObjectIdentifier};
use pkcs8::der::{Decode, Reader, SliceReader};
use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::pkcs5::pbes2::{Kdf, Parameters};
use pkcs8::spki::AlgorithmIdentifierRef;
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef};
use zeroize::Zeroizing;

use super::key::SecretKey;
use super::passphrase::Passphrase;

/// What is done at most to make a key of a passphrase by PBKDF2.
///
/// 10,000,000: what RFC 8018 §4.2 gives for especially critical keys, and some seconds of one processor. openssl writes
/// 2,048, and OWASP advises 1,300,000 at most.
const MOST_ITERATIONS: u32 = 10_000_000;

/// What scrypt may take of memory, in bytes.
///
/// 256 MiB: sixteen times what openssl writes by itself. A gateway in a small container must outlive its reload.
const MOST_MEMORY: u64 = 256 * 1024 * 1024;

/// How often scrypt may go through that memory. 16: a few seconds; openssl writes 1.
const MOST_LANES: u16 = 16;

/// An encrypted key, of which this program can undo the encryption with a bounded amount of work.
pub(super) struct Encrypted<'a> {
    parameters: Parameters,
    ciphertext: &'a [u8],
}

/// Why a key is not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotOpened {
    /// The passphrase is another one. A file that is damaged where it is encrypted looks the same.
    #[error("the passphrase does not open the key")]
    Passphrase,
    /// It is no `EncryptedPrivateKeyInfo`.
    #[error("the encrypted key is damaged")]
    Damaged,
    /// To try one passphrase is more work than can be meant.
    #[error("the key is encrypted with {0}")]
    Work(String),
    /// It is encrypted with something that is broken, or unknown here.
    #[error("the key is encrypted with {name}, which is not opened here")]
    Algorithm {
        /// What openssl calls it, or its number.
        name: String,
        /// Whether openssl itself opens it only when told to.
        legacy: bool,
    },
}

impl<'a> Encrypted<'a> {
    /// Reads the DER of an `EncryptedPrivateKeyInfo`.
    pub(super) fn read(der: &'a [u8]) -> Result<Self, NotOpened> {
        let read = EncryptedPrivateKeyInfoRef::try_from(der);
        let (parameters, ciphertext) = match read {
            Ok(key) => match key.encryption_algorithm {
                EncryptionScheme::Pbes2(parameters) => (parameters, key.encrypted_data.as_bytes()),
                _ => return Err(foreign(der)),
            },
            Err(_) => return Err(foreign(der)),
        };
        bounded(&parameters.kdf)?;
        Ok(Self {
            parameters,
            ciphertext,
        })
    }

    /// Opens it, which may take seconds.
    pub(super) fn open(&self, passphrase: &Passphrase) -> Result<SecretKey, NotOpened> {
        let mut buffer = Zeroizing::new(self.ciphertext.to_vec());
        let opened = self
            .parameters
            .decrypt_in_place(passphrase.reveal(), &mut buffer);
        let length = opened.map_err(|_| NotOpened::Passphrase)?.len();
        buffer.truncate(length);
        // One wrong passphrase in 256 leaves a padding that is right, and what is no key.
        match PrivateKeyInfoRef::try_from(buffer.as_slice()) {
            Ok(_) => Ok(SecretKey::pkcs8(buffer)),
            Err(_) => Err(NotOpened::Passphrase),
        }
    }
}

/// Refuses what would keep a start or a reload busy for minutes, or take all of the memory.
fn bounded(kdf: &Kdf) -> Result<(), NotOpened> {
    let mut told = String::new();
    match kdf {
        Kdf::Pbkdf2(kdf) if kdf.iteration_count > MOST_ITERATIONS => {
            let _ = write!(
                told,
                "{} iterations of PBKDF2, more than the {MOST_ITERATIONS} that are done here",
                kdf.iteration_count
            );
        }
        Kdf::Scrypt(kdf) => {
            let memory = kdf
                .cost_parameter
                .saturating_mul(u64::from(kdf.block_size))
                .saturating_mul(128);
            if memory > MOST_MEMORY || kdf.parallelization > MOST_LANES {
                let _ = write!(
                    told,
                    "scrypt (N={}, r={}, p={}), which takes more than the {} MiB that are given here, or p above {MOST_LANES}",
                    kdf.cost_parameter,
                    kdf.block_size,
                    kdf.parallelization,
                    MOST_MEMORY >> 20
                );
            }
        }
        _ => {}
    }
    match told.is_empty() {
        true => Ok(()),
        false => Err(NotOpened::Work(told)),
    }
}

/// What a key is encrypted with that cannot be read as one of those that are opened.
fn foreign(der: &[u8]) -> NotOpened {
    match algorithm(der) {
        Some((oid, _)) if known(oid) => NotOpened::Damaged,
        Some((oid, legacy)) => NotOpened::Algorithm {
            name: name(oid).map_or_else(|| format!("the algorithm {oid}"), str::to_owned),
            legacy,
        },
        None => NotOpened::Damaged,
    }
}

/// PBES2 (RFC 8018 §A.4).
const PBES2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.13");

/// The algorithm that nobody here knows: the scheme, or of PBES2 the cipher, the function or the hash in it. And whether
/// openssl has it among its legacy ones.
fn algorithm(der: &[u8]) -> Option<(ObjectIdentifier, bool)> {
    let outer = AnyRef::from_der(der).ok()?;
    let mut reader = SliceReader::new(outer.value()).ok()?;
    let scheme = AlgorithmIdentifierRef::decode(&mut reader).ok()?;
    if scheme.oid != PBES2 {
        return Some((scheme.oid, is_legacy(scheme.oid)));
    }
    let mut parameters = SliceReader::new(scheme.parameters?.value()).ok()?;
    let kdf = AlgorithmIdentifierRef::decode(&mut parameters).ok()?;
    let cipher = AlgorithmIdentifierRef::decode(&mut parameters).ok()?;
    let unknown = [cipher.oid, kdf.oid].into_iter().find(|oid| !known(*oid));
    let oid = unknown.or_else(|| hash(kdf)).unwrap_or(PBES2);
    Some((oid, is_legacy(oid)))
}

/// The hash of PBKDF2, the last of its parameters.
fn hash(kdf: AlgorithmIdentifierRef<'_>) -> Option<ObjectIdentifier> {
    let mut reader = SliceReader::new(kdf.parameters?.value()).ok()?;
    let mut last = None;
    while !reader.is_finished() {
        last = Some(AnyRef::decode(&mut reader).ok()?);
    }
    let mut reader = SliceReader::new(last?.value()).ok()?;
    ObjectIdentifier::decode(&mut reader).ok()
}

fn known(oid: ObjectIdentifier) -> bool {
    const KNOWN: [&str; 13] = [
        "1.2.840.113549.1.5.13",
        "1.2.840.113549.1.5.12",
        "1.3.6.1.4.1.11591.4.11",
        "2.16.840.1.101.3.4.1.2",
        "2.16.840.1.101.3.4.1.22",
        "2.16.840.1.101.3.4.1.42",
        "2.16.840.1.101.3.4.1.6",
        "2.16.840.1.101.3.4.1.46",
        "1.2.840.113549.2.7",
        "1.2.840.113549.2.8",
        "1.2.840.113549.2.9",
        "1.2.840.113549.2.10",
        "1.2.840.113549.2.11",
    ];
    KNOWN.contains(&oid.to_string().as_str())
}

/// What openssl and Java have written, and what opens in minutes or is of no use beside AES.
const FOREIGN: [(&str, &str); 15] = [
    ("1.2.840.113549.3.7", "3DES (DES-EDE3-CBC)"),
    ("1.3.14.3.2.7", "DES (DES-CBC)"),
    ("1.2.840.113549.3.2", "RC2 (RC2-CBC)"),
    ("1.2.840.113549.1.5.1", "DES (PBE-MD2-DES)"),
    ("1.2.840.113549.1.5.3", "DES (PBE-MD5-DES)"),
    ("1.2.840.113549.1.5.4", "RC2 (PBE-MD2-RC2-64)"),
    ("1.2.840.113549.1.5.6", "RC2 (PBE-MD5-RC2-64)"),
    ("1.2.840.113549.1.5.10", "DES (PBE-SHA1-DES)"),
    ("1.2.840.113549.1.5.11", "RC2 (PBE-SHA1-RC2-64)"),
    ("1.2.840.113549.1.12.1.1", "RC4 (PBE-SHA1-RC4-128)"),
    ("1.2.840.113549.1.12.1.2", "RC4 (PBE-SHA1-RC4-40)"),
    ("1.2.840.113549.1.12.1.3", "3DES (PBE-SHA1-3DES)"),
    ("1.2.840.113549.1.12.1.4", "3DES (PBE-SHA1-2DES)"),
    ("1.2.840.113549.1.12.1.5", "RC2 (PBE-SHA1-RC2-128)"),
    ("1.2.840.113549.1.12.1.6", "RC2 (PBE-SHA1-RC2-40)"),
];

fn name(oid: ObjectIdentifier) -> Option<&'static str> {
    let text = oid.to_string();
    let found = FOREIGN.iter().find(|(number, _)| *number == text);
    found.map(|(_, name)| *name)
}

/// Whether openssl 3 opens it with its legacy provider only: all that is neither AES nor 3DES.
fn is_legacy(oid: ObjectIdentifier) -> bool {
    name(oid).is_some_and(|name| !name.starts_with("3DES"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
