//! The routes: which clients, what with their TLS, and to which upstream.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;

use super::decode::{List, Typed};
use super::diagnostic::Findings;
use super::file::{self, File, Names};
use super::middlewares;
use super::place;
use super::upstreams::{self, Own};
use super::value::{self, suggest};
use super::{Action, Endpoint, Route, Upstream};
use crate::name::{HostName, HostPattern, WildcardDepth};
use crate::rule::{Key, Rule};
use crate::tls::files::Certificate;

/// The routes of the file, those that are broken left out. Addresses typed in routes become upstreams. What certificates
/// lack is told where it is known what they are.
pub(super) fn routes(
    file: &File,
    own: Own<'_>,
    upstreams: &mut BTreeMap<String, Upstream>,
    certificates: Option<&[Certificate]>,
    findings: &mut Findings<'_>,
) -> BTreeMap<String, Route> {
    // With Consul or Nomad they may come from there.
    if file.routes.is_empty()
        && file.consul.is_none()
        && file.nomad.is_none()
        && !own.listeners.is_empty()
    {
        findings.warning(
            None,
            "there are no `routes`: every client is refused",
            "add one: a [routes.NAME] section with `host` and `upstream`",
        );
    }
    let known = Known {
        upstreams: names(&file.upstreams),
        tls_options: names(&file.tls_options),
        middlewares: names(&file.middlewares),
    };
    let mut routes = BTreeMap::new();
    let mut places = BTreeMap::new();
    for (name, typed) in &file.routes {
        value::read(name, findings, |text| value::name(text));
        let action = action(typed, &known, findings);
        let asked = typed.middlewares.as_ref();
        let middlewares = middlewares::of_route(asked, &known.middlewares, findings);
        let upstream = typed
            .upstream
            .as_ref()
            .and_then(|upstream| find_upstream(upstream, &known, own, upstreams, findings));
        let (Some(names), Some(upstream)) = (&typed.names, upstream) else {
            if let Some(names) = &typed.names {
                rule(names, findings);
            }
            continue;
        };
        let Some((rule, place)) = rule(names, findings) else {
            continue;
        };
        if let (Action::Terminate { .. }, Some(certificates)) = (&action, certificates) {
            warn_of_missing_certificates(name, &rule, place.clone(), certificates, findings);
        }
        places.insert(name.value.clone(), place);
        // As in Traefik, 0 asks for the rule's own.
        let priority = typed.priority.as_ref().map(|typed| typed.value);
        routes.insert(
            name.value.clone(),
            Route {
                rule,
                priority: priority.filter(|priority| *priority != 0),
                action,
                upstream,
                max_connections: typed.max_connections,
                middlewares,
            },
        );
    }
    warn_of_shadows(&routes, &places, findings);
    if file.consul.is_some() || file.nomad.is_some() {
        warn_of_hidden_tags(&routes, &places, findings);
    }
    routes
}

/// What a route may refer to, whether it turned out right or wrong.
struct Known<'a> {
    upstreams: BTreeSet<&'a str>,
    tls_options: BTreeSet<&'a str>,
    middlewares: BTreeSet<&'a str>,
}

fn names<T>(sections: &[(Typed<String>, T)]) -> BTreeSet<&str> {
    sections
        .iter()
        .map(|(name, _)| name.value.as_str())
        .collect()
}

/// The rule, and where it was typed.
fn rule(names: &Names, findings: &mut Findings<'_>) -> Option<(Rule, Range<usize>)> {
    match names {
        Names::Rule(typed) => {
            let rule = parse_rule(typed, findings)?;
            Some((rule, typed.span.clone()))
        }
        Names::Hosts(list) => {
            let rule = hosts(list, findings)?;
            Some((rule, list.span.clone()))
        }
    }
}

/// The rule that takes each of some hosts.
fn hosts(list: &List<Typed<String>>, findings: &mut Findings<'_>) -> Option<Rule> {
    if list.is_empty {
        findings.missing(
            list.span.clone(),
            format!(
                "`{}` is an empty list: the route would take nobody",
                list.key
            ),
            "write at least one host, such as \"ssh.example.com\"",
        );
    }
    let patterns = list.value.iter().map(|host| parse_host(host, findings));
    let patterns: Vec<Option<HostPattern>> = patterns.collect();
    let mut patterns: Vec<HostPattern> = patterns.into_iter().collect::<Option<_>>()?;
    let last = patterns.pop()?;
    if patterns.is_empty() {
        return Some(Rule::host(last));
    }
    patterns.push(last);
    let terms: Vec<String> = patterns
        .iter()
        .map(|pattern| format!("HostSNI(`{pattern}`)"))
        .collect();
    match Rule::parse(&terms.join(" || ")) {
        Ok(rule) => Some(rule),
        Err(error) => {
            let message = format!("`{}`: {error}", list.key);
            findings.error(list.span.clone(), message, "write host names only");
            None
        }
    }
}

