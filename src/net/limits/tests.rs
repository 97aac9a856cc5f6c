//! Admissions: what each limit refuses, what it counts, and that everything is given back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::*;
use crate::config::Rate;
use crate::metrics::Metrics;

/// A limiter, and what it counts in.
struct Desk {
    limiter: Arc<Limiter>,
    metrics: Arc<Metrics>,
}

impl Desk {
    fn new() -> Self {
        let metrics = Metrics::new();
        Self {
            limiter: Arc::new(Limiter::new(Arc::clone(metrics.exceeded()))),
            metrics,
        }
    }

    /// One more, from there.
    fn come(&self, from: &str, limits: &Limits) -> Result<Admission<'_>, Limit> {
        let mut admission = Admission::new(&self.limiter);
        admission.accepted(limits)?;
        admission.source(from.parse().unwrap(), limits)?;
        Ok(admission)
    }

    /// How often a limit refused, and how often it would have.
    fn counts(&self, limit: Limit) -> (u64, u64) {
        let count = |enforced| {
            let of = |found: &(Limit, bool, u64)| found.0 == limit && found.1 == enforced;
            self.metrics.exceeded().counts().find(of).unwrap().2
        };
        (count(true), count(false))
    }

    /// Nobody is in.
    fn is_empty(&self) -> bool {
        let counts = [&self.limiter.connections, &self.limiter.handshakes];
        counts
            .iter()
            .all(|count| count.load(Ordering::Relaxed) == 0)
    }
}

const ONE: &str = "192.0.2.1";

fn limits() -> Limits {
    Limits {
        connections: Cap::default(),
        handshakes: Cap::default(),
        per_source: Cap::default(),
        accept_rate: Rate {
            per_second: None,
            ..Limits::default().accept_rate
        },
        ..Limits::default()
    }
}

fn counting(cap: Cap) -> Cap {
    Cap {
        enforce: false,
        ..cap
    }
}

#[test]
fn as_many_connections_as_may_be_are_let_in_and_one_more_when_one_has_ended() {
    let (desk, mut limits) = (Desk::new(), limits());
    limits.connections = Cap::of(2);
    let (first, second) = (desk.come(ONE, &limits).unwrap(), desk.come(ONE, &limits));
    assert_eq!(desk.come(ONE, &limits).unwrap_err(), Limit::Connections);
    assert_eq!(desk.counts(Limit::Connections), (1, 0));
    drop(first);
    let third = desk.come(ONE, &limits).unwrap();
    drop((second, third));
    assert!(desk.is_empty());
}

#[test]
fn a_handshake_that_is_finished_makes_room_for_another() {
    let (desk, mut limits) = (Desk::new(), limits());
    limits.handshakes = Cap::of(1);
    let mut first = desk.come(ONE, &limits).unwrap();
    assert_eq!(desk.come(ONE, &limits).unwrap_err(), Limit::Handshakes);
    first.established();
    first.established();
    let second = desk.come(ONE, &limits).unwrap();
    assert_eq!(desk.come(ONE, &limits).unwrap_err(), Limit::Handshakes);
    drop((first, second));
    assert!(desk.is_empty());
}

#[test]
fn room_is_kept_for_who_can_wait_and_nobody_is_counted_who_does() {
    let (desk, mut limits) = (Desk::new(), limits());
    (limits.connections, limits.handshakes) = (Cap::of(3), Cap::of(1));
    let room = desk.limiter.reserve(&limits).unwrap();
    assert!(desk.limiter.reserve(&limits).is_none());
    drop(room);
    let mut first = desk.come(ONE, &limits).unwrap();
    assert!(desk.limiter.reserve(&limits).is_none());
    first.established();
    let room = desk.limiter.reserve(&limits).unwrap();
    limits.handshakes = counting(Cap::of(1));
    let other = desk.limiter.reserve(&limits).unwrap();
    assert!(desk.limiter.reserve(&limits).is_none(), "connections");
    drop((first, room, other));
    assert!(desk.is_empty());
    for limit in [Limit::Connections, Limit::Handshakes] {
        assert_eq!(desk.counts(limit), (0, 0));
    }
}

