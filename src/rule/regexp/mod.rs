//! `HostSNIRegexp`: Go's regular expressions, said again in the few constructs that Rust's share with them.

use std::ops::Range;

use regex::bytes::{Regex, RegexBuilder};

mod atom;
mod group;
mod set;
mod translate;

use translate::{MOST_NESTED, translate};

/// A compiled regular expression.
///
/// Every pattern is parsed as Go parses it (`regexp/syntax`, Go 1.26) and written anew with hexadecimal classes, groups,
/// repetitions and anchors only, so that no difference between the two syntaxes can change what a route takes.
#[derive(Clone, Debug)]
pub(super) struct Regexp {
    regex: Regex,
    matches_nothing: bool,
    matches_every_name: bool,
}

/// What is wrong with a pattern, or doubtful in it; `span` counts bytes of the pattern.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fault {
    pub(super) span: Range<usize>,
    pub(super) message: String,
    pub(super) help: &'static str,
}

impl Regexp {
    /// Compiles a pattern, and takes its size from the `room` that the rule has left.
    ///
    /// The faults beside it are parts that can never match a host name.
    pub(super) fn parse(pattern: &str, room: &mut usize) -> Result<(Self, Vec<Fault>), Fault> {
        let (node, faults) = translate(pattern)?;
        let too_large = |message: String| Fault {
            span: 0..pattern.len(),
            message,
            help: "repeat less, or split the rule into several routes",
        };
        let Some(left) = room.checked_sub(node.size) else {
            return Err(too_large(
                "the rule's regular expressions are too large".to_owned(),
            ));
        };
        *room = left;
        let nest_limit = 4 * MOST_NESTED as u32;
        let built = RegexBuilder::new(&node.text)
            .unicode(false)
            .nest_limit(nest_limit)
            .build();
        let regex = built.map_err(|error| {
            too_large(format!("the regular expression cannot be used: {error}"))
        })?;
        let matches_nothing = regex.is_match(b"");
        Ok((
            Self {
                regex,
                matches_nothing,
                matches_every_name: EVERY_NAME.contains(&pattern),
            },
            faults,
        ))
    }

    /// Whether it certainly matches in every name.
    pub(super) fn matches_every_name(&self) -> bool {
        self.matches_every_name
    }

    /// Whether it matches anywhere in the name; in the empty text, if there is none.
    pub(super) fn matches(&self, name: Option<&str>) -> bool {
        match name {
            Some(name) => self.regex.is_match(name.as_bytes()),
            None => self.matches_nothing,
        }
    }
}

/// The usual ways to write what every name matches; there are others, which are not known for it.
const EVERY_NAME: [&str; 9] = [".", ".+", ".*", "^.+", "^.*", ".+$", ".*$", "^.+$", "^.*$"];

