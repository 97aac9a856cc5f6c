//! What holds of every rule and of every text, tried on random ones.

use proptest::prelude::*;

use super::*;

/// A rule that parses, as text.
fn rules() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(NAMES).prop_map(|name| format!("HostSNI(`{name}`)")),
        prop::sample::select(NAMES).prop_map(|name| format!("HostSNI(`*.{name}`)")),
        prop::sample::select(
            &[
                "HostSNI(`*`)",
                "HostSNI(`1.2.3.4`)",
                "ALPN(`h2`)",
                "ALPN(`ssh`)"
            ][..]
        )
        .prop_map(String::from),
        prop::sample::select(&["a", "^b", "^$", ".*", "^[a-b.]+$", "c$"][..])
            .prop_map(|re| format!("HostSNIRegexp(`{re}`)")),
        prop::sample::select(&["10.0.0.0/8", "::/0", "::ffff:10.0.0.1"][..])
            .prop_map(|net| format!("ClientIP(`{net}`)")),
    ];
    leaf.prop_recursive(5, 24, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|rule| format!("!({rule})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) && {b}")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("{a} || ({b})")),
        ]
    })
}

const NAMES: &[&str] = &["a", "b", "a.b", "b.b", "c.a.b", "a.b.c", "b.c", "c"];

/// A rule in syntax v2, as text, and one in v3 that means the same.
fn in_both() -> impl Strategy<Value = (String, String)> {
    let call = |matcher: &'static str, v2: Vec<String>, v3: Vec<String>| {
        let quoted = |text: &String| format!("`{text}`");
        let args: Vec<String> = v2.iter().map(quoted).collect();
        let calls = v3.iter().enumerate().map(|(at, text)| match &**text {
            "*" if at > 0 => "HostSNIRegexp(`.`)".to_owned(),
            text => format!("{matcher}(`{text}`)"),
        });
        let calls: Vec<String> = calls.collect();
        (
            format!("{matcher}({})", args.join(", ")),
            format!("({})", calls.join(" || ")),
        )
    };
    let some = |texts: &'static [&'static str]| {
        prop::collection::vec(prop::sample::select(texts).prop_map(str::to_owned), 1..4)
    };
    let hosts = prop_oneof![4 => some(NAMES), 1 => some(&["*", "a", "1.2.3.4"])];
    let templates = prop::collection::vec(
        prop::sample::select(
            &[
                ("a.b", r"(?i)^a\.b$"),
                ("{x}", "(?i)^[^.]+$"),
                ("{x:[A-B.]+}", "(?i)^[A-B.]+$"),
                ("{x:.*}", "(?i)^.*$"),
                ("{x:c|a}.{y}", r"(?i)^(c|a)\.[^.]+$"),
                ("A{y:(\\.[a-c]){1,2}}", r"(?i)^A(\.[a-c]){1,2}$"),
            ][..],
        ),
        1..4,
    );
    let leaf = prop_oneof![
        hosts.prop_map(move |texts| call("HostSNI", texts.clone(), texts)),
        some(&["10.0.0.0/8", "::/0", "192.0.2.1"]).prop_map(move |texts| call(
            "ClientIP",
            texts.clone(),
            texts
        )),
        some(&["h2", "ssh"]).prop_map(move |texts| call("ALPN", texts.clone(), texts)),
        templates.prop_map(move |both| {
            let (v2, v3): (Vec<_>, Vec<_>) = both.into_iter().unzip();
            let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
            call("HostSNIRegexp", owned(v2), owned(v3))
        }),
    ];
    leaf.prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            inner
                .clone()
                .prop_map(|(v2, v3)| (format!("!({v2})"), format!("!({v3})"))),
            inner
                .clone()
                .prop_map(|(v2, v3)| (format!("!{v2}"), format!("!{v3}"))),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| (
                format!("({}) && ({})", a.0, b.0),
                format!("({}) && ({})", a.1, b.1)
            )),
            (inner.clone(), inner).prop_map(|(a, b)| (
                format!("{} || ({})", a.0, b.0),
                format!("{} || ({})", a.1, b.1)
            )),
        ]
    })
}

/// A client as `rules` can tell it from others.
#[derive(Debug)]
struct Client {
    name: Option<HostName>,
    address: IpAddr,
    alpn: Vec<Vec<u8>>,
    wildcard: WildcardDepth,
}

impl Client {
    fn all() -> Vec<Client> {
        let mut clients = Vec::new();
        let names = NAMES.iter().map(|text| Some(name(text)));
        for name in std::iter::once(None).chain(names) {
            for address in ["10.0.0.1", "10.0.0.2", "192.0.2.1", "2001:db8::1"] {
                for alpn in [&[][..], &["h2"], &["x", "ssh", "h2"]] {
                    for wildcard in [WildcardDepth::One, WildcardDepth::Many] {
                        clients.push(Client {
                            name: name.clone(),
                            address: address.parse().unwrap(),
                            alpn: alpn
                                .iter()
                                .map(|protocol| protocol.as_bytes().to_vec())
                                .collect(),
                            wildcard,
                        });
                    }
                }
            }
        }
        clients
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            name: self.name.as_ref(),
            client: self.address,
            alpn: &self.alpn,
            wildcard: self.wildcard,
        }
    }
}

