//! The `tcp.services` of a service: which instances define each, and whose definition counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::instance::Instance;
use super::reading::Reading;
use super::tags::{self, Unsupported};
use crate::config::HealthCheck;
use crate::name::quoted;
use crate::snapshot::service::Skipped;

/// One of the `tcp.services`, as the newest of its instances defines it.
#[derive(Debug)]
pub(super) struct Server<'a> {
    /// The instances that define it so, each with the port that it asks for.
    pub(super) members: Vec<(&'a Instance, Option<u16>)>,
    /// How all of them are checked.
    pub(super) check: Option<Arc<HealthCheck>>,
    /// What it asks for and does not get: of what is vital, the same for each member.
    pub(super) unsupported: BTreeSet<Unsupported>,
}

/// Every one, by name. An instance that wants to be dialled in another way than the newest is no member, and is listed:
/// it must not get bytes that it cannot read, or in the clear. The port is each instance's own, as in Traefik.
pub(super) fn servers<'r, 'a>(
    reading: &'r Reading<'a>,
    mesh: bool,
    skipped: &mut Vec<Skipped>,
) -> BTreeMap<&'r str, Server<'a>> {
    let mut defined: BTreeMap<&str, Vec<(&'a Instance, &tags::Server)>> = BTreeMap::new();
    for (instance, tags) in reading.readable() {
        for (name, server) in &tags.services {
            defined.entry(name).or_default().push((instance, server));
        }
    }
    let vital = |server: &tags::Server| -> Vec<Unsupported> {
        let all = server.unsupported.iter().copied();
        all.filter(|asked| asked.is_vital(mesh)).collect()
    };
    let mut servers = BTreeMap::new();
    for (name, definitions) in defined {
        let newest = definitions
            .iter()
            .max_by_key(|(instance, _)| instance.rank());
        let Some((newest, counts)) = newest else {
            continue;
        };
        let wanted = vital(counts);
        let mut server = Server {
            members: Vec::new(),
            check: counts.check.clone().map(Arc::new),
            unsupported: BTreeSet::new(),
        };
        for (instance, definition) in &definitions {
            if vital(definition) == wanted {
                server.members.push((instance, definition.port));
                server.unsupported.extend(&definition.unsupported);
            } else {
                skipped.push(Skipped {
                    instance: Some(Arc::clone(&instance.id)),
                    router: None,
                    reason: super::shortened(&format!(
                        "its tcp service {} is to be dialled in another way than the newer one of {}",
                        quoted(name),
                        newest.id
                    )),
                });
            }
        }
        servers.insert(name, server);
    }
    servers
}
