//! Files of certificates and keys in other forms, or in each other's place: what `portcullis connect` says, and that it helps.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use super::way::asking;
use super::{TARGET, brought, connect, failed, to};
use crate::authority::Authority;
use crate::peers;
use crate::support::run;
use crate::upstream::{Upstream, echo};

const PASSPHRASE: &str = "open sesame 77";

/// `connect` with these files, and a passphrase that opens what needs one.
fn with(authority: &Authority, gate: &Upstream, cert: &Path, key: &Path) -> Output {
    let passphrase = authority.write("passphrase", PASSPHRASE);
    fs::set_permissions(&passphrase, Permissions::from_mode(0o600)).unwrap();
    let mut command = connect(authority, gate.address);
    command.arg("--cert").arg(cert).arg("--key").arg(key);
    command.arg("--passphrase-file").arg(passphrase);
    run(&to(command, &[TARGET]), b"hello")
}

/// Runs the line that was told, where openssl asks for the passphrase of what it writes.
#[track_caller]
fn convert(told: &Output, more: &str) {
    let told = String::from_utf8(told.stderr.clone()).unwrap();
    let (_, line) = told.trim_end().split_once(": openssl ").unwrap();
    let line = line.split(" (").next().unwrap();
    let mut convert = Command::new("sh");
    convert.args(["-c", &format!("openssl {line} {more}")]);
    let done = run(&convert, b"");
    assert!(done.status.success(), "{line}: {done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pkcs_12_file_is_refused_with_the_line_that_converts_it_and_keeps_its_key_encrypted() {
    let Some(openssl) = peers::require("openssl", "openssl") else {
        return;
    };
    let authority = Authority::new();
    authority.issue_files("me", &["me.example.test"]);
    let at = |name: &str| authority.folder().join(name);
    let gate = Upstream::tls(asking(&authority), echo).await;
    let mut listing = Command::new(&openssl);
    listing.args(["list", "-providers", "-provider", "legacy"]);
    let has_legacy = run(&listing, b"").status.success();
    for (name, old) in [("my me", &[][..]), ("old", &["-legacy"])] {
        if !old.is_empty() && !has_legacy {
            continue;
        }
        let file = at(&format!("{name}.p12"));
        let mut export = Command::new(&openssl);
        export.args(["pkcs12", "-export", "-passout", "pass:"]);
        export.args(old).arg("-in").arg(at("me.pem"));
        export.arg("-inkey").arg(at("me.key")).arg("-out");
        let done = run(export.arg(&file), b"");
        assert!(done.status.success(), "{done:?}");

        let done = with(&authority, &gate, &file, &file);
        let says = format!("{name}.p12: is PKCS#12, not PEM");
        failed(&done, 2, &says, "key: openssl pkcs12 -");
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(told.contains("-legacy -in"), !old.is_empty(), "{told}");
        convert(
            &done,
            &format!("-passin pass: -passout 'pass:{PASSPHRASE}'"),
        );
        let new = at(&format!("{name}.pem"));
        let text = fs::read_to_string(&new).unwrap();
        assert!(text.contains("BEGIN ENCRYPTED PRIVATE KEY"), "{text}");
        brought(&with(&authority, &gate, &new, &new), b"hello");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn der_is_refused_with_the_line_that_converts_it_for_a_certificate_and_for_keys_of_both_kinds()
 {
    let Some(openssl) = peers::require("openssl", "openssl") else {
        return;
    };
    let authority = Authority::new();
    let issued = authority.issue_files("me", &["me.example.test"]);
    let at = |name: &str| authority.folder().join(name);
    let gate = Upstream::tls(asking(&authority), echo).await;
    fs::write(at("cert.der"), issued.certificate.der()).unwrap();
    fs::write(at("plain.der"), issued.key.serialize_der()).unwrap();
    let mut encrypt = Command::new(openssl);
    encrypt.args(["pkcs8", "-topk8", "-outform", "der", "-in"]);
    encrypt.arg(at("me.key")).arg("-out").arg(at("shut.der"));
    encrypt.args(["-passout", &format!("pass:{PASSPHRASE}")]);
    assert!(run(&encrypt, b"").status.success());

    let done = with(&authority, &gate, &at("cert.der"), &at("me.key"));
    failed(
        &done,
        2,
        "cert.der: is DER, not PEM",
        "openssl x509 -inform der -in ",
    );
    convert(&done, "");
    for name in ["plain", "shut"] {
        let key = at(&format!("{name}.der"));
        let done = with(&authority, &gate, &at("cert.pem"), &key);
        let says = format!("{name}.der: is DER, not PEM");
        failed(&done, 2, &says, "openssl pkey -inform der -in ");
        let more = match name {
            "plain" => String::new(),
            _ => format!("-passin 'pass:{PASSPHRASE}' -passout 'pass:{PASSPHRASE}'"),
        };
        convert(&done, &more);
        let new = at(&format!("{name}.pem"));
        let text = fs::read_to_string(&new).unwrap();
        assert_eq!(text.contains("ENCRYPTED"), name == "shut", "{text}");
        brought(&with(&authority, &gate, &at("cert.pem"), &new), b"hello");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_holds_no_key_is_not_told_to_be_shut() {
    let authority = Authority::new();
    authority.issue_files("me", &["me.example.test"]);
    let at = |name: &str| authority.folder().join(name);
    let gate = Upstream::tls(asking(&authority), echo).await;
    let text = authority.write("hostname", "vm1\n");
    for file in [&at("me.pem"), &text] {
        fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap();
    }
    let swapped = with(&authority, &gate, &at("me.key"), &at("me.pem"));
    failed(
        &swapped,
        2,
        "me.key: this is a key, not a certificate",
        "swapped",
    );
    let wrong = with(&authority, &gate, &at("me.pem"), &text);
    failed(&wrong, 2, "hostname: is not PEM", "BEGIN PRIVATE KEY");
    let chain = with(&authority, &gate, &at("me.pem"), &at("me.pem"));
    failed(
        &chain,
        2,
        "me.pem: this is a certificate, not a key",
        "swapped",
    );
    fs::set_permissions(at("me.key"), Permissions::from_mode(0o644)).unwrap();
    let open = with(&authority, &gate, &at("me.pem"), &at("me.key"));
    failed(
        &open,
        2,
        "me.key: every user of this machine may read",
        "run: chmod 600 ",
    );
}
