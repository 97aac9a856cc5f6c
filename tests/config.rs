//! What a configuration means, and what is said of one that is broken: the key, the place, the remedy.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use portcullis::config::{
    self, Action, AdminAddress, CertificateFiles, Checked, Diagnostics, EndpointAddress, Level,
    Limits, LogFormat, UnknownName,
};
use portcullis::tls::options::{ClientAuth, Version};
use proptest::prelude::*;
use tempfile::TempDir;

/// A folder with every file that the examples and the cases below name.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    let names = ["ssh.vm.example.com", "*.vm.example.com", "*.example.com"];
    let edge = certificate(&names, rcgen::IsCa::NoCa);
    write("edge.pem", &edge.0);
    write("edge.key", &edge.1);
    write("certificates/edge.crt", &edge.0);
    write("certificates/edge.key", &edge.1);
    write(
        "other.key",
        &certificate(&["other.example.com"], rcgen::IsCa::NoCa).1,
    );
    let ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = certificate(&["ca.example.com"], ca).0;
    write("clients-ca.pem", &ca);
    write("internal-ca.pem", &ca);
    write("note.txt", "not a certificate\n");
    write("half/new.crt", &edge.0);
    write("half/new.key", "not a key\n");
    fs::create_dir(folder.path().join("empty")).unwrap();
    folder
}

fn certificate(names: &[&str], is_ca: rcgen::IsCa) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
    let mut parameters = rcgen::CertificateParams::new(names).unwrap();
    parameters.is_ca = is_ca;
    let certificate = parameters.self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn parse(folder: &TempDir, text: &str) -> Result<Checked, Diagnostics> {
    config::parse(text, &folder.path().join("portcullis.toml"))
}

