//! `[consul]`, and the upstreams that are services.

use std::fs;

use portcullis::config::{
    self, Catalog, Checked, Config, Consul, ConsulAddress, ConsulService, Diagnostics, Environment,
    Level, Place, Secret, Tagging, Token,
};
use portcullis::rule::Syntax;
use tempfile::TempDir;

use super::{expect, folder, good, parse, shown};

pub(super) fn tcp(host: &str, port: u16) -> ConsulAddress {
    ConsulAddress::Tcp(host.to_owned(), port)
}

pub(super) fn secret(text: &str) -> Option<Token> {
    Some(Token::Value(Secret::new(text.to_owned())))
}

/// What an empty `[consul]` means in an empty environment.
pub(super) fn default() -> Consul {
    Consul {
        address: tcp("127.0.0.1", 8500),
        https: false,
        prefix: String::new(),
        token: None,
        login: None,
        places: vec![Place::default()],
        basic_auth: None,
        roots: Vec::new(),
        certificate: None,
        server_name: None,
        mesh_identity: None,
        tagging: Tagging::default(),
        catalog: Catalog::default(),
    }
}

pub(super) fn parse_with(
    folder: &TempDir,
    text: &str,
    variables: &[(&str, &str)],
) -> Result<Checked, Diagnostics> {
    let environment: Environment = variables.iter().copied().collect();
    config::parse_with(text, &folder.path().join("portcullis.toml"), &environment)
}

/// What a text means without a warning in this environment.
pub(super) fn consul(text: &str, variables: &[(&str, &str)]) -> Consul {
    let folder = folder();
    let checked = parse_with(&folder, text, variables);
    let Checked {
        config, warnings, ..
    } = checked.unwrap_or_else(|wrong| panic!("{wrong}"));
    assert!(warnings.list.is_empty(), "{warnings}");
    config.consul.unwrap()
}

/// The one message and remedy that this environment brings, which have no place in the file.
pub(super) fn told(level: Level, text: &str, variables: &[(&str, &str)]) -> (String, String) {
    let folder = folder();
    let found = match parse_with(&folder, text, variables) {
        Ok(checked) => checked.warnings,
        Err(diagnostics) => diagnostics,
    };
    assert_eq!(found.list.len(), 1, "{variables:?}\n{found}");
    let one = &found.list[0];
    assert_eq!((one.level, &one.span), (level, &None), "{found}");
    (one.message.clone(), one.help.clone().unwrap())
}

#[test]
fn an_empty_section_asks_the_agent_of_this_machine() {
    let checked = good("[consul]\n");
    assert_eq!(checked.config.consul, Some(default()));
    let warnings = checked.warnings;
    assert!(
        warnings.list.is_empty(),
        "routes come from there: {warnings}"
    );
}

#[test]
fn checking_asks_consul_nothing() {
    let agent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    agent.set_nonblocking(true).unwrap();
    let address = agent.local_addr().unwrap();
    consul(&format!("[consul]\naddress = \"{address}\"\n"), &[]);
    let nobody = agent.accept().unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn every_key_is_read() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let text = "[consul]\naddress = \"https://consul.internal:8501/api/\"\ntoken = \"a-token\"\n\
        roots = [\"internal-ca.pem\"]\nchain = \"edge.pem\"\nkey = \"edge.key\"\n\
        server_name = \"server.dc1.consul\"\nmesh_identity = \"edge gate\"\n";
    let wrong = shown(&folder, &parse(&folder, text).unwrap_err());
    assert!(
        wrong.contains("\"edge gate\" is not the name of a service"),
        "{wrong}"
    );
    let text = text.replace("edge gate", "edge");
    let text = format!("{text}entry_points = [\"tls\"]\nallow_default_from_tags = true\n");
    let text = text + "default_rule_syntax = \"v2\"\n";
    let checked = parse(&folder, &text).unwrap();
    let expected = Consul {
        address: tcp("consul.internal", 8501),
        https: true,
        prefix: "/api".to_owned(),
        token: secret("a-token"),
        login: None,
        places: vec![Place::default()],
        basic_auth: None,
        roots: vec![path("internal-ca.pem")],
        certificate: Some((path("edge.pem"), path("edge.key").into())),
        server_name: Some("server.dc1.consul".to_owned()),
        mesh_identity: Some("edge".to_owned()),
        tagging: Tagging {
            entry_points: vec!["tls".to_owned()],
            allow_default_from_tags: true,
            default_rule_syntax: Syntax::V2,
            ..Tagging::default()
        },
        catalog: Catalog::default(),
    };
    assert_eq!(checked.config.consul, Some(expected));
    fs::write(path("token"), "a-token\n").unwrap();
    let checked = parse(&folder, "[consul]\ntoken_file = \"token\"\n").unwrap();
    let token = checked.config.consul.unwrap().token;
    assert_eq!(token, Some(Token::File(path("token"))));
}

