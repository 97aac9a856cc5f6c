//! What each failure is told as: one table, so that the words can be read beside each other.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, InvalidMessage};
use rustls_pki_types::{ServerName, UnixTime};

use super::super::proxy::ProxyError;
use super::*;
use crate::name::HostName;
use crate::net::frame::{FrameError, Refusal};
use crate::reason::Reason;
use crate::tls::client::{Trust, person};
use crate::tls::pin::{NotPinned, Pin};

fn connect() -> Connect {
    Connect {
        gateway: "gate.example".parse().unwrap(),
        target: HostName::parse("vm.example").unwrap(),
        server_name: None,
        trust: Trust::default(),
        certificate: None,
        proxy: None,
        alpn: Vec::new(),
        timeout: Duration::from_secs(10),
        witness: Arc::default(),
    }
}

/// The same, whose gateway has asked for a certificate.
fn asked(connect: Connect) -> Connect {
    let anybody = Trust {
        insecure: true,
        ..Trust::default()
    };
    let config = person(&anybody, None, &[], &connect.witness).unwrap();
    config.client_auth_cert_resolver.resolve(&[], &[]);
    connect
}

fn handshake(error: impl Into<TlsError>) -> Failure {
    Failure::Handshake(HandshakeError::Tls(error.into()))
}

fn alert(alert: AlertDescription) -> Failure {
    handshake(TlsError::AlertReceived(alert))
}

fn unreachable(kind: io::ErrorKind) -> Failure {
    Failure::Unreachable(Unreachable {
        address: "192.0.2.1:8443".parse().unwrap(),
        error: DialError::Tcp(kind.into()),
    })
}

fn check(connect: &Connect, table: Vec<(Failure, u8, &str, &str)>) {
    for (failure, code, says, hints) in table {
        let report = connect.report(&failure);
        assert_eq!(report.exit.code(), code, "{report}");
        assert!(report.message.contains(says), "{says:?} in: {report}");
        assert!(report.hint.contains(hints), "{hints:?} in: {report}");
        let text = report.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with("portcullis: ") && lines[1].starts_with("hint: "));
        assert!(!text.ends_with('.') && !text.contains("  "), "{text}");
    }
}

#[test]
#[rustfmt::skip]
fn each_failure_has_its_words_its_hint_and_its_code() {
    let roots = Failure::Files(crate::tls::client::ClientError::NoSystemRoots("this system has no trusted CAs".into()));
    let (eof, reset) = (io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset);
    check(&connect(), vec![
        (roots, 2, "no trusted CAs", "ca-certificates"),
        (Failure::Resolve(io::Error::other("unknown")), 20, "cannot find the address of the gateway gate.example: unknown", "--gateway"),
        (unreachable(io::ErrorKind::ConnectionRefused), 21, "the gateway gate.example:8443 (192.0.2.1:8443) refuses connections", "is 8443 its port"),
        (unreachable(io::ErrorKind::NetworkUnreachable), 10, "cannot connect to the gateway gate.example:8443 (192.0.2.1:8443): network", "VPN"),
        (Failure::DialTimeout, 22, "did not answer within 10s", "--timeout"),
        (Failure::HandshakeTimeout, 24, "no TLS handshake within 10s", "8443 is the gateway's port"),
        (Failure::Handshake(io::Error::from(eof).into()), 24, "closed the connection in the TLS handshake", "no route for vm.example"),
        (Failure::Handshake(io::Error::from(reset).into()), 24, "reset the connection", "as many connections as it takes"),
        (handshake(InvalidMessage::InvalidContentType), 11, "gate.example:8443 began a TLS handshake, and what it said then makes no sense", "in between"),
        (Failure::Handshake(HandshakeError::NotTls(b"HTTP/1.1".to_vec())), 23, "does not speak TLS: it answers in HTTP", "8443 is another service's port"),
        (Failure::Handshake(HandshakeError::NotTls(b"SSH-2.0-".to_vec())), 23, "does not speak TLS: an SSH server answers", "--gateway HOST:PORT"),
        (Failure::Handshake(HandshakeError::NotTls(b"\x1b[2J\r\n\r\n".to_vec())), 23, "does not speak TLS", "not one without TLS"),
        (handshake(TlsError::DecryptError), 11, "no TLS handshake with gate.example:8443", "in between"),
        (Failure::BadFrame(FrameError::Version(7)), 11, "makes no sense: a status frame of version 7", "in between"),
        (Failure::NoFrame(Duration::from_secs(10)), 15, "has not reached vm.example within 10s", "--timeout"),
        (Failure::NoStatus, 32, "hung up before it had reached vm.example", "probably just stopped"),
        (Failure::NothingCame { was_reached: false }, 15, "closed the tunnel to vm.example before a byte came back", "probably down, or refuses"),
        (Failure::NothingCame { was_reached: true }, 15, "vm.example took the connection, and ended it without a word", "probably not ready"),
        (Failure::EndedAfterBanner, 33, "vm.example greeted, and hung up at the first word from here", "probably an intention"),
        (Failure::CutOff, 32, "the tunnel to vm.example was cut off", "probably the gateway was stopped"),
        (Failure::BrokeOff(io::Error::other("gone")), 16, "broke off: gone", "probably the network"),
        (Failure::Silent(Duration::from_secs(600)), 16, "nothing came from vm.example for 600s", "keep the input open"),
        (Failure::Input(io::Error::other("a directory")), 1, "cannot read stdin: a directory", "pipe"),
        (Failure::Output(io::Error::other("full")), 1, "cannot write to stdout: full", "pipe"),
    ]);
}

