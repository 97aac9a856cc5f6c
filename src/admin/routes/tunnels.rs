//! The tunnels in `/v1/routes`: where the bytes of raw listeners go.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use super::{EndpointEntry, MemberEntry, UpstreamEntry, endpoints, members};
use crate::snapshot::{Raw, Snapshot};

/// One tunnel. The keys are an interface: add to them, never change one.
#[derive(Serialize)]
pub(super) struct TunnelEntry<'a> {
    name: &'a str,
    /// Where it listens: addresses, and `unix:` with a path.
    listen: Vec<String>,
    /// The users who may connect to its UNIX sockets; null is whoever can.
    allow_uids: Option<&'a [u32]>,
    /// Why it refuses everybody, if it does.
    broken_reason: Option<Cow<'a, str>>,
    upstream: UpstreamEntry<'a>,
    endpoints: Vec<EndpointEntry<'a>>,
    /// As of a route.
    members: Vec<MemberEntry<'a>>,
}

/// Each of them once, by name, however many addresses it has.
pub(super) fn tunnels(snapshot: &Snapshot, now: Instant) -> Vec<TunnelEntry<'_>> {
    let mut by_name: BTreeMap<&str, (&Raw, Vec<String>)> = BTreeMap::new();
    for raw in snapshot.tunnels() {
        let (_, listen) = by_name
            .entry(&raw.name)
            .or_insert_with(|| (raw, Vec::new()));
        listen.push(raw.address.to_string());
    }
    let entries = by_name.into_values().map(|(raw, listen)| {
        let upstream = snapshot.upstream(&raw.upstream).map(|upstream| &**upstream);
        TunnelEntry {
            name: &raw.name,
            listen,
            allow_uids: raw.allow_uids.as_deref(),
            broken_reason: snapshot.way_to(&raw.upstream, false).err(),
            upstream: UpstreamEntry::new(&raw.upstream, upstream),
            endpoints: upstream.map_or_else(Vec::new, |upstream| endpoints(upstream, now)),
            members: upstream
                .map_or_else(Vec::new, |upstream| members(upstream, false, snapshot, now)),
        }
    });
    entries.collect()
}
