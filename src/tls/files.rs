//! Certificates, keys and roots read from PEM files, and what is wrong with them when they do not serve.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::sign::CertifiedKey;

use crate::name::HostPattern;

/// A certificate with its key, checked to belong together, and what a choice among certificates needs.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The names it proves: its DNS SANs. Never `Any` or `Never`.
    pub names: Vec<HostPattern>,
    /// When it ends.
    pub not_after: SystemTime,
    /// When it begins.
    pub not_before: SystemTime,
    /// The chain and the signer.
    pub key: Arc<CertifiedKey>,
    /// The file that the chain came from, for messages.
    pub source: PathBuf,
}

impl Certificate {
    /// Reads a chain and its key, and checks that they belong together and that the key is not encrypted.
    pub fn load(chain: &Path, key: &Path) -> Result<Self, FileError> {
        let _ = (chain, key);
        todo!()
    }

    /// Reads every pair in a directory: `NAME.crt|pem` + `NAME.key`, `tls.crt` + `tls.key`, `fullchain.pem` + `privkey.pem`,
    /// there and in its direct subdirectories. One bad pair does not hide the others.
    pub fn load_directory(directory: &Path) -> (Vec<Self>, Vec<FileError>) {
        let _ = directory;
        todo!()
    }
}

/// Reads the CA certificates of some PEM files; at least one each.
pub fn load_roots(files: &[PathBuf]) -> Result<RootCertStore, FileError> {
    let _ = files;
    todo!()
}

/// A file that does not serve. The message names it, says what was found and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, in lower case.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}
