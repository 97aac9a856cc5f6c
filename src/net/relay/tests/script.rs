//! A stream that does what a test has written down.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll};

use tokio::net::TcpStream;

use super::super::{Socket, Stream};
use crate::tls::End;

/// How much it hands over at a time.
pub(super) const CHUNK: usize = 64 * 1024;

/// What a stream does when it is asked for something; each step once.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Bytes that can be read, or room for so many to be written.
    Bytes(usize),
    /// Not now; the waker is called at once.
    Pause,
    /// Not now, and nobody is woken: the test goes on by hand.
    Stop,
    /// This error, once; after it every read is an end.
    Fails(io::ErrorKind),
}

/// A stream that follows a script: after its steps a reader is at its end, and a writer takes everything.
#[derive(Default)]
pub(super) struct Script {
    reads: VecDeque<Step>,
    writes: VecDeque<Step>,
    pub(super) sent: u64,
    pub(super) received: Vec<u8>,
    pub(super) ended: Option<End>,
    pub(super) was_reset: Cell<bool>,
    pub(super) polls: usize,
    pub(super) largest_write: usize,
}

impl Script {
    pub(super) fn new(
        reads: impl IntoIterator<Item = Step>,
        writes: impl IntoIterator<Item = Step>,
    ) -> Self {
        Self {
            reads: reads.into_iter().collect(),
            writes: writes.into_iter().collect(),
            ..Self::default()
        }
    }

    pub(super) fn all(reads: &[Step]) -> Vec<u8> {
        let sizes = reads.iter().map(|step| match step {
            Step::Bytes(count) => *count,
            _ => 0,
        });
        (0..sizes.sum::<usize>() as u64).map(byte).collect()
    }
}

/// The byte at a place of what every script sends.
pub(super) fn byte(place: u64) -> u8 {
    (place % 251) as u8
}

impl Stream for Script {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<Option<End>>> {
        self.polls += 1;
        match self.reads.pop_front() {
            None => Poll::Ready(Ok(Some(End::Clean))),
            Some(Step::Bytes(count)) => {
                let read = count.min(CHUNK);
                let piece: Vec<u8> = (self.sent..).take(read).map(byte).collect();
                self.sent += read as u64;
                take(&piece);
                if read < count {
                    self.reads.push_front(Step::Bytes(count - read));
                }
                Poll::Ready(Ok(None))
            }
            Some(Step::Fails(io::ErrorKind::UnexpectedEof)) => {
                Poll::Ready(Ok(Some(End::Truncated)))
            }
            Some(Step::Fails(kind)) => Poll::Ready(Err(kind.into())),
            Some(Step::Pause) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Step::Stop) => {
                self.reads.push_front(Step::Stop);
                Poll::Pending
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.polls += 1;
        self.largest_write = self.largest_write.max(buf.len());
        let room = match self.writes.pop_front() {
            None => buf.len(),
            Some(Step::Bytes(room)) => room.max(1),
            Some(Step::Pause) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Step::Stop) => {
                self.writes.push_front(Step::Stop);
                return Poll::Pending;
            }
            Some(Step::Fails(kind)) => return Poll::Ready(Err(kind.into())),
        };
        let taken = room.min(buf.len());
        self.received.extend_from_slice(&buf[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(&mut self, _: &mut Context<'_>, end: End, _: bool) -> Poll<io::Result<()>> {
        assert_eq!(self.ended, None, "ended twice");
        self.ended = Some(end);
        Poll::Ready(Ok(()))
    }
}

impl Socket for Script {
    fn reset(&self) {
        self.was_reset.set(true);
    }

    fn into_tcp(self) -> TcpStream {
        unreachable!("there is no socket")
    }
}
