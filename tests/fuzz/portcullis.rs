//! The parts of the gateway that are fuzzed: all of it would take minutes to build for libFuzzer.

#[path = "../../src/tls"]
pub mod tls {
    pub mod records;
    mod stream;

    pub use stream::{End, HandshakeError, HandshakeFailed, Stream, late_refusal, send_alert};

    /// The words for a person stay outside.
    mod refusal {
        pub(super) fn describe(error: &rustls::Error) -> String {
            error.to_string()
        }
    }
}
