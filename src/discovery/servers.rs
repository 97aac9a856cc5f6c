//! The `tcp.services` of a service: which instances define each, and whose definition counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::dialling::{bytes, dialling};
use super::instance::Instance;
use super::reading::Reading;
use super::tags::{self, Port, Transport};
use crate::config::HealthCheck;
use crate::name::quoted;
use crate::rule::normalized;
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

/// What others reach who name the service alone, as in `service=web@consul`.
#[derive(Debug)]
pub(super) enum Whole<'s, 'a> {
    /// It has no `tcp.services`: its instances, as they are registered.
    Plain,
    /// The one of them that is called like it, or the only one.
    Server(&'s Server<'a>),
    /// Several, of which none is meant more than the others, and all are dialled in this way.
    Alike(&'s Server<'a>),
    /// The same where they are dialled in different ways.
    Unclear,
}

impl<'s, 'a> Whole<'s, 'a> {
    /// What a service called `own` is to others: nothing weaker than what its own tags ask for.
    pub(super) fn of(servers: &'s BTreeMap<&str, Server<'a>>, own: &str) -> Self {
        let mut all = servers.iter();
        let is_own = |name: &str| {
            name.eq_ignore_ascii_case(own) || name.eq_ignore_ascii_case(&normalized(own))
        };
        if let Some((_, server)) = all.clone().find(|(name, _)| is_own(name)) {
            return Self::Server(server);
        }
        let Some((_, first)) = all.next() else {
            return Self::Plain;
        };
        match servers.len() {
            1 => Self::Server(first),
            _ if all.all(|(_, other)| other.dialling == first.dialling) => Self::Alike(first),
            _ => Self::Unclear,
        }
    }

    /// How it is dialled; or why it must not be.
    pub(super) fn dialling(&self) -> Result<Dialling, Arc<str>> {
        match self {
            Self::Plain => Ok(Dialling::default()),
            Self::Server(server) | Self::Alike(server) => server.dialling.clone(),
            Self::Unclear => Err(
                "the service has several tcp services, which are to be dialled in different ways: name one, as in `service=web/NAME@consul`"
                    .into(),
            ),
        }
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
