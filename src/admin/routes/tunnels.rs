//! The tunnels in `/v1/routes`: where the bytes of raw listeners go.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use super::{EndpointEntry, UpstreamEntry, endpoints};
use crate::snapshot::{Raw, Snapshot};

/// One tunnel. The keys are an interface: add to them, never change one.
#[derive(Serialize)]
pub(super) struct TunnelEntry<'a> {
    name: &'a str,
    /// The users who may connect to its UNIX sockets; null is whoever can.
    allow_uids: Option<&'a [u32]>,
    /// Why it refuses everybody, if it does.
    broken_reason: Option<Cow<'a, str>>,
    upstream: UpstreamEntry<'a>,
    endpoints: Vec<EndpointEntry<'a>>,
}

/// Each of them once, by name, however many addresses it has.
pub(super) fn tunnels(snapshot: &Snapshot, now: Instant) -> Vec<TunnelEntry<'_>> {
    let by_name: BTreeMap<&str, &Raw> = (snapshot.tunnels())
        .map(|raw| (&*raw.name, &**raw))
        .collect();
    let entries = by_name.into_values().map(|raw| {
        let upstream = snapshot.upstream(&raw.upstream).map(|upstream| &**upstream);
        TunnelEntry {
            name: &raw.name,
            allow_uids: raw.allow_uids.as_deref(),
            broken_reason: snapshot.way_to(&raw.upstream, false).err(),
            upstream: UpstreamEntry::new(&raw.upstream, upstream),
            endpoints: upstream.map_or_else(Vec::new, |upstream| endpoints(upstream, now)),
        }
    });
    entries.collect()
}