/// Words of rules in no order, so that some nearly parse.
fn soup() -> impl Strategy<Value = String> {
    let words = &[
        "HostSNI(`a`)",
        "HostSNI",
        "hostsniregexp(\"a\")",
        "ClientIP(`::1`)",
        "ALPN",
        "Host",
        "(",
        ")",
        "!",
        "&&",
        "||",
        "&",
        ",",
        "`",
        "\"",
        "'",
        "\\",
        "\\x",
        "\\u00e9",
        "\n",
        "\r",
        " ",
        "//",
        "/*",
        "*/",
        "*",
        "é",
        "“",
        "\u{feff}",
        "\0",
        ".",
        "a",
        "[",
        "{",
        "(?",
        "\\Q",
        "\\p{",
        "HostSNIRegexp(`",
        "`)",
        "(\"",
        "\")",
        "=",
        ";",
        "1",
    ][..];
    prop::collection::vec(prop::sample::select(words), 0..14).prop_map(|words| words.concat())
}

fn spans_are_on_characters(text: &str) -> Result<(), TestCaseError> {
    spans_are_on_characters_in(Syntax::V3, text)?;
    spans_are_on_characters_in(Syntax::V2, text)
}

fn spans_are_on_characters_in(syntax: Syntax, text: &str) -> Result<(), TestCaseError> {
    let errors = match Rule::parse_within(text, syntax, &mut Room::default()) {
        Ok(rule) => rule.warnings(),
        Err(error) => vec![error],
    };
    for error in errors {
        prop_assert!(
            text.get(error.span.clone()).is_some(),
            "{:?} of {:?}",
            error,
            text
        );
        prop_assert!(
            !error.span.is_empty() || error.span.start == text.len(),
            "{:?} of {:?}",
            error,
            text
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]

    #[test]
    fn no_text_makes_the_parser_panic_or_point_beside_a_character(text in "\\PC*|[ -~\\n`\"]{0,40}|(?s).{0,20}") {
        spans_are_on_characters(&text)?;
    }

    #[test]
    fn no_order_of_words_makes_the_parser_panic_or_point_beside_a_character(text in soup()) {
        spans_are_on_characters(&text)?;
    }

    #[test]
    fn no_regular_expression_makes_the_parser_panic(text in "[a-cKS0-9.^$*+?(){}|\\[\\]\\\\:,<>=!#PpQExidUsm -]{0,24}") {
        spans_are_on_characters(&format!("HostSNIRegexp(`{text}`)"))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_an_index_is_told_of_a_rule_is_true(text in rules()) {
        let rule = rule(&text);
        let keys = rule.keys();
        let all_keys = NAMES.iter().flat_map(|text| [Key::Exact(name(text)), Key::Wildcard(name(text))]);
        let covered: Vec<_> = all_keys.chain([Key::Regexp, Key::Any]).filter(|key| rule.covers(key)).collect();
        for client in Client::all() {
            let (facts, depth) = (client.facts(), client.wildcard);
            if rule.matches(&facts) {
                prop_assert!(keys.iter().any(|key| key.covers(facts.name, depth)), "{:?} is not under {:?}", client, keys);
                prop_assert!(facts.name.is_some() || rule.is_default(), "{:?} is matched by no default", client);
            } else {
                let wrong = covered.iter().find(|key| key.covers(facts.name, depth));
                prop_assert!(wrong.is_none(), "{:?} is refused under {:?}", client, wrong);
                let unconditional = rule.is_unconditional() && keys.iter().any(|key| key.covers(facts.name, depth));
                prop_assert!(!unconditional, "{:?} is refused without condition", client);
            }
        }
    }

    #[test]
    fn a_rule_in_syntax_v2_is_the_one_in_v3_that_means_the_same((v2, v3) in in_both()) {
        let (v2, v3) = (v2_rule(&v2), rule(&v3));
        prop_assert_eq!(v2.keys().len(), v3.keys().len(), "{} and {}", v2, v3);
        prop_assert_eq!(v2.is_default(), v3.is_default(), "{} and {}", v2, v3);
        prop_assert_eq!(v2.takes_any_name(), v3.takes_any_name(), "{} and {}", v2, v3);
        for client in Client::all() {
            prop_assert_eq!(v2.matches(&client.facts()), v3.matches(&client.facts()), "{} and {} for {:?}", v2, v3, client);
        }
    }

    #[test]
    fn a_negated_rule_takes_exactly_the_others(text in rules()) {
        let (plain, negated) = (rule(&text), rule(&format!("!({text})")));
        for client in Client::all() {
            prop_assert!(plain.matches(&client.facts()) != negated.matches(&client.facts()));
        }
    }
}
