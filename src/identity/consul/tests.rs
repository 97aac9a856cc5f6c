//! What is made of Consul's JSON, good and bad.

use serde_json::{Value, json};

use super::*;
use crate::tls::test_certs::{Ca, Issued as Made};

const EDGE: &str = "spiffe://one.consul/ns/default/dc/dc1/svc/edge";

fn answered<T: serde::de::DeserializeOwned>(value: Value) -> Result<Answer<T>, Error> {
    Ok(Answer {
        value: serde_json::from_value(value).unwrap(),
        index: 1,
        known_leader: true,
        last_contact: std::time::Duration::ZERO,
        stale: false,
        filtered: false,
        default_deny: false,
        token: Default::default(),
    })
}

fn trust_of(value: Value) -> Result<Trust, String> {
    trust(answered(value))
}

fn leaf_of(value: Value) -> Result<Leaf, String> {
    own_leaf(answered(value), "edge", None)
}

fn root(pem: &str) -> Value {
    json!({ "ID": "15:bf", "Name": "Consul CA Root Cert", "RootCert": pem, "IntermediateCerts": null, "Active": false })
}

fn issued(made: &Made) -> Value {
    json!({
        "SerialNumber": "08", "CertPEM": made.chain_pem, "PrivateKeyPEM": made.key_pem, "Service": "edge",
        "ServiceURI": EDGE, "ValidAfter": "2018-05-21T16:33:28Z", "Namespace": "default", "New": { "in": [1.22] },
    })
}

#[test]
fn every_root_that_is_listed_is_trusted_active_or_not() {
    let (one, two) = (Ca::new("one"), Ca::new("two"));
    let mut active = root(&one.pem());
    active["Active"] = json!(true);
    active["IntermediateCerts"] = json!([two.pem()]);
    let trust = trust_of(json!({
        "ActiveRootID": "15:bf", "TrustDomain": "one.consul", "Roots": [active, root(&two.pem())],
    }));
    let trust = trust.unwrap();
    assert_eq!(trust.domain, "one.consul");
    assert_eq!(trust.roots.len(), 2);
}

#[test]
fn one_broken_root_is_passed_over_and_none_that_serves_is_refused() {
    let good = Ca::new("one").pem();
    let list = |roots: Value| json!({ "TrustDomain": "one.consul", "Roots": roots });
    let broken = [
        root("no PEM"),
        root(""),
        json!({}),
        json!({ "RootCert": null }),
    ];
    for broken in &broken {
        let trust = trust_of(list(json!([broken, root(&good), broken])));
        assert_eq!(trust.unwrap().roots.len(), 1);
    }
    let told = trust_of(list(json!(broken))).unwrap_err();
    assert_eq!(
        told,
        "consul lists none that serves: Roots[0].RootCert: is not PEM"
    );
    for none in [json!([]), json!(null)] {
        assert_eq!(trust_of(list(none)).unwrap_err(), "consul lists none");
    }
    assert_eq!(
        trust_of(json!({ "TrustDomain": "one.consul" })).unwrap_err(),
        "consul lists none"
    );
}

#[test]
fn roots_of_nobody_are_refused() {
    let good = Ca::new("one").pem();
    for domain in [json!(null), json!("")] {
        let told = trust_of(json!({ "TrustDomain": domain, "Roots": [root(&good)] })).unwrap_err();
        assert!(told.contains("names no trust domain"), "{told}");
    }
}

#[test]
fn a_leaf_is_the_one_that_was_asked_for() {
    let ca = Ca::new("one");
    let made = ca.below("between").issue_uris(&[EDGE]);
    let leaf = leaf_of(issued(&made)).unwrap();
    assert_eq!(leaf.id.as_str(), EDGE);
    assert_eq!(leaf.certificate.cert, made.chain);

    let other = "spiffe://one.consul/ns/default/dc/dc1/svc/other";
    let mut wrong = issued(&made);
    wrong["ServiceURI"] = json!(other);
    assert_eq!(
        leaf_of(wrong).unwrap_err(),
        format!("it is for {EDGE}, and consul says for {other}")
    );
    let mut wrong = issued(&ca.issue_uris(&[other]));
    wrong["ServiceURI"] = json!(other);
    assert_eq!(
        leaf_of(wrong).unwrap_err(),
        format!("it is for another service: {other}")
    );
    for unsaid in [json!(null), json!("\u{1b}[31m")] {
        let mut wrong = issued(&made);
        wrong["ServiceURI"] = unsaid;
        let told = leaf_of(wrong).unwrap_err();
        assert!(
            told.starts_with("it is for ") && !told.contains('\u{1b}'),
            "{told}"
        );
    }
}

#[test]
fn a_leaf_with_anothers_key_or_none_is_refused_and_no_key_is_told() {
    let ca = Ca::new("one");
    let made = ca.issue_uris(&[EDGE]);
    let other = ca.issue_uris(&[EDGE]);
    let key: String = made.key_pem.lines().skip(1).take(2).collect();
    let mut wrong = issued(&made);
    wrong["CertPEM"] = json!(other.chain_pem);
    assert_eq!(
        leaf_of(wrong).unwrap_err(),
        "PrivateKeyPEM: the key does not belong to the certificate in CertPEM"
    );
    for (field, text) in [
        ("PrivateKeyPEM", ""),
        ("PrivateKeyPEM", &made.key_pem[..60]),
        ("CertPEM", &*made.key_pem),
        ("CertPEM", ""),
    ] {
        let mut wrong = issued(&made);
        wrong[field] = json!(text);
        let told = leaf_of(wrong).unwrap_err();
        assert!(told.starts_with(field), "{told}");
        assert!(!told.contains(&key[..20]), "{told}");
    }
    let shown = format!(
        "{:?}",
        serde_json::from_value::<Issued>(issued(&made)).unwrap()
    );
    assert!(
        shown.contains("MASKED") && !shown.contains(&key[..20]),
        "{shown}"
    );
}

#[test]
fn a_refusal_for_the_lack_of_a_right_names_the_right() {
    let denied = |code| Error::Status {
        api: crate::api::http::Api::Consul,
        path: "/v1/agent/connect/ca/leaf/edge".to_owned(),
        code,
        text: "Permission denied".to_owned(),
    };
    let told = own_leaf(Err(denied(403)), "edge", None).unwrap_err();
    assert!(
        told.ends_with("; the token needs service:write on `edge`"),
        "{told}"
    );
    let told = own_leaf(Err(denied(500)), "edge", None).unwrap_err();
    assert!(!told.contains("service:write"), "{told}");
}
