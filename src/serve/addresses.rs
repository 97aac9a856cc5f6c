//! What upstreams' names last resolved to, kept on the disk for a start without DNS.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::name::HostName;
use crate::state::{Opened, Part, State, Stored};

/// The part of the state, and what is served from there. Without one it keeps nothing.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    part: Option<Part>,
    stored: BTreeMap<HostName, Kept>,
    /// The names that are served from there, and when each had resolved to that.
    restored: BTreeMap<HostName, SystemTime>,
    refused: Option<String>,
}

/// A name on the disk.
#[derive(Debug, Deserialize, Serialize)]
struct Kept {
    addresses: Vec<IpAddr>,
    /// In seconds since 1970.
    confirmed: u64,
}

impl Kept {
    fn confirmed(&self) -> SystemTime {
        let since = Duration::from_secs(self.confirmed);
        let at = SystemTime::UNIX_EPOCH.checked_add(since);
        at.unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

impl Addresses {
    pub(super) fn of(state: Option<&State>, name: &'static str) -> Self {
        let Some(Opened { part, stored }) = state.map(|state| state.open(name, "")) else {
            return Self::default();
        };
        let read = |stored: Stored| {
            let entries = stored.entries::<Kept>()?.into_iter();
            let named = entries.map(|(name, kept)| {
                let name = HostName::parse(&name).map_err(|error| error.to_string())?;
                Ok((name, kept))
            });
            named.collect::<Result<_, String>>()
        };
        let stored = stored.and_then(|stored| stored.map_or(Ok(BTreeMap::new()), read));
        let refused = stored.as_ref().err().cloned();
        Self {
            part: Some(part),
            stored: stored.unwrap_or_default(),
            restored: BTreeMap::new(),
            refused,
        }
    }

    /// What a name resolves to now.
    pub(super) fn put(&mut self, name: &HostName, addresses: &[IpAddr]) {
        self.stored.remove(name);
        self.restored.remove(name);
        if let Some(part) = &self.part {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let kept = Kept {
                addresses: addresses.to_vec(),
                confirmed: since.unwrap_or_default().as_secs(),
            };
            part.put(name.as_str(), &kept);
            part.confirm(&());
        }
    }

    /// What a name resolved to before this process, if that is to be served.
    pub(super) fn restore(&mut self, name: &HostName) -> Option<Vec<IpAddr>> {
        let kept = self.stored.remove(name)?;
        let confirmed = kept.confirmed();
        if let Err(why) = self.part.as_ref()?.judge(confirmed) {
            tracing::error!(%name, "{why}");
            self.refused = Some(why);
            return None;
        }
        tracing::warn!(%name, "an upstream's name does not resolve, and is served from the disk");
        self.restored.insert(name.clone(), confirmed);
        Some(kept.addresses)
    }

    /// Keeps these names only.
    pub(super) fn retain(&mut self, wanted: &BTreeSet<HostName>) {
        self.stored.retain(|name, _| wanted.contains(name));
        self.restored.retain(|name, _| wanted.contains(name));
        if let Some(part) = &self.part {
            part.retain(|name| wanted.contains(name));
        }
    }

    /// The names that are served from the disk, and since when.
    pub(super) fn restored(&self) -> &BTreeMap<HostName, SystemTime> {
        &self.restored
    }

    /// Why nothing, or not all, is served from there.
    pub(super) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }
}
