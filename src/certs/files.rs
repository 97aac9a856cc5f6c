//! Edge certificates from files and directories.

use crate::config::CertificateFiles;
use crate::tls::files::{Certificate, FileError};

/// Reads everything the configuration names.
///
/// A pair that is named must serve. In a directory one that does not is logged and left out: it must not take the
/// others with it.
pub fn load(sources: &[CertificateFiles]) -> Result<Vec<Certificate>, FileError> {
    let mut certificates = Vec::new();
    for source in sources {
        match source {
            CertificateFiles::Pair { chain, key } => {
                certificates.push(Certificate::load(chain, key)?);
            }
            CertificateFiles::Directory(directory) => {
                let (found, failed) = Certificate::load_directory(directory);
                certificates.extend(found);
                for error in failed {
                    tracing::warn!(%error, "a certificate is left out");
                }
            }
        }
    }
    Ok(certificates)
}
