//! Names that nobody serves, or that their route cannot serve: refused as configured, and never served by another.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::authority::Authority;
use crate::gateway::{Gateway, answer, exchange};
use crate::hello_bytes::{
    self as hello, HANDSHAKE, ILLEGAL_PARAMETER, INTERNAL_ERROR, UNRECOGNIZED_NAME, framed,
};
use crate::scene::Scene;
use crate::upstream::Upstream;

#[tokio::test]
async fn an_unknown_name_is_told_so_closed_or_reset_as_configured() {
    for (action, alert, reset) in [
        ("alert", &UNRECOGNIZED_NAME[..], false),
        ("close", b"", false),
        ("reset", b"", true),
    ] {
        let mut scene = Scene::with(&format!("unknown_name = \"{action}\"")).await;
        for (name, reason) in [
            (Some("nobody.example.test"), "unknown_name"),
            (None, "no_name"),
        ] {
            let names: Vec<(u8, &[u8])> = name.iter().map(|name| (0, name.as_bytes())).collect();
            let mut extensions = hello::tls13();
            if !names.is_empty() {
                extensions.push(hello::server_name(&names));
            }
            let mut bytes = framed(&hello::message(0x0303, &extensions), &[]);
            for more in [0, 100_000] {
                bytes.extend(vec![0x17; more]);
                let told = scene.tell(&bytes).await;
                assert_eq!(told.answer, alert, "{action} {more}");
                assert_eq!(told.reset, reset, "{action} {more}");
                assert_eq!(told.record["reason"], reason);
                assert_eq!(told.record["sni"], name.map_or(Value::Null, Value::from));
            }
        }
        assert_eq!(scene.dials(), 0);
    }
}

#[tokio::test]
async fn a_default_route_takes_clients_without_a_name_where_it_is_written_down() {
    let authority = Authority::new();
    let upstream = Upstream::echo().await;
    let tables = format!(
        "[routes.any]\nrule = 'HostSNI(`*`)'\npassthrough = true\nupstream = \"{}\"\n\
         [routes.named]\nhost = \"named.example.test\"\nupstream = \"{}\"\n",
        upstream.address, upstream.address
    );
    let mut gateway = Gateway::start(&authority, &tables).await;
    let nameless = framed(&hello::message(0x0303, &hello::tls13()), &[]);
    let named = |name: &str| framed(&hello::named(name), &[]);
    for bytes in [
        nameless,
        named("10.0.0.1"),
        named("::1"),
        named("nobody.example.test"),
    ] {
        let mut tcp = gateway.connect().await;
        tcp.write_all(&bytes).await.unwrap();
        tcp.shutdown().await.unwrap();
        assert!(answer(&mut tcp).await.0 == bytes);
        assert_eq!(gateway.ended().await["route"], "any");
    }
    // Who asks for a route that cannot serve does not land on the default, and who asks for no name at all neither.
    for (name, alert, reason) in [
        ("named.example.test", UNRECOGNIZED_NAME, "no_certificate"),
        ("-no-.name", ILLEGAL_PARAMETER, "bad_hello"),
    ] {
        let (answer, reset) = exchange(gateway.connect().await, &named(name)).await;
        assert_eq!((answer.as_slice(), reset), (&alert[..], false));
        assert_eq!(gateway.ended().await["reason"], reason);
    }
    assert!(gateway.has_no_more_records());
}

#[tokio::test]
async fn a_terminated_name_without_a_certificate_is_refused_as_unrecognized() {
    let authority = Authority::new();
    authority.issue_files("other", &["other.example.test"]);
    let upstream = Upstream::echo().await;
    let tables = format!(
        "certificates = [{{ chain = \"other.pem\", key = \"other.key\" }}]\n\
         [routes.any]\nrule = 'HostSNI(`*`)'\nupstream = \"{}\"\n",
        upstream.address
    );
    let mut gateway = Gateway::start(&authority, &tables).await;
    for name in ["bare.example.test", "127.0.0.1", "a.other.example.test"] {
        let bytes = framed(&hello::named(name), &[]);
        let (answer, reset) = exchange(gateway.connect().await, &bytes).await;
        assert_eq!((answer.as_slice(), reset), (&UNRECOGNIZED_NAME[..], false));
        let record = gateway.ended().await;
        assert_eq!(record["reason"], "no_certificate", "{record}");
        assert_eq!(
            (&record["fault"], &record["route"]),
            (&"gateway".into(), &"any".into())
        );
    }
}

