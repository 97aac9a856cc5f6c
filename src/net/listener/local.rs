//! A UNIX socket that listens: who connects is a user of this machine, and the kernel tells which.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener as Queue;
use std::path::{Path, PathBuf};
use std::pin::pin;

use tokio::net::{UnixListener, UnixStream};
use tokio::time::sleep;

use super::closing::{ADOPTED, ROOM};
use super::{BACKLOG, FIRST_PAUSE, LONGEST_PAUSE, Lost, Pauses, is_shortage, queue};
use crate::net::raw::Accepted;
use crate::net::unix::{self, BindError, Place, SocketFile};

/// A UNIX socket that listens.
#[derive(Debug)]
pub struct Local {
    socket: UnixListener,
    path: PathBuf,
    /// Of one that somebody else has bound it is his.
    file: Option<SocketFile>,
}

impl Local {
    /// Binds and listens: see [`unix::bind`].
    ///
    /// # Errors
    /// Somebody listens there, something else is there, or the system refuses.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, BindError> {
        let system = |error| BindError::System {
            address: path.display().to_string(),
            error,
        };
        let (socket, file) = unix::bind(path, mode)?;
        let path = path.to_owned();
        Self::of(socket, path.clone(), Some(file)).map_err(system)
    }

    /// Takes over a socket that listens already, with everyone in its queue. Somebody else holds it too.
    ///
    /// # Errors
    /// The system's.
    pub fn adopt(socket: Queue, path: PathBuf) -> io::Result<Self> {
        Self::of(socket, path, None)
    }

    fn of(socket: Queue, path: PathBuf, file: Option<SocketFile>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: UnixListener::from_std(socket)?,
            path,
            file,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where its file was put; nothing where that is somebody else's.
    pub(super) fn place(&self) -> Option<Place> {
        self.file.as_ref().map(SocketFile::place)
    }

    /// Gives its file another mode, unless it is somebody else's.
    ///
    /// # Errors
    /// The system's.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.file
            .as_ref()
            .map_or(Ok(()), |file| file.set_mode(mode))
    }

    pub(super) async fn accept(
        &self,
        mut take: impl FnMut(Accepted),
        mut failed: impl FnMut(&io::Error),
    ) {
        let mut pauses = Pauses::default();
        loop {
            let accepted = self.socket.accept().await;
            match accepted.and_then(|(stream, _)| known(stream)) {
                Ok(accepted) => take(accepted),
                Err(e) => {
                    failed(&e);
                    if is_shortage(&e) {
                        sleep(pauses.next()).await;
                    }
                }
            }
        }
    }

    /// As many as the queue can hold, who came first.
    pub(super) fn take_queued(&self, mut take: impl FnMut(Accepted)) -> io::Result<()> {
        let queue = Queue::from(self.socket.as_fd().try_clone_to_owned()?);
        for _ in 0..=BACKLOG {
            match queue.accept().and_then(|(stream, _)| taken(stream)) {
                Ok(accepted) => take(accepted),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if is_shortage(&e) => return Err(e),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// The file goes first: nobody finds the socket any more, and who has found it is taken. One that somebody else has
    /// bound never stops to fill: as many are taken as its queue can hold.
    pub(super) async fn close<Room>(
        self,
        mut room: impl FnMut() -> Option<Room>,
        mut take: impl FnMut(Accepted, Room),
        mut failed: impl FnMut(&io::Error),
        give_up: impl Future<Output = ()>,
    ) -> Result<(), Lost> {
        let is_own = self.file.is_some();
        drop(self.file);
        let queue = match self.socket.into_std() {
            Ok(queue) => queue,
            Err(e) => {
                failed(&e);
                return Err(Lost(None));
            }
        };
        let give_up = async {
            match is_own {
                true => give_up.await,
                false => sleep(ADOPTED).await,
            }
        };
        let mut give_up = pin!(give_up);
        let mut pause = FIRST_PAUSE;
        let mut left = if is_own { i32::MAX } else { BACKLOG + 1 };
        // Without a descriptor accept(2) fails before it looks whether anybody is there.
        while left > 0 && queue::is_waiting(&queue) {
            let pause = match room() {
                None => ROOM,
                Some(room) => match queue.accept().and_then(|(stream, _)| taken(stream)) {
                    Ok(accepted) => {
                        left -= 1;
                        take(accepted, room);
                        pause = FIRST_PAUSE;
                        continue;
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) => {
                        failed(&e);
                        pause = (pause * 2).min(LONGEST_PAUSE);
                        pause
                    }
                },
            };
            tokio::select! {
                biased;
                () = &mut give_up => break,
                () = sleep(pause) => {}
            }
        }
        match is_own && queue::is_waiting(&queue) {
            true => Err(Lost(None)),
            false => Ok(()),
        }
    }
}

fn taken(stream: std::os::unix::net::UnixStream) -> io::Result<Accepted> {
    stream.set_nonblocking(true)?;
    known(UnixStream::from_std(stream)?)
}

/// With the user who has connected: as he was then, whatever he has become (unix(7), `SO_PEERCRED`).
fn known(stream: UnixStream) -> io::Result<Accepted> {
    let uid = stream.peer_cred()?.uid();
    Ok(Accepted::Unix(stream, uid))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::pending;
    use std::os::unix::net::UnixStream as Client;

    use super::*;

    #[tokio::test]
    async fn closing_takes_everyone_out_of_the_queue_and_lets_nobody_new_in() {
        const QUEUED: usize = 50;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let local = Local::bind(&path, 0o600).unwrap();
        let _clients: Vec<_> = (0..QUEUED)
            .map(|_| Client::connect(&path).unwrap())
            .collect();
        let mut taken = Vec::new();
        let take = |accepted, ()| taken.push(accepted);
        let closed = local.close(|| Some(()), take, |e| panic!("{e}"), pending());
        closed.await.unwrap();
        assert_eq!(taken.len(), QUEUED);
        let own = rustix::process::getuid().as_raw();
        assert!(
            taken
                .iter()
                .all(|one| matches!(one, Accepted::Unix(_, uid) if *uid == own))
        );
        assert!(Client::connect(&path).is_err());
    }

    #[tokio::test]
    async fn whoever_is_in_the_queue_is_taken_and_it_goes_on_listening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let local = Local::bind(&path, 0o600).unwrap();
        let _clients: Vec<_> = (0..50).map(|_| Client::connect(&path).unwrap()).collect();
        let mut taken = 0;
        local.take_queued(|_| taken += 1).unwrap();
        assert_eq!(taken, 50);
        local.take_queued(|_| panic!("nobody waits")).unwrap();
        let _late = Client::connect(&path).unwrap();
        local.take_queued(|_| taken += 1).unwrap();
        assert_eq!(taken, 51);
    }

    #[tokio::test]
    async fn an_adopted_socket_stays_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let held = Queue::bind(&path).unwrap();
        let _waits = Client::connect(&path).unwrap();
        let local = Local::adopt(held.try_clone().unwrap(), path.clone()).unwrap();
        let mut taken = 0;
        let take = |_, ()| taken += 1;
        let closed = local.close(|| Some(()), take, |e| panic!("{e}"), pending());
        closed.await.unwrap();
        assert_eq!(taken, 1);
        let _waits = Client::connect(&path).unwrap();
    }
}
