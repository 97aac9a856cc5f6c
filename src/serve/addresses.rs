//! What upstreams' names last resolved to, kept on the disk for a start without DNS.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::net::IpAddr;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::name::HostName;
use crate::state::{Opened, Part, State, Stored};

/// The part of the state, and what is served from there. Without one it keeps nothing.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    part: Option<Part>,
    stored: BTreeMap<HostName, Kept>,
    /// What no answer has come for.
    restored: BTreeMap<HostName, Restored>,
    /// Those of services, which are not known at a start: what the disk has of them stays until it is too old.
    served_before: BTreeSet<HostName>,
    /// The same of those that have been answered.
    served: BTreeSet<HostName>,
    refused: Option<String>,
}

/// What a name had resolved to, then; and why that is not served, if it is not.
#[derive(Debug)]
struct Restored {
    addresses: Vec<IpAddr>,
    confirmed: SystemTime,
    refused: Option<String>,
}

/// A name on the disk.
#[derive(Debug, Deserialize, Serialize)]
struct Kept {
    addresses: Vec<IpAddr>,
    /// In seconds since 1970.
    confirmed: u64,
    /// Whether a service was registered with it.
    #[serde(default)]
    of_service: bool,
}

impl Kept {
    fn confirmed(&self) -> SystemTime {
        let since = Duration::from_secs(self.confirmed);
        let at = SystemTime::UNIX_EPOCH.checked_add(since);
        at.unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

impl Addresses {
    pub(super) fn of(state: Option<&State>, name: &str) -> Self {
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
        let stored: BTreeMap<HostName, Kept> = stored.unwrap_or_default();
        let served = stored.iter().filter(|(_, kept)| kept.of_service);
        let young = served.filter(|(_, kept)| part.judge(kept.confirmed()).is_ok());
        Self {
            served_before: young.map(|(name, _)| name.clone()).collect(),
            part: Some(part),
            stored,
            refused,
            ..Self::default()
        }
    }

    /// What a name resolves to now; it may be that of a service.
    pub(super) fn put(&mut self, name: &HostName, addresses: &[IpAddr], of_service: bool) {
        self.stored.remove(name);
        self.restored.remove(name);
        self.served_before.remove(name);
        match of_service {
            true => drop(self.served.insert(name.clone())),
            false => drop(self.served.remove(name)),
        }
        if let Some(part) = &self.part {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let kept = Kept {
                addresses: addresses.to_vec(),
                confirmed: since.unwrap_or_default().as_secs(),
                of_service,
            };
            part.put(name.as_str(), &kept);
            part.confirm(&());
        }
    }

    /// Whether it has something of a name.
    pub(super) fn knows(&self, name: &HostName) -> bool {
        self.stored.contains_key(name)
    }

    /// What a name resolved to before this process, if that is to be served.
    pub(super) fn restore(&mut self, name: &HostName) -> Option<Vec<IpAddr>> {
        let kept = self.stored.remove(name)?;
        let confirmed = kept.confirmed();
        let refused = self.part.as_ref()?.judge(confirmed).err();
        told(name, refused.as_deref());
        let restored = Restored {
            addresses: kept.addresses,
            confirmed,
            refused,
        };
        let addresses = restored.served().cloned();
        self.restored.insert(name.clone(), restored);
        addresses
    }

    /// Judges the age of what comes from there: the names that are served no longer, or again.
    pub(super) fn judge(&mut self) -> Vec<(HostName, Option<Vec<IpAddr>>)> {
        let Some(part) = &self.part else {
            return Vec::new();
        };
        let mut turned = Vec::new();
        for (name, restored) in &mut self.restored {
            let refused = part.judge(restored.confirmed).err();
            if refused.is_some() != restored.refused.is_some() {
                told(name, refused.as_deref());
                restored.refused = refused;
                turned.push((name.clone(), restored.served().cloned()));
            }
        }
        turned
    }

    /// Whether there is anything to judge.
    pub(super) fn has_restored(&self) -> bool {
        !self.restored.is_empty()
    }

    /// Waits until one of them is judged otherwise.
    pub(super) async fn turned(&self) {
        let part = self.part.iter();
        let mut all: Vec<_> = part
            .flat_map(|part| {
                let restored = self.restored.values();
                restored.map(|one| Box::pin(part.turned(one.confirmed, one.refused.is_none())))
            })
            .collect();
        poll_fn(|context| {
            let mut all = all.iter_mut();
            match all.any(|one| one.as_mut().poll(context).is_ready()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// Keeps these names only, and those of services.
    pub(super) fn retain(&mut self, wanted: &BTreeSet<HostName>) {
        let (served, before) = (&self.served, &self.served_before);
        let stays = |name: &HostName| {
            wanted.contains(name) || served.contains(name) || before.contains(name)
        };
        self.stored.retain(|name, _| stays(name));
        self.restored.retain(|name, _| stays(name));
        if let Some(part) = &self.part {
            part.retain(|name| HostName::parse(name).is_ok_and(|name| stays(&name)));
        }
    }

    /// Services have these names now: those that they had in this process, and have no more, are let go.
    pub(super) fn serve(&mut self, names: &BTreeSet<HostName>) {
        self.served.retain(|name| names.contains(name));
        let before = &mut self.served_before;
        self.restored
            .retain(|name, _| names.contains(name) || !before.remove(name));
    }

    /// The names that are served from the disk, and since when.
    pub(super) fn restored(&self) -> BTreeMap<HostName, SystemTime> {
        let restored = self.restored.iter();
        restored
            .filter(|(_, restored)| restored.served().is_some())
            .map(|(name, restored)| (name.clone(), restored.confirmed))
            .collect()
    }

    /// Why nothing, or not all, is served from there.
    pub(super) fn refused(&self) -> Option<&str> {
        let mut restored = self.restored.values();
        let refused = restored.find_map(|restored| restored.refused.as_deref());
        refused.or(self.refused.as_deref())
    }
}

impl Restored {
    fn served(&self) -> Option<&Vec<IpAddr>> {
        self.refused.is_none().then_some(&self.addresses)
    }
}

fn told(name: &HostName, refused: Option<&str>) {
    match refused {
        Some(why) => tracing::error!(%name, "{why}"),
        None => {
            tracing::warn!(%name, "an upstream's name does not resolve, and is served from the disk");
        }
    }
}
