//! The last good state, kept on the disk for a start without its sources: parts of named entries, written whole.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::watch;

mod age;
mod contents;
mod folder;
mod part;
mod writer;

pub use age::{judge, written};
pub use folder::{FolderError, look, make};
pub use part::KeyError;

use contents::Contents;
use folder::Folder;
use part::Key;
use writer::{Desk, Shared, Tell, Watchdog, Writer};

/// How long a source has to answer at a start before what is on the disk is served in its place.
///
/// 500 ms: a healthy source answers within a tenth of it, and nobody waits longer than a second for a route.
pub const GRACE: Duration = Duration::from_millis(500);

/// The longest that the end of a process waits for the last write: a disk that hangs must not keep it.
///
/// 2 s, as for the access log: a stop is over 5 s after its deadline, whatever hangs. What the kernel holds in a write it
/// lets go of when the disk answers; nobody is served or kept waiting by it.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// Where the state is kept, and how long it is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The folder. It is made (mode 0700) if it is not there.
    pub folder: PathBuf,
    /// The file with the key that all parts are sealed with; `None` writes them as they are, mode 0600.
    pub key_file: Option<PathBuf>,
    /// What was last confirmed longer ago is not served, neither at a start nor any longer.
    ///
    /// Default: 24 h. An outage that begins in the evening is mended in the morning; addresses of the day before yesterday
    /// may be somebody else's by now.
    pub max_age: Duration,
}

impl Settings {
    /// The default of [`max_age`](Self::max_age).
    pub const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
}

/// Whether a key can be read from a file; and with that, what is to be said of it, for people.
///
/// # Errors
/// It cannot be read, others may write to it, or it holds no 32 bytes, neither as they are nor in hex or base64.
pub fn check_key(path: &Path) -> Result<Option<String>, KeyError> {
    let is_open = Key::read(path)?.is_open_to_all();
    Ok(is_open.then(|| {
        format!(
            "{}: every user of this machine may read the key",
            path.display()
        )
    }))
}

/// What keeps the state. A thread of its own writes: nobody else ever waits for the disk. Dropped, it writes once more.
#[derive(Debug)]
pub struct State {
    shared: Arc<Shared>,
}

/// One part: what one source has told. Its entries are JSON of a type that is made for the disk.
pub struct Part {
    name: Arc<str>,
    shared: Arc<Shared>,
}

/// A part, and what it held when it was opened.
#[derive(Debug)]
pub struct Opened {
    /// Where it is kept from now on.
    pub part: Part,
    /// What was there, however old: whoever serves it [judges](Part::judge) that; or why it cannot be taken, for people.
    pub stored: Result<Option<Stored>, String>,
}

/// What a part held when its source was asked for the first time.
#[derive(Clone)]
pub struct Stored {
    /// When its source last confirmed all of it.
    pub confirmed: SystemTime,
    /// What was [confirmed](Part::confirm) with it.
    note: Option<Arc<RawValue>>,
    entries: BTreeMap<Arc<str>, Arc<RawValue>>,
}

