//! Tags, `PREFIX.key=value`: what the instances of a service ask for, in one grammar for all sources.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::name::quoted;

/// The prefixes that are ours. Where both write a key, the later one's value stands.
const PREFIXES: [&str; 2] = ["traefik", "portcullis"];

/// Whether there may be a route in the tags of a service: a quick look, at those of all its instances together.
pub fn has_routers(tags: &[Arc<str>]) -> bool {
    let mut ours = PREFIXES.iter().flat_map(|prefix| settings(tags, prefix));
    ours.any(|(key, _)| is_tcp(key))
}

/// Whether the service shall be dialled through the mesh only, by the tags of some or all of its instances.
///
/// A value that is neither yes nor no counts as yes: what somebody wanted protected is not dialled plain for a typo.
pub fn asks_for_mesh(tags: &[Arc<str>]) -> bool {
    let mut ours = PREFIXES.iter().flat_map(|prefix| settings(tags, prefix));
    ours.any(|(key, value)| {
        let keys = ["consulcatalog.connect", "nomad.connect"];
        let asks = keys.iter().any(|ours| key.eq_ignore_ascii_case(ours));
        asks && boolean(value) != Some(false)
    })
}

/// What the tags of an instance ask for: Traefik's grammar for TCP, as its version 3.7 reads it, under either prefix.
///
/// Keys and the names in them count in any case, and are in lower case here. Tags without a `=`, under another prefix
/// or about HTTP and UDP are none of ours. `None`: the instance asks to be left out (`enable=false`).
pub fn decode(tags: &[Arc<str>]) -> Result<Option<Tags>, TagError> {
    match read(tags) {
        (_, Some(first)) => Err(first),
        (found, None) => Ok(found),
    }
}

/// What there is beside the mistakes in tags that cannot be read. Nothing may be served by it.
pub(super) fn remains(tags: &[Arc<str>]) -> Tags {
    read(tags).0.unwrap_or_default()
}

/// What can be read, and the first mistake.
fn read(tags: &[Arc<str>]) -> (Option<Tags>, Option<TagError>) {
    let mut typed = Typed(BTreeMap::new());
    for prefix in PREFIXES {
        for (key, value) in settings(tags, prefix) {
            let lower = key.to_ascii_lowercase();
            if is_tcp(&lower) || lower == "enable" || is_of_provider(&lower) {
                let place = Place { prefix, key, value };
                typed.0.insert(lower, place);
            }
        }
    }
    let mut first = None;
    match typed.0.get("enable").map(Place::boolean) {
        Some(Ok(false)) => return (None, None),
        Some(Err(error)) => first = Some(error),
        Some(Ok(true)) | None => {}
    }
    let mut found = Tags::default();
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
    /// Whether it is set apart from the others in Traefik (`consulcatalog.canary`, `nomad.canary`).
    pub canary: bool,
    /// Its `tcp.routers`, by name.
    pub routers: BTreeMap<String, Router>,
    /// Its `tcp.services`, by name.
    pub services: BTreeMap<String, Server>,
}

/// A `tcp.routers.NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Router {
    /// The entry points that it names; none means any.
    pub entry_points: Vec<String>,
    /// Its rule as it was written; empty if none was.
    pub rule: String,
    /// What it asks for; `None` for the rule's own, which 0 means too.
    pub priority: Option<i64>,
    /// Where its bytes go, as it was written.
    pub service: Option<String>,
    /// What happens to TLS; `None` if the router does not speak it.
    pub tls: Option<RouterTls>,
    /// What it asks for and does not get.
    pub unsupported: BTreeSet<Unsupported>,
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
    pub port: Option<u16>,
    /// What it asks for and does not get.
    pub unsupported: BTreeSet<Unsupported>,
}

/// What Traefik does for a tag, and this gateway does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unsupported {
    /// Lists of clients, and limits.
    Middlewares,
    /// A syntax of rules that is not version 3's.
    RuleSyntax,
    /// A certificate by ACME.
    CertResolver,
    /// The names in it.
    Domains,
    /// TLS towards the instance.
    ServerTls,
    /// How the instance is dialled.
    ServersTransport,
    /// Who the client is, written before its bytes.
    ProxyProtocol,
    /// How long one direction outlives the other.
    TerminationDelay,
    /// Checks by the gateway itself.
    HealthCheck,
}