fn good(text: &str) -> Checked {
    parse(&folder(), text).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

/// As shown to a person, the folder's name left out.
fn shown(folder: &TempDir, diagnostics: &Diagnostics) -> String {
    let prefix = format!("{}/", folder.path().display());
    diagnostics.to_string().replace(&prefix, "")
}

/// Takes the marks « and » out of a text, and says where they stood.
fn unmark(marked: &str) -> (String, Range<usize>) {
    let start = marked.find('«').expect("no «");
    let text = marked.replacen('«', "", 1);
    let end = text.find('»').expect("no »");
    (text.replacen('»', "", 1), start..end)
}

/// Line and column of a byte, from 1, counted apart from the code under test.
fn line_and_column(text: &str, byte: usize) -> String {
    let lines: Vec<&str> = text[..byte].split('\n').collect();
    format!(
        "{}:{}",
        lines.len(),
        lines[lines.len() - 1].chars().count() + 1
    )
}

/// A broken text with its one mistake marked, the key that is to be named, and a part of the remedy.
type Case = (&'static str, &'static str, &'static str);

fn expect(level: Level, cases: &[Case]) {
    let folder = folder();
    for (marked, key, remedy) in cases {
        let (text, span) = unmark(marked);
        let diagnostics = match parse(&folder, &text) {
            Ok(checked) if level == Level::Warning => checked.warnings,
            Ok(_) => panic!("accepted:\n{marked}"),
            Err(diagnostics) => diagnostics,
        };
        let report = shown(&folder, &diagnostics);
        let of_level: Vec<_> = diagnostics
            .list
            .iter()
            .filter(|one| one.level == level)
            .collect();
        assert_eq!(of_level.len(), 1, "one mistake in\n{marked}\n{report}");
        let one = of_level[0];
        assert_eq!(
            one.span,
            Some(span.clone()),
            "the place in\n{marked}\n{report}"
        );
        assert!(
            one.message.contains(&format!("`{key}`")),
            "the key {key} in\n{report}"
        );
        let help = one.help.as_deref().unwrap_or_default();
        assert!(help.contains(remedy), "the remedy {remedy} in\n{report}");
        let place = line_and_column(&text, span.start);
        assert!(
            report.contains(&format!("--> portcullis.toml:{place}\n")),
            "{place} in\n{report}"
        );
    }
}

/// A route that is good, to be put below what is not.
const ROUTE: &str = "[routes.vm]\nhost = \"ssh.vm.example.com\"\nupstream = \"10.0.0.5:22\"\n";

#[test]
fn what_is_not_toml_is_told_with_its_place() {
    expect(
        Level::Error,
        &[
            (
                "unknown_name = «alert»\n",
                "unknown_name",
                "put it in quotes",
            ),
            (
                "unknown_name =«»\n[log]\n",
                "unknown_name",
                "write one after the `=`",
            ),
            (
                "unknown_name = \"alert«»\n[log]\n",
                "unknown_name",
                "a string is \"text\"",
            ),
            (
                "[log]\nformat = \"text\"\n«format» = \"json\"\n",
                "format",
                "keep one of the two",
            ),
            (
                "[routes.vm]\nhost = \"a\"\n[routes.«vm»]\nupstream = \"a:1\"\n",
                "vm",
                "keep one of the two",
            ),
            (
                "unknown_name = \"\\«»q\"\n",
                "unknown_name",
                "in 'text' a backslash is only a backslash",
            ),
        ],
    );
}

#[test]
fn an_unknown_key_is_refused_with_the_one_that_was_meant() {
    expect(
        Level::Error,
        &[
            ("«lisen» = [\":8443\"]\n", "lisen", "did you mean `listen`?"),
            ("«colour» = true\n", "colour", "known here: listen, admin"),
            (
                "[limits]\n«idleTimeout» = \"1h\"\n",
                "idleTimeout",
                "did you mean `idle_timeout`?",
            ),
            (
                "[limits]\nkeepalive = { «counts» = 3 }\n",
                "counts",
                "did you mean `count`?",
            ),
            (
                "[tls.options.a]\n«min-version» = \"1.3\"\n",
                "min-version",
                "did you mean `min_version`?",
            ),
            ("[tls]\n«option» = 1\n", "option", "did you mean `options`?"),
            (
                "[log]\n«level» = \"debug\"\n",
                "level",
                "known here: format",
            ),
            (
                "[routes.vm]\n«hots» = \"a\"\nupstream = \"10.0.0.5:22\"\n",
                "hots",
                "did you mean `host`?",
            ),
            (
                "[upstreams.a]\nendpoints = [{ address = \"10.0.0.5:1\", «wieght» = 1 }]\n",
                "wieght",
                "did you mean `weight`?",
            ),
            (
                "[[certificates]]\ndirectory = \"certificates\"\n«\"a b\"» = 1\n",
                "\"a b\"",
                "known here: directory",
            ),
        ],
    );
}

#[test]
fn a_value_of_the_wrong_type_is_told_what_was_expected() {
    expect(
        Level::Error,
        &[
            (
                "listen = «\"[::]:8443\"»\n",
                "listen",
                "put it in brackets: [\"[::]:8443\"]",
            ),
            (
                "listen = [«8443»]\n",
                "listen[0]",
                "put it in quotes: \"8443\"",
            ),
            ("admin = «9443»\n", "admin", "an address or false"),
            (
                "admin = «true»\n",
                "admin = true",
                "leave `admin` out for 127.0.0.1:9443",
            ),
            (
                "admin = \"unix:/a\"\ninsecure_admin = «\"no\"»\n",
                "insecure_admin",
                "without quotes",
            ),
            (
                "[tls.options.a]\nmin_version = «1.2»\n",
                "tls.options.a.min_version",
                "put it in quotes: \"1.2\"",
            ),
            (
                "[limits]\ndial_timeout = «5»\n",
                "limits.dial_timeout",
                "write \"5s\"",
            ),
            (
                "[limits]\nmax_hello = «65536»\n",
                "limits.max_hello",
                "write \"65536B\"",
            ),
            (
                "[limits]\ndial_attempts = «\"2\"»\n",
                "limits.dial_attempts",
                "without quotes",
            ),
            ("routes = «[]»\n", "routes", "as in `[routes]`"),
            (
                "[routes]\nvm = «\"10.0.0.5:22\"»\n",
                "routes.vm",
                "as in `[routes.vm]`",
            ),
            (
                "[upstreams.a]\naddress = \"a:1\"\ntls = «\"yes\"»\n",
                "upstreams.a.tls",
                "true, false or a table",
            ),
            (
                "[limits]\ndial_attempts = «99999999999999999999»\n",
                "limits.dial_attempts",
                "a smaller number",
            ),
        ],
    );
}

#[test]
fn a_value_out_of_range_or_unknown_is_told_what_may_stand_there() {
    expect(
        Level::Error,
        &[
            (
                "unknown_name = «\"alrt\"»\n",
                "unknown_name",
                "did you mean \"alert\"?",
            ),
            (
                "[log]\nformat = «\"xml\"»\n",
                "log.format",
                "auto, text, json",
            ),
            (
                "[limits]\nhandshake_timeout = «\"0s\"»\n",
                "limits.handshake_timeout",
                "100ms to 10m",
            ),
            (
                "[limits]\nidle_timeout = «\"never\"»\n",
                "limits.idle_timeout",
                "or \"off\"",
            ),
            (
                "[limits]\ndrain_timeout = «\"5 minutes\"»\n",
                "limits.drain_timeout",
                "such as \"10s\"",
            ),
            (
                "[limits]\nmax_hello = «\"1MiB\"»\n",
                "limits.max_hello",
                "4KiB to 64KiB",
            ),
            (
                "[limits]\nmax_hello = «\"64KB\"»\n",
                "limits.max_hello",
                "KiB",
            ),
            (
                "[limits]\ndial_attempts = «0»\n",
                "limits.dial_attempts",
                "from 1 to 10",
            ),
            (
                "[limits.keepalive]\ncount = «1000»\n",
                "limits.keepalive.count",
                "from 1 to 127",
            ),
        ],
    );
}

#[test]
fn our_own_addresses_are_checked() {
    expect(
        Level::Error,
        &[
            ("listen = «[]»\n", "listen", "leave it out"),
            ("listen = [«\"8443\"»]\n", "listen[0]", "\":8443\""),
            (
                "listen = [«\"localhost:443\"»]\n",
                "listen[0]",
                "\"127.0.0.1:443\" or \"[::1]:443\"",
            ),
            (
                "listen = [«\"192.0.2.1\"»]\n",
                "listen[0]",
                "\"192.0.2.1:8443\"",
            ),
            (
                "listen = [\":8443\", «\"0.0.0.0:8443\"»]\n",
                "listen[1]",
                "remove one of the two",
            ),
            ("admin = «\":9443\"»\n", "admin", "insecure_admin = true"),
            (
                "admin = «\"127.0.0.1:8443\"»\n",
                "admin",
                "a port of its own",
            ),
            ("admin = «\"unix:\"»\n", "admin", "a path from the root"),
        ],
    );
    let long = format!("admin = \"unix:/{}\"\n", "a".repeat(120));
    let report = shown(&folder(), &parse(&folder(), &long).unwrap_err());
    assert!(report.contains("121 bytes, more than the 107"), "{report}");
}

#[test]
fn certificates_that_cannot_be_used_are_told_apart() {
    expect(
        Level::Error,
        &[
            (
                "[[certificates]]\nchain = «\"no.pem\"»\nkey = \"edge.key\"\n",
                "certificates[0].chain",
                "path",
            ),
            (
                "[[certificates]]\nchain = \"edge.pem\"\nkey = «\"no.key\"»\n",
                "certificates[0].key",
                "path",
            ),
            (
                "[[certificates]]\nchain = «\"note.txt\"»\nkey = \"edge.key\"\n",
                "certificates[0].chain",
                "",
            ),
            (
                "[[certificates]]\nchain = \"edge.pem\"\nkey = «\"other.key\"»\n",
                "certificates[0].key",
                "name the key",
            ),
            (
                "«[[certificates]]»\nchain = \"edge.pem\"\n",
                "certificates[0].key",
                "add `key = \"edge.key\"`",
            ),
            (
                "[[certificates]]\nchain = \"edge.pem\"\nkey = \"edge.key\"\n«directory» = \"certificates\"\n",
                "directory",
                "give each its own [[certificates]]",
            ),
            (
                "[[certificates]]\ndirectory = «\"empty\"»\n",
                "certificates[0].directory",
                "write NAME.crt",
            ),
            (
                "[[certificates]]\ndirectory = «\"nowhere\"»\n",
                "certificates[0].directory",
                "path",
            ),
            (
                "[[certificates]]\ndirectory = «\"~/certs\"»\n",
                "certificates[0].directory",
                "a path from the root",
            ),
            (
                "[[certificates]]\ndirectory = «\"\"»\n",
                "certificates[0].directory",
                "a path from the root",
            ),
        ],
    );
}

#[test]
fn a_pair_of_which_both_files_are_missing_is_told_of_both() {
    let folder = folder();
    let text = "[[certificates]]\nchain = \"no.pem\"\nkey = \"no.key\"\n";
    let report = shown(&folder, &parse(&folder, text).unwrap_err());
    assert!(report.contains("portcullis.toml:2:9"), "{report}");
    assert!(report.contains("portcullis.toml:3:7"), "{report}");
}

#[test]
fn option_sets_are_checked() {
    expect(
        Level::Error,
        &[
            (
                "[tls.options.a]\nmin_version = «\"1.1\"»\n",
                "tls.options.a.min_version",
                "\"1.2\" or \"1.3\"",
            ),
            (
                "[tls.options.a]\nmin_version = \"1.3\"\nmax_version = «\"1.2\"»\n",
                "tls.options.a",
                "raise `max_version`",
            ),
            (
                "[tls.options.a]\nalpn = [\"h2\", «\"acme-tls/1\"»]\n",
                "tls.options.a.alpn[1]",
                "remove it",
            ),
            (
                "[tls.options.a]\nalpn = [«\"portcullis/1\"»]\n",
                "tls.options.a.alpn[0]",
                "remove it",
            ),
            (
                "[tls.options.a]\nalpn = [«\"\"»]\n",
                "tls.options.a.alpn[0]",
                "1 to 255 bytes",
            ),
            (
                "[tls.options.a]\nalpn = [\"h2\", «\"h2\"»]\n",
                "tls.options.a.alpn[1]",
                "remove one",
            ),
            (
                "[tls.options.a]\nclient_auth = «\"require\"»\n",
                "tls.options.a.client_auth",
                "did you mean \"required\"?",
            ),
            (
                "[tls.options.a]\nclient_auth = «\"required\"»\n",
                "tls.options.a.client_ca",
                "add `client_ca",
            ),
            (
                "[tls.options.a]\nclient_ca = «[\"clients-ca.pem\"]»\n",
                "tls.options.a.client_ca",
                "(what Traefik takes it to mean)",
            ),
            (
                "[tls.options.a]\nclient_auth = \"optional\"\nclient_ca = «[]»\n",
                "tls.options.a.client_ca",
                "name the file of the CA",
            ),
            (
                "[tls.options.a]\nclient_auth = \"optional\"\nclient_ca = [«\"no.pem\"»]\n",
                "tls.options.a.client_ca[0]",
                "path",
            ),
            (
                "[tls.options.«\"a b\"»]\n",
                "tls.options.\"a b\"",
                "letters, digits",
            ),
        ],
    );
}

#[test]
fn routes_are_checked() {
    expect(
        Level::Error,
        &[
            (
                "«[routes.vm]»\nupstream = \"10.0.0.5:22\"\n",
                "routes.vm",
                "add `host = ",
            ),
            (
                "«[routes.vm]»\nhost = \"a.example.com\"\n",
                "routes.vm.upstream",
                "add `upstream = ",
            ),
            (
                "routes.«vm».host = \"a.example.com\"\n",
                "routes.vm.upstream",
                "add `upstream = ",
            ),
            (
                "[routes.vm]\nhost = \"a\"\n«rule» = \"HostSNI(`a`)\"\nupstream = \"10.0.0.5:22\"\n",
                "rule",
                "keep one",
            ),
            (
                "[routes.vm]\nhost = «\"10.0.0.5\"»\nupstream = \"10.0.0.5:22\"\n",
                "routes.vm.host",
                "a host name",
            ),
            (
                "[routes.vm]\nhost = «\"a b\"»\nupstream = \"10.0.0.5:22\"\n",
                "routes.vm.host",
                "a host name",
            ),
            (
                "[routes.vm]\nhost = [\"a\", «\"-\"»]\nupstream = \"10.0.0.5:22\"\n",
                "routes.vm.host[1]",
                "a host name",
            ),
            (
                "[routes.vm]\nhost = «[]»\nupstream = \"10.0.0.5:22\"\n",
                "routes.vm.host",
                "at least one",
            ),
            (
                "[routes.vm]\nhost = \"a\"\nupstream = «\"db\"»\n[upstreams.bd]\naddress = \"a:1\"\n",
                "routes.vm.upstream",
                "did you mean \"bd\"?",
            ),
            (
                "[routes.vm]\nhost = \"a\"\nupstream = «\"10.0.0.5\"»\n",
                "routes.vm.upstream",
                "an address with its port",
            ),
            (
                "[routes.vm]\nhost = \"a\"\nupstream = «\"10.0.0.5:ssh\"»\n",
                "routes.vm.upstream",
                "such as \"10.0.0.5:22\"",
            ),
            (
                "[routes.vm]\nhost = \"a\"\nupstream = «\"10.0.0.5:0\"»\n",
                "routes.vm.upstream",
                "the port of the service",
            ),
            (
                "[routes.vm]\nhost = \"a\"\nupstream = «\"https://a\"»\n",
                "routes.vm.upstream",
                "[upstreams.NAME.tls]",
            ),
            (
                "[routes.vm]\nhost = \"a\"\nupstream = «\"2001:db8::1\"»\n",
                "routes.vm.upstream",
                "[2001:db8::1]:22",
            ),
            (
                "[routes.vm]\nhost = \"a\"\ntls_options = «\"strct\"»\nupstream = \"a:1\"\n[tls.options.strict]\n",
                "routes.vm.tls_options",
                "did you mean \"strict\"?",
            ),
            (
                "[routes.vm]\nhost = \"a\"\npassthrough = true\ntls_options = «\"default\"»\nupstream = \"a:1\"\n",
                "routes.vm.tls_options",
                "remove one of the two",
            ),
            (
                "[routes.vm]\nhost = \"a\"\nupstream = «\"127.0.0.1:8443\"»\n",
                "routes.vm.upstream",
                "the service itself",
            ),
            (
                "[routes.vm]\nhost = \"a\"\nupstream = «\"localhost:8443\"»\n",
                "routes.vm.upstream",
                "the service itself",
            ),
            (
                "[routes.vm]\nhost = \"a\"\nupstream = «\"[::1]:8443\"»\n",
                "routes.vm.upstream",
                "the service itself",
            ),
            (
                "[routes.vm]\nhost = \"a\"\nupstream = «\"127.0.0.1:9443\"»\n",
                "routes.vm.upstream",
                "another service",
            ),
            (
                "listen = [\"192.0.2.1:443\"]\n[upstreams.a]\naddress = «\"192.0.2.1:443\"»\n",
                "upstreams.a.address",
                "the service itself",
            ),
            (
                "[routes.«\"vm@file\"»]\nhost = \"a\"\nupstream = \"a:1\"\n",
                "routes.\"vm@file\"",
                "letters, digits",
            ),
        ],
    );
}

#[test]
fn upstreams_are_checked() {
    expect(
        Level::Error,
        &[
            ("«[upstreams.a]»\n", "upstreams.a", "add `address = "),
            (
                "[upstreams.a]\nendpoints = «[]»\n",
                "upstreams.a.endpoints",
                "at least one address",
            ),
            (
                "[upstreams.a]\n«address» = \"a:1\"\nendpoints = [\"b:1\"]\n",
                "address",
                "keep one",
            ),
            (
                "[upstreams.a]\nendpoints = «[{ address = \"a:1\", weight = 0 }]»\n",
                "upstreams.a.endpoints",
                "a weight of 1 or more",
            ),
            (
                "[upstreams.a]\nendpoints = [\"b:1\", { address = \"a:1\", weight = «-1» }]\n",
                "upstreams.a.endpoints[1].weight",
                "from 0 to 65535",
            ),
            (
                "[upstreams.a]\naddress = \"10.0.0.5:1\"\ntls = «true»\n",
                "upstreams.a.tls.server_name",
                "add `server_name",
            ),
            (
                "[upstreams.a]\nendpoints = [\"a.x:1\", \"b.x:1\"]\n«[upstreams.a.tls]»\n",
                "upstreams.a.tls.server_name",
                "add `server_name",
            ),
            (
                "[upstreams.a]\naddress = \"a:1\"\ntls = { server_name = «\"a:1\"» }\n",
                "upstreams.a.tls.server_name",
                "without a port",
            ),
            (
                "[upstreams.a]\naddress = \"a:1\"\ntls = { roots = «[]» }\n",
                "upstreams.a.tls.roots",
                "trust the system's",
            ),
            (
                "[upstreams.a]\naddress = \"a:1\"\ntls.roots = [«\"note.txt\"»]\n",
                "upstreams.a.tls.roots[0]",
                "",
            ),
        ],
    );
}

#[test]
fn what_cannot_be_meant_is_warned_of() {
    let route = |rest: &str| -> &'static str {
        Box::leak(format!("{ROUTE}passthrough = true\n{rest}").into_boxed_str())
    };
    expect(
        Level::Warning,
        &[
            (
                route(
                    "[routes.wx]\nhost = «\"SSH.vm.example.com\"»\npassthrough = true\nupstream = \"a:1\"\n",
                ),
                "routes.wx",
                "remove one",
            ),
            (
                "[[certificates]]\nchain = \"edge.pem\"\nkey = \"edge.key\"\n[routes.vm]\nhost = «\"a.example.org\"»\nupstream = \"a:1\"\n",
                "routes.vm",
                "passthrough = true",
            ),
            (
                "[routes.vm]\nhost = «\"a.example.org\"»\nupstream = \"a:1\"\n",
                "routes.vm",
                "add a certificate",
            ),
            (
                route("[[certificates]]\ndirectory = «\"half\"»\n"),
                "certificates[0].directory",
                "",
            ),
            (
                route("[upstreams.a]\nendpoints = [\"a:1\", «\"a:1\"»]\n"),
                "upstreams.a.endpoints",
                "`weight`",
            ),
            (
                "admin = «\"0.0.0.0:9443\"»\ninsecure_admin = true\n[routes.vm]\nhost = \"a\"\npassthrough = true\nupstream = \"a:1\"\n",
                "admin",
                "127.0.0.1:9443",
            ),
            (
                "insecure_admin = «true»\n[routes.vm]\nhost = \"a\"\npassthrough = true\nupstream = \"a:1\"\n",
                "insecure_admin",
                "remove it",
            ),
        ],
    );
}

/// A mistake in a rule, marked: the caret must stand inside the mark, however the string is written.
#[test]
fn a_mistake_in_a_rule_is_shown_inside_the_string() {
    let folder = folder();
    for marked in [
        "[routes.vm]\nrule = \"HostSNI(`a`) && ClientIP(«`10.0.0.0/33`»)\"\nupstream = \"a:1\"\n",
        "[routes.vm]\nrule = 'HostSNI(`a`) && ClientIP(«`10.0.0.0/33`»)'\nupstream = \"a:1\"\n",
        "[routes.vm]\nrule = \"HostSNI(\\u0060a\\u0060) \\x26& ClientIP(«\\u006010.0.0.0/33\\u0060»)\"\nupstream = \"a:1\"\n",
        "[routes.vm]\nrule = \"\"\"\nHostSNI(`a`) && \\\n    ClientIP(«`10.0.0.0/33`»)\"\"\"\nupstream = \"a:1\"\n",
        "[routes.vm]\r\nrule = '''\r\nHostSNI(`a`)\r\n  && ClientIP(«`10.0.0.0/33`»)'''\r\nupstream = \"a:1\"\r\n",
        "[routes.vm]\nrule = \"HostSNI(`ä`) || «HostSNi»(`a`)\"\nupstream = \"a:1\"\n",
    ] {
        let (text, mark) = unmark(marked);
        let diagnostics = parse(&folder, &text).unwrap_err();
        let report = shown(&folder, &diagnostics);
        let rule = diagnostics
            .list
            .iter()
            .find(|one| one.message.contains("`routes.vm.rule`"));
        let one = rule.unwrap_or_else(|| panic!("{report}"));
        let span = one.span.clone().unwrap();
        assert!(
            mark.start <= span.start && span.end <= mark.end,
            "{marked}\n{report}"
        );
        assert!(span.start < span.end, "{marked}\n{report}");
        assert!(one.help.is_some(), "{report}");
    }
}

#[test]
fn a_report_looks_as_rustc_would_write_it() {
    let folder = folder();
    let text = "\
listen = [\"[::]:8443\"]
unknow_name = \"close\"

[routes.vm]
host = \"ssh.vm.example.com\"
tls_option = \"strict\"
upstream = \"db\"
passthrough = true

[upstreams.dv]
address = \"10.0.0.5:5432\"
";
    let expected = "\
error: unknown key `unknow_name`
 --> portcullis.toml:2:1
  |
2 | unknow_name = \"close\"
  | ^^^^^^^^^^^
  |
  = help: did you mean `unknown_name`? known here: listen, admin, insecure_admin, unknown_name, certificates, tls, routes, upstreams, limits, log

error: unknown key `tls_option` in `routes.vm`
 --> portcullis.toml:6:1
  |
6 | tls_option = \"strict\"
  | ^^^^^^^^^^
  |
  = help: did you mean `tls_options`? known here: host, rule, priority, passthrough, tls_options, upstream

error: `routes.vm.upstream`: there is no upstream \"db\"
 --> portcullis.toml:7:12
  |
7 | upstream = \"db\"
  |            ^^^^
  |
  = help: did you mean \"dv\"? otherwise add an [upstreams.db] section, or write an address with its port, as in \"db:22\"

error: 3 errors in portcullis.toml
";
    assert_eq!(shown(&folder, &parse(&folder, text).unwrap_err()), expected);
}

#[test]
fn a_report_points_into_text_that_is_not_ascii() {
    let folder = folder();
    let text = "# Zürich 😀\nlisten = [\"ü:1\", \"[::]:8443\", \":8443\"]\n";
    let report = shown(&folder, &parse(&folder, text).unwrap_err());
    assert!(report.contains("--> portcullis.toml:2:11\n"), "{report}");
    assert!(report.contains("--> portcullis.toml:2:31\n"), "{report}");
    assert!(
        report.ends_with("error: 2 errors and 1 warning in portcullis.toml\n"),
        "{report}"
    );
}

#[test]
fn a_file_with_ten_mistakes_is_told_all_ten_in_its_order() {
    let folder = folder();
    let text = "\
lisen = [\":8443\"]
admin = \"0.0.0.0:9443\"
unknown_name = \"ignore\"
certificates = [{ chain = \"edge.pem\", key = \"no.key\" }]
[tls.options.old]
min_version = \"1.0\"
[routes.a]
host = \"a.example.com\"
upstream = \"dbb\"
[routes.b]
rule = \"HostSNi(`b.example.com`)\"
upstream = \"10.0.0.5\"
[routes.c]
host = \"c.example.com\"
tls_options = \"odl\"
upstream = \"127.0.0.1:8443\"
[upstreams.db]
address = \"10.0.0.5:5432\"
";
    let diagnostics = parse(&folder, text).unwrap_err();
    let errors = diagnostics
        .list
        .iter()
        .filter(|one| one.level == Level::Error);
    let places: Vec<String> = errors
        .map(|one| line_and_column(text, one.span.clone().unwrap().start))
        .collect();
    let report = shown(&folder, &diagnostics);
    let expected = [
        "1:1", "2:9", "3:16", "4:45", "6:15", "9:12", "11:9", "12:12", "15:15", "16:12",
    ];
    assert_eq!(places, expected, "{report}");
    assert!(report.contains("error: 10 errors"), "{report}");
}

#[test]
fn a_mistake_in_the_grammar_does_not_hide_those_of_other_lines() {
    let folder = folder();
    let text = "listen = [\":8443\"]\nunknown_name = close\nadmn = false\n[routes.vm]\nhost = \"a\"\nupstream \"a:1\"\n[log]\nformat = \"xml\"\n";
    let report = shown(&folder, &parse(&folder, text).unwrap_err());
    assert!(
        report.contains("`unknown_name`: text without quotes"),
        "{report}"
    );
    assert!(report.contains("unknown key `admn`"), "{report}");
    assert!(report.contains("--> portcullis.toml:6:10"), "{report}");
    assert!(
        !report.contains("`routes.vm.upstream` is missing"),
        "an echo: {report}"
    );
}

#[test]
fn a_list_that_is_never_closed_is_one_mistake() {
    let folder = folder();
    let text = format!("listen = [\":8443\",\nunknown_name = \"close\"\n{ROUTE}");
    let report = shown(&folder, &parse(&folder, &text).unwrap_err());
    assert!(report.contains("--> portcullis.toml:2:"), "{report}");
    assert!(report.contains("close it with `]`"), "{report}");
    assert!(
        report.ends_with("error: 1 error in portcullis.toml\n"),
        "{report}"
    );
}

#[test]
fn what_is_shown_of_a_file_cannot_command_the_terminal() {
    let folder = folder();
    let text = "\"\\u001b[31m\\n\" = 1 # \u{7f}\nunknown_name = \"\\u001b]0;x\\u0007\"\n";
    let report = shown(&folder, &parse(&folder, text).unwrap_err());
    assert!(
        !report.contains(|c: char| c.is_control() && c != '\n'),
        "{report:?}"
    );
}

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
        Some(AdminAddress::Tcp("127.0.0.1:9443".parse().unwrap()))
    );
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.log.format, LogFormat::Auto);
    assert!(config.tls_options.contains_key("default"));
}