#[test]
fn a_token_over_plain_http_to_another_machine_is_warned_of() {
    let remote = "[consul]\naddress = «\"10.0.0.1:8500\"»\ntoken = \"a-token\"\n";
    expect(
        Level::Warning,
        &[
            (remote, "consul.address", "write https://"),
            (
                "[consul]\ntoken = \"a-token\"\naddress = «\"http://consul.internal\"»\n",
                "consul.address",
                "an agent on this machine",
            ),
        ],
    );
    for address in ["127.0.0.2:1", "[::1]:1", "localhost:1", "unix:///a.sock"] {
        consul(
            &format!("[consul]\naddress = \"{address}\"\ntoken = \"a-token\"\n"),
            &[],
        );
    }
    consul("[consul]\naddress = \"10.0.0.1:8500\"\n", &[]);
    let address = ("CONSUL_HTTP_ADDR", "10.0.0.1:8500");
    for secret in [
        ("CONSUL_HTTP_TOKEN", "a-token"),
        ("CONSUL_HTTP_AUTH", "user:pass"),
    ] {
        let (message, _) = told(Level::Warning, "[consul]\n", &[address, secret]);
        assert!(message.starts_with("`CONSUL_HTTP_ADDR`"), "{message}");
    }
}

#[test]
fn what_is_for_tls_and_has_none_is_warned_of() {
    expect(
        Level::Warning,
        &[
            (
                "[consul]\nroots = «[\"internal-ca.pem\"]»\n",
                "consul.roots",
                "write https://",
            ),
            (
                "[consul]\nserver_name = «\"localhost\"»\n",
                "consul.server_name",
                "or remove it",
            ),
        ],
    );
}

