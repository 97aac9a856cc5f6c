//! What the tags of discovered services may ask for, and what becomes of those that ask for nothing: `[consul]` and `[nomad]` alike.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::decode::{Item, List, Table, Typed};
use super::diagnostic::Findings;
use super::place;
use super::value::{Wrong, choice, duration, read};
use crate::rule::{Constraint, Rule, RuleError, Syntax, Template};

/// How the tags of a source are read: Traefik's options, by Traefik's names and defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagging {
    /// Whether an instance counts whose tags do not say (`enable`). Default: true.
    pub exposed_by_default: bool,
    /// What the tags of an instance must satisfy; one that does not is not there. Default: nothing.
    pub constraints: Option<Constraint>,
    /// The rule of a service that has no TCP router in its tags. Default: none, and it is not routed.
    pub default_rule: Option<Template>,
    /// The syntax of the rules in tags that do not say it (`rulesyntax`). Default: v3.
    pub default_rule_syntax: Syntax,
    /// What the tags begin with; `portcullis` always serves too. Default: `traefik`.
    pub prefix: String,
    /// The entry points of tags that are ours: a router that names others only is somebody else's. Default: `https` and
    /// `websecure`, the names in Traefik's examples.
    pub entry_points: Vec<String>,
    /// Whether a tag may make a route for clients that name no host, or for whatever they name. Default: false.
    pub allow_default_from_tags: bool,
}

impl Default for Tagging {
    fn default() -> Self {
        Self {
            exposed_by_default: true,
            constraints: None,
            default_rule: None,
            default_rule_syntax: Syntax::default(),
            prefix: "traefik".to_owned(),
            entry_points: ["https", "websecure"].map(str::to_owned).to_vec(),
            allow_default_from_tags: false,
        }
    }
}

/// Everything is read again so often in quiet times. 60 s: what no index tells, such as the address of a node, is found within
/// a minute, and an agent may hang.
pub(super) const REFRESH_DEFAULT: Duration = Duration::from_secs(60);

/// How often everything may be read again. 1 s: a sweep over thousands of services takes part of that. 1 day: an address that
/// moves is dialled in vain for as long.
const REFRESH: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

/// These keys of a section as they are typed. `None` is a key that is absent, or wrong and reported.
#[derive(Debug, Default)]
pub(super) struct Keys {
    exposed_by_default: Option<Typed<bool>>,
    constraints: Option<Typed<String>>,
    default_rule: Option<Typed<String>>,
    default_rule_syntax: Option<Typed<String>>,
    prefix: Option<Typed<String>>,
    entry_points: Option<List<Typed<String>>>,
    allow_default_from_tags: Option<Typed<bool>>,
}

impl Keys {
    pub(super) fn read(table: &mut Table<'_>, findings: &mut Findings<'_>) -> Self {
        Self {
            exposed_by_default: table.take("exposed_by_default", findings, Item::boolean),
            constraints: table.take("constraints", findings, Item::string),
            default_rule: table.take("default_rule", findings, Item::string),
            default_rule_syntax: table.take("default_rule_syntax", findings, Item::string),
            prefix: table.take("prefix", findings, Item::string),
            entry_points: table.take("entry_points", findings, Item::strings),
            allow_default_from_tags: table.take("allow_default_from_tags", findings, Item::boolean),
        }
    }

    /// What they mean. `every` is whose routes a default rule makes, for people: `every service of the catalog`.
    pub(super) fn mean(&self, every: &str, findings: &mut Findings<'_>) -> Tagging {
        let default = Tagging::default();
        let default_rule = self.default_rule.as_ref();
        if let Some(typed) = default_rule
            && self.exposed_by_default.is_none()
            && self.constraints.is_none()
        {
            findings.warning(
                Some(typed.span.clone()),
                format!("`{}` gives {every} a route", typed.key),
                "write `exposed_by_default = false`, so that services must ask for it, or `true` if that is what you want",
            );
        }
        let yes = |typed: &Option<Typed<bool>>| typed.as_ref().map(|typed| typed.value);
        Tagging {
            exposed_by_default: yes(&self.exposed_by_default).unwrap_or(default.exposed_by_default),
            constraints: (self.constraints.as_ref())
                .and_then(|typed| within(typed, Constraint::parse(&typed.value), findings)),
            default_rule: default_rule.and_then(|typed| rule(typed, findings)),
            default_rule_syntax: (self.default_rule_syntax.as_ref())
                .and_then(|typed| read(typed, findings, |text| choice(text, RULE_SYNTAXES)))
                .unwrap_or(default.default_rule_syntax),
            prefix: (self.prefix.as_ref())
                .and_then(|typed| read(typed, findings, |text| prefix(text)))
                .unwrap_or(default.prefix),
            entry_points: match &self.entry_points {
                Some(list) => entry_points(list, findings),
                None => default.entry_points,
            },
            allow_default_from_tags: yes(&self.allow_default_from_tags)
                .unwrap_or(default.allow_default_from_tags),
        }
    }
}

