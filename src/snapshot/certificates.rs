//! The edge certificates, indexed by the names they prove.

use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::name::HostName;
use crate::tls::files::Certificate;

/// The certificates of a gateway. For one name: exact before wildcard, then the longest-lived, RSA beside ECDSA.
#[derive(Debug, Default)]
pub struct Certificates {}

impl Certificates {
    /// Indexes certificates; those without a usable name are left out.
    pub fn new(certificates: Vec<Certificate>) -> Self {
        let _ = certificates;
        todo!()
    }

    /// Whether any certificate proves this name.
    pub fn covers(&self, name: &HostName) -> bool {
        let _ = name;
        todo!()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let _ = hello;
        todo!()
    }
}