#[test]
fn the_section_is_checked() {
    expect(
        Level::Error,
        &[
            ("consul = «true»\n", "consul", "as in `[consul]`"),
            (
                "[consul]\n«tokenfile» = \"a\"\n",
                "tokenfile",
                "did you mean `token_file`?",
            ),
            (
                "[consul]\naddress = «8500»\n",
                "consul.address",
                "put it in quotes",
            ),
            (
                "[consul]\naddress = «\"8500\"»\n",
                "consul.address",
                "\"127.0.0.1:8500\"",
            ),
            (
                "[consul]\naddress = «\"2001:db8::1\"»\n",
                "consul.address",
                "[2001:db8::1]:8500",
            ),
            (
                "[consul]\naddress = «\"consul:8500/v1\"»\n",
                "consul.address",
                "http:// or https://",
            ),
            (
                "[consul]\ntoken = \"a\"\n«token_file» = \"edge.key\"\n",
                "token",
                "keep one",
            ),
            ("[consul]\ntoken = «\"\"»\n", "consul.token", "SecretID"),
            (
                "[consul]\ntoken_file = «\"no-token\"»\n",
                "consul.token_file",
                "SecretID",
            ),
            (
                "[consul]\nroots = «[]»\n",
                "consul.roots",
                "trust the system's",
            ),
            (
                "[consul]\naddress = \"https://a\"\nroots = [«\"note.txt\"»]\n",
                "consul.roots[0]",
                "",
            ),
            (
                "[consul]\nchain = «\"edge.pem\"»\n",
                "consul.chain",
                "CONSUL_CLIENT_KEY",
            ),
            (
                "[consul]\naddress = \"https://a\"\nroots = [\"internal-ca.pem\"]\nchain = \"edge.pem\"\nkey = «\"other.key\"»\n",
                "consul.key",
                "",
            ),
            (
                "[consul]\naddress = \"https://a\"\nroots = [\"internal-ca.pem\"]\nchain = «\"note.txt\"»\nkey = \"edge.key\"\n",
                "consul.chain",
                "",
            ),
            (
                "[consul]\naddress = \"https://a\"\nroots = [\"internal-ca.pem\"]\nserver_name = «\"a b\"»\n",
                "consul.server_name",
                "without a port",
            ),
            (
                "[consul]\nmesh_identity = «\"a/b\"»\n",
                "consul.mesh_identity",
                "without `/`",
            ),
            (
                "[consul]\nmesh_identity = «\"\\u200b\"»\n",
                "consul.mesh_identity",
                "visible",
            ),
            (
                "[consul]\nentry_points = «[]»\n",
                "consul.entry_points",
                "leave it out",
            ),
            (
                "[consul]\nentry_points = [\"https\", «\"https\"»]\n",
                "consul.entry_points[1]",
                "remove one",
            ),
            (
                "[consul]\nentry_points = [«\"a,b\"»]\n",
                "consul.entry_points[0]",
                "one name",
            ),
            (
                "[consul]\nallow_default_from_tags = «\"yes\"»\n",
                "consul.allow_default_from_tags",
                "without quotes",
            ),
            (
                "[consul]\ndefault_rule_syntax = «\"V2\"»\n",
                "consul.default_rule_syntax",
                "did you mean \"v2\"",
            ),
        ],
    );
    let ssl = [("CONSUL_HTTP_SSL", "true")];
    let socket = "[consul]\naddress = \"unix:///a.sock\"\nroots = [\"internal-ca.pem\"]\n";
    let found = parse_with(&folder(), socket, &ssl).unwrap_err().to_string();
    assert!(
        found.contains("add `server_name = \"localhost\"`"),
        "{found}"
    );
}

#[test]
fn an_upstream_that_is_a_service_is_checked() {
    expect(
        Level::Error,
        &[
            (
                "[upstreams.a]\nservice = «\"web\"»\n",
                "upstreams.a.service",
                "add a line `[consul]`",
            ),
            (
                "[consul]\n[upstreams.a]\nservice = «\"we b\"»\n",
                "upstreams.a.service",
                "visible characters",
            ),
            (
                "[consul]\n[upstreams.a]\nservice = \"web\"\n«address» = \"a:1\"\n",
                "upstreams.a",
                "brings its own",
            ),
            (
                "[consul]\n[upstreams.a]\nservice = \"web\"\n«endpoints» = [\"a:1\"]\n",
                "upstreams.a",
                "keep one",
            ),
            (
                "[consul]\n[upstreams.a]\nservice = \"web\"\ntls = «true»\n",
                "upstreams.a.tls",
                "remove it",
            ),
            (
                "[consul]\n[upstreams.a]\nservice = \"web\"\nmesh = «true»\n",
                "upstreams.a.mesh",
                "add `mesh_identity",
            ),
            (
                "[upstreams.a]\naddress = \"a:1\"\nmesh = «false»\n",
                "upstreams.a.mesh",
                "or remove it",
            ),
            (
                "[consul]\n[upstreams.a]\n«servce» = \"web\"\n",
                "servce",
                "did you mean `service`?",
            ),
            (
                "[consul]\nmesh_identity = «1»\n[upstreams.a]\nservice = \"web\"\nmesh = true\n",
                "consul.mesh_identity",
                "put it in quotes",
            ),
        ],
    );
}