#[tokio::test]
async fn a_client_without_a_name_is_shown_the_certificate_that_is_marked_for_it_and_no_other() {
    let authority = Authority::new();
    for name in ["marked", "other"] {
        authority.issue_files(name, &[&format!("{name}.example.test")]);
    }
    let upstream = Upstream::greeter("hello").await;
    let tables = |nameless: bool| {
        format!(
            "certificates = [{{ chain = \"other.pem\", key = \"other.key\" }},\
             {{ chain = \"marked.pem\", key = \"marked.key\", nameless = {nameless} }}]\n\
             [routes.any]\nrule = 'HostSNI(`*`)'\nupstream = \"{}\"\n\
             [routes.named]\nhost = \"marked.example.test\"\nupstream = \"{}\"\n",
            upstream.address, upstream.address
        )
    };
    let mut gateway = Gateway::start(&authority, &tables(true)).await;
    for version in [&TLS12, &TLS13] {
        let mut client = authority.client(&[version]);
        client.enable_sni = false;
        let client = Arc::new(client);
        // Of a name that it keeps to itself the client has the proof all the same.
        gateway
            .connect_tls(&client, "marked.example.test")
            .await
            .unwrap();
        let record = gateway.ended().await;
        assert_eq!(record["route"], "any", "{record}");
        assert!(record["sni"].is_null(), "{record}");
        let other = gateway.connect_tls(&client, "other.example.test").await;
        assert!(
            other
                .unwrap_err()
                .to_string()
                .contains("not valid for name")
        );
        assert_eq!(gateway.ended().await["reason"], "handshake_failed");
    }
    // It stands in for no name.
    let bare = framed(&hello::named("bare.example.test"), &[]);
    let (answer, _) = exchange(gateway.connect().await, &bare).await;
    assert_eq!(answer, UNRECOGNIZED_NAME);
    assert_eq!(gateway.ended().await["reason"], "no_certificate");

    gateway.rewrite(&authority, &tables(false));
    gateway.reload.done("the test").await.unwrap();
    let nameless = framed(&hello::message(0x0303, &hello::tls13()), &[]);
    let (answer, _) = exchange(gateway.connect().await, &nameless).await;
    assert_eq!(answer, UNRECOGNIZED_NAME);
    assert_eq!(gateway.ended().await["reason"], "no_certificate");
}

/// CVE-2022-46153 of Traefik: a route whose options were broken was served with empty ones.
#[tokio::test]
async fn a_route_whose_option_set_is_broken_is_refused_and_never_served_with_another() {
    let authority = Authority::new();
    authority.issue_files("edge", &["broken.example.test", "whole.example.test"]);
    let ca = std::fs::read_to_string(authority.folder().join("ca.pem")).unwrap();
    let file = authority.write("clients.pem", &ca);
    let upstream = Upstream::echo().await;
    let tables = format!(
        r#"
        certificates = [{{ chain = "edge.pem", key = "edge.key" }}]
        [tls.options.mutual]
        client_auth = "required"
        client_ca = ["clients.pem"]
        [routes.broken]
        host = "broken.example.test"
        tls_options = "mutual"
        upstream = "{0}"
        [routes.wide]
        host = "*.example.test"
        upstream = "{0}"
        "#,
        upstream.address
    );
    let config = Gateway::load(&authority, &tables);
    // Between its check and its use.
    std::fs::remove_file(file).unwrap();
    let mut gateway = Gateway::serve(config).await;
    for name in ["broken.example.test", "BROKEN.example.test."] {
        let bytes = framed(&hello::named(name), &[]);
        let (answer, reset) = exchange(gateway.connect().await, &bytes).await;
        assert_eq!((answer.as_slice(), reset), (&INTERNAL_ERROR[..], false));
        let record = gateway.ended().await;
        assert_eq!(record["reason"], "route_broken", "{record}");
        assert_eq!(
            (&record["fault"], &record["route"]),
            (&"gateway".into(), &"broken".into())
        );
    }
    let mut tcp = gateway.connect().await;
    tcp.write_all(&framed(&hello::named("whole.example.test"), &[]))
        .await
        .unwrap();
    tcp.shutdown().await.unwrap();
    assert_eq!(answer(&mut tcp).await.0[..3], [HANDSHAKE, 3, 3]);
    assert_eq!(gateway.ended().await["route"], "wide");
}

/// CVE-2023-25076 of sniproxy: the name became the address that was dialled.
#[tokio::test]
async fn a_name_is_never_dialled() {
    let authority = Authority::new();
    let mine = Upstream::greeter("mine").await;
    let tables = format!(
        "[routes.any]\nrule = 'HostSNI(`*`)'\npassthrough = true\nupstream = \"{}\"\n",
        mine.address
    );
    let mut gateway = Gateway::start(&authority, &tables).await;
    for name in ["localhost", "127.0.0.1", "nobody.invalid"] {
        let mut tcp = gateway.connect().await;
        tcp.write_all(&framed(&hello::named(name), &[]))
            .await
            .unwrap();
        tcp.shutdown().await.unwrap();
        let mut said = Vec::new();
        tcp.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, b"mine");
        let endpoint = gateway.ended().await["endpoint"].as_str().unwrap().parse();
        assert_eq!(endpoint, Ok::<SocketAddr, _>(mine.address));
    }
}

#[tokio::test]
async fn what_a_stranger_sends_becomes_no_metric() {
    let socket = tempfile::tempdir().unwrap();
    let path = socket.path().join("admin.sock");
    let mut scene = Scene::with(&format!("admin = \"unix:{}\"", path.display())).await;
    for name in ["mallory.example.test", "mallory.wild.example.test"] {
        scene.tell_all(&framed(&hello::named(name), &[])).await;
    }
    let mut admin = UnixStream::connect(&path).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    admin.write_all(request.as_bytes()).await.unwrap();
    let mut metrics = String::new();
    admin.read_to_string(&mut metrics).await.unwrap();
    assert!(
        metrics.contains("unknown_name") && metrics.contains("\"wild\""),
        "{metrics}"
    );
    assert!(!metrics.contains("mallory"), "{metrics}");
}
