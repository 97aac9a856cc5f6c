//! What of a service is exposed: from its instances and their tags to its routes and upstreams, and why not.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::canaries::{Apart, apart, join};
use super::endpoints::{Available, Survey, Wish};
use super::instance::{Found, Health, Instance};
use super::middlewares::definitions;
use super::names;
use super::reading::{Read, Reading, Verdict};
use super::routes::{Mesh, Routers};
use super::servers::{Whole, servers};
use super::shortened;
use super::terms::Terms;
use crate::config::{HealthCheck, Tagging};
use crate::rule::{Constraint, Syntax, Template};
use crate::snapshot::Source;
use crate::snapshot::service::{Dialling, Service, ServiceUpstream, Skipped};

/// What is said of a service whose source shows a part of it only.
const HIDDEN: &str = "ACLs hide some of its instances or sidecars from the gateway's token, which needs service:read on them, and node:read";

/// What the operator lets tags do, and wants of services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// Under which terms tags are read.
    pub terms: Terms,
    /// What the tags of an instance must satisfy; one that does not is not there.
    pub constraints: Option<Constraint>,
    /// The rule of a service that has no TCP router in its tags; without it, such a service has no route.
    pub default_rule: Option<Template>,
    /// In which states instances are dialled.
    pub accepted: BTreeSet<Health>,
    /// The entry points of tags that are ours: a router that names others only is somebody else's.
    pub entry_points: Vec<String>,
    /// Whether a tag may make a route for clients that name no host, or for whatever they name.
    pub allow_default_from_tags: bool,
    /// Whether an instance may be registered with a name that stands for an address of this machine or its links.
    pub allow_local_addresses: bool,
    /// The syntax of rules where a router does not say it.
    pub default_rule_syntax: Syntax,
    /// The addresses that are bound: none of them becomes an endpoint.
    pub own: Arc<[SocketAddr]>,
    /// The upstreams of the file that stand for a service, by its name.
    pub wanted: BTreeMap<String, Vec<Wanted>>,
    /// Whether the gateway has, or will have, an identity in the mesh.
    pub mesh: bool,
}

/// As Traefik has it, where no entry point is ours.
impl Default for Exposure {
    fn default() -> Self {
        Self {
            terms: Terms::default(),
            constraints: None,
            default_rule: None,
            accepted: [Health::Passing, Health::Warning].into(),
            entry_points: Vec::new(),
            allow_default_from_tags: false,
            allow_local_addresses: false,
            default_rule_syntax: Syntax::default(),
            own: [].into(),
            wanted: BTreeMap::new(),
            mesh: false,
        }
    }
}

impl Exposure {
    /// What these keys of a section let the tags of its source do; `own` are the addresses that are bound.
    pub fn of(tagging: &Tagging, own: &Arc<[SocketAddr]>) -> Self {
        Self {
            terms: Terms {
                prefix: tagging.prefix.as_str().into(),
                exposed_by_default: tagging.exposed_by_default,
                ..Terms::default()
            },
            constraints: tagging.constraints.clone(),
            default_rule: tagging.default_rule.clone(),
            entry_points: tagging.entry_points.clone(),
            allow_default_from_tags: tagging.allow_default_from_tags,
            default_rule_syntax: tagging.default_rule_syntax,
            own: Arc::clone(own),
            ..Self::default()
        }
    }

    /// Whether there may be a route for a service: by the tags of all its instances together.
    pub fn may_be_routed(&self, tags: &[Arc<str>]) -> bool {
        self.terms.may_be_routed(tags, self.default_rule.is_some())
    }

    /// What its owner may want to know of a service that has no route, by the tags of all its instances together.
    pub fn note(&self, tags: &[Arc<str>]) -> Option<Arc<str>> {
        let constraint = self.constraints.as_ref();
        let matches = constraint.is_none_or(|constraint| constraint.matches(tags));
        let note = self.terms.foreign(tags).filter(|_| matches);
        note.as_deref().map(shortened)
    }

