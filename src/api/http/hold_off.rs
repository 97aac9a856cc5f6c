//! An agent that has too much to do, and says for how long it is not to be asked.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::header::RETRY_AFTER;
use hyper::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::Error;

/// Nothing is asked for so long at most, whatever the agent says: one that errs must not be lost for a day.
///
/// 60 s: twice the longest pause after errors without such a word.
const LONGEST: Duration = Duration::from_secs(60);

/// The last refusal of that kind, and until when it holds.
#[derive(Debug, Default)]
pub(super) struct HoldOff(Mutex<Option<(Instant, Error)>>);

impl HoldOff {
    /// The refusal that holds now: nothing is asked.
    pub(super) fn refusal(&self) -> Option<Error> {
        let held = self.lock();
        let (until, error) = held.as_ref()?;
        (Instant::now() < *until).then(|| error.clone())
    }

    /// Takes in a refusal: 429 or 503 with `Retry-After` in seconds (RFC 9110 §10.2.3, RFC 6585 §4).
    pub(super) fn heed(&self, status: StatusCode, headers: &HeaderMap, error: &Error) {
        let is_busy = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        );
        let seconds = headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok());
        let seconds: Option<u64> = seconds.and_then(|text| text.trim().parse().ok());
        if let Some(seconds) = seconds.filter(|_| is_busy) {
            let pause = Duration::from_secs(seconds).min(LONGEST);
            *self.lock() = Some((Instant::now() + pause, error.clone()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Instant, Error)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
