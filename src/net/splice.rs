//! Bytes moved from socket to socket by the kernel (splice(2)), through a pipe that is held only while they flow.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

#[cfg(any(target_os = "linux", target_os = "android"))]
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// How much a pipe is asked to hold.
///
/// 256 KiB: a pipe has a slot for each page or fragment of one, and a socket's bytes come in fragments of any size.
const SIZE: usize = 256 * 1024;

/// How many pipes may be in use.
///
/// 256: a pipe is two descriptors and what is in it, and a sink that does not take its bytes keeps one for as long. Who
/// gets none is served by read and write.
const MOST: usize = 256;

/// How many empty pipes a thread keeps for the next who needs one. They do not count as used: else those of some threads
/// could leave none for the others.
const SPARE: usize = 16;

static USED: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static POOL: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
}

/// A pipe that is used. Dropped empty, it goes to its thread's pool, and is closed otherwise.
#[derive(Debug)]
pub(super) struct Pipe {
    /// `None` only while it is made or dropped.
    ends: Option<Ends>,
    held: usize,
}

/// The descriptors of a pipe.
#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    /// A pipe, if one more may be used, and the system has one.
    pub(super) fn take() -> Option<Self> {
        let counted = USED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            (used < MOST).then_some(used + 1)
        });
        counted.ok()?;
        // From here on its end is counted too.
        let mut pipe = Self {
            ends: POOL.with_borrow_mut(Vec::pop),
            held: 0,
        };
        if pipe.ends.is_none() {
            pipe.ends = Some(Ends::open()?);
        }
        Some(pipe)
    }

    /// How many bytes are in it.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Moves bytes out of a socket into the pipe, which must be empty; ready with how many. 0 is the end.
    ///
    /// `Unsupported`, with nothing moved: bytes can be had by read(2) only. The kernel cannot take them out of this socket
    /// (EINVAL), has no splice(2) (ENOSYS), or a filter of system calls denies it (EPERM).
    pub(super) fn poll_fill(
        &mut self,
        source: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let Some(ends) = &self.ends else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        loop {
            ready!(source.poll_read_ready(cx))?;
            let moved = source.try_io(Interest::READABLE, || splice(source, &ends.write, SIZE));
            match moved {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Ok(n) => {
                    self.held += n;
                    return Poll::Ready(Ok(n));
                }
                Err(e) => return Poll::Ready(Err(unsupported(e))),
            }
        }
    }

    /// Moves bytes out of the pipe into a socket; ready with how many.
    pub(super) fn poll_drain(
        &mut self,
        sink: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let Some(ends) = &self.ends else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        loop {
            ready!(sink.poll_write_ready(cx))?;
            let moved = sink.try_io(Interest::WRITABLE, || splice(&ends.read, sink, self.held));
            match moved {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => {
                    self.held = self.held.saturating_sub(n);
                    return Poll::Ready(Ok(n));
                }
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        USED.fetch_sub(1, Ordering::Relaxed);
        if let Some(ends) = self.ends.take().filter(|_| self.held == 0) {
            // A thread that ends has no pool any more.
            let _ = POOL.try_with(|pool| {
                let mut pool = pool.borrow_mut();
                if pool.len() < SPARE {
                    pool.push(ends);
                }
            });
        }
    }
}

impl Ends {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn open() -> Option<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // Whose pipes are many already gets a smaller one (pipe(7), /proc/sys/fs/pipe-user-pages-soft).
        let _ = fcntl_setpipe_size(&write, SIZE);
        Some(Self { read, write })
    }

    /// Other kernels move nothing: nobody gets a pipe.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn open() -> Option<Self> {
        None
    }
}

/// No read of a socket fails so: it is splice(2) itself that cannot be.
fn unsupported(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied => {
            io::ErrorKind::Unsupported.into()
        }
        _ => error,
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn splice(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    Ok(rustix::pipe::splice(from, None, to, None, most, flags)?)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn splice(_: impl AsFd, _: impl AsFd, _: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}
