//! The table of sources: how many connections each has, and how often it came; bounded, whoever comes.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{Limits, Rate};
use crate::metrics::{Exceeded, Limit};

/// Parts of the table, each with a lock of its own: threads that accept at once seldom meet.
const SHARDS: usize = 64;

/// As many sources as a part remembers: what a `HashMap` of 8,192 buckets holds.
///
/// 458,752 in all, more than the connections that half a million open files have room for. A bucket has 33 bytes, and the
/// map may have twice as many when it clears up after those who were removed: 35 MB at most, in 64 maps of 16,384.
const MOST: usize = 7 * 1024;

/// Who connects, as limits see it: whoever has all of these addresses.
///
/// Only limits see it so. Rules and the listed proxies stay with the address that has come: what is said of an IPv4 address must
/// not hold for whoever can send from the prefix of a translator, and a rule for that prefix must go on to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Source {
    /// An IPv4 address.
    V4(u32),
    /// The first 64 bits of an IPv6 address, which one customer has whole (RFC 6177 §2).
    Subnet(u64),
    /// The last 64 bits of a link-local address (fe80::/64, RFC 4291 §2.5.6): everybody on the link has the first.
    LinkLocal(u64),
}

/// A place that a connection has in the table, to be given back.
#[derive(Debug)]
pub(super) struct Place {
    source: Source,
    /// In an entry of its source's own.
    is_own: bool,
}

impl Place {
    /// Whose connection it is, as a number that no other has.
    pub(super) fn source(&self) -> u128 {
        let (kind, number) = match self.source {
            Source::V4(address) => (0, u64::from(address)),
            Source::Subnet(bits) => (1, bits),
            Source::LinkLocal(bits) => (2, bits),
        };
        kind << 64 | u128::from(number)
    }
}

/// All sources that have connections, or came often a moment ago.
#[derive(Debug)]
pub(super) struct Sources {
    shards: Box<[Mutex<Shard>]>,
    /// With keys of its own: nobody can choose addresses that meet in one part.
    hasher: RandomState,
    since: Instant,
}

impl Sources {
    /// One more connection of this source, unless a limit refuses it.
    pub(super) fn enter(
        &self,
        client: IpAddr,
        now: Instant,
        limits: &Limits,
        exceeded: &Exceeded,
    ) -> Result<Place, Limit> {
        let source = Source::of(client);
        let now = now.saturating_duration_since(self.since);
        self.shard(source).enter(source, now, limits, exceeded)
    }

    /// That connection has ended.
    pub(super) fn leave(&self, place: Place, now: Instant) {
        let now = now.saturating_duration_since(self.since);
        self.shard(place.source).leave(place, now);
    }

    /// How many connections the source has that has the most, and how much is gone of the burst of the one that has the
    /// least left of it: of those who share, too.
    pub(super) fn busiest(&self, now: Instant, rate: Rate) -> (usize, usize) {
        let now = nanos(now.saturating_duration_since(self.since));
        let mut most = (0, 0);
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for entry in shard.entries.values().chain([&shard.shared]) {
                most.0 = entry.connections.max(most.0);
                most.1 = entry.missing(now, rate).max(most.1);
            }
        }
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        (count(most.0.into()), count(most.1))
    }

    fn shard(&self, source: Source) -> MutexGuard<'_, Shard> {
        // Other bits than those that a map chooses its bucket by.
        let at = (self.hasher.hash_one(source) >> 32) as usize % SHARDS;
        #[expect(clippy::indexing_slicing, reason = "there are so many shards")]
        let shard = &self.shards[at];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Sources {
    fn default() -> Self {
        let hasher = RandomState::new();
        let shard = |_| Mutex::new(Shard::new(MOST, hasher.clone()));
        Self {
            shards: (0..SHARDS).map(shard).collect(),
            hasher,
            since: Instant::now(),
        }
    }
}

impl Source {
    pub(super) fn of(address: IpAddr) -> Self {
        const LINK_LOCAL: u64 = 0xfe80 << 48;
        let address = match address.to_canonical() {
            IpAddr::V4(address) => return Self::V4(address.to_bits()),
            IpAddr::V6(address) => address,
        };
        // Behind a translator (RFC 7915) every IPv4 client comes from its prefix. The well-known one has the client's
        // address in its last 32 bits (RFC 6052 §2.1); one of an operator's own cannot be told from any network.
        if let [0x64, 0xff9b, 0, 0, 0, 0, _, _] = address.segments() {
            return Self::V4(address.to_bits() as u32);
        }
        let (subnet, interface) = ((address.to_bits() >> 64) as u64, address.to_bits() as u64);
        match subnet {
            LINK_LOCAL => Self::LinkLocal(interface),
            subnet => Self::Subnet(subnet),
        }
    }
}

