//! Private keys: where each is, what opens it if it is encrypted, and the memory that they stand in.

use std::fmt;
use std::path::{Path, PathBuf};

use rustls_pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use zeroize::{Zeroize, Zeroizing};

use super::encrypted::{Encrypted, NotOpened};
use super::passphrase::{Passphrase, Source};
use super::pem::{FileError, shell_word};
use super::sections::{Malformed, Section};

/// A PEM file with a private key, and what opens it if it is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// The file.
    pub path: PathBuf,
    /// Where the passphrase comes from. It is not asked for a key that is not encrypted.
    pub passphrase: Source,
}

/// With no passphrase: an encrypted one is refused.
impl<P: Into<PathBuf>> From<P> for KeyFile {
    fn from(path: P) -> Self {
        Self {
            path: path.into(),
            passphrase: Source::default(),
        }
    }
}

impl KeyFile {
    /// Takes a key that was read from this file, and opens it if it is encrypted.
    pub(super) fn open(&self, key: &Key) -> Result<SecretKey, FileError> {
        match key {
            Key::Plain(key) => Ok(key.clone()),
            Key::Traditional => Err(traditional(&self.path)),
            Key::Encrypted(der) => {
                let encrypted = Encrypted::read(der).map_err(|not| not.told(&self.path))?;
                let open = |passphrase: &Passphrase| encrypted.open(passphrase);
                self.passphrase.open(&self.path, open)
            }
        }
    }
}

/// A private key in DER; its memory is overwritten when it is dropped.
pub(super) struct SecretKey(PrivateKeyDer<'static>);

impl SecretKey {
    /// Takes the DER of a `PrivateKeyInfo` (RFC 5208 §5).
    pub(super) fn pkcs8(mut der: Zeroizing<Vec<u8>>) -> Self {
        Self(PrivatePkcs8KeyDer::from(std::mem::take(&mut *der)).into())
    }

    pub(super) fn der(&self) -> &PrivateKeyDer<'static> {
        &self.0
    }
}

impl Clone for SecretKey {
    fn clone(&self) -> Self {
        Self(self.0.clone_key())
    }
}

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MASKED")
    }
}

/// A private key as it stands in a PEM text.
#[derive(Debug)]
pub(super) enum Key {
    /// PKCS#8, PKCS#1 or SEC 1.
    Plain(SecretKey),
    /// The DER of an `EncryptedPrivateKeyInfo` (RFC 5208 §6).
    Encrypted(Vec<u8>),
    /// Encrypted as openssl did before PKCS#8.
    Traditional,
}

impl Key {
    /// Reads a section whose label ends with `PRIVATE KEY`; `None` if it is of a form that TLS does not use.
    pub(super) fn of(section: &Section<'_>) -> Result<Option<Self>, Malformed> {
        // RFC 1421 §4.6.1.1, as openssl's old key files have it.
        if section.body.trim_ascii_start().starts_with(b"Proc-Type:") {
            return Ok(Some(Self::Traditional));
        }
        let mut der = match section.label {
            b"PRIVATE KEY" | b"RSA PRIVATE KEY" | b"EC PRIVATE KEY" | b"ENCRYPTED PRIVATE KEY" => {
                section.decode()?
            }
            _ => return Ok(None),
        };
        let mut taken = || std::mem::take(&mut *der);
        Ok(Some(match section.label {
            b"ENCRYPTED PRIVATE KEY" => Self::Encrypted(taken()),
            b"RSA PRIVATE KEY" => Self::Plain(SecretKey(PrivatePkcs1KeyDer::from(taken()).into())),
            b"EC PRIVATE KEY" => Self::Plain(SecretKey(PrivateSec1KeyDer::from(taken()).into())),
            _ => Self::Plain(SecretKey::pkcs8(der)),
        }))
    }
}

/// What a key is told that is encrypted in the old way.
pub(super) fn traditional(path: &Path) -> FileError {
    FileError::new(
        path,
        "the key is encrypted in openssl's old way (`Proc-Type: 4,ENCRYPTED`), in which a passphrase can be tried millions of times a second",
        converted(path),
    )
}

/// The line that encrypts a key as it is opened here.
pub(super) fn converted(path: &Path) -> String {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let (path, new) = (shell_word(path), shell_word(Path::new(&new)));
    format!("convert it: openssl pkcs8 -topk8 -in {path} -out {new}")
}

impl NotOpened {
    /// The same of the key in this file.
    pub(super) fn told(&self, path: &Path) -> FileError {
        let help = match self {
            Self::Passphrase => {
                "is it the passphrase of this very key? try it: openssl pkey -noout -in ".to_owned()
                    + &shell_word(path)
            }
            Self::Damaged => "the file was cut or edited: write it again".to_owned(),
            Self::Work(_) => converted(path),
            Self::Algorithm { legacy: false, .. } => converted(path),
            Self::Algorithm { legacy: true, .. } => {
                converted(path) + " -provider legacy -provider default"
            }
        };
        FileError::new(path, self.to_string(), help)
    }
}