    /// The service without the instances that the constraints leave out, and how many those are.
    ///
    /// What speaks for one of them in the mesh goes with it. A gateway, whose tags are about nobody, speaks for those that stay.
    fn constrained<'a>(&self, found: &'a Found) -> (Cow<'a, Found>, usize) {
        let Some(constraint) = &self.constraints else {
            return (Cow::Borrowed(found), 0);
        };
        let matches = |instance: &Instance| constraint.matches(&instance.tags);
        let (kept, out): (Vec<_>, Vec<_>) = found.instances.iter().partition(|one| matches(one));
        let ids = |all: &[&'a Instance]| -> BTreeSet<&'a str> {
            all.iter().map(|instance| &*instance.id).collect()
        };
        let (stays, goes) = (ids(&kept), ids(&out));
        let speaks = |sidecar: &&Instance| {
            let subject = &**sidecar.beside.as_ref().unwrap_or(&sidecar.id);
            let is_gateway = sidecar.tags.is_empty() && !stays.is_empty();
            stays.contains(subject) || (!goes.contains(subject) && (is_gateway || matches(sidecar)))
        };
        let sidecars = found.sidecars.as_deref();
        let unusable = found.unusable.iter();
        let constrained = Found {
            key: found.key.clone(),
            mesh: found.mesh.clone(),
            instances: kept.into_iter().cloned().collect(),
            sidecars: sidecars.map(|all| all.iter().filter(speaks).cloned().collect()),
            unusable: unusable
                .filter(|(id, _)| !goes.contains(&**id))
                .cloned()
                .collect(),
            filtered: found.filtered,
            canary: found.canary,
        };
        (Cow::Owned(constrained), out.len())
    }
}

/// An upstream of the file that stands for a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name in the file.
    pub upstream: Arc<str>,
    /// Whether it is dialled through the sidecars.
    pub mesh: bool,
}

/// What is made of a service. The same, whatever the order of its instances and their tags (of a tag that is written
/// twice under one prefix, the last counts). It asks the system for nothing but whether an address is its own.
pub fn service(found: &Found, exposure: &Exposure) -> Service {
    let is_nowhere = found.is_nowhere();
    let (found, left_out) = exposure.constrained(found);
    let Apart {
        service: found,
        canaries,
        skipped,
    } = apart(found, &exposure.terms);
    let reading = Reading::of(&found, exposure);
    let canaries = canaries.iter().map(|found| Reading::of(found, exposure));
    let canaries: Vec<Reading<'_>> = canaries.collect();
    let mut all = canaries.iter().chain([&reading]);
    let is_asked = all.any(Reading::asks_for_mesh);
    let mesh = mesh(&reading, exposure, is_asked);
    let mut service = exposed(&reading, mesh, left_out);
    service.skipped.extend(skipped);
    wanted(&mut service, &reading, is_nowhere);
    for canaries in &canaries {
        let mesh = self::mesh(canaries, exposure, is_asked);
        join(&mut service, exposed(canaries, mesh, 0));
    }
    if found.filtered {
        for upstream in &mut service.upstreams {
            upstream.empty = (upstream.empty.as_ref()).map(|why| format!("{why}; {HIDDEN}").into());
        }
        service.notes.push(HIDDEN.into());
    }
    service.skipped.sort_by(order);
    service.skipped.dedup();
    service.notes.sort_unstable();
    service.notes.dedup();
    service
}

/// The upstreams of the file that stand for the service itself.
fn wanted(service: &mut Service, reading: &Reading<'_>, is_nowhere: bool) {
    let exposure = reading.exposure;
    let mut survey = Survey::new(exposure);
    let key = &reading.found.key;
    for wanted in exposure.wanted.get(&*key.name).into_iter().flatten() {
        let name = Arc::clone(&wanted.upstream);
        let mut upstream = match wanted.mesh {
            false => plain(name, survey.instances(reading, Wish::File)),
            true => in_mesh(name, survey.sidecars(reading, Wish::File), reading.found),
        };
        if is_nowhere {
            upstream.empty = Some(key.unknown());
        }
        service.upstreams.push(upstream);
    }
    service.skipped.append(&mut survey.skipped);
}

/// What tags ask for, of a service or of canaries.
fn exposed(reading: &Reading<'_>, mesh: Mesh, left_out: usize) -> Service {
    let (found, exposure) = (reading.found, reading.exposure);
    let mut survey = Survey::new(exposure);
    let mut skipped = unusable(reading);
    let servers = servers(reading, mesh != Mesh::Unasked, &mut skipped);
    let middlewares = definitions(reading, &mut skipped);
    let routers = Routers {
        reading,
        exposure,
        servers: &servers,
        middlewares: &middlewares,
        mesh,
    };
    let routes = routers.routes(&mut skipped);

    let mut upstreams = Vec::new();
    // What no router of its own exposes, no router of another service shall reach either.
    let mut asking = reading.readable().chain(reading.remains());
    if asking.any(|(_, tags)| !tags.routers.is_empty()) {
        let own = names::upstream(found, None);
        let whole = Whole::of(&servers, &names::own(found));
        if routers.mesh == Mesh::Unasked {
            let available = match &whole {
                Whole::Server(server) => survey.server(server),
                _ => survey.instances(reading, Wish::Tags),
            };
            // Not checked: few name it, and its instances would be checked twice.
            upstreams.push(ServiceUpstream {
                dialling: whole.dialling(),
                ..plain(own, available)
            });
            for (name, server) in &servers {
                let name = names::upstream(found, Some(name));
                upstreams.push(ServiceUpstream {
                    check: server.check.clone(),
                    dialling: server.dialling.clone(),
                    ..plain(name, survey.server(server))
                });
            }
        } else {
            // Whatever `tcp.services` it has, its sidecars speak for it on one port.
            let check = servers.values().find_map(|server| server.check.as_deref());
            let check = check.map(|check| {
                Arc::new(HealthCheck {
                    port: None,
                    ..check.clone()
                })
            });
            // Those that ask for nothing beyond the mesh are dialled by this one.
            let has_bare = servers.values().any(|server| !server.has_own_way());
            upstreams.push(ServiceUpstream {
                check: check.clone(),
                dialling: match has_bare {
                    true => Ok(Dialling::default()),
                    false => whole.dialling(),
                },
                ..in_mesh(own, survey.sidecars(reading, Wish::Tags), found)
            });
            for (name, server) in servers.iter().filter(|(_, server)| server.has_own_way()) {
                let name = names::upstream(found, Some(name));
                upstreams.push(ServiceUpstream {
                    check: check.clone(),
                    dialling: server.dialling.clone(),
                    ..in_mesh(name, survey.sidecars(reading, Wish::Tags), found)
                });
            }
        }
    }

    skipped.append(&mut survey.skipped);
    Service {
        key: found.key.clone(),
        upstreams,
        routes,
        middlewares,
        skipped,
        restored: None,
        notes: notes(reading, left_out),
    }
}

