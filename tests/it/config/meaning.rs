//! What good configurations mean, the examples among them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use portcullis::config::{
    self, Action, Cap, CertificateFiles, Checked, Consul, EndpointAddress, HealthCheck, Limits,
    ListenAddress, LogFormat, Middleware, ProxyTlvs, ProxyVersion, Rate, Span, UnknownName,
};
use portcullis::name::SpiffeId;
use portcullis::tls::client::no_server_name;
use portcullis::tls::options::{ClientAuth, Version};
use portcullis::tls::verify::Proof;
use tempfile::TempDir;

use super::{ROUTE, folder, good, parse};

#[test]
fn an_empty_file_is_good_and_warns_that_it_does_nothing() {
    let checked = good("");
    assert_eq!(checked.warnings.warnings(), 1);
    assert!(
        checked
            .warnings
            .to_string()
            .contains("there are no `routes`")
    );
    let config = checked.config;
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.listeners[0].address, "[::]:8443".parse().unwrap());
    assert_eq!(config.listeners[0].unknown_name, UnknownName::Alert);
    assert_eq!(
        config.admin,
        Some(ListenAddress::Tcp("127.0.0.1:9443".parse().unwrap()))
    );
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.log.format, LogFormat::Auto);
    assert!(config.log.access);
    assert!(config.tls_options.contains_key("default"));
}

#[test]
fn of_tunnels_alone_nothing_listens_but_what_is_written() {
    let tunnel = "[tunnels.t]\nlisten = \"127.0.0.1:8899\"\nto = \"master.example.com:8443\"\n";
    let config = good(tunnel).config;
    assert_eq!((config.listeners.len(), config.admin), (0, None));
    let written = good(&format!("admin = \"127.0.0.1:9444\"\n{tunnel}")).config;
    let address = "127.0.0.1:9444".parse().unwrap();
    assert_eq!(written.admin, Some(ListenAddress::Tcp(address)));
    // Beside a route a gateway's operators find it where they always do.
    let both = good(&format!("{ROUTE}\n{tunnel}")).config;
    assert!(both.admin.is_some() && both.listeners.len() == 1);
}

#[test]
fn admin_can_be_a_socket_or_nothing() {
    assert_eq!(good("admin = false").config.admin, None);
    let folder = folder();
    let checked = parse(&folder, "admin = \"unix:run/admin.sock\"").unwrap();
    let socket = folder.path().join("run/admin.sock");
    assert_eq!(checked.config.admin, Some(ListenAddress::Unix(socket)));
}

#[test]
fn a_bare_address_is_an_upstream_of_its_own() {
    let config = good(ROUTE).config;
    assert_eq!(config.routes["vm"].upstream, "10.0.0.5:22");
    let upstream = &config.upstreams["10.0.0.5:22"];
    assert_eq!(upstream.endpoints.len(), 1);
    assert!(upstream.tls.is_none());
    let address = EndpointAddress::Ip("10.0.0.5:22".parse().unwrap());
    assert_eq!(upstream.endpoints[0].address, address);
}

#[test]
fn a_list_of_hosts_is_a_rule_that_takes_each() {
    let text = "[routes.vm]\nhost = [\"a.example.com\", \"*.b.example.com\"]\nupstream = \"a:1\"\n";
    let rule = &good(text).config.routes["vm"].rule;
    assert_eq!(
        rule.text(),
        "HostSNI(`a.example.com`) || HostSNI(`*.b.example.com`)"
    );
}

#[test]
fn priority_0_is_the_rules_own() {
    let text = |priority: i64| format!("{ROUTE}priority = {priority}\n");
    assert_eq!(good(&text(0)).config.routes["vm"].priority, None);
    assert_eq!(good(&text(-5)).config.routes["vm"].priority, Some(-5));
}

