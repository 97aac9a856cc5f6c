//! No session that was agreed under one option set saves a client from another.

use std::sync::Arc;

use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;
use rustls::{HandshakeKind, NamedGroup};

use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::policy::{VERSIONS, connection, showing};
use crate::upstream::Upstream;

/// A client's sessions, offered to every server alike: a client that means ill does so.
#[derive(Debug)]
struct OnePocket(ClientSessionMemoryCache);

fn anyone() -> ServerName<'static> {
    ServerName::try_from("anyone.example.test").unwrap()
}

impl ClientSessionStore for OnePocket {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(anyone(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&anyone())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(anyone(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&anyone())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&anyone());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(anyone(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&anyone())
    }
}

/// One name under several option sets, told apart by the client's protocol, and other names.
async fn resuming() -> (Authority, Upstream, Gateway) {
    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    let upstream = Upstream::echo().await;
    let tables = format!(
        r#"
        certificates = [{{ chain = "edge.pem", key = "edge.key" }}]
        [tls.options.mutual]
        client_auth = "required"
        client_ca = ["ca.pem"]
        [tls.options.asking]
        client_auth = "optional"
        client_ca = ["ca.pem"]
        [tls.options.other]
        alpn = ["other"]
        [routes.mutual]
        rule = 'HostSNI(`one.example.test`) && ALPN(`mutual`)'
        tls_options = "mutual"
        upstream = "{0}"
        [routes.asking]
        rule = 'HostSNI(`one.example.test`) && ALPN(`asking`)'
        tls_options = "asking"
        upstream = "{0}"
        [routes.other]
        rule = 'HostSNI(`one.example.test`) && ALPN(`other`)'
        tls_options = "other"
        upstream = "{0}"
        [routes.one]
        host = "one.example.test"
        upstream = "{0}"
        [routes.two]
        host = "two.example.test"
        tls_options = "mutual"
        upstream = "{0}"
        "#,
        upstream.address
    );
    let gateway = Gateway::start(&authority, &tables).await;
    (authority, upstream, gateway)
}

/// CVE-2025-23419 of nginx, CVE-2025-23048 of Apache and CVE-2022-21654 of Envoy: a session that was agreed under one
/// policy was resumed under another.
#[tokio::test]
async fn a_session_of_one_option_set_is_never_resumed_under_another() {
    let (authority, _upstream, mut gateway) = resuming().await;
    for version in VERSIONS {
        let mut client = authority.client(&[version]);
        client.resumption =
            Resumption::store(Arc::new(OnePocket(ClientSessionMemoryCache::new(8))));
        let offering = |protocol: &str| {
            let mut config = client.clone();
            if !protocol.is_empty() {
                config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
            }
            Arc::new(config)
        };
        // Enough to steal: what is resumed shows that the tickets are good.
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (heard, went) = connection(&gateway, &offering(""), "one.example.test").await;
            assert_eq!(
                (heard.unwrap().as_slice(), went),
                (&b"word"[..], Some(kind)),
                "{version:?}"
            );
            assert_eq!(gateway.ended().await["route"], "one");
        }
        for (name, protocol, route) in [
            ("one.example.test", "mutual", "mutual"),
            ("two.example.test", "", "two"),
        ] {
            let (heard, went) = connection(&gateway, &offering(protocol), name).await;
            assert!(heard.is_err(), "{route}");
            assert_ne!(went, Some(HandshakeKind::Resumed), "{route}");
            let record = gateway.ended().await;
            assert_eq!(
                (&record["route"], &record["reason"]),
                (&route.into(), &"client_certificate".into())
            );
        }
        for protocol in ["other", "asking"] {
            // The failures may have spent what was there.
            connection(&gateway, &offering(""), "one.example.test")
                .await
                .0
                .unwrap();
            assert_eq!(gateway.ended().await["route"], "one");
            let (heard, went) = connection(&gateway, &offering(protocol), "one.example.test").await;
            assert_eq!(heard.unwrap(), b"word");
            assert_ne!(went, Some(HandshakeKind::Resumed), "{protocol}");
            assert_eq!(gateway.ended().await["route"], protocol);
        }
    }
    assert!(gateway.has_no_more_records());
}

#[tokio::test]
async fn no_session_is_ever_resumed_where_a_client_certificate_is_asked_for() {
    let (authority, _upstream, mut gateway) = resuming().await;
    let known = authority.issue(&["client.example.test"]);
    for version in VERSIONS {
        let mut config = Arc::unwrap_or_clone(showing(&authority, &known, version));
        config.resumption =
            Resumption::store(Arc::new(OnePocket(ClientSessionMemoryCache::new(8))));
        for protocol in ["mutual", "asking"] {
            config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
            let config = Arc::new(config.clone());
            for _ in 0..3 {
                let (heard, went) = connection(&gateway, &config, "one.example.test").await;
                assert_eq!(
                    (heard.unwrap().as_slice(), went),
                    (&b"word"[..], Some(HandshakeKind::Full))
                );
                assert_eq!(gateway.ended().await["route"], protocol);
            }
        }
    }
}