/// What is no failure: tags that mean nothing here, and instances that do not count.
fn notes(reading: &Reading<'_>, left_out: usize) -> Vec<Arc<str>> {
    let mut notes: BTreeSet<Arc<str>> = BTreeSet::new();
    let terms = &reading.exposure.terms;
    let counts = |read: &&Read<'_>| !matches!(read.verdict, Verdict::Disabled | Verdict::Silent);
    let counting = reading.tagged().iter().filter(counts);
    let tags = counting.flat_map(|read| &read.instance.tags);
    let tags: Vec<Arc<str>> = tags.cloned().collect();
    notes.extend(terms.foreign(&tags).as_deref().map(shortened));
    // Of a service that is all somebody else's there is nothing to say.
    if left_out > 0 && !reading.tagged().is_empty() {
        let note = format!(
            "{left_out} more of its instances do not match `constraints` in [{}], and do not count",
            reading.found.key.source.as_str()
        );
        notes.insert(note.into());
    }
    notes.into_iter().collect()
}

/// Whether the service is dialled through the mesh, as one instance of it asks for or a canary, and whether it can be.
fn mesh(reading: &Reading<'_>, exposure: &Exposure, is_asked: bool) -> Mesh {
    if !is_asked {
        return Mesh::Unasked;
    }
    let missing = match reading.found.sidecars.as_deref() {
        _ if reading.found.key.source == Source::Nomad => {
            "Nomad's own services have no sidecars: register it in Consul (`provider = \"consul\"`)"
        }
        _ if !exposure.mesh => {
            "this gateway has no identity there: write `mesh_identity` in [consul]"
        }
        Some([_, ..]) => return Mesh::Usable,
        Some([]) if reading.found.filtered => {
            "its sidecars are not seen: ACLs hide something of it from the gateway's token, which needs service:read on their names too"
        }
        Some([]) => "it has no sidecar there",
        None => "its sidecars are not known",
    };
    Mesh::Broken(format!(
        "it asks for the mesh (`consulcatalog.connect=true`), and {missing}"
    ))
}

fn plain(name: Arc<str>, available: Available) -> ServiceUpstream {
    let Available {
        endpoints,
        named,
        empty,
    } = available;
    ServiceUpstream {
        name,
        endpoints,
        named,
        mesh: None,
        empty,
        check: None,
        dialling: Ok(Dialling::default()),
    }
}

fn in_mesh(name: Arc<str>, available: Available, found: &Found) -> ServiceUpstream {
    ServiceUpstream {
        mesh: Some(found.mesh.clone()),
        ..plain(name, available)
    }
}

/// The instances of which nothing could be made, by their source or by their tags.
fn unusable(reading: &Reading<'_>) -> Vec<Skipped> {
    let by_source = reading.found.unusable.iter();
    let by_source = by_source.map(|(id, reason)| (id, shortened(reason)));
    let by_tags = reading.unreadable();
    let by_tags = by_tags.map(|(id, error)| (id, shortened(&error.to_string())));
    by_source
        .chain(by_tags)
        .map(|(id, reason)| Skipped {
            instance: Some(Arc::clone(id)),
            router: None,
            reason,
        })
        .collect()
}

fn order(a: &Skipped, b: &Skipped) -> Ordering {
    (&a.instance, &a.router, &a.reason).cmp(&(&b.instance, &b.router, &b.reason))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