#[test]
fn a_limit_is_a_number_or_says_whether_it_is_enforced_too() {
    let text = "[limits]\nconnections = 5000\nper_source = \"off\"\n\
        handshakes = { enforce = \"dry-run\" }\naccept_rate = { per_second = 10 }\n\
        per_route = { max = 7, enforce = true }\n\
        lifetime = { max = \"8h\", enforce = \"dry-run\" }\nidle_timeout = \"1h\"\n";
    let limits = good(text).config.limits;
    let default = Limits::default();
    assert_eq!(limits.connections, Cap::of(5000));
    assert_eq!(limits.per_source.max, None);
    let counting = Cap {
        enforce: false,
        ..default.handshakes
    };
    assert_eq!(limits.handshakes, counting);
    let rate = Rate {
        per_second: Some(10),
        ..default.accept_rate
    };
    assert_eq!(limits.accept_rate, rate);
    assert_eq!(limits.per_route, Cap::of(7));
    let hours = Span {
        max: Some(Duration::from_secs(8 * 3600)),
        enforce: false,
    };
    assert_eq!(limits.lifetime, hours);
    assert_eq!(limits.idle.max, Some(Duration::from_secs(3600)));
    assert!(limits.idle.enforce);

    let text = format!("{ROUTE}max_connections = {{ max = 3, enforce = \"dry-run\" }}\n");
    let three = Cap {
        enforce: false,
        ..Cap::of(3)
    };
    assert_eq!(good(&text).config.routes["vm"].max_connections, Some(three));
    assert_eq!(good(ROUTE).config.routes["vm"].max_connections, None);
}

#[test]
fn tls_to_an_upstream_checks_the_name_that_its_endpoints_share() {
    let text = "[upstreams.a]\nendpoints = [\"a.x:1\", \"a.x:2\"]\ntls = true\n";
    let tls = good(text).config.upstreams["a"].tls.clone().unwrap();
    assert_eq!(tls.server_name.to_str(), "a.x");
    assert!(tls.roots.is_empty());
}

/// An example, loaded from beside the files it names.
fn example(name: &str) -> (TempDir, Checked) {
    let folder = folder();
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config")
        .join(name);
    // Not loaded: the environment of the tests is not the example's.
    let text = fs::read_to_string(source).unwrap();
    let checked = config::parse(&text, &folder.path().join(name));
    let checked = checked.unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    (folder, checked)
}

#[test]
fn every_example_loads_without_a_warning() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut seen = 0;
    for entry in fs::read_dir(examples).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".toml") {
            let (_folder, checked) = example(&name);
            assert!(checked.warnings.list.is_empty(), "{}", checked.warnings);
            seen += 1;
        }
    }
    assert!(seen >= 3);
}

#[test]
fn the_full_example_means_what_its_comments_say() {
    let (folder, checked) = example("full.toml");
    let config = checked.config;
    let default = good("").config;
    assert_eq!(config.listeners, default.listeners);
    assert_eq!(config.admin, default.admin);
    assert_eq!(config.limits, default.limits);
    assert_eq!(config.log, default.log);
    assert_eq!(
        config.tls_options["default"],
        default.tls_options["default"]
    );
    let staff = &config.tls_options["staff"];
    assert_eq!(staff.min_version, Version::Tls13);
    let ca = folder.path().join("clients-ca.pem");
    assert_eq!(staff.client_auth, ClientAuth::Required(vec![ca]));
    assert_eq!(config.routes["legacy"].action, Action::PassThrough);
    let options = Some("staff".to_owned());
    assert_eq!(config.routes["staff"].action, Action::Terminate { options });
    assert_eq!(config.routes["staff"].priority, Some(10));
    assert_eq!(config.routes["staff"].max_connections, Some(Cap::of(500)));
    assert_eq!(config.routes["staff"].middlewares, ["office", "few"]);
    assert!(config.routes["wiki"].middlewares.is_empty());
    assert_eq!(config.middlewares["few"], Middleware::InFlightConn(10));
    assert_eq!(config.upstreams["wiki"].endpoints[1].weight, 2);
    let tls = config.upstreams["wiki"].tls.as_ref().unwrap();
    assert_eq!(tls.server_name.to_str(), "wiki.internal");
    assert_eq!(tls.roots, [folder.path().join("internal-ca.pem")]);
    assert_eq!(tls.proof, Proof::ServerName);
    let gateway = ["gateway.pem", "gateway.key"].map(|name| folder.path().join(name));
    let [chain, key] = gateway;
    assert_eq!(tls.certificate, Some((chain, key.into())));
    let tls = config.upstreams["metrics"].tls.as_ref().unwrap();
    assert_eq!(tls.server_name, no_server_name());
    assert!(matches!(&tls.proof, Proof::AnyOf(names) if names.len() == 2));
    let tls = config.upstreams["billing"].tls.as_ref().unwrap();
    let billing = "spiffe://mesh.example.com/ns/default/dc/dc1/svc/billing";
    assert_eq!(tls.proof, Proof::Spiffe(SpiffeId::parse(billing).unwrap()));
    let send = config.upstreams["metrics"].send_proxy.unwrap();
    let tlvs = ProxyTlvs {
        authority: true,
        unique_id: true,
        ..ProxyTlvs::default()
    };
    assert!(send.version == ProxyVersion::V2(tlvs) && !send.inside_tls);
    let check = config.upstreams["metrics"].health_check.as_ref().unwrap();
    let expected = HealthCheck {
        port: Some(9091),
        send: (*b"GET /ready HTTP/1.0\r\n\r\n").into(),
        expect: (*b"HTTP/1.0 200").into(),
        unhealthy_interval: Duration::from_secs(10),
        ..HealthCheck::default()
    };
    assert_eq!(check, &expected);
    let (ledger, db) = (&config.upstreams["ledger"], &config.transports["db"]);
    assert!(ledger.tls == db.tls && ledger.timing == db.timing);
    assert_eq!(db.timing.keepalive.unwrap().count, 6);
    let canary = &config.upstreams["canary"].weighted;
    assert_eq!(canary.iter().map(|one| one.weight).sum::<u32>(), 4);
    let vault = config.upstreams["vault"].service.as_ref().unwrap();
    assert!(vault.name == "vault" && vault.mesh);
    let consul = Consul {
        mesh_identity: Some("portcullis".to_owned()),
        ..good("[consul]").config.consul.unwrap()
    };
    assert_eq!(config.consul, Some(consul));
    let tunnel = &config.tunnels["clusterd"];
    assert_eq!((tunnel.mode, tunnel.listen.len()), (Some(0o660), 1));
    assert_eq!(tunnel.allow_uids.as_deref(), Some([0, 1000].as_slice()));
    let tls = config.upstreams[&tunnel.upstream].tls.as_ref().unwrap();
    assert_eq!(tls.server_name.to_str(), "master.internal");
    assert_eq!(tls.alpn, ["h2"]);
    let rdp = &config.upstreams[&config.tunnels["rdp"].upstream];
    let name = rdp.tls.as_ref().unwrap().server_name.to_str();
    assert_eq!(name, "rdp.vm.example.com");
    assert_eq!(config.tunnels["ledger"].upstream, "ledger");
    let directory = CertificateFiles::Directory(folder.path().join("certificates"));
    assert_eq!(config.certificates[1], directory);
    assert_eq!(checked.certificates.len(), 2);
}

