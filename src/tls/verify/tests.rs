//! Handshakes with peers that prove who they are, and with those that do not.

use rcgen::{CustomExtension, ExtendedKeyUsagePurpose, IsCa};
use rustls::server::ResolvesServerCert;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};

use super::*;
use crate::tls::client;
use crate::tls::refusal::describe;
use crate::tls::test_certs::{Ca, DAY, Handshake, Issued, handshake};

const WEB: &str = "spiffe://one.consul/ns/default/dc/dc1/svc/web";
const API: &str = "spiffe://one.consul/ns/default/dc/dc1/svc/api";
const FOREIGN: &str = "spiffe://two.consul/ns/default/dc/dc1/svc/web";
const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

fn web() -> Proof {
    Proof::Spiffe(SpiffeId::parse(WEB).unwrap())
}

fn any_of(names: &[AltName]) -> Proof {
    Proof::AnyOf(names.to_vec())
}

fn dialler(roots: &Arc<RootCertStore>, proof: Proof) -> Arc<ClientConfig> {
    client::from_parts(Arc::clone(roots), None, proof).unwrap()
}

fn peer(key: CertifiedKey, version: &'static SupportedProtocolVersion) -> Arc<ServerConfig> {
    let resolver: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(key));
    let builder = ServerConfig::builder_with_provider(crate::tls::provider());
    let builder = builder.with_protocol_versions(&[version]).unwrap();
    Arc::new(builder.with_no_client_auth().with_cert_resolver(resolver))
}

fn meet(
    client: &Arc<ClientConfig>,
    issued: &Issued,
    version: &'static SupportedProtocolVersion,
) -> Handshake {
    handshake(client, "unrelated.example", |_| {
        peer(issued.certified_key(), version)
    })
}

fn is_proven(roots: &Arc<RootCertStore>, proof: Proof, issued: &Issued) -> bool {
    let client = dialler(roots, proof);
    let [old, new] = VERSIONS.map(|version| meet(&client, issued, version).is_ok());
    assert_eq!(old, new, "both versions alike");
    new
}

/// What is told of a peer that is refused, over both versions of TLS.
fn refused(roots: &Arc<RootCertStore>, proof: Proof, issued: &Issued) -> String {
    let client = dialler(roots, proof);
    let [old, new] = VERSIONS.map(|version| {
        let handshake = meet(&client, issued, version);
        assert!(!handshake.is_ok());
        assert!(
            handshake.server_result.is_err(),
            "the peer is told by an alert"
        );
        let text = describe(&handshake.client_result.unwrap_err());
        // An expiry is told with its second.
        text.split(" expired at ").next().unwrap().to_owned()
    });
    assert_eq!(old, new, "both versions alike");
    new
}

#[test]
fn a_workload_that_proves_its_id_is_taken_whatever_kind_of_key_it_has() {
    let ca = Ca::new("mesh");
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let mut request = ca.request(&[]);
        request.uris = vec![WEB.to_owned()];
        request.algorithm = algorithm;
        assert!(is_proven(&ca.roots(), web(), &request.issue()));
    }
}

#[test]
fn dns_names_beside_the_id_count_for_nothing() {
    let ca = Ca::new("mesh");
    let mut request = ca.request(&["web.example", "10.0.0.1"]);
    request.uris = vec![WEB.to_owned()];
    assert!(is_proven(&ca.roots(), web(), &request.issue()));
    let named = ca.issue(&["unrelated.example"]);
    assert_eq!(
        refused(&ca.roots(), web(), &named),
        format!("the peer is not {WEB}: its certificate holds no URI, but unrelated.example")
    );
}

/// Traefik's commit 804d7514fb: the trust domain was not compared.
#[test]
fn somebody_else_is_refused_by_name() {
    let ca = Ca::new("mesh");
    let refused = |uris: &[&str]| refused(&ca.roots(), web(), &ca.issue_uris(uris));
    assert_eq!(refused(&[API]), format!("the peer is not {WEB}, but {API}"));
    assert_eq!(
        refused(&[FOREIGN]),
        format!("the peer is not {WEB}, but of another trust domain: {FOREIGN}")
    );
    assert_eq!(
        refused(&[]),
        format!("the peer is not {WEB}: its certificate holds no URI, but no name at all")
    );
    for two in [[WEB, API], [API, WEB], [WEB, WEB]] {
        assert_eq!(
            refused(&two),
            format!(
                "the peer is not {WEB} alone: its certificate holds 2 URIs: {}, {}",
                two[0], two[1]
            )
        );
    }
}

