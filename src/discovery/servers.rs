//! The `tcp.services` of a service: which instances define each, and whose definition counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::dialling::{bytes, dialling};
use super::instance::Instance;
use super::reading::Reading;
use super::tags::{self, Port, Transport};
use crate::config::HealthCheck;
use crate::name::quoted;
use crate::snapshot::service::{Dialling, Skipped};

/// One of the `tcp.services`, as the newest of its instances defines it.
#[derive(Debug)]
pub(super) struct Server<'a> {
    /// The instances that define it so, each with the port that it asks for.
    pub(super) members: Vec<(&'a Instance, Option<u16>)>,
    /// Whether any of those asks for a port.
    pub(super) has_port: bool,
    /// How all of them are checked.
    pub(super) check: Option<Arc<HealthCheck>>,
    /// How it asks for its instances to be dialled, as the newest of them has it.
    pub(super) transport: Transport,
    /// What becomes of that; or why they must not be dialled.
    pub(super) dialling: Result<Dialling, Arc<str>>,
}

impl Server<'_> {
    /// Whether it asks for more than a connection; in the mesh, for more than a connection there.
    pub(super) fn has_own_way(&self) -> bool {
        self.dialling != Ok(Dialling::default())
    }
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
    let mut servers = BTreeMap::new();
    for (name, definitions) in defined {
        let newest = definitions
            .iter()
            .max_by_key(|(instance, _)| instance.rank());
        let Some((newest, counts)) = newest else {
            continue;
        };
        let wanted = bytes(&counts.transport, mesh);
        let mut server = Server {
            members: Vec::new(),
            has_port: definitions.iter().any(|(_, one)| one.port.is_some()),
            check: counts.check.clone().map(Arc::new),
            transport: counts.transport.clone(),
            dialling: dialling(&counts.transport, mesh),
        };
        for (instance, definition) in &definitions {
            let mut leave_out = |reason: String| {
                skipped.push(Skipped {
                    instance: Some(Arc::clone(&instance.id)),
                    router: None,
                    reason: super::shortened(&reason),
                });
            };
            if bytes(&definition.transport, mesh) != wanted {
                leave_out(format!(
                    "its tcp service {} is to be dialled in another way than the newer one of {}",
                    quoted(name),
                    newest.id
                ));
                continue;
            }
            match port(instance, definition.port.as_ref()) {
                Ok(port) => server.members.push((instance, port)),
                // Its sidecar decides, and that is told of the route.
                Err(_) if mesh => server.members.push((instance, None)),
                Err(reason) => leave_out(reason),
            }
        }
        servers.insert(name, server);
    }
    servers
}

/// The port that is dialled in place of the instance's own.
fn port(instance: &Instance, asked: Option<&Port>) -> Result<Option<u16>, String> {
    let name = match asked {
        None => return Ok(None),
        Some(Port::Number(port)) => return Ok(Some(*port)),
        Some(Port::Name(name)) => name,
    };
    let mut ports = instance.ports.iter();
    let found = ports.find(|(known, _)| **known == **name);
    match found {
        Some((_, port)) => Ok(Some(*port)),
        None => Err(format!(
            "`loadbalancer.server.port` names the port {}, and it was registered with none of this name",
            quoted(name)
        )),
    }
}
