//! A file of a person's own, changed as a whole or not at all, with what stood there kept beside it.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown, lchown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::geteuid;

use crate::stop;

#[cfg(target_os = "linux")]
mod attributes;

/// The name of what stood there before, behind the file's own.
const BACKUP: &str = ".portcullis-backup";

/// How many backups that differ are kept before it is refused to write another.
const MOST_BACKUPS: usize = 100;

/// How long others that change files of the same folder are waited for.
///
/// 30 s: a change takes three writes to the disk, and a script may start dozens at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at whether they are done.
const PAUSE: Duration = Duration::from_millis(10);

/// The steps that have a remedy of their own.
const FIND: &str = "find";
const LOCK: &str = "lock";
const OWN: &str = "keep the owner and the group of";
const ACCESS: &str = "keep the access list of";
const BACK_UP: &str = "back up";

/// A step that failed; the file is as it was.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {}: {error}", path.display())]
pub struct NotReplaced {
    step: &'static str,
    path: PathBuf,
    /// Why.
    pub error: io::Error,
}

impl NotReplaced {
    fn at(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self { step, path, error }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match (self.step, self.error.kind()) {
            (LOCK, _) => "wait for it to end, or end it; nothing was changed",
            (OWN, _) => "run it as the owner of the file, or as root; nothing was changed",
            (ACCESS, _) => {
                "paste the block into it by hand: without --install it is printed; nothing was changed"
            }
            (BACK_UP, _) => "remove those that nobody needs; nothing was changed",
            (FIND, ErrorKind::NotFound) => {
                "it is a link that leads nowhere: mend it, or name another file: --file FILE"
            }
            (_, ErrorKind::NotFound) => {
                "make the folder that it shall be in, or name another file: --file FILE"
            }
            (_, ErrorKind::NotADirectory | ErrorKind::InvalidInput) => {
                "name another file: --file FILE"
            }
            (_, ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                "make room on its disk; nothing was changed"
            }
            _ => {
                "let this user write it and its folder; or print the block, and paste it where it belongs"
            }
        }
    }
}

/// A file that may be replaced. While it lives, no other process of ours changes a file of the same folder.
#[derive(Debug)]
pub struct Replaceable {
    /// Where its content stands: where the link leads, if it is one.
    pub path: PathBuf,
    /// The content, whatever its encoding is; empty if there is no file yet.
    pub content: Vec<u8>,
    /// The file that is there.
    before: Option<(File, Metadata)>,
    /// Released when it is closed; none where there is no folder yet, or its file system has no locks for folders.
    _lock: Option<File>,
}

