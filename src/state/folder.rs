//! The folder on the disk: made, judged, locked, and its files replaced whole.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

/// The file that whoever writes holds a lock on (flock(2)); the lock goes with its process.
const LOCK: &str = "lock";

const IRREGULAR: &str = "it is no regular file; remove it";

/// The folder. Only one process writes into it: the one that has its lock.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    lock: Option<File>,
}

/// Why the folder cannot be used, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The system refuses something.
    #[error("{doing} {path}: {error}{}", remedy(.error))]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: String,
        /// What the system says.
        error: io::Error,
    },
    /// Something else stands there.
    #[error("{0} is not a folder")]
    NotAFolder(String),
    /// What is found there could be anybody's.
    #[error(
        "{0} can be written to by others (mode {1:04o}): `chmod go-w {0}`, or name a folder inside of it, which is made with the mode 0700"
    )]
    Open(String, u32),
    /// What is found there is somebody else's.
    #[error(
        "{0} belongs to the user {1}, and this is the user {2}: `chown` it, or name a folder inside of it"
    )]
    Foreign(String, u32, u32),
    /// A file in it is not one that was written there.
    #[error("{path} is not what was written there: {why}")]
    Unfit {
        /// Which.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing comes back of it.
    #[error("the disk does not answer: writing to {0} takes more than {1} s")]
    Hangs(String, u64),
    /// Another gateway uses it.
    #[error(
        "another process writes to {0} (`fuser {0}/{LOCK}` tells which): name a folder of its own for each gateway"
    )]
    Locked(String),
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ": make room there",
        io::ErrorKind::ReadOnlyFilesystem => ": mount it for writing again",
        io::ErrorKind::PermissionDenied => ": let the gateway's user write there",
        io::ErrorKind::IsADirectory => ": remove it",
        _ => "",
    }
}

/// Whether a folder may hold what is kept, as far as that is to be seen without making it: for the check of a
/// configuration, which another user may make on another machine.
pub fn look(path: &Path) -> Result<(), FolderError> {
    match fs::metadata(path) {
        Ok(metadata) => judge(path, &metadata),
        // It is made, and what keeps it from being made is told then.
        Err(_) => Ok(()),
    }
}

/// Makes a folder for what is kept (mode 0700) if it is not there: for whoever may not make one later.
///
/// # Errors
/// It cannot be made, or what is there cannot be used.
pub fn make(path: &Path) -> Result<(), FolderError> {
    Folder::new(path).open()
}

fn judge(path: &Path, metadata: &fs::Metadata) -> Result<(), FolderError> {
    let shown = || path.display().to_string();
    if !metadata.is_dir() {
        return Err(FolderError::NotAFolder(shown()));
    }
    match metadata.mode() & 0o7777 {
        mode if mode & 0o022 != 0 => Err(FolderError::Open(shown(), mode)),
        _ => Ok(()),
    }
}

/// Neither the user that we are nor root.
fn is_foreign(uid: &u32) -> bool {
    *uid != 0 && *uid != rustix::process::geteuid().as_raw()
}

