//! When the certificates end that are shown to those who are dialled, and which have.

use std::time::{Duration, SystemTime};

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use crate::metrics::Metrics;
use crate::status::{State, Status};
use crate::tls::files::OwnCertificate;

/// The part of the status that tells which have expired; absent where none has.
const PART: &str = "own_certificates";

/// The clock is looked at so often at least: it may be set.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Whoever watches the certificates of a configuration. Dropped, he watches no more.
#[derive(Debug)]
pub(super) struct Watching(AbortHandle);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells of these from now on. That one has expired at the start or a reload has been told among the warnings.
pub(super) fn watch(
    own: Vec<OwnCertificate>,
    metrics: &Metrics,
    status: &Status,
    tasks: &mut JoinSet<()>,
) -> Watching {
    metrics.own_certificates(own.iter().map(named));
    let mut over = tell(&own, status);
    let status = status.clone();
    let watching = async move {
        while let Some(next) = next(&own) {
            sleep(next.min(LONGEST_PAUSE)).await;
            let before = std::mem::replace(&mut over, tell(&own, &status));
            for path in over.iter().filter(|path| !before.contains(path)) {
                tracing::warn!(%path, "a certificate that upstreams are shown has expired: whoever verifies it refuses it");
            }
        }
    };
    Watching(tasks.spawn(watching))
}

fn named(own: &OwnCertificate) -> (String, SystemTime) {
    (own.source.display().to_string(), own.not_after)
}

/// Writes it on the board; the files of those that have expired.
fn tell(own: &[OwnCertificate], status: &Status) -> Vec<String> {
    let now = SystemTime::now();
    let over = own.iter().filter(|own| own.not_after <= now);
    let over: Vec<String> = over.map(|own| named(own).0).collect();
    match over.is_empty() {
        true => status.remove(PART),
        false => {
            let what = format!(
                "expired, and refused by whoever verifies it: {}",
                over.join(", ")
            );
            status.set(PART, State::Degraded(what));
        }
    }
    over
}

/// How long until the next one ends.
fn next(own: &[OwnCertificate]) -> Option<Duration> {
    let now = SystemTime::now();
    let left = own.iter().map(|own| own.not_after.duration_since(now));
    left.flatten().filter(|left| !left.is_zero()).min()
}
