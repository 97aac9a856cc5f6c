//! The routers in a service's tags, made routes: whose definition counts, what it may do, and where it leads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::dialling;
use super::exposure::Exposure;
use super::instance::Instance;
use super::middlewares;
use super::names;
use super::reading::Reading;
use super::route_tls::service_tls;
use super::servers::Server;
use super::shortened;
use super::tags::{Router, RouterTls, Tags, Unsupported};
use crate::config::Middleware;
use crate::name::quoted;
use crate::rule::{Room, Rule, Syntax, normalized};
use crate::snapshot::service::{ServiceRoute, Skipped};

/// The greatest priority that Traefik takes; what is above is for its own routers.
const GREATEST_PRIORITY: i64 = i64::MAX - 1000;

/// As many definitions of routers are read of one service; the rest are refused.
///
/// 1,000: more than anybody writes, and what a stranger's tags can cost here, at each look-up and in `/v1/routes` is bounded.
const MOST_DEFINITIONS: usize = 1000;

/// What is known of a service when its routers are judged.
#[derive(Debug)]
pub(super) struct Routers<'r, 'a> {
    pub(super) reading: &'r Reading<'a>,
    pub(super) exposure: &'r Exposure,
    pub(super) servers: &'r BTreeMap<&'r str, Server<'a>>,
    pub(super) middlewares: &'r BTreeMap<Arc<str>, Result<Middleware, Arc<str>>>,
    pub(super) mesh: Mesh,
}

/// How the service is dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mesh {
    /// Over plain TCP.
    Unasked,
    /// Through its sidecars.
    Usable,
    /// Not at all: it asks for the mesh, and something is missing.
    Broken(String),
}

/// A router as some of the instances define it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Definition<'r> {
    router: &'r Router,
    /// `None`: it names no service, and there are several.
    target: Option<Target<'r>>,
}

