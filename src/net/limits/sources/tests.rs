//! The table against a map without bounds, and under more sources than it has room for.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::config::{Cap, Rate};

/// As much as all of the table may take: buckets of a source, its entry and a byte of the map's.
const BYTES: usize = SHARDS * 16_384 * 33;

fn limits(max: usize, per_second: u32, burst: u32) -> Limits {
    Limits {
        per_source: Cap::of(max),
        accept_rate: Rate {
            per_second: Some(per_second),
            burst,
            enforce: true,
        },
        ..Limits::default()
    }
}

impl Sources {
    fn all(&self) -> impl Iterator<Item = MutexGuard<'_, Shard>> {
        self.shards.iter().map(|shard| shard.lock().unwrap())
    }

    fn len(&self) -> usize {
        self.all().map(|shard| shard.entries.len()).sum()
    }

    fn bytes(&self) -> usize {
        assert_eq!(size_of::<(Source, Entry)>(), 32);
        let buckets = |shard: &Shard| (shard.entries.capacity() * 8 / 7).next_power_of_two();
        self.all().map(|shard| buckets(&shard) * 33).sum()
    }
}

/// A million addresses: every other one IPv6, each of those of another /64.
fn million() -> impl Iterator<Item = IpAddr> {
    (0..1_000_000_u32).map(|number| match number % 2 {
        0 => Ipv4Addr::from_bits(number).into(),
        _ => Ipv6Addr::from_bits(u128::from(number) << 64 | 0x2001 << 112).into(),
    })
}

#[test]
fn a_million_sources_that_come_and_go_leave_next_to_nothing() {
    let (table, exceeded) = (Sources::default(), Exceeded::default());
    let limits = Limits::default();
    let mut now = table.since;
    for address in million() {
        let place = table.enter(address, now, &limits, &exceeded).unwrap();
        now += Duration::from_micros(10);
        table.leave(place, now);
    }
    // A bucket is full again within 5 ms, in which 500 come.
    assert!(table.bytes() < 1 << 20, "{}", table.bytes());
}

#[test]
fn a_rate_that_is_raised_holds_no_longer_against_who_was_over_the_one_before() {
    let (table, exceeded) = (Sources::default(), Exceeded::default());
    let address = IpAddr::from([192, 0, 2, 1]);
    let come = |now, limits: &Limits| table.enter(address, now, limits, &exceeded).is_ok();
    let (slow, fast) = (limits(1_000, 1, 100), limits(1_000, 100, 100));
    let now = table.since;
    assert_eq!((0..150).filter(|_| come(now, &slow)).count(), 100);
    assert!(!come(now, &fast), "the bucket is as empty as it was");
    let later = now + Duration::from_millis(100);
    assert_eq!((0..20).filter(|_| come(later, &fast)).count(), 10);
}

#[test]
fn a_million_sources_that_stay_are_remembered_up_to_the_bound_and_share_beyond_it() {
    let (table, exceeded) = (Sources::default(), Exceeded::default());
    let limits = limits(1_000_000, 1, 1_000_000);
    let now = table.since;
    let places = million().map(|address| table.enter(address, now, &limits, &exceeded).unwrap());
    let places: Vec<Place> = places.collect();
    assert!(table.bytes() <= BYTES, "{}", table.bytes());
    assert_eq!(table.len(), SHARDS * MOST);
    let shared = places.iter().filter(|place| !place.is_own).count();
    assert_eq!(shared, 1_000_000 - SHARDS * MOST);
    for place in places {
        table.leave(place, now + Duration::from_secs(10));
    }
    assert_eq!(table.len(), 0);
    assert!(
        table
            .all()
            .all(|shard| shard.busy == 0 && shard.shared.connections == 0)
    );
}

#[test]
fn a_million_sources_whose_buckets_stay_empty_do_not_push_out_those_with_connections() {
    let (table, exceeded) = (Sources::default(), Exceeded::default());
    let limits = limits(10, 1, 10);
    let now = table.since;
    let own: IpAddr = "198.51.100.7".parse().unwrap();
    let staying = table.enter(own, now, &limits, &exceeded).unwrap();
    for address in million() {
        let place = table.enter(address, now, &limits, &exceeded).unwrap();
        table.leave(place, now);
    }
    assert!(table.bytes() <= BYTES, "{}", table.bytes());
    assert!(table.len() <= SHARDS * MOST);
    let shard = table.shard(Source::of(own));
    assert_eq!(shard.entries[&Source::of(own)].connections, 1);
    drop(shard);
    table.leave(staying, now);
}

#[test]
fn of_those_without_connections_the_one_whose_bucket_is_full_soonest_goes_first() {
    let (mut shard, exceeded) = (Shard::new(3, RandomState::new()), Exceeded::default());
    let limits = limits(10, 1, 10);
    let mut enter = |source: u64, times: usize| {
        for _ in 0..times {
            let place = shard.enter(Source::Subnet(source), Duration::ZERO, &limits, &exceeded);
            shard.leave(place.unwrap(), Duration::ZERO);
        }
        shard
            .entries
            .keys()
            .copied()
            .collect::<std::collections::BTreeSet<_>>()
    };
    enter(1, 3);
    enter(2, 1);
    enter(3, 2);
    assert_eq!(
        enter(4, 5),
        [Source::Subnet(1), Source::Subnet(3), Source::Subnet(4)].into()
    );
    assert_eq!(
        enter(5, 4),
        [Source::Subnet(1), Source::Subnet(4), Source::Subnet(5)].into()
    );
}

