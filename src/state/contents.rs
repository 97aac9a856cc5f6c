//! What is kept of one part: in memory, and as the body of its file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::folder::{Folder, FolderError};
use super::part::{Key, Refusal, decode};

/// At least so long lies between two times of which the later one is worth a write on the way out.
const WORTH_A_WRITE: Duration = Duration::from_secs(1);

/// How often the time at which a part was last confirmed is written, though nothing else has changed; for a short
/// `max_age` four times within that. A start after a power cut takes the part for so much older than it is.
const CONFIRMED_ANEW: Duration = Duration::from_secs(600);

/// The most bytes of a part. 256 MiB: 100,000 services with a few instances each have a quarter of that.
const LARGEST_PART: u64 = 256 * 1024 * 1024;

/// What is kept of a part.
#[derive(Default)]
pub(super) struct Contents {
    /// Why what is on the disk is not taken.
    pub(super) refused: Option<Refusal>,
    pub(super) origin: String,
    pub(super) confirmed: Option<SystemTime>,
    pub(super) note: Option<Arc<RawValue>>,
    pub(super) entries: BTreeMap<Arc<str>, Arc<RawValue>>,
    /// Whether an entry is not on the disk as it is here.
    pub(super) is_changed: bool,
    /// The `confirmed` that is on the disk.
    pub(super) on_disk: Option<SystemTime>,
}

/// Without what it holds: some of it is secret.
impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contents")
            .field("confirmed", &self.confirmed)
            .finish_non_exhaustive()
    }
}

/// The body of a part.
#[derive(Serialize, Deserialize)]
struct Body<'a> {
    origin: String,
    /// In seconds since 1970.
    confirmed: u64,
    #[serde(borrow)]
    note: Option<&'a RawValue>,
    #[serde(borrow)]
    entries: BTreeMap<Cow<'a, str>, &'a RawValue>,
}

impl Contents {
    /// Nothing of this source, which is not what is on the disk.
    pub(super) fn of(origin: &str) -> Self {
        Self {
            origin: origin.to_owned(),
            is_changed: true,
            ..Self::default()
        }
    }

    /// What is on the disk. What is not good is put aside and told.
    pub(super) fn read(name: &str, folder: &mut Folder, key: Option<&Key>) -> Self {
        let refused = |refusal| Self {
            refused: Some(refusal),
            ..Self::default()
        };
        let bytes = match folder.read(name, LARGEST_PART) {
            Ok(None) => return Self::default(),
            Ok(Some(bytes)) => bytes,
            Err(error) => {
                tracing::error!(%error, part = name, "what is kept on the disk cannot be read");
                if matches!(error, FolderError::Unfit { .. }) {
                    folder.set_aside(name);
                }
                return refused(Refusal::Unread(error.to_string()));
            }
        };
        let body = decode(name, &bytes, key);
        let contents = body.and_then(|body| Self::parse(&body).ok_or(Refusal::Version));
        contents.unwrap_or_else(|refusal| {
            // What another key opens is good with that key, and one without a seal holds what is secret.
            if matches!(refusal, Refusal::Damaged | Refusal::Version) {
                folder.set_aside(name);
            }
            refused(refusal)
        })
    }

    fn parse(body: &[u8]) -> Option<Self> {
        let body: Body<'_> = serde_json::from_slice(body).ok()?;
        let confirmed = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(body.confirmed));
        let entries = body.entries.into_iter();
        Some(Self {
            origin: body.origin,
            confirmed,
            note: body.note.map(|note| note.to_owned().into()),
            entries: entries
                .map(|(name, text)| (name.into(), text.to_owned().into()))
                .collect(),
            on_disk: confirmed,
            ..Self::default()
        })
    }

    /// Whether there is something to write; `is_last` says that there will be no other time.
    pub(super) fn is_due(&self, max_age: Duration, is_last: bool) -> bool {
        let Some(confirmed) = self.confirmed else {
            return false;
        };
        let pause = match is_last {
            true => WORTH_A_WRITE,
            false => CONFIRMED_ANEW.min(max_age / 4),
        };
        let since = self.on_disk.map(|at| confirmed.duration_since(at));
        // A clock that was put back since counts as a change, too.
        let is_old = since.is_none_or(|since| since.map_or(true, |since| since >= pause));
        self.is_changed || is_old
    }

    pub(super) fn body(&self) -> Option<Vec<u8>> {
        let since = self.confirmed?.duration_since(SystemTime::UNIX_EPOCH);
        let entries = self.entries.iter();
        let body = Body {
            origin: self.origin.clone(),
            confirmed: since.ok()?.as_secs(),
            note: self.note.as_deref(),
            entries: entries
                .map(|(name, text)| ((&**name).into(), &**text))
                .collect(),
        };
        serde_json::to_vec(&body).ok()
    }

    /// The same, to be written while others go on.
    pub(super) fn copy(&self) -> Self {
        Self {
            origin: self.origin.clone(),
            confirmed: self.confirmed,
            note: self.note.clone(),
            entries: self.entries.clone(),
            ..Self::default()
        }
    }
}
