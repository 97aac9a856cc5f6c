//! What a serving process takes from itself before its first thread: privileges, core dumps, writing elsewhere, executing.

use std::io;
use std::path::{Path, PathBuf};

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod program;

/// Where the process may still write. The directories must be there when the sandbox is entered: what takes the place of
/// one later is another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writable {
    /// Directories beneath which files and directories may be made, written, renamed and removed.
    pub files: Vec<PathBuf>,
    /// UNIX sockets that may be made: beneath the directory of each, sockets are made, and files removed.
    pub sockets: Vec<PathBuf>,
}

/// The sandbox of a process. It lasts until the process ends: nothing widens it, and there is no way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    writable: Writable,
    extent: Extent,
    has_dropped: bool,
}

/// How much of the sandbox holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// All but one thing: files elsewhere can be cut to nothing (Landlock before Linux 6.2).
    ButTruncation,
    /// All but Landlock, which the kernel lacks (before Linux 5.19, or not enabled): nothing limits writing and executing.
    ButFiles,
    /// Nothing, as is wished.
    Off,
}

impl Extent {
    /// Its word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::ButTruncation => "but_truncation",
            Self::ButFiles => "but_files",
            Self::Off => "off",
        }
    }

    /// What an operator should know, if it is not whole.
    pub fn lack(self) -> Option<&'static str> {
        match self {
            Self::Whole => None,
            Self::ButTruncation => Some(
                "the kernel's Landlock is older than Linux 6.2: files that this user may write can be truncated",
            ),
            Self::ButFiles => Some(
                "the kernel has no Landlock (Linux 5.19, enabled in `lsm=`): this process may write and execute whatever its user may",
            ),
            Self::Off => Some("off by `insecure_no_sandbox = true`"),
        }
    }
}

impl Sandbox {
    /// Enters the sandbox: this thread, and those that it starts from now on, which is why nothing may have started one.
    ///
    /// - no-new-privileges: no program started from here gets more than this one has;
    /// - of the capabilities none stays but CAP_NET_BIND_SERVICE if it was there, in no set;
    /// - no core dumps: they would hold keys. `/proc/self` belongs to root from then on, and nobody but root can attach;
    /// - writing beneath `writable` only, and executing these `programs` only, with what the kernel needs to start them
    ///   (Landlock): no program that one of them would start. What is open stays so: logs on stdout and
    ///   stderr go to whatever they go to. Reading, connecting and listening are as free as before.
    ///
    /// # Errors
    /// A directory of `writable` cannot be opened, or the system refuses what every system that has it grants. The process
    /// may then be in a part of the sandbox, and should end. That the kernel has no Landlock is no error: see
    /// [`extent`](Self::extent).
    pub fn enter(writable: Writable, programs: &[PathBuf]) -> Result<Self, SandboxError> {
        #[cfg(target_os = "linux")]
        let (extent, has_dropped) = linux::enter(&writable, programs)?;
        #[cfg(not(target_os = "linux"))]
        let (extent, has_dropped) = {
            let _ = programs;
            (Extent::ButFiles, false)
        };
        Ok(Self {
            writable,
            extent,
            has_dropped,
        })
    }

    /// None, as `insecure_no_sandbox = true` wants.
    pub fn off() -> Self {
        Self {
            writable: Writable::default(),
            extent: Extent::Off,
            has_dropped: false,
        }
    }

    /// How much of it would hold, by what the kernel can: this process stays as free as it is.
    pub fn possible() -> Extent {
        #[cfg(target_os = "linux")]
        return linux::possible();
        #[cfg(not(target_os = "linux"))]
        return Extent::ButFiles;
    }

    /// How much of it holds.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// Whether capabilities were there and are gone: what could be read with them may be out of reach now.
    pub fn has_dropped(&self) -> bool {
        self.has_dropped
    }

    /// Whether a UNIX socket can be put at this path, as far as the sandbox goes.
    pub fn permits_socket(&self, path: &Path) -> bool {
        let Ok(folder) = directory_of(path).canonicalize() else {
            // Binding says better what is wrong with a directory that is not there.
            return true;
        };
        let Writable { files, sockets } = &self.writable;
        let sockets = sockets.iter().map(|socket| directory_of(socket));
        let mut writable = files.iter().map(PathBuf::as_path).chain(sockets);
        match self.extent {
            Extent::ButFiles | Extent::Off => true,
            Extent::Whole | Extent::ButTruncation => writable.any(|above| {
                let above = above.canonicalize();
                above.is_ok_and(|above| folder.starts_with(above))
            }),
        }
    }
}

/// No core dumps from now on, as in the sandbox, and nothing else of it: for a process that is not to serve.
///
/// # Errors
/// The system refuses what every system that has it grants.
pub fn no_dumps() -> Result<(), SandboxError> {
    #[cfg(target_os = "linux")]
    linux::no_dumps()?;
    Ok(())
}

/// The directory that a file is in, as the system calls take it.
fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    }
}

/// Why the sandbox cannot be entered.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The system refused a step.
    #[error("cannot enter the sandbox: {step}: {error}")]
    System {
        /// What was asked of it.
        step: &'static str,
        /// What it said.
        error: io::Error,
    },
    /// A directory that is to stay writable cannot be opened.
    #[error("cannot enter the sandbox: {} cannot be opened, which must stay writable in it: {reason}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Landlock is there and refused.
    #[error("cannot enter the sandbox: Landlock: {0}")]
    Landlock(String),
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_permitted_beneath_what_is_writable_through_links_too_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let [run, other, link] = ["run", "other", "link"].map(|name| folder.path().join(name));
        std::fs::create_dir_all(run.join("deep")).unwrap();
        std::fs::create_dir(&other).unwrap();
        std::os::unix::fs::symlink(&run, &link).unwrap();
        let mut sandbox = Sandbox {
            writable: Writable {
                files: Vec::new(),
                sockets: vec![link.join("admin.sock")],
            },
            extent: Extent::Whole,
            has_dropped: false,
        };
        for permitted in [&run, &link, &run.join("deep"), &folder.path().join("none")] {
            assert!(sandbox.permits_socket(&permitted.join("admin.sock")));
        }
        assert!(!sandbox.permits_socket(&other.join("admin.sock")));
        assert!(!sandbox.permits_socket(&link.join("../other/admin.sock")));
        assert_eq!(directory_of(Path::new("admin.sock")), Path::new("."));
        sandbox.extent = Extent::ButFiles;
        assert!(sandbox.permits_socket(&other.join("admin.sock")));
        assert!(Sandbox::off().permits_socket(&other.join("admin.sock")));
    }
}
