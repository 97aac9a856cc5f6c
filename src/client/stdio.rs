//! stdin and stdout as one side of a relay.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::sync::Notify;

use crate::net::relay::Stream;
use crate::tls::End;

mod ends;

use ends::{Input, Output};

/// The stdin and stdout of this process.
///
/// Some are read and written by threads, and a thread that waits for stdin cannot be called back: who uses this
/// must end the process without waiting for it.
#[derive(Debug)]
pub(super) struct Stdio<'a> {
    stdin: Input,
    stdout: Output,
    /// Set once stdin has ended.
    input_ended: &'a AtomicBool,
    /// Whether the end of the output is the end of the input too.
    ends_together: bool,
    over: Option<Over>,
    /// Told once the reader of stdout has gone: what still comes is thrown away.
    reader_gone: &'a Notify,
    discarding: bool,
}

/// Why nothing more is written to stdout.
#[derive(Debug)]
pub(super) enum Over {
    /// The peer has ended its direction.
    Peer(End),
    /// stdout failed, and not because its reader has gone.
    Output(io::Error),
}

impl<'a> Stdio<'a> {
    /// `input_ended` is set once stdin has ended, `reader_gone` is told once nobody reads stdout any more.
    pub(super) fn new(input_ended: &'a AtomicBool, reader_gone: &'a Notify) -> Self {
        Self {
            stdin: Input::open(),
            stdout: Output::open(),
            input_ended,
            // A person sees that it is over, and should not have to press a key to be believed. Where stdout cannot be
            // closed, the other program learns of the end from the end of this one.
            ends_together: cfg!(not(unix)) || io::stdin().is_terminal(),
            over: None,
            reader_gone,
            discarding: false,
        }
    }

    /// Why nothing more is written to stdout; `None` while something may be.
    pub(super) fn into_over(self) -> Option<Over> {
        self.over
    }

    /// Sets the end of the output, and lets the other direction see what it means for the input.
    fn end(&mut self, over: Over, cx: &Context<'_>) {
        self.over.get_or_insert(over);
        cx.waker().wake_by_ref();
    }

    /// What `done` says of stdout: `otherwise` when its reader has gone, and any other failure is remembered.
    fn watch<T>(&mut self, done: io::Result<T>, otherwise: T, cx: &Context<'_>) -> io::Result<T> {
        match done {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.discarding = true;
                self.reader_gone.notify_one();
                Ok(otherwise)
            }
            Err(error) => {
                let kind = error.kind();
                self.end(Over::Output(error), cx);
                Err(kind.into())
            }
            done => done,
        }
    }
}

impl Stream for Stdio<'_> {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<Option<End>>> {
        let is_over = match &self.over {
            // Nobody is left who could take an answer.
            Some(Over::Output(_) | Over::Peer(End::Truncated)) => {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            Some(Over::Peer(End::Clean)) => self.ends_together,
            None => false,
        };
        if is_over {
            return Poll::Ready(Ok(Some(End::Clean)));
        }
        let count = ready!(self.stdin.poll_take(cx, take))?;
        if count == 0 {
            self.input_ended.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok((count == 0).then_some(End::Clean)))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.discarding {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = ready!(self.stdout.poll_write(cx, buf));
        Poll::Ready(self.watch(written, buf.len(), cx))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.discarding {
            return Poll::Ready(Ok(()));
        }
        let flushed = ready!(self.stdout.poll_flush(cx));
        Poll::Ready(self.watch(flushed, (), cx))
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>, end: End, _: bool) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        let closed = self.stdout.close();
        self.watch(closed, (), cx)?;
        self.end(Over::Peer(end), cx);
        Poll::Ready(Ok(()))
    }
}
