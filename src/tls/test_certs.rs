//! Certificate authorities, certificates and in-memory handshakes for tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::server::{Acceptor, ClientHello};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, ConnectionCommon, Error, RootCertStore};
use rustls::{ServerConfig, ServerConnection, SideData};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::files::Certificate;

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate authority of a test's own.
pub(crate) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Its own issuer and so on, up to a root; as PEM too.
    above: Vec<CertificateDer<'static>>,
    above_pem: String,
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, |_| {})
    }

    /// A root that is not as usual.
    pub(crate) fn with(name: &str, adjust: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = ca_params(name);
        adjust(&mut params);
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
            above: Vec::new(),
            above_pem: String::new(),
        }
    }

    /// A CA that this one has issued.
    pub(crate) fn below(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: CertifiedIssuer::signed_by(ca_params(name), key, &self.issuer).unwrap(),
            above: self.chain(),
            above_pem: self.pem() + &self.above_pem,
        }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        Arc::new(roots)
    }

    /// A certificate with an ECDSA key, from yesterday for 90 days.
    pub(crate) fn issue(&self, names: &[&str]) -> Issued {
        self.request(names).issue()
    }

    /// The same with these URIs, and no name else.
    pub(crate) fn issue_uris(&self, uris: &[&str]) -> Issued {
        let mut request = self.request(&[]);
        request.uris = uris.iter().map(|uri| (*uri).to_owned()).collect();
        request.issue()
    }

    pub(crate) fn request(&self, names: &[&str]) -> Request<'_> {
        let now = SystemTime::now();
        Request {
            ca: self,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            uris: Vec::new(),
            algorithm: &rcgen::PKCS_ECDSA_P256_SHA256,
            not_before: now - DAY,
            not_after: now + 90 * DAY,
        }
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        let own = std::iter::once(self.issuer.der());
        own.chain(&self.above).cloned().collect()
    }
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// What to issue, for tests that ask for more than names.
pub(crate) struct Request<'a> {
    ca: &'a Ca,
    pub(crate) names: Vec<String>,
    pub(crate) uris: Vec<String>,
    pub(crate) algorithm: &'static rcgen::SignatureAlgorithm,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl Request<'_> {
    pub(crate) fn issue(&self) -> Issued {
        self.issue_with(|_| {})
    }

    /// For what has no field here.
    pub(crate) fn issue_with(&self, adjust: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::new(self.names.clone()).unwrap();
        let uris = self.uris.iter().map(|uri| uri.as_str().try_into().unwrap());
        params.subject_alt_names.extend(uris.map(SanType::URI));
        params.not_before = self.not_before.into();
        params.not_after = self.not_after.into();
        adjust(&mut params);
        let key = KeyPair::generate_for(self.algorithm).unwrap();
        let leaf = params.signed_by(&key, &self.ca.issuer).unwrap();
        let chain: Vec<_> = std::iter::once(leaf.der().clone())
            .chain(self.ca.chain())
            .collect();
        Issued {
            chain_pem: leaf.pem() + &self.ca.pem() + &self.ca.above_pem,
            chain,
            key_pem: key.serialize_pem(),
            key_der: key.serialize_der(),
        }
    }
}

/// A section of PEM (RFC 7468 §2).
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        base64(der)
    )
}

fn base64(bytes: &[u8]) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk
            .iter()
            .chain([&0; 2])
            .take(3)
            .fold(0, |bits, byte| bits << 8 | usize::from(*byte));
        for place in 0..=chunk.len() {
            text.push(alphabet[bits >> (18 - 6 * place) & 63].into());
        }
        text.extend(std::iter::repeat_n('=', 3 - chunk.len()));
    }
    text
}

/// A certificate, its CA's up to a root, and its key.
pub(crate) struct Issued {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) chain_pem: String,
    pub(crate) key_pem: String,
    /// As PKCS#8.
    pub(crate) key_der: Vec<u8>,
}

