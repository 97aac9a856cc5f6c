//! Certificate and root files: what loads, and what each broken one is told.

use super::*;
use crate::tls::test_certs::{Ca, DAY, Issued, pem, write};
use std::os::unix::fs::PermissionsExt;

fn load(issued: &Issued) -> Result<Certificate, FileError> {
    let directory = tempfile::tempdir().unwrap();
    let (chain, key) = issued.write(directory.path(), "edge");
    Certificate::load(&chain, &KeyFile::from(key))
}

fn names(certificate: &Certificate) -> Vec<String> {
    certificate.names.iter().map(ToString::to_string).collect()
}

#[test]
fn every_kind_and_form_of_key_loads() {
    let ca = Ca::new("ca");
    for (algorithm, older_form) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, Some("EC PRIVATE KEY")),
        (&rcgen::PKCS_ECDSA_P384_SHA384, Some("EC PRIVATE KEY")),
        (&rcgen::PKCS_ED25519, None),
        (&rcgen::PKCS_RSA_SHA256, Some("RSA PRIVATE KEY")),
    ] {
        let mut request = ca.request(&["a.example.com"]);
        request.algorithm = algorithm;
        let mut issued = request.issue();
        assert_eq!(load(&issued).unwrap().warnings, [""; 0]);
        if let Some(label) = older_form {
            issued.key_pem = issued.older_key_pem(label);
            assert_eq!(names(&load(&issued).unwrap()), ["a.example.com"]);
        }
    }
}

#[test]
fn the_names_are_the_dns_sans_in_their_one_form_and_addresses_are_passed_over() {
    let issued = Ca::new("ca").issue(&[
        "A.Example.com",
        "*.example.com",
        "10.0.0.1",
        "*",
        "a.example.com",
    ]);
    assert_eq!(
        names(&load(&issued).unwrap()),
        ["a.example.com", "*.example.com"]
    );
}

#[test]
fn a_certificate_without_a_dns_san_is_refused_whatever_its_common_name_says() {
    for sans in [&[][..], &["10.0.0.1"], &["*"]] {
        let error = load(&Ca::new("ca").issue(sans)).unwrap_err();
        assert!(
            error.message.starts_with("the certificate names no host"),
            "{error}"
        );
        assert!(error.help.unwrap().contains("subjectAltName=DNS:HOST"));
    }
}

#[test]
fn an_expired_certificate_loads_with_its_dates() {
    let ca = Ca::new("ca");
    let mut request = ca.request(&["a.example.com"]);
    request.not_before = SystemTime::UNIX_EPOCH + 365 * DAY;
    request.not_after = SystemTime::UNIX_EPOCH + 400 * DAY;
    let certificate = load(&request.issue()).unwrap();
    assert_eq!(certificate.not_before, request.not_before);
    assert_eq!(certificate.not_after, request.not_after);
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let ca = Ca::new("ca");
    let mut issued = ca.issue(&["a.example.com"]);
    issued.key_pem = ca.issue(&["a.example.com"]).key_pem;
    let error = load(&issued).unwrap_err();
    assert!(error.path.ends_with("edge.key"), "{error}");
    assert!(
        error
            .message
            .starts_with("the key does not belong to the certificate in "),
        "{error}"
    );
    assert!(
        error
            .help
            .unwrap()
            .contains("if they were just renewed, write both")
    );
}

#[test]
fn a_chain_that_does_not_begin_with_the_servers_own_certificate_is_told_which_does() {
    let ca = Ca::new("ca");
    let mut issued = ca.issue(&["a.example.com"]);
    let leaf = issued.chain_pem.strip_suffix(&ca.pem()).unwrap();
    issued.chain_pem = format!("{}{leaf}", ca.pem());
    let error = load(&issued).unwrap_err();
    assert_eq!(
        error.message,
        "the certificate of the key is number 2 in the chain, not the first"
    );
}

#[test]
fn a_certificate_with_bytes_after_its_end_and_one_that_is_none_are_refused() {
    let mut issued = Ca::new("ca").issue(&["a.example.com"]);
    let mut der = issued.chain[0].to_vec();
    der.push(0);
    for der in [der, vec![0x30, 0]] {
        issued.chain_pem = pem("CERTIFICATE", &der);
        let error = load(&issued).unwrap_err();
        assert_eq!(
            error.message,
            "section 1 of the chain is not an X.509 certificate"
        );
    }
}

#[test]
fn a_key_that_is_damaged_or_of_an_unknown_kind_is_refused() {
    let mut issued = Ca::new("ca").issue(&["a.example.com"]);
    issued.key_pem = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n".to_owned();
    let error = load(&issued).unwrap_err();
    assert_eq!(
        error.message,
        "the key is damaged, or of a kind that TLS does not use"
    );
    assert!(
        error
            .help
            .unwrap()
            .contains("ECDSA (P-256, P-384, P-521), Ed25519 or RSA")
    );
}

