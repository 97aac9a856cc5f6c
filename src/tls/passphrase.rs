//! Passphrases of encrypted keys: where each comes from, and what a process was given at its start.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use zeroize::Zeroizing;

use super::encrypted::NotOpened;
use super::key::SecretKey;
use super::pem::{FileError, read_private};

mod command;
mod descriptor;

pub use command::Command;

/// In bytes: four times what openssl takes.
const MOST: u64 = 4096;

/// How often a person is asked for the passphrase of one key.
const TRIES: u32 = 3;

/// What somebody who has given no passphrase can do.
const WAYS: &str = "name a source of its passphrase: --passphrase-file, --passphrase-fd or --passphrase-command; \
                    in a configuration `key_passphrase_file` or `key_passphrase_command` beside the key";

/// A passphrase; its memory is overwritten when it is dropped. Never empty.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// The first line of what a file or a program says.
    ///
    /// # Errors
    /// That line is empty, or all of it is longer than 4 KiB; what is wrong is said without quoting it.
    pub fn first_line(mut bytes: Zeroizing<Vec<u8>>) -> Result<Self, &'static str> {
        if bytes.len() as u64 > MOST {
            return Err("is longer than 4 KiB, which no passphrase is");
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        // What is cut off is overwritten too: the vector keeps its place.
        if let Some(end) = end {
            bytes.truncate(end);
        }
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        match bytes.is_empty() {
            true => Err("holds no passphrase: its first line is empty"),
            false => Ok(Self(bytes)),
        }
    }

    pub(super) fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MASKED")
    }
}

/// Where the passphrase of one key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// From wherever the process was given it at its start.
    Start(Given),
    /// The first line of a file, which is read each time the key is.
    File(PathBuf),
    /// The first line that a program writes, which is run each time the key is read.
    Command(Command),
}

/// Nowhere: an encrypted key is refused.
impl Default for Source {
    fn default() -> Self {
        Self::Start(Given::default())
    }
}

impl Source {
    /// Opens the key of this file, with `open`.
    pub(super) fn open(
        &self,
        key: &Path,
        open: impl Fn(&Passphrase) -> Result<SecretKey, NotOpened>,
    ) -> Result<SecretKey, FileError> {
        let passphrase = match self {
            Self::Start(given) => return given.open(key, open),
            Self::File(path) => read_file(path)?,
            Self::Command(command) => command.run()?,
        };
        open(&passphrase).map_err(|not| not.told(key))
    }
}

/// The passphrase in a file, which nobody but its owner and its group may read.
fn read_file(path: &Path) -> Result<Passphrase, FileError> {
    let line = Passphrase::first_line(read_private(path, MOST)?);
    line.map_err(|wrong| FileError::new(path, wrong, "write the passphrase into its first line"))
}

/// What a process was given at its start for the keys that name no passphrase of their own. Clones share it.
///
/// What was typed, or read from a descriptor, is kept for later: a reload asks nobody.
#[derive(Clone, Debug, Default)]
pub struct Given(Option<Arc<Way>>);

/// How it is asked for.
enum Way {
    File(PathBuf),
    Command(Command),
    /// Read once and for all.
    Read(Passphrase),
    Typed(Typed),
}

/// What a person types, while there is one.
struct Typed {
    ask: Box<Ask>,
    is_asking: AtomicBool,
    known: Mutex<Vec<(PathBuf, Passphrase)>>,
}

/// Asks a person for the passphrase of this key; the number of the try counts from 1.
pub type Ask = dyn Fn(&Path, u32) -> Result<Passphrase, Unasked> + Send + Sync;

/// Why a person cannot be asked, or has said nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unasked(pub String);

/// The same thing, not two that would say the same.
impl PartialEq for Given {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }
}

impl Eq for Given {}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Command(command) => f.debug_tuple("Command").field(command).finish(),
            Self::Read(_) => f.write_str("Read(MASKED)"),
            Self::Typed(_) => f.write_str("Typed(MASKED)"),
        }
    }
}

