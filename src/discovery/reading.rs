//! The tags of a service's instances, read: which instances count, and what they want together.

use std::borrow::Cow;
use std::sync::Arc;

use super::exposure::Exposure;
use super::instance::{Found, Health, Instance};
use super::tags::{self, Router, RouterTls, TagError, Tags};

/// A service whose tags have been read.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    pub(super) found: &'a Found,
    pub(super) exposure: &'a Exposure,
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
    /// It asks for nothing, where an instance must ask.
    Silent,
    /// They hold this mistake: nothing is served by them. With what there is beside it.
    Unreadable(TagError, Tags),
    /// It counts.
    Readable(Tags),
}

impl<'a> Reading<'a> {
    pub(super) fn of(found: &'a Found, exposure: &'a Exposure) -> Self {
        let instances = read(found.instances.iter(), exposure);
        let sidecars = found.sidecars.iter().flatten();
        let orphans = sidecars.filter(|sidecar| find(&instances, subject(sidecar)).is_none());
        let orphans = read(orphans, exposure);
        let mut reading = Self {
            found,
            exposure,
            instances,
            orphans,
        };
        reading.route_by_default();
        reading
    }

    /// Where no tag asks for a router, each instance has the one that the operator's rule makes of it.
    fn route_by_default(&mut self) {
        let Some(template) = &self.exposure.default_rule else {
            return;
        };
        let tagged = match self.instances.is_empty() {
            false => &mut self.instances,
            true => &mut self.orphans,
        };
        let mut all = tagged.iter().filter_map(Read::tags);
        if all.any(|tags| !tags.routers.is_empty()) {
            return;
        }
        let name = &self.found.key.name;
        let name: Cow<'_, str> = match self.found.canary {
            None => (&**name).into(),
            Some(number) => format!("{name}-{number}").into(),
        };
        for read in tagged {
            let labels = self.exposure.terms.labels(&read.instance.tags);
            if let Verdict::Readable(tags) | Verdict::Unreadable(_, tags) = &mut read.verdict {
                let router = Router {
                    rule: template.rule(&name, &labels),
                    tls: Some(RouterTls::default()),
                    by_default: true,
                    ..Router::default()
                };
                tags.routers.insert(name.to_ascii_lowercase(), router);
            }
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
            Verdict::Disabled | Verdict::Silent | Verdict::Unreadable(..) => None,
        })
    }

    /// Where none counts, those that cannot be read, with what they would have asked for.
    pub(super) fn remains(&self) -> impl Iterator<Item = (&'a Instance, &Tags)> {
        let none_counts = self.readable().next().is_none();
        let tagged = self.tagged().iter().filter(move |_| none_counts);
        tagged.filter_map(|read| match &read.verdict {
            Verdict::Unreadable(_, tags) => Some((read.instance, tags)),
            Verdict::Disabled | Verdict::Silent | Verdict::Readable(_) => None,
        })
    }

    /// What cannot be read, and why.
    pub(super) fn unreadable(&self) -> impl Iterator<Item = (&Arc<str>, &TagError)> {
        let all = self.instances.iter().chain(&self.orphans);
        all.filter_map(|read| match &read.verdict {
            Verdict::Unreadable(error, _) => Some((&read.instance.id, error)),
            Verdict::Disabled | Verdict::Silent | Verdict::Readable(_) => None,
        })
    }

    /// Whether the service is dialled through the mesh only: one instance that wants it is enough, also if nothing else
    /// of its tags can be read.
    pub(super) fn asks_for_mesh(&self) -> bool {
        self.tagged().iter().any(|read| match &read.verdict {
            Verdict::Disabled | Verdict::Silent => false,
            Verdict::Unreadable(..) => self.exposure.terms.asks_for_mesh(&read.instance.tags),
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

impl Read<'_> {
    /// What it asks for, also if its tags cannot be read.
    fn tags(&self) -> Option<&Tags> {
        match &self.verdict {
            Verdict::Readable(tags) | Verdict::Unreadable(_, tags) => Some(tags),
            Verdict::Disabled | Verdict::Silent => None,
        }
    }
}

/// The instance that a sidecar speaks for: the one it stands beside, or itself, if it needs no sidecar.
fn subject(sidecar: &Instance) -> &str {
    sidecar.beside.as_ref().unwrap_or(&sidecar.id)
}

fn read<'a>(instances: impl Iterator<Item = &'a Instance>, exposure: &Exposure) -> Vec<Read<'a>> {
    let terms = &exposure.terms;
    let read = |instance: &'a Instance| Read {
        instance,
        verdict: match tags::decode(&instance.tags, terms) {
            Ok(Some(tags)) => Verdict::Readable(tags),
            Ok(None) if terms.is_silent(&instance.tags) => Verdict::Silent,
            Ok(None) => Verdict::Disabled,
            Err(error) => Verdict::Unreadable(error, tags::remains(&instance.tags, terms)),
        },
    };
    let mut all: Vec<Read<'a>> = instances.map(read).collect();
    all.sort_by_key(|read| (&read.instance.id, &read.instance.address));
    all
}

fn find<'r, 'a>(all: &'r [Read<'a>], id: &str) -> Option<&'r Read<'a>> {
    let at = all
        .binary_search_by(|read| (*read.instance.id).cmp(id))
        .ok()?;
    all.get(at)
}
