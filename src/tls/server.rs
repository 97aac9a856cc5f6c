//! From an option set to the `ServerConfig`s that serve it: one for each answer to ALPN, made once.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;

use super::files::FileError;
use super::options::Options;

/// What ends TLS for the routes that share an option set.
///
/// Tickets and sessions belong to one policy alone (`tickets` below), so that nothing that was agreed under one
/// can be resumed under another; where a client certificate is asked for there are none at all.
#[derive(Debug)]
pub struct ServerPolicy {
    tickets: Arc<Tickets>,
}

/// The session tickets of one policy: its keys end with it. Kept when only the certificates change.
#[derive(Debug)]
pub struct Tickets {}

impl ServerPolicy {
    /// Makes a policy; `previous` is the same policy of the last snapshot when its option set has not changed (its tickets go on).
    pub fn new(
        options: &Options,
        certificates: Arc<dyn ResolvesServerCert>,
        previous: Option<&ServerPolicy>,
    ) -> Result<Self, FileError> {
        let _ = (options, certificates, previous);
        todo!()
    }

    /// The configuration for a client that offers these protocols.
    pub fn config(&self, offered: &[Vec<u8>]) -> &Arc<ServerConfig> {
        let _ = (offered, &self.tickets);
        todo!()
    }
}