fn parse_rule(typed: &Typed<String>, findings: &mut Findings<'_>) -> Option<Rule> {
    let place = |inner: &Range<usize>, findings: &Findings<'_>| {
        place::within(findings.text(), &typed.span, inner)
    };
    match Rule::parse(&typed.value) {
        Ok(rule) => {
            for warning in rule.warnings() {
                let span = place(&warning.span, findings);
                let message = format!("`{}`: {}", typed.key, warning.message);
                findings.warning(Some(span), message, warning.help());
            }
            Some(rule)
        }
        Err(error) => {
            let span = place(&error.span, findings);
            let message = format!("`{}`: {}", typed.key, error.message);
            findings.error(span, message, error.help());
            None
        }
    }
}

fn parse_host(typed: &Typed<String>, findings: &mut Findings<'_>) -> Option<HostPattern> {
    let help = "write a host name such as \"ssh.example.com\", \"*.example.com\", or \"*\" for every client";
    let message = match HostPattern::parse(&typed.value) {
        Ok(HostPattern::Never(_)) => "no TLS client can ask for such a name".to_owned(),
        Ok(pattern) => return Some(pattern),
        Err(error) => error.to_string(),
    };
    let message = format!("`{}`: {:?}: {message}", typed.key, typed.value);
    findings.error(typed.span.clone(), message, help);
    None
}

fn action(route: &file::Route, known: &Known<'_>, findings: &mut Findings<'_>) -> Action {
    let passes = route.passthrough.as_ref().is_some_and(|typed| typed.value);
    let Some(options) = &route.tls_options else {
        return match passes {
            true => Action::PassThrough,
            false => Action::Terminate { options: None },
        };
    };
    if passes {
        findings.error(
            options.span.clone(),
            format!(
                "`{}` has no effect together with `passthrough = true`: the upstream ends TLS",
                options.key
            ),
            "remove one of the two",
        );
        return Action::PassThrough;
    }
    if options.value != "default" && !known.tls_options.contains(options.value.as_str()) {
        findings.missing(
            options.span.clone(),
            format!(
                "`{}`: there is no option set {:?}",
                options.key, options.value
            ),
            reference_help(
                &options.value,
                &known.tls_options,
                &format!(
                    "add a [tls.options.{}] section",
                    options.value.escape_debug()
                ),
            ),
        );
    }
    Action::Terminate {
        options: Some(options.value.clone()),
    }
}

/// The key of the upstream that a route names or whose address it holds. A name never has a colon, an address always has.
fn find_upstream(
    typed: &Typed<String>,
    known: &Known<'_>,
    own: Own<'_>,
    upstreams: &mut BTreeMap<String, Upstream>,
    findings: &mut Findings<'_>,
) -> Option<String> {
    if known.upstreams.contains(typed.value.as_str()) {
        return Some(typed.value.clone());
    }
    if typed.value.contains(':') {
        let address = upstreams::endpoint(typed, own, findings)?;
        let endpoints = vec![Endpoint { address, weight: 1 }];
        let upstream = Upstream {
            endpoints,
            ..Upstream::default()
        };
        upstreams.insert(typed.value.clone(), upstream);
        return Some(typed.value.clone());
    }
    let is_name = value::name(&typed.value).is_ok() && typed.value.parse::<IpAddr>().is_err();
    let otherwise = match is_name {
        true => format!(
            "add an [upstreams.{0}] section, or write an address with its port, as in \"{0}:22\"",
            typed.value
        ),
        false => "write an address with its port, as in \"10.0.0.5:22\", or the name of an [upstreams.NAME] section".to_owned(),
    };
    findings.missing(
        typed.span.clone(),
        format!("`{}`: there is no upstream {:?}", typed.key, typed.value),
        reference_help(&typed.value, &known.upstreams, &otherwise),
    );
    None
}