impl Given {
    /// The first line of this file, which is read whenever it is needed.
    pub fn file(path: PathBuf) -> Self {
        Self::by(Way::File(path))
    }

    /// The first line that this program writes, which is run whenever it is needed.
    pub fn command(command: Command) -> Self {
        Self::by(Way::Command(command))
    }

    /// Reads the first line of a descriptor that this process was started with, now, and not a byte behind it: whoever writes
    /// there may go on. It is waited for as long as `limit` says, or for ever.
    ///
    /// # Errors
    /// It cannot be read, or holds no passphrase.
    pub fn descriptor(number: u32, limit: Option<Duration>) -> Result<Self, FileError> {
        descriptor::read(number, limit).map(|line| Self::by(Way::Read(line)))
    }

    /// What a person answers, each key's passphrase once.
    pub fn typed(ask: Box<Ask>) -> Self {
        Self::by(Way::Typed(Typed {
            ask,
            is_asking: AtomicBool::new(true),
            known: Mutex::default(),
        }))
    }

    fn by(way: Way) -> Self {
        Self(Some(Arc::new(way)))
    }

    /// Asks nobody from now on: there is what has been typed.
    pub fn stop_asking(&self) {
        if let Some(Way::Typed(typed)) = self.0.as_deref() {
            typed.is_asking.store(false, Ordering::Relaxed);
        }
    }

    /// The program that is run for it, if one is.
    pub fn program(&self) -> Option<&Path> {
        match self.0.as_deref()? {
            Way::Command(command) => Some(command.program()),
            _ => None,
        }
    }

    /// The file that it is read from, if it is.
    pub fn watched(&self) -> Option<&Path> {
        match self.0.as_deref()? {
            Way::File(path) => Some(path),
            _ => None,
        }
    }

    fn open(
        &self,
        key: &Path,
        open: impl Fn(&Passphrase) -> Result<SecretKey, NotOpened>,
    ) -> Result<SecretKey, FileError> {
        let told = |not: NotOpened| not.told(key);
        match self.0.as_deref() {
            None => Err(FileError::new(
                key,
                "the key is encrypted, and there is no passphrase for it",
                WAYS,
            )),
            Some(Way::File(path)) => open(&read_file(path)?).map_err(told),
            Some(Way::Command(command)) => open(&command.run()?).map_err(told),
            Some(Way::Read(passphrase)) => open(passphrase).map_err(told),
            Some(Way::Typed(typed)) => typed.open(key, open),
        }
    }
}

impl Typed {
    /// Tries what was typed before, this key's first, and asks if none of it opens the key.
    fn open(
        &self,
        key: &Path,
        open: impl Fn(&Passphrase) -> Result<SecretKey, NotOpened>,
    ) -> Result<SecretKey, FileError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (own, others): (Vec<_>, Vec<_>) = known.iter().partition(|(path, _)| path == key);
        for (_, passphrase) in own.into_iter().chain(others) {
            if let Ok(opened) = open(passphrase) {
                return Ok(opened);
            }
        }
        if !self.is_asking.load(Ordering::Relaxed) {
            return Err(FileError::new(
                key,
                "no passphrase that was typed at the start opens the key, and a reload asks nobody",
                format!("restart, and type it; or {WAYS}"),
            ));
        }
        for number in 1..=TRIES {
            let asked = (self.ask)(key, number);
            let passphrase = asked.map_err(|Unasked(why)| {
                let message =
                    format!("the key is encrypted, and its passphrase cannot be asked for: {why}");
                FileError::new(key, message, WAYS)
            })?;
            if let Ok(opened) = open(&passphrase) {
                known.retain(|(path, _)| path != key);
                known.push((key.to_owned(), passphrase));
                return Ok(opened);
            }
        }
        Err(NotOpened::Passphrase.told(key))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
