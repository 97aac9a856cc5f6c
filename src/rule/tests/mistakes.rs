//! What is wrong with a rule is shown at its place, with a remedy.

use super::*;

#[test]
fn a_mistake_is_shown_at_its_place_with_a_remedy() {
    for (text, at, says, helps) in [
        ("", "", "rule is empty", "HostSNI(`ssh.example.com`)"),
        (
            " // nothing",
            " // nothing",
            "rule is empty",
            "HostSNI(`ssh.example.com`)",
        ),
        (
            "hostSNI(`a`)",
            "hostSNI",
            "no matcher `hostSNI`",
            "did you mean `HostSNI`?",
        ),
        (
            "HostSNl(`a`)",
            "HostSNl",
            "no matcher",
            "did you mean `HostSNI`?",
        ),
        (
            "HostSNIRegex(`a`)",
            "HostSNIRegex",
            "no matcher",
            "did you mean `HostSNIRegexp`?",
        ),
        (
            "ClientIp(`::1`)",
            "ClientIp",
            "no matcher",
            "did you mean `ClientIP`?",
        ),
        ("Host(`a`)", "Host", "no matcher `Host`", "write `HostSNI`"),
        (
            "HostRegexp(`a`)",
            "HostRegexp",
            "no matcher",
            "write `HostSNIRegexp`",
        ),
        (
            "HostSNI(`a`) && PathPrefix(`/`)",
            "PathPrefix",
            "no matcher",
            "looks into HTTP",
        ),
        (
            "Headers(`a`, `b`)",
            "Headers",
            "no matcher",
            "looks into HTTP",
        ),
        (
            "Frobnicate(`a`)",
            "Frobnicate",
            "no matcher",
            "HostSNI, HostSNIRegexp, ClientIP and ALPN",
        ),
        (
            "ssh.example.com",
            "ssh.example.com",
            "a host name alone",
            "HostSNI(`ssh.example.com`)",
        ),
        (
            "`ssh.example.com`",
            "`ssh.example.com`",
            "text alone",
            "HostSNI(`ssh.example.com`)",
        ),
        ("HostSNI('a')", "'", "single quotes", "backticks"),
        ("HostSNI(“a”)", "“", "not a quote", "backticks"),
        (
            "HostSNI(a.example.com)",
            "a.example.com",
            "not quoted",
            "HostSNI(`a.example.com`)",
        ),
        (
            "HostSNI( *.example.com )",
            "*.example.com",
            "not quoted",
            "HostSNI(`*.example.com`)",
        ),
        (
            "ClientIP(10.0.0.0/8)",
            "10.0.0.0/8",
            "not quoted",
            "ClientIP(`10.0.0.0/8`)",
        ),
        (
            "HostSNI(`a`, `b`)",
            "`b`",
            "` takes one argument",
            "HostSNI(`a`) || HostSNI(`b`)",
        ),
        (
            "HostSNI()",
            "()",
            "` wants one argument",
            "HostSNI(`ssh.example.com`)",
        ),
        (
            "HostSNI(``)",
            "``",
            "is empty",
            "HostSNI(`ssh.example.com`)",
        ),
        (
            "HostSNI",
            "HostSNI",
            "has no argument",
            "HostSNI(`ssh.example.com`)",
        ),
        (
            "HostSNI(",
            "(",
            "argument of HostSNI is missing",
            "HostSNI(`ssh.example.com`)",
        ),
        ("HostSNI(`a", "`", "not closed", "backtick"),
        ("HostSNI(\"a", "\"", "not closed", "double quote"),
        ("HostSNI(`a`", "", "not followed by `)`", "close it"),
        ("HostSNI(`a`...)", "...", "unexpected", "calls matchers"),
        ("(HostSNI(`a`)", "(", "group is not closed", "`)`"),
        ("HostSNI(`a`))", ")", "closes nothing", "delete"),
        (
            "HostSNI(`a`) &&",
            "",
            "ends where a matcher should follow",
            "HostSNI",
        ),
        ("&& HostSNI(`a`)", "&&", "expected a matcher", "HostSNI"),
        ("HostSNI(`a`) & ALPN(`b`)", "&", "a single `&`", "`&&`"),
        ("HostSNI(`a`) | ALPN(`b`)", "|", "a single `|`", "`||`"),
        (
            "HostSNI(`a`) and ALPN(`b`)",
            "and",
            "`and` is no operator",
            "`&&`",
        ),
        (
            "HostSNI(`a`) OR ALPN(`b`)",
            "OR",
            "`OR` is no operator",
            "`||`",
        ),
        ("HostSNI(`a`), ALPN(`b`)", ",", "joins no matchers", "`||`"),
        (
            "HostSNI(`a`) ALPN(`b`)",
            "ALPN",
            "expected `&&`, `||` or the end",
            "`||`",
        ),
        (
            "HostSNI(`a`) == ALPN(`b`)",
            "==",
            "`==` is no operator",
            "calls matchers",
        ),
        ("HostSNI(`a`);", ";", "semicolon", "`||`"),
        (
            "HostSNI(`a`)\n  || ALPN(`b`)",
            "\n",
            "ends with this line",
            "after `&&`, `||`",
        ),
        (
            "(HostSNI(`a`)\n)",
            "\n",
            "ends with this line",
            "after `&&`, `||`",
        ),
        ("HostSNI(`a`) /* b", "/*", "comment is not closed", "*/"),
        ("HostSNI(`bücher.example`)", "ü", "not ASCII", "punycode"),
        ("HostSNI(`*com`)", "*com", "wrong place", "*.example.com"),
        (
            "HostSNI(`{a:.+}.b`)",
            "{a:.+}.b",
            "cannot hold",
            "HostSNIRegexp",
        ),
        ("HostSNI(\"a\\qb\")", "\\q", "no such escape", "backticks"),
        ("HostSNI(\"\\xg\")", "\\x", "too few digits", "\\xhh"),
        ("HostSNI(\"\\400\")", "\\400", "larger than a byte", "\\377"),
        (
            "HostSNI(\"\\ud800\")",
            "\\ud800",
            "no Unicode character",
            "backticks",
        ),
        ("HostSNI(`a\0`)", "\0", "cannot hold", "delete"),
        (
            "HostSNIRegexp(`^a(?=b)`)",
            "(?=",
            "look ahead",
            "HostSNIRegexp",
        ),
        (
            "HostSNIRegexp(\"a\\\\1\")",
            "\\\\1",
            "refers to a group",
            "again",
        ),
        ("HostSNIRegexp(`a\r\r[`)", "[", "class is not closed", "`]`"),
        ("HostSNIRegexp(`é`)", "é", "not ASCII", "punycode"),
        (
            "ClientIP(`10.0.0.0/33`)",
            "10.0.0.0/33",
            "from 0 to 32",
            "10.0.0.0/8",
        ),
        (
            "ALPN(`acme-tls/1`)",
            "acme-tls/1",
            "certificate authority",
            "RFC 8737",
        ),
    ] {
        let error = Rule::parse(text).unwrap_err();
        let help = error.help.as_deref().unwrap_or_default();
        assert_eq!(&text[error.span.clone()], at, "{text:?}: {error:?}");
        assert!(error.message.contains(says), "{text:?}: {error:?}");
        assert!(help.contains(helps), "{text:?}: {error:?}");
        assert!(
            !error.message.starts_with(char::is_uppercase) || error.message.starts_with("Go"),
            "{error:?}"
        );
    }
}