pub(super) fn reference_help(typed: &str, known: &BTreeSet<&str>, otherwise: &str) -> String {
    let known: Vec<&str> = known.iter().copied().collect();
    match suggest(typed, &known) {
        Some(meant) => format!("did you mean {meant:?}? otherwise {otherwise}"),
        None => otherwise.to_owned(),
    }
}

/// Clients of a route that ends TLS without a fitting certificate are all refused.
fn warn_of_missing_certificates(
    name: &Typed<String>,
    rule: &Rule,
    place: Range<usize>,
    certificates: &[Certificate],
    findings: &mut Findings<'_>,
) {
    const HELP: &str = "add a certificate under [[certificates]], or `passthrough = true` if the upstream ends TLS";
    if certificates.is_empty() {
        findings.warning(
            Some(place),
            format!(
                "`{}` ends TLS, and there are no `certificates`: its clients are refused",
                name.key
            ),
            HELP,
        );
        return;
    }
    if rule.is_default() && !certificates.iter().any(|one| one.nameless) {
        findings.warning(
            Some(place.clone()),
            format!(
                "`{}` ends TLS for clients that name no host too, and no certificate is `nameless`: those are refused",
                name.key
            ),
            "write `nameless = true` beside the certificate in [[certificates]] that they shall see; or, if none of them is meant, \
             name the hosts",
        );
    }
    let covers = |host: &HostName| {
        let mut names = certificates.iter().flat_map(|one| &one.names);
        names.any(|pattern| pattern.matches(Some(host), WildcardDepth::One))
    };
    for key in rule.keys() {
        if let Key::Exact(host) = key
            && !covers(&host)
        {
            findings.warning(
                Some(place.clone()),
                format!(
                    "`{}` ends TLS for {host}, and no certificate covers that name",
                    name.key
                ),
                HELP,
            );
        }
    }
}

/// A route of the file outranks every tag that claims a name which it takes: one that takes whatever is named leaves tags nothing.
fn warn_of_hidden_tags(
    routes: &BTreeMap<String, Route>,
    places: &BTreeMap<String, Range<usize>>,
    findings: &mut Findings<'_>,
) {
    let all = routes.iter();
    for (name, _) in
        all.filter(|(_, route)| !route.rule.is_default() && route.rule.takes_any_name())
    {
        findings.warning(
            places.get(name).cloned(),
            format!("`routes.{name}` takes whatever host is named, and a route of this file goes before those of tags: none of those gets a client"),
            "name the hosts, as in HostSNIRegexp(`^[a-z]+\\.example\\.com$`); for what no other route takes, write HostSNI(`*`)",
        );
    }
}

/// Of two routes for the same clients the higher priority wins, then the name that sorts first: the other is never used.
fn warn_of_shadows(
    routes: &BTreeMap<String, Route>,
    places: &BTreeMap<String, Range<usize>>,
    findings: &mut Findings<'_>,
) {
    let mut winners: BTreeMap<String, (&str, i64)> = BTreeMap::new();
    let mut by_rank: Vec<(&String, &Route, i64)> = routes
        .iter()
        .map(|(name, route)| {
            (
                name,
                route,
                route.priority.unwrap_or_else(|| route.rule.priority()),
            )
        })
        .collect();
    by_rank.sort_by_key(|(name, _, priority)| (std::cmp::Reverse(*priority), *name));
    for (name, route, priority) in by_rank {
        let clients = clients(&route.rule);
        match winners.get(&clients) {
            None => {
                winners.insert(clients, (name, priority));
            }
            Some((winner, higher)) => {
                let why = match *higher > priority {
                    true => "has a higher priority",
                    false => "comes first by name",
                };
                findings.warning(
                    places.get(name).cloned(),
                    format!("`routes.{name}` is never used: `routes.{winner}` takes the same clients and {why}"),
                    "remove one, or tell them apart by `rule`",
                );
            }
        }
    }
}

/// A text that is equal for rules that surely take the same clients.
fn clients(rule: &Rule) -> String {
    if !rule.is_unconditional() {
        return rule.text().to_owned();
    }
    let mut keys: Vec<String> = Vec::new();
    for key in rule.keys() {
        keys.push(match key {
            Key::Exact(name) => name.to_string(),
            Key::Wildcard(name) => format!("*.{name}"),
            Key::Any => "*".to_owned(),
            Key::Regexp => return rule.text().to_owned(),
        });
    }
    keys.sort();
    keys.dedup();
    keys.join(" ")
}
