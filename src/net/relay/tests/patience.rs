//! The ends of patience: silence and age, enforced and only counted.

use super::script::{Script, Step};
use super::*;
use crate::metrics::{Limit, Metrics};

const MINUTE: Duration = Duration::from_secs(60);

/// The relay's outcome and how many seconds it took, of a client that does this and an upstream that says nothing.
async fn ends(client: &[Step], patience: &Patience) -> (Outcome, u64) {
    let started = Instant::now();
    let mut client = Script::new(client.iter().cloned(), []);
    let mut upstream = Script::new([Step::Stop], []);
    let (mut up, mut down) = (Tally::default(), Tally::default());
    let early = Vec::new();
    let relayed = relay(
        &mut client,
        &mut upstream,
        early,
        patience,
        &mut up,
        &mut down,
    )
    .await;
    (relayed.outcome, started.elapsed().as_secs())
}

/// How often a limit was met, as a scrape shows it.
fn count(metrics: &Metrics, limit: Limit, enforced: bool) -> String {
    let limit = limit.as_str();
    let series =
        format!("portcullis_limit_exceeded_total{{limit=\"{limit}\",enforced=\"{enforced}\"}} ");
    let text = metrics.encode();
    let line = text.lines().find_map(|line| line.strip_prefix(&series));
    line.unwrap().to_owned()
}

fn counted_by(metrics: &Metrics) -> Patience {
    Patience {
        exceeded: Arc::clone(metrics.exceeded()),
        ..Patience::endless(Duration::from_secs(10))
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_counted_from_the_last_byte_and_anew_from_the_first_end() {
    let metrics = Metrics::new();
    let mut patience = counted_by(&metrics);
    patience.idle.max = Some(MINUTE);
    let (outcome, seconds) = ends(&[Step::Bytes(5), Step::Stop], &patience).await;
    assert!(matches!(outcome, Outcome::Idle), "{outcome:?}");
    assert_eq!(seconds, 60);
    assert_eq!(count(&metrics, Limit::Idle, true), "1");

    let (outcome, seconds) = ends(&[Step::Bytes(5)], &patience).await;
    assert!(matches!(outcome, Outcome::HalfClosed), "{outcome:?}");
    assert_eq!(seconds, 10);
    assert_eq!(count(&metrics, Limit::Idle, true), "1");
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_a_silent_relay_is_never_ended() {
    let relaying = async { ends(&[Step::Stop], &for_ever()).await };
    let year = Duration::from_secs(365 * 86_400);
    assert!(tokio::time::timeout(year, relaying).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_relay_ends_at_its_moment_whatever_else_it_waits_for() {
    let metrics = Metrics::new();
    let mut patience = counted_by(&metrics);
    for (idle, half) in [(None, false), (Some(MINUTE), false), (None, true)] {
        patience.idle.max = idle;
        patience.until = Some(Instant::now() + Duration::from_secs(5));
        let steps = match half {
            true => vec![Step::Bytes(5)],
            false => vec![Step::Bytes(5), Step::Stop],
        };
        let (outcome, seconds) = ends(&steps, &patience).await;
        assert!(matches!(outcome, Outcome::Lifetime), "{outcome:?}");
        assert_eq!(seconds, 5);
    }
    assert_eq!(count(&metrics, Limit::Lifetime, true), "3");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_enforced_is_counted_once_and_the_relay_goes_on_with_its_other_limits() {
    let metrics = Metrics::new();
    let mut patience = counted_by(&metrics);
    patience.idle = Span {
        max: Some(MINUTE),
        enforce: false,
    };
    patience.until = Some(Instant::now() + 10 * MINUTE);
    patience.ends_then = false;
    let waiting = ends(&[Step::Bytes(5), Step::Stop], &patience);
    assert!(tokio::time::timeout(60 * MINUTE, waiting).await.is_err());
    for limit in [Limit::Idle, Limit::Lifetime] {
        assert_eq!(count(&metrics, limit, false), "1");
        assert_eq!(count(&metrics, limit, true), "0");
    }

    patience.until = Some(Instant::now() + 10 * MINUTE);
    patience.ends_then = true;
    let (outcome, seconds) = ends(&[Step::Stop], &patience).await;
    assert!(matches!(outcome, Outcome::Lifetime), "{outcome:?}");
    assert_eq!(seconds, 600);
    assert_eq!(count(&metrics, Limit::Idle, false), "2");
}
