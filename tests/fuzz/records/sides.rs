//! The two sides of a connection: how each is configured, and what it says.

use std::sync::{Arc, LazyLock};

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig};

use super::crypto::{self, Believer};
use super::setting::Setting;

/// What the server calls itself.
pub(crate) fn name() -> ServerName<'static> {
    ServerName::try_from("records.test").unwrap()
}

/// The server, as the records or as their peer.
pub(crate) fn server(setting: &Setting, is_peer: bool) -> Arc<ServerConfig> {
    let provider = crypto::provider(worn(setting, is_peer), is_peer, setting.retry);
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS12, &TLS13])
        .unwrap();
    let builder = match setting.mutual {
        true => builder.with_client_cert_verifier(Arc::new(Believer)),
        false => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(crypto::certificate(setting.certificate));
    config.send_tls13_tickets = setting.tickets;
    if is_peer {
        config.max_fragment_size = setting.fragment;
    }
    Arc::new(config)
}

/// The client, likewise.
pub(crate) fn client(setting: &Setting, is_peer: bool) -> Arc<ClientConfig> {
    let version = if setting.old { &TLS12 } else { &TLS13 };
    let provider = crypto::provider(worn(setting, is_peer), is_peer, false);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Believer))
        .with_client_cert_resolver(crypto::certificate(setting.certificate));
    config.resumption = Resumption::disabled();
    if is_peer {
        config.max_fragment_size = setting.fragment;
    }
    Arc::new(config)
}

fn worn(setting: &Setting, is_peer: bool) -> bool {
    match is_peer {
        true => setting.peer_worn,
        false => setting.worn,
    }
}

/// What each side says, from this place on: no two places within a record look alike.
pub(crate) fn words(from: usize, length: usize) -> Vec<u8> {
    const PERIOD: usize = 65_521;
    static WORDS: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut state = 1;
        (0..PERIOD)
            .map(|_| crypto::scattered(&mut state) as u8)
            .collect()
    });
    let mut words = Vec::with_capacity(length);
    while words.len() < length {
        let rest = &WORDS[(from + words.len()) % PERIOD..];
        words.extend_from_slice(&rest[..rest.len().min(length - words.len())]);
    }
    words
}
