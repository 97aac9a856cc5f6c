//! `ClientConfig`s: for the upstreams of the gateway, and for `portcullis connect`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;

use super::files::FileError;

/// Makes a configuration that verifies the chain against `roots` (the system's when empty) and always the name,
/// and shows `certificate` (chain, key) if the peer asks for one.
pub fn config(
    roots: &[PathBuf],
    certificate: Option<(&Path, &Path)>,
) -> Result<Arc<ClientConfig>, FileError> {
    let _ = (roots, certificate);
    todo!()
}
