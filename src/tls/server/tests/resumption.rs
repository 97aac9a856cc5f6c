//! Which sessions may be resumed, and which never.

use rustls::HandshakeKind;
use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Resumption};
use rustls::client::{Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls_pki_types::ServerName;

use super::*;

fn kind(handshake: &Handshake) -> Option<HandshakeKind> {
    handshake
        .server
        .as_ref()
        .filter(|_| handshake.is_ok())?
        .handshake_kind()
}

#[test]
fn a_session_is_resumed_under_its_own_policy() {
    let world = World::new();
    let policy = world.policy(&Options::default());
    for version in VERSIONS {
        let client = Arc::new(world.client(version, None));
        assert_ne!(kind(&meet(&client, &policy)), Some(HandshakeKind::Resumed));
        assert_eq!(
            kind(&meet(&client, &policy)),
            Some(HandshakeKind::Resumed),
            "{version:?}"
        );
    }
}

#[test]
fn a_session_is_resumed_whatever_protocol_is_answered() {
    let world = World::new();
    let policy = world.policy(&Options::default());
    let client = world.client(&TLS13, None);
    for (offered, resumed) in [(&[][..], false), (&["h2"], true), (&["http/1.1"], true)] {
        let mut client = client.clone();
        client.alpn_protocols = offered
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let handshake = meet(&Arc::new(client), &policy);
        assert!(handshake.is_ok());
        assert_eq!(
            kind(&handshake) == Some(HandshakeKind::Resumed),
            resumed,
            "{offered:?}"
        );
    }
}

#[test]
fn a_session_is_never_resumed_under_another_policy() {
    let world = World::new();
    let certificate = world.clients.issue(&["laptop"]);
    let open = world.policy(&Options::default());
    let other_options = options_with_alpn(&["h2"]);
    let others = [
        // Equal options, but another option set; and the next generation of this one, after a change.
        world.policy(&Options::default()),
        world.policy_after(&other_options, Some(&open)),
        world.policy_after(&world.optional(), Some(&open)),
        world.policy_after(&world.required(), Some(&open)),
    ];
    for version in VERSIONS {
        for certificate in [None, Some(&certificate)] {
            for (index, other) in others.iter().enumerate() {
                // TLS 1.3 tickets serve once: each meeting gets a session of its own, and shows that it could be resumed.
                let client = Arc::new(world.client(version, certificate));
                meet(&client, &open);
                assert_eq!(kind(&meet(&client, &open)), Some(HandshakeKind::Resumed));
                let handshake = meet(&client, other);
                let kind = handshake.server.as_ref().unwrap().handshake_kind();
                assert_ne!(kind, Some(HandshakeKind::Resumed), "{version:?} {index}");
                let refused = certificate.is_none() && index == 3;
                assert_eq!(handshake.is_ok(), !refused, "{version:?} {index}");
            }
        }
    }
}

#[test]
fn where_a_client_certificate_is_asked_for_nothing_is_resumed() {
    let world = World::new();
    let certificate = world.clients.issue(&["laptop"]);
    for options in [world.optional(), world.required()] {
        let first = world.policy(&options);
        let next = world.policy_after(&options, Some(&first));
        assert_eq!(first.config(&[]).send_tls13_tickets, 0);
        for version in VERSIONS {
            let client = Arc::new(world.client(version, Some(&certificate)));
            for policy in [&first, &first, &next] {
                let handshake = meet(&client, policy);
                assert!(handshake.is_ok());
                assert_ne!(
                    kind(&handshake),
                    Some(HandshakeKind::Resumed),
                    "{version:?}"
                );
                assert_eq!(handshake.client.tls13_tickets_received(), 0);
            }
        }
    }
}

#[test]
fn sessions_go_on_when_only_the_certificates_change() {
    let world = World::new();
    let first = world.policy(&Options::default());
    let renewed = world.servers.issue(&[NAME]);
    let next = ServerPolicy::new(&Options::default(), resolver(&renewed), Some(&first)).unwrap();
    for version in VERSIONS {
        let client = Arc::new(world.client(version, None));
        assert!(meet(&client, &first).is_ok());
        assert_eq!(
            kind(&meet(&client, &next)),
            Some(HandshakeKind::Resumed),
            "{version:?}"
        );
        let fresh = Arc::new(world.client(version, None));
        assert_eq!(meet(&fresh, &next).leaf(), renewed.chain.first());
    }
}

/// A client that offers a session under whatever name it is asked for, as no honest one does.
#[derive(Debug)]
struct Nameless(ClientSessionMemoryCache);

fn one_name() -> ServerName<'static> {
    ServerName::try_from(NAME).unwrap()
}

impl ClientSessionStore for Nameless {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(one_name(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&one_name())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(one_name(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&one_name())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&one_name());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(one_name(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&one_name())
    }
}

#[test]
fn a_session_is_never_resumed_under_another_name() {
    let world = World::new();
    let certificate = world.clients.issue(&["laptop"]);
    let open = world.policy(&Options::default());
    let required = world.policy(&world.required());
    for version in VERSIONS {
        for policy in [&open, &required] {
            let mut client = world.client(version, Some(&certificate));
            client.resumption =
                Resumption::store(Arc::new(Nameless(ClientSessionMemoryCache::new(8))));
            let client = Arc::new(client);
            meet(&client, &open);
            assert_eq!(kind(&meet(&client, &open)), Some(HandshakeKind::Resumed));
            let handshake = meet_as(OTHER_NAME, &client, policy);
            assert!(handshake.is_ok(), "{:?}", handshake.server_result);
            assert_ne!(
                kind(&handshake),
                Some(HandshakeKind::Resumed),
                "{version:?}"
            );
        }
    }
}
