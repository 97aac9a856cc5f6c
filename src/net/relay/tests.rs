//! The relay between streams of the test's own: what it polls, what it holds, and that every byte comes through.

use std::future::Future;
use std::task::Waker;

use proptest::prelude::*;

use super::*;
use direction::MOVES_PER_TURN;
use script::{CHUNK, Script, Step};

mod patience;
mod script;

fn for_ever() -> Patience {
    Patience::endless(Duration::from_secs(3600))
}

/// Relays between two scripts to the end.
async fn run(client: &mut Script, upstream: &mut Script, early: &[u8]) -> (Outcome, u64, u64) {
    let (mut up, mut down) = (Tally::default(), Tally::default());
    let early = early.to_vec();
    let relayed = relay(client, upstream, early, &for_ever(), &mut up, &mut down).await;
    (relayed.outcome, up.bytes(), down.bytes())
}

/// Polls a relay between two scripts so many times, wakers or not, and drops it.
async fn poll(client: &mut Script, upstream: &mut Script, times: usize) {
    let (mut up, mut down) = (Tally::default(), Tally::default());
    let patience = for_ever();
    let mut relay = std::pin::pin!(relay(
        client,
        upstream,
        Vec::new(),
        &patience,
        &mut up,
        &mut down
    ));
    for _ in 0..times {
        let polled = relay.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
    }
}

#[tokio::test]
async fn a_relay_with_nothing_to_do_asks_once_and_waits() {
    let mut client = Script::new([Step::Stop], []);
    let mut upstream = Script::new([Step::Stop], []);
    let relaying = async {
        let mut never_wakes = std::pin::pin!(run(&mut client, &mut upstream, b""));
        let mut polls = 0;
        // Every wake-up of this task polls the relay once more.
        let counting = poll_fn(|cx| {
            polls += 1;
            never_wakes.as_mut().poll(cx).map(|_| ())
        });
        let silence = tokio::time::timeout(Duration::from_millis(50), counting).await;
        assert!(silence.is_err());
        polls
    };
    // At first, and when the test's own time is over.
    assert!(relaying.await <= 2);
    assert!(client.polls <= 2 && upstream.polls <= 2);
}

#[tokio::test]
async fn a_blocked_sink_is_asked_once_a_turn_and_its_source_not_read_on() {
    let mut client = Script::new([Step::Bytes(1 << 30)], []);
    let mut upstream = Script::new([Step::Stop], [Step::Bytes(10), Step::Stop]);
    poll(&mut client, &mut upstream, 5).await;
    assert_eq!(upstream.received.len(), 10);
    assert_eq!(
        client.sent, CHUNK as u64,
        "more than a chunk was taken from the client"
    );
    assert_eq!(client.polls, 1);
    assert_eq!(
        upstream.polls,
        3 + 4 + 5,
        "three writes, one a turn after that, and one look for bytes a turn"
    );
}

#[tokio::test]
async fn one_direction_that_never_pauses_leaves_the_other_its_turn() {
    let mut client = Script::new([Step::Bytes(1 << 40), Step::Stop], []);
    let mut upstream = Script::new([Step::Bytes(5), Step::Stop], []);
    poll(&mut client, &mut upstream, 1).await;
    assert_eq!(client.received.len(), 5);
    assert_eq!(upstream.received.len(), MOVES_PER_TURN * CHUNK);
}

#[tokio::test]
async fn a_relay_that_is_dropped_in_the_middle_of_an_upload_resets_the_upstream() {
    let mut client = Script::new([Step::Bytes(5), Step::Stop], []);
    let mut upstream = Script::new([Step::Stop], []);
    poll(&mut client, &mut upstream, 1).await;
    assert!(upstream.was_reset.get());
    assert!(!client.was_reset.get());
}

#[tokio::test]
async fn a_relay_that_is_dropped_after_the_upload_leaves_the_upstream_its_clean_end() {
    let mut client = Script::new([Step::Bytes(5)], []);
    let mut upstream = Script::new([Step::Stop], []);
    poll(&mut client, &mut upstream, 1).await;
    assert_eq!(upstream.ended, Some(End::Clean));
    assert!(!upstream.was_reset.get());
}

#[tokio::test]
async fn a_reset_that_a_write_has_met_makes_the_end_behind_it_a_reset() {
    // The client is written to first: the kernel tells of its reset there, and the read behind it sees an end.
    let mut client = Script::new(
        [Step::Pause, Step::Bytes(5)],
        [Step::Fails(io::ErrorKind::ConnectionReset)],
    );
    let mut upstream = Script::new([Step::Bytes(5), Step::Stop], []);
    let (outcome, up, _) = run(&mut client, &mut upstream, b"").await;
    assert!(matches!(outcome, Outcome::ClientFailed(_)), "{outcome:?}");
    assert_eq!(up, 5, "what had come before the reset goes up");
    assert_eq!(
        upstream.ended, None,
        "half an upload ended like a whole one"
    );
    assert!(upstream.was_reset.get());

    let mut client = Script::new([Step::Bytes(5), Step::Stop], []);
    let mut upstream = Script::new(
        [Step::Pause, Step::Bytes(5)],
        [Step::Fails(io::ErrorKind::ConnectionReset)],
    );
    let (outcome, _, down) = run(&mut client, &mut upstream, b"").await;
    assert!(matches!(outcome, Outcome::UpstreamFailed(_)), "{outcome:?}");
    assert_eq!(down, 5, "what had come before the reset goes down");
    assert_eq!(client.ended, None, "half an answer ended like a whole one");
}

