//! Which certificate a client gets, by name, by what it can check, and by time.

use proptest::prelude::*;
use rustls::crypto::CryptoProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, SupportedCipherSuite, SupportedProtocolVersion};

use super::*;
use crate::name::WildcardDepth;
use crate::tls;
use crate::tls::options::{Options, Version};
use crate::tls::server::ServerPolicy;
use crate::tls::test_certs::{Ca, DAY, Handshake, Issued, Request, handshake};
use crate::tls::verify::Proof;

fn index(issued: &[&Issued]) -> Certificates {
    Certificates::new(issued.iter().map(|one| one.certificate()).collect())
}

fn rsa<'a>(ca: &'a Ca, names: &[&str]) -> Request<'a> {
    let mut request = ca.request(names);
    request.algorithm = &rcgen::PKCS_RSA_SHA256;
    request
}

fn client(
    ca: &Ca,
    provider: CryptoProvider,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_protocol_versions(versions).unwrap();
    Arc::new(
        builder
            .with_root_certificates(ca.roots())
            .with_no_client_auth(),
    )
}

fn meet(certificates: Certificates, client: &Arc<ClientConfig>, name: &str) -> Handshake {
    meet_under(&Options::default(), certificates, client, name)
}

fn meet_under(
    options: &Options,
    certificates: Certificates,
    client: &Arc<ClientConfig>,
    name: &str,
) -> Handshake {
    let policy = ServerPolicy::new(options, Arc::new(certificates), None).unwrap();
    handshake(client, name, |_| Arc::clone(policy.config(&[])))
}

/// The leaf that a client of everything gets.
fn leaf(certificates: Certificates, ca: &Ca, name: &str) -> Option<Vec<u8>> {
    let client = tls::client::from_parts(ca.roots(), None, Proof::ServerName).unwrap();
    meet(certificates, &client, name)
        .leaf()
        .map(|leaf| leaf.to_vec())
}

/// The key kinds that a client can check, as it says in its hello (in TLS 1.2, by its suites too).
fn only(
    keep: fn(SignatureScheme) -> bool,
    suites: fn(&SupportedCipherSuite) -> bool,
) -> CryptoProvider {
    let mut provider = (*tls::provider()).clone();
    let all = provider.signature_verification_algorithms.mapping;
    let kept: Vec<_> = all
        .iter()
        .copied()
        .filter(|(scheme, _)| keep(*scheme))
        .collect();
    provider.signature_verification_algorithms.mapping = kept.leak();
    provider.cipher_suites.retain(suites);
    provider
}

fn is_rsa_pss(scheme: SignatureScheme) -> bool {
    use SignatureScheme::{RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512};
    matches!(scheme, RSA_PSS_SHA256 | RSA_PSS_SHA384 | RSA_PSS_SHA512)
}

fn is_tls13_or_rsa(suite: &SupportedCipherSuite) -> bool {
    !format!("{:?}", suite.suite()).contains("ECDSA")
}

fn is_tls12_rsa(suite: &SupportedCipherSuite) -> bool {
    suite.tls13().is_none() && is_tls13_or_rsa(suite)
}

#[test]
fn exact_comes_before_wildcard_before_nothing() {
    let ca = Ca::new("ca");
    let mut request = ca.request(&["*.example.com"]);
    request.not_after += 100 * DAY;
    let (exact, wildcard) = (ca.issue(&["a.example.com"]), request.issue());
    for (name, expected) in [
        ("a.example.com", Some(&exact)),
        ("A.Example.COM", Some(&exact)),
        ("b.example.com", Some(&wildcard)),
        ("example.com", None),
        ("a.b.example.com", None),
    ] {
        for order in [[&wildcard, &exact], [&exact, &wildcard]] {
            let expected = expected.map(|issued| issued.chain[0].to_vec());
            assert_eq!(leaf(index(&order), &ca, name), expected, "{name}");
        }
    }
}

#[test]
fn exact_comes_before_wildcard_whatever_the_key() {
    let ca = Ca::new("ca");
    let exact = rsa(&ca, &["a.example.com"]).issue();
    let wildcard = ca.issue(&["*.example.com"]);
    let expected = Some(exact.chain[0].to_vec());
    assert_eq!(
        leaf(index(&[&wildcard, &exact]), &ca, "a.example.com"),
        expected
    );
}

#[test]
fn a_trailing_dot_finds_the_same_certificate() {
    let ca = Ca::new("ca");
    let issued = ca.issue(&["a.example.com"]);
    let expected = Some(issued.chain[0].to_vec());
    assert_eq!(leaf(index(&[&issued]), &ca, "a.example.com."), expected);
}

#[test]
fn a_name_without_a_certificate_and_a_hello_without_a_name_are_refused() {
    let ca = Ca::new("ca");
    let issued = ca.issue(&["a.example.com"]);
    let client = tls::client::from_parts(ca.roots(), None, Proof::ServerName).unwrap();
    for name in ["b.example.com", "10.0.0.1"] {
        let handshake = meet(index(&[&issued]), &client, name);
        assert!(handshake.server_result.is_err(), "{name}");
        assert_eq!(handshake.leaf(), None, "{name}");
    }
}

#[test]
fn the_longest_lived_is_served_among_equals() {
    let ca = Ca::new("ca");
    let mut request = ca.request(&["a.example.com"]);
    let short = request.issue();
    request.not_after += DAY;
    let long = request.issue();
    for order in [[&short, &long], [&long, &short]] {
        let expected = Some(long.chain[0].to_vec());
        assert_eq!(leaf(index(&order), &ca, "a.example.com"), expected);
    }
}

