//! What the entries of a service say of it: its instances, what stands for it in the mesh, and what cannot be used.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::super::instance::{self, Found, Instance};
use super::answers::{Check, Entries, Entry, Node, Service, Unreadable};
use crate::config::{AddressTag, EndpointAddress, Place};
use crate::name::{MeshService, quoted};
use crate::net::dial::is_of_this_machine;
use crate::snapshot::Source;
use crate::snapshot::service::ServiceKey;

/// Of one service as many instances are taken; the rest are told of in one line.
///
/// 10,000: more than any cluster runs of one service, and a snapshot of them is still compiled in milliseconds.
const MOST_INSTANCES: usize = 10_000;

/// As many entries of one service are told of one by one when they cannot be used; the rest in one line.
const MOST_UNUSABLE: usize = 50;

/// Which of an instance's addresses is dialled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addressing {
    /// The tagged address that is, where there is one.
    pub tag: Option<AddressTag>,
    /// Whether a loopback address of another node is, or a link-local one: here it means something else.
    pub is_local_allowed: bool,
}

/// A service as its entries tell it, and what they tell of others.
#[derive(Debug, PartialEq)]
pub(super) struct Listing {
    pub(super) found: Found,
    /// The nodes whose checks count for it.
    pub(super) nodes: BTreeSet<Arc<str>>,
    /// The names under which its sidecars and gateways are in the catalog: their checks count for it too.
    pub(super) speakers: BTreeSet<Arc<str>>,
    /// The services that instances of this name stand beside, where all are sidecars.
    pub(super) stands_for: BTreeSet<Arc<str>>,
    /// Where it was asked, if an entry told.
    pub(super) datacenter: Option<Arc<str>>,
    pub(super) newest: Newest,
    /// Whether no instance is listed, of any kind and in any state.
    pub(super) is_empty: bool,
    /// Of how many entries nobody can say what they ask for.
    pub(super) unreadable: usize,
}

/// The index at which something of it changed last. Where that is beyond the last answer of a poll, it has been read in a state
/// that the poll has not told of, and never will if it came and went between two answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Newest {
    /// One of its checks.
    pub(super) check: u64,
    /// One of its instances, or of what speaks for it.
    pub(super) instance: u64,
}

/// What the answers of this catalog say of the service `name`; `connect` is `None` where nobody has looked. `datacenter` is
/// the one that was asked, for a service that has no entry to tell it.
pub(super) fn listing(
    place: &Place,
    name: &Arc<str>,
    service: &Entries,
    connect: Option<&Entries>,
    datacenter: &Arc<str>,
    addressing: Addressing,
) -> Listing {
    let mut lister = Lister {
        addressing,
        listing: Listing {
            found: Found {
                key: ServiceKey {
                    source: Source::Consul,
                    place: place.label.clone(),
                    name: Arc::clone(name),
                },
                mesh: MeshService {
                    partition: place.partition.as_deref().and_then(partition),
                    namespace: place.namespace.as_deref().unwrap_or("default").into(),
                    datacenter: Arc::clone(datacenter),
                    service: Arc::clone(name),
                },
                instances: Vec::new(),
                sidecars: None,
                unusable: Vec::new(),
                filtered: false,
                canary: None,
            },
            nodes: BTreeSet::new(),
            speakers: BTreeSet::new(),
            stands_for: BTreeSet::new(),
            datacenter: None,
            newest: Newest::default(),
            is_empty: service.0.is_empty(),
            unreadable: 0,
        },
        left_out: 0,
    };
    lister.listing.found.instances = lister.read(service, Lister::instance);
    lister.listing.found.sidecars = connect.map(|connect| lister.read(connect, Lister::speaker));
    let mut listing = lister.listing;
    if !listing.found.instances.is_empty() {
        listing.stands_for.clear();
    }
    listing.found.unusable.sort_unstable();
    if lister.left_out > 0 {
        let why = format!("{} more entries are left out", lister.left_out);
        let unusable = &mut listing.found.unusable;
        unusable.push((Arc::clone(name), why.into()));
    }
    listing
}

struct Lister {
    addressing: Addressing,
    listing: Listing,
    /// Entries that are told of in one line.
    left_out: usize,
}

