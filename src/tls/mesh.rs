//! The gateway's identity in a mesh, and what verifies the services it dials there.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore};

use super::client::{self, ClientError};
use super::verify::Proof;
use crate::name::SpiffeId;

/// A certificate of a mesh, with the roots that the mesh trusts at the same time.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Who we are.
    pub id: SpiffeId,
    /// The certificate and whatever else leads to a root, as the CA sent it, and the key.
    pub certificate: Arc<CertifiedKey>,
    /// Every root that is listed, active or not: during a rotation certificates of both are about.
    pub roots: Arc<RootCertStore>,
    /// When the certificate ends.
    pub not_after: SystemTime,
}

impl Identity {
    /// What dials a service that must prove to be `peer`: our certificate is shown, its chain must lead to one of the
    /// roots, and its one URI must equal the ID. No ALPN is offered, and no session resumed.
    pub fn client_config(&self, peer: &SpiffeId) -> Result<Arc<ClientConfig>, ClientError> {
        client::from_parts(
            Arc::clone(&self.roots),
            Some(Arc::clone(&self.certificate)),
            Proof::Spiffe(peer.clone()),
        )
    }
}
