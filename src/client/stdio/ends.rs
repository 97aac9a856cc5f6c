//! stdin and stdout themselves: a pipe is used when it is ready, and all else by threads that wait in it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::task::{JoinHandle, spawn_blocking};

/// What is read or written at a time.
///
/// 64 KiB: all that a pipe of Linux holds.
const CHUNK: usize = 64 * 1024;

/// The stdin of this process.
#[derive(Debug)]
pub(super) enum Input {
    Pipe(Receiver, Vec<u8>),
    Threaded(Waiting),
}

/// The stdout of this process.
#[derive(Debug)]
pub(super) enum Output {
    Pipe(Sender),
    Threaded(Waiting),
    Closed,
}

/// What is done by a thread, or the buffer for it. What it comes to is a number of bytes.
#[derive(Debug)]
pub(super) enum Waiting {
    Idle(Vec<u8>),
    Busy(JoinHandle<(Vec<u8>, io::Result<usize>)>),
}

impl Input {
    pub(super) fn open() -> Self {
        let pipe = anew(io::stdin(), OFlags::RDONLY);
        match pipe.and_then(|pipe| Receiver::from_file(pipe).ok()) {
            Some(pipe) => Self::Pipe(pipe, vec![0; CHUNK]),
            None => Self::Threaded(Waiting::Idle(vec![0; CHUNK])),
        }
    }

    /// Hands over what is there, and how much it was: nothing at the end.
    pub(super) fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Pipe(pipe, chunk) => {
                let mut chunk = ReadBuf::new(chunk);
                ready!(Pin::new(pipe).poll_read(cx, &mut chunk))?;
                take(chunk.filled());
                Poll::Ready(Ok(chunk.filled().len()))
            }
            Self::Threaded(waiting) => {
                if let Waiting::Idle(chunk) = waiting {
                    let mut chunk = std::mem::take(chunk);
                    *waiting = Waiting::Busy(spawn_blocking(move || {
                        let read = patiently(io::stdin(), PollFlags::IN, |stdin| {
                            rustix::io::read(stdin, &mut *chunk)
                        });
                        (chunk, read)
                    }));
                }
                let read = ready!(waiting.poll(cx))?;
                if let Waiting::Idle(chunk) = waiting {
                    take(chunk.get(..read).unwrap_or_default());
                }
                Poll::Ready(Ok(read))
            }
        }
    }
}

impl Output {
    pub(super) fn open() -> Self {
        let pipe = anew(io::stdout(), OFlags::WRONLY);
        match pipe.and_then(|pipe| Sender::from_file(pipe).ok()) {
            Some(pipe) => Self::Pipe(pipe),
            None => Self::Threaded(Waiting::Idle(Vec::with_capacity(CHUNK))),
        }
    }

    /// Takes some of it. What a thread takes is not written before it is flushed, and fails then, or with what comes next.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let waiting = match self {
            Self::Pipe(pipe) => return Pin::new(pipe).poll_write(cx, buf),
            Self::Closed => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Self::Threaded(waiting) => waiting,
        };
        ready!(waiting.poll(cx))?;
        let taken = buf.get(..CHUNK).unwrap_or(buf);
        if let Waiting::Idle(chunk) = waiting {
            let mut chunk = std::mem::take(chunk);
            chunk.clear();
            chunk.extend_from_slice(taken);
            *waiting = Waiting::Busy(spawn_blocking(move || {
                let written = write_all(&chunk);
                (chunk, written)
            }));
        }
        Poll::Ready(Ok(taken.len()))
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Threaded(waiting) => waiting.poll(cx).map_ok(drop),
            Self::Pipe(_) | Self::Closed => Poll::Ready(Ok(())),
        }
    }

    /// Lets the reader of stdout see its end while this process goes on: ssh waits for nothing else.
    ///
    /// In its place comes stdin, which is open anyway: a file that would have to be opened may be one too many.
    pub(super) fn close(&mut self) -> io::Result<()> {
        *self = Self::Closed;
        let (stdin, stdout) = (fstat(io::stdin())?, fstat(io::stdout())?);
        // A socket that is stdin too stays open. If the other end has gone, it knows.
        if FileType::from_raw_mode(stdout.st_mode) == FileType::Socket
            && (stdin.st_dev, stdin.st_ino) == (stdout.st_dev, stdout.st_ino)
        {
            let _ = shutdown(io::stdout(), Shutdown::Write);
        }
        Ok(rustix::stdio::dup2_stdout(io::stdin())?)
    }
}

impl Waiting {
    /// Waits for the thread, if there is one.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Self::Busy(thread) = self else {
            return Poll::Ready(Ok(0));
        };
        let (chunk, done) = ready!(Pin::new(thread).poll(cx))?;
        *self = Self::Idle(chunk);
        Poll::Ready(done)
    }
}

fn write_all(mut bytes: &[u8]) -> io::Result<usize> {
    let length = bytes.len();
    while !bytes.is_empty() {
        let written = patiently(io::stdout(), PollFlags::OUT, |stdout| {
            rustix::io::write(stdout, bytes)
        })?;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(length)
}

/// Does it when it can be done, whether somebody has set O_NONBLOCK or not: it is on what is open, in every process that has
/// it. So it is not set here, either: a shell would find its terminal so.
fn patiently<F: AsFd>(
    end: F,
    ready: PollFlags,
    mut act: impl FnMut(&F) -> rustix::io::Result<usize>,
) -> io::Result<usize> {
    loop {
        match act(&end) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => match poll(&mut [PollFd::new(&end, ready)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            },
            done => return Ok(done?),
        }
    }
}

/// The same pipe with flags of its own. `None` for what is no pipe, or another user's; and for a FIFO: it would not be told
/// that all who write to it have gone before.
fn anew(end: impl AsFd, access: OFlags) -> Option<File> {
    let flags = fcntl_getfl(&end).ok()?;
    let name = format!("/proc/self/fd/{}", end.as_fd().as_raw_fd());
    let target = std::fs::read_link(&name).ok()?;
    let is_pipe = target.to_str()?.starts_with("pipe:[");
    if !is_pipe || flags & OFlags::ACCMODE != access {
        return None;
    }
    let mut options = File::options();
    options.read(access == OFlags::RDONLY);
    options.write(access == OFlags::WRONLY);
    options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    options.open(name).ok()
}
