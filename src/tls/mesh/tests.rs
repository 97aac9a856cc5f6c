//! Identities from PEM, and handshakes with sidecars that ask for them.

use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, SupportedProtocolVersion};

use super::*;
use crate::tls::test_certs::{Ca, DAY, Issued, handshake, pem};

const EDGE: &str = "spiffe://one.consul/ns/default/dc/dc1/svc/portcullis";
const WEB: &str = "spiffe://one.consul/ns/default/dc/dc1/svc/web";

fn leaf(chain: &str, key: &str) -> Result<Leaf, LeafError> {
    let text = |source, text| PemText { source, text };
    Leaf::from_pem(text("CertPEM", chain), text("PrivateKeyPEM", key))
}

fn of(issued: &Issued) -> Result<Leaf, LeafError> {
    leaf(&issued.chain_pem, &issued.key_pem)
}

/// What a sidecar listens with: it offers protocols and tickets, and asks for a certificate from this CA.
fn sidecar(
    ca: &Ca,
    issued: &Issued,
    version: &'static SupportedProtocolVersion,
) -> Arc<ServerConfig> {
    let provider = crate::tls::provider();
    let clients = WebPkiClientVerifier::builder_with_provider(ca.roots(), Arc::clone(&provider));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
            issued.certified_key(),
        )));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

#[test]
fn every_kind_and_form_of_key_makes_an_identity_that_a_sidecar_takes() {
    let ca = Ca::new("mesh");
    let web = sidecar(&ca, &ca.issue_uris(&[WEB]), &TLS13);
    for (algorithm, older_form) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, Some("EC PRIVATE KEY")),
        (&rcgen::PKCS_ECDSA_P384_SHA384, Some("EC PRIVATE KEY")),
        (&rcgen::PKCS_ED25519, None),
        (&rcgen::PKCS_RSA_SHA256, Some("RSA PRIVATE KEY")),
    ] {
        let mut request = ca.request(&[]);
        request.uris = vec![EDGE.to_owned()];
        request.algorithm = algorithm;
        let issued = request.issue();
        let older = older_form.map(|label| issued.older_key_pem(label));
        for key in [Some(issued.key_pem.clone()), older].into_iter().flatten() {
            let leaf = leaf(&issued.chain_pem, &key).unwrap();
            assert_eq!(leaf.id.as_str(), EDGE);
            assert!(leaf.not_before < leaf.not_after);
            let identity = Identity::new(&leaf, ca.roots());
            let config = identity
                .client_config(&SpiffeId::parse(WEB).unwrap())
                .unwrap();
            let met = handshake(&config, "web.default.dc1.internal.one.consul", |_| {
                Arc::clone(&web)
            });
            assert!(
                met.is_ok(),
                "{:?} {:?}",
                met.client_result,
                met.server_result
            );
        }
    }
}

#[test]
fn a_sidecar_sees_the_whole_chain_and_no_protocol_and_no_session_comes_back() {
    let root = Ca::new("mesh");
    let issued = root.below("one").below("two").issue_uris(&[EDGE]);
    let identity = Identity::new(&of(&issued).unwrap(), root.roots());
    let config = identity
        .client_config(&SpiffeId::parse(WEB).unwrap())
        .unwrap();
    for version in [&TLS12, &TLS13] {
        let web = sidecar(&root, &root.issue_uris(&[WEB]), version);
        for _ in 0..2 {
            let met = handshake(&config, "web.internal", |hello| {
                assert!(hello.alpn().is_none());
                Arc::clone(&web)
            });
            assert!(met.is_ok());
            assert_eq!(
                met.server.unwrap().peer_certificates(),
                Some(&issued.chain[..]),
                "all of it, in its order"
            );
            assert_ne!(met.client.handshake_kind(), Some(HandshakeKind::Resumed));
        }
    }
}