impl Issued {
    pub(crate) fn certified_key(&self) -> CertifiedKey {
        let key = PrivateKeyDer::try_from(self.key_der.clone()).unwrap();
        CertifiedKey::from_der(self.chain.clone(), key, &super::provider()).unwrap()
    }

    /// The key inside PKCS#8 (RFC 5958 §2), in the older form that its algorithm has: SEC 1 (`EC PRIVATE KEY`) or PKCS#1
    /// (`RSA PRIVATE KEY`).
    pub(crate) fn older_key_pem(&self, label: &str) -> String {
        let (_, pkcs8) = x509_parser::der_parser::parse_der(&self.key_der).unwrap();
        pem(label, pkcs8.as_sequence().unwrap()[2].as_slice().unwrap())
    }

    pub(crate) fn certificate(&self) -> Certificate {
        Certificate::new(self.certified_key(), Path::new("test.pem")).unwrap()
    }

    /// Writes `NAME.pem` and `NAME.key`, the key for its owner alone.
    pub(crate) fn write(&self, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let chain = write(directory, &format!("{name}.pem"), &self.chain_pem);
        let key = write(directory, &format!("{name}.key"), &self.key_pem);
        (chain, key)
    }
}

/// Writes a file that only its owner may read.
pub(crate) fn write(directory: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = directory.join(name);
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// Both ends of a handshake, and how it went for each.
pub(crate) struct Handshake {
    pub(crate) client: ClientConnection,
    /// What the client learnt: an alert, if it was refused.
    pub(crate) client_result: Result<(), Error>,
    /// None if the server refused the hello itself.
    pub(crate) server: Option<ServerConnection>,
    pub(crate) server_result: Result<(), Error>,
}

impl Handshake {
    /// Whether both ends finished.
    pub(crate) fn is_ok(&self) -> bool {
        self.client_result.is_ok() && self.server_result.is_ok() && !self.client.is_handshaking()
    }

    /// What was selected by ALPN.
    pub(crate) fn alpn(&self) -> Option<&[u8]> {
        self.client.alpn_protocol()
    }

    /// The server's leaf, as the client saw it.
    pub(crate) fn leaf(&self) -> Option<&CertificateDer<'static>> {
        self.client.peer_certificates()?.first()
    }
}

/// Runs a handshake in memory, the server as the gateway does it: the hello first, then the configuration for it.
pub(crate) fn handshake(
    client: &Arc<ClientConfig>,
    name: &str,
    configure: impl FnOnce(ClientHello<'_>) -> Arc<ServerConfig>,
) -> Handshake {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut acceptor = Acceptor::default();
    acceptor.read_tls(&mut &take(&mut client)[..]).unwrap();
    let accepted = acceptor.accept().and_then(|accepted| {
        let accepted = accepted.unwrap();
        let config = configure(accepted.client_hello());
        accepted.into_connection(config)
    });
    let mut server = match accepted {
        Ok(server) => server,
        Err((error, mut alert)) => {
            let mut bytes = Vec::new();
            alert.write(&mut bytes).unwrap();
            return Handshake {
                client_result: give(&mut client, &bytes),
                client,
                server: None,
                server_result: Err(error),
            };
        }
    };
    let (mut client_result, mut server_result) = (Ok(()), Ok(()));
    loop {
        let (up, down) = (take(&mut client), take(&mut server));
        if up.is_empty() && down.is_empty() {
            break;
        }
        server_result = server_result.and_then(|()| give(&mut server, &up));
        client_result = client_result.and_then(|()| give(&mut client, &down));
    }
    Handshake {
        client,
        client_result,
        server: Some(server),
        server_result,
    }
}

/// Everything that one end has to send.
fn take<Data: SideData>(end: &mut ConnectionCommon<Data>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while end.wants_write() {
        end.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// Hands one end what the other sent.
fn give<Data: SideData>(end: &mut ConnectionCommon<Data>, mut bytes: &[u8]) -> Result<(), Error> {
    while !bytes.is_empty() {
        end.read_tls(&mut bytes).unwrap();
        end.process_new_packets()?;
    }
    Ok(())
}