#[test]
#[rustfmt::skip]
fn what_the_gateway_says_of_its_dial_has_a_code_by_what_can_be_done_about_it() {
    use Reason::*;
    let refused = |reason| Failure::Refused(Refusal::new(reason, "it is so"));
    let table = [
        (NoHealthyUpstream, 15, "is it up?"), (DialFailed, 15, "is it up?"), (DialTimeout, 15, "is it up?"),
        (UpstreamTls, 35, "certificate"), (UpstreamIdentity, 35, "certificate"), (DeniedByIntention, 33, "intention"),
        (Shortage, 31, "try again"), (Reason::RouteBroken, 34, "/v1/routes"), (Drained, 32, "connect again"), (Internal, 15, "/v1/routes"),
    ];
    check(&connect(), table.into_iter().map(|(reason, code, hints)| {
        (refused(reason), code, "the gateway has no way to vm.example: it is so", hints)
    }).collect());
}

#[test]
fn a_report_is_one_object_of_json_for_a_program() {
    let report = connect().report(&Failure::Output(io::Error::other("\"full\"\n")));
    let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!(json["error"], "cannot write to stdout: \"full\"\n");
    assert_eq!(
        (&json["code"], &json["reason"]),
        (&1.into(), &"stdio".into())
    );
    assert!(json["hint"].as_str().unwrap().contains("pipe"));
    assert!(!report.json().contains('\n'));
}

#[test]
fn letters_that_are_invisible_or_turn_others_round_are_escaped() {
    let failure = Failure::Resolve(io::Error::other("a\u{202e}b\u{200b}"));
    let told = connect().report(&failure).to_string();
    assert!(told.contains(r"a\u{202e}b\u{200b}"), "{told}");
}

#[test]
#[rustfmt::skip]
fn a_certificate_is_refused_by_what_is_wrong_with_it() {
    let (time, not_after) = (UnixTime::since_unix_epoch(Duration::ZERO), UnixTime::since_unix_epoch(Duration::from_secs(951_782_400)));
    let of_webpki = |error| CertificateError::Other(rustls::OtherError(Arc::new(error)));
    let for_other = |presented: &[&str]| handshake(CertificateError::NotValidForNameContext {
        expected: ServerName::try_from("vm.example").unwrap(),
        presented: presented.iter().map(|name| format!("DnsName(\"{name}\")")).collect(),
    });
    check(&connect(), vec![
        (handshake(CertificateError::UnknownIssuer), 12, "a CA that this system does not trust", "--ca FILE"),
        (handshake(CertificateError::ExpiredContext { time, not_after }), 25, "expired at 2000-02-29 00:00 UTC; this machine's clock says 1970-01-01 00:00 UTC", "renew"),
        (handshake(CertificateError::NotValidYetContext { time, not_before: not_after }), 26, "valid only from 2000-02-29 00:00 UTC; this machine's clock says 1970-01-01 00:00 UTC", "set the clock"),
        (for_other(&["gate.example", "*.b.example"]), 27, "not for vm.example, but for gate.example, *.b.example", "check the name"),
        (for_other(&["1", "2", "3", "4", "5", "6", "7"]), 27, "for 1, 2, 3, 4, 5 and 2 more", "check the name"),
        (for_other(&[]), 27, "for no name at all", "check the name"),
        (for_other(&["a\u{1b}[2J\nb"]), 27, "a\\x1b[2J\\nb", "check the name"),
        (handshake(CertificateError::BadSignature), 12, "from another CA with the name of a trusted one", "made anew"),
        (handshake(CertificateError::Revoked), 12, "the certificate for vm.example cannot be used: ", "operator"),
        (handshake(of_webpki(webpki::Error::CaUsedAsEndEntity)), 12, "the certificate for vm.example is a CA's own", "--pin sha256/…"),
        (handshake(of_webpki(webpki::Error::UnsupportedCertVersion)), 12, "the certificate for vm.example or one above it is not of X.509 version 3", "operator"),
        (handshake(CertificateError::InvalidPurpose), 12, "or one above it is for another purpose", "operator"),
    ]);
    let pinned = Connect { trust: Trust { roots: vec![PathBuf::from("ca.pem")], ..Trust::default() }, ..connect() };
    check(&pinned, vec![
        (handshake(CertificateError::UnknownIssuer), 12, "not from a CA in the --ca files", "only those CAs"),
    ]);
    let found: Pin = "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".parse().unwrap();
    let other = CertificateError::Other(rustls::OtherError(Arc::new(NotPinned { found })));
    check(&connect(), vec![
        (handshake(other), 12, "another key than the pinned one: sha256/47DEQ", "somebody stands in between"),
    ]);
}

