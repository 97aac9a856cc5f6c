//! The folder on the disk: made, judged, locked, and its files replaced whole.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file that whoever writes holds a lock on (flock(2)); the lock goes with its process.
const LOCK: &str = "lock";

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
        let metadata = fs::metadata(&self.path);
        let metadata = metadata.map_err(|error| self.failed("cannot read", &self.path, error))?;
        judge(&self.path, &metadata)?;
        let own = rustix::process::geteuid().as_raw();
        match metadata.uid() {
            0 => Ok(()),
            uid if uid == own => Ok(()),
            uid => Err(FolderError::Foreign(
                self.path.display().to_string(),
                uid,
                own,
            )),
        }
    }

    /// Takes the lock, unless it is had already.
    pub(super) fn lock(&mut self) -> Result<(), FolderError> {
        self.open()?;
        if self.lock.is_some() {
            return Ok(());
        }
        let path = self.path.join(LOCK);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path);
        let file = file.map_err(|error| self.failed("cannot write", &path, error))?;
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

    /// The bytes of a file, at most so many; none if it is not there.
    pub(super) fn read(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, FolderError> {
        let path = self.path.join(name);
        let failed = |error| self.failed("cannot read", &path, error);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
            // Opening a FIFO would wait for its writer, and nobody but us puts anything here.
            Ok(metadata) if !metadata.is_file() => {
                return Err(failed(io::Error::other("it is no regular file")));
            }
            Ok(_) => {}
        }
        let mut bytes = Vec::new();
        let file = File::open(&path).map_err(failed)?;
        file.take(most + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        match bytes.len() as u64 > most {
            true => Err(failed(io::Error::other(format!(
                "it has more than {most} bytes"
            )))),
            false => Ok(Some(bytes)),
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
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn the_folder_and_its_files_are_for_their_owner_only() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        let mut folder = Folder::new(&path);
        assert!(look(&path).is_ok(), "it is not there, and will be made");
        folder.write("part", b"one").unwrap();
        assert_eq!(mode(&path), 0o700);
        for name in ["part", LOCK] {
            assert_eq!(mode(&path.join(name)), 0o600, "{name}");
        }
        assert_eq!(folder.read("part", 3).unwrap().unwrap(), b"one");
        assert!(folder.read("none", 3).unwrap().is_none());
        assert!(look(&path).is_ok());
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused_with_a_remedy() {
        let root = tempfile::tempdir().unwrap();
        for bad in [0o720, 0o702, 0o777, 0o1777] {
            set_mode(root.path(), bad);
            let mut folder = Folder::new(root.path());
            for error in [
                look(root.path()).unwrap_err(),
                folder.open().unwrap_err(),
                folder.write("part", b"").unwrap_err(),
            ] {
                assert!(error.to_string().contains("chmod go-w"), "{error}");
            }
        }
        set_mode(root.path(), 0o755);
        Folder::new(root.path()).open().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Folder::new(&file).open().unwrap_err().to_string();
        assert!(error.ends_with("file is not a folder"), "{error}");
    }

    #[test]
    fn what_a_power_cut_leaves_between_two_steps_is_the_one_before_or_this_one() {
        let root = tempfile::tempdir().unwrap();
        let folder = || Folder::new(root.path());
        set_mode(root.path(), 0o700);
        folder().write("part", b"before").unwrap();
        // Cut while the new one was being written: half of it, and nothing renamed yet.
        let new = root.path().join("part.new");
        fs::write(&new, b"thi").unwrap();
        set_mode(&new, 0o400);
        assert_eq!(folder().read("part", 9).unwrap().unwrap(), b"before");
        folder().write("part", b"this").unwrap();
        assert_eq!(folder().read("part", 9).unwrap().unwrap(), b"this");
        assert!(!new.exists());
        assert_eq!(mode(&root.path().join("part")), 0o600);
    }

    #[test]
    fn what_cannot_be_a_part_of_ours_is_not_read() {
        let root = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(root.path());
        set_mode(root.path(), 0o700);
        folder.write("part", b"four").unwrap();
        let error = folder.read("part", 3).unwrap_err().to_string();
        assert!(error.ends_with("it has more than 3 bytes"), "{error}");
        let at = |name: &str| root.path().join(name);
        std::os::unix::fs::symlink(at("part"), at("link")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        for name in ["link", "folder"] {
            let error = folder.read(name, 9).unwrap_err().to_string();
            assert!(error.ends_with("it is no regular file"), "{error}");
        }
        folder.set_aside("part");
        assert!(!at("part").exists() && at("part.refused").exists());
    }

    #[test]
    fn one_writes_at_a_time_and_the_next_one_when_it_has_gone() {
        let root = tempfile::tempdir().unwrap();
        set_mode(root.path(), 0o700);
        let (mut one, mut other) = (Folder::new(root.path()), Folder::new(root.path()));
        one.write("part", b"one").unwrap();
        let error = other.write("part", b"other").unwrap_err().to_string();
        assert!(error.starts_with("another process writes to"), "{error}");
        other.set_aside("part");
        assert_eq!(other.read("part", 9).unwrap().unwrap(), b"one");
        drop(one);
        other.write("part", b"other").unwrap();
        assert_eq!(other.read("part", 9).unwrap().unwrap(), b"other");
    }
}
