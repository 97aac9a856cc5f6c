//! Edge certificates from files and directories.

use crate::config::CertificateFiles;
use crate::tls::files::{Certificate, FileError};

/// Reads everything the configuration names. One pair that does not serve does not hide the others.
pub fn load(sources: &[CertificateFiles]) -> (Vec<Certificate>, Vec<FileError>) {
    let mut certificates = Vec::new();
    let mut errors = Vec::new();
    for source in sources {
        match source {
            CertificateFiles::Pair { chain, key } => match Certificate::load(chain, key) {
                Ok(certificate) => certificates.push(certificate),
                Err(error) => errors.push(error),
            },
            CertificateFiles::Directory(directory) => {
                let (found, failed) = Certificate::load_directory(directory);
                certificates.extend(found);
                errors.extend(failed);
            }
        }
    }
    (certificates, errors)
}
