//! The variables of the environment that complete `[consul]`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use portcullis::config::{self, Consul, Environment, Level, Secret, Token};
use portcullis::tls::key::KeyFile;

use super::consul::{consul, default, parse_with, secret, tcp, told};
use super::{folder, shown};

#[test]
fn what_is_not_written_comes_from_the_environment() {
    let files = folder();
    let path = |name: &str| {
        files
            .path()
            .join(name)
            .into_os_string()
            .into_string()
            .unwrap()
    };
    let (ca, chain, key) = (path("internal-ca.pem"), path("edge.pem"), path("edge.key"));
    let variables = [
        ("CONSUL_HTTP_ADDR", "consul.internal:8501"),
        ("CONSUL_HTTP_SSL", "true"),
        ("CONSUL_HTTP_SSL_VERIFY", "true"),
        ("CONSUL_HTTP_TOKEN", "a-token"),
        ("CONSUL_HTTP_AUTH", "user:pass:word"),
        ("CONSUL_CACERT", &ca),
        ("CONSUL_CAPATH", "/nonexistent, and not looked at"),
        ("CONSUL_CLIENT_CERT", &chain),
        ("CONSUL_CLIENT_KEY", &key),
        ("CONSUL_TLS_SERVER_NAME", "server.dc1.consul"),
        ("CONSUL_NAMESPACE", "default"),
        ("CONSUL_PARTITION", ""),
        ("CONSUL_GRPC_ADDR", "not for us"),
    ];
    let completed = Consul {
        address: tcp("consul.internal", 8501),
        https: true,
        token: secret("a-token"),
        basic_auth: Some(("user".to_owned(), Secret::new("pass:word".to_owned()))),
        roots: vec![PathBuf::from(&ca)],
        certificate: Some((PathBuf::from(&chain), KeyFile::from(&key))),
        server_name: Some("server.dc1.consul".to_owned()),
        ..default()
    };
    assert_eq!(consul("[consul]\n", &variables), completed);

    // What is written goes before.
    let written = "[consul]\naddress = \"http://127.0.0.1:8500\"\ntoken = \"mine\"\n";
    let expected = Consul {
        address: tcp("127.0.0.1", 8500),
        https: false,
        token: secret("mine"),
        ..completed
    };
    assert_eq!(consul(written, &variables), expected);
}

#[test]
fn variables_count_only_where_there_is_a_section() {
    let folder = folder();
    let broken = [("CONSUL_HTTP_ADDR", "::"), ("CONSUL_NAMESPACE", "team")];
    let checked = parse_with(&folder, super::ROUTE, &broken).unwrap();
    assert_eq!(checked.config.consul, None);
}

#[test]
fn tls_is_used_where_the_address_or_a_variable_asks_for_it() {
    let folder = folder();
    let ca = folder.path().join("internal-ca.pem");
    let ca = ca.to_str().unwrap();
    let https = |written: &str, variables: &[(&str, &str)]| {
        let mut variables = variables.to_vec();
        variables.extend([
            ("CONSUL_CACERT", ca),
            ("CONSUL_TLS_SERVER_NAME", "localhost"),
        ]);
        let address = match written {
            "" => String::new(),
            written => format!("address = \"{written}\"\n"),
        };
        consul(&format!("[consul]\n{address}"), &variables).https
    };
    let (addr, ssl) = ("CONSUL_HTTP_ADDR", "CONSUL_HTTP_SSL");
    assert!(!https("", &[]));
    assert!(https("", &[(ssl, "1")]));
    assert!(!https("", &[(ssl, "False")]));
    assert!(
        https("localhost:8501", &[(ssl, "TRUE")]),
        "a written address that does not say"
    );
    assert!(
        !https("http://localhost:8500", &[(ssl, "true")]),
        "one that does"
    );
    assert!(https("https://localhost:8501", &[(ssl, "false")]));
    assert!(https(
        "",
        &[(addr, "https://localhost:8501"), (ssl, "false")]
    ));
    assert!(
        https("", &[(addr, "http://localhost:8500"), (ssl, "true")]),
        "never less than asked"
    );
    assert!(https("unix:///run/consul.sock", &[(ssl, "true")]));
    assert!(!https("", &[(addr, "unix:///run/consul.sock")]));
}

#[test]
fn of_two_tokens_the_written_one_is_taken_and_of_two_variables_the_file() {
    let folder = folder();
    let file = folder.path().join("token");
    fs::write(&file, "a-token").unwrap();
    let path = file.to_str().unwrap();
    let both = [
        ("CONSUL_HTTP_TOKEN", "value"),
        ("CONSUL_HTTP_TOKEN_FILE", path),
    ];
    assert_eq!(
        consul("[consul]\n", &both).token,
        Some(Token::File(file.clone()))
    );
    assert_eq!(consul("[consul]\n", &both[..1]).token, secret("value"));
    let written = format!("[consul]\ntoken_file = \"{path}\"\n");
    assert_eq!(
        consul(&written, &both[..1]).token,
        Some(Token::File(file.clone()))
    );
    assert_eq!(
        consul("[consul]\ntoken = \"mine\"\n", &both).token,
        secret("mine")
    );
}