impl Replaceable {
    /// Reads a file; one that is not there is an empty one.
    pub fn read(path: &Path) -> Result<Self, NotReplaced> {
        // A link whose target is missing is told as missing: whoever made it meant another file.
        let (path, is_there) = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => (path.to_owned(), false),
            _ => {
                let found = fs::canonicalize(path);
                (found.map_err(NotReplaced::at(FIND, path))?, true)
            }
        };
        let lock = lock(folder(&path)).map_err(NotReplaced::at(LOCK, folder(&path)))?;
        let mut content = Vec::new();
        let before = match fs::metadata(&path) {
            // One that was there is not: whoever holds a lock replaces, and never removes.
            Err(error) if error.kind() == ErrorKind::NotFound && !is_there => None,
            // Asked before opening: opening a FIFO would wait for its writer.
            Ok(found) if !found.is_file() => {
                let error = io::Error::new(ErrorKind::InvalidInput, "it is no regular file");
                return Err(NotReplaced::at("read", &path)(error));
            }
            found => {
                let opened = found.and_then(|_| {
                    let mut file = File::open(&path)?;
                    file.read_to_end(&mut content)?;
                    let metadata = file.metadata()?;
                    Ok((file, metadata))
                });
                Some(opened.map_err(NotReplaced::at("read", &path))?)
            }
        };
        Ok(Self {
            path,
            content,
            before,
            _lock: lock,
        })
    }

    /// How many other names (hard links) the file has. They keep what stands there now.
    pub fn other_names(&self) -> u64 {
        let before = self.before.as_ref();
        before.map_or(0, |(_, before)| before.nlink().saturating_sub(1))
    }

    /// The same where a file will be made if there is none: its folder is made first, for its owner alone.
    pub fn read_or_make_folder(path: &Path) -> Result<Self, NotReplaced> {
        make(folder(path)).map_err(NotReplaced::at("make", folder(path)))?;
        Self::read(path)
    }

    /// Puts this content in its place; what was there is kept beside it, and where is returned. The new file has the owner,
    /// the group, the mode and the access list of the one before.
    ///
    /// Whoever reads meanwhile finds the one content or the other.
    pub fn replace(&self, content: &[u8]) -> Result<Option<PathBuf>, NotReplaced> {
        // What is half done would be left behind by a signal.
        let _held = stop::hold().map_err(NotReplaced::at("write", &self.path))?;
        let folder = folder(&self.path);
        let backup = match self.before {
            Some(_) => Some(self.back_up()?),
            None => None,
        };
        let mut name = OsString::from(".");
        name.push(self.path.file_name().unwrap_or_default());
        name.push(format!(".portcullis-{}", std::process::id()));
        let beside = folder.join(name);
        // Left by a process of this number that was killed; none of those that run has it.
        let _ = fs::remove_file(&beside);
        self.write(&beside, content)?;
        if let Err(error) = fs::rename(&beside, &self.path) {
            let _ = fs::remove_file(&beside);
            return Err(NotReplaced::at("write", &self.path)(error));
        }
        // The rename itself is on the disk once the folder is; a file system that cannot do that does it in its own time.
        if let Ok(folder) = File::open(folder) {
            let _ = folder.sync_all();
        }
        Ok(backup)
    }

    /// Another content under the same name is never overwritten.
    fn back_up(&self) -> Result<PathBuf, NotReplaced> {
        let mut taken = None;
        for number in 1..=MOST_BACKUPS {
            let mut path = self.path.clone().into_os_string();
            path.push(BACKUP);
            if number > 1 {
                path.push(format!("-{number}"));
            }
            let path = PathBuf::from(path);
            if fs::read(&path).is_ok_and(|kept| kept == self.content) {
                return Ok(path);
            }
            match self.write(&path, &self.content) {
                Ok(()) => return Ok(path),
                Err(failed) if failed.error.kind() == ErrorKind::AlreadyExists => {}
                Err(failed) => return Err(failed),
            }
            taken = Some(path);
        }
        let taken = taken.unwrap_or_default();
        let error = format!("{} is taken, as are all before it", taken.display());
        Err(NotReplaced::at(BACK_UP, &self.path)(io::Error::other(
            error,
        )))
    }

    /// Writes a new file to the disk, with the owner and mode of the one that is there; without one it is its owner's alone.
    fn write(&self, path: &Path, content: &[u8]) -> Result<(), NotReplaced> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(path).map_err(NotReplaced::at("write", path))?;
        let filled = self.fill(&file, path, content);
        if filled.is_err() {
            let _ = fs::remove_file(path);
        }
        filled
    }

    fn fill(&self, mut file: &File, path: &Path, content: &[u8]) -> Result<(), NotReplaced> {
        let owned = match &self.before {
            Some((_, before)) => give(file, before),
            None => match inherit(folder(path)) {
                Some((user, group)) => fchown(file, Some(user), Some(group)),
                None => Ok(()),
            },
        };
        owned.map_err(NotReplaced::at(OWN, &self.path))?;
        let written = file.write_all(content);
        written.map_err(NotReplaced::at("write", path))?;
        if let Some((before, metadata)) = &self.before {
            let opened = open_to_the_same(file, before, metadata);
            opened.map_err(NotReplaced::at(ACCESS, &self.path))?;
        }
        file.sync_all().map_err(NotReplaced::at("write", path))
    }
}

