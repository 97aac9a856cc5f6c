//! Warnings, and how a report looks: carets inside strings, order, no echoes.

use portcullis::config::Level;

use super::{ROUTE, expect, folder, good, line_and_column, parse, shown, unmark};

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
        "[routes.vm]\r\nrule = '''\r\nHostSNI(`a`) &&\r\n  ClientIP(«`10.0.0.0/33`»)'''\r\nupstream = \"a:1\"\r\n",
        "# Zürich\n[routes.vm]\nrule = \"HostSNI(`a`) || «HostSNi»(`a`)\"\nupstream = \"a:1\"\n",
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
fn a_rule_that_cannot_do_what_was_hoped_is_warned_of_inside_the_string() {
    let (text, mark) = unmark(
        "[routes.vm]\nrule = \"HostSNI(\\u0060a\\u0060) || HostSNI(«`10.0.0.5`»)\"\npassthrough = true\nupstream = \"a:1\"\n",
    );
    let warnings = good(&text).warnings;
    assert_eq!(warnings.list.len(), 1, "{warnings}");
    let span = warnings.list[0].span.clone().unwrap();
    assert!(
        mark.start <= span.start && span.end <= mark.end,
        "{warnings}"
    );
}

#[test]
fn a_caret_at_the_end_of_a_line_stays_in_it() {
    let folder = folder();
    let text = "[routes.vm]\nrule = '''HostSNI(`a`)\n&& ALPN(`h2`)'''\nupstream = \"a:1\"\n";
    let report = shown(&folder, &parse(&folder, text).unwrap_err());
    let expected = "
 --> portcullis.toml:2:23
  |
2 | rule = '''HostSNI(`a`)
  |                       ^
";
    assert!(report.contains(expected), "{report}");
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
  = help: did you mean `unknown_name`? known here: listen, admin, insecure_admin, admin_token_file, insecure_no_sandbox, unknown_name, certificates, tls, middlewares, routes, upstreams, transports, tunnels, consul, nomad, limits, log, state_dir, state_key_file, state_max_age

error: unknown key `tls_option` in `routes.vm`
 --> portcullis.toml:6:1
  |
6 | tls_option = \"strict\"
  | ^^^^^^^^^^
  |
  = help: did you mean `tls_options`? known here: host, rule, priority, passthrough, tls_options, upstream, max_connections, middlewares

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