#[test]
fn the_busiest_sources_are_told_whether_or_not_they_are_the_same() {
    let (table, exceeded) = (Sources::default(), Exceeded::default());
    let limits = limits(100, 2, 10);
    let now = table.since;
    let come = |address: [u8; 4]| {
        table
            .enter(address.into(), now, &limits, &exceeded)
            .unwrap()
    };
    assert_eq!(table.busiest(now, limits.accept_rate), (0, 0));
    let places = [(); 3].map(|()| come([192, 0, 2, 1]));
    for _ in 0..5 {
        table.leave(come([192, 0, 2, 2]), now);
    }
    assert_eq!(table.busiest(now, limits.accept_rate), (3, 5));
    // What came within it is gone from it, until the rate has filled it up.
    for (milliseconds, missing) in [(1, 5), (500, 4), (1_999, 2), (2_500, 0)] {
        let later = now + Duration::from_millis(milliseconds);
        assert_eq!(table.busiest(later, limits.accept_rate).1, missing);
    }
    for place in places {
        table.leave(place, now);
    }
    let off = Rate {
        per_second: None,
        ..limits.accept_rate
    };
    assert_eq!(table.busiest(now, off), (0, 0));
}

/// What a connection does: it comes from a source, or the one that came so many before ends.
#[derive(Clone, Debug)]
enum Step {
    Comes(u64),
    Ends(prop::sample::Index),
}

fn steps(sources: u64) -> impl Strategy<Value = Vec<(u64, Step)>> {
    let step = prop_oneof![
        3 => (0..sources).prop_map(Step::Comes),
        2 => any::<prop::sample::Index>().prop_map(Step::Ends),
    ];
    prop::collection::vec((0..400_u64, step), 0..200)
}

/// A source as one would first think of it: connections, and a bucket that fills up.
#[derive(Clone, Default)]
struct Naive {
    connections: usize,
    missing: u64,
    seen: u64,
}

proptest! {
    #[test]
    fn the_table_decides_as_a_map_without_bounds_would(
        steps in steps(5),
        max in 1..6_usize,
        per_second in 1..20_u32,
        burst in 1..6_u32,
    ) {
        let limits = limits(max, per_second, burst);
        let (mut shard, exceeded) = (Shard::new(100, RandomState::new()), Exceeded::default());
        let mut model: BTreeMap<u64, Naive> = BTreeMap::new();
        let mut open: Vec<(u64, Place)> = Vec::new();
        let each = 1_000_000_000 / u64::from(per_second);
        let mut now = 0;
        for (pause, step) in steps {
            now += pause * 1_000_000;
            let time = Duration::from_nanos(now);
            match step {
                Step::Comes(source) => {
                    let one = model.entry(source).or_default();
                    one.missing = one.missing.saturating_sub(now - one.seen);
                    one.seen = now;
                    let expected = if one.connections >= max {
                        Err(Limit::PerSource)
                    } else if one.missing + each > each * u64::from(burst) {
                        Err(Limit::AcceptRate)
                    } else {
                        one.connections += 1;
                        one.missing += each;
                        Ok(())
                    };
                    let entered = shard.enter(Source::Subnet(source), time, &limits, &exceeded);
                    prop_assert_eq!(entered.as_ref().map(|_| ()).map_err(|limit| *limit), expected);
                    open.extend(entered.ok().map(|place| (source, place)));
                }
                Step::Ends(which) if !open.is_empty() => {
                    let (source, place) = open.swap_remove(which.index(open.len()));
                    model.get_mut(&source).unwrap().connections -= 1;
                    shard.leave(place, time);
                }
                Step::Ends(_) => {}
            }
            let busy = model.values().filter(|one| one.connections > 0).count();
            prop_assert_eq!(shard.busy, busy);
        }
    }

    #[test]
    fn a_full_table_keeps_every_source_that_has_connections(steps in steps(12)) {
        const FEW: usize = 4;
        let limits = limits(1000, 1, 1000);
        let (mut shard, exceeded) = (Shard::new(FEW, RandomState::new()), Exceeded::default());
        let mut open: Vec<Place> = Vec::new();
        let mut now = Duration::ZERO;
        for (pause, step) in steps {
            now += Duration::from_millis(pause);
            match step {
                Step::Comes(source) => {
                    let place = shard.enter(Source::Subnet(source), now, &limits, &exceeded);
                    open.push(place.unwrap());
                }
                Step::Ends(which) if !open.is_empty() => {
                    let place = open.swap_remove(which.index(open.len()));
                    shard.leave(place, now);
                }
                Step::Ends(_) => {}
            }
            prop_assert!(shard.entries.len() <= FEW);
            let mut own: BTreeMap<Source, u32> = BTreeMap::new();
            for place in open.iter().filter(|place| place.is_own) {
                *own.entry(place.source).or_default() += 1;
            }
            let mut counted: BTreeMap<Source, u32> = BTreeMap::new();
            let busy = shard.entries.iter().filter(|(_, entry)| entry.connections > 0);
            counted.extend(busy.map(|(source, entry)| (*source, entry.connections)));
            prop_assert_eq!(&counted, &own);
            prop_assert_eq!(shard.busy, own.len());
            let shared = open.iter().filter(|place| !place.is_own).count();
            prop_assert_eq!(shard.shared.connections as usize, shared);
        }
    }
}
