//! An upstream: its endpoints as addresses, their shares, and whose turn it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;

/// What a route's bytes go to.
#[derive(Debug)]
pub struct Upstream {
    /// Its name in the configuration, or its address.
    pub name: Arc<str>,
    /// Its endpoints, resolved; empty when a DNS name has not resolved yet.
    pub endpoints: Vec<Endpoint>,
    /// TLS towards it, if any.
    pub tls: Option<UpstreamTls>,
    /// What outlives the snapshot.
    pub state: Arc<UpstreamState>,
}

/// One address that can be dialled.
#[derive(Debug)]
pub struct Endpoint {
    /// Where to dial.
    pub address: SocketAddr,
    /// The address as configured: this one, or the DNS name it came from.
    pub configured: Arc<str>,
    /// Its share; 0 is never dialled.
    pub weight: u32,
}

/// TLS towards an upstream.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    /// Roots and client certificate.
    pub config: Arc<ClientConfig>,
    /// The name that it must prove.
    pub server_name: ServerName<'static>,
}

/// What an upstream remembers from one snapshot to the next.
#[derive(Debug, Default)]
pub struct UpstreamState {
    turn: AtomicU64,
}
