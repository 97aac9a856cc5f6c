//! What is kept of one of Consul's catalogs on the disk, beside its services.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::super::doubt::Sight;
use super::super::instance::Found;
use super::super::stored;
pub(super) use super::super::stored::put;
use crate::config::Place;
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
        let services = stored::services(stored, |name| ServiceKey {
            source: Source::Consul,
            place: place.label.clone(),
            name: Arc::clone(name),
        })?;
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
