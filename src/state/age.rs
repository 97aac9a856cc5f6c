//! How old what is kept may be: judged when it is opened, and for as long as it is served.

use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::sleep;

/// A clock that was set right may have been ahead by so much; more, and nobody can tell how old a part is.
const CLOCK_SLACK: Duration = Duration::from_secs(300);

/// At least this often the clock is looked at: it may have been set, or the machine have slept.
const CLOCK: Duration = Duration::from_secs(60);

/// Whether what was last confirmed then is young enough.
///
/// # Errors
/// It is too old, or the clock says that it comes from the future, and nobody knows how old it is.
pub fn judge(confirmed: SystemTime, now: SystemTime, max_age: Duration) -> Result<(), String> {
    let at = written(confirmed);
    match now.duration_since(confirmed) {
        Ok(age) if age > max_age => Err(format!(
            "what the disk keeps is refused: it is of {at}, {} s ago, and `state_max_age` is {} s",
            age.as_secs(),
            max_age.as_secs()
        )),
        Err(ahead) if ahead.duration() > CLOCK_SLACK => Err(format!(
            "what the disk keeps is refused: it is of {at}, and the clock says {}: was it put back?",
            written(now)
        )),
        _ => Ok(()),
    }
}

/// A time as it is told to people, in UTC.
pub fn written(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time)
        .map_or_else(|_| "an odd time".to_owned(), |time| format!("{time:.0}"))
}

/// Waits until the judgement of what was confirmed then is another than it was: by the clock, or by another `max_age`.
pub(super) async fn turned(
    mut max_age: watch::Receiver<Duration>,
    confirmed: SystemTime,
    was_good: bool,
) {
    loop {
        let most = *max_age.borrow_and_update();
        let now = SystemTime::now();
        if judge(confirmed, now, most).is_ok() != was_good {
            return;
        }
        let end = confirmed.checked_add(most);
        let left = end.and_then(|end| end.duration_since(now).ok());
        // A millisecond more: at the end itself it is good.
        let pause = left.map_or(CLOCK, |left| CLOCK.min(left + Duration::from_millis(1)));
        tokio::select! {
            () = sleep(pause) => {}
            changed = max_age.changed() => {
                if changed.is_err() {
                    // Whoever could change it has gone: the process ends.
                    sleep(CLOCK).await;
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn an_age_is_judged_to_the_second_and_a_clock_that_was_put_back_is_found_out() {
        let now = SystemTime::now();
        assert!(judge(now - HOUR, now, HOUR).is_ok());
        let why = judge(now - HOUR - Duration::from_secs(1), now, HOUR).unwrap_err();
        assert!(
            why.contains("3601 s ago, and `state_max_age` is 3600 s"),
            "{why}"
        );
        // Clocks are set now and then.
        assert!(judge(now + Duration::from_secs(299), now, HOUR).is_ok());
        let why = judge(now + 365 * 24 * HOUR, now, 30 * 24 * HOUR).unwrap_err();
        assert!(why.contains("was it put back?"), "{why}");
    }

    #[tokio::test]
    async fn a_judgement_turns_when_the_time_comes_and_when_the_bound_is_another() {
        let (bound, max_age) = watch::channel(HOUR);
        let confirmed = SystemTime::now() - Duration::from_secs(60);
        let waiting = tokio::spawn(turned(max_age.clone(), confirmed, true));
        bound.send(Duration::from_millis(60_100)).unwrap();
        waiting.await.unwrap();
        assert!(judge(confirmed, SystemTime::now(), *max_age.borrow()).is_err());
        let waiting = tokio::spawn(turned(max_age.clone(), confirmed, false));
        bound.send(HOUR).unwrap();
        waiting.await.unwrap();
        // It is so already.
        turned(max_age, confirmed, false).await;
    }
}
