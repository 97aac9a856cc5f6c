//! The rule language: Traefik's TCP rules, parsed once into something that can be matched and indexed.

use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use crate::name::{HostName, HostPattern, WildcardDepth};

mod client;
mod constraint;
mod host_template;
mod lex;
mod matcher;
mod parse;
mod reach;
mod regexp;
mod template;
#[cfg(test)]
mod tests;

pub(crate) use client::{covers, network};
pub use constraint::Constraint;
use matcher::Matcher;
use parse::Expr;
use reach::Verdict;
pub use template::{Template, normalized};

/// What is known of a client when its route is looked up.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The name in its hello; `None` when it sent none (or an IP address).
    pub name: Option<&'a HostName>,
    /// Where it connects from; an IPv4-mapped address counts as IPv4.
    pub client: IpAddr,
    /// The protocols it offers (RFC 7301), in its order.
    pub alpn: &'a [Vec<u8>],
    /// How many labels a `*` stands for on this listener.
    pub wildcard: WildcardDepth,
}

/// Which of Traefik's syntaxes a rule is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Syntax {
    /// That of Traefik 2, where `rulesyntax=v2` asks for it: matchers take several arguments, of which one must hold,
    /// `HostSNIRegexp` takes templates such as `{label:[a-z]+}.example.com`, and `HostSNI` has no wildcards.
    V2,
    /// That of Traefik 3.
    #[default]
    V3,
}

impl Syntax {
    /// Its name in tags and in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V3 => "v3",
        }
    }
}

/// What some rules of one owner may take together: their texts 1 MiB, their regular expressions what those of one rule may.
///
/// 1 MiB: some 20,000 names, which are parsed in a tenth of a second.
#[derive(Debug)]
pub struct Room {
    text: usize,
    regexps: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            text: 1 << 20,
            regexps: regexp::ROOM,
        }
    }
}

/// One rule: a condition on the facts of a connection. Cloning shares what was parsed.
///
/// The grammar is Go's expressions with four matchers: `HostSNI`, `HostSNIRegexp`, `ClientIP` and `ALPN`. What is taken
/// and what it matches is what Traefik 3.7 does, with these differences: a rule is at most 64 KiB long and 100 groups
/// deep, ``HostSNI(`a`...)`` is refused, and so is a Unicode script other than Latin and Common in a regular expression,
/// and in syntax v2 whatever is not ASCII in one.
#[derive(Clone, Debug)]
pub struct Rule {
    text: Arc<str>,
    syntax: Syntax,
    expr: Arc<Expr>,
    warnings: Arc<[RuleError]>,
}

impl Rule {
    /// Parses a rule of syntax v3. The error is the first mistake in it, with its place in `text`.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        Self::parse_within(text, Syntax::V3, &mut Room::default())
    }

    /// The same in either syntax, for one of several rules of one owner, which share their room.
    pub fn parse_within(text: &str, syntax: Syntax, room: &mut Room) -> Result<Self, RuleError> {
        let (expr, warnings) = parse::parse(text, syntax, room)?;
        Ok(Self {
            text: text.into(),
            syntax,
            expr: Arc::new(expr),
            warnings: warnings.into(),
        })
    }

    /// The rule that `host = "…"` stands for: a single `HostSNI`.
    ///
    /// Its warnings are none, since they would point into a text that nobody wrote.
    pub fn host(pattern: HostPattern) -> Self {
        let text = format!("HostSNI(`{pattern}`)").into();
        let expr = Expr::Leaf {
            matcher: Matcher::Host(pattern),
            negated: false,
        };
        Self {
            text,
            syntax: Syntax::V3,
            expr: Arc::new(expr),
            warnings: Arc::new([]),
        }
    }

    /// The rule as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The syntax it was written in.
    pub fn syntax(&self) -> Syntax {
        self.syntax
    }

    /// Whether the rule holds for these facts. Allocates nothing but, on its first uses, a regular expression's cache.
    pub fn matches(&self, facts: &Facts<'_>) -> bool {
        self.expr.matches(facts)
    }

    /// The priority a rule has when none is written: its length in bytes, or -1 for a lone ``HostSNI(`*`)``.
    ///
    /// A lone ``!HostSNI(`*`)`` has -1 too, and so has either in parentheses, as in Traefik.
    pub fn priority(&self) -> i64 {
        match *self.expr {
            Expr::Leaf {
                matcher: Matcher::Host(HostPattern::Any),
                ..
            } => -1,
            _ => i64::try_from(self.text.len()).unwrap_or(i64::MAX),
        }
    }

    /// Where the rule must stand in an index: it can hold only for clients that one of these keys covers.
    ///
    /// Each key once, in the order of the text. A rule that can never hold has none.
    pub fn keys(&self) -> Vec<Key> {
        reach::keys(&self.expr)
    }

    /// Whether the rule can hold for a client that names no host, from some address with some ALPN: a default route.
    pub fn is_default(&self) -> bool {
        reach::nameless(&self.expr) != Verdict::Never
    }

    /// Whether the rule can hold for names that have nothing in common: a default route in all but the name, as
    /// ``HostSNIRegexp(`.+`)`` is. Its computed priority may put it before the exact names of others.
    ///
    /// Found out by trying names that nobody has; a rule that was written to escape that does escape it.
    pub fn takes_any_name(&self) -> bool {
        reach::any_name(&self.expr)
    }

    /// Whether the rule certainly holds for every client whose name the key covers, wherever it comes from, whatever it
    /// offers and however deep wildcards go: no route of a lower rank is ever reached through that key.
    ///
    /// Never true under [`Key::Regexp`], which stands for no known set of names, unless the rule takes every client.
    pub fn covers(&self, key: &Key) -> bool {
        reach::under(&self.expr, key) == Verdict::Always
    }

    /// Whether the rule certainly holds for every client that a key of it covers: it has keys and [covers](Self::covers) each.
    ///
    /// So for a `HostSNI` and any `||` of them; not for a `HostSNIRegexp`, whose key covers names that it refuses.
    pub fn is_unconditional(&self) -> bool {
        let keys = self.keys();
        !keys.is_empty() && keys.iter().all(|key| self.covers(key))
    }

    /// Parts that are legal and cannot do what their writer hoped, such as an IP address in `HostSNI`.
    pub fn warnings(&self) -> Vec<RuleError> {
        self.warnings.to_vec()
    }
}

/// By syntax and text: another text is another rule, even if it means the same.
impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.syntax == other.syntax && self.text == other.text
    }
}

impl Eq for Rule {}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A place in the index of routes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// Names equal to this one.
    Exact(HostName),
    /// Names below this one.
    Wildcard(HostName),
    /// Names that some regular expression accepts, and perhaps none: found by trying.
    Regexp,
    /// Every name, and none.
    Any,
}

impl Key {
    /// Whether a client with this name, or without one, may be looked for under this key.
    pub fn covers(&self, name: Option<&HostName>, depth: WildcardDepth) -> bool {
        reach::covers(self, name, depth)
    }
}

/// What is wrong with a rule, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RuleError {
    /// The bytes of the rule's text that are at fault, on the borders of characters; empty only at its end.
    pub span: Range<usize>,
    /// What is wrong, in lower case.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl RuleError {
    /// What to write instead; where nothing fits the mistake, what a rule is made of.
    pub fn help(&self) -> &str {
        self.help.as_deref().unwrap_or("a rule is made of HostSNI, HostSNIRegexp, ClientIP and ALPN, with &&, ||, ! and parentheses")
    }

    fn new(span: Range<usize>, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            span,
            message: message.into(),
            help: Some(help.into()),
        }
    }
}
