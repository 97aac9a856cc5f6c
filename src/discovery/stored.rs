//! A service on the disk: as its source's answers told it, so that today's configuration judges it.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::instance::{Found, Health, Instance};
use crate::name::MeshService;
use crate::snapshot::service::ServiceKey;
use crate::state;

/// Every service of a part, by its name; `key` makes that what it is known by.
///
/// # Errors
/// It was written by something else than this.
pub(super) fn services(
    stored: &state::Stored,
    key: impl Fn(&Arc<str>) -> ServiceKey,
) -> Result<impl Iterator<Item = (Arc<str>, Found)>, String> {
    let services = stored.entries::<Service<'_>>()?.into_iter();
    let services: Vec<_> = services
        .map(|(name, service)| {
            let found = service.found(key(&name));
            (name, found)
        })
        .collect();
    Ok(services.into_iter())
}

/// Keeps a service as it was read.
pub(super) fn put(part: &state::Part, found: &Found) {
    part.put(&found.key.name, &Service::of(found));
}

/// A service on the disk.
#[derive(Deserialize, Serialize)]
struct Service<'a> {
    #[serde(borrow, default)]
    partition: Option<Cow<'a, str>>,
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(borrow)]
    datacenter: Cow<'a, str>,
    #[serde(borrow)]
    service: Cow<'a, str>,
    #[serde(borrow)]
    instances: Vec<Address<'a>>,
    /// `None` where nobody had looked.
    #[serde(borrow)]
    sidecars: Option<Vec<Address<'a>>>,
    #[serde(borrow)]
    unusable: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    filtered: bool,
}

/// An [`Instance`] on the disk.
#[derive(Deserialize, Serialize)]
struct Address<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    beside: Option<Cow<'a, str>>,
    #[serde(borrow)]
    address: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    ports: Vec<(Cow<'a, str>, u16)>,
    #[serde(borrow)]
    tags: Vec<Cow<'a, str>>,
    health: Checks,
    weight_passing: u32,
    weight_warning: u32,
    modified: u64,
}

/// A [`Health`] on the disk.
#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Checks {
    Passing,
    Warning,
    Critical,
    Maintenance,
}

impl<'a> Service<'a> {
    fn of(found: &'a Found) -> Self {
        let all = |instances: &'a [Instance]| instances.iter().map(Address::of).collect();
        let unusable = found.unusable.iter();
        Self {
            partition: found.mesh.partition.as_deref().map(Cow::Borrowed),
            namespace: Cow::Borrowed(&found.mesh.namespace),
            datacenter: Cow::Borrowed(&found.mesh.datacenter),
            service: Cow::Borrowed(&found.mesh.service),
            instances: all(&found.instances),
            sidecars: found.sidecars.as_deref().map(all),
            unusable: unusable
                .map(|(id, why)| (Cow::Borrowed(&**id), Cow::Borrowed(&**why)))
                .collect(),
            filtered: found.filtered,
        }
    }

    fn found(self, key: ServiceKey) -> Found {
        let all = |instances: Vec<Address<'a>>| -> Vec<Instance> {
            instances.into_iter().map(Address::instance).collect()
        };
        let unusable = self.unusable.into_iter();
        Found {
            key,
            mesh: MeshService {
                partition: self.partition.map(Into::into),
                namespace: self.namespace.into(),
                datacenter: self.datacenter.into(),
                service: self.service.into(),
            },
            instances: all(self.instances),
            sidecars: self.sidecars.map(all),
            unusable: unusable.map(|(id, why)| (id.into(), why.into())).collect(),
            filtered: self.filtered,
            canary: None,
        }
    }
}

impl<'a> Address<'a> {
    fn of(instance: &'a Instance) -> Self {
        Self {
            id: Cow::Borrowed(&instance.id),
            beside: instance.beside.as_deref().map(Cow::Borrowed),
            address: (instance.address.as_ref()).map(|address| Cow::Owned(address.to_string())),
            ports: (instance.ports.iter())
                .map(|(name, port)| (Cow::Borrowed(&**name), *port))
                .collect(),
            tags: instance
                .tags
                .iter()
                .map(|tag| Cow::Borrowed(&**tag))
                .collect(),
            health: match instance.health {
                Health::Passing => Checks::Passing,
                Health::Warning => Checks::Warning,
                Health::Critical => Checks::Critical,
                Health::Maintenance => Checks::Maintenance,
            },
            weight_passing: instance.weight_passing,
            weight_warning: instance.weight_warning,
            modified: instance.modified,
        }
    }

    fn instance(self) -> Instance {
        Instance {
            id: self.id.into(),
            beside: self.beside.map(Into::into),
            // What is none was not written by us, and is dialled nowhere.
            address: self.address.and_then(|address| address.parse().ok()),
            ports: (self.ports.into_iter())
                .map(|(name, port)| (name.into(), port))
                .collect(),
            tags: self.tags.into_iter().map(Into::into).collect(),
            health: match self.health {
                Checks::Passing => Health::Passing,
                Checks::Warning => Health::Warning,
                Checks::Critical => Health::Critical,
                Checks::Maintenance => Health::Maintenance,
            },
            weight_passing: self.weight_passing,
            weight_warning: self.weight_warning,
            modified: self.modified,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::snapshot::Source;

    #[test]
    fn a_service_comes_back_from_the_disk_as_it_was() {
        let instance = |id: &str, health, address: Option<&str>| Instance {
            id: id.into(),
            beside: address.map(|_| "n1/\"web\"".into()),
            address: address.map(|address| address.parse().unwrap()),
            ports: vec![("ü\"".into(), 22)],
            tags: vec!["traefik.enable=true".into(), "ü \"\\\n\0".into()],
            health,
            weight_passing: u32::MAX,
            weight_warning: 0,
            modified: u64::MAX,
        };
        let found = Found {
            key: ServiceKey {
                source: Source::Consul,
                place: Some("dc2.team".into()),
                name: "Web \"1\"".into(),
            },
            mesh: MeshService {
                partition: Some("west".into()),
                namespace: "default".into(),
                datacenter: "dc1".into(),
                service: "Web \"1\"".into(),
            },
            instances: vec![
                instance("n1/a", Health::Passing, Some("10.0.0.1:80")),
                instance("n1/b", Health::Warning, Some("[fe80::1]:80")),
                instance("n1/c", Health::Critical, Some("db.internal:5432")),
                instance("n1/d", Health::Maintenance, None),
            ],
            sidecars: Some(vec![instance("n1/e", Health::Passing, None)]),
            unusable: vec![("n1/c".into(), "no \"port\"".into())],
            filtered: true,
            canary: None,
        };
        let bare = Found {
            instances: Vec::new(),
            sidecars: None,
            ..found.clone()
        };
        for found in [found, bare] {
            let text = serde_json::to_string(&Service::of(&found)).unwrap();
            let read: Service<'_> = serde_json::from_str(&text).unwrap();
            assert_eq!(read.found(found.key.clone()), found);
        }
    }
}
