//! UNIX sockets that others connect to: put at their paths so that nobody comes in before their mode holds, and taken away again.

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::retry;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The system refused.
    #[error("cannot listen on {address}: {error}")]
    System {
        /// The address, or the path of the socket.
        address: String,
        /// What it said.
        error: io::Error,
    },
    /// Somebody listens on the UNIX socket.
    #[error("cannot listen on {}: another process does already", .0.display())]
    InUse(PathBuf),
    /// The path of the UNIX socket is taken by something else, which is not removed.
    #[error("cannot listen on {}: the file is there and is not a socket", .0.display())]
    NotASocket(PathBuf),
}

impl BindError {
    /// Whether it may end without a change of the configuration.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::System { error, .. } => retry::may_pass(error),
            Self::InUse(_) => true,
            Self::NotASocket(_) => false,
        }
    }
}

/// The file of a socket. Dropped, it is removed, unless another has taken its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    own: (u64, u64),
}

impl SocketFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it another mode.
    ///
    /// # Errors
    /// The system's.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        match self.is_own() {
            true => fs::set_permissions(&self.path, Permissions::from_mode(mode)),
            false => Ok(()),
        }
    }

    fn is_own(&self) -> bool {
        let found = fs::symlink_metadata(&self.path);
        found.is_ok_and(|found| number(&found) == self.own)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_own() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn number(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// Listens at a path. The file has this mode from the first moment that somebody can see it, and takes the place of a
/// socket that nobody listens on.
///
/// # Errors
/// Somebody listens there, something else is there, or the system refuses.
pub fn bind(path: &Path, mode: u32) -> Result<(UnixListener, SocketFile), BindError> {
    make_way(path)?;
    bind_privately(path, mode).map_err(|error| BindError::System {
        address: path.display().to_string(),
        error,
    })
}

/// Whether a socket may be put at this path: nothing is there, or a socket that nobody listens on.
fn make_way(path: &Path) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.into()));
        }
        Ok(_) => {}
        Err(_) => return Ok(()),
    }
    // A listener whose queue is full would keep who waits.
    let asked = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)
        .and_then(|socket| socket.connect(&SockAddr::unix(path)?));
    match asked.map_err(|error| error.kind()) {
        Err(io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(()),
        // Also "would block": somebody listens, and is slow to accept.
        _ => Err(BindError::InUse(path.into())),
    }
}

/// Binds inside a directory that only we can enter, then moves the socket to its place: at no moment can
/// somebody else connect, whatever the umask is.
fn bind_privately(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    let nursery = Nursery::new(path.parent().unwrap_or(Path::new("/")))?;
    let listener = UnixListener::bind(&nursery.socket)?;
    fs::set_permissions(&nursery.socket, Permissions::from_mode(mode))?;
    let own = number(&fs::symlink_metadata(&nursery.socket)?);
    fs::rename(&nursery.socket, path)?;
    let path = path.to_owned();
    Ok((listener, SocketFile { path, own }))
}

/// A directory of mode 0700 for one socket, removed with what is left in it.
struct Nursery {
    directory: PathBuf,
    socket: PathBuf,
}

impl Nursery {
    fn new(parent: &Path) -> io::Result<Self> {
        let directory = parent.join(format!(".portcullis-{}", std::process::id()));
        let nursery = Self {
            socket: directory.join("s"),
            directory,
        };
        // A process that had our id and was killed may have left one.
        nursery.remove();
        DirBuilder::new().mode(0o700).create(&nursery.directory)?;
        Ok(nursery)
    }

    fn remove(&self) {
        let _ = fs::remove_file(&self.socket);
        let _ = fs::remove_dir(&self.directory);
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_socket_has_its_mode_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let (listener, file) = bind(&path, 0o640).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        UnixStream::connect(&path).unwrap();
        file.set_mode(0o600).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop((listener, file));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_socket_that_nobody_listens_on_is_replaced_and_one_that_lives_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        // What a process that was killed leaves.
        drop(UnixListener::bind(&path).unwrap());
        let first = bind(&path, 0o600).unwrap();
        assert!(matches!(bind(&path, 0o600), Err(BindError::InUse(_))));
        drop(first);
        fs::write(&path, "").unwrap();
        assert!(matches!(bind(&path, 0o600), Err(BindError::NotASocket(_))));
    }

    #[test]
    fn a_listener_that_ends_leaves_the_socket_that_another_has_put_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let first = bind(&path, 0o600).unwrap();
        fs::remove_file(&path).unwrap();
        let _second = bind(&path, 0o600).unwrap();
        drop(first);
        UnixStream::connect(&path).unwrap();
    }
}