#[test]
fn the_ssh_example_sets_what_it_says() {
    let config = example("ssh.toml").1.config;
    assert_eq!(config.limits.idle.max, None);
    assert_eq!(config.limits.drain, Duration::from_secs(1800));
}

/// The keys that are known are those that the reader asks for: it lists them when it meets one that is not.
#[test]
fn the_full_example_shows_every_key() {
    let folder = folder();
    let full = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/full.toml"));
    let full = full.unwrap();
    let mut known = BTreeSet::new();
    for section in [
        "",
        "[[listen]]",
        "[[listen]]\n[listen.proxy_protocol]",
        "[[certificates]]",
        "[tls]",
        "[tls.options.a]",
        "[middlewares.a]",
        "[routes.a]",
        "[upstreams.a]",
        "[upstreams.a.tls]",
        "[upstreams.a.proxy_protocol]",
        "[upstreams.a.health_check]",
        "[[upstreams.a.endpoints]]",
        "[[upstreams.a.weighted]]",
        "[tunnels.a]",
        "[transports.a]",
        "[transports.a.keepalive]",
        "[consul]",
        "[nomad]",
        "[limits]",
        "[limits.connections]",
        "[limits.accept_rate]",
        "[limits.keepalive]",
        "[log]",
    ] {
        let report = parse(&folder, &format!("{section}\nzzzzzzzzzzzz = 1\n")).unwrap_err();
        let helps = report.list.iter().filter_map(|one| one.help.as_deref());
        let lists: Vec<&str> = helps
            .filter_map(|help| help.split_once("known here: "))
            .map(|(_, list)| list)
            .collect();
        assert_eq!(lists.len(), 1, "{report}");
        known.extend(lists[0].split(", ").map(str::to_owned));
    }
    assert!(known.len() > 30, "{known:?}");
    for key in known {
        let assigned = format!("{key} = ");
        let sections = [format!("[{key}"), format!("[[{key}"), format!(".{key}")];
        let is_shown =
            full.contains(&assigned) || sections.iter().any(|text| full.contains(text.as_str()));
        assert!(is_shown, "config/full.toml does not show `{key}`");
    }
}