/// A part of the table. Times are since its beginning.
#[derive(Debug)]
struct Shard {
    entries: HashMap<Source, Entry, RandomState>,
    /// What newcomers share when every entry there may be has connections.
    shared: Entry,
    /// As many entries there may be.
    most: usize,
    /// As many of them have connections.
    busy: usize,
}

/// What is remembered of a source.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// When its bucket is full again: each connection puts that off by its share of a second (the virtual scheduling of
    /// GCRA, ITU-T I.371). In nanoseconds, for 584 years.
    full: u64,
    connections: u32,
}

impl Shard {
    fn new(most: usize, hasher: RandomState) -> Self {
        Self {
            entries: HashMap::with_hasher(hasher),
            shared: Entry::default(),
            most,
            busy: 0,
        }
    }

    fn enter(
        &mut self,
        source: Source,
        now: Duration,
        limits: &Limits,
        exceeded: &Exceeded,
    ) -> Result<Place, Limit> {
        let now = nanos(now);
        let is_own = self.make_room(source, now);
        let entry = match is_own {
            true => self.entries.entry(source).or_default(),
            false => &mut self.shared,
        };
        let cap = limits.per_source;
        if (cap.max).is_some_and(|max| max <= usize::try_from(entry.connections).unwrap_or(max)) {
            exceeded.count(Limit::PerSource, cap.enforce)?;
        }
        let rate = limits.accept_rate;
        let mut comes = |per_second| entry.comes(now, per_second, rate.burst);
        if rate.per_second.is_some_and(|per_second| !comes(per_second)) {
            exceeded.count(Limit::AcceptRate, rate.enforce)?;
        }
        self.busy += usize::from(is_own && entry.connections == 0);
        entry.connections = entry.connections.saturating_add(1);
        Ok(Place { source, is_own })
    }

    fn leave(&mut self, place: Place, now: Duration) {
        if !place.is_own {
            self.shared.connections = self.shared.connections.saturating_sub(1);
            return;
        }
        let Some(entry) = self.entries.get_mut(&place.source) else {
            return;
        };
        entry.connections = entry.connections.saturating_sub(1);
        if entry.connections == 0 {
            self.busy = self.busy.saturating_sub(1);
            if entry.is_forgotten(nanos(now)) {
                self.entries.remove(&place.source);
            }
        }
    }

    /// Whether this source has an entry, or may have one: where there is no room those go that are of no use any more,
    /// then an eighth of those without connections, whose buckets are full again soonest.
    fn make_room(&mut self, source: Source, now: u64) -> bool {
        let entries = &mut self.entries;
        let is_full = |count: usize, capacity: usize| count >= capacity.min(self.most);
        if !is_full(entries.len(), entries.capacity()) || entries.contains_key(&source) {
            return true;
        }
        if self.busy >= self.most {
            return false;
        }
        // Before it grows, too: it is then as large as twice those who matter, not as all who ever came.
        entries.retain(|_, entry| !entry.is_forgotten(now));
        if entries.len() < self.most {
            return true;
        }
        let idle = entries.iter().filter(|(_, entry)| entry.connections == 0);
        let mut idle: Vec<(u64, Source)> =
            idle.map(|(&source, entry)| (entry.full, source)).collect();
        let going = (self.most / 8).clamp(1, idle.len().max(1));
        if going < idle.len() {
            idle.select_nth_unstable(going);
        }
        for (_, source) in idle.into_iter().take(going) {
            entries.remove(&source);
        }
        entries.len() < self.most
    }
}

impl Entry {
    /// One more, if there is one left in the bucket.
    fn comes(&mut self, now: u64, per_second: u32, burst: u32) -> bool {
        let each = share(per_second);
        let whole = each * u64::from(burst);
        // A limit that is raised does not hold against those who were over the one before.
        self.full = self.full.min(now + whole);
        let full = self.full.max(now) + each;
        let is_left = full - now <= whole;
        if is_left {
            self.full = full;
        }
        is_left
    }

    /// How much of the burst is gone; nothing where there is no limit.
    fn missing(&self, now: u64, rate: Rate) -> u64 {
        let gone = |per_second| self.full.saturating_sub(now).div_ceil(share(per_second));
        rate.per_second.map_or(0, gone).min(rate.burst.into())
    }

    /// Without it everything would be the same.
    fn is_forgotten(&self, now: u64) -> bool {
        self.connections == 0 && self.full <= now
    }
}

/// One connection's share of a second, in nanoseconds.
fn share(per_second: u32) -> u64 {
    1_000_000_000 / u64::from(per_second.max(1))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
