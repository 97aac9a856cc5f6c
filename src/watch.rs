//! Files that may change: what they were when they were read, and when they are not that any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

/// Between two looks without a word from the kernel, which does not tell of what another machine writes (NFS), and not of
/// a directory that was put in the place of one further up, unless none was there.
///
/// 5 s: a look at ten files takes ten microseconds, at a thousand a millisecond.
const LOOK: Duration = Duration::from_secs(5);

/// A change is told when nothing has changed for this long.
///
/// 100 ms: a certificate and its key are two files, and one is written after the other.
const SETTLED: Duration = Duration::from_millis(100);

/// Files that never settle are told after this long all the same.
const RESTLESS: Duration = Duration::from_secs(2);

/// Files and directories as they were when they were noted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<PathBuf, Print>);

/// What tells a file from the one that took its place, and from what it was before it was written to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Print {
    /// None is there, or it cannot be looked at.
    Nothing,
    File(Stamp),
    /// What is in it and in its direct subdirectories.
    Directory(BTreeMap<PathBuf, Stamp>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    /// Of the last change of the bytes, and of the last one of anything else, in ns.
    changed: (i64, i64),
}

impl Files {
    /// Notes what a file or directory is now; one that was noted before stays as it was then. To be called before it is read.
    pub fn note(&mut self, path: &Path) {
        if !self.0.contains_key(path) {
            self.0.insert(path.to_owned(), Print::of(path));
        }
    }

    /// Whether a file is among them.
    pub fn contain(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }

    /// The same files as they are now.
    fn now(&self) -> Self {
        let paths = self.0.keys();
        Self(paths.map(|path| (path.clone(), Print::of(path))).collect())
    }

    /// The directories in which something happens when one of them changes: theirs, and those of what they are links to.
    fn directories(&self) -> BTreeSet<PathBuf> {
        let mut directories = BTreeSet::new();
        for (path, print) in &self.0 {
            let targets = [Some(path.clone()), fs::canonicalize(path).ok()];
            for parent in targets.iter().flatten().filter_map(|path| path.parent()) {
                let here = parent.as_os_str().is_empty();
                directories.insert(if here {
                    PathBuf::from(".")
                } else {
                    parent.to_owned()
                });
            }
            if let Print::Directory(entries) = print {
                directories.insert(path.clone());
                directories.extend(entries.keys().filter(|entry| entry.is_dir()).cloned());
            }
        }
        directories
    }
}

/// Returns when one of these files is not what it was, and nothing has moved for a moment.
pub async fn changed(files: Files) {
    let mut kernel = match Kernel::listen(&files.directories()) {
        Ok(kernel) => Some(kernel),
        Err(error) => {
            tracing::warn!(%error, every = ?LOOK, "the kernel does not tell of changed files: they are looked at instead");
            None
        }
    };
    loop {
        let now = look(&files).await;
        if now != files {
            return settle(now).await;
        }
        match &mut kernel {
            Some(kernel) => {
                // Something, or nothing for a while: either way they are looked at. A log beside them is written all the time.
                let _ = timeout(LOOK, kernel.events.recv()).await;
                sleep(SETTLED).await;
                kernel.follow();
            }
            None => sleep(LOOK).await,
        }
    }
}

/// Waits until the files stay as they are.
async fn settle(mut last: Files) {
    let late = Instant::now() + RESTLESS;
    while Instant::now() < late {
        sleep(SETTLED).await;
        let now = look(&last).await;
        if now == last {
            return;
        }
        last = now;
    }
}

/// Looks at them on a thread that may wait: a file server may be away.
async fn look(files: &Files) -> Files {
    let same = files.clone();
    let looked = spawn_blocking(move || same.now()).await;
    // The process ends.
    looked.unwrap_or_else(|_| files.clone())
}

/// What the kernel tells of directories. Dropped, it is asked no more.
struct Kernel {
    events: Receiver<()>,
    watcher: RecommendedWatcher,
    /// The directories that are not there.
    missing: BTreeSet<PathBuf>,
}