#[test]
fn one_that_is_not_valid_now_comes_last_but_is_served_when_there_is_no_other() {
    let ca = Ca::new("ca");
    let now = SystemTime::now();
    let mut request = ca.request(&["a.example.com"]);
    request.not_before = now + DAY;
    request.not_after = now + 900 * DAY;
    let future = request.issue().certificate();
    (request.not_before, request.not_after) = (now - 9 * DAY, now - DAY);
    let expired = request.issue().certificate();
    let wildcard = rsa(&ca, &["*.example.com"]).issue().certificate();
    let name = HostName::parse("a.example.com").unwrap();
    let schemes = [
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::RSA_PSS_SHA256,
    ];
    let served = |certificates: &[&Certificate]| {
        let index = Certificates::new(certificates.iter().map(|one| (*one).clone()).collect());
        assert!(index.covers(Some(&name)));
        Arc::clone(&index.choose(Some(&name), &schemes, now).unwrap().key)
    };
    assert!(Arc::ptr_eq(
        &served(&[&future, &expired, &wildcard]),
        &wildcard.key
    ));
    assert!(Arc::ptr_eq(&served(&[&expired]), &expired.key));
    assert!(Arc::ptr_eq(&served(&[&expired, &future]), &future.key));
}

#[test]
fn a_client_of_rsa_alone_gets_rsa_and_every_other_ecdsa() {
    let ca = Ca::new("ca");
    let ecdsa = ca.issue(&["a.example.com"]);
    let mut request = rsa(&ca, &["a.example.com"]);
    request.not_after += 100 * DAY;
    let rsa = request.issue();
    let everything = || (*tls::provider()).clone();
    for (provider, version, expected) in [
        (everything(), &TLS12, &ecdsa),
        (everything(), &TLS13, &ecdsa),
        (only(is_rsa_pss, |_| true), &TLS12, &rsa),
        (only(is_rsa_pss, |_| true), &TLS13, &rsa),
        (only(|_| true, is_tls12_rsa), &TLS12, &rsa),
    ] {
        let client = client(&ca, provider, &[version]);
        for order in [[&ecdsa, &rsa], [&rsa, &ecdsa]] {
            let handshake = meet(index(&order), &client, "a.example.com");
            assert!(
                handshake.is_ok(),
                "{version:?}: {:?}",
                handshake.server_result
            );
            assert_eq!(handshake.leaf(), expected.chain.first(), "{version:?}");
        }
    }
}

#[test]
fn suites_of_a_version_that_the_policy_forbids_do_not_mislead_the_choice() {
    let ca = Ca::new("ca");
    let (ecdsa, rsa) = (
        ca.issue(&["a.example.com"]),
        rsa(&ca, &["a.example.com"]).issue(),
    );
    let options = Options {
        max_version: Version::Tls12,
        ..Options::default()
    };
    let client = client(&ca, only(|_| true, is_tls13_or_rsa), &[&TLS13, &TLS12]);
    let handshake = meet_under(&options, index(&[&ecdsa, &rsa]), &client, "a.example.com");
    assert_eq!(
        handshake.leaf(),
        rsa.chain.first(),
        "{:?}",
        handshake.server_result
    );
}

#[test]
fn a_wildcard_that_the_client_can_check_serves_where_the_exact_one_cannot() {
    let ca = Ca::new("ca");
    let exact = ca.issue(&["a.example.com"]);
    let wildcard = rsa(&ca, &["*.example.com"]).issue();
    let client = client(&ca, only(is_rsa_pss, |_| true), &[&TLS13]);
    let handshake = meet(index(&[&exact, &wildcard]), &client, "a.example.com");
    assert_eq!(handshake.leaf(), wildcard.chain.first());
    let handshake = meet(index(&[&exact]), &client, "a.example.com");
    assert!(handshake.server_result.is_err());
}

#[test]
fn certificates_are_listed_in_the_order_given_without_those_that_prove_nothing() {
    let ca = Ca::new("ca");
    let mut nothing = ca.issue(&["a.example.com"]).certificate();
    nothing.names = vec![HostPattern::Any, HostPattern::Never("10.0.0.1".into())];
    let (b, a) = (
        ca.issue(&["b.example.com", "*.b.example.com"]),
        ca.issue(&["a.example.com"]),
    );
    let index = Certificates::new(vec![b.certificate(), nothing, a.certificate()]);
    let listed: Vec<_> = index.iter().map(|one| one.key.cert.clone()).collect();
    assert_eq!(listed, [b.chain, a.chain]);
    assert!(!index.covers(Some(&HostName::parse("c.example.com").unwrap())));
}

proptest! {
    /// There is one matcher: a certificate covers exactly the names that its patterns match in a rule.
    #[test]
    fn a_certificate_covers_what_the_same_patterns_match_in_a_rule(
        sans in prop::collection::vec("(\\*\\.)?[aAb]{1,2}(\\.[aAb]){0,2}\\.?", 1..4),
        name in "[aAb*]{1,2}(\\.[aAb]){0,3}\\.?",
    ) {
        thread_local!(static PAIR: Certificate = Ca::new("ca").issue(&["a.example.com"]).certificate());
        let mut certificate = PAIR.with(Clone::clone);
        certificate.names = sans.iter().map(|san| HostPattern::parse(san).unwrap()).collect();
        if let Ok(name) = HostName::parse(&name) {
            let matched = certificate.names.iter().any(|own| own.matches(Some(&name), WildcardDepth::One));
            prop_assert_eq!(Certificates::new(vec![certificate]).covers(Some(&name)), matched);
        }
    }
}