#[test]
fn a_peer_of_the_former_mesh_or_of_this_one_is_met_as_it_expects_and_nobody_else() {
    const FORMER_WEB: &str = "spiffe://zero.consul/ns/default/dc/dc1/svc/web";
    let (former_ca, ca) = (Ca::new("zero"), Ca::new("one"));
    let identity =
        |ca: &Ca, id: &str| Identity::new(&of(&ca.issue_uris(&[id])).unwrap(), ca.roots());
    let former = identity(
        &former_ca,
        "spiffe://zero.consul/ns/default/dc/dc1/svc/edge",
    );
    let current = identity(&ca, EDGE);
    let [peer, former_peer] = [WEB, FORMER_WEB].map(|id| SpiffeId::parse(id).unwrap());
    let config = current.client_config_with_former(&peer, &former, &former_peer);
    let config = config.unwrap();
    for version in [&TLS12, &TLS13] {
        for (ca, id, shown) in [(&ca, WEB, &current), (&former_ca, FORMER_WEB, &former)] {
            let web = sidecar(ca, &ca.issue_uris(&[id]), version);
            let met = handshake(&config, "web.internal", |_| Arc::clone(&web));
            assert!(met.is_ok(), "{id}: {:?}", met.client_result);
            assert_eq!(
                met.server.unwrap().peer_certificates(),
                Some(&shown.certificate.cert[..]),
                "{id}"
            );
        }
        // The roots of one do not vouch for the other's IDs.
        for (ca, id) in [(&ca, FORMER_WEB), (&former_ca, WEB), (&Ca::new("two"), WEB)] {
            let web = sidecar(ca, &ca.issue_uris(&[id]), version);
            let met = handshake(&config, "web.internal", |_| Arc::clone(&web));
            assert!(met.client_result.is_err(), "{id}");
        }
    }
    // Who does not say whom it trusts is shown the newest.
    let provider = crate::tls::provider();
    let clients = WebPkiClientVerifier::builder_with_provider(ca.roots(), Arc::clone(&provider));
    let web = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.clear_root_hint_subjects().build().unwrap())
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
            ca.issue_uris(&[WEB]).certified_key(),
        )));
    let web = Arc::new(web);
    let met = handshake(&config, "web.internal", |_| Arc::clone(&web));
    assert!(met.is_ok(), "{:?}", met.server_result);
}

#[test]
fn a_certificate_that_gives_no_identity_is_refused_with_its_reason() {
    let ca = Ca::new("mesh");
    let good = ca.issue_uris(&[EDGE]);
    let other = ca.issue_uris(&[EDGE]);
    for (chain, key, why) in [
        (
            &*good.chain_pem,
            &*other.key_pem,
            "PrivateKeyPEM: the key does not belong to the certificate in CertPEM",
        ),
        ("", &good.key_pem, "CertPEM: is empty"),
        (
            &"\n".repeat(1024 * 1024 + 1),
            &good.key_pem,
            "CertPEM: is larger than 1024 KiB",
        ),
        (
            &good.key_pem,
            &good.key_pem,
            "CertPEM: this is a key, not a certificate",
        ),
        (&good.chain_pem, "", "PrivateKeyPEM: is empty"),
        (
            &good.chain_pem[..300],
            &good.key_pem,
            "CertPEM: a section has no `-----END` line",
        ),
        (
            &ca.issue(&["web.example"]).chain_pem,
            &good.key_pem,
            "PrivateKeyPEM: the key does not belong to the certificate in CertPEM",
        ),
    ] {
        assert_eq!(leaf(chain, key).unwrap_err().to_string(), why);
    }
    let refused = |issued: &Issued| of(issued).unwrap_err().to_string();
    assert_eq!(
        refused(&ca.issue(&["web.example"])),
        "the certificate must hold one URI, and holds web.example"
    );
    assert_eq!(
        refused(&ca.issue_uris(&[EDGE, WEB])),
        format!("the certificate must hold one URI, and holds {EDGE}, {WEB}")
    );
    let text = refused(&ca.issue_uris(&["https://web.example/\u{1b}"]));
    assert!(text.contains("does not begin with spiffe://"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn a_certificate_outside_its_time_is_read_for_its_dates() {
    let ca = Ca::new("mesh");
    let mut request = ca.request(&[]);
    request.uris = vec![EDGE.to_owned()];
    request.not_before = SystemTime::UNIX_EPOCH + 365 * DAY;
    request.not_after = SystemTime::UNIX_EPOCH + 400 * DAY;
    let leaf = of(&request.issue()).unwrap();
    assert_eq!(leaf.not_before, request.not_before);
    assert_eq!(leaf.not_after, request.not_after);
}

#[test]
fn one_root_that_is_none_takes_no_other_with_it() {
    let (one, two) = (Ca::new("one"), Ca::new("two"));
    let both = one.pem() + &two.pem();
    let last = two.pem();
    let broken = pem("CERTIFICATE", b"\x30\0");
    let texts = [
        ("Roots[0]", &both),
        ("Roots[1]", &broken),
        ("Roots[2]", &last),
    ]
    .map(|(source, text)| PemText { source, text });
    let (trusted, errors) = roots(texts);
    assert_eq!(trusted.len(), 3);
    let [error] = errors.as_slice() else {
        panic!("{errors:?}")
    };
    assert!(
        error
            .to_string()
            .starts_with("Roots[1]: certificate 1 in it cannot be trusted: "),
        "{error}"
    );
    assert!(roots([]).0.is_empty());
}

#[test]
fn no_key_is_shown_by_debug() {
    let ca = Ca::new("mesh");
    let leaf = of(&ca.issue_uris(&[EDGE])).unwrap();
    let shown = format!("{leaf:?} {:?}", Identity::new(&leaf, ca.roots()));
    assert!(shown.contains(EDGE));
    assert!(!shown.to_lowercase().contains("key"), "{shown}");
}