impl Kernel {
    fn listen(directories: &BTreeSet<PathBuf>) -> notify::Result<Self> {
        let (send, events) = mpsc::channel(1);
        let heard = move |event: notify::Result<notify::Event>| {
            // Whatever it is, the files are looked at; of several, one is enough. Of reads there is nothing to see.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = send.try_send(());
            }
        };
        let mut kernel = Self {
            events,
            watcher: notify::recommended_watcher(heard)?,
            missing: directories.clone(),
        };
        kernel.follow();
        Ok(kernel)
    }

    /// Listens to the directories that have come. In the place of one that is not there it is the nearest one above that is:
    /// there something happens when it comes.
    fn follow(&mut self) {
        let Self {
            watcher, missing, ..
        } = self;
        let mut listens = |directory: &Path| {
            let is_here = directory.as_os_str().is_empty();
            let directory = if is_here { Path::new(".") } else { directory };
            let watched = watcher.watch(directory, RecursiveMode::NonRecursive);
            watched.is_ok()
        };
        missing.retain(|directory| {
            let mut above = directory.ancestors().skip(1);
            // It may have come in between: then nothing happens above any more.
            !listens(directory) && (!above.any(&mut listens) || !listens(directory))
        });
    }
}

impl Print {
    fn of(path: &Path) -> Self {
        match fs::metadata(path) {
            Err(_) => Self::Nothing,
            Ok(found) if found.is_dir() => {
                let mut entries = BTreeMap::new();
                list(path, 1, &mut entries);
                Self::Directory(entries)
            }
            Ok(found) => Self::File(Stamp::of(&found)),
        }
    }
}

fn list(directory: &Path, deeper: u32, entries: &mut BTreeMap<PathBuf, Stamp>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        // Through links: what they lead to is what is read.
        let Ok(found) = fs::metadata(&path) else {
            continue;
        };
        if found.is_dir() && deeper > 0 {
            list(&path, deeper - 1, entries);
        }
        // A directory's own times change with what is in it that nobody reads.
        let stamp = match found.is_dir() {
            true => Stamp {
                length: 0,
                changed: (0, 0),
                ..Stamp::of(&found)
            },
            false => Stamp::of(&found),
        };
        entries.insert(path, stamp);
    }
}

impl Stamp {
    fn of(found: &Metadata) -> Self {
        let time =
            |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
        Self {
            device: found.dev(),
            inode: found.ino(),
            length: found.len(),
            changed: (
                time(found.mtime(), found.mtime_nsec()),
                time(found.ctime(), found.ctime_nsec()),
            ),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    struct Desk {
        folder: TempDir,
        files: Files,
    }

    impl Desk {
        /// A file `a`, and what else the test makes; these paths are noted.
        fn new(make: impl FnOnce(&Path), noted: &[&str]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("a"), "before").unwrap();
            make(folder.path());
            let mut files = Files::default();
            for name in noted {
                files.note(&folder.path().join(name));
            }
            Self { folder, files }
        }

        /// Whether it is told soon that this has changed something: by the kernel, not by the next look.
        async fn tells(self, change: impl FnOnce(&Path)) -> bool {
            let watching = tokio::spawn(changed(self.files.clone()));
            // The first look must have been.
            sleep(Duration::from_millis(50)).await;
            assert!(!watching.is_finished());
            change(self.folder.path());
            timeout(LOOK / 2, watching).await.is_ok()
        }
    }

    #[tokio::test]
    async fn a_file_that_is_written_replaced_removed_or_made_is_told() {
        let desk = || Desk::new(|_| {}, &["a", "b"]);
        assert!(
            desk()
                .tells(|at| fs::write(at.join("a"), "after!").unwrap())
                .await
        );
        assert!(
            desk()
                .tells(|at| fs::remove_file(at.join("a")).unwrap())
                .await
        );
        assert!(
            desk()
                .tells(|at| fs::write(at.join("b"), "new").unwrap())
                .await
        );
        let rename = |at: &Path| {
            fs::write(at.join("a~"), "before").unwrap();
            fs::rename(at.join("a~"), at.join("a")).unwrap();
        };
        assert!(desk().tells(rename).await, "as editors do");
        assert!(
            !desk()
                .tells(|at| fs::write(at.join("other"), "x").unwrap())
                .await
        );
    }

    #[tokio::test]
    async fn a_link_that_is_swapped_is_told_wherever_it_stands() {
        let version = |at: &Path, version: &str| {
            let folder = at.join(version);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("tls.crt"), "the same length").unwrap();
        };
        let mounted = |at: &Path| {
            version(at, "..1");
            symlink("..1", at.join("..data")).unwrap();
            symlink("..data/tls.crt", at.join("tls.crt")).unwrap();
        };
        let desk = Desk::new(mounted, &["tls.crt"]);
        let swap = |at: &Path| {
            version(at, "..2");
            symlink("..2", at.join("..data_tmp")).unwrap();
            fs::rename(at.join("..data_tmp"), at.join("..data")).unwrap();
        };
        assert!(desk.tells(swap).await, "as Kubernetes does");

        let linked = |at: &Path| {
            version(at, "archive");
            fs::create_dir(at.join("live")).unwrap();
            symlink("../archive/tls.crt", at.join("live/tls.crt")).unwrap();
        };
        let desk = Desk::new(linked, &["live/tls.crt"]);
        let write = |at: &Path| fs::write(at.join("archive/tls.crt"), "another").unwrap();
        assert!(desk.tells(write).await, "what the link leads to");
    }