/// CVE-2025-66220 of Envoy and HAProxy's commit 6c85fb11b: of a name with a NUL in it only what stood before was compared.
#[test]
fn an_id_is_compared_byte_by_byte() {
    let ca = Ca::new("mesh");
    for near in [
        "spiffe://one.consul/ns/default/dc/dc1/svc/Web",
        "spiffe://one.consul/ns/default/dc/dc1/svc/we",
        "spiffe://one.consul/ns/default/dc/dc1/svc/web2",
        "spiffe://one.consul/ns/default/dc/dc1/svc/web/",
        "spiffe://one.consul/ns/default/dc/dc1/svc/%77eb",
        "spiffe://one.consul/ns/default/dc/dc2/svc/web",
        "spiffe://one.consul/ns/other/dc/dc1/svc/web",
        "spiffe://one.consul/ap/p/ns/default/dc/dc1/svc/web",
        "spiffe://ONE.consul/ns/default/dc/dc1/svc/web",
        "SPIFFE://one.consul/ns/default/dc/dc1/svc/web",
        "spiffe://one.consul/ns/default/dc/dc1/svc/web\0",
        "",
    ] {
        let text = refused(&ca.roots(), web(), &ca.issue_uris(&[near]));
        assert!(text.contains(&format!("not {WEB}, but ")), "{near}: {text}");
        assert!(!text.contains('\0'), "{text:?}");
    }
}

