//! Names parsed once, then trusted: the host a client asks for, the patterns that routes claim, and who a workload is.

mod spiffe;

pub use spiffe::{MeshService, SpiffeId};

use std::borrow::Borrow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rustls_pki_types::DnsName;

/// A DNS host name in the one form in which names are compared: ASCII lower case, without a trailing dot.
///
/// What a client sends, what a rule says and what a certificate lists all become this type
/// before they meet, so that no look-up can disagree with another about what a name is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Arc<str>);

impl HostName {
    /// Parses a name, in any case, with at most one trailing dot.
    ///
    /// Accepts what a TLS server name may hold (RFC 6066 §3), as rustls judges it: labels of letters, digits,
    /// `_` and inner `-`, 1–63 bytes each, 253 bytes in all; the last label is not a number, so no IP address fits.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        // `DnsName` takes a trailing dot itself: here a second one would slip through.
        if name.ends_with('.') || DnsName::try_from(name).is_err() {
            return Err(NameError(fault(text, name)));
        }
        Ok(Self(name.to_ascii_lowercase().into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows the first label and its dot, if anything.
    pub fn parent(&self) -> Option<&str> {
        self.0.split_once('.').map(|(_, parent)| parent)
    }

    /// Whether this name is `ancestor` with one label or more before it.
    pub fn is_below(&self, ancestor: &HostName) -> bool {
        let prefix = self.0.strip_suffix(ancestor.as_str());
        prefix.is_some_and(|prefix| prefix.ends_with('.'))
    }
}

/// So that a map of names can be asked for a [parent](HostName::parent) without making a name of it.
impl Borrow<str> for HostName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How many labels a `*` stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WildcardDepth {
    /// Exactly one label, as certificates and Traefik's rules have it (RFC 6125 §6.4.3).
    #[default]
    One,
    /// One label or more, as the Gateway API has it.
    Many,
}

/// What a rule or a certificate claims: one name, or every name below one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `*`: every name, and no name at all.
    Any,
    /// One name.
    Exact(HostName),
    /// `*.` and this name.
    Wildcard(HostName),
    /// Text that Traefik's grammar allows (an IP address, `-a-`, `a..b`) and no TLS client can send.
    Never(Box<str>),
}

impl HostPattern {
    /// Parses the argument of `HostSNI`: `*`, a name, or `*.` and a name, with at most one trailing dot.
    ///
    /// Refuses what Traefik refuses: any other place for a `*`, and any byte but letters, digits and `_.-:`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (wildcard, name) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-:".contains(&b);
        if name.is_empty() || !name.bytes().all(allowed) {
            return Err(NameError(pattern_fault(text, name)));
        }
        Ok(match HostName::parse(name) {
            Ok(name) if wildcard => Self::Wildcard(name),
            Ok(name) => Self::Exact(name),
            Err(_) => Self::Never(text.into()),
        })
    }

    /// Whether a client that asked for `name` is meant.
    pub fn matches(&self, name: Option<&HostName>, depth: WildcardDepth) -> bool {
        match (self, name) {
            (Self::Any, _) => true,
            (Self::Exact(own), Some(name)) => own == name,
            (Self::Wildcard(above), Some(name)) => match depth {
                WildcardDepth::One => name.parent() == Some(above.as_str()),
                WildcardDepth::Many => name.is_below(above),
            },
            (Self::Never(_), _) | (_, None) => false,
        }
    }
}

/// As it would be written in a rule.
impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => f.write_str(name.as_str()),
            Self::Wildcard(above) => write!(f, "*.{above}"),
            Self::Never(text) => f.write_str(text),
        }
    }
}

/// Why a text is not a host name or pattern. The message says what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(pub(crate) String);