/// The ranges of characters that all regular expressions of one rule may compile to, repetitions written out: room for
/// 3,000 host names joined by `|`, and some megabytes at most for what a stranger's tag asks for.
pub(super) const ROOM: usize = 1 << 16;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn compile(pattern: &str) -> Result<(Regexp, Vec<Fault>), Fault> {
        Regexp::parse(pattern, &mut { ROOM })
    }

    fn refusal(pattern: &str) -> Fault {
        compile(pattern).map(|_| ()).unwrap_err()
    }

    /// The names and the table were made by tests/data/rules/regexp.go with Go 1.26.8.
    #[test]
    fn every_pattern_matches_what_go_matches_or_is_refused() {
        let names: Vec<String> =
            serde_json::from_str(include_str!("../../../tests/data/rules/names.json")).unwrap();
        let mut wrong = Vec::new();
        let table = include_str!("../../../tests/data/rules/regexp.jsonl");
        for line in table.lines() {
            let (pattern, go): (String, String) = serde_json::from_str(line).unwrap();
            let ours = match compile(&pattern) {
                Ok((regexp, _)) => names
                    .iter()
                    .map(|name| regexp.matches(Some(name.as_str()).filter(|name| !name.is_empty())))
                    .map(|matched| if matched { '1' } else { '0' })
                    .collect(),
                Err(fault) => {
                    assert!(
                        pattern.get(fault.span.clone()).is_some(),
                        "{pattern:?}: {fault:?}"
                    );
                    assert!(!fault.span.is_empty(), "{pattern:?}: {fault:?}");
                    String::new()
                }
            };
            let script = [r"\p{Greek}", r"\P{Greek}", r"\p{Han}"].contains(&pattern.as_str());
            if ours != if script { String::new() } else { go.clone() } {
                wrong.push(format!("{pattern:?}: Go {go:?}, ours {ours:?}"));
            }
        }
        assert!(table.lines().count() > 1000);
        assert!(
            wrong.is_empty(),
            "{} wrong:\n{}",
            wrong.len(),
            wrong.join("\n")
        );
    }

    #[test]
    fn what_go_does_not_have_is_refused_by_name_and_place() {
        for (pattern, at, says) in [
            ("^(?=a)", "(?=", "look ahead"),
            ("(?!a)", "(?!", "look ahead"),
            ("(?<=a)b", "(?<=", "look behind"),
            ("b(?<!a)b", "(?<!", "look behind"),
            ("(?>a)", "(?>", "atomic"),
            ("(?x) a", "(?x", "have no `(?x`"),
            ("(?u)a", "(?u", "have no `(?u`"),
            ("a(?#b)", "(?#", "comments"),
            ("(?P=n)", "(?P", "refer to a group"),
            (r"(a)\1", r"\1", "refers to a group"),
            (r"a\Z", r"\Z", r"have no `\Z`"),
            (r"a\C", r"\C", r"have no `\C`"),
            (r"\p{Greek}+", r"\p{Greek}", "not known"),
            ("a{1001}", "{1001}", "more than 1000"),
            ("(a{50}){50}", "{50}", "more than 1000"),
            ("a{3,2}", "{3,2}", "fewer"),
            ("ab**", "*", "follows another"),
            ("a*+", "+", "follows another"),
            ("(*a)", "*", "nothing that `*` could repeat"),
            ("[z-a]", "z-a", "backwards"),
            ("a[b", "[", "not closed"),
            ("a(b", "(", "not closed"),
            ("a)b", ")", "closes no group"),
            ("[[:foo:]]", "[:foo:]", "no class"),
            (r"a\", r"\", "escapes nothing"),
            (r"\x{110000}", r"\x{110000}", "no character"),
        ] {
            let fault = refusal(pattern);
            assert!(
                fault.message.contains(says),
                "{pattern} says {:?}",
                fault.message
            );
            assert_eq!(&pattern[fault.span], at, "{pattern}");
        }
    }

    #[test]
    fn a_pattern_that_would_take_too_much_memory_or_stack_is_refused() {
        let deep = "(".repeat(10_000);
        assert!(refusal(&deep).message.contains("nested more than 100 deep"));
        let fine = "(".repeat(100) + "a" + &")".repeat(100);
        assert!(compile(&fine).is_ok());
        let large = r"(?:\w{1000}|\d{999})".repeat(1000);
        assert!(refusal(&large).message.contains("too large"));
        let names: Vec<_> = (0..3000)
            .map(|n| format!(r"vm-{n}\.example\.com"))
            .collect();
        assert!(compile(&format!("^({})$", names.join("|"))).is_ok());
    }

    #[test]
    fn what_can_never_match_a_host_name_is_told() {
        for (pattern, at, helps) in [
            ("^WWW\\.", "W", "lower case"),
            ("^[A-Z]+$", "[A-Z]", "lower case"),
            ("a(?:b|Cd)", "C", "lower case"),
            ("example.com:8443", ":", "without a port"),
            ("a b", " ", "ASCII letters"),
            (r"a\n?\x{e9}", r"\x{e9}", "ASCII letters"),
        ] {
            let (_, faults) = compile(pattern).unwrap();
            assert_eq!(faults.len(), 1, "{pattern}: {faults:?}");
            assert_eq!(&pattern[faults[0].span.clone()], at, "{pattern}");
            assert!(faults[0].help.contains(helps), "{pattern}: {faults:?}");
        }
        for pattern in ["(?i)WWW", "a[A-Za-z]", "aB?", "a(B*)c", "^$", ".*", "(|A)"] {
            let (_, faults) = compile(pattern).unwrap();
            assert_eq!(
                faults.len(),
                usize::from(pattern == "(|A)"),
                "{pattern}: {faults:?}"
            );
        }
    }
}
