//! Tags, `PREFIX.key=value`: what the instances of a service ask for, in one grammar for all sources.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

mod health_check;
mod middlewares;
mod transport;

use super::terms::{Terms, boolean, is_tcp};
use crate::config::HealthCheck;
use crate::name::quoted;
use crate::rule::Syntax;
pub use middlewares::Middleware;
pub use transport::Transport;

/// As many routers of one instance are kept: one more than are read of a service, so that it is told of.
///
/// What an instance costs is bounded by it, not only what its service does: an answer has room for many of them.
const MOST_ROUTERS: usize = 1001;

/// What the tags of an instance ask for: Traefik's grammar for TCP, as its version 3.7 reads it, under either prefix.
///
/// Keys and the names in them count in any case, and are in lower case here. Tags without a `=`, under another prefix
/// or about HTTP and UDP are none of ours. `None`: the instance asks to be left out (`enable=false`), or does not ask for
/// anything where it would have to.
pub fn decode(tags: &[Arc<str>], terms: &Terms) -> Result<Option<Tags>, TagError> {
    match read(tags, terms) {
        (_, Some(first)) => Err(first),
        (found, None) => Ok(found),
    }
}

/// What there is beside the mistakes in tags that cannot be read. Nothing may be served by it.
pub(super) fn remains(tags: &[Arc<str>], terms: &Terms) -> Tags {
    read(tags, terms).0.unwrap_or_default()
}

/// What can be read, and the first mistake.
fn read(tags: &[Arc<str>], terms: &Terms) -> (Option<Tags>, Option<TagError>) {
    let mut typed = Typed(BTreeMap::new());
    for (prefix, key, value) in terms.settings(tags) {
        let lower = key.to_ascii_lowercase();
        if is_tcp(&lower) || lower == "enable" || is_of_provider(&lower) {
            let place = Place { prefix, key, value };
            typed.0.insert(lower, place);
        }
    }
    let mut first = None;
    match typed.0.get("enable").map(Place::boolean) {
        Some(Ok(false)) => return (None, None),
        None if !terms.exposed_by_default => return (None, None),
        Some(Err(error)) => first = Some(error),
        Some(Ok(true)) | None => {}
    }
    let says_connect = (typed.0.keys())
        .any(|key| matches!(key.as_str(), "consulcatalog.connect" | "nomad.connect"));
    let mut found = Tags {
        connect: terms.connect_by_default && !says_connect,
        ..Tags::default()
    };
    for (key, place) in &typed.0 {
        let mut parts = key.split('.');
        let taken = match parts.any(|part| part.is_empty() || part.starts_with('[')) {
            true => Err(place.wrong(Wrong::Path)),
            false => found.take(key, place, &typed),
        };
        if let Err(error) = taken {
            first.get_or_insert(error);
        }
    }
    (Some(found), first)
}

/// What an instance asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// Whether it is dialled through its sidecar only (`consulcatalog.connect`; `nomad.connect`, which Traefik does not have,
    /// asks for the same).
    pub connect: bool,
    /// Its `tcp.routers`, by name.
    pub routers: BTreeMap<String, Router>,
    /// Its `tcp.services`, by name.
    pub services: BTreeMap<String, Server>,
    /// Its `tcp.middlewares`, by name.
    pub middlewares: BTreeMap<String, Middleware>,
}

/// A `tcp.routers.NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Router {
    /// The entry points that it names; none means any.
    pub entry_points: Vec<String>,
    /// Its rule as it was written; empty if none was.
    pub rule: String,
    /// The syntax of its rule; `None` for the default one.
    pub rule_syntax: Option<Syntax>,
    /// What it asks for; `None` for the rule's own, which 0 means too.
    pub priority: Option<i64>,
    /// Where its bytes go, as it was written.
    pub service: Option<String>,
    /// What happens to TLS; `None` if the router does not speak it.
    pub tls: Option<RouterTls>,
    /// The middlewares that it names, as they were written.
    pub middlewares: Vec<String>,
    /// What it asks for and does not get.
    pub unsupported: BTreeSet<Unsupported>,
    /// Whether no tag asks for it, but the operator's rule for services without one.
    pub by_default: bool,
}

/// The `tls` of a router.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouterTls {
    /// Whether the upstream ends it.
    pub passthrough: bool,
    /// The option set, as it was written.
    pub options: Option<String>,
}

/// The `loadbalancer` of a `tcp.services.NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// Dialled in place of the port that the instance was registered with.
    pub port: Option<Port>,
    /// How it is to be checked; `None` is not at all.
    pub check: Option<HealthCheck>,
    /// How it is dialled.
    pub transport: Transport,
}

/// A port of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Port {
    /// The port itself.
    Number(u16),
    /// The one that was registered under this name. Traefik, which knows of none, would look it up in `/etc/services`.
    Name(String),
}

