//! The rule language: Traefik v3's TCP rules, parsed once into something that can be matched and indexed.

use std::net::IpAddr;
use std::ops::Range;

use crate::name::{HostName, HostPattern, WildcardDepth};

/// What is known of a client when its route is looked up.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The name in its hello; `None` when it sent none (or an IP address).
    pub name: Option<&'a HostName>,
    /// Where it connects from; an IPv4-mapped address has become IPv4.
    pub client: IpAddr,
    /// The protocols it offers (RFC 7301), in its order.
    pub alpn: &'a [Vec<u8>],
    /// How many labels a `*` stands for on this listener.
    pub wildcard: WildcardDepth,
}

/// One rule: a condition on the facts of a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    text: Box<str>,
}

impl Rule {
    /// Parses a rule.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        let _ = text;
        todo!()
    }

    /// The rule that `host = "…"` stands for: a single `HostSNI`.
    pub fn host(pattern: HostPattern) -> Self {
        let _ = pattern;
        todo!()
    }

    /// The rule as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the rule holds for these facts.
    pub fn matches(&self, facts: &Facts<'_>) -> bool {
        let _ = facts;
        todo!()
    }

    /// The priority a rule has when none is written: its length in bytes, or -1 for a lone ``HostSNI(`*`)``.
    pub fn priority(&self) -> i64 {
        todo!()
    }

    /// Where the rule must stand in an index: it can hold only for names that one of these keys covers.
    pub fn keys(&self) -> Vec<Key> {
        todo!()
    }

    /// Whether the rule can hold for a client that names no host: a default route.
    pub fn is_default(&self) -> bool {
        todo!()
    }

    /// Whether the rule holds for every client that a key of it covers (no `ClientIP`, `ALPN` or negation).
    pub fn is_unconditional(&self) -> bool {
        todo!()
    }

    /// Parts that are legal and cannot do what their writer hoped, such as an IP address in `HostSNI`.
    pub fn warnings(&self) -> Vec<RuleError> {
        todo!()
    }
}

/// A place in the index of routes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// Names equal to this one.
    Exact(HostName),
    /// Names below this one.
    Wildcard(HostName),
    /// Names that some regular expression accepts: found by trying.
    Regexp,
    /// Every name, and none.
    Any,
}

/// What is wrong with a rule, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RuleError {
    /// The bytes of the rule's text that are at fault.
    pub span: Range<usize>,
    /// What is wrong, in lower case.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}
