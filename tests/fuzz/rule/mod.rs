//! What a rule promises, whatever its text.

use std::time::{Duration, Instant};

use portcullis::name::{HostName, WildcardDepth};
use portcullis::rule::{Facts, Room, Rule, RuleError, Syntax};

/// Far more than any text may take: what is slower than that grows with more than the length of the text.
const LONGEST: Duration = Duration::from_secs(10);

/// Parses the input in either syntax, and panics where a promise is not kept:
///
/// - a mistake has its place in the text, a message and a remedy;
/// - a rule that was taken is shown as it was written, and is the same rule when it is read again;
/// - it can be asked for every client, and who is covered by a key for sure is matched;
/// - all of it ends soon.
pub(crate) fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if std::env::var_os("PORTCULLIS_TELL").is_some() {
        eprintln!("{text}");
    }
    let begin = Instant::now();
    for syntax in [Syntax::V3, Syntax::V2] {
        match read(&text, syntax) {
            Err(error) => {
                is_in(&error, &text);
                assert!(error.help.is_some_and(|help| !help.is_empty()), "{text:?}");
            }
            Ok(rule) => is_kept(&rule, &text),
        }
    }
    assert!(
        begin.elapsed() < LONGEST,
        "{:?} for {text:?}",
        begin.elapsed()
    );
}

fn read(text: &str, syntax: Syntax) -> Result<Rule, RuleError> {
    Rule::parse_within(text, syntax, &mut Room::default())
}

fn is_kept(rule: &Rule, text: &str) {
    assert_eq!(rule.to_string(), text);
    let again = read(&rule.to_string(), rule.syntax()).unwrap();
    assert_eq!(again, *rule, "{text:?}");
    assert_eq!(again.keys(), rule.keys(), "{text:?}");
    assert_eq!(again.priority(), rule.priority(), "{text:?}");
    assert_eq!(again.is_default(), rule.is_default(), "{text:?}");
    assert_eq!(again.takes_any_name(), rule.takes_any_name(), "{text:?}");
    for warning in rule.warnings() {
        is_in(&warning, text);
    }
    let keys = rule.keys();
    for name in [
        None,
        Some("a.example.com"),
        Some("example.com"),
        Some("localhost"),
    ] {
        let name = name.map(|name| HostName::parse(name).unwrap());
        for client in ["10.1.2.3", "2001:db8::1"] {
            for wildcard in [WildcardDepth::One, WildcardDepth::Many] {
                for alpn in [&[][..], &[b"h2".to_vec()]] {
                    let client = client.parse().unwrap();
                    let facts = Facts {
                        name: name.as_ref(),
                        client,
                        alpn,
                        wildcard,
                    };
                    let matches = rule.matches(&facts);
                    let mut own = keys
                        .iter()
                        .filter(|key| key.covers(name.as_ref(), wildcard));
                    assert!(
                        matches || own.clone().all(|key| !rule.covers(key)),
                        "{text:?} {facts:?}"
                    );
                    assert!(
                        !matches || own.next().is_some(),
                        "{text:?} is not found for {facts:?}"
                    );
                    assert!(name.is_some() || !matches || rule.is_default(), "{text:?}");
                }
            }
        }
    }
}

fn is_in(error: &RuleError, text: &str) {
    assert!(
        text.get(error.span.clone()).is_some(),
        "{error:?} is not in {text:?}"
    );
    assert!(!error.message.is_empty(), "{text:?}");
}