impl State {
    /// Reads what is there, and begins to write. `tell` hears of each attempt to write, and of one
    /// that takes too long, on threads of the state's own.
    ///
    /// What cannot be read is logged and left out; nothing that is wrong with the disk keeps a gateway from starting.
    ///
    /// # Errors
    /// There is a key file, and no key can be read from it: what is secret is not written as it is then.
    pub fn start(
        settings: &Settings,
        parts: &[&str],
        tell: impl Fn(Result<(), FolderError>) + Send + Sync + 'static,
    ) -> Result<Self, KeyError> {
        let key = settings.key_file.as_deref().map(Key::read).transpose()?;
        let mut folder = Folder::new(&settings.folder);
        // Before anybody waits for it: what is wrong with the folder is told at once.
        let locked = folder.lock();
        let is_failing = locked.is_err();
        tell(locked);
        let read = |name: &&str| {
            let contents = Contents::read(name, &mut folder, key.as_ref());
            (Arc::from(*name), contents)
        };
        let parts = parts.iter().map(read).collect();
        let shared = Arc::new(Shared {
            desk: Mutex::new(Desk {
                parts,
                closing: false,
                closed: false,
                writing: None,
            }),
            turn: Condvar::new(),
            max_age: watch::Sender::new(settings.max_age),
            key_print: key.as_ref().map(Key::print),
        });
        let tell = Arc::new(Tell(Box::new(tell)));
        let writer = Writer {
            shared: Arc::clone(&shared),
            folder,
            key,
            is_failing,
            tell: Arc::clone(&tell),
        };
        let watchdog = Watchdog {
            shared: Arc::clone(&shared),
            folder: settings.folder.display().to_string(),
            tell,
        };
        let thread = thread::Builder::new().name("state-watch".to_owned());
        if let Err(error) = thread.spawn(move || watchdog.run()) {
            tracing::error!(%error, "a disk that hangs will not be told of: its thread cannot start");
        }
        let thread = thread::Builder::new().name("state".to_owned());
        if let Err(error) = thread.spawn(move || writer.run()) {
            tracing::error!(%error, "nothing is kept on the disk: its thread cannot start");
            shared.desk().closed = true;
            shared.turn.notify_all();
        }
        Ok(Self { shared })
    }

    /// A part for this source, with what it holds of it, or why that is refused. What is of another source (`origin`) is
    /// dropped.
    pub fn open(&self, name: &str, origin: &str) -> Opened {
        let stored = self.stored(name, origin);
        let part = Part {
            name: name.into(),
            shared: Arc::clone(&self.shared),
        };
        let refused = match &stored {
            Ok(Some(stored)) => part.judge(stored.confirmed).err(),
            Ok(None) => None,
            Err(why) => Some(why.clone()),
        };
        if let Some(why) = refused {
            tracing::error!(part = name, "what is kept on the disk is not served: {why}");
        }
        Opened { part, stored }
    }

    /// A part for this source, for whoever knows what was told last: nothing on the disk is any better. What is kept of this
    /// source stays, what is of another one is dropped.
    pub fn go_on(&self, name: &str, origin: &str) -> Opened {
        let mut desk = self.shared.desk();
        let contents = desk.parts.entry(name.into()).or_default();
        if contents.origin != origin {
            *contents = Contents::of(origin);
        }
        drop(desk);
        let part = Part {
            name: name.into(),
            shared: Arc::clone(&self.shared),
        };
        let stored = Ok(None);
        Opened { part, stored }
    }

    fn stored(&self, name: &str, origin: &str) -> Result<Option<Stored>, String> {
        let mut desk = self.shared.desk();
        let contents = desk.parts.entry(name.into()).or_default();
        if let Some(refusal) = &contents.refused {
            contents.origin = origin.to_owned();
            return Err(format!("what the disk keeps is refused: {refusal}"));
        }
        let found = std::mem::replace(contents, Contents::of(origin));
        let Some(confirmed) = found.confirmed else {
            return Ok(None);
        };
        if found.origin != origin {
            tracing::warn!(
                part = name,
                "what is kept on the disk was told by another source, and is dropped"
            );
            return Ok(None);
        }
        // What is too old is not lost by that: its names are known still, and another bound may let it serve.
        *contents = found;
        Ok(Some(Stored {
            confirmed,
            note: contents.note.clone(),
            entries: contents.entries.clone(),
        }))
    }

    /// From now on this is the bound: for what is opened, and for what is served already.
    pub fn set_max_age(&self, max_age: Duration) {
        self.shared.max_age.send_if_modified(|bound| {
            let is_new = *bound != max_age;
            *bound = max_age;
            is_new
        });
        // How often a part is written depends on it.
        self.shared.turn.notify_all();
    }

