//! Work on what is known that would hold up the threads that connections share.

use std::future;

use tokio::task;

use super::known::Known;

/// Does this on a thread of its own, as connections share theirs: the rules of one service can take half a second to read, and
/// the checks of a large cluster ten milliseconds to compare.
pub(super) async fn aside(known: &mut Known, work: impl FnOnce(&mut Known) + Send + 'static) {
    let mut taken = std::mem::replace(known, Known::unknowing());
    let done = task::spawn_blocking(move || {
        work(&mut taken);
        taken
    });
    match done.await {
        Ok(done) => *known = done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and the watch with it.
            Err(_) => future::pending().await,
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_shares_a_thread_with_the_watch_goes_on_while_tags_are_read() {
        let (go_on, told) = mpsc::channel();
        let mut known = Known::unknowing();
        let reading = aside(&mut known, move |_| {
            told.recv_timeout(Duration::from_secs(10)).unwrap();
        });
        tokio::join!(reading, async { go_on.send(()).unwrap() });
    }
}