    #[tokio::test]
    async fn a_file_in_a_directory_that_comes_or_changes_is_told() {
        let nested = |at: &Path| {
            fs::create_dir_all(at.join("certs/one")).unwrap();
            fs::write(at.join("certs/one/a.pem"), "a").unwrap();
        };
        let desk = || Desk::new(nested, &["certs"]);
        assert!(
            desk()
                .tells(|at| fs::write(at.join("certs/b.pem"), "b").unwrap())
                .await
        );
        assert!(
            desk()
                .tells(|at| fs::write(at.join("certs/one/a.pem"), "bc").unwrap())
                .await
        );
        assert!(
            desk()
                .tells(|at| fs::create_dir(at.join("certs/two")).unwrap())
                .await
        );
    }

    #[tokio::test]
    async fn a_file_in_directories_that_come_one_after_the_other_is_told() {
        let Desk { folder, files } = Desk::new(|_| {}, &["etc/portcullis/a"]);
        let watching = tokio::spawn(changed(files));
        let directory = folder.path().join("etc/portcullis");
        for directory in [directory.parent().unwrap(), &directory] {
            sleep(SETTLED * 3).await;
            fs::create_dir(directory).unwrap();
        }
        sleep(SETTLED * 3).await;
        assert!(!watching.is_finished());
        fs::write(directory.join("a"), "here").unwrap();
        timeout(LOOK / 2, watching).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_has_changed_since_it_was_noted_is_told_at_once() {
        let desk = Desk::new(|_| {}, &["a"]);
        fs::write(desk.folder.path().join("a"), "between").unwrap();
        timeout(LOOK / 2, changed(desk.files)).await.unwrap();
    }

    #[tokio::test]
    async fn a_change_is_told_when_all_that_belongs_to_it_is_there() {
        let desk = Desk::new(
            |at| fs::write(at.join("key"), "old").unwrap(),
            &["a", "key"],
        );
        let watching = tokio::spawn(changed(desk.files.clone()));
        fs::write(desk.folder.path().join("a"), "new chain").unwrap();
        for _ in 0..4 {
            sleep(SETTLED / 2).await;
            assert!(!watching.is_finished());
            fs::write(desk.folder.path().join("key"), "").unwrap();
        }
        timeout(LOOK / 2, watching).await.unwrap().unwrap();
    }
}
