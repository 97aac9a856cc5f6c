//! What `portcullis connect` makes of alerts about certificates, by whether it was asked for one; and of servers that pin alone proves.

use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::version::{TLS12, TLS13};

use super::failures::answering;
use super::stalls::{Then, cut};
use super::{TARGET, brought, connect, failed, to};
use crate::authority::{Authority, Issued};
use crate::peers;
use crate::support::{Child, run};
use crate::upstream::{Upstream, echo};

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_about_certificates_to_who_was_asked_for_none_is_no_wish_for_one() {
    let authority = Authority::new();
    authority.issue_files("me", &["me.example.test"]);
    for (answer, says) in [
        (&[21, 3, 3, 0, 2, 2, 42], "alert bad_certificate"),
        (&[21, 3, 3, 0, 2, 2, 46], "alert certificate_unknown"),
        (&[21, 3, 3, 0, 2, 2, 48], "alert unknown_ca"),
        (&[21, 3, 3, 0, 2, 2, 51], "alert decrypt_error"),
    ] {
        let gate = answering(answer).await;
        let bare = connect(&authority, gate.address);
        let mut showing = connect(&authority, gate.address);
        for (flag, file) in [("--cert", "me.pem"), ("--key", "me.key")] {
            showing.arg(flag).arg(authority.folder().join(file));
        }
        for command in [bare, showing] {
            let done = run(&to(command, &[TARGET]), b"");
            failed(&done, 11, says, "has not asked for a certificate of yours");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_openssl_that_wants_a_certificate_in_tls_1_2_is_understood() {
    let Some(openssl) = peers::require("openssl", "openssl") else {
        return;
    };
    let authority = Authority::new();
    authority.issue_files("edge", &[TARGET]);
    let mut server = Command::new(openssl);
    server.args(["s_server", "-accept", "127.0.0.1:0", "-tls1_2"]);
    server.args(["-Verify", "1", "-verify_return_error"]);
    for (flag, file) in [
        ("-CAfile", "ca.pem"),
        ("-cert", "edge.pem"),
        ("-key", "edge.key"),
    ] {
        server.arg(flag).arg(authority.folder().join(file));
    }
    let (server, _stdin) = Child::spawn_with_stdin(&server);
    let address = server.wait_for("its address", |line| {
        line.strip_prefix("ACCEPT ").map(str::to_owned)
    });
    let done = run(&to(connect(&authority, address), &[TARGET]), b"");
    failed(
        &done,
        14,
        "asks for a client certificate for vm.example.test (alert handshake_failure)",
        "--cert FILE --key FILE",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_self_signed_certificate_of_openssls_making_is_named_with_the_pin_that_makes_it_trusted()
{
    let authority = Authority::new();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![TARGET.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    let own = authority.write("self.pem", &certificate.pem());
    let gate = Upstream::tls(Issued { certificate, key }.server(&[&TLS12, &TLS13]), echo).await;
    let mut trusting = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    trusting.args(["connect", "--gateway", &gate.address.to_string(), "--ca"]);
    let mut told = String::new();
    for command in [
        to(trusting, &[own.to_str().unwrap()]),
        connect(&authority, gate.address),
    ] {
        let done = run(&to(command, &[TARGET]), b"");
        failed(
            &done,
            12,
            "the certificate for vm.example.test is a CA's own",
            "says that this is its key: --pin sha256/",
        );
        told = String::from_utf8(done.stderr).unwrap();
    }
    let (_, pin) = told.split_once("--pin ").unwrap();
    let pin = pin.split_once(" in place of --ca;").unwrap().0;
    let mut pinned = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    pinned.args(["connect", "--gateway", &gate.address.to_string()]);
    brought(
        &run(&to(pinned, &["--pin", pin, TARGET]), b"hello"),
        b"hello",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_behind_a_hello_of_tls_is_not_told_as_a_port_without_tls() {
    let authority = Authority::new();
    for version in [&TLS12, &TLS13] {
        let gate = cut(&authority, version, 1, Then::Nonsense).await;
        let done = run(&to(connect(&authority, gate.address), &[TARGET]), b"");
        failed(
            &done,
            11,
            "began a TLS handshake, and what it said then makes no sense",
            "something in between",
        );
    }
    // Too short for a record's opening to be shown.
    let gate = answering(b"421 no\n").await;
    let done = run(&to(connect(&authority, gate.address), &[TARGET]), b"");
    failed(&done, 23, "does not speak TLS", "is the gateway's port");
}
