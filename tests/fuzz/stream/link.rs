//! The socket between the two sides, the loop that waits for it, and the task's waker.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use rustix::io::ioctl_fionread;
use rustix::net::sockopt::set_socket_send_buffer_size;
use tokio::net::TcpStream;
use tokio::runtime::{self, Runtime};

use super::schedule::Room;

thread_local! {
    static RUNTIME: Runtime = runtime::Builder::new_current_thread().enable_io().build().unwrap();
}

/// A pair of sockets whose bytes are there at once, unlike TCP's: every run is the same. To read, write and shutdown it is
/// no different. The stream's end, and the peer's.
pub(crate) fn pair(room: &Room) -> (TcpStream, Link) {
    let (near, far) = UnixStream::pair().unwrap();
    for (socket, size) in [(&near, room.stream), (&far, room.peer)] {
        socket.set_nonblocking(true).unwrap();
        if let Some(size) = size {
            set_socket_send_buffer_size(socket, size).unwrap();
        }
    }
    let watched = near.try_clone().unwrap();
    let near = std::net::TcpStream::from(OwnedFd::from(near));
    let stream = RUNTIME.with(|runtime| {
        let _entered = runtime.enter();
        TcpStream::from_std(near).unwrap()
    });
    let link = Link {
        far: Some(far),
        near: watched,
        sent: 0,
        heard: 0,
        last: 0,
    };
    (stream, link)
}

/// Lets the runtime look once at what the kernel has to tell.
pub(crate) fn turn() {
    RUNTIME.with(|runtime| runtime.block_on(tokio::task::yield_now()));
}

/// The peer's end of the connection, until it is closed.
pub(crate) struct Link {
    far: Option<UnixStream>,
    /// The stream's end, for a look at what it has not read.
    near: UnixStream,
    /// How much the peer has sent, and how much it has read.
    sent: usize,
    heard: usize,
    /// What the kernel had for it when it closed.
    last: usize,
}

impl Link {
    /// The peer is there.
    pub(crate) fn is_whole(&self) -> bool {
        self.far.is_some()
    }

    /// Sends what there is room for; tells how much.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> usize {
        let Some(far) = &mut self.far else {
            return 0;
        };
        match far.write(bytes) {
            Ok(sent) => {
                self.sent += sent;
                sent
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                0
            }
        }
    }

    /// What came from the stream, up to so much; empty at its end, none if nothing is there.
    pub(crate) fn hear(&mut self, most: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; most.min(64 << 10)];
        match self.far.as_mut()?.read(&mut bytes) {
            Ok(heard) => {
                self.heard += heard;
                bytes.truncate(heard);
                Some(bytes)
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                None
            }
        }
    }

    pub(crate) fn end(&self) {
        if let Some(far) = &self.far {
            far.shutdown(Shutdown::Write).unwrap();
        }
    }

    pub(crate) fn leave(&mut self) {
        self.last = self.arrived();
        // Another program that this process is just starting may have the socket still: it is over all the same.
        if let Some(far) = self.far.take() {
            let _ = far.shutdown(Shutdown::Both);
        }
    }

    /// How much the peer has sent.
    pub(crate) fn sent(&self) -> usize {
        self.sent
    }

    /// How much of that the stream has read.
    pub(crate) fn pulled(&self) -> usize {
        self.sent - usize::try_from(ioctl_fionread(&self.near).unwrap()).unwrap()
    }

    /// How much the peer has read.
    pub(crate) fn heard(&self) -> usize {
        self.heard
    }

    /// How much of what the stream has sent is in the kernel or with the peer.
    pub(crate) fn arrived(&self) -> usize {
        let waiting = self.far.as_ref().map(|far| ioctl_fionread(far).unwrap());
        waiting.map_or(self.last, |n| self.heard + usize::try_from(n).unwrap())
    }
}

/// The one waker of the task that has the stream.
#[derive(Default)]
pub(crate) struct Woken(AtomicBool);

impl Woken {
    /// Whether it was woken since it was last asked.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}