/// Closing the file is not enough: a process that is being started beside this one has it open too, until it runs its program.
impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(lock) = &self.lock {
            // What cannot be unlocked is when the last who has it open closes it.
            let _ = lock.unlock();
        }
    }
}

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            lock: None,
        }
    }

    /// Makes it if it is not there (mode 0700), and judges it.
    pub(super) fn open(&self) -> Result<(), FolderError> {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&self.path);
        // What stands there and is no folder is told below.
        if let Err(error) = made
            && !self.path.exists()
        {
            return Err(self.failed("cannot make", &self.path, error));
        }
        self.judge()
    }

    /// Whether what is in it can only be from us, or from who may do everything anyway.
    fn judge(&self) -> Result<(), FolderError> {
        let failed = |error| self.failed("cannot read", &self.path, error);
        let metadata = fs::metadata(&self.path).map_err(failed)?;
        judge(&self.path, &metadata)?;
        // Where it is a link, others could let it lead to any folder of ours.
        let link = fs::symlink_metadata(&self.path).map_err(failed)?;
        let foreign = [link.uid(), metadata.uid()].into_iter().find(is_foreign);
        match foreign {
            None => Ok(()),
            Some(uid) => Err(FolderError::Foreign(
                self.path.display().to_string(),
                uid,
                rustix::process::geteuid().as_raw(),
            )),
        }
    }

    /// Takes the lock, unless it is had already.
    pub(super) fn lock(&mut self) -> Result<(), FolderError> {
        self.open()?;
        // A lock that was removed, with the folder perhaps, keeps nobody out.
        let holds = |file: &File| file.metadata().is_ok_and(|lock| lock.nlink() > 0);
        if self.lock.as_ref().is_some_and(holds) {
            return Ok(());
        }
        let path = self.path.join(LOCK);
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let (file, _) = self.open_file("cannot write", &path, &mut options)?;
        match file.try_lock() {
            Ok(()) => {
                self.lock = Some(file);
                Ok(())
            }
            Err(TryLockError::WouldBlock) => {
                Err(FolderError::Locked(self.path.display().to_string()))
            }
            Err(TryLockError::Error(error)) => Err(self.failed("cannot lock", &path, error)),
        }
    }

    /// The bytes of a file, at most so many; none if it is not there. What others could have put there is not read.
    pub(super) fn read(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, FolderError> {
        if let Err(error) = fs::symlink_metadata(&self.path)
            && error.kind() == io::ErrorKind::NotFound
        {
            return Ok(None);
        }
        self.judge()?;
        let path = self.path.join(name);
        let opened = self.open_file("cannot read", &path, OpenOptions::new().read(true));
        let (file, length) = match opened {
            Err(FolderError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            opened => opened?,
        };
        let too_long = || FolderError::Unfit {
            path: path.display().to_string(),
            why: format!("it has more than {most} bytes"),
        };
        // A file with a hole may have any length.
        if length > most {
            return Err(too_long());
        }
        let mut bytes = Vec::new();
        file.take(most + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| self.failed("cannot read", &path, error))?;
        match bytes.len() as u64 > most {
            true => Err(too_long()),
            false => Ok(Some(bytes)),
        }
    }

    /// Opens a regular file that only we could have written, with its length. No link is followed, and no FIFO waited for.
    fn open_file(
        &self,
        doing: &'static str,
        path: &Path,
        options: &mut OpenOptions,
    ) -> Result<(File, u64), FolderError> {
        let unfit = |why: String| FolderError::Unfit {
            path: path.display().to_string(),
            why,
        };
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = options.custom_flags(flags.bits().cast_signed()).open(path);
        let irregular = [Errno::LOOP, Errno::NXIO, Errno::ISDIR];
        let file = match opened {
            Err(error)
                if irregular
                    .iter()
                    .any(|no| Errno::from_io_error(&error) == Some(*no)) =>
            {
                return Err(unfit(IRREGULAR.to_owned()));
            }
            opened => opened.map_err(|error| self.failed(doing, path, error))?,
        };
        let metadata = file.metadata();
        let metadata = metadata.map_err(|error| self.failed(doing, path, error))?;
        match (metadata.uid(), metadata.mode() & 0o7777) {
            _ if !metadata.is_file() => Err(unfit(IRREGULAR.to_owned())),
            (uid, _) if is_foreign(&uid) => Err(unfit(format!("it belongs to the user {uid}"))),
            (_, mode) if mode & 0o022 != 0 => {
                Err(unfit(format!("others can write to it (mode {mode:04o})")))
            }
            _ => Ok((file, metadata.len())),
        }
    }

    /// Replaces a file: whoever reads it, and whenever the power fails, there is the one before or this one, whole.
    pub(super) fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), FolderError> {
        self.lock()?;
        let path = self.path.join(name);
        self.replace(name, &path, bytes)
            .map_err(|error| self.failed("cannot write", &path, error))
    }

    fn replace(&self, name: &str, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.path.join(format!("{name}.new"));
        // What an end by force has left; nobody else writes here. Removed, so that the mode is ours too.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        let replaced = written.and_then(|()| fs::rename(&temporary, path));
        if let Err(error) = replaced {
            // A full disk is not to be kept full by it.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        File::open(&self.path)?.sync_all()
    }

    /// Puts a file that is not taken where it is in nobody's way, for people to look at. Only whoever writes does.
    pub(super) fn set_aside(&mut self, name: &str) {
        let aside = self.path.join(format!("{name}.refused"));
        if self.lock().is_ok() {
            // The next good one takes its place in any case.
            let _ = fs::rename(self.path.join(name), aside);
        }
    }

    fn failed(&self, doing: &'static str, path: &Path, error: io::Error) -> FolderError {
        FolderError::Io {
            doing,
            path: path.display().to_string(),
            error,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
