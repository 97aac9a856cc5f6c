//! The tables of docs/traefik.md, row by row against the code that they tell of.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use portcullis::config;
use portcullis::discovery::exposure::{Exposure, service};
use portcullis::discovery::instance::{Found, Health, Instance};
use portcullis::name::MeshService;
use portcullis::snapshot::Source;
use portcullis::snapshot::service::{Service, ServiceKey, ServiceRoute, ServiceUpstream};

/// What Traefik 3.7 reads of tags for TCP, and what it reads of others that may stand beside (its reference of labels); `R`, `S` and
/// `M` are names.
const TAGS: &[&str] = &[
    "enable",
    "consulcatalog.connect",
    "consulcatalog.canary",
    "nomad.canary",
    "tcp.routers.R.entrypoints",
    "tcp.routers.R.middlewares",
    "tcp.routers.R.priority",
    "tcp.routers.R.rule",
    "tcp.routers.R.rulesyntax",
    "tcp.routers.R.service",
    "tcp.routers.R.tls",
    "tcp.routers.R.tls.certresolver",
    "tcp.routers.R.tls.options",
    "tcp.routers.R.tls.passthrough",
    "tcp.routers.R.tls.domains[0].main",
    "tcp.routers.R.tls.domains[0].sans",
    "tcp.services.S.loadbalancer.server.port",
    "tcp.services.S.loadbalancer.server.address",
    "tcp.services.S.loadbalancer.server.tls",
    "tcp.services.S.loadbalancer.serverstransport",
    "tcp.services.S.loadbalancer.proxyprotocol",
    "tcp.services.S.loadbalancer.proxyprotocol.version",
    "tcp.services.S.loadbalancer.terminationdelay",
    "tcp.services.S.loadbalancer.healthcheck",
    "tcp.services.S.loadbalancer.healthcheck.port",
    "tcp.services.S.loadbalancer.healthcheck.send",
    "tcp.services.S.loadbalancer.healthcheck.expect",
    "tcp.services.S.loadbalancer.healthcheck.interval",
    "tcp.services.S.loadbalancer.healthcheck.unhealthyinterval",
    "tcp.services.S.loadbalancer.healthcheck.timeout",
    "tcp.middlewares.M.ipallowlist.sourcerange",
    "tcp.middlewares.M.ipwhitelist.sourcerange",
    "tcp.middlewares.M.inflightconn.amount",
    "udp.routers.R.entrypoints",
    "udp.services.S.loadbalancer.server.port",
    "tls.stores.default.defaultgeneratedcert.resolver",
    "tls.stores.default.defaultgeneratedcert.domain.main",
    "tls.stores.default.defaultgeneratedcert.domain.sans",
];

/// The options of Traefik's two providers (3.7).
const CONSUL: &[&str] = &[
    "prefix",
    "refreshInterval",
    "watch",
    "exposedByDefault",
    "defaultRule",
    "constraints",
    "connectAware",
    "connectByDefault",
    "serviceName",
    "requireConsistent",
    "stale",
    "cache",
    "strictChecks",
    "namespaces",
    "endpoint.address",
    "endpoint.scheme",
    "endpoint.datacenter",
    "endpoint.token",
    "endpoint.endpointWaitTime",
    "endpoint.httpAuth.username",
    "endpoint.httpAuth.password",
    "endpoint.tls.ca",
    "endpoint.tls.cert",
    "endpoint.tls.key",
    "endpoint.tls.insecureSkipVerify",
];
const NOMAD: &[&str] = &[
    "prefix",
    "refreshInterval",
    "watch",
    "throttleDuration",
    "exposedByDefault",
    "defaultRule",
    "constraints",
    "stale",
    "allowEmptyServices",
    "namespaces",
    "endpoint.address",
    "endpoint.region",
    "endpoint.token",
    "endpoint.endpointWaitTime",
    "endpoint.tls.ca",
    "endpoint.tls.cert",
    "endpoint.tls.key",
    "endpoint.tls.insecureSkipVerify",
];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The text under a heading, up to the next one.
fn section(heading: &str) -> String {
    let text = read("docs/traefik.md");
    let (_, rest) = text.split_once(&format!("\n## {heading}\n")).unwrap();
    rest.split("\n## ").next().unwrap().to_owned()
}

/// The cells of each row of the table under a heading.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let text = section(heading);
    let rows = text.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        let row = row.trim_matches('|');
        row.split('|').map(|cell| cell.trim().to_owned()).collect()
    })
    .collect()
}

/// What stands in a text as code, between one backtick or two.
fn code(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('`') {
        rest = &rest[start..];
        let fence = if rest.starts_with("``") { "``" } else { "`" };
        let (one, after) = rest[fence.len()..].split_once(fence).unwrap();
        // A backtick at the end belongs to what is quoted, and a space keeps it from the fence.
        let (one, after) = match after.strip_prefix('`') {
            Some(after) if fence == "``" => (format!("{one}`"), after),
            _ => (one.to_owned(), after),
        };
        found.push(one.trim().to_owned());
        rest = after;
    }
    found
}

