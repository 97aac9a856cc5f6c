//! A certificate authority for one test, in a folder of its own.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

/// A CA with its files in a folder that goes with it.
pub(crate) struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate that the CA has issued.
pub(crate) struct Issued {
    pub(crate) certificate: rcgen::Certificate,
    pub(crate) key: KeyPair,
}

impl Authority {
    /// A new CA; its certificate stands in `ca.pem`.
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "Test CA");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self {
            folder: tempfile::tempdir().unwrap(),
            issuer,
        };
        authority.write("ca.pem", &authority.issuer.pem());
        authority
    }

    /// The folder with the files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file into the folder; only its owner may read one with a key.
    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        write(&path, content);
        path
    }

    /// A certificate for these names, good for servers and clients.
    pub(crate) fn issue(&self, names: &[&str]) -> Issued {
        issue(&self.issuer, names)
    }

    /// A certificate as it is described.
    pub(crate) fn sign(&self, params: CertificateParams) -> Issued {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued { certificate, key }
    }

    /// Issues a certificate through so many CAs between this one and it; `NAME.pem` holds them all.
    pub(crate) fn issue_files_below(&self, cas: u8, name: &str, names: &[&str]) {
        let mut between: Vec<CertifiedIssuer<'static, KeyPair>> = Vec::new();
        for below in (0..cas).rev() {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
            let name = format!("Test CA between {}", below + 1);
            params
                .distinguished_name
                .push(rcgen::DnType::CommonName, name);
            let key = KeyPair::generate().unwrap();
            let above = between.last().unwrap_or(&self.issuer);
            between.push(CertifiedIssuer::signed_by(params, key, above).unwrap());
        }
        let issued = issue(between.last().unwrap_or(&self.issuer), names);
        let chain = between.iter().rev().map(|issuer| issuer.pem());
        let chain = issued.certificate.pem() + &chain.collect::<String>();
        self.write(&format!("{name}.pem"), &chain);
        self.write(&format!("{name}.key"), &issued.key.serialize_pem());
    }

    /// Issues a certificate into `NAME.pem` and `NAME.key`.
    pub(crate) fn issue_files(&self, name: &str, names: &[&str]) -> Issued {
        let issued = self.issue(names);
        self.write(&format!("{name}.pem"), &issued.certificate.pem());
        self.write(&format!("{name}.key"), &issued.key.serialize_pem());
        issued
    }

    /// What trusts this CA alone.
    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }

    /// A client that trusts this CA, offers these versions and shows no certificate.
    pub(crate) fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        self.client_by(portcullis::tls::provider(), versions)
    }

    /// The same with this cryptography.
    pub(crate) fn client_by(
        &self,
        provider: Arc<CryptoProvider>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots())
            .with_no_client_auth()
    }
}

/// Writes a file; only its owner may read one with a key.
pub(crate) fn write(path: &Path, content: &str) {
    std::fs::write(path, content).unwrap();
    if content.contains("PRIVATE KEY") {
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }
}

impl Issued {
    /// A server that shows this certificate.
    pub(crate) fn server(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ServerConfig> {
        Arc::new(self.server_by(portcullis::tls::provider(), versions))
    }

    /// The same with this cryptography.
    pub(crate) fn server_by(
        &self,
        provider: Arc<CryptoProvider>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ServerConfig {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.der().clone()], key)
            .unwrap()
    }
}

fn issue(issuer: &Issuer<'_, KeyPair>, names: &[&str]) -> Issued {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    Issued { certificate, key }
}