/// Says what keeps `name` from being a host name; `text` is what was written.
fn fault(text: &str, name: &str) -> String {
    let shown = quoted(text);
    if name.is_empty() {
        return "the host name is empty".to_owned();
    }
    if !name.is_ascii() {
        return format!("{shown} is not ASCII: write the name in its punycode form (xn--…)");
    }
    if name.parse::<IpAddr>().is_ok() {
        return format!(
            "{shown} is an IP address, and a TLS server name cannot be one (RFC 6066 section 3)"
        );
    }
    let stray = |c: &char| !(c.is_ascii_alphanumeric() || "_.-".contains(*c));
    if let Some(c) = name.chars().find(stray) {
        let hint = match c {
            '*' => ": a `*` stands alone or first, as in *.example.com",
            ':' if !name.contains("://") => ": write the name without a port",
            ':' | '/' => ": write the name without a scheme or path",
            _ => ": only letters, digits, `-`, `_` and dots can",
        };
        return format!("{shown} cannot hold {c:?}{hint}");
    }
    if name.len() > 253 {
        return format!(
            "{shown} is {} bytes long, and a host name has at most 253",
            name.len()
        );
    }
    for label in name.split('.') {
        if label.is_empty() {
            return format!(
                "{shown} has an empty label: write one dot between labels, and none or one at the end"
            );
        }
        if label.len() > 63 {
            return format!(
                "a label of {shown} is {} bytes long, and a label has at most 63",
                label.len()
            );
        }
        if label.starts_with('-') || label.ends_with('-') {
            return format!(
                "a label of {shown} starts or ends with `-`: a hyphen stands between letters or digits"
            );
        }
    }
    format!("the last label of {shown} is a number, which only an IP address may end in")
}

/// Says what keeps `text`, which is `name` after an optional `*.`, from being the argument of `HostSNI`.
fn pattern_fault(text: &str, name: &str) -> String {
    if text.is_empty() {
        return "the host name is empty".to_owned();
    }
    if name.is_empty() {
        return format!(
            "{} names no domain: write *.example.com, or * alone for every name",
            quoted(text)
        );
    }
    if name.is_ascii() && name.contains('*') {
        return format!(
            "{} has a `*` in the wrong place: it stands for the whole first label, as in *.example.com, or alone for every name",
            quoted(text)
        );
    }
    fault(text, name)
}

