//! TLS: files, option sets, the configurations made from them, and the stream that a relay reads and writes.

pub mod alert;
pub mod chain;
pub mod ciphers;
pub mod client;
mod directory;
mod encrypted;
pub mod files;
pub mod key;
mod known;
pub mod mesh;
mod names;
pub mod options;
pub mod passphrase;
mod pem;
pub mod pin;
pub mod records;
mod refusal;
mod sections;
pub mod server;
mod signatures;
mod stream;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
pub(crate) mod test_certs;
pub mod verify;

pub use names::{common_name, presented, spiffe_id};
pub use refusal::unfit;
pub use stream::{End, HandshakeError, HandshakeFailed, Stream, late_refusal, send_alert};

use std::sync::Arc;

use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;

/// The one source of cryptography: AWS-LC, hybrid post-quantum key exchange (X25519MLKEM768) first.
///
/// Of the cipher suites AES-128 comes first, as in Go and BoringSSL: the SHA-384 that comes with AES-256 costs a handshake
/// more than both its signatures where a processor has instructions for SHA-256 only. A server takes the client's order.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites.sort_by_key(|suite| {
            use CipherSuite as C;
            match suite.suite() {
                C::TLS13_AES_128_GCM_SHA256 => 0,
                C::TLS13_AES_256_GCM_SHA384 | C::TLS13_CHACHA20_POLY1305_SHA256 => 1,
                C::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | C::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 2,
                _ => 3,
            }
        });
        Arc::new(provider)
    }))
}
