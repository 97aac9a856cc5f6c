//! What each failure is told as: one table, so that the words can be read beside each other.

use std::path::PathBuf;

use rustls::InvalidMessage;
use rustls_pki_types::{ServerName, UnixTime};

use super::super::proxy::ProxyError;
use super::*;
use crate::name::HostName;
use crate::tls::client::Trust;
use crate::tls::pin::Pin;

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
    }
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
        assert_eq!(report.exit as u8, code, "{report}");
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
    check(&connect(), vec![
        (roots, 2, "no trusted CAs", "ca-certificates"),
        (Failure::Resolve(io::Error::other("unknown")), 10, "cannot find the address of the gateway gate.example: unknown", "--gateway"),
        (unreachable(io::ErrorKind::ConnectionRefused), 10, "the gateway gate.example:8443 (192.0.2.1:8443) refuses connections", "is 8443 its port"),
        (unreachable(io::ErrorKind::NetworkUnreachable), 10, "cannot connect to the gateway gate.example:8443 (192.0.2.1:8443): network", "VPN"),
        (Failure::DialTimeout, 10, "did not answer within 10s", "--timeout"),
        (Failure::HandshakeTimeout, 11, "no TLS handshake within 10s", "8443 is the gateway's port"),
        (Failure::Handshake(io::Error::from(io::ErrorKind::UnexpectedEof).into()), 11, "closed the connection in the TLS handshake", "no route for vm.example"),
        (Failure::Handshake(io::Error::from(io::ErrorKind::ConnectionReset).into()), 11, "reset the connection", "8443"),
        (handshake(InvalidMessage::InvalidContentType), 11, "gate.example:8443 does not speak TLS", "8443"),
        (handshake(TlsError::DecryptError), 11, "no TLS handshake with gate.example:8443", "in between"),
        (Failure::NothingCame, 15, "closed the tunnel to vm.example before a byte came back", "down or refuses"),
        (Failure::BrokeOff(None), 16, "the tunnel to vm.example broke off", "connect again"),
        (Failure::BrokeOff(Some(io::Error::other("gone"))), 16, "broke off: gone", "connect again"),
        (Failure::Silent(Duration::from_secs(600)), 16, "nothing came from vm.example for 600s", "keep the input open"),
        (Failure::Input(io::Error::other("a directory")), 1, "cannot read stdin: a directory", "pipe"),
        (Failure::Output(io::Error::other("full")), 1, "cannot write to stdout: full", "pipe"),
    ]);
}

#[test]
#[rustfmt::skip]
fn a_certificate_is_refused_by_what_is_wrong_with_it() {
    let (time, not_after) = (UnixTime::since_unix_epoch(Duration::ZERO), UnixTime::since_unix_epoch(Duration::from_secs(951_782_400)));
    let for_other = |presented: &[&str]| handshake(CertificateError::NotValidForNameContext {
        expected: ServerName::try_from("vm.example").unwrap(),
        presented: presented.iter().map(|name| format!("DnsName(\"{name}\")")).collect(),
    });
    check(&connect(), vec![
        (handshake(CertificateError::UnknownIssuer), 12, "a CA that this system does not trust", "--ca FILE"),
        (handshake(CertificateError::ExpiredContext { time, not_after }), 12, "expired on 2000-02-29", "clock"),
        (handshake(CertificateError::NotValidYetContext { time, not_before: not_after }), 12, "valid only from 2000-02-29", "clock"),
        (for_other(&["gate.example", "*.b.example"]), 12, "not for vm.example, but for gate.example, *.b.example", "check the name"),
        (for_other(&["1", "2", "3", "4", "5", "6", "7"]), 12, "for 1, 2, 3, 4, 5 and 2 more", "check the name"),
        (for_other(&[]), 12, "for no name at all", "check the name"),
        (for_other(&["a\u{1b}[2J\nb"]), 12, "a\\x1b[2J\\nb", "check the name"),
        (handshake(CertificateError::BadSignature), 12, "from another CA with the name of a trusted one", "made anew"),
        (handshake(CertificateError::Revoked), 12, "cannot be trusted", "operator"),
    ]);
    let pinned = Connect { trust: Trust { roots: vec![PathBuf::from("ca.pem")], ..Trust::default() }, ..connect() };
    check(&pinned, vec![
        (handshake(CertificateError::UnknownIssuer), 12, "not from a CA in the --ca files", "only those CAs"),
    ]);
    let found: Pin = "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".parse().unwrap();
    let other = CertificateError::Other(rustls::OtherError(std::sync::Arc::new(NotPinned { found })));
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
        (failed(ProxyError::Refused(407, String::new())), 10, "the proxy http://proxy.example:3128 does not accept the user", "that it knows"),
        (failed(ProxyError::Refused(403, "\"Forbidden\"".into())), 10, "does not connect to the gateway gate.example:8443: 403 \"Forbidden\"", "often 443"),
        (failed(ProxyError::NotHttp), 10, "http://proxy.example:3128 is no HTTP proxy", "3128 is its port"),
        (failed(ProxyError::Closed), 10, "by the proxy http://proxy.example:3128: it closed the connection", "--proxy none"),
        (Failure::DialTimeout, 10, "the proxy http://proxy.example:3128 brought no connection to the gateway gate.example:8443 within 10s", "--timeout"),
    ]);
    check(&through("proxy.example:3128"), vec![
        (failed(ProxyError::Refused(407, String::new())), 10, "asks for a user and a password", "client.toml"),
    ]);
}

#[test]
#[rustfmt::skip]
fn an_alert_is_told_as_what_the_gateway_means_by_it() {
    check(&connect(), vec![
        (alert(AlertDescription::UnrecognisedName), 13, "gate.example:8443 has no route for vm.example", "/v1/routes"),
        (alert(AlertDescription::CertificateRequired), 14, "asks for a client certificate for vm.example", "--cert FILE --key FILE"),
        (alert(AlertDescription::BadCertificate), 14, "without a certificate (alert bad_certificate)", "--cert FILE --key FILE"),
        (alert(AlertDescription::NoApplicationProtocol), 11, "(ALPN)", "operator"),
        (alert(AlertDescription::InternalError), 11, "cannot serve vm.example (alert internal_error)", "/v1/routes"),
        (alert(AlertDescription::AccessDenied), 11, "does not let you in to vm.example (alert access_denied)", "other addresses than yours"),
        (alert(AlertDescription::ProtocolVersion), 11, "refuses the handshake for vm.example (alert protocol_version)", "in common"),
        (alert(AlertDescription::Unknown(200)), 11, "(alert 200)", "log"),
    ]);
    let named = Connect { certificate: Some(("me.pem".into(), "me.key".into())), ..connect() };
    check(&named, vec![
        (alert(AlertDescription::UnknownCA), 14, "does not accept the certificate in me.pem (alert unknown_ca)", "accepted for vm.example"),
        (alert(AlertDescription::CertificateRequired), 14, "does not accept the certificate in me.pem", "accepted"),
    ]);
    let renamed = Connect { server_name: Some(HostName::parse("other.example").unwrap()), ..connect() };
    check(&renamed, vec![
        (alert(AlertDescription::UnrecognisedName), 13, "has no route for other.example", "check the name"),
    ]);
}
