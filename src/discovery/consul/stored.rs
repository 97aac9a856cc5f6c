//! What is kept of Consul's services on the disk: as its answers told them, so that today's configuration judges them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::super::doubt::Sight;
use super::super::instance::{Found, Health, Instance};
use crate::config::Place;
use crate::name::MeshService;
use crate::snapshot::Source;
use crate::snapshot::service::ServiceKey;
use crate::state;

/// What was kept, as long as nothing newer has come.
#[derive(Debug)]
pub(super) struct Stored {
    /// When Consul last confirmed it.
    pub(super) confirmed: SystemTime,
    /// The last answer about the catalog: by this a later one is doubted.
    pub(super) sight: Sight,
    /// The names of sidecars, each with the services that they stand beside.
    pub(super) sidecars: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    pub(super) services: BTreeMap<Arc<str>, Found>,
}

/// What is kept of the catalog.
#[derive(Deserialize, Serialize)]
struct Catalog {
    sight: Sight,
    sidecars: BTreeMap<String, BTreeSet<String>>,
}

impl Stored {
    /// # Errors
    /// It was written by something else than this.
    pub(super) fn read(stored: &state::Stored, place: &Place) -> Result<Self, String> {
        let services = stored.entries::<Service<'_>>()?.into_iter();
        let services = services.map(|(name, service)| {
            let found = service.found(place, &name);
            (name, found)
        });
        let Catalog { sight, sidecars } = stored.note()?;
        let sidecars = sidecars.into_iter().map(|(name, beside)| {
            let beside = beside.into_iter().map(Into::into).collect();
            (name.into(), beside)
        });
        Ok(Self {
            confirmed: stored.confirmed,
            sight,
            sidecars: sidecars.collect(),
            services: services.collect(),
        })
    }
}

/// Keeps a service as it was read.
pub(super) fn put(part: &state::Part, found: &Found) {
    part.put(&found.key.name, &Service::of(found));
}

/// All that is kept is so, by word of this answer and what was read after it.
pub(super) fn confirm(
    part: &state::Part,
    sight: Sight,
    sidecars: &BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
) {
    let text = |text: &Arc<str>| text.to_string();
    let sidecars = sidecars.iter();
    part.confirm(&Catalog {
        sight,
        sidecars: sidecars
            .map(|(name, beside)| (text(name), beside.iter().map(text).collect()))
            .collect(),
    });
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

    fn found(self, place: &Place, name: &Arc<str>) -> Found {
        let all = |instances: Vec<Address<'a>>| -> Vec<Instance> {
            instances.into_iter().map(Address::instance).collect()
        };
        let unusable = self.unusable.into_iter();
        Found {
            key: ServiceKey {
                source: Source::Consul,
                place: place.label.clone(),
                name: Arc::clone(name),
            },
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

    #[test]
    fn a_service_comes_back_from_the_disk_as_it_was() {
        let instance = |id: &str, health, address: Option<&str>| Instance {
            id: id.into(),
            beside: address.map(|_| "n1/\"web\"".into()),
            address: address.map(|address| address.parse().unwrap()),
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
            let place = Place {
                label: found.key.place.clone(),
                ..Place::default()
            };
            assert_eq!(read.found(&place, &found.key.name), found);
        }
    }
}
