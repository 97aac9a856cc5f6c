//! A file of a person's own, changed as a whole or not at all, with what stood there kept beside it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// The name of what stood there before, behind the file's own.
const BACKUP: &str = ".portcullis-backup";

/// How many backups that differ are kept before it is refused to write another.
const MOST_BACKUPS: usize = 100;

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
}

/// A file that may be replaced.
#[derive(Debug)]
pub struct Replaceable {
    /// Where its content stands: where the link leads, if it is one.
    pub path: PathBuf,
    /// The content; empty if there is no file yet.
    pub text: String,
    /// The mode of the file that is there.
    mode: Option<Permissions>,
}

impl Replaceable {
    /// Reads a file; one that is not there is an empty one.
    pub fn read(path: &Path) -> Result<Self, NotReplaced> {
        // A link whose target is missing is told as missing: whoever made it meant another file.
        let path = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Self {
                    path: path.to_owned(),
                    text: String::new(),
                    mode: None,
                });
            }
            _ => fs::canonicalize(path).map_err(NotReplaced::at("find", path))?,
        };
        let read = NotReplaced::at("read", &path);
        let metadata = fs::metadata(&path);
        let metadata = metadata.and_then(|found| match found.is_file() {
            true => Ok(found),
            false => Err(io::Error::other("it is no regular file")),
        });
        let text = metadata.and_then(|found| Ok((found, fs::read_to_string(&path)?)));
        let (metadata, text) = text.map_err(read)?;
        Ok(Self {
            path,
            text,
            mode: Some(metadata.permissions()),
        })
    }

    /// Puts this content in its place; what was there is kept beside it, and where is returned.
    ///
    /// A folder that is missing is made for its owner alone. Whoever reads meanwhile finds the one content or the other.
    pub fn replace(&self, text: &str) -> Result<Option<PathBuf>, NotReplaced> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        make(folder).map_err(NotReplaced::at("make", folder))?;
        let backup = match self.mode {
            Some(_) => Some(self.back_up()?),
            None => None,
        };
        let mut name = OsString::from(".");
        name.push(self.path.file_name().unwrap_or_default());
        name.push(format!(".portcullis-{}", std::process::id()));
        let beside = folder.join(name);
        let written =
            write(&beside, text, self.mode.clone()).and_then(|()| fs::rename(&beside, &self.path));
        if let Err(error) = written {
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
            if fs::read(&path).is_ok_and(|kept| kept == self.text.as_bytes()) {
                return Ok(path);
            }
            match write(&path, &self.text, self.mode.clone()) {
                Ok(()) => return Ok(path),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(NotReplaced::at("write", &path)(error)),
            }
            taken = Some(path);
        }
        let path = taken.unwrap_or_else(|| self.path.clone());
        let error = io::Error::other("there are too many backups beside it");
        Err(NotReplaced::at("write", &path)(error))
    }
}

/// Writes a new file to the disk, with this mode; without one it is for its owner alone.
fn write(path: &Path, text: &str, mode: Option<Permissions>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    if let Some(mode) = mode {
        file.set_permissions(mode)?;
    }
    file.sync_all()
}

fn make(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
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
        let file = Replaceable::read(&path).unwrap();
        assert_eq!(file.text, "");
        assert_eq!(file.replace("new").unwrap(), None);
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
            let kept = file.replace(text).unwrap().unwrap();
            assert_eq!(kept.file_name().unwrap(), backup);
            assert_eq!(fs::read_to_string(&kept).unwrap(), file.text);
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
        fs::write(path("latin"), b"# \xe9\n").unwrap();
        std::os::unix::fs::symlink("nowhere", path("dangling")).unwrap();
        for (name, says) in [
            ("", "no regular file"),
            ("latin", "UTF-8"),
            ("dangling", "cannot find"),
        ] {
            let error = Replaceable::read(&path(name)).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
