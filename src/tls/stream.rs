//! A TLS connection over TCP, read and written when it is ready, so that no buffer is held by an idle one.

/// A TLS connection over TCP.
#[derive(Debug)]
pub struct Stream {}