/// What is made of the service `web` with these tags.
fn made(tags: &[String]) -> Service {
    let says = |text: &str| tags.iter().any(|tag| tag.contains(text));
    let is_said = |key: &str| tags.iter().any(|tag| tag.starts_with(&format!("{key}=")));
    let is_nomad = says("traefik.nomad.");
    let mut all = Vec::new();
    if !says("traefik.http.") && !says("traefik.udp.") && !says("traefik.tls.") {
        let base = [
            ("traefik.tcp.routers.web.rule", "HostSNI(`web.example.com`)"),
            ("traefik.tcp.routers.web.tls", "true"),
        ];
        let base = base.iter().filter(|(key, _)| !is_said(key));
        all.extend(base.map(|(key, value)| format!("{key}={value}")));
    }
    all.extend_from_slice(tags);
    let instance = Instance {
        id: "node/web".into(),
        beside: None,
        address: "10.0.0.5:22".parse().ok(),
        ports: Vec::new(),
        tags: all.iter().map(|tag| Arc::from(tag.as_str())).collect(),
        health: Health::Passing,
        weight_passing: 1,
        weight_warning: 1,
        modified: 1,
    };
    let asks = says("connect=true") && !is_nomad;
    let sidecar = Instance {
        id: "node/web-sidecar-proxy".into(),
        beside: Some("node/web".into()),
        tags: Vec::new(),
        ..instance.clone()
    };
    let found = Found {
        filtered: false,
        canary: None,
        key: ServiceKey {
            source: if is_nomad {
                Source::Nomad
            } else {
                Source::Consul
            },
            place: None,
            name: "web".into(),
        },
        mesh: MeshService {
            partition: None,
            namespace: "default".into(),
            datacenter: "dc1".into(),
            service: "web".into(),
        },
        instances: vec![instance],
        sidecars: asks.then(|| vec![sidecar]),
        unusable: Vec::new(),
    };
    let exposure = Exposure {
        entry_points: vec!["https".to_owned(), "websecure".to_owned()],
        mesh: asks,
        ..Exposure::default()
    };
    service(&found, &exposure)
}