#[test]
fn a_service_is_dialled_in_the_mesh_where_the_gateway_has_an_identity_there() {
    let service = |consul: &str, rest: &str| {
        let text = format!("[consul]\n{consul}[upstreams.a]\nservice = \"we'b\"\n{rest}");
        let Config { upstreams, .. } = good(&text).config;
        assert!(upstreams["a"].endpoints.is_empty() && upstreams["a"].tls.is_none());
        upstreams["a"].service.clone().unwrap()
    };
    let expected = |mesh| ConsulService {
        place: None,
        name: "we'b".to_owned(),
        mesh,
    };
    let identity = "mesh_identity = \"portcullis\"\n";
    assert_eq!(service("", ""), expected(false));
    assert_eq!(service("", "mesh = false\n"), expected(false));
    assert_eq!(service(identity, ""), expected(true));
    assert_eq!(service(identity, "mesh = true\n"), expected(true));
    assert_eq!(service(identity, "mesh = false\n"), expected(false));
}

/// GHSA-h2ph-vhm7-g4hp of Traefik: a token in the log.
#[test]
fn no_report_shows_a_secret() {
    let folder = folder();
    for text in [
        "[consul]\ntoken = \"s3cr3t in two\"\n",
        "[consul]\ntoken = 5307\n[log]\nformat = 1\n",
        "[consul]\ntokn = \"s3cr3t\"\n",
        "consul = { Token = \"s3cr3t\" }\n",
        "[consul]\ntoken = 's3cr3t\n",
        "[consul]\ntoken = s3cr3t\n",
        "[consul]\n  token=\"s3cr3t\" x\n",
        "consul.token = \"s3cr3t\" x\n",
        "[consul]\ntoken = \"s3cr3t\"\ntoken = \"s3cr3t\"\n",
        "consul = { token = \"s3cr3t\", adress = \"a\" }\n",
        "consul = { adress = 1, token = \"\"\"\ns3cr3t\nßs3cr3t in two\"\"\" }\n",
        "[consul]\naddress = \"https://user:s3cr3t@a:1\"\n",
    ] {
        let found = parse(&folder, text).unwrap_err();
        let shown = format!("{found}{found:?}");
        assert!(
            !shown.contains("s3cr3t") && !shown.contains("5307"),
            "{found}"
        );
        assert_eq!(found.text.len(), text.len());
    }
    let variables = [
        ("CONSUL_HTTP_TOKEN", "s3cr3t\n"),
        ("CONSUL_HTTP_ADDR", "https://user:s3cr3t@a:1"),
        ("CONSUL_HTTP_AUTH", "user:s3cr3t"),
    ];
    let found = parse_with(&folder, "[consul]\n", &variables).unwrap_err();
    assert_eq!(found.errors(), 2, "{found}");
    assert!(!format!("{found}{found:?}").contains("s3cr3t"), "{found}");
    let environment: Environment = variables.into_iter().collect();
    assert!(!format!("{environment:?}").contains("s3cr3t"));
}

#[test]
fn a_route_that_takes_whatever_is_named_hides_those_of_tags_and_is_warned_of() {
    let routed = |section: &str, rule: &str| {
        format!(
            "{section}[routes.any]\nrule = {rule}\npassthrough = true\nupstream = \"10.0.0.1:22\"\n"
        )
    };
    for section in ["[consul]\n", "[nomad]\n"] {
        expect(
            Level::Warning,
            &[(
                &routed(section, "«\"HostSNIRegexp(`.+`)\"»"),
                "routes.any",
                "write HostSNI(`*`)",
            )],
        );
    }
    for (section, rule) in [
        ("", "HostSNIRegexp(`.+`)"),
        ("[consul]\n", "HostSNI(`*`)"),
        (
            "[consul]\n",
            "HostSNIRegexp(`^[a-z]+\\\\.example\\\\.com$`)",
        ),
    ] {
        let checked = good(&routed(section, &format!("\"{rule}\"")));
        assert!(checked.warnings.list.is_empty(), "{}", checked.warnings);
    }
}