/// A subject alternative name extension with what rcgen would not write: pairs of tag and bytes.
fn names(names: &[(u8, &[u8])]) -> CustomExtension {
    let der = |tag: u8, bytes: &[u8]| [&[tag, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    let list: Vec<u8> = names
        .iter()
        .flat_map(|(tag, name)| der(*tag, name))
        .collect();
    CustomExtension::from_oid_content(&[2, 5, 29, 17], der(0x30, &list))
}

#[test]
fn a_second_uri_that_is_no_text_or_no_valid_der_does_not_hide() {
    let ca = Ca::new("mesh");
    let uri = 0x86;
    let id = (uri, WEB.as_bytes());
    let issue = |list: &[(u8, &[u8])]| {
        let extension = names(list);
        ca.request(&[])
            .issue_with(|params| params.custom_extensions.push(extension))
    };
    assert!(is_proven(&ca.roots(), web(), &issue(&[id])));
    let text = refused(&ca.roots(), web(), &issue(&[id, (uri, b"\xff\x1b[31m")]));
    assert!(text.contains("holds 2 URIs"), "{text}");
    assert!(text.ends_with(r"\xff\x1b[31m"), "{text}");
    // A form that no certificate may have: one parser stops there, the other does not.
    let text = refused(&ca.roots(), web(), &issue(&[id, (0xa6, b"x")]));
    assert!(text.contains("holds 2 URIs"), "{text}");
    // A name of a kind that nobody knows is no URI.
    assert!(is_proven(&ca.roots(), web(), &issue(&[id, (0x8f, b"x")])));
}

/// CVE-2025-66220 of Envoy, once more, for the other kinds of name: two halves around a NUL are one name, and none of ours.
#[test]
fn a_name_that_goes_on_behind_a_nul_is_not_the_part_before_it() {
    let ca = Ca::new("ca");
    let (dns, uri, address) = (0x82, 0x86, 0x87);
    let issue = |kind: u8, name: &[u8]| {
        let extension = names(&[(kind, name)]);
        ca.request(&[])
            .issue_with(|params| params.custom_extensions.push(extension))
    };
    let host = || any_of(&[AltName::Dns(HostName::parse("db.internal").unwrap())]);
    let wanted_uri = || any_of(&[AltName::Uri(WEB.to_owned())]);
    let ip = || any_of(&[AltName::Ip("10.0.0.5".parse().unwrap())]);
    assert!(is_proven(&ca.roots(), host(), &issue(dns, b"db.internal")));
    assert!(is_proven(
        &ca.roots(),
        ip(),
        &issue(address, &[10, 0, 0, 5])
    ));
    for (wanted, kind, name) in [
        (host(), dns, &b"db.internal\0"[..]),
        (host(), dns, b"db.internal\0.evil.test"),
        (host(), dns, b"*\0.internal"),
        (host(), uri, b"db.internal"),
        (ip(), address, &[10, 0, 0, 5, 0]),
        (ip(), dns, b"10.0.0.5"),
        (wanted_uri(), uri, &[WEB.as_bytes(), b"\0/evil"].concat()),
    ] {
        let text = refused(&ca.roots(), wanted, &issue(kind, name));
        assert!(!text.contains('\0'), "{text:?}");
    }
}

#[test]
fn what_a_peer_says_of_itself_is_escaped_and_cut() {
    let ca = Ca::new("mesh");
    let long = format!("spiffe://one.consul/\u{1b}[31m{}", "a".repeat(1000));
    let uris = [&*long; 9];
    let text = refused(&ca.roots(), web(), &ca.issue_uris(&uris));
    assert!(text.contains(r"\x1b[31m"), "{text}");
    assert!(text.ends_with(" and 4 more"), "{text}");
    assert!(text.len() < 1000, "{}", text.len());
}

#[test]
fn a_chain_is_followed_through_the_peers_intermediates_to_any_of_the_roots() {
    let (old, new) = (Ca::new("old"), Ca::new("new"));
    let mut both = RootCertStore::empty();
    for ca in [&old, &new] {
        both.extend(ca.roots().roots.iter().cloned());
    }
    let both = Arc::new(both);
    for ca in [&old, &new] {
        let mut issued = ca.below("one").below("two").issue_uris(&[WEB]);
        issued.chain.pop();
        assert_eq!(issued.chain.len(), 3);
        assert!(is_proven(&both, web(), &issued));
        issued.chain.remove(1);
        let text = refused(&both, web(), &issued);
        assert!(
            text.contains("leads to no CA that is trusted here"),
            "{text}"
        );
    }
}

#[test]
fn a_certificate_of_an_unknown_ca_is_refused() {
    let (ours, theirs) = (Ca::new("mesh"), Ca::new("other"));
    assert_eq!(
        refused(&ours.roots(), web(), &theirs.issue_uris(&[WEB])),
        "the peer's certificate leads to no CA that is trusted here"
    );
    let pretender = Ca::new("mesh");
    let text = refused(&ours.roots(), web(), &pretender.issue_uris(&[WEB]));
    assert!(
        text.contains("another CA with the name of a trusted one"),
        "{text}"
    );
}

#[test]
fn a_certificate_outside_its_time_is_refused() {
    let ca = Ca::new("mesh");
    let mut request = ca.request(&[]);
    request.uris = vec![WEB.to_owned()];
    request.not_after = request.not_before + DAY / 2;
    assert_eq!(
        refused(&ca.roots(), web(), &request.issue()),
        "the peer's certificate, or one above it,"
    );
    request.not_after += 300 * DAY;
    request.not_before += 2 * DAY;
    let text = refused(&ca.roots(), web(), &request.issue());
    assert!(text.contains("is not valid before "), "{text}");
}

#[test]
fn a_certificate_for_clients_only_is_refused() {
    let ca = Ca::new("mesh");
    let mut request = ca.request(&[]);
    request.uris = vec![WEB.to_owned()];
    let issue = |purposes: Vec<ExtendedKeyUsagePurpose>| {
        request.issue_with(|params| params.extended_key_usages = purposes)
    };
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    assert!(is_proven(
        &ca.roots(),
        web(),
        &issue(vec![ClientAuth, ServerAuth])
    ));
    let text = refused(&ca.roots(), web(), &issue(vec![ClientAuth]));
    assert!(text.contains("for another purpose"), "{text}");
}

#[test]
fn a_ca_is_no_workload() {
    let ca = Ca::new("mesh");
    let mut request = ca.request(&[]);
    request.uris = vec![WEB.to_owned()];
    let issued = request.issue_with(|params| {
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    assert_eq!(
        refused(&ca.roots(), web(), &issued),
        "the peer's certificate is a CA's own, which no server may show"
    );
}

#[test]
fn a_ca_that_constrains_uris_is_refused_with_the_remedy() {
    // NameConstraints { permittedSubtrees [0] { GeneralSubtree { base URI [6] } } } (RFC 5280 §4.2.1.10).
    let uri = b"one.consul";
    let length = u8::try_from(uri.len()).unwrap();
    let head = [
        0x30,
        length + 6,
        0xa0,
        length + 4,
        0x30,
        length + 2,
        0x86,
        length,
    ];
    let ca = Ca::with("mesh", |params| {
        let mut constraint =
            CustomExtension::from_oid_content(&[2, 5, 29, 30], [&head, &uri[..]].concat());
        constraint.set_criticality(true);
        params.custom_extensions.push(constraint);
    });
    let text = refused(&ca.roots(), web(), &ca.issue_uris(&[WEB]));
    assert!(
        text.contains("constrains URIs, which webpki always rejects"),
        "{text}"
    );
    assert!(
        text.contains("issued without a URI name constraint"),
        "{text}"
    );
}

#[test]
fn a_ca_that_constrains_dns_names_does_no_harm() {
    let ca = Ca::with("mesh", |params| {
        params.name_constraints = Some(rcgen::NameConstraints {
            permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("one.consul".to_owned())],
            excluded_subtrees: Vec::new(),
        });
    });
    assert!(is_proven(&ca.roots(), web(), &ca.issue_uris(&[WEB])));
}

#[test]
fn a_certificate_without_its_key_proves_nothing() {
    let ca = Ca::new("mesh");
    let stolen = ca.issue_uris(&[WEB]).certified_key().cert;
    let own = ca.issue_uris(&[API]).certified_key().key;
    let client = dialler(&ca.roots(), web());
    for version in VERSIONS {
        let pair = CertifiedKey::new(stolen.clone(), Arc::clone(&own));
        let met = handshake(&client, "unrelated.example", |_| peer(pair, version));
        let error = met.client_result.unwrap_err();
        assert_eq!(
            error,
            Error::InvalidCertificate(CertificateError::BadSignature)
        );
    }
}

#[test]
fn one_of_several_names_is_enough_and_none_is_not() {
    let ca = Ca::new("ca");
    let dns = |name: &str| AltName::Dns(HostName::parse(name).unwrap());
    let wanted = any_of(&[
        dns("db.prod.internal"),
        AltName::Ip("10.0.0.5".parse().unwrap()),
        AltName::Ip("2001:db8::5".parse().unwrap()),
        AltName::Uri(WEB.to_owned()),
    ]);
    for names in [
        &["db.prod.internal", "other.prod.internal"][..],
        &["*.prod.internal"],
        &["10.0.0.5"],
        &["2001:db8::5"],
    ] {
        assert!(
            is_proven(&ca.roots(), wanted.clone(), &ca.issue(names)),
            "{names:?}"
        );
    }
    assert!(is_proven(
        &ca.roots(),
        wanted.clone(),
        &ca.issue_uris(&[API, WEB])
    ));
    assert_eq!(
        refused(
            &ca.roots(),
            wanted.clone(),
            &ca.issue(&["db.prod.internal.evil.test", "10.0.0.50"])
        ),
        format!(
            "the peer's certificate is not for db.prod.internal or 10.0.0.5 or 2001:db8::5 or {WEB}, but for \
             db.prod.internal.evil.test, 10.0.0.50"
        )
    );
    let text = refused(&ca.roots(), wanted.clone(), &ca.issue_uris(&[API]));
    assert!(text.ends_with(&format!("but for {API}")), "{text}");
    let text = refused(
        &ca.roots(),
        wanted,
        &Ca::new("other").issue(&["db.prod.internal"]),
    );
    assert!(text.contains("leads to no CA"), "{text}");
}

#[test]
fn the_common_name_is_no_name() {
    let ca = Ca::new("ca");
    let issued = ca.request(&[]).issue_with(|params| {
        let name = &mut params.distinguished_name;
        name.push(rcgen::DnType::CommonName, "db.prod.internal");
    });
    let wanted = any_of(&[AltName::Dns(HostName::parse("db.prod.internal").unwrap())]);
    let text = refused(&ca.roots(), wanted, &issued);
    assert!(text.ends_with("but for no name at all"), "{text}");
}

#[test]
fn a_verifier_that_is_given_nothing_to_prove_takes_nobody() {
    let ca = Ca::new("ca");
    for proof in [Proof::ServerName, Proof::AnyOf(Vec::new())] {
        let verifier = Verifier::new(ca.roots(), proof);
        let issued = ca.issue(&["unrelated.example"]);
        assert!(verifier.demand.check(&issued.chain[0]).is_err());
    }
}