/// What Traefik does for a tag, and this gateway does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unsupported {
    /// A syntax of rules that is neither version 2's nor version 3's.
    RuleSyntax,
    /// A certificate by ACME.
    CertResolver,
    /// The names in it.
    Domains,
}

impl Unsupported {
    /// The key that asks for it.
    pub fn key(self) -> &'static str {
        match self {
            Self::RuleSyntax => "rulesyntax",
            Self::CertResolver => "tls.certresolver",
            Self::Domains => "tls.domains",
        }
    }

    /// Whether serving without it would take clients that shall not be taken, or send other bytes than it would.
    pub fn is_vital(self) -> bool {
        match self {
            Self::RuleSyntax => true,
            Self::CertResolver | Self::Domains => false,
        }
    }
}

/// Why the tags of an instance cannot be read. The first mistake by key takes the whole instance out, as in Traefik.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tag {tag}: {why}")]
pub struct TagError {
    /// The key with its prefix, quoted, and cut if it is long.
    pub tag: String,
    /// What is wrong with it.
    pub why: Wrong,
}

/// What is wrong with a tag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// An empty part, or one that begins with a bracket.
    #[error("a part of the key is empty or begins with `[`")]
    Path,
    /// Traefik knows no such key either.
    #[error("there is no such key")]
    Unknown,
    /// A part that only holds others.
    #[error("the key says nothing without what stands under it")]
    Alone,
    /// The value, quoted, and what it should be.
    #[error("{0} is not {1}")]
    Value(String, &'static str),
}

impl Tags {
    /// Takes in one tag; `key` is in lower case.
    fn take(&mut self, key: &str, place: &Place<'_>, typed: &Typed<'_>) -> Result<(), TagError> {
        let path: Vec<&str> = key.split('.').collect();
        match path.as_slice() {
            ["enable"] => {}
            ["consulcatalog", "connect"] => self.connect = place.boolean()?,
            ["nomad", "connect"] => self.connect |= place.boolean()?,
            // What it says is read before the other tags are.
            ["consulcatalog" | "nomad", "canary"] => _ = place.boolean()?,
            ["tcp"] | ["tcp", "routers" | "services" | "middlewares"] => {
                typed.has_more_under(key, place)?;
            }
            // Those after them in the order of their names nobody would read.
            ["tcp", "routers", name, ..]
                if self.routers.len() >= MOST_ROUTERS && !self.routers.contains_key(*name) => {}
            ["tcp", "routers", name, path @ ..] if is_name(name) => {
                let router = self.routers.entry((*name).to_owned()).or_default();
                router.take(path, place, typed.is_on(&["tcp", "routers", name, "tls"]))?;
            }
            ["tcp", "services", name] if is_name(name) => typed.has_more_under(key, place)?,
            ["tcp", "services", name, "loadbalancer", path @ ..] if is_name(name) => {
                let server = self.services.entry((*name).to_owned()).or_default();
                let is_on = |part| typed.is_on(&["tcp", "services", name, "loadbalancer", part]);
                match path {
                    [] | ["server"] => typed.has_more_under(key, place)?,
                    ["healthcheck", path @ ..] => {
                        health_check::take(&mut server.check, path, place, is_on("healthcheck"))?;
                    }
                    path => server.take(path, place, is_on("proxyprotocol"))?,
                }
            }
            ["tcp", "middlewares", name, path @ ..] if is_name(name) => {
                let middleware = self.middlewares.entry((*name).to_owned()).or_default();
                middleware.take(path, place)?;
            }
            _ => return Err(place.wrong(Wrong::Unknown)),
        }
        Ok(())
    }
}

impl Router {
    /// Takes in the tag whose key goes on with `path`; `tls` is the switch that stands at that key.
    fn take(&mut self, path: &[&str], place: &Place<'_>, tls: bool) -> Result<(), TagError> {
        match path {
            [] => {}
            ["entrypoints"] => self.entry_points = list(place.value),
            ["rule"] => place.value.clone_into(&mut self.rule),
            ["priority"] => self.priority = Some(place.number()?).filter(|&number| number != 0),
            ["service"] => self.service = text(place.value),
            ["rulesyntax"] => match place.value {
                "" => {}
                "v2" => self.rule_syntax = Some(Syntax::V2),
                // Traefik's own routers are `default`, which is v3 whatever the default is.
                "v3" | "default" => self.rule_syntax = Some(Syntax::V3),
                _ => _ = self.unsupported.insert(Unsupported::RuleSyntax),
            },
            ["middlewares"] => self.middlewares = list(place.value),
            ["tls", path @ ..] => {
                let asked = match path {
                    [] | ["options"] | ["passthrough"] => None,
                    ["certresolver"] => Some(Unsupported::CertResolver),
                    [name] | [name, "main" | "sans"] if is_domains(name) => {
                        Some(Unsupported::Domains)
                    }
                    _ => return Err(place.wrong(Wrong::Unknown)),
                };
                // What stands under a switch that is off is not even read.
                if !tls {
                    return Ok(());
                }
                let tls = self.tls.get_or_insert_default();
                match path {
                    ["options"] => tls.options = text(place.value),
                    ["passthrough"] => tls.passthrough = place.boolean()?,
                    _ => {}
                }
                let asked = asked.filter(|_| !place.value.is_empty());
                self.unsupported.extend(asked);
            }
            _ => return Err(place.wrong(Wrong::Unknown)),
        }
        Ok(())
    }
}