#[test]
fn a_source_at_its_limit_is_refused_and_no_other() {
    let (desk, mut limits) = (Desk::new(), limits());
    limits.per_source = Cap::of(1);
    // As addresses come: IPv4 mapped into IPv6 is IPv4, and an IPv6 /64 is one source.
    for (one, same, other) in [
        (ONE, "::ffff:192.0.2.1", "192.0.2.2"),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::2", "2001:db8:1:3::1"),
        ("::1", "::2", "0:0:0:1::1"),
        // Behind a NAT64 it is the IPv4 address that the well-known prefix shows, whichever way it comes.
        ("64:ff9b::192.0.2.1", ONE, "64:ff9b::192.0.2.2"),
        ("64:ff9b::192.0.2.1", "64:ff9b::c000:201", "64:ff9b::"),
        ("64:ff9b:1::1", "64:ff9b:1::2", "64:ff9b::1"),
        ("64:ff9b:0:0:1::1", "64:ff9b:0:0:1::2", "64:ff9b::1"),
        // A link-local prefix is everybody's on the link, and a part of fe80::/10 that is not in use is a prefix as any.
        ("fe80::1", "fe80::1", "fe80::2"),
        ("fe80::1:0:0:1", "fe80::1:0:0:1", "fe80::1:0:0:2"),
        ("fe80:0:0:1::1", "fe80:0:0:1::2", "fe80::1"),
        (
            "fe80::2001:db8:1:2",
            "fe80::2001:db8:1:2",
            "2001:db8:1:2::1",
        ),
        ("255.255.255.255", "::ffff:255.255.255.255", "0.0.0.0"),
    ] {
        let first = desk.come(one, &limits).unwrap();
        assert_eq!(desk.come(same, &limits).unwrap_err(), Limit::PerSource);
        let other = desk.come(other, &limits).unwrap();
        drop(first);
        drop(desk.come(same, &limits).unwrap());
        drop(other);
    }
    assert_eq!(desk.counts(Limit::PerSource), (12, 0));
    assert!(desk.is_empty());
}