#[test]
fn admin_can_be_a_socket_or_nothing() {
    assert_eq!(good("admin = false").config.admin, None);
    let folder = folder();
    let checked = parse(&folder, "admin = \"unix:run/admin.sock\"").unwrap();
    let socket = folder.path().join("run/admin.sock");
    assert_eq!(checked.config.admin, Some(AdminAddress::Unix(socket)));
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
fn tls_to_an_upstream_checks_the_name_that_its_endpoints_share() {
    let text = "[upstreams.a]\nendpoints = [\"a.x:1\", \"a.x:2\"]\ntls = true\n";
    let tls = good(text).config.upstreams["a"].tls.clone().unwrap();
    assert_eq!(tls.server_name.to_str(), "a.x");
    assert!(tls.roots.is_empty());
}

/// The warnings of a good configuration name nothing that was written.
fn example(name: &str) -> (TempDir, Checked) {
    let folder = folder();
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config")
        .join(name);
    let path = folder.path().join(name);
    fs::copy(source, &path).unwrap();
    let checked = config::load(&path).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
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
    assert_eq!(config.upstreams["wiki"].endpoints[1].weight, 2);
    let tls = config.upstreams["wiki"].tls.as_ref().unwrap();
    assert_eq!(tls.server_name.to_str(), "wiki.internal");
    assert_eq!(tls.roots, [folder.path().join("internal-ca.pem")]);
    let directory = CertificateFiles::Directory(folder.path().join("certificates"));
    assert_eq!(config.certificates[1], directory);
    assert_eq!(checked.certificates.len(), 2);
}

#[test]
fn the_ssh_example_sets_what_it_says() {
    let config = example("ssh.toml").1.config;
    assert_eq!(config.limits.idle, None);
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
        "[[certificates]]",
        "[tls]",
        "[tls.options.a]",
        "[routes.a]",
        "[upstreams.a]",
        "[upstreams.a.tls]",
        "[[upstreams.a.endpoints]]",
        "[limits]",
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

#[test]
fn a_file_that_is_not_text_is_refused_with_the_line() {
    let folder = folder();
    let path = folder.path().join("portcullis.toml");
    fs::write(&path, b"# ok\nadmin = \"\xff\"\n").unwrap();
    let report = shown(&folder, &config::load(&path).unwrap_err());
    assert!(report.contains("not UTF-8"), "{report}");
    assert!(report.contains("line 2"), "{report}");
    assert!(report.contains("help: save it as UTF-8"), "{report}");
}

#[test]
fn a_folder_in_place_of_the_file_is_refused_with_the_reason() {
    let folder = folder();
    let report = shown(&folder, &config::load(folder.path()).unwrap_err());
    assert!(report.contains("directory"), "{report}");
    assert!(report.contains("help:"), "{report}");
}

/// Whatever was found can be shown, and stands in the text.
fn check_reports(text: &str) {
    let found = config::parse(text, Path::new("/nonexistent/portcullis.toml"));
    let diagnostics = match found {
        Ok(checked) => checked.warnings,
        Err(diagnostics) => {
            assert!(diagnostics.errors() > 0);
            diagnostics
        }
    };
    for one in &diagnostics.list {
        if let Some(span) = &one.span {
            assert!(
                text.get(span.clone()).is_some(),
                "{one:?} is not in {text:?}"
            );
        }
        assert!(one.help.is_some() && !one.message.is_empty(), "{one:?}");
    }
    assert_eq!(
        diagnostics.render(true).is_empty(),
        diagnostics.list.is_empty()
    );
    assert_eq!(
        diagnostics.render(false).is_empty(),
        diagnostics.list.is_empty()
    );
}

/// An example with some of its bytes left out, doubled or replaced.
fn mutated() -> impl Strategy<Value = String> {
    let examples = ["minimal.toml", "full.toml", "ssh.toml"].map(|name| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("config")
            .join(name);
        // Comments only take place where a mutation does nothing.
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        lines.join("\n")
    });
    let edit = (
        any::<prop::sample::Index>(),
        0usize..40,
        "[a-z0-9\"'\\[\\]{}=.,#`\\\\ \n\r😀\u{0}-]{0,3}",
    );
    (
        prop::sample::select(examples.to_vec()),
        prop::collection::vec(edit, 1..4),
    )
        .prop_map(|(text, edits)| {
            let mut characters: Vec<char> = text.chars().collect();
            for (index, length, new) in edits {
                let start = index.index(characters.len() + 1);
                let end = (start + length).min(characters.len());
                characters.splice(start..end, new.chars());
            }
            characters.into_iter().collect()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_is_too_strange(text in any::<String>()) {
        check_reports(&text);
    }

    #[test]
    fn no_text_like_toml_is_too_strange(text in "([a-z.]{1,3}|[\"'=\\[\\]{},#\\\\\n\r \u{feff}ä]|\"\"\"|listen|routes|= ){0,30}") {
        check_reports(&text);
    }

    #[test]
    fn no_damage_to_an_example_is_too_strange(text in mutated()) {
        check_reports(&text);
    }
}
