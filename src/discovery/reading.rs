//! The tags of a service's instances, read: which instances count, and what they want together.

use std::sync::Arc;

use super::instance::{Found, Health, Instance};
use super::tags::{self, TagError, Tags};

/// A service whose tags have been read.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    pub(super) found: &'a Found,
    /// Its own instances, by id.
    pub(super) instances: Vec<Read<'a>>,
    /// The sidecars that stand beside none of them, by id.
    orphans: Vec<Read<'a>>,
}

/// An instance, and what became of its tags.
#[derive(Debug)]
pub(super) struct Read<'a> {
    pub(super) instance: &'a Instance,
    pub(super) verdict: Verdict,
}

/// What the tags of an instance make of it.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It asks to be left out.
    Disabled,
    /// Nothing can be made of them.
    Unreadable(TagError),
    /// It counts.
    Readable(Tags),
}

impl<'a> Reading<'a> {
    pub(super) fn of(found: &'a Found) -> Self {
        let instances = read(found.instances.iter());
        let sidecars = found.sidecars.iter().flatten();
        let orphans = read(sidecars.filter(|sidecar| find(&instances, subject(sidecar)).is_none()));
        Self {
            found,
            instances,
            orphans,
        }
    }

    /// Those whose tags make routes: the instances, and the sidecars only where there is none.
    pub(super) fn tagged(&self) -> &[Read<'a>] {
        match self.instances.is_empty() {
            false => &self.instances,
            true => &self.orphans,
        }
    }

    /// Those of them that count, with what they ask for.
    pub(super) fn readable(&self) -> impl Iterator<Item = (&'a Instance, &Tags)> {
        self.tagged().iter().filter_map(|read| match &read.verdict {
            Verdict::Readable(tags) => Some((read.instance, tags)),
            Verdict::Disabled | Verdict::Unreadable(_) => None,
        })
    }

    /// What cannot be read, and why.
    pub(super) fn unreadable(&self) -> impl Iterator<Item = (&Arc<str>, &TagError)> {
        let all = self.instances.iter().chain(&self.orphans);
        all.filter_map(|read| match &read.verdict {
            Verdict::Unreadable(error) => Some((&read.instance.id, error)),
            Verdict::Disabled | Verdict::Readable(_) => None,
        })
    }

    /// Whether the service is dialled through the mesh only: one instance that wants it is enough, also if nothing else
    /// of its tags can be read.
    pub(super) fn asks_for_mesh(&self) -> bool {
        self.tagged().iter().any(|read| match &read.verdict {
            Verdict::Disabled => false,
            Verdict::Unreadable(_) => tags::asks_for_mesh(&read.instance.tags),
            Verdict::Readable(tags) => tags.connect,
        })
    }

    /// What became of the tags of a sidecar's instance, and the worst of its checks and the sidecar's own.
    pub(super) fn beside(&self, sidecar: &Instance) -> (Option<&Verdict>, Health) {
        if let Some(read) = find(&self.instances, subject(sidecar)) {
            return (
                Some(&read.verdict),
                sidecar.health.max(read.instance.health),
            );
        }
        let own = find(&self.orphans, &sidecar.id);
        (own.map(|read| &read.verdict), sidecar.health)
    }
}

/// The instance that a sidecar speaks for: the one it stands beside, or itself, if it needs no sidecar.
fn subject(sidecar: &Instance) -> &str {
    sidecar.beside.as_ref().unwrap_or(&sidecar.id)
}

fn read<'a>(instances: impl Iterator<Item = &'a Instance>) -> Vec<Read<'a>> {
    let read = |instance: &'a Instance| Read {
        instance,
        verdict: match tags::decode(&instance.tags) {
            Ok(Some(tags)) => Verdict::Readable(tags),
            Ok(None) => Verdict::Disabled,
            Err(error) => Verdict::Unreadable(error),
        },
    };
    let mut all: Vec<Read<'a>> = instances.map(read).collect();
    all.sort_by_key(|read| (&read.instance.id, read.instance.address));
    all
}

fn find<'r, 'a>(all: &'r [Read<'a>], id: &str) -> Option<&'r Read<'a>> {
    let at = all
        .binary_search_by(|read| (*read.instance.id).cmp(id))
        .ok()?;
    all.get(at)
}