impl Lister {
    /// Each entry, by its id: Consul's order means nothing, and must not look like a change.
    fn read(
        &mut self,
        entries: &Entries,
        take: fn(&mut Self, &Entry) -> Option<Instance>,
    ) -> Vec<Instance> {
        let mut taken = BTreeMap::new();
        for (place, entry) in entries.0.iter().enumerate() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(Unreadable { id, why }) => {
                    let id = id
                        .clone()
                        .unwrap_or_else(|| format!("entry {place}").into());
                    self.unusable(id, why.clone());
                    self.listing.unreadable += 1;
                    continue;
                }
            };
            self.learn(entry);
            let Some(instance) = take(self, entry) else {
                continue;
            };
            match taken.entry(Arc::clone(&instance.id)) {
                btree_map::Entry::Vacant(place) => {
                    place.insert(instance);
                }
                btree_map::Entry::Occupied(_) if instance.address.is_some() => {
                    self.unusable(instance.id, "it is listed twice".to_owned())
                }
                // It has been told of.
                btree_map::Entry::Occupied(_) => {}
            }
        }
        let cut = taken.values().skip(MOST_INSTANCES);
        // One without an address has been told of.
        self.left_out += cut.filter(|instance| instance.address.is_some()).count();
        taken.into_values().take(MOST_INSTANCES).collect()
    }

    fn learn(&mut self, entry: &Entry) {
        let listing = &mut self.listing;
        listing.nodes.insert(entry.node.node.as_str().into());
        let checks = entry.checks.iter().map(|check| check.modify_index);
        let newest = &mut listing.newest;
        newest.check = checks.fold(newest.check, u64::max);
        newest.instance = newest.instance.max(entry.service.modify_index);
        if *entry.service.service != *listing.found.key.name {
            let speaker = entry.service.service.as_str().into();
            listing.speakers.insert(speaker);
        }
        if !entry.node.datacenter.is_empty() {
            let datacenter: Arc<str> = entry.node.datacenter.as_str().into();
            listing.found.mesh.datacenter = Arc::clone(&datacenter);
            listing.datacenter = Some(datacenter);
        }
        if !entry.service.partition.is_empty() {
            listing.found.mesh.partition = partition(&entry.service.partition);
        }
        if !entry.service.namespace.is_empty() {
            listing.found.mesh.namespace = entry.service.namespace.as_str().into();
        }
    }

    /// An instance of the service itself. Proxies and gateways are in the catalog as services, and are none; what a proxy's tags
    /// say is about its service.
    fn instance(&mut self, entry: &Entry) -> Option<Instance> {
        match entry.service.kind.as_str() {
            "" => self
                .is_ours(entry, &entry.service.service)
                .then(|| self.known(entry)),
            "connect-proxy" => {
                let destination = entry.service.proxy.destination_service_name.as_str();
                if !destination.is_empty() {
                    self.listing.stands_for.insert(destination.into());
                }
                None
            }
            kind => {
                self.no_kind_to_dial(entry, kind);
                None
            }
        }
    }

    /// What is dialled over the mesh for the service.
    fn speaker(&mut self, entry: &Entry) -> Option<Instance> {
        let proxy = &entry.service.proxy;
        match entry.service.kind.as_str() {
            "" if entry.service.connect.native => self
                .is_ours(entry, &entry.service.service)
                .then(|| self.usable(entry, None))?,
            "connect-proxy" => {
                let beside = Some(proxy.destination_service_id.as_str())
                    .filter(|id| !id.is_empty())
                    .map(|id| format!("{}/{id}", entry.node.node).into());
                self.is_ours(entry, &proxy.destination_service_name)
                    .then(|| self.usable(entry, beside))?
            }
            "terminating-gateway" => {
                let mut gateway = self.usable(entry, None)?;
                // It stands for many services, and its tags are about none of them.
                gateway.tags.clear();
                Some(gateway)
            }
            kind => {
                self.no_kind_to_dial(entry, kind);
                None
            }
        }
    }

    /// Consul finds names in any case, but proves them in theirs.
    fn is_ours(&mut self, entry: &Entry, service: &str) -> bool {
        let name = &self.listing.found.key.name;
        if service == &**name {
            return true;
        }
        // What differs in case only is another service of the catalog, and listed there.
        if !service.eq_ignore_ascii_case(name) {
            let why = format!("it is of another service, {}", quoted(service));
            self.unusable(entry.id(), why);
        }
        false
    }

    /// What speaks for the service, if it can be dialled.
    fn usable(&mut self, entry: &Entry, beside: Option<Arc<str>>) -> Option<Instance> {
        let known = Instance {
            beside,
            ..self.known(entry)
        };
        known.address.is_some().then_some(known)
    }

    /// An instance, though it may not be dialled: what its tags ask for, its sidecar may do, and no other route may.
    fn known(&mut self, entry: &Entry) -> Instance {
        let id = entry.id();
        let service = &entry.service;
        let address = match &entry.broken {
            Some(why) => Err(why.clone()),
            None => self.addressing.dialled(&entry.node, service),
        };
        let address = address.map_err(|why| self.unusable(Arc::clone(&id), why));
        let health = entry.checks.iter().map(Check::health).max();
        Instance {
            id,
            beside: None,
            address: address.ok(),
            ports: (service.ports.iter())
                .filter_map(|port| {
                    Some((port.name.as_str().into(), u16::try_from(port.port).ok()?))
                })
                .collect(),
            health: health.unwrap_or_default(),
            weight_passing: weight(service.weights.passing),
            weight_warning: weight(service.weights.warning),
            modified: service.modify_index,
            tags: service.tags.iter().map(|tag| tag.as_str().into()).collect(),
        }
    }

    fn no_kind_to_dial(&mut self, entry: &Entry, kind: &str) {
        let why = format!("its kind {} is none to dial", quoted(kind));
        self.unusable(entry.id(), why);
    }

    fn unusable(&mut self, id: Arc<str>, why: String) {
        let unusable = &mut self.listing.found.unusable;
        if unusable.len() < MOST_UNUSABLE {
            unusable.push((id, why.into()));
        } else {
            self.left_out += 1;
        }
    }
}

