//! Blocking queries: the index that they carry, and what makes them begin anew.

use super::*;
use crate::retry::Backoff;

const WATCH: &str = "GET /v1/health/service/web?passing=1";

fn watch(client: Client) -> Watch<Value> {
    Watch::new(client, HEALTH.path, &[("passing", "1")])
}

#[tokio::test]
async fn a_watch_begins_with_the_state_as_it_is_and_then_waits_for_each_change() {
    let mut server = Server::start([good(5, "1"), good(9, "2"), good(9, "2")]).await;
    let mut watch = watch(client(&server));
    for value in [1, 2, 2] {
        assert_eq!(watch.next().await.unwrap().value, value);
    }
    assert_eq!(server.asked_for().await, WATCH);
    assert_eq!(
        server.asked_for().await,
        format!("{WATCH}&index=5&wait=300s")
    );
    assert_eq!(
        server.asked_for().await,
        format!("{WATCH}&index=9&wait=300s")
    );
}

#[tokio::test]
async fn an_index_that_goes_back_begins_anew_and_0_counts_as_1() {
    let indexes = [50, 20, 30, 0, 0, 0];
    let mut server = Server::start(indexes.map(|index| good(index, "[]"))).await;
    let limits = Limits {
        burst: 100,
        ..Limits::default()
    };
    let mut watch = watch(Client::with_limits(&server.consul(), limits).unwrap());
    for index in [50, 20, 30, 1, 1, 1] {
        assert_eq!(watch.next().await.unwrap().index, index);
    }
    let wait = |index: u64| format!("{WATCH}&index={index}&wait=300s");
    let bare = || WATCH.to_owned();
    for asked in [bare(), wait(50), bare(), wait(30), bare(), wait(1)] {
        assert_eq!(server.asked_for().await, asked);
    }
}

#[tokio::test]
async fn after_an_error_a_watch_pauses_and_begins_anew() {
    let broken = || reply("500 Internal Server Error", "", "No cluster leader");
    let replies = [good(5, "1"), broken(), broken(), good(6, "2"), broken()];
    let mut server = Server::start(replies).await;
    let mut watch = watch(client(&server));
    watch.next().await.unwrap();
    assert!(watch.next().await.is_err());
    let since = std::time::Instant::now();
    assert!(watch.next().await.is_err());
    assert_eq!(watch.next().await.unwrap().value, 2);
    // The upper halves of 250 and 500 ms.
    assert!(since.elapsed() >= Duration::from_millis(125 + 250));
    assert_eq!(server.asked_for().await, WATCH);
    assert_eq!(
        server.asked_for().await,
        format!("{WATCH}&index=5&wait=300s")
    );
    assert_eq!(server.asked_for().await, WATCH);
    assert_eq!(server.asked_for().await, WATCH);
}

#[tokio::test]
async fn an_answer_that_does_not_serve_is_asked_for_anew_after_a_growing_pause() {
    let replies = [good(5, "1"), good(5, "1"), good(5, "1"), good(5, "2")];
    let mut server = Server::start(replies).await;
    let mut watch = watch(client(&server));
    watch.next().await.unwrap();
    let since = std::time::Instant::now();
    for _ in 0..2 {
        watch.begin_anew();
        watch.next().await.unwrap();
    }
    // The upper halves of 250 and 500 ms.
    assert!(since.elapsed() >= Duration::from_millis(125 + 250));
    watch.next().await.unwrap();
    for _ in 0..3 {
        assert_eq!(server.asked_for().await, WATCH);
    }
    let waits = format!("{WATCH}&index=5&wait=300s");
    assert_eq!(server.asked_for().await, waits, "that one served");
}

#[tokio::test]
async fn after_a_success_the_next_error_is_a_first_one_again() {
    let broken = || reply("500 Internal Server Error", "", "No cluster leader");
    let replies = (0..40).map(|i| if i % 2 == 0 { broken() } else { good(1, "[]") });
    let server = Server::start(replies).await;
    let limits = Limits {
        backoff: Backoff::new(Duration::from_millis(1), Duration::from_secs(3600)),
        spacing: Duration::ZERO,
        ..Limits::default()
    };
    let mut watch = watch(Client::with_limits(&server.consul(), limits).unwrap());
    let all = async {
        for i in 0..40 {
            assert_eq!(watch.next().await.is_ok(), i % 2 == 1);
        }
    };
    // Were they one row of errors, the last pause would be one of minutes.
    tokio::time::timeout(Duration::from_secs(30), all)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_stream_of_answers_is_spaced_and_the_first_after_a_quiet_time_is_not() {
    let replies = (1..=6).map(|index| good(index, "[]"));
    let server = Server::start(replies).await;
    let limits = Limits {
        spacing: Duration::from_millis(100),
        ..Limits::default()
    };
    let mut watch = watch(Client::with_limits(&server.consul(), limits).unwrap());
    let since = std::time::Instant::now();
    for _ in 0..6 {
        watch.next().await.unwrap();
    }
    // Three follow the first at once; two are spaced.
    assert!(since.elapsed() >= Duration::from_millis(200));

    let limits = Limits {
        spacing: Duration::from_secs(3600),
        ..Limits::default()
    };
    let server = Server::start([good(1, "[]"), good(2, "[]"), good(3, "[]")]).await;
    let mut watch = super::watches::watch(Client::with_limits(&server.consul(), limits).unwrap());
    for _ in 0..3 {
        let next = tokio::time::timeout(Duration::from_secs(60), watch.next());
        next.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_watch_that_is_cancelled_asks_the_same_again() {
    let mut server = Server::start([good(5, "1")]).await;
    let mut watch = watch(client(&server));
    watch.next().await.unwrap();
    assert_eq!(server.asked_for().await, WATCH);
    for _ in 0..2 {
        tokio::select! {
            answer = watch.next() => panic!("{answer:?}"),
            asked = server.asked_for() => assert_eq!(asked, format!("{WATCH}&index=5&wait=300s")),
        }
    }
    server.then(good(6, "2"));
    assert_eq!(watch.next().await.unwrap().value, 2);
}

#[tokio::test]
async fn a_blocking_query_may_take_as_long_as_it_asked_for_and_a_little_more() {
    let mut server = Server::start([good(5, "1")]).await;
    let limits = Limits {
        answer: Duration::from_millis(500),
        wait: Duration::from_secs(1),
        ..Limits::default()
    };
    let client = Client::with_limits(&server.consul(), limits).unwrap();
    let mut watch = watch(client);
    watch.next().await.unwrap();
    server.asked().await;
    let since = std::time::Instant::now();
    let error = watch.next().await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert!(since.elapsed() >= Duration::from_millis(1000 + 1000 / 16 + 500));
}

#[tokio::test]
async fn a_watch_takes_no_turn_from_the_reads() {
    let mut server = Server::start([good(5, "1")]).await;
    let limits = Limits {
        reads: 1,
        ..Limits::default()
    };
    let client = Client::with_limits(&server.consul(), limits).unwrap();
    let mut watch = watch(client.clone());
    watch.next().await.unwrap();
    server.asked().await;
    tokio::select! {
        answer = watch.next() => panic!("{answer:?}"),
        _ = server.asked() => {}
    }
    let waiting = tokio::spawn(async move { watch.next().await.map(drop) });
    server.asked().await;
    server.then(good(1, "[]"));
    ask(&client).await.unwrap();
    waiting.abort();
}
