//! What `portcullis connect` tells of each failure, and its exit code.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rcgen::CertificateParams;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{TARGET, brought, connect, failed, gate, to};
use crate::authority::{Authority, Issued};
use crate::support::run;
use crate::upstream::{Upstream, echo};

#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_the_target_is_checked_always() {
    let authority = Authority::new();
    let issued = authority.issue(&["gate.example.test", "*.other.test"]);
    let gate = Upstream::tls(issued.server(&[&TLS12, &TLS13]), echo).await;
    let done = run(&to(connect(&authority, gate.address), &[TARGET]), b"");
    failed(
        &done,
        27,
        "not for vm.example.test, but for gate.example.test, *.other.test",
        "check the name",
    );
    let command = to(
        connect(&authority, gate.address),
        &["--server-name", "a.other.test", TARGET],
    );
    brought(&run(&command, b"hello"), b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_an_unknown_ca_or_another_time_is_refused() {
    let (authority, namesake) = (Authority::new(), Authority::new());
    let ours = gate(&authority, echo).await;
    let done = run(&to(connect(&namesake, ours.address), &[TARGET]), b"");
    failed(
        &done,
        12,
        "another CA with the name of a trusted one",
        "made anew",
    );

    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed([TARGET.to_owned()]).unwrap();
    let of_nobody = Issued {
        certificate: cert,
        key: signing_key,
    };
    let gate = Upstream::tls(of_nobody.server(&[&TLS13]), echo).await;
    let done = run(&to(connect(&authority, gate.address), &[TARGET]), b"");
    failed(&done, 12, "not from a CA in the --ca files", "only those");
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(["connect", "--gateway", &gate.address.to_string(), TARGET]);
    command.env("SSL_CERT_DIR", authority.folder().join("absent"));
    command.env("SSL_CERT_FILE", authority.folder().join("ca.pem"));
    failed(
        &run(&command, b""),
        12,
        "a CA that this system does not trust",
        "--ca FILE",
    );
    command.env("SSL_CERT_FILE", authority.folder().join("absent.pem"));
    failed(&run(&command, b""), 2, "trusted CAs", "ca-certificates");

    for (from, until, code, says) in [
        (
            2000,
            2001,
            25,
            "expired at 2001-01-01 00:00 UTC; this machine's clock says 2",
        ),
        (
            2999,
            3000,
            26,
            "valid only from 2999-01-01 00:00 UTC; this machine's clock says 2",
        ),
    ] {
        let mut params = CertificateParams::new(vec![TARGET.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let gate = Upstream::tls(authority.sign(params).server(&[&TLS13]), echo).await;
        let done = run(&to(connect(&authority, gate.address), &[TARGET]), b"");
        failed(&done, code, says, "clock");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_cannot_be_reached_is_told_by_what_is_in_the_way() {
    let authority = Authority::new();
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let done = run(&to(connect(&authority, closed), &[TARGET]), b"");
    failed(
        &done,
        21,
        &format!("the gateway {closed} refuses connections"),
        "is it running",
    );

    let done = run(&to(connect(&authority, "gate.invalid"), &[TARGET]), b"");
    failed(
        &done,
        20,
        "cannot find the address of the gateway gate.invalid",
        "--gateway",
    );

    // A listener whose queue is full answers no SYN.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(
        &"127.0.0.1:0"
            .parse::<std::net::SocketAddr>()
            .unwrap()
            .into(),
    )
    .unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let _taken = std::net::TcpStream::connect(address).unwrap();
    let done = run(
        &to(
            connect(&authority, address),
            &["--timeout", "300ms", TARGET],
        ),
        b"",
    );
    failed(&done, 22, "did not answer within 300ms", "--timeout");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_without_tls_is_told_from_one_that_refuses() {
    let authority = Authority::new();
    for (answer, code, says, hints) in [
        (
            b"SSH-2.0-OpenSSH_9.9\r\n".as_slice(),
            23,
            "does not speak TLS: an SSH server answers",
            "is another service's port",
        ),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            23,
            "does not speak TLS: it answers in HTTP",
            "is another service's port",
        ),
        (
            b"220 mail.example.test ESMTP\r\n",
            23,
            "does not speak TLS",
            "is the gateway's port",
        ),
        (
            b"",
            24,
            "closed the connection in the TLS handshake",
            "no route for vm.example.test",
        ),
        (
            &[21, 3, 3, 0, 2, 2, 112],
            13,
            "has no route for vm.example.test",
            "/v1/routes",
        ),
        (
            &[21, 3, 3, 0, 2, 2, 80],
            34,
            "alert internal_error",
            "/v1/routes",
        ),
        (
            &[21, 3, 3, 0, 2, 2, 40],
            11,
            "alert handshake_failure",
            "in common",
        ),
        (&[21, 3, 3, 0, 2, 2, 120], 11, "(ALPN)", "operator"),
    ] {
        let gate = answering(answer).await;
        let done = run(&to(connect(&authority, gate.address), &[TARGET]), b"");
        failed(&done, code, says, hints);
    }
    let silent = Upstream::tcp(|mut tcp| async move {
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let done = run(
        &to(
            connect(&authority, silent.address),
            &["--timeout", "300ms", TARGET],
        ),
        b"",
    );
    failed(
        &done,
        24,
        "no TLS handshake within 300ms",
        "is the gateway's port",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_tls_did_not_announce_is_a_failure_and_one_that_it_did_is_none() {
    let authority = Authority::new();
    let at_once = gate(&authority, |mut stream| async move {
        let _ = stream.get_mut().0.shutdown().await;
    })
    .await;
    let done = run(&to(connect(&authority, at_once.address), &[TARGET]), b"");
    failed(
        &done,
        15,
        "closed the tunnel to vm.example.test before a byte came back",
        "down, or refuses",
    );

    let later = gate(&authority, |mut stream| async move {
        let _ = stream.write_all(b"half an ans").await;
        let _ = stream.flush().await;
        let _ = stream.get_mut().0.shutdown().await;
    })
    .await;
    let done = run(&to(connect(&authority, later.address), &[TARGET]), b"");
    failed(
        &done,
        32,
        "the tunnel to vm.example.test was cut off",
        "connect again",
    );
    assert_eq!(done.stdout, b"half an ans");

    let politely = gate(&authority, |mut stream| async move {
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    brought(
        &run(&to(connect(&authority, politely.address), &[TARGET]), b""),
        b"",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_shown_and_its_refusal_is_told() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.issue_files("me", &["me.example.test"]);
    stranger.issue_files("me", &["me.example.test"]);
    let issued = authority.issue(&[TARGET]);
    let key = PrivateKeyDer::try_from(issued.key.serialize_der()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(
        Arc::new(authority.roots()),
        portcullis::tls::provider(),
    );
    let config = ServerConfig::builder_with_provider(portcullis::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![issued.certificate.der().clone()], key)
        .unwrap();
    let gate = Upstream::tls(Arc::new(config), echo).await;
    let with = |folder: &Path, chain: &str, key: &str| {
        let mut command = connect(&authority, gate.address);
        command
            .arg("--cert")
            .arg(folder.join(chain))
            .arg("--key")
            .arg(folder.join(key));
        run(&to(command, &[TARGET]), b"hello")
    };
    brought(&with(authority.folder(), "me.pem", "me.key"), b"hello");
    failed(
        &with(stranger.folder(), "me.pem", "me.key"),
        28,
        "me.pem (alert ",
        "a CA that is accepted",
    );
    let done = run(&to(connect(&authority, gate.address), &[TARGET]), b"hello");
    failed(
        &done,
        14,
        "asks for a client certificate for vm.example.test",
        "--cert FILE --key FILE",
    );

    authority.issue_files("you", &["you.example.test"]);
    failed(
        &with(authority.folder(), "me.pem", "you.key"),
        2,
        "you.key: the key does not belong",
        "name the key",
    );
    failed(
        &with(authority.folder(), "absent.pem", "me.key"),
        2,
        "absent.pem: ",
        "",
    );
    failed(
        &with(authority.folder(), "me.key", "me.key"),
        2,
        "me.key: this is a key",
        "swapped",
    );
}

/// A gateway that answers every hello with these bytes and closes.
pub(super) async fn answering(bytes: &'static [u8]) -> Upstream {
    Upstream::tcp(move |mut tcp| async move {
        tcp.readable().await.unwrap();
        let _ = tcp.write_all(bytes).await;
        let _ = tcp.shutdown().await;
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    })
    .await
}