/// How often everything is read again.
pub(super) fn refresh_interval(
    typed: Option<&Typed<String>>,
    findings: &mut Findings<'_>,
) -> Duration {
    typed
        .and_then(|typed| read(typed, findings, |text| duration(text, REFRESH)))
        .unwrap_or(REFRESH_DEFAULT)
}

/// What `escape_debug` shows as it is, and quotes.
pub(super) fn is_visible(c: char) -> bool {
    !c.is_whitespace() && (c.escape_debug().len() == 1 || matches!(c, '"' | '\'' | '\\'))
}

/// As Traefik's `core.defaultRuleSyntax` has them.
const RULE_SYNTAXES: &[(&str, Syntax)] = &[("v3", Syntax::V3), ("v2", Syntax::V2)];

fn entry_points(list: &List<Typed<String>>, findings: &mut Findings<'_>) -> Vec<String> {
    if list.is_empty {
        findings.missing(
            list.span.clone(),
            format!(
                "`{}` is an empty list: no router that names its entry points would be taken",
                list.key
            ),
            "leave it out for [\"https\", \"websecure\"], or write a name",
        );
    }
    let mut names: Vec<String> = Vec::new();
    for typed in &list.value {
        let name = read(typed, findings, |text| {
            if text.is_empty() || !text.chars().all(|c| is_visible(c) && c != ',') {
                return Err(Wrong::new(
                    format!("{text:?} is not the name of an entry point"),
                    "write one name, as it stands in `traefik.tcp.routers.NAME.entrypoints`",
                ));
            }
            if names.contains(text) {
                return Err(Wrong::new(
                    format!("{text:?} is listed twice"),
                    "remove one of the two",
                ));
            }
            Ok(text.clone())
        });
        names.extend(name);
    }
    names
}

fn prefix(text: &str) -> Result<String, Wrong> {
    let is_prefix = !text.is_empty()
        && !text.starts_with('.')
        && !text.ends_with('.')
        && text.chars().all(|c| is_visible(c) && c != '=');
    match is_prefix {
        true => Ok(text.to_owned()),
        false => Err(Wrong::new(
            format!("{text:?} is nothing that a tag can begin with"),
            "write what stands before the first dot of the tags, such as \"traefik\"",
        )),
    }
}

/// A template. Where the name of a service alone makes the rule, it is tried.
fn rule(typed: &Typed<String>, findings: &mut Findings<'_>) -> Option<Template> {
    let template = within(typed, Template::parse(&typed.value), findings)?;
    let example = template.rule("web", &Default::default());
    if !template.reads_labels()
        && let Err(error) = Rule::parse(&example)
    {
        findings.error(
            typed.span.clone(),
            format!(
                "`{}`: what it makes of a service `web` is no rule, {example:?}: {error}",
                typed.key
            ),
            error.help(),
        );
        return None;
    }
    Some(template)
}

/// What was parsed; a mistake is told with its place inside the string.
fn within<T>(
    typed: &Typed<String>,
    parsed: Result<T, RuleError>,
    findings: &mut Findings<'_>,
) -> Option<T> {
    let error = match parsed {
        Ok(parsed) => return Some(parsed),
        Err(error) => error,
    };
    let span = place::within(findings.text(), &typed.span, &error.span);
    let message = format!("`{}`: {}", typed.key, error.message);
    findings.error(span, message, error.help());
    None
}
