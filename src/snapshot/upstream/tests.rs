//! Whose turn it is: shares by weight, and endpoints that fail.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn upstream(weights: &[u32]) -> Upstream {
    let endpoints = weights
        .iter()
        .enumerate()
        .map(|(i, &weight)| {
            let address = SocketAddr::from(([10, 0, 0, 1], u16::try_from(i).unwrap()));
            Endpoint {
                address,
                configured: address.to_string().into(),
                weight,
            }
        })
        .collect();
    Upstream::new("u".into(), endpoints, Transport::Plain, Arc::default())
}

/// The ports that one connection tries, in order.
fn ports(upstream: &Upstream, now: Instant) -> Vec<u16> {
    let turn = upstream.turn(now);
    turn.map(|attempt| attempt.endpoint.address.port())
        .collect()
}

/// The port that one connection tries first.
fn port(upstream: &Upstream) -> u16 {
    let attempt = upstream.turn(Instant::now()).next().unwrap();
    attempt.endpoint.address.port()
}

/// Dials this endpoint until it is tried, in vain.
fn fail(upstream: &Upstream, port: u16, now: Instant) {
    let failed = (0..1000).any(|_| {
        let first = upstream.turn(now).next().unwrap();
        first.endpoint.address.port() == port && first.failed(now).is_some()
    });
    assert!(failed);
}

#[test]
fn equal_endpoints_take_turns() {
    let upstream = upstream(&[1, 1]);
    let ports: Vec<u16> = (0..4).map(|_| port(&upstream)).collect();
    assert!(ports == [0, 1, 0, 1] || ports == [1, 0, 1, 0], "{ports:?}");
}

#[test]
fn the_turns_of_a_heavy_endpoint_do_not_come_in_a_row() {
    let upstream = upstream(&[2, 1, 1]);
    let ports: Vec<u16> = (0..8).map(|_| port(&upstream)).collect();
    assert!(ports.windows(3).all(|w| w != [0, 0, 0]), "{ports:?}");
}

#[test]
fn an_endpoint_of_weight_zero_is_never_tried() {
    let upstream = upstream(&[0, 3, 0]);
    for _ in 0..6 {
        let ports = ports(&upstream, Instant::now());
        assert_eq!(ports, [1]);
    }
}

#[test]
fn without_endpoints_there_is_no_turn() {
    assert_eq!(upstream(&[]).turn(Instant::now()).count(), 0);
    assert_eq!(upstream(&[0, 0]).turn(Instant::now()).count(), 0);
}

proptest! {
    #[test]
    fn each_endpoint_gets_exactly_its_share(weights in prop::collection::vec(0u32..20, 1..8)) {
        let upstream = upstream(&weights);
        let total: u32 = weights.iter().sum();
        let mut seen = HashMap::new();
        for _ in 0..total {
            *seen.entry(port(&upstream)).or_insert(0) += 1;
        }
        for (i, &weight) in weights.iter().enumerate() {
            prop_assert_eq!(seen.get(&u16::try_from(i).unwrap()).copied().unwrap_or(0), weight);
        }
    }

    #[test]
    fn each_endpoint_is_tried_once(weights in prop::collection::vec(1u32..20, 1..8)) {
        let upstream = upstream(&weights);
        let mut ports = ports(&upstream, Instant::now());
        ports.sort_unstable();
        let all: Vec<u16> = (0..u16::try_from(weights.len()).unwrap()).collect();
        prop_assert_eq!(ports, all);
    }
}

#[test]
fn an_endpoint_that_fails_is_tried_after_the_others_until_its_time_is_over() {
    let upstream = upstream(&[1, 1, 1]);
    let now = Instant::now();
    fail(&upstream, 1, now);
    for _ in 0..9 {
        let ports = ports(&upstream, now);
        assert_eq!((ports.len(), ports[2]), (3, 1), "{ports:?}");
    }
    let later = now + Duration::from_secs(1);
    let probe = (0..3).find_map(|_| {
        let first = upstream.turn(later).next().unwrap();
        (first.endpoint.address.port() == 1).then_some(first)
    });
    let probe = probe.expect("its turn comes");
    for _ in 0..9 {
        let ports = ports(&upstream, later);
        assert_eq!(ports[2], 1, "one connection at a time tries it: {ports:?}");
    }
    assert!(probe.succeeded());
    let firsts: Vec<u16> = (0..3).map(|_| ports(&upstream, later)[0]).collect();
    assert!(firsts.contains(&1), "{firsts:?}");
}

