//! What a rule can be said to take without asking a client: where it stands in an index, and what it covers.

use super::Key;
use super::matcher::Matcher;
use super::parse::Expr;
use crate::name::{HostName, HostPattern, WildcardDepth};

/// What is true of a condition for all the clients of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It holds for each of them.
    Always,
    /// It holds for none of them.
    Never,
    /// It depends, or is not known here.
    Maybe,
}

impl Verdict {
    fn negated(self) -> Self {
        match self {
            Verdict::Always => Verdict::Never,
            Verdict::Never => Verdict::Always,
            Verdict::Maybe => Verdict::Maybe,
        }
    }
}

/// Where a condition must stand in an index; see [`super::Rule::keys`].
pub(super) fn keys(expr: &Expr) -> Vec<Key> {
    let mut keys = match expr {
        // Any one part bounds the whole: the most selective is taken.
        Expr::All(parts) => parts
            .iter()
            .map(keys)
            .min_by_key(|keys| cost(keys))
            .unwrap_or_default(),
        Expr::Any(parts) => parts.iter().flat_map(keys).collect(),
        Expr::Leaf { matcher, negated } => leaf_keys(matcher, *negated),
    };
    let mut seen = std::collections::HashSet::new();
    keys.retain(|key| seen.insert(key.clone()));
    keys
}

fn leaf_keys(matcher: &Matcher, negated: bool) -> Vec<Key> {
    match (matcher, negated) {
        (Matcher::Host(HostPattern::Exact(name)), false) => vec![Key::Exact(name.clone())],
        (Matcher::Host(HostPattern::Wildcard(above)), false) => vec![Key::Wildcard(above.clone())],
        (Matcher::Host(HostPattern::Never(_)), false) | (Matcher::Host(HostPattern::Any), true) => {
            Vec::new()
        }
        (Matcher::Regexp(_), false) => vec![Key::Regexp],
        _ => vec![Key::Any],
    }
}

/// How much an index pays for a rule under these keys: first what its broadest key costs, then their number.
fn cost(keys: &[Key]) -> (u8, usize) {
    let breadth = |key: &Key| match key {
        Key::Exact(_) => 1,
        Key::Wildcard(_) => 2,
        Key::Regexp => 3,
        Key::Any => 4,
    };
    (keys.iter().map(breadth).max().unwrap_or(0), keys.len())
}

/// The verdict on the clients that name no host.
pub(super) fn nameless(expr: &Expr) -> Verdict {
    verdict(expr, &|matcher| match matcher {
        Matcher::Host(pattern) => decided(pattern.matches(None, WildcardDepth::One)),
        Matcher::Regexp(regexp) => decided(regexp.matches(None)),
        Matcher::Client(_) | Matcher::Alpn(_) => Verdict::Maybe,
    })
}

/// Whether the condition can hold for every name of some number of labels; see [`super::Rule::takes_any_name`].
pub(super) fn any_name(expr: &Expr) -> bool {
    STRANGE.iter().any(|names| {
        let mut names = names.iter();
        names.all(|name| {
            HostName::parse(name).is_ok_and(|name| under(expr, &Key::Exact(name)) != Verdict::Never)
        })
    })
}

/// Names of two, three and four labels under top-level domains that do not exist, without a label in common: whatever
/// takes two of them does not ask whose they are.
const STRANGE: [[&str; 2]; 3] = [
    ["nrtkow.qjxkvw", "ugbfyc.zvbhpf"],
    ["nrtkow.dslme.qjxkvw", "ugbfyc.whaoi.zvbhpf"],
    ["nrtkow.dslme.tpjzu.qjxkvw", "ugbfyc.whaoi.vkenr.zvbhpf"],
];

/// The verdict on the clients whose name a key covers, whatever the depth of wildcards.
pub(super) fn under(expr: &Expr, key: &Key) -> Verdict {
    verdict(expr, &|matcher| match (matcher, key) {
        (Matcher::Host(pattern), key) => host_under(pattern, key),
        (Matcher::Regexp(regexp), Key::Exact(name)) => decided(regexp.matches(Some(name.as_str()))),
        // Whoever comes there has named a host.
        (Matcher::Regexp(regexp), Key::Wildcard(_)) if regexp.matches_every_name() => {
            Verdict::Always
        }
        (Matcher::Regexp(_) | Matcher::Client(_) | Matcher::Alpn(_), _) => Verdict::Maybe,
    })
}

fn host_under(pattern: &HostPattern, key: &Key) -> Verdict {
    match (pattern, key) {
        (HostPattern::Any, _) => Verdict::Always,
        (HostPattern::Never(_), _) => Verdict::Never,
        // What a wildcard of depth one takes, one of any depth takes too.
        (pattern, Key::Exact(name)) => {
            let one = pattern.matches(Some(name), WildcardDepth::One);
            let many = pattern.matches(Some(name), WildcardDepth::Many);
            if one == many {
                decided(one)
            } else {
                Verdict::Maybe
            }
        }
        (HostPattern::Wildcard(own), Key::Wildcard(above)) if own == above => Verdict::Always,
        (HostPattern::Wildcard(own), Key::Wildcard(above)) => {
            possible(own.is_below(above) || above.is_below(own))
        }
        (HostPattern::Exact(own), Key::Wildcard(above)) => possible(own.is_below(above)),
        (HostPattern::Exact(_) | HostPattern::Wildcard(_), Key::Regexp | Key::Any) => {
            Verdict::Maybe
        }
    }
}

/// The verdict on a condition whose matchers are judged by `judge`.
fn verdict(expr: &Expr, judge: &impl Fn(&Matcher) -> Verdict) -> Verdict {
    match expr {
        Expr::All(parts) => combined(parts, judge, Verdict::Never),
        Expr::Any(parts) => combined(parts, judge, Verdict::Always),
        Expr::Leaf {
            matcher,
            negated: false,
        } => judge(matcher),
        Expr::Leaf {
            matcher,
            negated: true,
        } => judge(matcher).negated(),
    }
}

/// `decisive` if one part has it, its opposite if all parts have that.
fn combined(parts: &[Expr], judge: &impl Fn(&Matcher) -> Verdict, decisive: Verdict) -> Verdict {
    let mut result = decisive.negated();
    for part in parts {
        match verdict(part, judge) {
            found if found == decisive => return decisive,
            Verdict::Maybe => result = Verdict::Maybe,
            _ => {}
        }
    }
    result
}

fn decided(holds: bool) -> Verdict {
    if holds {
        Verdict::Always
    } else {
        Verdict::Never
    }
}

fn possible(possible: bool) -> Verdict {
    if possible {
        Verdict::Maybe
    } else {
        Verdict::Never
    }
}

/// Whether a key covers a client's name; see [`Key::covers`].
pub(super) fn covers(key: &Key, name: Option<&HostName>, depth: WildcardDepth) -> bool {
    match (key, name) {
        (Key::Exact(own), Some(name)) => own == name,
        (Key::Wildcard(above), Some(name)) => match depth {
            WildcardDepth::One => name.parent() == Some(above.as_str()),
            WildcardDepth::Many => name.is_below(above),
        },
        (Key::Exact(_) | Key::Wildcard(_), None) => false,
        (Key::Regexp | Key::Any, _) => true,
    }
}
