//! `HostSNIRegexp` in syntax v2: a template such as `{label:[a-z]+}.example.com`, made a regular expression of Go's.

use std::ops::Range;

use super::RuleError;
use super::lex::Literal;

/// The regular expression that a template stands for, and where each of its bytes comes from.
///
/// As Traefik makes it (`preparePattern` in pkg/muxer/tcp/matcher_v2.go): what stands outside of braces is literal,
/// `{name}` is one label, `{name:regexp}` what the regular expression takes; all of it, in any case.
#[derive(Debug)]
pub(super) struct HostTemplate {
    pub(super) pattern: String,
    /// For each byte of the pattern, the byte of the template that it was made from.
    origins: Vec<usize>,
    /// The length of the template.
    length: usize,
}

impl HostTemplate {
    /// Reads the argument of a matcher: `text`, which is ASCII, as it stands in `argument`.
    pub(super) fn parse(text: &str, argument: &Literal) -> Result<Self, RuleError> {
        let mut template = Self {
            pattern: String::new(),
            origins: Vec::new(),
            length: text.len(),
        };
        template.push("(?i)^", 0);
        let mut end = 0;
        let braces = braces(text);
        let braces = braces.map_err(|at| {
            let message = "the braces are not balanced";
            RuleError::new(argument.span(at..at + 1), message, HELP)
        })?;
        for (index, span) in braces.into_iter().enumerate() {
            template.push_literal(text, end..span.start);
            let inner = text.get(span.start + 1..span.end - 1).unwrap_or_default();
            let (name, regexp) = match inner.split_once(':') {
                Some((name, regexp)) => (name, regexp),
                None => (inner, LABEL),
            };
            if name.is_empty() || regexp.is_empty() {
                let what = if name.is_empty() {
                    "name"
                } else {
                    "regular expression"
                };
                let message = format!("the braces hold no {what}");
                return Err(RuleError::new(argument.span(span), message, HELP));
            }
            template.push(&format!("(?P<v{index}>"), span.start);
            if inner.len() == name.len() {
                template.push(regexp, span.start);
            } else {
                template.push_written(text, span.start + 2 + name.len()..span.end - 1);
            }
            template.push(")", span.end - 1);
            end = span.end;
        }
        template.push_literal(text, end..text.len());
        template.push("$", text.len());
        Ok(template)
    }

    /// Where in the template these bytes of the pattern come from: at least one byte of it.
    pub(super) fn span(&self, bytes: Range<usize>) -> Range<usize> {
        let origin = |index: usize| self.origins.get(index).copied().unwrap_or(self.length);
        let start = origin(bytes.start).min(self.length.saturating_sub(1));
        start..origin(bytes.end).max(start + 1)
    }

    /// Text that all comes from one byte of the template.
    fn push(&mut self, text: &str, origin: usize) {
        self.pattern.push_str(text);
        self.origins.resize(self.pattern.len(), origin);
    }

    /// A part of the template as it stands.
    fn push_written(&mut self, text: &str, span: Range<usize>) {
        self.pattern
            .push_str(text.get(span.clone()).unwrap_or_default());
        self.origins.extend(span);
    }

    /// A part of the template, to be matched as it stands.
    fn push_literal(&mut self, text: &str, span: Range<usize>) {
        for at in span {
            if text.get(at..=at).is_some_and(|c| SPECIAL.contains(c)) {
                self.push("\\", at);
            }
            self.push_written(text, at..at + 1);
        }
    }
}

/// What `{name}` stands for.
const LABEL: &str = "[^.]+";

/// What Go's `regexp.QuoteMeta` escapes.
const SPECIAL: &str = r"\.+*?()|[]{}^$";

const HELP: &str = "write {name} for one label or {name:regexp}, as in HostSNIRegexp(`{vm:[a-z0-9-]+}.example.com`)";

/// Where the outermost braces stand, each with what is in them; or where one is too many.
fn braces(text: &str) -> Result<Vec<Range<usize>>, usize> {
    let mut open = Vec::new();
    let mut found = Vec::new();
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => open.push(at),
            b'}' => {
                let start = open.pop().ok_or(at)?;
                if open.is_empty() {
                    found.push(start..at + 1);
                }
            }
            _ => {}
        }
    }
    match open.first() {
        Some(&at) => Err(at),
        None => Ok(found),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::rule::{Room, Rule, Syntax};

    fn rule(template: &str) -> Result<Rule, RuleError> {
        let text = format!("HostSNIRegexp(`{template}`)");
        Rule::parse_within(&text, Syntax::V2, &mut Room::default())
    }

    #[test]
    fn a_template_is_literal_but_for_its_braces() {
        for (text, pattern) in [
            ("a.b", r"(?i)^a\.b$"),
            ("{a}", "(?i)^(?P<v0>[^.]+)$"),
            (
                "{a:.+}.x-{b}{c:[a-z]{2}}",
                r"(?i)^(?P<v0>.+)\.x-(?P<v1>[^.]+)(?P<v2>[a-z]{2})$",
            ),
            ("{a:b:c}", "(?i)^(?P<v0>b:c)$"),
            ("^(a|b)?$", r"(?i)^\^\(a\|b\)\?\$$"),
        ] {
            let template = HostTemplate::parse(text, &Literal::default()).unwrap();
            assert_eq!(template.pattern, pattern, "{text}");
            assert_eq!(template.origins.len(), pattern.len(), "{text}");
        }
    }

    #[test]
    fn a_mistake_in_a_template_is_shown_where_it_was_written() {
        for (template, at, says) in [
            ("a.{b", "{", "not balanced"),
            ("a}.b", "}", "not balanced"),
            ("{a:{b}", "{", "not balanced"),
            ("x{}", "{}", "no name"),
            ("{:a}", "{:a}", "no name"),
            ("y{a:}z", "{a:}", "no regular expression"),
            ("x.{a:[z-a]}", "z-a", "backwards"),
            ("x.{a:b**}", "*", "follows another"),
            ("x{a:(b}", "{", "not closed"),
            ("x{a:b)}y", "}", "closes no group"),
            ("x{a:(?=b)}", "(?=", "look ahead"),
        ] {
            let error = rule(template).unwrap_err();
            assert!(error.message.contains(says), "{template}: {error:?}");
            let text = format!("HostSNIRegexp(`{template}`)");
            assert_eq!(&text[error.span], at, "{template}");
        }
    }

    #[test]
    fn what_a_template_can_never_match_is_told() {
        for (template, at) in [
            ("a_b.{x:[0-9]+}", None),
            ("^a.b", Some("^")),
            ("{x:b c}", Some(" ")),
        ] {
            let warnings = rule(template).unwrap().warnings();
            let text = format!("HostSNIRegexp(`{template}`)");
            let told = warnings.first().map(|warning| &text[warning.span.clone()]);
            assert_eq!(told, at, "{template}: {warnings:?}");
        }
    }
}
