//! What rules take, refuse and promise, held to Traefik's own answers.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use serde::Deserialize;

use super::*;

mod mistakes;
mod properties;

fn rule(text: &str) -> Rule {
    Rule::parse(text).unwrap_or_else(|error| panic!("{text}: {error:?}"))
}

fn v2_rule(text: &str) -> Rule {
    Rule::parse_within(text, Syntax::V2, &mut Room::default())
        .unwrap_or_else(|error| panic!("{text}: {error:?}"))
}

fn name(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

/// Whether a rule takes a client that names `host` (none if empty), from 192.0.2.1, without ALPN.
fn takes(text: &str, host: &str) -> bool {
    let name = HostName::parse(host).ok();
    let client = [192, 0, 2, 1].into();
    rule(text).matches(&Facts {
        name: name.as_ref(),
        client,
        alpn: &[],
        wildcard: WildcardDepth::One,
    })
}

#[derive(Deserialize)]
struct Clients {
    names: Vec<String>,
    clients: Vec<IpAddr>,
    alpn: Vec<Vec<String>>,
}

#[derive(Deserialize)]
struct Answer {
    rule: String,
    /// `None` if Traefik refuses the rule.
    priority: Option<i64>,
    /// A digit for each name, client and ALPN, the last of which changes fastest.
    #[serde(default)]
    matches: String,
}

/// The answers are those of Traefik 3.7.9's pkg/muxer/tcp, pkg/rules and pkg/ip, built with Go 1.26.8.
#[test]
fn every_rule_is_taken_refused_ranked_and_matched_as_traefik_does() {
    let table = include_str!("../../../tests/data/rules/traefik.jsonl");
    assert!(is_as_traefik_says(table, Syntax::V3) > 600);
}

/// The table was made by tests/data/rules/v2.go with Traefik 3.7.13 and Go 1.26.8.
#[test]
fn every_rule_of_syntax_v2_is_taken_refused_ranked_and_matched_as_traefik_does() {
    let table = include_str!("../../../tests/data/rules/traefik_v2.jsonl");
    assert!(is_as_traefik_says(table, Syntax::V2) > 600);
}

/// Compares all answers, and says how many there are.
fn is_as_traefik_says(table: &str, syntax: Syntax) -> usize {
    let mut lines = table.lines();
    let clients: Clients = serde_json::from_str(lines.next().unwrap()).unwrap();
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in lines {
        let traefik: Answer = serde_json::from_str(line).unwrap();
        let ours = Rule::parse_within(&traefik.rule, syntax, &mut Room::default());
        let priority = ours.as_ref().ok().map(Rule::priority);
        let matches = ours
            .as_ref()
            .map(|rule| answers(rule, &clients))
            .unwrap_or_default();
        if (priority, &matches) != (traefik.priority, &traefik.matches) {
            wrong.push(format!(
                "{:?}: {priority:?} {matches} {:?}\n    {line}",
                traefik.rule,
                ours.err()
            ));
        }
        count += 1;
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    count
}

fn answers(rule: &Rule, clients: &Clients) -> String {
    let mut answers = String::new();
    for name in &clients.names {
        let name = HostName::parse(name).ok();
        for &client in &clients.clients {
            for alpn in &clients.alpn {
                let alpn: Vec<_> = alpn
                    .iter()
                    .map(|protocol| protocol.clone().into_bytes())
                    .collect();
                let facts = Facts {
                    name: name.as_ref(),
                    client,
                    alpn: &alpn,
                    wildcard: WildcardDepth::One,
                };
                answers.push(if rule.matches(&facts) { '1' } else { '0' });
            }
        }
    }
    answers
}

#[test]
fn a_wildcard_follows_the_depth_of_the_listener() {
    let deep = name("a.b.example.com");
    let rule = rule("HostSNI(`*.example.com`)");
    let facts = Facts {
        name: Some(&deep),
        client: [192, 0, 2, 1].into(),
        alpn: &[],
        wildcard: WildcardDepth::One,
    };
    assert!(!rule.matches(&facts));
    assert!(rule.matches(&Facts {
        wildcard: WildcardDepth::Many,
        ..facts
    }));
}

#[test]
fn protocols_that_are_not_text_are_compared_byte_by_byte() {
    let offered = [b"\xff\x00".to_vec()];
    let facts = Facts {
        name: None,
        client: [192, 0, 2, 1].into(),
        alpn: &offered,
        wildcard: WildcardDepth::One,
    };
    assert!(rule(r#"ALPN("\xff\000")"#).matches(&facts));
    assert!(!rule(r#"ALPN("\xff")"#).matches(&facts));
}

#[test]
fn a_rule_from_a_pattern_is_the_rule_of_its_text() {
    for pattern in ["*", "A.example.com", "*.example.com.", "10.0.0.1"] {
        let made = Rule::host(HostPattern::parse(pattern).unwrap());
        let read = rule(made.text());
        assert_eq!(made, read);
        assert_eq!(made.keys(), read.keys());
        assert_eq!(made.priority(), read.priority());
    }
    assert_eq!(
        Rule::host(HostPattern::parse("A.b.").unwrap()).to_string(),
        "HostSNI(`a.b`)"
    );
}

#[test]
fn a_rule_stands_in_the_index_under_the_narrowest_keys_that_hold_it() {
    let exact = |text: &str| Key::Exact(name(text));
    let wildcard = |text: &str| Key::Wildcard(name(text));
    for (text, keys) in [
        ("HostSNI(`a.b`)", vec![exact("a.b")]),
        ("HostSNI(`*.b`)", vec![wildcard("b")]),
        ("HostSNI(`*`)", vec![Key::Any]),
        ("HostSNI(`1.2.3.4`)", vec![]),
        ("!HostSNI(`*`)", vec![]),
        ("!HostSNI(`a`)", vec![Key::Any]),
        ("!!HostSNI(`a`)", vec![exact("a")]),
        ("HostSNIRegexp(`a`)", vec![Key::Regexp]),
        ("ALPN(`h2`)", vec![Key::Any]),
        (
            "HostSNI(`c`) || HostSNI(`*.b`) || HostSNI(`C`)",
            vec![exact("c"), wildcard("b")],
        ),
        (
            "HostSNI(`*.b`) && HostSNIRegexp(`a`) && ALPN(`h2`)",
            vec![wildcard("b")],
        ),
        (
            "HostSNI(`*`) && (HostSNI(`a`) || HostSNI(`b`))",
            vec![exact("a"), exact("b")],
        ),
        ("!(!HostSNI(`a`) || ClientIP(`::1`))", vec![exact("a")]),
        ("HostSNI(`a`) || ALPN(`h2`)", vec![exact("a"), Key::Any]),
    ] {
        assert_eq!(rule(text).keys(), keys, "{text}");
    }
}

#[test]
fn a_rule_covers_a_key_only_if_it_takes_every_client_there() {
    let wildcard = Key::Wildcard(name("b.c"));
    let exact = Key::Exact(name("a.b.c"));
    for (text, key, covers) in [
        ("HostSNI(`*`)", &Key::Any, true),
        ("HostSNI(`*`) && ALPN(`h2`)", &Key::Any, false),
        ("HostSNI(`*`) || ALPN(`h2`)", &Key::Regexp, true),
        ("HostSNIRegexp(`.*`)", &Key::Regexp, false),
        ("HostSNIRegexp(`^a`)", &exact, true),
        ("HostSNIRegexp(`^a`)", &wildcard, false),
        ("HostSNIRegexp(`.+`)", &wildcard, true),
        ("HostSNIRegexp(`.+`)", &Key::Any, false),
        ("HostSNI(`*.b.c`)", &exact, true),
        ("HostSNI(`*.b.c`)", &wildcard, true),
        ("HostSNI(`*.c`)", &wildcard, false),
        ("HostSNI(`*.c`)", &exact, false),
        ("HostSNI(`a.b.c`)", &wildcard, false),
        ("!HostSNI(`a`)", &wildcard, true),
        ("!HostSNI(`a.b.c`)", &wildcard, false),
        ("HostSNI(`a.b.c`) && !ClientIP(`::1`)", &exact, false),
    ] {
        assert_eq!(rule(text).covers(key), covers, "{text} and {key:?}");
    }
    for (text, unconditional) in [
        ("HostSNI(`a`) || HostSNI(`*.b`)", true),
        ("HostSNI(`a`) && ALPN(`h2`)", false),
        ("HostSNI(`a`) || HostSNIRegexp(`b`)", false),
        ("HostSNI(`1.2.3.4`)", false),
    ] {
        assert_eq!(rule(text).is_unconditional(), unconditional, "{text}");
    }
}

#[test]
fn a_default_route_is_one_that_can_take_a_client_without_a_name() {
    for (text, default) in [
        ("HostSNI(`*`)", true),
        ("HostSNI(`a`)", false),
        ("!HostSNI(`a`)", true),
        ("HostSNIRegexp(`^a?$`)", true),
        ("HostSNIRegexp(`^.+$`)", false),
        ("HostSNI(`a`) || HostSNI(`*`)", true),
        ("HostSNI(`a`) || ALPN(`h2`)", true),
        ("HostSNI(`a`) && ALPN(`h2`)", false),
        ("ClientIP(`10.0.0.0/8`)", true),
        ("!ClientIP(`10.0.0.0/8`) && HostSNI(`*`)", true),
    ] {
        assert_eq!(rule(text).is_default(), default, "{text}");
    }
}

#[test]
fn a_rule_that_takes_whatever_is_named_is_known_by_names_that_nobody_has() {
    for (text, any) in [
        ("HostSNIRegexp(`.+`)", true),
        ("HostSNIRegexp(`^[a-z0-9-]+\\.[a-z0-9.-]+$`)", true),
        ("HostSNIRegexp(`^[^.]+\\.[^.]+\\.[^.]+$`)", true),
        ("HostSNIRegexp(`.`) && !HostSNI(`a`) && ALPN(`ssh`)", true),
        ("HostSNI(`*`)", true),
        ("HostSNI(`a`) || HostSNIRegexp(`^.{4,}$`)", true),
        ("HostSNI(`*.com`)", false),
        ("HostSNIRegexp(`^vm-`)", false),
        ("HostSNIRegexp(`\\.example\\.(com|net|org)$`)", false),
        (
            "HostSNIRegexp(`.+`) && HostSNIRegexp(`\\.example\\.com$`)",
            false,
        ),
        ("HostSNI(`a`) && ALPN(`ssh`)", false),
    ] {
        assert_eq!(rule(text).takes_any_name(), any, "{text}");
    }
    assert!(v2_rule("HostSNIRegexp(`{any:.+}`)").takes_any_name());
    assert!(!v2_rule("HostSNIRegexp(`{any:.+}.example.com`)").takes_any_name());
}

#[test]
fn rules_of_one_text_and_two_syntaxes_are_two_rules() {
    let (v2, v3) = (
        v2_rule("HostSNIRegexp(`a.b`)"),
        rule("HostSNIRegexp(`a.b`)"),
    );
    assert_ne!(v2, v3);
    assert_eq!(v2.to_string(), v3.to_string());
}

#[test]
fn rules_of_one_owner_share_a_room_for_their_texts() {
    let long = ["HostSNI(`a.b`)"; 3000].join(" || ");
    let mut room = Room::default();
    let taken = (0..100).take_while(|_| Rule::parse_within(&long, Syntax::V3, &mut room).is_ok());
    assert_eq!(taken.count(), (1 << 20) / long.len());
    let error = Rule::parse_within(&long, Syntax::V3, &mut room).unwrap_err();
    assert!(error.message.contains("too long together"), "{error:?}");
    assert!(Rule::parse_within("HostSNI(`a.b`)", Syntax::V3, &mut room).is_ok());
}
