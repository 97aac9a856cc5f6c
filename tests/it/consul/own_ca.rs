//! A CA of the test's own under a mesh, for certificates that no agent would issue.

use std::sync::Arc;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;

use super::Consul;

/// The CA of a mesh, whose key the test has.
pub(crate) struct OwnCa(CertifiedIssuer<'static, KeyPair>);

impl Consul {
    /// Moves the mesh to a new CA whose key the test has; leaves that are asked for from now on are issued by it. The old
    /// root stays trusted.
    pub(crate) fn use_own_ca(&self) -> OwnCa {
        let roots = self.get("/v1/agent/connect/ca/roots");
        let trust_domain = roots["TrustDomain"].as_str().unwrap();
        let mut params = certificate(&[&format!("spiffe://{trust_domain}")]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.extended_key_usages = Vec::new();
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let config = json!({
            "Provider": "consul",
            "Config": {
                "PrivateKey": issuer.key().serialize_pem(),
                "RootCert": issuer.pem(),
                "LeafCertTTL": "72h",
            },
        });
        self.put("/v1/connect/ca/configuration", &config);
        OwnCa(issuer)
    }

    /// Lets new leaves live for so many seconds, of which Consul's own CA has a minute behind them when it issues them.
    /// Each is renewed when between 60 and 90 of a hundred parts of its life are over.
    pub(crate) fn shorten_leaves(&self, seconds: u64) {
        let config = json!({
            "Provider": "consul",
            "Config": { "LeafCertTTL": format!("{seconds}s"), "SkipValidate": true },
        });
        self.put("/v1/connect/ca/configuration", &config);
    }
}

impl OwnCa {
    /// A server, with a certificate of this CA.
    pub(crate) fn server(&self, params: &CertificateParams) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        serve(params.signed_by(&key, &self.0).unwrap(), &key)
    }
}

/// A server that has signed its certificate itself.
pub(crate) fn self_signed(params: &CertificateParams) -> Arc<ServerConfig> {
    let key = KeyPair::generate().unwrap();
    serve(params.self_signed(&key).unwrap(), &key)
}

/// A certificate with these URIs, good for a workload of a mesh until a test changes something about it.
pub(crate) fn certificate(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    let uris = uris.iter().map(|uri| Ia5String::try_from(*uri).unwrap());
    params.subject_alt_names = uris.map(SanType::URI).collect();
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params
}

/// It asks its clients for nothing: a test sees whom the client refuses, not the other way round.
fn serve(certificate: rcgen::Certificate, key: &KeyPair) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(portcullis::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key);
    Arc::new(config.unwrap())
}
