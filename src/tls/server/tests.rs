//! Policies, as clients meet them: ALPN, versions, client certificates, resumption.

use std::path::PathBuf;
use std::time::SystemTime;

use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, Error, NamedGroup};
use rustls::{ProtocolVersion, RootCertStore};
use tempfile::TempDir;

use super::*;
use crate::tls::test_certs::{Ca, DAY, Handshake, Issued, handshake, write};

mod resumption;

const NAME: &str = "a.example.com";
const OTHER_NAME: &str = "b.example.com";
const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A CA of servers, one of clients with its file, and a server's certificate.
struct World {
    servers: Ca,
    clients: Ca,
    clients_file: PathBuf,
    server: Issued,
    _directory: TempDir,
}

impl World {
    fn new() -> Self {
        let (servers, clients) = (Ca::new("servers"), Ca::new("clients"));
        let directory = tempfile::tempdir().unwrap();
        Self {
            server: servers.issue(&[NAME, OTHER_NAME]),
            clients_file: write(directory.path(), "clients.pem", clients.pem()),
            servers,
            clients,
            _directory: directory,
        }
    }

    fn policy(&self, options: &Options) -> ServerPolicy {
        self.policy_after(options, None)
    }

    fn policy_after(&self, options: &Options, previous: Option<&ServerPolicy>) -> ServerPolicy {
        ServerPolicy::new(options, resolver(&self.server), previous).unwrap()
    }

    fn optional(&self) -> Options {
        Options {
            client_auth: ClientAuth::Optional(vec![self.clients_file.clone()]),
            ..Options::default()
        }
    }

    fn required(&self) -> Options {
        Options {
            client_auth: ClientAuth::Required(vec![self.clients_file.clone()]),
            ..Options::default()
        }
    }

    /// A client of one version that keeps sessions, as rustls's default does.
    fn client(
        &self,
        version: &'static SupportedProtocolVersion,
        certificate: Option<&Issued>,
    ) -> ClientConfig {
        client(&[version], self.servers.roots(), certificate)
    }
}

fn resolver(server: &Issued) -> Arc<dyn ResolvesServerCert> {
    Arc::new(SingleCertAndKey::from(server.certified_key()))
}

fn client(
    versions: &[&'static SupportedProtocolVersion],
    roots: Arc<RootCertStore>,
    certificate: Option<&Issued>,
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(crate::tls::provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    match certificate {
        Some(issued) => builder
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(issued.certified_key()))),
        None => builder.with_no_client_auth(),
    }
}

/// A handshake as the gateway runs it: the configuration is chosen by what the hello offers.
fn meet(client: &Arc<ClientConfig>, policy: &ServerPolicy) -> Handshake {
    meet_as(NAME, client, policy)
}

fn meet_as(name: &str, client: &Arc<ClientConfig>, policy: &ServerPolicy) -> Handshake {
    handshake(client, name, |hello| {
        let offered: Vec<Vec<u8>> = hello
            .alpn()
            .into_iter()
            .flatten()
            .map(<[u8]>::to_vec)
            .collect();
        Arc::clone(policy.config(&offered))
    })
}

fn alert(handshake: &Handshake) -> Option<AlertDescription> {
    match handshake.client_result {
        Err(Error::AlertReceived(alert)) => Some(alert),
        _ => None,
    }
}

fn options_with_alpn(list: &[&str]) -> Options {
    Options {
        alpn: Some(list.iter().map(|name| (*name).to_owned()).collect()),
        ..Options::default()
    }
}

fn meet_with_alpn(world: &World, policy: &ServerPolicy, offered: &[&str]) -> Handshake {
    let mut client = world.client(&TLS13, None);
    client.alpn_protocols = offered
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    meet(&Arc::new(client), policy)
}