#[test]
fn a_rule_too_long_or_too_deep_is_refused_before_it_costs_anything() {
    for text in [
        "!".repeat(1_000_000),
        "(".repeat(1_000_000),
        "HostSNI(`a`)||".repeat(100_000),
    ] {
        let error = Rule::parse(&text).unwrap_err();
        assert!(error.message.contains("bytes long"), "{error:?}");
    }
    let groups = |depth: usize| "(".repeat(depth) + "HostSNI(`a`)" + &")".repeat(depth);
    assert!(takes(&groups(100), "a"));
    assert!(
        Rule::parse(&groups(101))
            .unwrap_err()
            .message
            .contains("more than 100 deep")
    );
    assert!(
        Rule::parse(&"(".repeat(60_000))
            .unwrap_err()
            .message
            .contains("more than 100 deep")
    );
    assert!(takes(&("!".repeat(60_000) + "HostSNI(`a`)"), "a"));
    assert!(!takes(&("!".repeat(60_001) + "HostSNI(`a`)"), "a"));
    let large = r"HostSNIRegexp(`\w{999}`)||".repeat(20) + "HostSNI(`a`)";
    let error = Rule::parse(&large).unwrap_err();
    assert!(error.message.contains("regular expressions are too large"));
    assert_eq!(&large[error.span], r"\w{999}");
    assert!(takes(
        &("HostSNI(`b`)||".repeat(4000) + "HostSNI(`a`)"),
        "a"
    ));
}

#[test]
fn what_is_legal_and_can_never_match_is_told() {
    for (text, at, says) in [
        ("HostSNI(`10.0.0.1`)", "10.0.0.1", "is an IP address"),
        (
            "HostSNI(`a.example.com:443`)",
            "a.example.com:443",
            "without a port",
        ),
        ("HostSNI(`*.a..b`)", "*.a..b", "empty label"),
        (
            "HostSNIRegexp(`^WWW\\.`)",
            "W",
            "no character of a host name",
        ),
    ] {
        let warnings = rule(text).warnings();
        assert_eq!(warnings.len(), 1, "{text}: {warnings:?}");
        assert_eq!(&text[warnings[0].span.clone()], at);
        assert!(warnings[0].message.contains(says), "{warnings:?}");
    }
    let long = format!("ALPN(`{}`)", "a".repeat(256));
    assert_eq!(rule(&long).warnings().len(), 1);
    assert_eq!(
        rule("HostSNI(`a`) && ALPN(`h2`) && HostSNIRegexp(`^a`)").warnings(),
        vec![]
    );
}
