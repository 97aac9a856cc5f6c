//! Where the admin interface listens: a TCP address, or a UNIX socket for its owner only.

use std::convert::Infallible;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::oneshot;

use crate::config::AdminAddress;
use crate::retry;

/// What accepts connections to the admin interface.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    /// Dropped after the socket, as fields are in their order.
    open: Option<oneshot::Sender<Infallible>>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, SocketFile),
}

impl Listener {
    /// Binds the address. The file of a UNIX socket has mode 0600 from its first moment, takes the place of one
    /// that nobody listens on, and goes with the listener.
    pub async fn bind(address: &AdminAddress) -> Result<Self, BindError> {
        match address {
            AdminAddress::Tcp(address) => {
                let bound = async {
                    let listener = TcpListener::bind(address).await?;
                    let address = listener.local_addr()?;
                    Ok(Self::of(Socket::Tcp(listener, address)))
                };
                bound.await.map_err(|error| BindError::System {
                    address: address.to_string(),
                    error,
                })
            }
            AdminAddress::Unix(path) => {
                make_way(path).await?;
                let listener = bind_private(path).map_err(|error| BindError::System {
                    address: path.display().to_string(),
                    error,
                })?;
                Ok(Self::of(Socket::Unix(listener, SocketFile(path.clone()))))
            }
        }
    }

    fn of(socket: Socket) -> Self {
        Self { socket, open: None }
    }

    /// Hears when it is dropped, and its address free.
    pub fn closed(&mut self) -> oneshot::Receiver<Infallible> {
        let (open, closed) = oneshot::channel();
        self.open = Some(open);
        closed
    }

    /// Where it listens: with the port that the system chose, if it did.
    pub fn address(&self) -> AdminAddress {
        match &self.socket {
            Socket::Tcp(_, address) => AdminAddress::Tcp(*address),
            Socket::Unix(_, file) => AdminAddress::Unix(file.0.clone()),
        }
    }

    /// Whether programs of this machine only, its browsers among them, can connect over TCP.
    pub(super) fn is_loopback(&self) -> bool {
        matches!(&self.socket, Socket::Tcp(_, address) if address.ip().to_canonical().is_loopback())
    }

    /// The next connection; errors are logged and waited out.
    pub(super) async fn accept(&self) -> Stream {
        loop {
            let accepted = match &self.socket {
                Socket::Tcp(listener, _) => listener
                    .accept()
                    .await
                    .map(|(stream, _)| Stream::Tcp(stream)),
                Socket::Unix(listener, _) => listener
                    .accept()
                    .await
                    .map(|(stream, _)| Stream::Unix(stream)),
            };
            match accepted {
                Ok(stream) => return stream,
                // The peer went away while it waited in the queue.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // Most often no file descriptor is left: a second may free one.
                Err(error) => {
                    tracing::warn!(%error, "the admin interface cannot accept a connection");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// An accepted connection.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Why the admin interface cannot listen.
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

/// Removes the file of a UNIX socket.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Whether a socket may be put at this path: nothing is there, or a socket that nobody listens on.
async fn make_way(path: &Path) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.into()));
        }
        Ok(_) => {}
        Err(_) => return Ok(()),
    }
    match UnixStream::connect(path)
        .await
        .map_err(|error| error.kind())
    {
        Err(io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(()),
        // Also "would block": somebody listens, and is slow to accept.
        _ => Err(BindError::InUse(path.into())),
    }
}

/// Binds inside a directory that only we can enter, then moves the socket to its place: at no moment can
/// somebody else connect, whatever the umask is.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let nursery = Nursery::new(path.parent().unwrap_or(Path::new("/")))?;
    let listener = UnixListener::bind(&nursery.socket)?;
    fs::set_permissions(&nursery.socket, Permissions::from_mode(0o600))?;
    fs::rename(&nursery.socket, path)?;
    Ok(listener)
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
