//! PEM files that do not hold what was asked for, and what each is told.

use rustls_pki_types::PrivateKeyDer;

use super::*;
use crate::tls::test_certs::{Ca, write};

/// Writes `content`, and says what is wrong with it as a chain and as a key.
fn faults(content: impl AsRef<[u8]>) -> (Option<String>, Option<String>) {
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), "edge.pem", content);
    let describe = |error: FileError| {
        assert_eq!(error.path, path);
        let text = format!("{}; {}", error.message, error.help.unwrap());
        text.replace(&format!("{}/", directory.path().display()), "")
    };
    match Pem::read(&path) {
        Ok(pem) => (
            pem.certificates().err().map(describe),
            pem.plain_key().err().map(describe),
        ),
        Err(error) => (Some(describe(error.clone())), Some(describe(error))),
    }
}

fn chain_fault(content: impl AsRef<[u8]>) -> String {
    faults(content).0.unwrap()
}

fn key_fault(content: impl AsRef<[u8]>) -> String {
    faults(content).1.unwrap()
}

fn section(label: &str, body: &str) -> String {
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

#[test]
fn a_file_that_is_not_there_is_said_so() {
    let error = Pem::read(Path::new("/nowhere/edge.pem")).unwrap_err();
    assert_eq!(error.to_string(), "/nowhere/edge.pem: does not exist");
    assert!(error.help.unwrap().contains("is the path right?"));
}

#[test]
fn what_is_not_a_regular_file_is_refused_without_being_opened() {
    let directory = tempfile::tempdir().unwrap();
    let error = Pem::read(directory.path()).unwrap_err();
    assert_eq!(error.message, "this is a directory, not a file");
    let error = Pem::read(Path::new("/dev/zero")).unwrap_err();
    assert_eq!(error.message, "this is not a regular file");
}

#[test]
fn a_file_larger_than_the_limit_is_refused() {
    let error = chain_fault(vec![b'\n'; MAX_FILE_SIZE as usize + 1]);
    assert!(error.starts_with("is larger than 1024 KiB; "), "{error}");
    assert!(chain_fault(vec![b'\n'; MAX_FILE_SIZE as usize]).starts_with("is empty; "));
}

#[test]
fn an_empty_file_is_said_to_be_empty() {
    assert!(chain_fault("").starts_with("is empty; "));
    assert!(key_fault(" \n\r\n").starts_with("is empty; "));
}

#[test]
fn der_is_met_with_the_command_that_converts_it() {
    let issued = Ca::new("ca").issue(&["a.example.com"]);
    let error = chain_fault(&issued.chain[0]);
    assert!(error.starts_with("is DER, not PEM; "), "{error}");
    let line = "convert it: openssl x509 -inform der -in edge.pem -out edge.new.pem";
    assert!(error.ends_with(line), "{error}");
    // A key of P-256 is shorter than 256 bytes.
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
    assert!(key.secret_der().starts_with(&[0x30, 0x81]));
    let error = key_fault(key.secret_der());
    let line =
        "is DER, not PEM; convert it: openssl pkey -inform der -in edge.pem -out edge.new.pem";
    assert_eq!(error, line);
    let error = key_fault([0x30, 0x03, 0x04, 0x01, 0x00]);
    assert!(
        error.contains("(a certificate), or openssl pkey"),
        "{error}"
    );
}

#[test]
fn pkcs_12_is_known_by_its_version_however_its_length_is_written() {
    for head in [
        [0x30, 0x80].as_slice(),
        &[0x30, 0x82, 0x0a, 0x00],
        &[0x30, 0x83, 0x01, 0x0a, 0x00],
    ] {
        let error = chain_fault([head, &[0x02, 0x01, 0x03, 0x30]].concat());
        // The new file must not be the old one.
        let line = "openssl pkcs12 -in edge.pem -aes256 -out edge.new.pem";
        assert!(
            error.starts_with("is PKCS#12, not PEM; ") && error.ends_with(line),
            "{error}"
        );
    }
}

#[test]
fn text_that_is_not_pem_is_told_apart_from_pem_that_is_indented() {
    assert!(chain_fault("edge certificate").starts_with("is not PEM; "));
    let indented = format!("  {}", Ca::new("ca").pem());
    assert!(
        chain_fault(indented).starts_with("`-----BEGIN` does not stand at the start of its line; ")
    );
}

#[test]
fn a_damaged_section_is_described_and_not_quoted() {
    let pem = Ca::new("ca").issue(&["a.example.com"]).key_pem;
    let cut = &pem[..pem.len() / 2];
    assert_eq!(
        key_fault(cut),
        "a section has no `-----END` line; the file was cut or edited: write it again"
    );
    let spoilt = section("PRIVATE KEY", "$$$$");
    assert_eq!(
        key_fault(spoilt),
        "a section is not valid base64; the file was cut or edited: write it again"
    );
    let dashes = pem.replacen("KEY-----", "KEY---", 1);
    assert!(key_fault(dashes).starts_with("a `-----BEGIN` line does not end with five dashes; "));
}

#[test]
fn an_encrypted_key_is_refused_where_there_is_no_passphrase_and_an_old_one_with_the_command_that_converts_it()
 {
    let error = key_fault(section("ENCRYPTED PRIVATE KEY", "AAAA"));
    assert!(
        error.starts_with("the key is encrypted, and nobody"),
        "{error}"
    );
    for label in ["RSA PRIVATE KEY", "EC PRIVATE KEY"] {
        let old = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA";
        let error = key_fault(section(label, old));
        assert!(
            error.starts_with("the key is encrypted in openssl's old way"),
            "{error}"
        );
        let line = "openssl pkcs8 -topk8 -in edge.pem -out edge.pem.new";
        assert!(error.contains(line), "{error}");
    }
}

#[test]
fn swapped_chain_and_key_are_noticed() {
    let issued = Ca::new("ca").issue(&["a.example.com"]);
    assert_eq!(
        chain_fault(&issued.key_pem),
        "this is a key, not a certificate; are the chain and the key swapped?"
    );
    assert_eq!(
        key_fault(&issued.chain_pem),
        "this is a certificate, not a key; are the chain and the key swapped?"
    );
}

#[test]
fn what_is_neither_certificate_nor_key_is_named() {
    assert!(
        chain_fault(section("CERTIFICATE REQUEST", "AAAA"))
            .starts_with("this is a request for a certificate")
    );
    assert!(
        chain_fault(section("TRUSTED CERTIFICATE", "AAAA"))
            .contains("openssl x509 -in edge.pem -out NEW.pem")
    );
    assert!(
        chain_fault(section("X509 CRL", "AAAA"))
            .starts_with("holds no certificate, but `X509 CRL`; ")
    );
    assert!(
        key_fault(section("PUBLIC KEY", "AAAA"))
            .starts_with("holds no private key, but `PUBLIC KEY`; ")
    );
    assert!(
        key_fault(section("OPENSSH PRIVATE KEY", "AAAA"))
            .starts_with("this is an OpenSSH key, not one for TLS")
    );
}

#[test]
fn a_section_of_an_endless_name_is_named_by_its_beginning() {
    let error = chain_fault(section(
        &format!("\u{1b}[31m{}", "A".repeat(10_000)),
        "AAAA",
    ));
    assert!(
        error.starts_with("holds no certificate, but `\\u{1b}[31mAAA"),
        "{error}"
    );
    assert!(error.len() < 300, "{}", error.len());
}

#[test]
fn two_keys_in_one_file_are_refused() {
    let pem = Ca::new("ca").issue(&["a.example.com"]).key_pem;
    assert!(
        key_fault(format!("{pem}{pem}")).starts_with("holds 2 private keys: which one is meant?")
    );
}

#[test]
fn text_around_the_sections_and_other_line_ends_do_no_harm() {
    let issued = Ca::new("ca").issue(&["a.example.com"]);
    let parameters = section("EC PARAMETERS", "BggqhkjOPQMBBw==");
    let text = format!(
        "subject=a\n{}\n{parameters}{}issuer=b\n",
        issued.chain_pem, issued.key_pem
    );
    assert_eq!(faults(&text), (None, None));
    assert_eq!(faults(text.replace('\n', "\r\n")), (None, None));
}