/// Where a router leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target<'r> {
    /// To the service itself, or one of its `tcp.services`.
    Own(Option<&'r str>),
    /// From canaries, to the service that they are tried out for.
    Service,
    /// To an upstream of the file.
    File(&'r str),
    /// To another service of the same source, in the catalog of this label.
    Other(Option<&'r str>, &'r str),
    /// To a provider of Traefik that is none here.
    Foreign(&'r str),
}

impl Routers<'_, '_> {
    /// The routes, by the names of their routers. What is refused is listed, and so is what refuses its clients.
    pub(super) fn routes(&self, skipped: &mut Vec<Skipped>) -> Vec<ServiceRoute> {
        let mut routers: BTreeMap<&str, BTreeMap<Definition<'_>, Vec<&Instance>>> = BTreeMap::new();
        let readable = self.reading.readable();
        // Otherwise a wildcard of somebody else would take the clients of a service for a typo in its tags.
        for (instance, tags) in readable.chain(self.reading.remains()) {
            for (name, router) in &tags.routers {
                let target = self.target(router, tags);
                let definitions = routers.entry(name).or_default();
                let same = definitions.entry(Definition { router, target });
                same.or_default().push(instance);
            }
        }
        let mut routes = Vec::new();
        let mut room = Room::default();
        let mut left = MOST_DEFINITIONS;
        for (name, definitions) in &routers {
            let mut refuse = |instance: Option<&Instance>, reason: &str| {
                skipped.push(Skipped {
                    instance: instance.map(|instance| Arc::clone(&instance.id)),
                    router: Some(shortened(name)),
                    reason: shortened(reason),
                });
            };
            let Some(more) = left.checked_sub(definitions.len()) else {
                let reason = format!(
                    "the service defines more than {MOST_DEFINITIONS} routers, counting each definition: the rest are not read"
                );
                skipped.push(Skipped {
                    instance: None,
                    router: None,
                    reason: shortened(&reason),
                });
                break;
            };
            left = more;
            let syntax = self.exposure.default_rule_syntax;
            let newest = newest(name, definitions, syntax, &mut room, &mut refuse);
            let Some((definition, rule)) = newest else {
                continue;
            };
            match self.route(name, definition, rule) {
                Ok(route) => {
                    if let Some(reason) = &route.broken {
                        refuse(None, reason);
                    }
                    routes.push(route);
                }
                Err(reason) => refuse(None, &reason),
            }
        }
        routes
    }

    fn target<'t>(&'t self, router: &'t Router, tags: &'t Tags) -> Option<Target<'t>> {
        let Some(service) = &router.service else {
            let mut own = tags.services.keys();
            return match (own.next(), own.next()) {
                (None, _) => Some(Target::Own(None)),
                (Some(only), None) => Some(Target::Own(Some(only))),
                (Some(_), Some(_)) => None,
            };
        };
        let key = &self.reading.found.key;
        let (name, provider) = match service.rsplit_once('@') {
            Some((name, provider)) => (name, Some(provider)),
            None => (service.as_str(), None),
        };
        let own_place = key.place.as_deref();
        let place = match provider {
            Some("file") => return Some(Target::File(name)),
            Some(provider) => match names::place(key, provider) {
                Some(place) => place,
                None => return Some(Target::Foreign(provider)),
            },
            None => own_place,
        };
        if place != own_place {
            return Some(Target::Other(place, name));
        }
        let lower = name.to_ascii_lowercase();
        if let Some((own, _)) = self.servers.get_key_value(&*lower) {
            return Some(Target::Own(Some(own)));
        }
        let own = names::own(self.reading.found);
        let is_own =
            name.eq_ignore_ascii_case(&own) || name.eq_ignore_ascii_case(&normalized(&own));
        let local = names::local(key);
        let is_service =
            name.eq_ignore_ascii_case(local) || name.eq_ignore_ascii_case(&normalized(local));
        Some(match (is_own, is_service) {
            (true, _) => Target::Own(None),
            (false, true) => Target::Service,
            (false, false) => Target::Other(place, name),
        })
    }

    /// Makes the route, or says why there is none.
    fn route(
        &self,
        name: &str,
        Definition { router, target }: Definition<'_>,
        rule: Rule,
    ) -> Result<ServiceRoute, String> {
        let tls = self.admitted(name, router, &rule)?;
        let has_idle_options = tls.passthrough && tls.options.is_some();
        let target = target.unwrap_or(Target::Own(None));
        let (tls, no_tls) = service_tls(tls);
        let unreadable = self.reading.readable().next().is_none();
        let (upstream, no_way) = match unreadable {
            false => self.way(target),
            true => (
                self.upstream(None),
                Some("its tags cannot be read".to_owned()),
            ),
        };
        let key = &self.reading.found.key;
        let (middlewares, no_middleware) =
            middlewares::named(key, &router.middlewares, self.middlewares);
        let asked = &router.unsupported;
        let broken = match unreadable {
            true => no_way,
            false => unsupported(asked).or(no_middleware).or(no_tls).or(no_way),
        };
        let mut warnings = self.warnings(target, asked);
        warnings.extend(rule.warnings().iter().map(|warning| {
            let help = warning.help.iter().map(|help| format!(": {help}"));
            format!("its rule: {warning}{}", help.collect::<String>())
        }));
        if has_idle_options {
            warnings.push("`tls.options` has no effect where TLS is passed through".to_owned());
        }
        Ok(ServiceRoute {
            name: names::route(&self.reading.found.key, name),
            rule,
            priority: router.priority,
            tls,
            upstream,
            middlewares,
            // The file's upstreams are the operator's affair.
            mesh: self.mesh != Mesh::Unasked && !matches!(target, Target::File(_)),
            broken: broken.map(|reason| shortened(&reason)),
            warnings: warnings.iter().map(|text| shortened(text)).collect(),
        })
    }

    /// Whether tags may make this route here; its TLS, if so.
    fn admitted<'t>(
        &self,
        name: &str,
        router: &'t Router,
        rule: &Rule,
    ) -> Result<&'t RouterTls, String> {
        let ours = &self.exposure.entry_points;
        let named = &router.entry_points;
        if !named.is_empty() && !named.iter().any(|name| ours.contains(name)) {
            let named: Vec<String> = named.iter().map(|name| quoted(name)).collect();
            return Err(format!(
                "it is for the entry points {}, and none of them is one of `entry_points` in [{}]",
                named.join(", "),
                self.reading.found.key.source.as_str()
            ));
        }
        let Some(tls) = &router.tls else {
            return Err(format!(
                "it is not for TLS: add `tcp.routers.{name}.tls=true`, or `tcp.routers.{name}.tls.passthrough=true`"
            ));
        };
        let allowed = self.exposure.allow_default_from_tags;
        if !allowed && (rule.is_default() || rule.takes_any_name()) {
            let section = self.reading.found.key.source.as_str();
            let whom = match rule.is_default() {
                true => "that name no host",
                false => "whatever host they name",
            };
            return Err(format!(
                "its rule takes clients {whom}: from tags that needs `allow_default_from_tags = true` in [{section}]"
            ));
        }
        if router
            .priority
            .is_some_and(|asked| asked > GREATEST_PRIORITY)
        {
            return Err(format!("its priority is greater than {GREATEST_PRIORITY}"));
        }
        Ok(tls)
    }

    /// The upstream, and why it must not be used.
    fn way(&self, target: Target<'_>) -> (Arc<str>, Option<String>) {
        let key = &self.reading.found.key;
        let source = key.source.as_str();
        match target {
            Target::Own(name) => {
                let server = name.and_then(|name| self.servers.get(name));
                let no_way = server.and_then(|server| server.dialling.as_ref().err());
                let no_way = no_way.map(ToString::to_string);
                let in_mesh = name.filter(|_| server.is_some_and(Server::has_own_way));
                match &self.mesh {
                    Mesh::Unasked => (self.upstream(name), no_way),
                    Mesh::Usable => (self.upstream(in_mesh), no_way),
                    Mesh::Broken(reason) => (self.upstream(None), Some(reason.clone())),
                }
            }
            Target::Service => {
                let no_way = match &self.mesh {
                    Mesh::Broken(reason) => Some(reason.clone()),
                    Mesh::Unasked | Mesh::Usable => None,
                };
                (names::service(key), no_way)
            }
            Target::File(name) => (name.into(), None),
            Target::Other(place, name) => (names::other(key, place, name), None),
            Target::Foreign(provider) => (
                self.upstream(None),
                Some(format!(
                    "its service is of the provider {}: only `@file` and `@{source}` are known here",
                    quoted(provider)
                )),
            ),
        }
    }

    fn upstream(&self, server: Option<&str>) -> Arc<str> {
        names::upstream(self.reading.found, server)
    }

    fn is_mesh(&self, target: Target<'_>) -> bool {
        matches!(target, Target::Own(_)) && self.mesh != Mesh::Unasked
    }

    fn warnings(&self, target: Target<'_>, asked: &BTreeSet<Unsupported>) -> Vec<String> {
        let mesh = self.is_mesh(target);
        let (acme, others): (Vec<_>, Vec<_>) = asked
            .iter()
            .filter(|asked| !asked.is_vital())
            .partition(|asked| matches!(asked, Unsupported::CertResolver | Unsupported::Domains));
        let mut warnings: Vec<String> = others
            .into_iter()
            .map(|asked: &Unsupported| {
                format!("`{}` is not supported yet, and ignored", asked.key())
            })
            .collect();
        let acme: Vec<String> = acme
            .iter()
            .map(|asked| format!("`{}`", asked.key()))
            .collect();
        if !acme.is_empty() {
            let are = if acme.len() == 1 { "is" } else { "are" };
            warnings.push(format!(
                "{} {are} not supported yet: it serves with the certificates that the gateway is given",
                acme.join(" and ")
            ));
        }
        if let Target::Other(_, name) = target {
            warnings.push(format!("it leads to another service, {}", quoted(name)));
        }
        let Target::Own(server) = target else {
            return warnings;
        };
        let server = server.and_then(|name| self.servers.get(name));
        warnings.extend(
            server
                .iter()
                .flat_map(|server| dialling::warnings(&server.transport, mesh)),
        );
        if mesh && server.is_some_and(|server| server.has_port) {
            warnings
                .push("`loadbalancer.server.port` has no effect: its sidecar decides".to_owned());
        }
        let check = server.and_then(|server| server.check.as_deref());
        if mesh && check.is_some_and(|check| check.port.is_some()) {
            warnings.push(
                "`loadbalancer.healthcheck.port` has no effect: its sidecar decides".to_owned(),
            );
        }
        let sidecars = self.reading.found.sidecars.as_deref().unwrap_or_default();
        if !mesh && (self.exposure.mesh || !sidecars.is_empty()) {
            warnings.push(
                "it is dialled over plain TCP: tag it `portcullis.consulcatalog.connect=true` to go through its sidecars"
                    .to_owned(),
            );
        }
        warnings
    }
}

