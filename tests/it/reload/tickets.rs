//! Session tickets over a reload: those of an option set that stays are good, those of one that changes are not.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::HandshakeKind::{self, Full, Resumed};
use rustls::client::Resumption;

use super::EDGE;
use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::policy::{VERSIONS, connection, showing};
use crate::upstream::Upstream;

/// How this client's handshake for the name goes.
async fn handshake(
    gateway: &Gateway,
    client: &Arc<ClientConfig>,
    name: &str,
) -> Option<HandshakeKind> {
    let (heard, kind) = connection(gateway, client, name).await;
    assert_eq!(heard.unwrap(), b"word", "{name}");
    kind
}

/// CVE-2022-21654 of Envoy: a session went on under settings that had changed since it was agreed.
#[tokio::test]
async fn a_reload_keeps_the_tickets_of_option_sets_that_stay_and_of_no_others() {
    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    let echo = Upstream::echo().await;
    let tables = |alpn: &str, more: &str| {
        format!(
            "{EDGE}[tls.options.other]\nalpn = [{alpn}]\n[routes.one]\nhost = \"one.example.test\"\nupstream = \"{0}\"\n\
             [routes.two]\nhost = \"two.example.test\"\nupstream = \"{0}\"\ntls_options = \"other\"\n{more}",
            echo.address
        )
    };
    let another = format!(
        "[routes.more]\nhost = \"more.example.test\"\nupstream = \"{}\"\n[limits]\ndial_timeout = \"3s\"\n",
        echo.address
    );
    for version in VERSIONS {
        let gateway = Gateway::start(&authority, &tables("\"x\"", "")).await;
        let mut client = authority.client(&[version]);
        client.resumption = Resumption::in_memory_sessions(256);
        let client = Arc::new(client);
        let both = async || {
            let one = handshake(&gateway, &client, "one.example.test").await;
            let two = handshake(&gateway, &client, "two.example.test").await;
            [one, two].map(Option::unwrap)
        };
        assert_eq!(both().await, [Full, Full], "{version:?}");
        assert_eq!(both().await, [Resumed, Resumed], "{version:?}");

        gateway.rewrite(&authority, &tables("\"x\"", &another));
        gateway.reload.done("a test").await.unwrap();
        assert_eq!(both().await, [Resumed, Resumed], "{version:?}");

        gateway.rewrite(&authority, &tables("\"y\"", &another));
        gateway.reload.done("a test").await.unwrap();
        assert_eq!(both().await, [Resumed, Full], "{version:?}");

        // The set as it was at first is another one by now, as is one that asks for certificates.
        gateway.rewrite(&authority, &tables("\"x\"", ""));
        gateway.reload.done("a test").await.unwrap();
        assert_eq!(both().await, [Resumed, Full], "{version:?}");
    }
}

#[tokio::test]
async fn client_cas_whose_file_has_changed_are_those_that_count() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.issue_files("edge", &["*.example.test"]);
    let echo = Upstream::echo().await;
    let own = std::fs::read_to_string(authority.folder().join("ca.pem")).unwrap();
    let strange = std::fs::read_to_string(stranger.folder().join("ca.pem")).unwrap();
    authority.write("clients.pem", &own);
    let tables = format!(
        "{EDGE}[tls.options.default]\nclient_auth = \"required\"\nclient_ca = [\"clients.pem\"]\n{}",
        super::route("a", &echo)
    );
    let gateway = Gateway::start(&authority, &tables).await;
    for version in VERSIONS {
        let known = showing(&authority, &authority.issue(&["client"]), version);
        let other = showing(&authority, &stranger.issue(&["client"]), version);
        for (file, served, refused) in [(&own, &known, &other), (&strange, &other, &known)] {
            authority.write("clients.pem", file);
            gateway.reload.done("a test").await.unwrap();
            let heard = connection(&gateway, served, "a.example.test").await.0;
            assert_eq!(heard.unwrap(), b"word");
            let (heard, _) = connection(&gateway, refused, "a.example.test").await;
            assert!(!heard.is_ok_and(|heard| heard == b"word"));
        }
    }
}
