//! The thread that writes: at most once a second, whatever is told meanwhile, and a last time on the way out.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::contents::Contents;
use super::folder::{Folder, FolderError};
use super::part::{Key, encode};
use crate::retry::Backoff;

/// Between two writes, at least; a disk that takes long gets [`PATIENCE`] times as long a pause.
///
/// 1 s: what a power cut costs is a second of changes, and a catalog in steady churn is one file a second.
const BETWEEN_WRITES: Duration = Duration::from_secs(1);
const PATIENCE: u32 = 20;

/// A write that takes longer is told of. 5 s: a busy disk may take a second or two, and a good one takes milliseconds.
const PATIENCE_WITH_A_DISK: Duration = Duration::from_secs(5);

/// What cannot be written is tried again after a second, and later after half a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) desk: Mutex<Desk>,
    /// For the writer, that there is something to do; for whoever closes, that it is done.
    pub(super) turn: Condvar,
    pub(super) max_age: watch::Sender<Duration>,
    /// Of the key that parts are sealed with.
    pub(super) key_print: Option<[u8; 32]>,
}

impl Shared {
    pub(super) fn max_age(&self) -> Duration {
        *self.max_age.borrow()
    }

    pub(super) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(super) struct Desk {
    pub(super) parts: BTreeMap<Arc<str>, Contents>,
    pub(super) closing: bool,
    pub(super) closed: bool,
    /// Since when the disk has been waited for.
    pub(super) writing: Option<Instant>,
}

/// The thread that writes.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) folder: Folder,
    pub(super) key: Option<Key>,
    /// Whether the last attempt to write was in vain.
    pub(super) is_failing: bool,
    /// Hears of each attempt.
    pub(super) tell: Arc<Tell>,
}

/// Hears of each attempt to write.
pub(super) struct Tell(pub(super) Box<dyn Fn(Result<(), FolderError>) + Send + Sync>);

/// Tells of a disk that does not answer: whoever waits for it cannot.
pub(super) struct Watchdog {
    pub(super) shared: Arc<Shared>,
    pub(super) folder: String,
    pub(super) tell: Arc<Tell>,
}

impl Watchdog {
    /// Until the writer has ended; where the disk never answers again, until the process has.
    pub(super) fn run(self) {
        let mut told = None;
        let mut desk = self.shared.desk();
        while !desk.closed {
            let writing = desk.writing.filter(|begun| told != Some(*begun));
            let left = writing.map(|begun| PATIENCE_WITH_A_DISK.saturating_sub(begun.elapsed()));
            desk = match left {
                Some(Duration::ZERO) => {
                    told = writing;
                    let most = PATIENCE_WITH_A_DISK.as_secs();
                    // Under the lock: what the writer tells of this attempt comes after it.
                    (self.tell.0)(Err(FolderError::Hangs(self.folder.clone(), most)));
                    desk
                }
                Some(left) => {
                    let waited = self.shared.turn.wait_timeout(desk, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.shared.turn.wait(desk);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }
}

impl Writer {
    pub(super) fn run(mut self) {
        let mut after_failure = Backoff::new(BETWEEN_WRITES, LONGEST_PAUSE);
        let mut not_before = Instant::now();
        if self.is_failing {
            not_before += after_failure.next();
        }
        while let Some(due) = self.next(not_before) {
            let begun = Instant::now();
            self.waits(Some(begun));
            let outcome = self.write_all(due);
            self.waits(None);
            self.is_failing = outcome.is_err();
            let pause = match outcome {
                Ok(()) => {
                    after_failure.reset();
                    BETWEEN_WRITES.max(begun.elapsed() * PATIENCE)
                }
                Err(_) => after_failure.next(),
            };
            (self.tell.0)(outcome);
            not_before = Instant::now() + pause;
        }
        // The lock is free before anybody hears that this has ended.
        let Self { shared, folder, .. } = self;
        drop(folder);
        shared.desk().closed = true;
        shared.turn.notify_all();
    }

    /// For the watchdog, which sleeps as long as nothing is written.
    fn waits(&self, since: Option<Instant>) {
        self.shared.desk().writing = since;
        self.shared.turn.notify_all();
    }

    /// Waits for parts that are to be written, and takes what they hold; none when there will be no more. While nothing
    /// can be written, it waits for no part: that it can be again is to be noticed.
    fn next(&self, not_before: Instant) -> Option<Vec<(Arc<str>, Contents)>> {
        let mut desk = self.shared.desk();
        loop {
            let is_last = desk.closing;
            let left = not_before.saturating_duration_since(Instant::now());
            let max_age = self.shared.max_age();
            let parts = desk.parts.iter_mut();
            let mut due = parts
                .filter(|(_, contents)| contents.is_due(max_age, is_last))
                .peekable();
            let is_due = due.peek().is_some();
            if is_last && !is_due {
                return None;
            }
            if is_last || (left.is_zero() && (is_due || self.is_failing)) {
                let taken = due.map(|(name, contents)| {
                    contents.is_changed = false;
                    (Arc::clone(name), contents.copy())
                });
                return Some(taken.collect());
            }
            drop(due);
            desk = match is_due || self.is_failing {
                true => {
                    let waited = self.shared.turn.wait_timeout(desk, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                false => {
                    let waited = self.shared.turn.wait(desk);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    /// Writes these. After a failure the others are tried all the same: one of them may fit.
    fn write_all(&mut self, due: Vec<(Arc<str>, Contents)>) -> Result<(), FolderError> {
        let mut outcome = self.folder.lock();
        for (name, contents) in due {
            let written = self.write(&name, &contents);
            let mut desk = self.shared.desk();
            let is_last = desk.closing;
            if let Some(kept) = desk.parts.get_mut(&name) {
                match &written {
                    Ok(()) => kept.on_disk = contents.confirmed,
                    // There will be no other time.
                    Err(_) if is_last => kept.confirmed = None,
                    Err(_) => kept.is_changed = true,
                }
            }
            outcome = outcome.and(written);
        }
        outcome
    }

    fn write(&mut self, name: &str, contents: &Contents) -> Result<(), FolderError> {
        let body = contents.body();
        let bytes = body.and_then(|body| encode(name, body, self.key.as_ref()));
        match bytes {
            Some(bytes) => self.folder.write(name, &bytes),
            // Of a time before 1970, or from a cipher that failed: there is no part to write.
            None => Ok(()),
        }
    }
}