/// The definition of the newest instance among those that can be read, and its rule; the others are refused.
fn newest<'r>(
    name: &str,
    definitions: &BTreeMap<Definition<'r>, Vec<&Instance>>,
    syntax: Syntax,
    room: &mut Room,
    refuse: &mut impl FnMut(Option<&Instance>, &str),
) -> Option<(Definition<'r>, Rule)> {
    let mut sound = Vec::new();
    for (definition, instances) in definitions {
        match rule(name, definition, syntax, room) {
            Ok(rule) => sound.push((*definition, rule, instances)),
            Err(reason) if definitions.len() == 1 => refuse(None, &reason),
            Err(reason) => {
                for instance in instances {
                    refuse(Some(instance), &reason);
                }
            }
        }
    }
    sound.sort_by(|(_, _, a), (_, _, b)| youngest(a).cmp(&youngest(b)));
    let (definition, rule, instances) = sound.pop()?;
    let (_, newest) = youngest(instances)?;
    let reason = format!("it differs from the newer definition of {newest}, which counts");
    for instance in sound.iter().flat_map(|(_, _, instances)| *instances) {
        refuse(Some(instance), &reason);
    }
    Some((definition, rule))
}

fn youngest<'i>(instances: &[&'i Instance]) -> Option<(u64, &'i str)> {
    instances.iter().map(|instance| instance.rank()).max()
}

