//! What a client must show before its route's upstream hears of it.

use std::io;
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, SupportedProtocolVersion};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::authority::{Authority, Issued};
use crate::gateway::Gateway;
use crate::hello_bytes::{self as hello, NO_APPLICATION_PROTOCOL, framed};
use crate::scene::{Scene, finish};
use crate::support::run;
use crate::upstream::Upstream;

pub(crate) const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A whole connection: what the upstream has echoed, and how the handshake went.
pub(crate) async fn connection(
    gateway: &Gateway,
    config: &Arc<ClientConfig>,
    name: &str,
) -> (io::Result<Vec<u8>>, Option<HandshakeKind>) {
    let (mut tls, message) = hello::client(config, name);
    let mut tcp: TcpStream = gateway.connect().await;
    tcp.write_all(&framed(&message, &[])).await.unwrap();
    let heard = finish(&mut tcp, &mut tls, b"word").await;
    (heard, tls.handshake_kind())
}

/// A client with a certificate, of whatever CA.
pub(crate) fn showing(
    authority: &Authority,
    issued: &Issued,
    version: &'static SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    let key = PrivateKeyDer::try_from(issued.key.serialize_der()).unwrap();
    let config = ClientConfig::builder_with_provider(portcullis::tls::provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(authority.roots())
        .with_client_auth_cert(vec![issued.certificate.der().clone()], key);
    Arc::new(config.unwrap())
}

/// CVE-2026-28755 of nginx: the connection went on although the client's certificate had been refused.
#[tokio::test]
async fn no_upstream_is_dialled_for_a_client_that_fails_its_client_auth() {
    let mut scene = Scene::with("").await;
    let stranger = Authority::new().issue(&["client.example.test"]);
    let known = scene.authority.issue(&["client.example.test"]);
    for version in VERSIONS {
        let without = scene.client(&[version]);
        let strange = showing(&scene.authority, &stranger, version);
        for name in [
            "mutual.example.test",
            "MUTUAL.Example.Test",
            "a.wild.example.test",
            "A.Wild.Example.Test",
        ] {
            for (config, alert) in [
                (&without, "CertificateRequired"),
                (&strange, "DecryptError"),
            ] {
                let dials = scene.dials();
                let (heard, _) = connection(&scene.gateway, config, name).await;
                // The alert arrives, though the client has said its word already.
                let error = heard.unwrap_err().to_string();
                assert!(error.contains(alert), "{name}: {error}");
                let record = scene.gateway.ended().await;
                assert_eq!(record["reason"], "client_certificate", "{record}");
                assert_eq!(record["fault"], "client");
                assert_eq!(scene.dials(), dials, "{name}");
            }
            let config = showing(&scene.authority, &known, version);
            let (heard, _) = connection(&scene.gateway, &config, name).await;
            assert_eq!(heard.unwrap(), b"word");
            assert_eq!(scene.gateway.ended().await["reason"], "closed");
        }
    }
    assert!(scene.gateway.has_no_more_records());
}

#[tokio::test]
async fn no_upstream_is_dialled_before_the_handshake_is_finished() {
    let mut scene = Scene::with("limits.handshake_timeout = \"1s\"").await;
    let config = scene.client(&[&TLS13]);
    // A client that answers no more, and one that goes away.
    for stays in [true, false] {
        let (_, message) = hello::client(&config, "open.example.test");
        let mut tcp = scene.gateway.connect().await;
        tcp.write_all(&framed(&message, &[])).await.unwrap();
        if stays {
            assert_eq!(scene.gateway.ended().await["reason"], "handshake_timeout");
        }
        drop(tcp);
        if !stays {
            assert_eq!(scene.gateway.ended().await["reason"], "handshake_failed");
        }
        assert_eq!(scene.dials(), 0);
    }
    // One that takes the gateway for another.
    let distrusting = Arc::new(Authority::new().client(&[&TLS13]));
    let (heard, _) = connection(&scene.gateway, &distrusting, "open.example.test").await;
    assert!(heard.is_err());
    let record = scene.gateway.ended().await;
    assert_eq!(record["reason"], "handshake_failed", "{record}");
    assert_eq!(
        (scene.dials(), scene.gateway.has_no_more_records()),
        (0, true)
    );
}

#[tokio::test]
async fn a_protocol_is_answered_as_the_route_has_it_or_refused_with_its_alert() {
    let authority = Authority::new();
    authority.issue_files(
        "edge",
        &[
            "free.example.test",
            "strict.example.test",
            "deaf.example.test",
        ],
    );
    let upstream = Upstream::echo().await;
    let tables = format!(
        r#"
        certificates = [{{ chain = "edge.pem", key = "edge.key" }}]
        [tls.options.strict]
        alpn = ["ssh"]
        [tls.options.deaf]
        alpn = []
        [routes.free]
        host = "free.example.test"
        upstream = "{0}"
        [routes.strict]
        host = "strict.example.test"
        tls_options = "strict"
        upstream = "{0}"
        [routes.deaf]
        host = "deaf.example.test"
        tls_options = "deaf"
        upstream = "{0}"
        "#,
        upstream.address
    );
    let mut gateway = Gateway::start(&authority, &tables).await;
    for (name, offered, answer) in [
        ("free.example.test", &[][..], Some(None)),
        ("free.example.test", &["h2"], Some(Some("h2"))),
        ("free.example.test", &["http/1.1", "h2"], Some(Some("h2"))),
        ("free.example.test", &["http/1.1"], Some(Some("http/1.1"))),
        ("free.example.test", &["ssh"], Some(None)),
        ("free.example.test", &["acme-tls/1", "h2"], Some(Some("h2"))),
        ("free.example.test", &["acme-tls/1"], None),
        ("strict.example.test", &[], Some(None)),
        ("strict.example.test", &["h2", "ssh"], Some(Some("ssh"))),
        ("strict.example.test", &["h2"], None),
        ("strict.example.test", &["SSH"], None),
        ("strict.example.test", &["acme-tls/1"], None),
        ("deaf.example.test", &["h2"], Some(None)),
        ("deaf.example.test", &["acme-tls/1"], None),
    ] {
        let mut config = authority.client(&[&TLS13]);
        config.alpn_protocols = offered.iter().map(|one| one.as_bytes().to_vec()).collect();
        let (mut tls, message) = hello::client(&Arc::new(config), name);
        let mut tcp = gateway.connect().await;
        tcp.write_all(&framed(&message, &[])).await.unwrap();
        let heard = finish(&mut tcp, &mut tls, b"word").await;
        let record = gateway.ended().await;
        match answer {
            Some(answer) => {
                assert_eq!(heard.unwrap(), b"word", "{name} {offered:?}");
                assert_eq!(
                    tls.alpn_protocol(),
                    answer.map(str::as_bytes),
                    "{name} {offered:?}"
                );
                assert_eq!(record["reason"], "closed");
            }
            None => {
                let error = heard.unwrap_err().to_string();
                assert!(
                    error.contains("NoApplicationProtocol"),
                    "{name} {offered:?}: {error}"
                );
                assert_eq!(record["reason"], "handshake_failed", "{record}");
                assert_eq!(record["endpoint"], serde_json::Value::Null);
            }
        }
    }
    assert!(gateway.has_no_more_records());
}

#[tokio::test]
async fn a_probe_of_a_certificate_authority_is_passed_on_but_to_no_upstream_behind_us() {
    let mut scene = Scene::with("").await;
    let probe = |name: &str| {
        let mut extensions = hello::tls13();
        extensions.push(hello::server_name(&[(0, name.as_bytes())]));
        extensions.push(hello::alpn(&["acme-tls/1"]));
        framed(&hello::message(0x0303, &extensions), &[])
    };
    for name in [
        "open.example.test",
        "mutual.example.test",
        "OPEN.example.test.",
    ] {
        let told = scene.tell(&probe(name)).await;
        assert_eq!(told.answer, NO_APPLICATION_PROTOCOL);
        assert_eq!(told.record["alpn"], "acme-tls/1");
    }
    assert_eq!(scene.dials(), 0);
    let told = scene.tell_all(&probe("pass.example.test")).await;
    assert!(told.answer == probe("pass.example.test"));
}

/// CVE-2026-114656 of Traefik: routes that disagreed about the options of a name were served with the default ones.
#[tokio::test]
async fn of_two_routes_for_a_name_the_one_that_wins_has_its_own_options() {
    let authority = Authority::new();
    authority.issue_files("edge", &["twice.example.test"]);
    let upstream = Upstream::echo().await;
    for (winner, rule) in [
        ("mutual", "HostSNI(`twice.example.test`)"),
        ("open", "HostSNI(`twice.example.test`)"),
        ("mutual", "!HostSNI(`other.example.test`)"),
        ("open", "!HostSNI(`other.example.test`)"),
    ] {
        let (first, second) = if winner == "mutual" {
            (9000, 1)
        } else {
            (1, 9000)
        };
        let tables = format!(
            r#"
            certificates = [{{ chain = "edge.pem", key = "edge.key" }}]
            [tls.options.mutual]
            client_auth = "required"
            client_ca = ["ca.pem"]
            [routes.mutual]
            rule = '{rule}'
            tls_options = "mutual"
            priority = {first}
            upstream = "{0}"
            [routes.open]
            rule = 'HostSNI(`twice.example.test`) && ClientIP(`127.0.0.0/8`)'
            priority = {second}
            upstream = "{0}"
            "#,
            upstream.address
        );
        let mut gateway = Gateway::start(&authority, &tables).await;
        let config = Arc::new(authority.client(&[&TLS13]));
        let (heard, _) = connection(&gateway, &config, "twice.example.test").await;
        assert_eq!(heard.is_ok(), winner == "open", "{winner}");
        assert_eq!(gateway.ended().await["route"], winner);
    }
}

/// What the documents say where nginx has `ssl_verify_depth`.
#[tokio::test(flavor = "multi_thread")]
async fn six_cas_may_stand_between_a_client_and_the_one_that_is_trusted_and_not_seven() {
    let authority = Authority::new();
    authority.issue_files("edge", &["vm.example.test"]);
    let upstream = Upstream::echo().await;
    let tables = format!(
        "certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
         [tls.options.default]\nclient_auth = \"required\"\nclient_ca = [\"ca.pem\"]\n\
         [routes.vm]\nhost = \"vm.example.test\"\nupstream = \"{}\"\n",
        upstream.address
    );
    let mut gateway = Gateway::start(&authority, &tables).await;
    for (cas, code, reason) in [(6, 0, "closed"), (7, 28, "client_certificate")] {
        authority.issue_files_below(cas, "client", &["client.example.test"]);
        let mut connect = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        connect.args(["connect", "--gateway", &gateway.address.to_string()]);
        for (flag, file) in [
            ("--ca", "ca.pem"),
            ("--cert", "client.pem"),
            ("--key", "client.key"),
        ] {
            connect.arg(flag).arg(authority.folder().join(file));
        }
        let done = run(connect.arg("vm.example.test"), b"hello\n");
        assert_eq!(done.status.code(), Some(code), "{cas}: {done:?}");
        assert_eq!(done.stdout == b"hello\n", code == 0, "{cas}: {done:?}");
        assert_eq!(gateway.ended().await["reason"], reason, "{cas}");
    }
}