#[test]
fn a_route_at_its_limit_is_refused_and_no_other() {
    let (desk, limits) = (Desk::new(), limits());
    let routes = ["a", "b"].map(|name| desk.metrics.route(name));
    let cap = Cap::of(1);
    let [mut first, mut second, mut third] = [(); 3].map(|()| desk.come(ONE, &limits).unwrap());
    first.routed(&routes[0], cap).unwrap();
    assert_eq!(second.routed(&routes[0], cap), Err(Limit::PerRoute));
    third.routed(&routes[1], cap).unwrap();
    drop(first);
    // One that was refused holds no place while it is still there.
    second.routed(&routes[0], cap).unwrap();
    drop((second, third));
    for route in routes {
        assert_eq!(route.admitted.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn a_source_has_so_many_of_one_route_and_nothing_is_kept_when_they_have_ended() {
    let (desk, limits) = (Desk::new(), limits());
    let routes = ["a", "b"].map(|name| desk.metrics.route(name));
    for (one, same, other) in [
        (ONE, "::ffff:192.0.2.1", "192.0.2.2"),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::2", "2001:db8:1:3::1"),
    ] {
        let mut all = [one, same, same, other].map(|from| desk.come(from, &limits).unwrap());
        let [first, second, elsewhere, third] = &mut all;
        first.in_flight(&routes[0], 1).unwrap();
        first.routed(&routes[0], Cap::of(1)).unwrap();
        assert_eq!(second.in_flight(&routes[0], 1), Err(Limit::InFlight));
        elsewhere.in_flight(&routes[1], 1).unwrap();
        third.in_flight(&routes[0], 1).unwrap();
        assert_eq!(third.in_flight(&routes[0], 0), Err(Limit::InFlight));
        drop(all);
        for route in &routes {
            assert_eq!(route.in_flight.sources(), 0);
            assert_eq!(route.admitted.load(Ordering::Relaxed), 0);
        }
    }
    assert_eq!(desk.counts(Limit::InFlight), (4, 0));
    let mut nobody = Admission::new(&desk.limiter);
    assert_eq!(nobody.in_flight(&routes[0], 9), Err(Limit::InFlight));
}

#[test]
fn what_is_not_enforced_refuses_nobody_and_counts_who_it_would_have_refused() {
    let (desk, mut limits) = (Desk::new(), limits());
    for cap in [
        &mut limits.connections,
        &mut limits.handshakes,
        &mut limits.per_source,
    ] {
        *cap = counting(Cap::of(2));
    }
    limits.accept_rate = Rate {
        per_second: Some(1),
        burst: 3,
        enforce: false,
    };
    let route = desk.metrics.route("a");
    let mut all: Vec<_> = (0..5).map(|_| desk.come(ONE, &limits).unwrap()).collect();
    for admission in &mut all {
        admission.routed(&route, counting(Cap::of(4))).unwrap();
    }
    assert_eq!(desk.counts(Limit::Connections), (0, 3));
    // Half of two connections is one.
    assert_eq!(desk.counts(Limit::Handshakes), (0, 4));
    assert_eq!(desk.counts(Limit::PerSource), (0, 3));
    assert_eq!(desk.counts(Limit::AcceptRate), (0, 2));
    assert_eq!(desk.counts(Limit::PerRoute), (0, 1));
    drop(all);
    assert!(desk.is_empty());
    assert_eq!(route.admitted.load(Ordering::Relaxed), 0);
}

#[test]
fn a_limit_that_changes_holds_for_those_who_come_and_ends_nobody() {
    let (desk, mut limits) = (Desk::new(), limits());
    let mut all: Vec<_> = (0..5).map(|_| desk.come(ONE, &limits).unwrap()).collect();
    limits.per_source = Cap::of(3);
    assert_eq!(desk.come(ONE, &limits).unwrap_err(), Limit::PerSource);
    all.truncate(3);
    assert_eq!(desk.come(ONE, &limits).unwrap_err(), Limit::PerSource);
    all.truncate(2);
    all.push(desk.come(ONE, &limits).unwrap());
    assert_eq!(desk.come(ONE, &limits).unwrap_err(), Limit::PerSource);
    limits.per_source = Cap::of(4);
    all.push(desk.come(ONE, &limits).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_source_comes_as_often_at_once_as_its_burst_and_then_by_its_rate() {
    let (desk, mut limits) = (Desk::new(), limits());
    limits.accept_rate = Rate {
        per_second: Some(4),
        burst: 3,
        enforce: true,
    };
    let come = || desk.come(ONE, &limits).map(drop);
    let pause = |milliseconds| tokio::time::sleep(Duration::from_millis(milliseconds));
    for _ in 0..3 {
        come().unwrap();
    }
    // Those who are refused put nothing off.
    for _ in 0..10 {
        assert_eq!(come(), Err(Limit::AcceptRate));
    }
    desk.come("192.0.2.2", &limits).unwrap();
    pause(250).await;
    come().unwrap();
    assert_eq!(come(), Err(Limit::AcceptRate));
    pause(500).await;
    come().unwrap();
    come().unwrap();
    assert_eq!(come(), Err(Limit::AcceptRate));
    // However long it stays away, it has no more than the burst.
    pause(3_600_000).await;
    for _ in 0..3 {
        come().unwrap();
    }
    assert_eq!(come(), Err(Limit::AcceptRate));
    assert_eq!(desk.counts(Limit::AcceptRate), (13, 0));
}

#[test]
fn what_is_used_of_each_limit_stands_beside_the_limit() {
    let (desk, mut limits) = (Desk::new(), limits());
    let usage = |limits: &Limits| {
        let used = desk.limiter.usage(limits);
        used.map(|used| (used.limit, used.current, used.max))
    };
    limits.connections = Cap::of(10);
    limits.handshakes = Cap::of(100);
    limits.per_source = Cap::of(7);
    limits.accept_rate = Rate {
        per_second: Some(1),
        burst: 9,
        enforce: true,
    };
    let mut all = [ONE, ONE, "192.0.2.2"].map(|from| desk.come(from, &limits).unwrap());
    all[0].established();
    assert_eq!(
        usage(&limits),
        [
            (Limit::Connections, 3, Some(10)),
            // Half of the connections, as that is less.
            (Limit::Handshakes, 2, Some(5)),
            (Limit::PerSource, 2, Some(7)),
            (Limit::AcceptRate, 2, Some(9)),
        ]
    );
    drop(all);
    let off = self::limits();
    let used = usage(&off);
    assert!(used.iter().all(|(_, current, _)| *current == 0), "{used:?}");
    let room = desk.limiter.room;
    assert_eq!(used.map(|(_, _, max)| max), [Some(room), None, None, None]);
}

#[test]
fn without_a_number_there_are_as_many_as_the_open_files_have_room_for() {
    let (mut desk, limits) = (Desk::new(), Limits::default());
    Arc::get_mut(&mut desk.limiter).unwrap().room = 2;
    let all = [(); 2].map(|()| {
        let mut admission = desk.come(ONE, &limits).unwrap();
        admission.established();
        admission
    });
    assert_eq!(desk.come(ONE, &limits).unwrap_err(), Limit::Connections);
    drop(all);
    assert!(desk.is_empty());
}

#[tokio::test]
async fn a_panic_and_a_task_that_is_cancelled_give_everything_back() {
    let (desk, limits) = (Desk::new(), Limits::default());
    let desk = Arc::new(desk);
    let panics = catch_unwind(AssertUnwindSafe(|| {
        let _admission = desk.come(ONE, &limits).unwrap();
        std::panic::resume_unwind(Box::new("of a test"));
    }));
    assert!(panics.is_err());
    assert!(desk.is_empty());

    let theirs = Arc::clone(&desk);
    let (entered, is_in) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(async move {
        let _admission = theirs.come(ONE, &Limits::default()).unwrap();
        entered.send(()).unwrap();
        std::future::pending::<()>().await;
    });
    is_in.await.unwrap();
    assert!(!desk.is_empty());
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert!(desk.is_empty());
}