#[test]
#[rustfmt::skip]
fn a_proxy_that_opens_no_way_is_told_without_its_password() {
    let through = |proxy: &str| Connect { proxy: Some(proxy.parse().unwrap()), ..connect() };
    let failed = |error| Failure::Proxy(error);
    check(&through("http://me:secret@proxy.example:3128"), vec![
        (failed(ProxyError::Refused(407, String::new())), 36, "the proxy http://proxy.example:3128 does not accept the user", "that it knows"),
        (failed(ProxyError::Refused(403, "\"Forbidden\"".into())), 36, "does not connect to the gateway gate.example:8443: 403 \"Forbidden\"", "often 443"),
        (failed(ProxyError::NotHttp), 36, "http://proxy.example:3128 is no HTTP proxy", "3128 is its port"),
        (failed(ProxyError::Closed), 36, "by the proxy http://proxy.example:3128: it closed the connection", "--proxy none"),
        (Failure::Handshake(HandshakeError::NotTls(b"<html>".to_vec())), 23, "does not speak TLS", "the proxy http://proxy.example:3128 answers in its place"),
        (Failure::DialTimeout, 22, "the proxy http://proxy.example:3128 brought no connection to the gateway gate.example:8443 within 10s", "--timeout"),
    ]);
    check(&through("proxy.example:3128"), vec![
        (failed(ProxyError::Refused(407, String::new())), 36, "asks for a user and a password", "client.toml"),
    ]);
}

#[test]
#[rustfmt::skip]
fn an_alert_is_told_as_what_the_gateway_means_by_it() {
    check(&connect(), vec![
        (alert(AlertDescription::UnrecognisedName), 13, "gate.example:8443 has no route for vm.example", "/v1/routes"),
        (alert(AlertDescription::UserCanceled), 31, "as many connections to vm.example as it takes", "try again"),
        (alert(AlertDescription::CertificateRequired), 14, "asks for a client certificate for vm.example", "--cert FILE --key FILE"),
        (alert(AlertDescription::BadCertificate), 11, "refuses the handshake for vm.example (alert bad_certificate)", "has not asked for a certificate"),
        (alert(AlertDescription::HandshakeFailure), 11, "refuses the handshake for vm.example (alert handshake_failure)", "in common"),
        (alert(AlertDescription::NoApplicationProtocol), 11, "(ALPN)", "operator"),
        (alert(AlertDescription::InternalError), 34, "cannot serve vm.example (alert internal_error)", "/v1/routes"),
        (alert(AlertDescription::AccessDenied), 30, "does not let you in to vm.example (alert access_denied)", "other addresses than yours"),
        (alert(AlertDescription::ProtocolVersion), 11, "refuses the handshake for vm.example (alert protocol_version)", "in common"),
        (alert(AlertDescription::Unknown(200)), 11, "(alert 200)", "log"),
    ]);
    check(&asked(connect()), vec![
        (alert(AlertDescription::BadCertificate), 14, "asks for a client certificate for vm.example (alert bad_certificate)", "--cert FILE --key FILE"),
        (alert(AlertDescription::HandshakeFailure), 14, "asks for a client certificate for vm.example (alert handshake_failure)", "--cert FILE --key FILE"),
        (alert(AlertDescription::ProtocolVersion), 11, "(alert protocol_version)", "in common"),
    ]);
    let named = Connect { certificate: Some(("me.pem".into(), "me.key".into())), ..connect() };
    check(&named, vec![
        (alert(AlertDescription::UnknownCA), 11, "refuses the handshake for vm.example (alert unknown_ca)", "has not asked"),
    ]);
    check(&asked(named), vec![
        (alert(AlertDescription::HandshakeFailure), 11, "(alert handshake_failure)", "in common"),
        (alert(AlertDescription::UnknownCA), 28, "does not accept the certificate in me.pem (alert unknown_ca)", "accepted for vm.example"),
        (alert(AlertDescription::CertificateExpired), 29, "your certificate in me.pem has expired", "a new one"),
        (alert(AlertDescription::CertificateRequired), 28, "does not accept the certificate in me.pem", "accepted"),
    ]);
    let renamed = Connect { server_name: Some(HostName::parse("other.example").unwrap()), ..connect() };
    check(&renamed, vec![
        (alert(AlertDescription::UnrecognisedName), 13, "has no route for other.example", "check the name"),
    ]);
}