impl Addressing {
    /// Where an instance is dialled: `consul-virtual` is no tag to choose, as it leads nowhere without a transparent proxy.
    fn dialled(self, node: &Node, service: &Service) -> Result<EndpointAddress, String> {
        if !service.peer_name.is_empty() {
            let peer = quoted(&service.peer_name);
            return Err(format!(
                "it is imported from the peer {peer}, and services of peers are not supported"
            ));
        }
        if !service.socket_path.is_empty() {
            return Err("it listens on a UNIX socket of its node".to_owned());
        }
        let (text, port) = self.chosen(node, service);
        if text.is_empty() {
            return Err("it has no address, and neither has its node".to_owned());
        }
        let address = instance::address(text, port)?;
        if let EndpointAddress::Ip(ip) = address
            && !self.is_local_allowed
        {
            instance::means_the_same_here(ip, || Some(is_here(&node.address)), "consul")?;
        }
        Ok(address)
    }

    /// The service's own address with this tag; where it has no address of its own, its node's; else the plain one.
    fn chosen<'a>(self, node: &'a Node, service: &'a Service) -> (&'a str, i64) {
        let port = service.default_port();
        let tag = self.tag.map(AddressTag::as_str);
        let own = tag.and_then(|tag| service.tagged_addresses.get(tag)?.as_ref());
        if let Some(own) = own.filter(|own| !own.address.is_empty()) {
            // Consul asks for both, and takes a port of 0.
            let port = if own.port == 0 { port } else { own.port };
            return (&own.address, port);
        }
        if !service.address.is_empty() {
            return (&service.address, port);
        }
        let nodes = tag.and_then(|tag| node.tagged_addresses.get(tag)?.as_ref());
        let nodes = nodes.filter(|address| !address.is_empty());
        (nodes.unwrap_or(&node.address), port)
    }
}

/// Whether a node is this machine. One that has a loopback address itself is that of a development agent.
fn is_here(node: &str) -> bool {
    let ip: Option<IpAddr> = node.parse().ok();
    ip.is_some_and(|ip| ip.is_loopback() || is_of_this_machine(SocketAddr::new(ip, 1)))
}

/// A partition as SPIFFE IDs say it: not at all, if it is the default one.
fn partition(name: &str) -> Option<Arc<str>> {
    (name != "default").then(|| name.into())
}

fn weight(weight: i64) -> u32 {
    u32::try_from(weight.max(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