#[test]
fn each_tag_gives_what_the_table_says() {
    for row in rows("Tags") {
        let [tags, verdict, told] = row.as_slice() else {
            panic!("{row:?}")
        };
        let tags = code(tags);
        let service = made(&tags);
        let says = |all: &mut dyn Iterator<Item = &Arc<str>>| {
            let message = code(told).into_iter().next().unwrap_or_default();
            let all: Vec<&str> = all.map(|one| &**one).collect();
            assert!(all.contains(&&*message), "{tags:?}\n{message}\n{all:#?}");
        };
        let serves = || {
            let routes: Vec<_> = service.routes.iter().collect();
            assert_eq!(routes.len(), 1, "{tags:?}: {service:#?}");
            assert_eq!(routes[0].broken, None, "{tags:?}");
            assert_eq!(service.skipped, [], "{tags:?}");
        };
        let warnings = || service.routes.iter().flat_map(|route| &route.warnings);
        match verdict.as_str() {
            "same" if tags == ["traefik.enable=false"] => {
                assert!(service.routes.is_empty() && service.skipped.is_empty());
            }
            "same" | "different" => {
                serves();
                assert_eq!(warnings().count() + service.notes.len(), 0, "{service:#?}");
            }
            "warned" => {
                serves();
                says(&mut warnings());
            }
            "noted" => {
                assert!(service.skipped.is_empty(), "{service:#?}");
                if tags.iter().any(|tag| tag.starts_with("traefik.tcp.")) {
                    serves();
                }
                says(&mut service.notes.iter());
            }
            "refused" => {
                let broken = |route: &_| -> bool {
                    let route: &ServiceRoute = route;
                    route.broken.is_some()
                };
                let serves =
                    |one: &ServiceUpstream| !(one.endpoints.is_empty() && one.named.is_empty());
                let is_nobody_served =
                    service.routes.iter().all(broken) || !service.upstreams.iter().any(serves);
                assert!(is_nobody_served, "{tags:?}: {service:#?}");
                says(&mut service.skipped.iter().map(|skipped| &skipped.reason));
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn every_tag_that_traefik_reads_has_a_row() {
    let named = |tag: &str| {
        let key = tag.split('=').next().unwrap();
        let mut parts: Vec<&str> = key.split('.').skip(1).collect();
        if let ["tcp" | "udp", kind, name, ..] = parts.as_mut_slice() {
            *name = match *kind {
                "routers" => "R",
                "services" => "S",
                _ => "M",
            };
        }
        parts.join(".")
    };
    let rows = rows("Tags");
    let shown: BTreeSet<String> = rows
        .iter()
        .flat_map(|row| code(&row[0]))
        .map(|tag| named(&tag))
        .collect();
    for tag in TAGS {
        assert!(shown.contains(*tag), "{tag} has no row");
    }
}

/// Every key of the configuration, without the names that a user chooses: `config/full.toml` has them all.
fn keys() -> BTreeSet<String> {
    let (mut section, mut keys) = (String::new(), BTreeSet::new());
    for line in read("config/full.toml").lines() {
        let line = line.trim_start_matches("# ");
        let header = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'));
        if let Some(header) = header {
            section = without_names(header.trim_matches(['[', ']']));
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        {
            keys.insert(
                format!("{section}.{key}")
                    .trim_start_matches('.')
                    .to_owned(),
            );
        }
        keys.insert(section.clone());
    }
    keys
}

fn without_names(path: &str) -> String {
    let mut parts: Vec<&str> = path.split('.').collect();
    match parts.first() {
        Some(&("upstreams" | "routes" | "middlewares" | "transports")) if parts.len() > 1 => {
            parts.remove(1);
        }
        Some(&"tls") if parts.len() > 2 => drop(parts.remove(2)),
        _ => {}
    }
    parts.join(".")
}

#[test]
fn every_key_that_the_tables_name_is_one_and_those_of_the_sources_are_all_named() {
    let keys = keys();
    let mut named = BTreeSet::new();
    for heading in [
        "Options of consulCatalog",
        "Options of nomad",
        "What stands in Traefik's file",
    ] {
        for row in rows(heading) {
            for key in code(&row[2]) {
                let key = without_names(&key);
                assert!(keys.contains(&key), "{key} is none: {row:?}\n{keys:#?}");
                named.insert(key);
            }
            assert!(
                !row[2].is_empty() || row[1] == "refused",
                "{row:?} names no key"
            );
        }
        let text = section(heading);
        let more = text.lines().filter(|line| !line.starts_with('|'));
        named.extend(more.flat_map(code));
    }
    for key in keys {
        let is_of_a_source = key.starts_with("consul.") || key.starts_with("nomad.");
        let is_named = named
            .iter()
            .any(|named| key == *named || key.starts_with(&format!("{named}.")));
        assert!(!is_of_a_source || is_named, "{key} is not told of");
    }
}

#[test]
fn every_option_of_traefiks_providers_has_a_row() {
    for (heading, options) in [
        ("Options of consulCatalog", CONSUL),
        ("Options of nomad", NOMAD),
    ] {
        let rows = rows(heading);
        let shown: BTreeSet<String> = rows.iter().flat_map(|row| code(&row[0])).collect();
        for option in options {
            assert!(shown.contains(*option), "{heading}: {option} has no row");
        }
    }
}

/// Where a key of Traefik's would be written here, and what must stand there besides.
fn place(heading: &str, path: &str) -> (String, String) {
    let last = path.rsplit('.').next().unwrap().to_owned();
    let route = "host = \"a.example.com\"\npassthrough = true\nupstream = \"127.0.0.1:9\"\n";
    let section = match heading {
        "Options of consulCatalog" => "[consul]\n".to_owned(),
        "Options of nomad" => "[nomad]\n".to_owned(),
        _ => match path.split('.').collect::<Vec<_>>()[..] {
            ["tcp", "routers", ..] => format!("[routes.a]\n{route}"),
            ["tcp", "serversTransports", _, "tls", ..] => {
                "[transports.a.tls]\nserver_name = \"a.example.com\"\n".to_owned()
            }
            ["tls", "options", ..] => "[tls.options.a]\n".to_owned(),
            _ => String::new(),
        },
    };
    (section, last)
}

#[test]
fn what_is_refused_is_refused_with_that_message() {
    for heading in [
        "Options of consulCatalog",
        "Options of nomad",
        "What stands in Traefik's file",
    ] {
        for row in rows(heading).iter().filter(|row| row[1] == "refused") {
            for path in code(&row[0]) {
                let (section, key) = place(heading, &path);
                let snake: String = (key.chars())
                    .flat_map(|c| match c.is_ascii_uppercase() {
                        true => vec!['_', c.to_ascii_lowercase()],
                        false => vec![c],
                    })
                    .collect();
                let message = code(&row[3]).remove(0);
                for key in [&key, &snake] {
                    let text = format!("{section}{key} = true\n");
                    let mistakes = config::parse(&text, Path::new("/none/portcullis.toml"));
                    let mistakes = mistakes.err().unwrap_or_else(|| panic!("{text} is taken"));
                    let told = mistakes.list.iter().any(|one| {
                        let help = one.help.as_deref().unwrap_or_default();
                        let is_it = help == message || one.message.starts_with(&message);
                        is_it && one.message.starts_with(&format!("unknown key `{key}`"))
                    });
                    assert!(told, "{text}{message}\n{mistakes}");
                }
            }
        }
    }
}

#[test]
fn the_configuration_to_begin_with_is_a_good_one() {
    let text = section("One client at a time");
    let (_, toml) = text.split_once("```toml\n").unwrap();
    let toml = toml.split("```").next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("certificates")).unwrap();
    let made = rcgen::generate_simple_self_signed(["a.example.com".to_owned()]).unwrap();
    let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
    write("certificates/a.crt", made.cert.pem());
    write("certificates/a.key", made.signing_key.serialize_pem());
    let checked = config::parse(toml, &folder.path().join("portcullis.toml"));
    let checked = checked.unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert!(checked.config.consul.is_some());
}
