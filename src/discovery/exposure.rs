//! What of a service is exposed: from its instances and their tags to its routes and upstreams, and why not.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::endpoints::{Available, Survey, Wish};
use super::instance::Found;
use super::names;
use super::reading::Reading;
use super::routes::{Mesh, Routers};
use super::servers::servers;
use super::shortened;
use crate::snapshot::Source;
use crate::snapshot::service::{Service, ServiceUpstream, Skipped};

/// What the operator lets tags do, and wants of services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exposure {
    /// The entry points of tags that are ours: a router that names others only is somebody else's.
    pub entry_points: Vec<String>,
    /// Whether a tag may make a route for clients that name no host.
    pub allow_default_from_tags: bool,
    /// The addresses that are bound: none of them becomes an endpoint.
    pub own: Arc<[SocketAddr]>,
    /// The upstreams of the file that stand for a service, by its name.
    pub wanted: BTreeMap<String, Vec<Wanted>>,
    /// Whether the gateway has, or will have, an identity in the mesh.
    pub mesh: bool,
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
    let reading = Reading::of(found);
    let mesh = mesh(&reading, exposure);
    let mut survey = Survey::new(&exposure.own);
    let mut skipped = unusable(&reading);
    let servers = servers(&reading, mesh != Mesh::Unasked, &mut skipped);
    let routers = Routers {
        reading: &reading,
        exposure,
        servers: &servers,
        mesh,
    };
    let routes = routers.routes(&mut skipped);

    let mut upstreams = Vec::new();
    // What no router of its own exposes, no router of another service shall reach either.
    let mut asking = reading.readable().chain(reading.remains());
    if asking.any(|(_, tags)| !tags.routers.is_empty()) {
        let own = names::upstream(&found.key, None);
        if routers.mesh == Mesh::Unasked {
            upstreams.push(plain(own, survey.instances(&reading, Wish::Tags)));
            for (name, server) in &servers {
                let name = names::upstream(&found.key, Some(name));
                upstreams.push(plain(name, survey.server(server)));
            }
        } else {
            upstreams.push(in_mesh(own, survey.sidecars(&reading, Wish::Tags), found));
        }
    }
    for wanted in exposure.wanted.get(&*found.key.name).into_iter().flatten() {
        let name = Arc::clone(&wanted.upstream);
        let mut upstream = match wanted.mesh {
            false => plain(name, survey.instances(&reading, Wish::File)),
            true => in_mesh(name, survey.sidecars(&reading, Wish::File), found),
        };
        if found.is_nowhere() {
            upstream.empty = Some(found.key.unknown());
        }
        upstreams.push(upstream);
    }

    skipped.append(&mut survey.skipped);
    skipped.sort_by(order);
    skipped.dedup();
    Service {
        key: found.key.clone(),
        upstreams,
        routes,
        skipped,
    }
}

/// Whether the service is dialled through the mesh, and whether it can be.
fn mesh(reading: &Reading<'_>, exposure: &Exposure) -> Mesh {
    if !reading.asks_for_mesh() {
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
        Some([]) => "it has no sidecar there",
        None => "its sidecars are not known",
    };
    Mesh::Broken(format!(
        "it asks for the mesh (`consulcatalog.connect=true`), and {missing}"
    ))
}

fn plain(name: Arc<str>, Available { endpoints, empty }: Available) -> ServiceUpstream {
    ServiceUpstream {
        name,
        endpoints,
        mesh: None,
        empty,
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
