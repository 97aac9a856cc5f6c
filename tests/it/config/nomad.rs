//! `[nomad]`, and the variables of the environment that complete it.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use portcullis::config::{
    Agent, Checked, ConsulAddress, Level, Namespaces, Nomad, NomadService, Secret, Tagging, Token,
};
use portcullis::rule::Syntax;
use portcullis::tls::key::KeyFile;

use super::consul::{parse_with, secret, tcp};
use super::{expect, folder, good};

fn default() -> Nomad {
    Nomad {
        agent: Agent {
            address: tcp("127.0.0.1", 4646),
            https: false,
            prefix: String::new(),
            token: None,
            basic_auth: None,
            roots: Vec::new(),
            certificate: None,
            server_name: None,
        },
        region: None,
        namespaces: Namespaces::Only(vec!["default".to_owned()]),
        tagging: Tagging::default(),
        stale: false,
        refresh_interval: Duration::from_secs(60),
        allow_local_addresses: false,
    }
}

/// What a text means without a warning in this environment.
fn nomad(text: &str, variables: &[(&str, &str)]) -> Nomad {
    let checked = parse_with(&folder(), text, variables);
    let Checked {
        config, warnings, ..
    } = checked.unwrap_or_else(|wrong| panic!("{wrong}"));
    assert!(warnings.list.is_empty(), "{warnings}");
    config.nomad.unwrap()
}

#[test]
fn a_line_is_enough_and_no_line_is_none() {
    assert_eq!(nomad("[nomad]\n", &[]), default());
    assert_eq!(good(super::ROUTE).config.nomad, None);
    let broken = [("NOMAD_ADDR", "::"), ("NOMAD_NAMESPACE", "a/b")];
    let checked = parse_with(&folder(), super::ROUTE, &broken).unwrap();
    assert_eq!(checked.config.nomad, None);
}

#[test]
fn what_is_not_written_comes_from_the_environment() {
    let files = folder();
    let path = |name: &str| files.path().join(name).display().to_string();
    let (ca, chain, key) = (path("internal-ca.pem"), path("edge.pem"), path("edge.key"));
    let variables = [
        ("NOMAD_ADDR", "https://nomad.internal:4646"),
        ("NOMAD_TOKEN", "a-token"),
        ("NOMAD_HTTP_AUTH", "user:pass"),
        ("NOMAD_CACERT", &ca),
        ("NOMAD_CLIENT_CERT", &chain),
        ("NOMAD_CLIENT_KEY", &key),
        ("NOMAD_TLS_SERVER_NAME", "server.global.nomad"),
        ("NOMAD_NAMESPACE", "prod"),
        ("NOMAD_REGION", "eu"),
    ];
    let completed = Nomad {
        agent: Agent {
            address: tcp("nomad.internal", 4646),
            https: true,
            token: secret("a-token"),
            basic_auth: Some(("user".to_owned(), Secret::new("pass".to_owned()))),
            roots: vec![PathBuf::from(&ca)],
            certificate: Some((PathBuf::from(&chain), KeyFile::from(&key))),
            server_name: Some("server.global.nomad".to_owned()),
            ..default().agent
        },
        region: Some("eu".to_owned()),
        namespaces: Namespaces::Only(vec!["prod".to_owned()]),
        ..default()
    };
    assert_eq!(nomad("[nomad]\n", &variables), completed);

    // What is written goes before.
    let written = "[nomad]\naddress = \"https://[::1]:4646\"\ntoken = \"mine\"\nnamespaces = [\"*\"]\nregion = \"us\"\n";
    let mut expected = completed;
    expected.agent.address = tcp("::1", 4646);
    expected.agent.token = secret("mine");
    expected.namespaces = Namespaces::All;
    expected.region = Some("us".to_owned());
    assert_eq!(nomad(written, &variables), expected);
}

