//! Canaries: instances that are tried out, with an upstream and routers of their own, as in Traefik.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::instance::{Found, Instance};
use super::terms::Terms;
use crate::snapshot::service::{Service, Skipped};

/// As many sets of canaries are routed of one service, the newest; each set is of one list of tags.
///
/// 8: more than anybody tries out at a time, and each is read like a service.
const MOST: usize = 8;

/// A service without its canaries.
#[derive(Debug)]
pub(super) struct Apart<'a> {
    pub(super) service: Cow<'a, Found>,
    /// Those with the same tags together; the newest first.
    pub(super) canaries: Vec<Found>,
    /// The instances that are in none of them.
    pub(super) skipped: Vec<Skipped>,
}

/// Sets the canaries apart, each with what speaks for it in the mesh. What could not be made an instance stays behind.
pub(super) fn apart<'a>(found: Cow<'a, Found>, terms: &Terms) -> Apart<'a> {
    let sidecars = found.sidecars.iter().flatten();
    let mut all = found.instances.iter().chain(sidecars);
    if !all.any(|instance| terms.is_canary(&instance.tags)) {
        return Apart {
            service: found,
            canaries: Vec::new(),
            skipped: Vec::new(),
        };
    }
    let sets: BTreeMap<&str, Option<u64>> = found
        .instances
        .iter()
        .map(|instance| (&*instance.id, number_of(instance, terms)))
        .collect();
    let mut parts: BTreeMap<Option<u64>, Found> = BTreeMap::new();
    let part = |canary: Option<u64>| Found {
        instances: Vec::new(),
        sidecars: found.sidecars.as_ref().map(|_| Vec::new()),
        unusable: match canary {
            None => found.unusable.clone(),
            Some(_) => Vec::new(),
        },
        canary,
        ..Found::clone(&found)
    };
    parts.insert(None, part(None));
    for instance in &found.instances {
        let set = sets.get(&*instance.id).copied().flatten();
        let part = parts.entry(set).or_insert_with(|| part(set));
        part.instances.push(instance.clone());
    }
    for sidecar in found.sidecars.iter().flatten() {
        let subject = sidecar.beside.as_ref().unwrap_or(&sidecar.id);
        // One that stands beside none of them has tags of its own.
        let set = sets.get(&**subject).copied();
        let set = set.unwrap_or_else(|| number_of(sidecar, terms));
        let part = parts.entry(set).or_insert_with(|| part(set));
        part.sidecars.get_or_insert_default().push(sidecar.clone());
    }
    let service = parts.remove(&None).unwrap_or_else(|| part(None));
    let mut canaries: Vec<Found> = parts.into_values().collect();
    canaries.sort_by_cached_key(|canary| {
        let all = canary
            .instances
            .iter()
            .chain(canary.sidecars.iter().flatten());
        let newest = all.map(|one| (one.modified, Arc::clone(&one.id))).max();
        Reverse(newest)
    });
    let left = canaries.split_off(canaries.len().min(MOST));
    let left = left.into_iter().flat_map(|canary| canary.instances);
    Apart {
        service: Cow::Owned(service),
        canaries,
        skipped: left
            .map(|instance| Skipped {
                instance: Some(instance.id),
                router: None,
                reason: format!(
                    "it is a canary, and there are newer ones with {MOST} other lists of tags"
                )
                .into(),
            })
            .collect(),
    }
}

/// Adds what canaries ask for to what their service does. A router of theirs takes no client of the service.
pub(super) fn join(service: &mut Service, canaries: Service) {
    for route in canaries.routes {
        let rule = route.rule.to_string();
        let own = service.routes.iter().find(|own| {
            own.name == route.name
                || (own.priority == route.priority && own.rule.to_string() == rule)
        });
        let Some(own) = own else {
            service.routes.push(route);
            continue;
        };
        let reason = match own.name == route.name {
            true => {
                "it is a canary's, and another instance defines a router of this name, which counts"
                    .to_owned()
            }
            false => format!(
                "it is a canary's, and its rule is that of {}, which keeps its clients: give it another one, or a priority",
                own.name
            ),
        };
        service.skipped.push(Skipped {
            instance: None,
            router: Some(Arc::clone(&route.name)),
            reason: super::shortened(&reason),
        });
    }
    service.upstreams.extend(canaries.upstreams);
    for (name, middleware) in canaries.middlewares {
        service.middlewares.entry(name).or_insert(middleware);
    }
    service.skipped.extend(canaries.skipped);
    service.notes.extend(canaries.notes);
}

fn number_of(instance: &Instance, terms: &Terms) -> Option<u64> {
    terms
        .is_canary(&instance.tags)
        .then(|| number(&instance.tags))
}

/// What Traefik puts after the name of the service: FNV-1 with 64 bits of the tags, sorted and without anything between them.
fn number(tags: &[Arc<str>]) -> u64 {
    let mut sorted: Vec<&str> = tags.iter().map(|tag| &**tag).collect();
    sorted.sort_unstable();
    let bytes = sorted.iter().flat_map(|tag| tag.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        hash.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers are those of Go's `fnv.New64`.
    #[test]
    fn canaries_have_traefiks_number_whatever_the_order_of_their_tags() {
        let number = |tags: &[&str]| {
            let tags: Vec<Arc<str>> = tags.iter().map(|tag| Arc::from(*tag)).collect();
            number(&tags)
        };
        assert_eq!(number(&[]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(number(&["a"]), 0xaf63_bd4c_8601_b7be);
        assert_eq!(number(&["bar", "foo"]), number(&["foo", "bar"]));
        assert_eq!(number(&["c", "a", "b"]), 0xd8dc_ca18_6baf_adcb);
    }
}