impl Unsupported {
    /// The key that asks for it.
    pub fn key(self) -> &'static str {
        match self {
            Self::Middlewares => "middlewares",
            Self::RuleSyntax => "rulesyntax",
            Self::CertResolver => "tls.certresolver",
            Self::Domains => "tls.domains",
            Self::ServerTls => "loadbalancer.server.tls",
            Self::ServersTransport => "loadbalancer.serverstransport",
            Self::ProxyProtocol => "loadbalancer.proxyprotocol",
            Self::TerminationDelay => "loadbalancer.terminationdelay",
            Self::HealthCheck => "loadbalancer.healthcheck",
        }
    }

    /// Whether serving without it would take clients that shall not be taken, or send other bytes than it would.
    ///
    /// Through the mesh, Traefik too dials with the mesh's own TLS and transport, whatever else was asked for.
    pub fn is_vital(self, mesh: bool) -> bool {
        match self {
            Self::Middlewares | Self::RuleSyntax | Self::ProxyProtocol => true,
            Self::ServerTls | Self::ServersTransport => !mesh,
            Self::CertResolver | Self::Domains | Self::TerminationDelay | Self::HealthCheck => {
                false
            }
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
            ["consulcatalog" | "nomad", "connect"] => self.connect |= place.boolean()?,
            ["consulcatalog" | "nomad", "canary"] => self.canary |= place.boolean()?,
            ["tcp"] | ["tcp", "routers" | "services" | "middlewares"] => {
                typed.has_more_under(key, place)?;
            }
            ["tcp", "routers", name, path @ ..] if is_name(name) => {
                let router = self.routers.entry((*name).to_owned()).or_default();
                router.take(path, place, typed.is_on(&["tcp", "routers", name, "tls"]))?;
            }
            ["tcp", "services", name] if is_name(name) => typed.has_more_under(key, place)?,
            ["tcp", "services", name, "loadbalancer", path @ ..] if is_name(name) => {
                let server = self.services.entry((*name).to_owned()).or_default();
                let proxy = ["tcp", "services", name, "loadbalancer", "proxyprotocol"];
                match path {
                    [] | ["server"] => typed.has_more_under(key, place)?,
                    path => server.take(path, place, typed.is_on(&proxy))?,
                }
            }
            // Without a router that names it, a middleware does nothing.
            ["tcp", "middlewares", name, path @ ..] if is_name(name) && is_middleware(path) => {}
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
            ["rulesyntax"] => {
                if !["", "default", "v3"].contains(&place.value) {
                    self.unsupported.insert(Unsupported::RuleSyntax);
                }
            }
            ["middlewares"] => {
                if !place.value.is_empty() {
                    self.unsupported.insert(Unsupported::Middlewares);
                }
            }
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
        let asked = match path {
            ["server", "port"] => {
                self.port = place.port()?;
                return Ok(());
            }
            ["server", "tls"] if !place.boolean()? => return Ok(()),
            // Traefik has it filled in from the instance.
            ["server", "address"] => return Ok(()),
            ["server", "tls"] => Unsupported::ServerTls,
            ["serverstransport"] if place.value.is_empty() => return Ok(()),
            ["serverstransport"] => Unsupported::ServersTransport,
            ["proxyprotocol"] | ["proxyprotocol", "version"] if !proxy => return Ok(()),
            ["proxyprotocol"] | ["proxyprotocol", "version"] => Unsupported::ProxyProtocol,
            ["terminationdelay"] => Unsupported::TerminationDelay,
            ["healthcheck"] | ["healthcheck", _] => Unsupported::HealthCheck,
            _ => return Err(place.wrong(Wrong::Unknown)),
        };
        self.unsupported.insert(asked);
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
    prefix: &'static str,
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

/// The keys, without the prefix, and values of the tags under a prefix.
fn settings<'a>(tags: &'a [Arc<str>], prefix: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    tags.iter().filter_map(move |tag| {
        let key = tag.strip_prefix(prefix)?.strip_prefix('.')?;
        key.split_once('=')
    })
}

/// `tcp` and all that begins like it, where Traefik looks for mistakes too.
fn is_tcp(key: &str) -> bool {
    let start = key.as_bytes().get(..3);
    start.is_some_and(|start| start.eq_ignore_ascii_case(b"tcp"))
}

/// What concerns the instance and not its routes. Of what is said for Nomad only what is known: Traefik reads no more.
fn is_of_provider(key: &str) -> bool {
    key.starts_with("consulcatalog.") || matches!(key, "nomad.connect" | "nomad.canary")
}

/// An index in brackets would make two parts of one.
fn is_name(part: &str) -> bool {
    !part.contains(['[', ']'])
}

fn is_middleware(path: &[&str]) -> bool {
    matches!(
        path,
        [] | ["ipallowlist" | "ipwhitelist" | "inflightconn"]
            | ["ipallowlist" | "ipwhitelist", "sourcerange"]
            | ["inflightconn", "amount"]
    )
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

/// As Go's `strconv.ParseBool`.
fn boolean(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
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