#[test]
fn a_task_asks_at_its_socket_by_its_identity_unless_it_is_told_otherwise() {
    let secrets = tempfile::tempdir().unwrap();
    let folder = secrets.path().to_str().unwrap();
    let task = ("NOMAD_SECRETS_DIR", folder);
    assert_eq!(nomad("[nomad]\n", &[task]), default(), "neither is there");

    let (socket, file) = (
        secrets.path().join("api.sock"),
        secrets.path().join("nomad_token"),
    );
    let _listener = UnixListener::bind(&socket).unwrap();
    fs::write(&file, "a.jwt.token\n").unwrap();
    let of_task = nomad(
        "[nomad]\n",
        &[task, ("NOMAD_TOKEN", "the-same-when-it-began")],
    );
    assert_eq!(of_task.agent.address, ConsulAddress::Unix(socket));
    assert_eq!(of_task.agent.token, Some(Token::File(file)));

    let told = nomad("[nomad]\n", &[task, ("NOMAD_ADDR", "http://127.0.0.1:1")]);
    assert_eq!(told.agent.address, tcp("127.0.0.1", 1));
    let told = nomad(
        "[nomad]\naddress = \"127.0.0.1:2\"\ntoken = \"mine\"\n",
        &[task],
    );
    assert_eq!(
        (told.agent.address, told.agent.token),
        (tcp("127.0.0.1", 2), secret("mine"))
    );
}

#[test]
fn the_section_is_checked() {
    expect(
        Level::Error,
        &[
            ("nomad = «true»\n", "nomad", "as in `[nomad]`"),
            (
                "[nomad]\n«mesh_identity» = \"a\"\n",
                "mesh_identity",
                "known here",
            ),
            (
                "[nomad]\naddress = «\"4646\"»\n",
                "nomad.address",
                "\"127.0.0.1:4646\"",
            ),
            (
                "[nomad]\ntoken = \"a\"\n«token_file» = \"edge.key\"\n",
                "token",
                "keep one",
            ),
            (
                "[nomad]\ntoken_file = «\"no-token\"»\n",
                "nomad.token_file",
                "workload identity",
            ),
            (
                "[nomad]\nnamespaces = «[]»\n",
                "nomad.namespaces",
                "leave it out",
            ),
            (
                "[nomad]\nnamespaces = [«\"a/b\"»]\n",
                "nomad.namespaces[0]",
                "letters, digits",
            ),
            (
                "[nomad]\nnamespaces = [\"a\", «\"a\"»]\n",
                "nomad.namespaces[1]",
                "remove one",
            ),
            (
                "[nomad]\nnamespaces = [\"a\", «\"*\"»]\n",
                "nomad.namespaces[1]",
                "or the others",
            ),
            (
                "[nomad]\nregion = «\"e u\"»\n",
                "nomad.region",
                "such as \"global\"",
            ),
            (
                "[nomad]\nconsistency = «\"consistent\"»\n",
                "nomad.consistency",
                "its leader answers by default",
            ),
            (
                "[nomad]\nconsistency = «\"stael\"»\n",
                "nomad.consistency",
                "did you mean \"stale\"?",
            ),
            (
                "[nomad]\nrefresh_interval = «\"10ms\"»\n",
                "nomad.refresh_interval",
                "1s to 1d",
            ),
            (
                "[nomad]\nconstraints = \"Tag(`a`) «and» Tag(`b`)\"\n",
                "nomad.constraints",
                "joined with `&&`",
            ),
            (
                "[nomad]\nprefix = «\"\"»\n",
                "nomad.prefix",
                "such as \"traefik\"",
            ),
            ("[nomad]\n«watch» = true\n", "watch", "leave it out"),
            (
                "[nomad]\n«throttleDuration» = \"1s\"\n",
                "throttleDuration",
                "leave it out",
            ),
            (
                "[nomad]\n«allowEmptyServices» = true\n",
                "allowEmptyServices",
                "`nomad_service`",
            ),
            (
                "[nomad]\n«stale» = true\n",
                "stale",
                "consistency = \"stale\"",
            ),
            (
                "[nomad]\n«endpoint».address = \"http://127.0.0.1:4646\"\n",
                "endpoint",
                "`region`",
            ),
            (
                "[nomad]\nnamespaces = «[\"a\", \"b\", \"c\", \"d\", \"e\", \"f\", \"g\", \"h\", \"i\"]»\n",
                "nomad.namespaces",
                "[\"*\"]",
            ),
        ],
    );
}