/// A stranger's text for a message: escaped, in quotes, and cut short if it is long.
pub(crate) fn quoted(text: &str) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> HostName {
        HostName::parse(text).unwrap()
    }

    #[test]
    fn a_name_is_lower_cased_and_loses_one_trailing_dot() {
        for text in ["SSH.Example.COM", "ssh.example.com.", "ssh.example.com"] {
            assert_eq!(name(text).as_str(), "ssh.example.com");
        }
        assert_eq!(
            name("_ssh._tcp.example.com").as_str(),
            "_ssh._tcp.example.com"
        );
        assert_eq!(name("localhost").parent(), None);
        assert_eq!(name("a.b.c").parent(), Some("b.c"));
    }

    #[test]
    fn a_map_of_names_can_be_asked_for_a_parent() {
        let names = std::collections::HashSet::from([name("b.c")]);
        assert!(names.contains(name("a.B.c").parent().unwrap()));
    }

    #[test]
    fn what_no_tls_client_may_send_is_refused_with_its_reason() {
        let label = "a".repeat(64);
        let long = format!("{}.co", ["a".repeat(62).as_str(); 4].join("."));
        for (text, says) in [
            ("", "is empty"),
            (".", "is empty"),
            ("example.com..", "empty label"),
            (".example.com", "empty label"),
            ("a..b", "empty label"),
            ("a\0b", "cannot hold"),
            ("a b", "cannot hold"),
            ("*.example.com", "a `*` stands alone or first"),
            ("example.com:8443", "without a port"),
            ("https://example.com", "without a scheme"),
            ("bücher.example", "punycode"),
            ("10.0.0.1", "IP address"),
            ("::1", "IP address"),
            ("host.0x1f", "is a number"),
            ("host.10", "is a number"),
            ("-a.example", "starts or ends with `-`"),
            ("a-.example", "starts or ends with `-`"),
            (label.as_str(), "at most 63"),
            (long.as_str(), "at most 253"),
        ] {
            let error = HostName::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text:?} says {error:?}");
        }
        assert_eq!(name(&long[1..]).as_str().len(), 253);
        assert_eq!(name(&format!("{}.", &long[1..])).as_str(), &long[1..]);
    }

    #[test]
    fn a_pattern_is_what_traefik_takes_for_one() {
        use HostPattern::{Any, Exact, Never, Wildcard};
        for (text, pattern) in [
            ("*", Any),
            ("A.example.com", Exact(name("a.example.com"))),
            ("a.example.com.", Exact(name("a.example.com"))),
            ("*.Example.com", Wildcard(name("example.com"))),
            ("*.example.com.", Wildcard(name("example.com"))),
            ("*.com", Wildcard(name("com"))),
            ("under_score", Exact(name("under_score"))),
            ("10.0.0.1", Never("10.0.0.1".into())),
            ("::1", Never("::1".into())),
            ("a.example.com:443", Never("a.example.com:443".into())),
            ("-a-", Never("-a-".into())),
            ("a..b", Never("a..b".into())),
            ("a.example.com..", Never("a.example.com..".into())),
            (".", Never(".".into())),
            ("*..", Never("*..".into())),
            ("*.10.0.0.1", Never("*.10.0.0.1".into())),
        ] {
            assert_eq!(HostPattern::parse(text), Ok(pattern), "{text}");
        }
        for (text, says) in [
            ("", "is empty"),
            ("*.", "names no domain"),
            ("*com", "wrong place"),
            ("foo.*", "wrong place"),
            ("*.*.x", "wrong place"),
            ("**", "wrong place"),
            ("a b", "cannot hold"),
            ("a\n", "cannot hold"),
            ("{sub}.example.com", "cannot hold"),
            ("*.bücher.example", "punycode"),
        ] {
            let error = HostPattern::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text:?} says {error:?}");
        }
    }

    #[test]
    fn a_wildcard_takes_one_label_or_several_by_the_depth_asked_for() {
        use WildcardDepth::{Many, One};
        let pattern = HostPattern::parse("*.example.com").unwrap();
        for (text, one, many) in [
            ("a.example.com", true, true),
            ("a.b.example.com", false, true),
            ("example.com", false, false),
            ("xexample.com", false, false),
            ("a.example.org", false, false),
        ] {
            assert_eq!(pattern.matches(Some(&name(text)), One), one, "{text}");
            assert_eq!(pattern.matches(Some(&name(text)), Many), many, "{text}");
        }
    }

    #[test]
    fn only_a_lone_star_takes_a_client_without_a_name() {
        for (text, takes) in [
            ("*", true),
            ("a.example", false),
            ("*.example", false),
            ("10.0.0.1", false),
        ] {
            let pattern = HostPattern::parse(text).unwrap();
            assert_eq!(pattern.matches(None, WildcardDepth::One), takes, "{text}");
            assert_eq!(pattern.matches(None, WildcardDepth::Many), takes, "{text}");
        }
    }

    /// Texts near the border of what is a name: labels of hostile bytes and lengths, joined by dots.
    fn nearly_a_name() -> impl Strategy<Value = String> {
        let label = prop_oneof![
            8 => "[a-zA-Z0-9_-]{0,8}",
            1 => "[a-z]{60,66}",
            1 => "0x[0-9a-fA-F]{0,3}|[0-9]{1,3}",
            1 => "[\\PC\\x00]{1,2}",
        ];
        let labels = proptest::collection::vec(label, 0..7).prop_map(|labels| labels.join("."));
        (labels, "\\.{0,3}").prop_map(|(labels, dots)| labels + &dots)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn a_name_is_exactly_what_rustls_accepts(text in nearly_a_name()) {
            let without_dot = text.strip_suffix('.').unwrap_or(&text);
            let theirs = DnsName::try_from(without_dot).ok().filter(|_| !without_dot.ends_with('.'));
            let ours = HostName::parse(&text).ok();
            let theirs = theirs.map(|name| name.to_lowercase_owned());
            prop_assert_eq!(ours.as_ref().map(HostName::as_str), theirs.as_ref().map(|name| name.as_ref()));
            prop_assert!(ours.is_none() || text.parse::<IpAddr>().is_err());
        }

        #[test]
        fn every_name_that_rustls_accepts_becomes_its_lower_case_form(text in nearly_a_name()) {
            if let Ok(theirs) = DnsName::try_from(text.as_bytes()) {
                let lower = theirs.to_lowercase_owned();
                for text in [theirs.as_ref(), &text] {
                    let name = HostName::parse(text).unwrap();
                    prop_assert_eq!(name.as_str(), lower.as_ref());
                }
            }
        }

        #[test]
        fn an_exact_or_wildcard_pattern_is_written_as_it_is_read(text in "(\\*\\.)?[a-zA-Z0-9._:-]{1,12}") {
            let pattern = HostPattern::parse(&text).unwrap();
            prop_assert_eq!(HostPattern::parse(&pattern.to_string()), Ok(pattern));
        }
    }
}