/// Lets those use a new file who may use another one, by its access list and its mode.
fn open_to_the_same(new: &File, before: &File, metadata: &Metadata) -> io::Result<()> {
    // The list first: with the mode alone, which tells of it the widest right, the group might be let in.
    #[cfg(target_os = "linux")]
    attributes::copy(before, new)?;
    new.set_permissions(metadata.permissions())?;
    #[cfg(target_os = "linux")]
    if !attributes::same_access(before, new)? {
        return Err(io::Error::other("the system does not let it be copied"));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = before;
    Ok(())
}

/// Gives a new file the owner and the group that another one has.
fn give(file: &File, before: &Metadata) -> io::Result<()> {
    let new = file.metadata()?;
    match (new.uid(), new.gid()) == (before.uid(), before.gid()) {
        true => Ok(()),
        false => fchown(file, Some(before.uid()), Some(before.gid())),
    }
}

/// Whose a new file or folder shall be: what root makes in a person's folder is that person's.
fn inherit(folder: &Path) -> Option<(u32, u32)> {
    let folder = fs::metadata(folder).ok().filter(|_| geteuid().is_root())?;
    (folder.uid() != 0).then(|| (folder.uid(), folder.gid()))
}

fn folder(path: &Path) -> &Path {
    let folder = path.parent().unwrap_or(path);
    match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    }
}

/// Waits until no other process holds this folder's lock, and takes it (flock(2)).
///
/// A file system without such locks, as NFS is, goes without.
fn lock(folder: &Path) -> io::Result<Option<File>> {
    // Where it is not there, or not to be read, the next step says so.
    let Ok(file) = File::open(folder) else {
        return Ok(None);
    };
    let until = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::Error(_)) => return Ok(None),
            Err(TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock) => {
                let held = format!("another process has held its lock for {PATIENCE:?}");
                return Err(io::Error::new(ErrorKind::TimedOut, held));
            }
        }
    }
}

fn make(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        // By another process, in the meantime.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Ok(()) => match inherit(self::folder(folder)) {
            Some((user, group)) => lchown(folder, Some(user), Some(group)),
            None => Ok(()),
        },
        failed => failed,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_that_is_not_there_is_made_with_its_folder_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".ssh/config");
        assert_eq!(Replaceable::read(&path).unwrap().content, b"");
        assert!(!path.parent().unwrap().exists());
        let file = Replaceable::read_or_make_folder(&path).unwrap();
        assert_eq!(file.replace(b"new").unwrap(), None);
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(
            (mode(&path), mode(&folder.path().join(".ssh"))),
            (0o600, 0o700)
        );
        assert_eq!(names(&folder.path().join(".ssh")), ["config"]);
    }

    #[test]
    fn mode_and_link_stay_and_each_content_is_kept_once() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("dotfile"), folder.path().join("config"));
        fs::write(&target, "one").unwrap();
        fs::set_permissions(&target, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("dotfile", &link).unwrap();
        for (text, backup) in [
            ("two", "dotfile.portcullis-backup"),
            ("one", "dotfile.portcullis-backup-2"),
            ("three", "dotfile.portcullis-backup"),
        ] {
            let file = Replaceable::read(&link).unwrap();
            let kept = file.replace(text.as_bytes()).unwrap().unwrap();
            assert_eq!(kept.file_name().unwrap(), backup);
            assert_eq!(fs::read(&kept).unwrap(), file.content);
            assert_eq!(fs::read_to_string(&target).unwrap(), text);
        }
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(
            (
                mode(&target),
                mode(&folder.path().join("dotfile.portcullis-backup"))
            ),
            (0o640, 0o640)
        );
        assert_eq!(names(folder.path()).len(), 4);
    }

    #[test]
    fn what_cannot_be_read_or_is_no_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::os::unix::fs::symlink("nowhere", path("dangling")).unwrap();
        for (name, says) in [("", "no regular file"), ("dangling", "cannot find")] {
            let error = Replaceable::read(&path(name)).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