#[test]
fn every_file_of_a_directory_of_cas_is_trusted_and_a_broken_one_is_named() {
    let folder = folder();
    let directory = folder.path().join("cas");
    let write = |name: &str, from: &str| {
        fs::copy(folder.path().join(from), directory.join(name)).unwrap();
    };
    fs::create_dir_all(directory.join("..data")).unwrap();
    fs::create_dir_all(directory.join("old")).unwrap();
    let variables = [("CONSUL_CAPATH", directory.to_str().unwrap())];
    let empty = told(Level::Error, "[consul]\n", &variables).0;
    assert!(
        empty.starts_with("`CONSUL_CAPATH`") && empty.ends_with("holds no file"),
        "{empty}"
    );
    write("b.pem", "internal-ca.pem");
    write("a.pem", "clients-ca.pem");
    write(".hidden", "note.txt");
    let roots = consul("[consul]\n", &variables).roots;
    assert_eq!(roots, [directory.join("a.pem"), directory.join("b.pem")]);
    write("c.txt", "note.txt");
    let broken = told(Level::Error, "[consul]\n", &variables).0;
    assert!(
        broken.starts_with("`CONSUL_CAPATH`") && broken.contains("c.txt"),
        "{broken}"
    );
    let nowhere = [("CONSUL_CAPATH", "/nonexistent")];
    let message = told(Level::Error, "[consul]\n", &nowhere).0;
    assert!(
        message.contains("/nonexistent: cannot be read"),
        "{message}"
    );
}

#[test]
fn a_mistake_in_a_variable_is_told_by_its_name_like_one_in_the_file() {
    for (name, value, remedy) in [
        (
            "CONSUL_HTTP_ADDR",
            "tcp://127.0.0.1:8500",
            "write \"127.0.0.1:8500\"",
        ),
        (
            "CONSUL_HTTP_ADDR",
            "consul.internal",
            "add the port, as in \"consul.internal:8500\"",
        ),
        (
            "CONSUL_HTTP_ADDR",
            "unix://run/a.sock",
            "unix:///run/consul.sock",
        ),
        ("CONSUL_HTTP_SSL", "yes", "it may be true, false"),
        ("CONSUL_HTTP_TOKEN", "two words", "SecretID"),
        ("CONSUL_HTTP_TOKEN_FILE", "/nonexistent/token", "SecretID"),
        ("CONSUL_CACERT", "/nonexistent/ca.pem", "is the path right?"),
        ("CONSUL_CACERT", "~/ca.pem", "write a path from the root"),
        ("CONSUL_CLIENT_CERT", "a.pem", "CONSUL_CLIENT_KEY"),
        ("CONSUL_CLIENT_KEY", "a.key", "CONSUL_CLIENT_CERT"),
        ("CONSUL_TLS_SERVER_NAME", "a:8501", "without a port"),
        ("CONSUL_NAMESPACE", "a team", "letters"),
        ("CONSUL_PARTITION", "a.team", "letters"),
    ] {
        let (message, help) = told(Level::Error, "[consul]\n", &[(name, value)]);
        assert!(message.starts_with(&format!("`{name}`")), "{message}");
        assert!(help.contains(remedy), "{name}: {help}");
    }
    let folder = folder();
    let bytes = OsString::from_vec(b"\xff:8500".to_vec());
    let environment: Environment = [("CONSUL_HTTP_ADDR", bytes)].into_iter().collect();
    let path = folder.path().join("portcullis.toml");
    let found = config::parse_with("[consul]\n", &path, &environment).unwrap_err();
    let report = shown(&folder, &found);
    assert_eq!(
        report,
        "error: `CONSUL_HTTP_ADDR` in the environment is not UTF-8 text\n--> portcullis.toml\n \
         = help: set it anew, or unset it\n\nerror: 1 error in portcullis.toml\n"
    );
}

#[test]
fn a_path_in_a_variable_begins_where_the_process_was_started() {
    let ca = folder();
    let ca = ca.path().join("internal-ca.pem");
    let variables = [
        ("CONSUL_HTTP_SSL", "true"),
        ("CONSUL_CACERT", ca.to_str().unwrap()),
        ("CONSUL_CLIENT_CERT", "nowhere.pem"),
        ("CONSUL_CLIENT_KEY", "edge.key"),
    ];
    let (message, _) = told(Level::Error, "[consul]\n", &variables);
    let expected = "`CONSUL_CLIENT_CERT`: nowhere.pem: ";
    assert!(message.starts_with(expected), "{message}");
    let relative = [("CONSUL_CACERT", "nowhere.pem")];
    let (message, _) = told(Level::Error, "[consul]\n", &relative);
    assert!(
        message.starts_with("`CONSUL_CACERT`: nowhere.pem: "),
        "{message}"
    );
}

#[test]
fn verification_cannot_be_turned_off() {
    let folder = folder();
    let ca = folder.path().join("internal-ca.pem");
    let variables = [
        ("CONSUL_HTTP_SSL", "true"),
        ("CONSUL_HTTP_SSL_VERIFY", "false"),
        ("CONSUL_CACERT", ca.to_str().unwrap()),
    ];
    let (message, help) = told(Level::Warning, "[consul]\n", &variables);
    assert!(
        message.starts_with("`CONSUL_HTTP_SSL_VERIFY` is not obeyed"),
        "{message}"
    );
    assert!(help.contains("CONSUL_CACERT"), "{help}");
    assert!(
        !consul("[consul]\n", &variables[1..]).https,
        "and nothing to say of plain HTTP"
    );
}
