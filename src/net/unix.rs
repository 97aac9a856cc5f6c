//! UNIX sockets that others connect to: put at their paths so that nobody comes in before their mode holds, and taken away again.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::listener::BACKLOG;
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
    place: Place,
}

/// Where the file of a socket was put.
#[derive(Clone, Debug)]
pub struct Place {
    path: PathBuf,
    /// No other file has these while the socket is open, which keeps its own.
    own: (u64, u64),
}

impl Place {
    /// Whether it is there still: it may have been removed, and another be in its place.
    pub fn is_own(&self) -> bool {
        let found = fs::symlink_metadata(&self.path);
        found.is_ok_and(|found| number(&found) == self.own)
    }

    /// Gives the file another mode, if it is there still.
    ///
    /// # Errors
    /// The system's.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        match self.is_own() {
            true => fs::set_permissions(&self.path, Permissions::from_mode(mode)),
            false => Ok(()),
        }
    }
}

impl SocketFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    /// The same, for whoever looks whether it is there.
    pub fn place(&self) -> Place {
        self.place.clone()
    }

    /// Gives it another mode.
    ///
    /// # Errors
    /// The system's.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.place.set_mode(mode)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.place.is_own() {
            let _ = fs::remove_file(self.path());
        }
    }
}

fn number(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// Listens at a path. Nobody comes in before the file has this mode: a socket that is bound and does not listen yet refuses
/// everybody (connect(2)). It takes the place of a socket that nobody listens on.
///
/// # Errors
/// Somebody listens there, something else is there, or the system refuses.
pub fn bind(path: &Path, mode: u32) -> Result<(UnixListener, SocketFile), BindError> {
    make_way(path)?;
    let system = |error: io::Error| match error.kind() {
        // Another process came first.
        io::ErrorKind::AddrInUse => BindError::InUse(path.into()),
        _ => BindError::System {
            address: path.display().to_string(),
            error,
        },
    };
    let (listener, file) = listen(path, mode).map_err(system)?;
    // To who came in between it was one that nobody listened on.
    match file.place.is_own() {
        true => Ok((listener, file)),
        false => Err(BindError::InUse(path.into())),
    }
}

fn listen(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let place = Place {
        path: path.to_owned(),
        own: number(&fs::symlink_metadata(path)?),
    };
    let file = SocketFile { place };
    file.set_mode(mode)?;
    socket.listen(BACKLOG)?;
    Ok((OwnedFd::from(socket).into(), file))
}

/// Leaves nothing at this path, where a socket is that nobody listens on.
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
        Err(io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => remove(path),
        // Also "would block": somebody listens, and is slow to accept.
        _ => Err(BindError::InUse(path.into())),
    }
}

/// It may be gone by then.
fn remove(path: &Path) -> Result<(), BindError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(BindError::System {
            address: path.display().to_string(),
            error,
        }),
        _ => Ok(()),
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
    fn a_socket_may_have_the_longest_path_that_the_system_allows() {
        let folder = tempfile::tempdir().unwrap();
        let shorter = folder.path().join("s").as_os_str().len();
        let path = folder.path().join("s".repeat(108 - shorter));
        assert_eq!(path.as_os_str().len(), 107);
        let _bound = bind(&path, 0o600).unwrap();
        UnixStream::connect(&path).unwrap();
        assert!(bind(&folder.path().join("s".repeat(109 - shorter)), 0o600).is_err());
    }

    #[test]
    fn what_another_process_has_left_or_makes_beside_it_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        // Of a process of the same number, killed or in another container, whatever it has there.
        let other = folder
            .path()
            .join(format!(".portcullis-{}", std::process::id()));
        fs::create_dir(&other).unwrap();
        fs::write(other.join("s"), "").unwrap();
        fs::write(other.join("more"), "").unwrap();
        let path = folder.path().join("s");
        let _bound = bind(&path, 0o600).unwrap();
        UnixStream::connect(&path).unwrap();
        assert!(other.join("s").exists());
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
