//! Names parsed once, then trusted: the host a client asks for, and the patterns that routes claim.

use std::fmt;
use std::sync::Arc;

/// A DNS host name in the one form in which names are compared: ASCII lower case, without a trailing dot.
///
/// What a client sends, what a rule says and what a certificate lists all become this type
/// before they meet, so that no look-up can disagree with another about what a name is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Arc<str>);

impl HostName {
    /// Parses a name, in any case, with at most one trailing dot.
    ///
    /// Accepts what a TLS server name may hold (RFC 6066 §3): labels of letters, digits, `-` and `_`,
    /// 1–63 bytes each, 253 bytes in all; not an IP address.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let _ = text;
        todo!()
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows the first label and its dot, if anything.
    pub fn parent(&self) -> Option<&str> {
        self.0.split_once('.').map(|(_, parent)| parent)
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
    /// Parses the argument of `HostSNI`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let _ = text;
        todo!()
    }

    /// Whether a client that asked for `name` is meant.
    pub fn matches(&self, name: Option<&HostName>, depth: WildcardDepth) -> bool {
        let _ = (name, depth);
        todo!()
    }
}

/// Why a text is not a host name or pattern. The message says what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(pub(crate) String);
