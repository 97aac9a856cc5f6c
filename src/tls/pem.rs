//! PEM, from files read whole and bounded or from memory: taken apart, and described when it does not hold what was asked for.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject, SectionKind};

use super::key::{Key, SecretKey};
use super::sections::{Malformed, sections};
use crate::retry;

mod foreign;
mod reading;

use foreign::not_pem;
use reading::read_exposed;
pub(super) use reading::{read_bounded, read_private};

/// In bytes. Room for a bundle of every public CA (250 KiB), not for a disk image named by mistake.
const MAX_FILE_SIZE: u64 = 1024 * 1024;

/// A file, or a text from elsewhere, that does not serve. The message names it, says what was found and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", path.display())]
pub struct FileError {
    /// The file; or what stands for it where there is none.
    pub path: PathBuf,
    /// What is wrong with it, in lower case.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Whether it may be read later, though nothing about it changes: there is too little of something else.
    pub may_pass: bool,
}

impl FileError {
    pub(super) fn new(path: &Path, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            message: message.into(),
            help: Some(help.into()),
            may_pass: false,
        }
    }
}

/// What a PEM file (RFC 7468) holds. Text around its sections is explanatory and ignored.
#[derive(Debug)]
pub(super) struct Pem {
    path: PathBuf,
    labels: Vec<String>,
    certificates: Vec<CertificateDer<'static>>,
    keys: Vec<Key>,
}

impl Pem {
    /// Reads a file; fails when it holds no section at all, or a damaged one.
    pub(super) fn read(path: &Path) -> Result<Self, FileError> {
        Self::parse(&read_bounded(path, MAX_FILE_SIZE)?, path)
    }

    /// The same of a file whose key will be used: nobody but its owner and its group may have access to it. One that holds
    /// none may be anybody's: it is named by mistake, and whoever shut it might break what reads it.
    pub(super) fn read_with_key(path: &Path) -> Result<Self, FileError> {
        let (bytes, exposed) = read_exposed(path, MAX_FILE_SIZE)?;
        let pem = Self::parse(&bytes, path)?;
        match exposed {
            Some(exposed) if pem.holds_key() => Err(exposed),
            _ => Ok(pem),
        }
    }

    /// The same from memory; `source` stands for the file in messages.
    pub(super) fn parse(bytes: &[u8], source: &Path) -> Result<Self, FileError> {
        if bytes.len() as u64 > MAX_FILE_SIZE {
            return Err(FileError::new(
                source,
                format!("is larger than {} KiB", MAX_FILE_SIZE / 1024),
                "certificates and keys are a few KiB: is this the file that was meant?",
            ));
        }
        let mut pem = Self {
            path: source.to_owned(),
            labels: labels(bytes),
            certificates: Vec::new(),
            keys: Vec::new(),
        };
        if pem.labels.is_empty() {
            return Err(not_pem(source, bytes));
        }
        for section in sections(bytes) {
            let section = section.map_err(|malformed| damaged(source, malformed))?;
            if section.label.ends_with(b"PRIVATE KEY") {
                // Not by the library, which leaves copies of what it decodes in memory.
                let key = Key::of(&section).map_err(|malformed| damaged(source, malformed))?;
                pem.keys.extend(key);
                continue;
            }
            for part in <(SectionKind, Vec<u8>)>::pem_slice_iter(section.whole) {
                let (kind, der) = part.map_err(|error| damaged(source, malformed(&error)))?;
                pem.certificates.extend(CertificateDer::from_pem(kind, der));
            }
        }
        Ok(pem)
    }

    /// The certificates, in the order of the file; at least one.
    pub(super) fn certificates(&self) -> Result<&[CertificateDer<'static>], FileError> {
        if !self.certificates.is_empty() {
            return Ok(&self.certificates);
        }
        let (message, help) = match self.labels.first().map(String::as_str) {
            _ if self.holds_key() => (
                "this is a key, not a certificate".to_owned(),
                "are the chain and the key swapped?".to_owned(),
            ),
            Some("CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") => (
                "this is a request for a certificate, not a certificate".to_owned(),
                "send it to a CA, and name here the chain that comes back".to_owned(),
            ),
            Some("TRUSTED CERTIFICATE" | "X509 CERTIFICATE") => (
                "the certificate has a form of openssl's own".to_owned(),
                format!(
                    "rewrite it: openssl x509 -in {} -out NEW.pem",
                    self.path.display()
                ),
            ),
            label => (
                format!(
                    "holds no certificate, but `{}`",
                    label.unwrap_or_default().escape_default()
                ),
                "a certificate begins with `-----BEGIN CERTIFICATE-----`".to_owned(),
            ),
        };
        Err(FileError::new(&self.path, message, help))
    }