#[test]
fn every_option_about_tags_is_read_as_in_consuls_section() {
    let text = r#"
        [nomad]
        exposed_by_default = false
        constraints = "Tag(`edge`)"
        default_rule = "HostSNI(`{{ normalize .Name }}.example.com`)"
        default_rule_syntax = "v2"
        prefix = "edge"
        entry_points = ["tls"]
        allow_default_from_tags = true
        consistency = "stale"
        refresh_interval = "15s"
        allow_local_addresses = true
    "#;
    let read = nomad(text, &[]);
    let of_consul = text.replace("[nomad]", "[consul]");
    let expected = super::consul::consul(&of_consul, &[]).tagging;
    assert_eq!(read.tagging, expected);
    assert!(!expected.exposed_by_default && expected.constraints.is_some());
    assert_eq!(expected.default_rule_syntax, Syntax::V2);
    assert!(read.stale && read.allow_local_addresses);
    assert_eq!(read.refresh_interval, Duration::from_secs(15));
    expect(
        Level::Warning,
        &[(
            "[nomad]\ndefault_rule = «\"HostSNI(`{{ .Name }}.example.com`)\"»\n",
            "nomad.default_rule",
            "write `exposed_by_default = false`",
        )],
    );
}

#[test]
fn an_upstream_may_stand_for_a_service_of_a_namespace_that_is_read() {
    let service = |nomad: &str, rest: &str| {
        let text = format!("[nomad]\n{nomad}[upstreams.a]\nnomad_service = \"web\"\n{rest}");
        good(&text).config.upstreams["a"].nomad_service.clone()
    };
    let expected = |namespace: &str| {
        Some(NomadService {
            namespace: namespace.to_owned(),
            name: "web".to_owned(),
        })
    };
    let two = "namespaces = [\"prod\", \"stage\"]\n";
    let stage = "namespace = \"stage\"\n";
    assert_eq!(service("", ""), expected("default"));
    assert_eq!(service(two, ""), expected("prod"));
    assert_eq!(service(two, stage), expected("stage"));
    assert_eq!(service("namespaces = [\"*\"]\n", stage), expected("stage"));
    assert_eq!(expected("stage").unwrap().key(), "web.stage");
    assert_eq!(expected("default").unwrap().key(), "web");
    expect(
        Level::Error,
        &[
            (
                "[upstreams.a]\nnomad_service = «\"web\"»\n",
                "upstreams.a.nomad_service",
                "`[nomad]`",
            ),
            (
                "[nomad]\n[upstreams.a]\nnomad_service = «\"web.prod\"»\n",
                "upstreams.a.nomad_service",
                "`namespace` is a key of its own",
            ),
            (
                "[nomad]\n[upstreams.a]\nnomad_service = \"web\"\nnamespace = «\"prod\"»\n",
                "upstreams.a.namespace",
                "add it to `namespaces` in [nomad]",
            ),
            (
                "[nomad]\n[upstreams.a]\nnomad_service = \"web\"\n«address» = \"a:1\"\n",
                "address",
                "keep one",
            ),
            (
                "[nomad]\n[upstreams.a]\nnomad_service = \"web\"\ntls = «true»\n",
                "upstreams.a.tls",
                "write its `endpoints`",
            ),
            (
                "[nomad]\n[upstreams.a]\nnomad_service = \"web\"\nmesh = «true»\n",
                "upstreams.a.mesh",
                "remove it",
            ),
        ],
    );
}
