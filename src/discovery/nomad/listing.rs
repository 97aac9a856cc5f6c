//! What the instances of a service say of it, and which of them cannot be used.

use std::collections::{BTreeMap, btree_map};
use std::sync::Arc;

use super::super::instance::{self, Found, Health, Instance};
use super::answers::{Registration, Registrations};
use crate::config::EndpointAddress;
use crate::name::{MeshService, quoted};
use crate::snapshot::Source;
use crate::snapshot::service::ServiceKey;

/// Of one service as many instances are taken; the rest are told of in one line.
///
/// 10,000: more than any cluster runs of one service, and a snapshot of them is still compiled in milliseconds.
const MOST_INSTANCES: usize = 10_000;

/// As many entries of one service are told of one by one when they cannot be used; the rest in one line.
const MOST_UNUSABLE: usize = 50;

/// As much of a node's ID stands before an instance's, as in Nomad's own lists.
const NODE_SHOWN: usize = 8;

/// The service of this key, which Nomad calls `name` in `namespace`.
///
/// Nomad does not say how its instances are: they count as passing, and one that does not answer is passed over when it is
/// dialled. Nor does it say which of them are on this machine: `is_local_allowed` is for the operator to say, who may know that
/// all are.
pub(super) fn found(
    key: &Arc<str>,
    (namespace, name): (&str, &str),
    registrations: &Registrations,
    is_local_allowed: bool,
) -> Found {
    let mut taken: BTreeMap<Arc<str>, Instance> = BTreeMap::new();
    let mut unusable: Vec<(Arc<str>, Arc<str>)> = Vec::new();
    for entry in registrations.0.iter().flatten() {
        let id = id(entry);
        if entry.service_name != name || entry.namespace != namespace {
            let other = quoted(&format!("{}.{}", entry.service_name, entry.namespace));
            unusable.push((id, format!("it is of another service, {other}").into()));
            continue;
        }
        match taken.entry(Arc::clone(&id)) {
            btree_map::Entry::Occupied(_) => unusable.push((id, "it is listed twice".into())),
            btree_map::Entry::Vacant(free) => {
                let address = match &entry.broken {
                    Some(why) => Err(why.clone()),
                    None => dialled(entry, is_local_allowed),
                };
                let address = address.map_err(|why| unusable.push((Arc::clone(&id), why.into())));
                free.insert(Instance {
                    id,
                    beside: None,
                    address: address.ok(),
                    ports: Vec::new(),
                    tags: entry.tags.iter().map(|tag| tag.as_str().into()).collect(),
                    health: Health::default(),
                    weight_passing: 1,
                    weight_warning: 1,
                    modified: entry.modify_index,
                });
            }
        }
    }
    unusable.sort_unstable();
    let left_out =
        unusable.len().saturating_sub(MOST_UNUSABLE) + taken.len().saturating_sub(MOST_INSTANCES);
    unusable.truncate(MOST_UNUSABLE);
    if left_out > 0 {
        let why = format!("{left_out} more entries are left out");
        unusable.push((Arc::clone(key), why.into()));
    }
    Found {
        key: ServiceKey {
            place: None,
            source: Source::Nomad,
            name: Arc::clone(key),
        },
        // It is in none, and exposed as such.
        mesh: MeshService {
            partition: None,
            namespace: namespace.into(),
            datacenter: "".into(),
            service: name.into(),
        },
        instances: taken.into_values().take(MOST_INSTANCES).collect(),
        sidecars: None,
        unusable,
        filtered: false,
        canary: None,
    }
}

fn dialled(entry: &Registration, is_local_allowed: bool) -> Result<EndpointAddress, String> {
    let address = instance::address(&entry.address, entry.port)?;
    if let EndpointAddress::Ip(ip) = address
        && !is_local_allowed
    {
        instance::means_the_same_here(ip, || None, "nomad")?;
    }
    Ok(address)
}

/// `NODE/ID`.
fn id(entry: &Registration) -> Arc<str> {
    let node: String = entry.node_id.chars().take(NODE_SHOWN).collect();
    format!("{node}/{}", entry.id).into()
}