    /// Whether what is written is sealed with the key that this file holds now; or, without a file, with none.
    ///
    /// # Errors
    /// No key can be read from it.
    pub fn is_sealed_with(&self, key_file: Option<&Path>) -> Result<bool, KeyError> {
        let key = key_file.map(Key::read).transpose()?;
        Ok(key.as_ref().map(Key::print) == self.shared.key_print)
    }

    /// Writes what has changed, and no more from then on. Waits for the disk, a few seconds at most.
    pub fn close(&self) {
        let mut desk = self.shared.desk();
        desk.closing = true;
        self.shared.turn.notify_all();
        let late = Instant::now() + LAST_WRITE;
        while !desk.closed {
            let left = late.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::error!("the last state is not written: the disk takes too long");
                return;
            }
            let waited = self.shared.turn.wait_timeout(desk, left);
            desk = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.shared.desk().closing = true;
        self.shared.turn.notify_all();
    }
}

impl Part {
    /// Keeps an entry, in place of what it was.
    pub fn put<T: Serialize>(&self, entry: &str, value: &T) {
        // What is made for the disk becomes JSON.
        let Ok(text) = to_raw_value(value) else {
            return;
        };
        self.change(|contents| {
            let before = contents.entries.get(entry);
            if before.is_some_and(|before| before.get() == text.get()) {
                return;
            }
            contents.entries.insert(entry.into(), text.into());
            contents.is_changed = true;
        });
    }

    /// Keeps an entry no more.
    pub fn remove(&self, entry: &str) {
        self.change(|contents| contents.is_changed |= contents.entries.remove(entry).is_some());
    }

    /// Keeps these entries only.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.change(|contents| {
            let before = contents.entries.len();
            contents.entries.retain(|name, _| keep(name));
            contents.is_changed |= contents.entries.len() < before;
        });
    }

    /// All that is kept is so, as of now, by word of its source. Nothing is written before this is said once.
    pub fn confirm<T: Serialize>(&self, note: &T) {
        let note = to_raw_value(note).ok();
        self.change(|contents| {
            contents.note = note.map(Arc::from);
            contents.confirmed = Some(SystemTime::now());
            contents.refused = None;
        });
    }

    /// Whether what was last confirmed then may still be served.
    ///
    /// # Errors
    /// As [`judge`].
    pub fn judge(&self, confirmed: SystemTime) -> Result<(), String> {
        judge(confirmed, SystemTime::now(), self.shared.max_age())
    }

    /// Waits until the judgement of what was confirmed then is another than this.
    pub fn turned(
        &self,
        confirmed: SystemTime,
        was_good: bool,
    ) -> impl Future<Output = ()> + Send + use<> {
        age::turned(self.shared.max_age.subscribe(), confirmed, was_good)
    }

    fn change(&self, change: impl FnOnce(&mut Contents)) {
        let mut desk = self.shared.desk();
        let contents = desk.parts.entry(Arc::clone(&self.name)).or_default();
        change(contents);
        if contents.is_due(self.shared.max_age(), false) {
            self.shared.turn.notify_all();
        }
    }
}

/// Without what it holds: some of it is secret.
impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Part").field(&self.name).finish()
    }
}

impl Stored {
    /// What was confirmed with it, read as what it was written from.
    ///
    /// # Errors
    /// It is something else.
    pub fn note<'a, T: Deserialize<'a>>(&'a self) -> Result<T, String> {
        let text = self.note.as_deref().map_or("null", RawValue::get);
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// Each entry, read as what it was written from.
    ///
    /// # Errors
    /// One of them is something else: then none is to be trusted.
    pub fn entries<'a, T: Deserialize<'a>>(&'a self) -> Result<Vec<(Arc<str>, T)>, String> {
        let read = self.entries.iter().map(|(name, text)| {
            let value = serde_json::from_str(text.get());
            let value = value.map_err(|error| format!("{name:?}: {error}"));
            Ok((Arc::clone(name), value?))
        });
        read.collect()
    }
}

/// Without what it holds: some of it is secret.
impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("confirmed", &self.confirmed)
            .field("entries", &self.entries.len())
            .finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