#[tokio::test]
async fn an_upstream_that_had_ended_before_it_refused_more_has_answered_whole() {
    // EPIPE: its FIN came before its reset.
    let mut client = Script::new([Step::Bytes(5), Step::Stop], []);
    let mut upstream = Script::new([Step::Bytes(5)], [Step::Fails(io::ErrorKind::BrokenPipe)]);
    let (outcome, _, down) = run(&mut client, &mut upstream, b"").await;
    assert!(matches!(outcome, Outcome::UpstreamFailed(_)), "{outcome:?}");
    assert_eq!((down, client.ended), (5, Some(End::Clean)));
}

#[tokio::test]
async fn an_end_that_was_not_announced_is_passed_on_as_such() {
    let mut client = Script::new(
        [Step::Bytes(5), Step::Fails(io::ErrorKind::UnexpectedEof)],
        [],
    );
    let mut upstream = Script::new([Step::Bytes(7)], []);
    let (outcome, up, down) = run(&mut client, &mut upstream, b"early").await;
    assert!(matches!(outcome, Outcome::Closed), "{outcome:?}");
    assert_eq!((up, down), (10, 7));
    assert_eq!(
        (upstream.ended, client.ended),
        (Some(End::Truncated), Some(End::Clean))
    );
}

#[tokio::test]
async fn whoever_leaves_because_the_other_side_broke_off_is_not_the_one_that_did() {
    let reset = || Step::Fails(io::ErrorKind::ConnectionReset);
    let mut client = Script::new([Step::Bytes(5), Step::Pause, reset()], []);
    let cut = Step::Fails(io::ErrorKind::UnexpectedEof);
    let mut upstream = Script::new([Step::Bytes(7), cut], []);
    let (outcome, _, down) = run(&mut client, &mut upstream, b"").await;
    assert!(matches!(outcome, Outcome::UpstreamFailed(_)), "{outcome:?}");
    assert_eq!((down, client.ended), (7, Some(End::Truncated)));
    assert!(upstream.was_reset.get());

    let cut = Step::Fails(io::ErrorKind::UnexpectedEof);
    let mut client = Script::new([Step::Bytes(5), cut], []);
    let mut upstream = Script::new([Step::Bytes(7), Step::Pause, reset()], []);
    let (outcome, ..) = run(&mut client, &mut upstream, b"").await;
    assert!(matches!(outcome, Outcome::ClientFailed(_)), "{outcome:?}");
    assert_eq!(upstream.ended, Some(End::Truncated));

    let mut client = Script::new([Step::Bytes(5), Step::Pause, reset()], []);
    let mut upstream = Script::new([Step::Bytes(7)], []);
    let (outcome, ..) = run(&mut client, &mut upstream, b"").await;
    assert!(matches!(outcome, Outcome::ClientFailed(_)), "{outcome:?}");
}

#[tokio::test]
async fn a_sink_that_takes_nothing_is_broken_and_not_asked_for_ever() {
    struct Nothing(Script);
    impl Stream for Nothing {
        fn poll_receive(
            &mut self,
            cx: &mut Context<'_>,
            take: &mut dyn FnMut(&[u8]),
        ) -> Poll<io::Result<Option<End>>> {
            self.0.poll_receive(cx, take)
        }
        fn poll_write(&mut self, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(0))
        }
        fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.0.poll_flush(cx)
        }
        fn poll_shutdown(
            &mut self,
            cx: &mut Context<'_>,
            end: End,
            last: bool,
        ) -> Poll<io::Result<()>> {
            self.0.poll_shutdown(cx, end, last)
        }
    }
    impl Socket for Nothing {
        fn reset(&self) {
            self.0.reset();
        }
        fn into_tcp(self) -> TcpStream {
            self.0.into_tcp()
        }
    }
    let mut client = Script::new([Step::Bytes(5), Step::Stop], []);
    let mut upstream = Nothing(Script::new([], []));
    let (mut up, mut down) = (Tally::default(), Tally::default());
    let Relayed { outcome, .. } = relay(
        &mut client,
        &mut upstream,
        Vec::new(),
        &for_ever(),
        &mut up,
        &mut down,
    )
    .await;
    assert!(matches!(outcome, Outcome::UpstreamFailed(_)), "{outcome:?}");
}