    /// The one private key, which must not be encrypted: there is no passphrase.
    pub(super) fn plain_key(&self) -> Result<&SecretKey, FileError> {
        match self.key()? {
            Key::Plain(key) => Ok(key),
            Key::Encrypted(_) => Err(FileError::new(
                &self.path,
                "the key is encrypted, and nobody is there to type its passphrase",
                "give it unencrypted to whoever hands it out",
            )),
            Key::Traditional => Err(super::key::traditional(&self.path)),
        }
    }

    /// The one private key, encrypted or not.
    pub(super) fn key(&self) -> Result<&Key, FileError> {
        let (message, help) = match (self.keys.as_slice(), self.labels.first().map(String::as_str)) {
            ([key], _) => return Ok(key),
            ([], _) if self.labels.iter().any(|label| label == "OPENSSH PRIVATE KEY") => (
                "this is an OpenSSH key, not one for TLS".to_owned(),
                "name the key that the certificate was requested with".to_owned(),
            ),
            ([], _) if !self.certificates.is_empty() => (
                "this is a certificate, not a key".to_owned(),
                "are the chain and the key swapped?".to_owned(),
            ),
            ([], label) => (
                format!("holds no private key, but `{}`", label.unwrap_or_default().escape_default()),
                "a key begins with `-----BEGIN PRIVATE KEY-----`, `RSA PRIVATE KEY` or `EC PRIVATE KEY`".to_owned(),
            ),
            (keys, _) => (
                format!("holds {} private keys: which one is meant?", keys.len()),
                "leave only the key of the chain's first certificate in it".to_owned(),
            ),
        };
        Err(FileError::new(&self.path, message, help))
    }

    /// Whether the file holds a private key of any form.
    pub(super) fn holds_key(&self) -> bool {
        self.labels
            .iter()
            .any(|label| label.ends_with("PRIVATE KEY"))
    }
}

/// What stands between `-----BEGIN ` and `-----`, for each section; the beginning of one that is none.
fn labels(bytes: &[u8]) -> Vec<String> {
    const SHOWN: usize = 64;
    bytes
        .split(|byte| matches!(byte, b'\n' | b'\r'))
        .filter_map(|line| line.trim_ascii_end().strip_prefix(b"-----BEGIN "))
        .map(|rest| rest.strip_suffix(b"-----").unwrap_or(rest))
        .map(|label| String::from_utf8_lossy(label.get(..SHOWN).unwrap_or(label)).into_owned())
        .collect()
}

/// A path as it can be pasted into a shell.
pub(crate) fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:,".contains(c);
    match text.chars().all(is_plain) && !text.starts_with('-') {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// The content is not quoted: it may be a key.
fn damaged(path: &Path, malformed: Malformed) -> FileError {
    let message = match malformed {
        Malformed::NoEnd => "a section has no `-----END` line",
        Malformed::Begin => "a `-----BEGIN` line does not end with five dashes",
        Malformed::Base64 => "a section is not valid base64",
        Malformed::Other => "a section cannot be read",
    };
    FileError::new(path, message, "the file was cut or edited: write it again")
}

fn malformed(error: &pem::Error) -> Malformed {
    match error {
        pem::Error::MissingSectionEnd { .. } => Malformed::NoEnd,
        pem::Error::IllegalSectionStart { .. } => Malformed::Begin,
        pem::Error::Base64Decode(_) => Malformed::Base64,
        _ => Malformed::Other,
    }
}

/// Why a file cannot be opened; `None` if it is there and can be looked at.
pub(crate) fn missing(path: &Path) -> Option<FileError> {
    let error = std::fs::metadata(path).err()?;
    Some(unreadable(path, &error))
}

pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> FileError {
    let (message, help) = match error.kind() {
        ErrorKind::NotFound => (
            "does not exist".to_owned(),
            "is the path right? it is shown as it was opened",
        ),
        ErrorKind::PermissionDenied => (
            "may not be read".to_owned(),
            "let the user that the gateway runs as read it",
        ),
        ErrorKind::NotADirectory => (
            "is not a directory, nor in one".to_owned(),
            "is the path right? of a single certificate, `chain` and `key` name the files",
        ),
        _ => (
            format!("cannot be read: {error}"),
            "is its disk healthy and mounted?",
        ),
    };
    FileError {
        may_pass: retry::may_pass(error),
        ..FileError::new(path, message, help)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
