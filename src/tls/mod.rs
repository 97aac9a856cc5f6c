//! TLS: files, option sets, the configurations made from them, and the stream that a relay reads and writes.

pub mod client;
mod directory;
pub mod files;
pub mod mesh;
mod names;
pub mod options;
mod pem;
pub mod records;
mod refusal;
pub mod server;
mod stream;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
pub(crate) mod test_certs;
pub mod verify;

pub use names::presented;
pub use stream::{End, HandshakeError, HandshakeFailed, Stream, late_refusal, send_alert};

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The one source of cryptography: AWS-LC, hybrid post-quantum key exchange (X25519MLKEM768) first.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}