/// Whether the upstream ended without an answer.
async fn unanswered(client: &[Step], upstream: &[Step]) -> bool {
    let mut client = Script::new(client.iter().cloned(), []);
    let mut upstream = Script::new(upstream.iter().cloned(), []);
    let (mut up, mut down) = (Tally::default(), Tally::default());
    let early = Vec::new();
    relay(
        &mut client,
        &mut upstream,
        early,
        &for_ever(),
        &mut up,
        &mut down,
    )
    .await
    .unanswered
}

#[tokio::test]
async fn an_upstream_that_ends_at_the_clients_first_byte_has_not_answered() {
    use Step::{Bytes, Fails, Pause};
    let reset = Fails(io::ErrorKind::ConnectionReset);
    let client = [Pause, Bytes(5), Pause, Pause, Pause, Pause];
    for (upstream, what) in [
        (&[Pause, Pause][..], "nothing, then an end"),
        (&[Bytes(9), Pause, Pause], "a banner, then an end"),
        (
            &[Bytes(9), Pause, Pause, reset.clone()],
            "a banner, then a reset",
        ),
    ] {
        assert!(unanswered(&client, upstream).await, "{what}");
    }
    let resets = Script::new([Pause, Pause], [reset]);
    let mut client = Script::new([Bytes(5), Step::Stop], []);
    let (mut up, mut down) = (Tally::default(), Tally::default());
    let early = b"early".to_vec();
    let relayed = relay(
        &mut client,
        &mut { resets },
        early,
        &for_ever(),
        &mut up,
        &mut down,
    )
    .await;
    assert!(!relayed.unanswered, "the client's first byte never went up");
}

#[tokio::test]
async fn an_upstream_that_answers_or_is_not_asked_or_ends_second_is_in_no_debt() {
    use Step::{Bytes, Pause};
    let long = [Pause, Bytes(5), Pause, Pause, Pause, Pause];
    for (client, upstream, what) in [
        (
            &long[..],
            &[Pause, Pause, Bytes(1), Pause][..],
            "it answered",
        ),
        (
            &long,
            &[Bytes(9)],
            "it ended before the client said anything",
        ),
        (
            &[Bytes(5)],
            &[Pause, Pause, Pause],
            "the client ended first",
        ),
        (&[], &[], "both ended at once"),
    ] {
        assert!(!unanswered(client, upstream).await, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_ends_long_after_the_clients_first_byte_has_not_ended_at_it() {
    for (seconds, at_it) in [(0, true), (4, true), (6, false), (3600, false)] {
        let client = [Step::Bytes(5), Step::Pause, Step::Pause, Step::Pause];
        let mut client = Script::new(client, []);
        let mut upstream = Script::new([Step::Pause], []);
        let (mut up, mut down) = (Tally::default(), Tally::default());
        let early = Vec::new();
        let patience = for_ever();
        let mut relaying = std::pin::pin!(relay(
            &mut client,
            &mut upstream,
            early,
            &patience,
            &mut up,
            &mut down,
        ));
        let first = relaying
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        assert!(first.is_pending(), "the client's first byte is up");
        tokio::time::advance(Duration::from_secs(seconds)).await;
        assert_eq!(relaying.await.unanswered, at_it, "{seconds}");
    }
}

#[tokio::test]
async fn a_client_that_is_gone_is_no_missing_answer() {
    let mut client = Script::new(
        [Step::Bytes(5), Step::Pause, Step::Pause],
        [Step::Fails(io::ErrorKind::BrokenPipe)],
    );
    let mut upstream = Script::new([Step::Pause, Step::Bytes(5)], []);
    let (mut up, mut down) = (Tally::default(), Tally::default());
    let early = Vec::new();
    let relayed = relay(
        &mut client,
        &mut upstream,
        early,
        &for_ever(),
        &mut up,
        &mut down,
    )
    .await;
    assert!(!relayed.unanswered, "{relayed:?}");
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..2_000_usize).prop_map(Step::Bytes),
        1 => (0..200_000_usize).prop_map(Step::Bytes),
        4 => Just(Step::Pause),
    ];
    prop::collection::vec(step, 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_byte_comes_through_in_its_order_whoever_pauses_and_ends_when(
        client_reads in steps(),
        client_writes in steps(),
        upstream_reads in steps(),
        upstream_writes in steps(),
        early in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut client = Script::new(client_reads.clone(), client_writes);
            let mut upstream = Script::new(upstream_reads.clone(), upstream_writes);
            let (outcome, up, down) = run(&mut client, &mut upstream, &early).await;
            assert!(matches!(outcome, Outcome::Closed), "{outcome:?}");
            let sent = [early, Script::all(&client_reads)].concat();
            assert_eq!(up, sent.len() as u64);
            assert!(upstream.received == sent);
            assert_eq!(down, client.received.len() as u64);
            assert!(client.received == Script::all(&upstream_reads));
            assert_eq!((client.ended, upstream.ended), (Some(End::Clean), Some(End::Clean)));
            assert!(client.largest_write <= CHUNK && upstream.largest_write <= CHUNK);
            assert!(!upstream.was_reset.get());
        });
    }
}
