//! What a list of cipher suites comes to.

use super::*;

fn named(list: &str) -> Vec<&'static str> {
    Ciphers::parse(list).0.names().collect()
}

fn unused(list: &str) -> Vec<(String, Why)> {
    let unused = Ciphers::parse(list).1.into_iter();
    unused
        .map(|group| (group.parts.join(" "), group.why))
        .collect()
}

#[test]
fn every_suite_that_is_built_in_has_openssls_name() {
    let built_in = crate::tls::provider();
    let mut built_in: Vec<_> = built_in
        .cipher_suites
        .iter()
        .map(|one| one.suite())
        .collect();
    let mut ours: Vec<_> = SUITES.iter().map(|suite| suite.suite).collect();
    built_in.sort_unstable_by_key(|suite| u16::from(*suite));
    ours.sort_unstable_by_key(|suite| u16::from(*suite));
    assert_eq!(built_in, ours);
}

#[test]
fn a_list_is_obeyed_in_its_order() {
    assert_eq!(
        named("ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256"),
        [
            "ECDHE-ECDSA-AES256-GCM-SHA384",
            "ECDHE-RSA-AES128-GCM-SHA256"
        ]
    );
    assert_eq!(
        named("ECDHE+CHACHA20, aRSA+AESGCM !AES128 TLS_AES_256_GCM_SHA384"),
        [
            "ECDHE-ECDSA-CHACHA20-POLY1305",
            "ECDHE-RSA-CHACHA20-POLY1305",
            "ECDHE-RSA-AES256-GCM-SHA384",
            "TLS_AES_256_GCM_SHA384"
        ]
    );
    assert_eq!(
        named("aRSA:+AES128:-CHACHA20:@STRENGTH"),
        ["ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256"]
    );
    // What `!` has forbidden comes back by nothing, what `-` has taken away does.
    assert_eq!(named("!aRSA:ALL:-ECDSA:ALL").len(), 3);
    assert_eq!(named("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256").len(), 1);
    assert!(named("").is_empty());
}

/// nginx's own default, Mozilla's "intermediate", and a cluster's that names one suite first.
#[test]
fn lists_that_people_have_are_understood() {
    assert_eq!(named("HIGH:!aNULL:!MD5").len(), 6);
    assert_eq!(unused("HIGH:!aNULL:!MD5"), []);
    let list = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:\
                ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:\
                DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:DHE-RSA-CHACHA20-POLY1305";
    assert_eq!(named(list).len(), 6);
    let [(parts, why)] = &unused(list)[..] else {
        panic!("{:?}", unused(list));
    };
    assert_eq!(*why, Why::FiniteField);
    assert_eq!(parts.split(' ').count(), 3);
}

#[test]
fn what_brings_nothing_is_named_with_its_reason() {
    for (part, reason) in [
        ("ECDHE-RSA-AES256-SHA384", Why::Cbc),
        ("ECDHE-ECDSA-AES128-SHA", Why::Cbc),
        ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", Why::Cbc),
        ("SHA384", Why::Cbc),
        ("AES128-GCM-SHA256", Why::NoForwardSecrecy),
        ("AES256-SHA", Why::NoForwardSecrecy),
        ("kRSA+AESGCM", Why::NoForwardSecrecy),
        ("DHE-RSA-AES128-SHA", Why::FiniteField),
        ("EDH+AESGCM", Why::FiniteField),
        ("DES-CBC3-SHA", Why::Broken),
        ("ECDHE-RSA-DES-CBC3-SHA", Why::Broken),
        ("RC4-MD5", Why::Broken),
        ("ECDHE-ECDSA-AES128-CCM", Why::NotBuiltIn),
        ("ECDHE-PSK-CHACHA20-POLY1305", Why::NotBuiltIn),
        ("ECDHE-ECDSA-CAMELLIA128-SHA256", Why::NotBuiltIn),
        ("ECDSA+aRSA", Why::NotBuiltIn),
        ("@SECLEVEL=1", Why::Level),
        ("ECDHE-RSA-AES256-GCM-SHA348", Why::Unknown),
        ("!ANULL", Why::Unknown),
        ("!DEFAULT", Why::Place),
        ("!TLSv1.3", Why::Unknown),
        ("@STRENGTH!AES128", Why::Glued),
        ("@STRENGTH+AES", Why::Glued),
        ("SUITEB192:HIGH", Why::SuiteB),
        ("-é", Why::Malformed),
        ("ECDHE+", Why::Malformed),
        ("!", Why::Malformed),
        ("@SECLEVEL=6", Why::Malformed),
        ("@WEAKNESS", Why::Malformed),
    ] {
        let noted = part.split(':').next().unwrap();
        assert_eq!(unused(part), [(noted.to_owned(), reason)]);
        assert!(named(part).is_empty(), "{part}");
    }
    // Twice, or forbidden before, is no mistake.
    assert_eq!(unused("AES256:HIGH:HIGH"), []);
    assert_eq!(unused("!AES256:ECDHE-RSA-AES256-GCM-SHA384"), []);
}

#[test]
fn of_a_version_of_which_nothing_is_named_tls_1_3_alone_keeps_its_suites() {
    let left = |list: &str| {
        let mut provider = (*crate::tls::provider()).clone();
        Ciphers::parse(list).0.restrict(&mut provider);
        let suites = provider.cipher_suites.iter().map(|suite| suite.suite());
        suites.collect::<Vec<_>>()
    };
    let of_tls12 = left("ECDHE-RSA-CHACHA20-POLY1305:ECDHE-RSA-AES128-GCM-SHA256");
    assert_eq!(of_tls12.iter().filter(|suite| is_tls13(**suite)).count(), 3);
    assert_eq!(
        of_tls12[3..],
        [
            CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        ]
    );
    assert_eq!(
        left("TLS_AES_256_GCM_SHA384"),
        [CipherSuite::TLS13_AES_256_GCM_SHA384]
    );
}

#[test]
fn what_is_forbidden_of_tls_1_3_is_forbidden_where_none_of_it_is_named() {
    let left = |list: &str| {
        let mut provider = (*crate::tls::provider()).clone();
        let (ciphers, unused) = Ciphers::parse(list);
        assert_eq!(unused, [], "{list}");
        ciphers.restrict(&mut provider);
        let of_tls13 = |suite: &rustls::SupportedCipherSuite| suite.suite();
        let suites = provider.cipher_suites.iter().map(of_tls13);
        suites.filter(|suite| is_tls13(*suite)).collect::<Vec<_>>()
    };
    let aes256 = [CipherSuite::TLS13_AES_256_GCM_SHA384];
    for list in [
        "HIGH:!TLS_AES_128_GCM_SHA256:!TLS_CHACHA20_POLY1305_SHA256",
        "!TLS_AES_128_GCM_SHA256:HIGH:-TLS_CHACHA20_POLY1305_SHA256",
        "HIGH!TLS_AES_128_GCM_SHA256!TLS_CHACHA20_POLY1305_SHA256",
    ] {
        assert_eq!(left(list), aes256, "{list}");
    }
    assert_eq!(left("HIGH:!AES128:!CHACHA20").len(), 3);
    let none = "HIGH:!TLS_AES_128_GCM_SHA256:!TLS_AES_256_GCM_SHA384:!TLS_CHACHA20_POLY1305_SHA256";
    assert_eq!(left(none), []);
    assert!(!Ciphers::parse(none).0.has_tls13());
}