#[test]
fn chain_and_key_may_stand_in_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let issued = Ca::new("ca").issue(&["a.example.com"]);
    let both = write(
        directory.path(),
        "edge.pem",
        format!("{}{}", issued.key_pem, issued.chain_pem),
    );
    let certificate = Certificate::load(&both, &KeyFile::from(&both)).unwrap();
    assert_eq!(certificate.warnings, [""; 0]);
    assert_eq!(certificate.key.cert, issued.chain);
}

#[test]
fn what_serves_but_should_be_mended_is_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let mut issued = Ca::new("ca").issue(&["a.example.com"]);
    issued.chain_pem.push_str(&issued.key_pem);
    let (chain, key) = issued.write(directory.path(), "edge");
    let loaded = Certificate::load(&chain, &KeyFile::from(key)).unwrap();
    let [unused] = <[String; 1]>::try_from(loaded.warnings).unwrap();
    assert!(
        unused.ends_with("edge.pem: holds a private key too, which is not used"),
        "{unused}"
    );
}

#[test]
fn a_key_that_others_may_read_or_change_is_refused_with_the_chmod_to_run() {
    let directory = tempfile::tempdir().unwrap();
    let issued = Ca::new("ca").issue(&["a.example.com"]);
    let (chain, key) = issued.write(directory.path(), "edge");
    let load = |mode| {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        Certificate::load(&chain, &KeyFile::from(&key)).map(drop)
    };
    for mode in [0o400, 0o600] {
        assert_eq!(load(mode), Ok(()), "{mode:o}");
    }
    // The group of root's files may be meant to read them; nobody's is to change them.
    let is_root = rustix::process::geteuid().is_root();
    for mode in [0o440, 0o640] {
        assert_eq!(load(mode).is_ok(), is_root, "{mode:o}");
    }
    let error = load(0o660).unwrap_err();
    assert!(error.message.starts_with("its group may change"), "{error}");
    let line = if is_root {
        "run: chmod 640"
    } else {
        "run: chmod 600"
    };
    assert!(error.help.unwrap().starts_with(line));
    for (mode, may) in [(0o644, "read"), (0o604, "read"), (0o602, "change")] {
        let error = load(mode).unwrap_err();
        assert_eq!(error.path, key);
        let says = format!("every user of this machine may {may} this file");
        assert!(error.message.starts_with(&says), "{error}");
        let help = error.help.unwrap();
        assert_eq!(help, format!("run: chmod 600 {}", key.display()));
    }
    // Kubernetes mounts a Secret so, through links, unless it is told otherwise.
    let mounted = directory.path().join("mounted");
    std::fs::create_dir(&mounted).unwrap();
    std::os::unix::fs::symlink("..", mounted.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/edge.key", mounted.join("edge.key")).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let link = KeyFile::from(mounted.join("edge.key"));
    let error = Certificate::load(&chain, &link).unwrap_err();
    assert!(error.help.unwrap().contains("`defaultMode: 0440`"));
    // A chain is for everybody.
    std::fs::set_permissions(&chain, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(load(0o600), Ok(()));
}

#[test]
fn a_ca_certificate_served_as_a_servers_is_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let mut params = rcgen::CertificateParams::new(["a.example.com".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let signer = rcgen::KeyPair::generate().unwrap();
    let own = params.self_signed(&signer).unwrap().pem();
    let file = write(directory.path(), "edge.pem", own + &signer.serialize_pem());
    let warnings = Certificate::load(&file, &KeyFile::from(&file))
        .unwrap()
        .warnings;
    assert!(
        warnings[0].ends_with("the certificate is a CA's; many clients refuse it as a server's")
    );
}

#[test]
fn roots_are_read_from_every_file_and_each_must_hold_one() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (Ca::new("one"), Ca::new("two"));
    let files = [
        write(directory.path(), "one.pem", one.pem()),
        write(
            directory.path(),
            "both.pem",
            format!("{}{}", one.pem(), two.pem()),
        ),
    ];
    assert_eq!(load_roots(&files).unwrap().len(), 3);
    let issued = one.issue(&["a.example.com"]);
    let key = write(directory.path(), "edge.key", &issued.key_pem);
    let error = load_roots(&[files[0].clone(), key.clone()]).unwrap_err();
    assert_eq!(
        (error.path, error.message.as_str()),
        (key, "this is a key, not a certificate")
    );
    let none = write(
        directory.path(),
        "none.pem",
        "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
    );
    let error = load_roots(&[none]).unwrap_err();
    assert!(
        error
            .message
            .starts_with("certificate 1 in it cannot be trusted: "),
        "{error}"
    );
}
