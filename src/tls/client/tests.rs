//! Whom a client takes for its peer, what it shows and what it offers.

use rustls::{AlertDescription, CertificateError, Error, HandshakeKind, ServerConfig};

use super::*;
use crate::tls::options::{ClientAuth, Options};
use crate::tls::server::ServerPolicy;
use crate::tls::test_certs::{Ca, Handshake, Issued, handshake, write};

const NAME: &str = "db.example.com";

/// A peer with this certificate, which asks for one if `clients` is a CA file.
fn peer(certificate: &Issued, clients: Option<PathBuf>) -> Arc<ServerConfig> {
    let options = Options {
        client_auth: clients.map_or(ClientAuth::None, |file| ClientAuth::Required(vec![file])),
        ..Options::default()
    };
    let resolver = Arc::new(SingleCertAndKey::from(certificate.certified_key()));
    Arc::clone(
        ServerPolicy::new(&options, resolver, None)
            .unwrap()
            .config(&[]),
    )
}

fn meet(client: &Arc<ClientConfig>, name: &str, peer: &Arc<ServerConfig>) -> Handshake {
    handshake(client, name, |_| Arc::clone(peer))
}

/// CVE-2025-66491 of Traefik: a switch for verification that meant its opposite.
#[test]
fn a_peer_is_verified_against_the_roots_named_and_by_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let ca = Ca::new("ca");
    let roots = write(directory.path(), "ca.pem", ca.pem());
    let client = config(&[roots], None, Proof::ServerName).unwrap();
    assert!(meet(&client, NAME, &peer(&ca.issue(&[NAME]), None)).is_ok());

    let stranger = Ca::new("ca").issue(&[NAME]);
    let refused = meet(&client, NAME, &peer(&stranger, None)).client_result;
    assert!(
        matches!(refused, Err(Error::InvalidCertificate(_))),
        "{refused:?}"
    );

    let refused = meet(
        &client,
        "other.example.com",
        &peer(&ca.issue(&[NAME]), None),
    );
    assert!(matches!(
        refused.client_result,
        Err(Error::InvalidCertificate(
            CertificateError::NotValidForNameContext { .. }
        ))
    ));
}

#[test]
fn an_expired_peer_is_refused() {
    let ca = Ca::new("ca");
    let mut request = ca.request(&[NAME]);
    request.not_after = request.not_before;
    let refused = meet(
        &from_parts(ca.roots(), None, Proof::ServerName).unwrap(),
        NAME,
        &peer(&request.issue(), None),
    );
    assert!(matches!(
        refused.client_result,
        Err(Error::InvalidCertificate(
            CertificateError::ExpiredContext { .. }
        ))
    ));
}

#[test]
fn a_certificate_is_shown_to_a_peer_that_asks_even_one_without_a_host_name() {
    let directory = tempfile::tempdir().unwrap();
    let (servers, clients) = (Ca::new("servers"), Ca::new("clients"));
    let roots = [write(directory.path(), "servers.pem", servers.pem())];
    let peer = peer(
        &servers.issue(&[NAME]),
        Some(write(directory.path(), "clients.pem", clients.pem())),
    );
    let laptop = clients.issue(&[]);
    let (chain, key) = laptop.write(directory.path(), "laptop");

    let shown = meet(
        &config(&roots, Some((&chain, &key.into())), Proof::ServerName).unwrap(),
        NAME,
        &peer,
    );
    assert!(shown.is_ok(), "{:?}", shown.server_result);
    assert_eq!(
        shown.server.unwrap().peer_certificates(),
        Some(&laptop.chain[..])
    );

    let missing = meet(
        &config(&roots, None, Proof::ServerName).unwrap(),
        NAME,
        &peer,
    );
    let alert = Error::AlertReceived(AlertDescription::CertificateRequired);
    assert_eq!(missing.client_result, Err(alert));
}

#[test]
fn nothing_is_resumed_and_no_protocol_is_offered() {
    let ca = Ca::new("ca");
    let client = from_parts(ca.roots(), None, Proof::ServerName).unwrap();
    let peer = peer(&ca.issue(&[NAME]), None);
    for _ in 0..2 {
        let handshake = meet(&client, NAME, &peer);
        assert!(handshake.is_ok());
        assert_ne!(
            handshake.client.handshake_kind(),
            Some(HandshakeKind::Resumed)
        );
    }
    assert!(client.alpn_protocols.is_empty());
}

#[test]
fn cipher_suites_that_are_not_listed_are_not_offered_nor_a_version_without_one() {
    let directory = tempfile::tempdir().unwrap();
    let ca = Ca::new("ca");
    let roots = [write(directory.path(), "ca.pem", ca.pem())];
    let peer = peer(&ca.issue(&[NAME]), None);
    let mut made: Vec<Made> = Vec::new();
    for suite in ["TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_256_GCM_SHA384"] {
        let list = Some(Ciphers::parse(suite).0);
        let list = list.as_ref();
        let one = Made::following(&roots, None, Proof::ServerName, &[], list, &made).unwrap();
        let agreed = meet(&one.config, NAME, &peer).client;
        let agreed = agreed.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(list, Some(&Ciphers::parse(agreed.as_str().unwrap()).0));
        assert!(
            !one.config
                .crypto_provider()
                .cipher_suites
                .iter()
                .any(|one| one.tls13().is_none())
        );
        made.push(one);
    }
}

#[test]
fn a_file_that_does_not_serve_is_named_with_its_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let ca = Ca::new("ca");
    let roots = write(directory.path(), "ca.pem", ca.pem());
    let (chain, key) = ca.issue(&[NAME]).write(directory.path(), "laptop");
    let error = config(
        std::slice::from_ref(&roots),
        Some((&key, &KeyFile::from(chain))),
        Proof::ServerName,
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{}: this is a key, not a certificate", key.display())
    );
    assert_eq!(error.help(), Some("are the chain and the key swapped?"));
    let error = config(&[key], None, Proof::ServerName).unwrap_err();
    assert!(matches!(error, ClientError::File(_)));
}

#[test]
fn a_system_without_trusted_cas_is_an_error_and_not_a_client_that_trusts_nobody() {
    let error = usable(CertificateResult::default()).unwrap_err();
    assert_eq!(error.to_string(), "this system has no trusted CAs");
    assert!(
        error
            .help()
            .unwrap()
            .contains("install the package ca-certificates")
    );
    let mut found = CertificateResult::default();
    found.certs.extend(Ca::new("ca").issue(&[NAME]).chain);
    assert_eq!(usable(found).unwrap().len(), 2);
}