/// The rule of a definition that something can be made of.
///
/// `syntax` is that of a router which says none.
fn rule(
    name: &str,
    definition: &Definition<'_>,
    syntax: Syntax,
    room: &mut Room,
) -> Result<Rule, String> {
    if name.len() > names::LONGEST {
        return Err(format!(
            "its name has {} bytes: at most {}",
            name.len(),
            names::LONGEST
        ));
    }
    if definition.target.is_none() {
        return Err(format!(
            "it cannot be linked automatically with several tcp services: name one with `tcp.routers.{name}.service`"
        ));
    }
    let Router {
        rule, by_default, ..
    } = definition.router;
    if rule.is_empty() && !by_default {
        return Err(format!("it has no rule: add `tcp.routers.{name}.rule`"));
    }
    let syntax = definition.router.rule_syntax.unwrap_or(syntax);
    Rule::parse_within(rule, syntax, room).map_err(|error| {
        let help = error.help.iter().map(|help| format!(": {help}"));
        let whose = match by_default {
            true => "what `default_rule` makes of it is no rule",
            false => "its rule",
        };
        format!("{whose}: {error}{}", help.collect::<String>())
    })
}

/// What vital thing is missing.
fn unsupported(asked: &BTreeSet<Unsupported>) -> Option<String> {
    let vital = asked.iter().filter(|asked| asked.is_vital());
    let keys: Vec<String> = vital.map(|asked| format!("`{}`", asked.key())).collect();
    match keys.as_slice() {
        [] => None,
        [key] => Some(format!(
            "{key} is not supported yet, and the route must not serve without it"
        )),
        keys => Some(format!(
            "{} are not supported yet, and the route must not serve without them",
            keys.join(" and ")
        )),
    }
}