#[test]
fn when_every_endpoint_is_out_they_take_turns_as_if_none_were() {
    let upstream = upstream(&[1, 1]);
    let now = Instant::now();
    fail(&upstream, 0, now);
    fail(&upstream, 1, now);
    let firsts: Vec<u16> = (0..4).map(|_| ports(&upstream, now)[0]).collect();
    assert!(
        firsts == [0, 1, 0, 1] || firsts == [1, 0, 1, 0],
        "{firsts:?}"
    );
    assert_eq!(ports(&upstream, now).len(), 2);
    for attempt in upstream.turn(now) {
        assert_eq!(
            attempt.failed(now),
            None,
            "it is out already, and no longer for it"
        );
    }
    let attempt = upstream.turn(now).next().unwrap();
    let back = attempt.endpoint.address.port();
    assert!(attempt.succeeded());
    assert_eq!(
        ports(&upstream, now)[0],
        back,
        "the one that answers is used"
    );
}

#[test]
fn a_new_list_of_endpoints_remembers_which_of_them_fail() {
    let last = upstream(&[1, 1, 1]);
    let now = Instant::now();
    fail(&last, 2, now);
    let mut next = upstream(&[5, 1, 1, 1]);
    next.endpoints.remove(0);
    next.states.remove(0);
    next.go_on_from(&last);
    let out: Vec<u16> = next
        .states()
        .filter(|(_, state)| state.out(now).is_some())
        .map(|(endpoint, _)| endpoint.address.port())
        .collect();
    assert_eq!(out, [2]);
    assert!(Arc::ptr_eq(&next.state, &last.state));
    assert!(Arc::ptr_eq(&next.metrics, &last.metrics));
}

proptest! {
    #[test]
    fn those_that_are_in_share_exactly_by_weight(
        endpoints in prop::collection::vec((1u32..20, any::<bool>()), 1..8),
    ) {
        let weights: Vec<u32> = endpoints.iter().map(|(weight, _)| *weight).collect();
        let upstream = upstream(&weights);
        let now = Instant::now();
        for (port, (_, is_out)) in (0..).zip(&endpoints) {
            if *is_out {
                fail(&upstream, port, now);
            }
        }
        let all_out = endpoints.iter().all(|(_, is_out)| *is_out);
        let expected: Vec<u32> = endpoints
            .iter()
            .map(|(weight, is_out)| if *is_out && !all_out { 0 } else { *weight })
            .collect();
        let mut seen = vec![0; endpoints.len()];
        for _ in 0..expected.iter().sum() {
            seen[usize::from(ports(&upstream, now)[0])] += 1;
        }
        prop_assert_eq!(seen, expected);
    }
}

#[test]
fn one_that_fails_its_check_comes_last_and_where_nobody_checks_it_does_not() {
    let mut upstream = upstream(&[1, 1]);
    let now = Instant::now();
    let fails = |upstream: &Upstream, place: usize, why: Option<&str>| {
        let outcome = why.map_or(Ok(()), |why| Err(why.into()));
        upstream.states().nth(place).unwrap().1.checked(outcome)
    };
    assert!(fails(&upstream, 0, Some("of a test")));
    assert!(!fails(&upstream, 0, Some("again")), "that is no news");
    let firsts = |upstream: &Upstream| -> Vec<u16> { (0..2).map(|_| port(upstream)).collect() };
    assert!(firsts(&upstream).contains(&0), "nobody checks it");

    upstream.check = Some(Arc::default());
    for _ in 0..4 {
        assert_eq!(ports(&upstream, now), [1, 0]);
    }
    assert!(fails(&upstream, 1, Some("of a test")));
    let all = ports(&upstream, now);
    assert_eq!(all.len(), 2, "all fail, and all are tried: {all:?}");
    assert!(firsts(&upstream).contains(&0) && firsts(&upstream).contains(&1));
    assert!(fails(&upstream, 0, None));
    assert_eq!(ports(&upstream, now), [0, 1]);
}