#[test]
fn without_a_list_no_offer_of_protocols_is_answered_with_an_alert() {
    let world = World::new();
    let policy = world.policy(&Options::default());
    for (offered, answer) in [
        (&[][..], None),
        (&["h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["ssh", "http/1.1"], Some("http/1.1")),
        (&["ssh"], None),
        (&["H2"], None),
        (&["acme-tls/1"], None),
    ] {
        let handshake = meet_with_alpn(&world, &policy, offered);
        assert!(
            handshake.is_ok(),
            "{offered:?}: {:?}",
            handshake.server_result
        );
        assert_eq!(handshake.alpn(), answer.map(str::as_bytes), "{offered:?}");
    }
}

#[test]
fn a_list_of_protocols_is_obeyed_strictly() {
    let world = World::new();
    let policy = world.policy(&options_with_alpn(&["ssh", "h2"]));
    for (offered, answer) in [
        (&[][..], None),
        (&["h2", "ssh"], Some("ssh")),
        (&["x", "h2"], Some("h2")),
    ] {
        let handshake = meet_with_alpn(&world, &policy, offered);
        assert!(handshake.is_ok(), "{offered:?}");
        assert_eq!(handshake.alpn(), answer.map(str::as_bytes), "{offered:?}");
    }
    let handshake = meet_with_alpn(&world, &policy, &["http/1.1"]);
    assert_eq!(
        alert(&handshake),
        Some(AlertDescription::NoApplicationProtocol)
    );
}

#[test]
fn an_empty_list_turns_alpn_off() {
    let world = World::new();
    let policy = world.policy(&options_with_alpn(&[]));
    for offered in [&[][..], &["h2", "http/1.1"], &["ssh"]] {
        let handshake = meet_with_alpn(&world, &policy, offered);
        assert!(handshake.is_ok(), "{offered:?}");
        assert_eq!(handshake.alpn(), None, "{offered:?}");
    }
}

#[test]
fn the_status_is_promised_to_whoever_asks_for_it_unless_alpn_is_off() {
    let world = World::new();
    let told: Option<&[u8]> = Some(b"portcullis/1");
    for (options, answer) in [
        (Options::default(), told),
        (options_with_alpn(&["ssh", "h2"]), told),
        (options_with_alpn(&[]), None),
        (world.optional(), told),
    ] {
        let policy = world.policy(&options);
        for offered in [&["portcullis/1"][..], &["h2", "portcullis/1"]] {
            let handshake = meet_with_alpn(&world, &policy, offered);
            assert!(handshake.is_ok(), "{offered:?}");
            assert_eq!(handshake.alpn(), answer, "{offered:?}");
        }
    }
}

#[test]
fn a_protocol_that_cannot_be_offered_makes_no_policy() {
    let world = World::new();
    let too_long = "x".repeat(256);
    for (name, reason) in [
        (
            "acme-tls/1",
            "the ALPN protocol `acme-tls/1` is kept for ACME's own handshakes",
        ),
        ("", "the ALPN protocol `` is not 1 to 255 bytes long"),
        (too_long.as_str(), "the ALPN protocol `xxx"),
    ] {
        let options = options_with_alpn(&["h2", name]);
        let error = ServerPolicy::new(&options, resolver(&world.server), None).unwrap_err();
        assert!(error.to_string().starts_with(reason), "{error}");
    }
}

#[test]
fn versions_outside_the_limits_are_refused_by_an_alert() {
    use Version::{Tls12, Tls13};
    let world = World::new();
    for (min_version, max_version, allowed) in [
        (Tls12, Tls12, &[&TLS12][..]),
        (Tls13, Tls13, &[&TLS13]),
        (Tls12, Tls13, &VERSIONS),
    ] {
        let policy = world.policy(&Options {
            min_version,
            max_version,
            ..Options::default()
        });
        for version in VERSIONS {
            let handshake = meet(&Arc::new(world.client(version, None)), &policy);
            if allowed.contains(&version) {
                assert!(
                    handshake.is_ok(),
                    "{min_version:?}..{max_version:?} {version:?}"
                );
                assert_eq!(handshake.client.protocol_version(), Some(version.version));
            } else {
                assert_eq!(alert(&handshake), Some(AlertDescription::ProtocolVersion));
            }
        }
    }
    let none = Options {
        min_version: Tls13,
        max_version: Tls12,
        ..Options::default()
    };
    assert!(ServerPolicy::new(&none, resolver(&world.server), None).is_err());
}

#[test]
fn the_key_exchange_is_post_quantum_by_default() {
    let world = World::new();
    let policy = world.policy(&Options::default());
    let handshake = meet(
        &Arc::new(client(&VERSIONS, world.servers.roots(), None)),
        &policy,
    );
    assert_eq!(
        handshake.client.protocol_version(),
        Some(ProtocolVersion::TLSv1_3)
    );
    let group = handshake.client.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
}

/// CVE-2025-66491 of Traefik: a switch for verification that meant its opposite.
#[test]
fn client_certificates_are_asked_for_and_verified_as_the_options_say() {
    let world = World::new();
    let good = world.clients.issue(&["laptop"]);
    let stranger = Ca::new("clients").issue(&["laptop"]);
    let mut request = world.clients.request(&["laptop"]);
    request.not_after = SystemTime::now() - DAY / 2;
    let expired = request.issue();
    let certificates = [None, Some(&good), Some(&stranger), Some(&expired)];
    for (options, passes) in [
        (Options::default(), [true, true, true, true]),
        (world.optional(), [true, true, false, false]),
        (world.required(), [false, true, false, false]),
    ] {
        let policy = world.policy(&options);
        let asked = options.client_auth != ClientAuth::None;
        assert_eq!(policy.asks_for_certificate(), asked);
        for version in VERSIONS {
            for (index, certificate) in certificates.into_iter().enumerate() {
                let handshake = meet(&Arc::new(world.client(version, certificate)), &policy);
                let case = format!(
                    "{options:?} {version:?} {index}: {:?}",
                    handshake.server_result
                );
                assert_eq!(handshake.is_ok(), passes[index], "{case}");
                let server = handshake.server.as_ref().unwrap();
                let shown = passes[index] && asked && certificate.is_some();
                assert_eq!(server.peer_certificates().is_some(), shown, "{case}");
                assert_eq!(alert(&handshake).is_some(), !passes[index], "{case}");
            }
        }
    }
}

#[test]
fn client_authentication_without_a_usable_ca_makes_no_policy() {
    let world = World::new();
    for files in [vec![], vec![PathBuf::from("/nowhere/ca.pem")]] {
        for client_auth in [
            ClientAuth::Optional(files.clone()),
            ClientAuth::Required(files.clone()),
        ] {
            let options = Options {
                client_auth,
                ..Options::default()
            };
            let error = ServerPolicy::new(&options, resolver(&world.server), None).unwrap_err();
            match files.first() {
                None => assert!(matches!(error, PolicyError::NoClientCa)),
                Some(_) => assert_eq!(
                    error.to_string(),
                    "client CAs: /nowhere/ca.pem: does not exist"
                ),
            }
        }
    }
}

#[test]
fn early_data_is_never_taken_and_nothing_is_sent_before_the_client_has_finished() {
    let world = World::new();
    let policy = world.policy(&Options::default());
    for offered in [vec![], vec![b"h2".to_vec()], vec![b"http/1.1".to_vec()]] {
        let config = policy.config(&offered);
        assert_eq!(config.max_early_data_size, 0);
        assert!(!config.send_half_rtt_data);
    }
}
