//! What is due when, by a clock that the test moves.

use std::net::SocketAddr;

use super::*;
use crate::config::HealthCheck;
use crate::snapshot::upstream::{Endpoint, Transport};

const EVERY: Duration = Duration::from_secs(30);

/// A snapshot with one upstream of so many endpoints, checked as often.
fn snapshot(endpoints: u16, interval: Option<Duration>) -> Snapshot {
    let endpoints = (1..=endpoints).map(|port| Endpoint {
        address: SocketAddr::from(([192, 0, 2, 1], port)),
        configured: "u".into(),
        weight: 1,
    });
    let mut upstream = Upstream::new(
        "u".into(),
        endpoints.collect(),
        Transport::Plain,
        Arc::default(),
    );
    upstream.check = interval.map(|interval| {
        Arc::new(HealthCheck {
            interval,
            unhealthy_interval: interval,
            ..HealthCheck::default()
        })
    });
    Snapshot::default().with(upstream)
}

fn due(board: &Board) -> Vec<Duration> {
    let now = Instant::now();
    board.due.iter().map(|(due, _)| *due - now).collect()
}

#[tokio::test(start_paused = true)]
async fn first_checks_are_spread_over_the_interval() {
    let mut board = Board::new(Status::default());
    board.follow(&snapshot(1000, Some(EVERY)));
    let due = due(&board);
    assert_eq!(due.len(), 1000);
    for third in 1..=3 {
        let until = EVERY * third / 3;
        let within = due
            .iter()
            .filter(|due| **due <= until && **due > until - EVERY / 3);
        let count = within.count();
        assert!((200..500).contains(&count), "{count} in a third");
    }
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_moves_nothing_that_was_due_unless_its_interval_has_become_shorter() {
    let mut board = Board::new(Status::default());
    board.follow(&snapshot(100, Some(EVERY)));
    let before = board.due.clone();
    board.follow(&snapshot(100, Some(EVERY * 10)));
    assert_eq!(board.due, before);
    board.follow(&snapshot(100, Some(EVERY / 30)));
    assert!(due(&board).iter().all(|due| *due <= EVERY / 30 * 6 / 5));
    board.follow(&snapshot(50, Some(EVERY)));
    assert_eq!(board.due.len(), 50);
    board.follow(&snapshot(50, None));
    assert!(board.due.is_empty() && board.known.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_runs_is_not_due_and_the_next_check_comes_an_interval_later() {
    let snapshot = snapshot(1, Some(EVERY));
    let mut board = Board::new(Status::default());
    board.follow(&snapshot);
    let (key, _) = board.take(&snapshot).unwrap();
    assert_eq!(board.next(), None);
    board.follow(&snapshot);
    assert_eq!(board.next(), None, "it runs");
    board.learn(key.clone(), Outcome::Failed("of a test".into()), &snapshot);
    let next = board.next().unwrap() - Instant::now();
    assert!(
        next >= EVERY * 9 / 10 && next <= EVERY * 11 / 10,
        "{next:?}"
    );
    let state = board.status.parts().remove(PART);
    assert!(
        matches!(&state, Some(State::Degraded(why)) if why.ends_with("tried: u")),
        "{state:?}"
    );
    // Nobody waits for this one.
    board.learn(key, Outcome::Passed, &snapshot);
    let upstream = snapshot.upstream("u").unwrap();
    assert!(matches!(
        upstream.states().next().unwrap().1.check(),
        Some(Err(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_lacks_something_says_nothing_of_the_endpoint() {
    let snapshot = snapshot(1, Some(EVERY));
    let mut board = Board::new(Status::default());
    board.follow(&snapshot);
    let (key, _) = board.take(&snapshot).unwrap();
    board.learn(key, Outcome::Unasked, &snapshot);
    assert!(board.next().is_some() && board.status.parts().is_empty());
    let upstream = snapshot.upstream("u").unwrap();
    assert_eq!(upstream.states().next().unwrap().1.check(), None);
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_when_it_is_due_is_not_checked() {
    let mut board = Board::new(Status::default());
    board.follow(&snapshot(1, Some(EVERY)));
    assert!(board.take(&snapshot(0, Some(EVERY))).is_none());
    assert!(board.due.is_empty() && board.known.is_empty());
}