impl Server {
    /// Takes in the tag whose key goes on with `path`; `proxy` is the switch that stands at its `proxyprotocol`.
    fn take(&mut self, path: &[&str], place: &Place<'_>, proxy: bool) -> Result<(), TagError> {
        if self.transport.take(path, place, proxy)? {
            return Ok(());
        }
        match path {
            ["server", "port"] => self.port = place.named_port()?,
            // Traefik has it filled in from the instance.
            ["server", "address"] => {}
            _ => return Err(place.wrong(Wrong::Unknown)),
        }
        Ok(())
    }
}

/// The tags that are ours, by their keys in lower case.
struct Typed<'a>(BTreeMap<String, Place<'a>>);

impl Typed<'_> {
    /// A part that only holds others means nothing alone, and whatever its value is, nothing beside them.
    fn has_more_under(&self, key: &str, place: &Place<'_>) -> Result<(), TagError> {
        let under = format!("{key}.");
        let next = self.0.range(under.clone()..).next();
        match next.is_some_and(|(key, _)| key.starts_with(&under)) {
            true => Ok(()),
            false => Err(place.wrong(Wrong::Alone)),
        }
    }

    /// Whether a part that may stand alone is switched on: by no value, by `true`, or by being left out.
    fn is_on(&self, path: &[&str]) -> bool {
        let switch = self.0.get(&path.join("."));
        switch.is_none_or(|Place { value, .. }| {
            value.is_empty() || value.eq_ignore_ascii_case("true")
        })
    }
}

/// A tag as it was written.
struct Place<'a> {
    prefix: &'a str,
    key: &'a str,
    value: &'a str,
}

impl Place<'_> {
    fn wrong(&self, why: Wrong) -> TagError {
        TagError {
            tag: quoted(&format!("{}.{}", self.prefix, self.key)),
            why,
        }
    }

    fn not(&self, expected: &'static str) -> TagError {
        self.wrong(Wrong::Value(quoted(self.value), expected))
    }

    fn boolean(&self) -> Result<bool, TagError> {
        boolean(self.value).ok_or_else(|| self.not("true or false"))
    }

    fn number(&self) -> Result<i64, TagError> {
        let number = self.value.parse();
        number.map_err(|_| self.not("a whole number of 64 bits"))
    }

    /// A port, or the name of one: letters, digits and `-`, not digits alone (RFC 6335 §5.1), or `_`.
    fn named_port(&self) -> Result<Option<Port>, TagError> {
        let part = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        let text = self.value;
        if text.bytes().all(part)
            && (1..=63).contains(&text.len())
            && text.bytes().any(|b| b.is_ascii_alphabetic())
        {
            return Ok(Some(Port::Name(text.to_owned())));
        }
        let port = self.port().map_err(|_| {
            self.not("a port from 1 to 65535, or the name that one was registered under")
        })?;
        Ok(port.map(Port::Number))
    }

    fn port(&self) -> Result<Option<u16>, TagError> {
        match self.value {
            "" => Ok(None),
            text => match text.parse() {
                Ok(port) if port > 0 => Ok(Some(port)),
                _ => Err(self.not("a port from 1 to 65535")),
            },
        }
    }
}

/// What concerns the instance and not its routes. Of what is said for Nomad only what is known: Traefik reads no more.
fn is_of_provider(key: &str) -> bool {
    key.starts_with("consulcatalog.") || matches!(key, "nomad.connect" | "nomad.canary")
}

/// An index in brackets would make two parts of one.
fn is_name(part: &str) -> bool {
    !part.contains(['[', ']'])
}

/// `domains`, or one of them: `domains[0]`.
fn is_domains(part: &str) -> bool {
    part.strip_prefix("domains").is_some_and(|index| {
        let digits = index
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        index.is_empty() || digits.is_some_and(|d| d.bytes().all(|b| b.is_ascii_digit()))
    })
}

fn list(value: &str) -> Vec<String> {
    match value {
        "" => Vec::new(),
        value => value
            .split(',')
            .map(|item| item.trim().to_owned())
            .collect(),
    }
}

fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
