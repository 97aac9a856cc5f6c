//! The relay: bytes both ways between two streams, each direction ending on its own.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::session::Tally;
use crate::tls::End;

/// How much is moved at a time.
///
/// 64 KiB: four full TLS records; larger reads gained nothing on loopback. One such buffer exists per thread, not per connection.
const CHUNK: usize = 64 * 1024;

/// How many chunks one direction moves before others get their turn.
const CHUNKS_PER_TURN: usize = 16;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into_boxed_slice());
}

/// What a relay moves bytes between: it says that it is readable before a buffer is taken.
pub trait Stream {
    /// Ready when [`try_read`](Self::try_read) may have something to say.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Reads what is there. `Ok(0)` is the end, `UnexpectedEof` an end that TLS had not announced, `WouldBlock` not yet.
    fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize>;
    /// Takes bytes; ready with how many.
    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>>;
    /// Ready when the bytes taken are in the kernel.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Ends the direction towards this stream; the other stays open.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>, end: End) -> Poll<io::Result<()>>;
}

/// A stream over TCP, as every one is but a program's stdin and stdout.
pub trait Socket: Stream {
    /// Makes the coming close a reset, so that the peer cannot take it for an ordinary end.
    fn reset(&self);
    /// The socket, for a close that lets the last words arrive.
    fn into_tcp(self) -> TcpStream;
}

/// When a relay gives up.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Without a byte in either direction; `None` is for ever.
    pub idle: Option<Duration>,
    /// Without a byte after one direction has ended.
    pub half_closed: Duration,
}

/// What became of a relay.
#[derive(Debug)]
pub struct Relayed {
    /// How it ended.
    pub outcome: Outcome,
    /// The upstream was the first to end or break off, and nothing had come from it since the client's first byte went up.
    pub unanswered: bool,
}

/// How a relay ended.
#[derive(Debug)]
pub enum Outcome {
    /// Both directions ended, each after its last byte.
    Closed,
    /// The client broke off.
    ClientFailed(io::Error),
    /// The upstream broke off.
    UpstreamFailed(io::Error),
    /// Silence in both directions.
    Idle,
    /// Silence after one direction had ended.
    HalfClosed,
}

/// Relays until both directions have ended, one side breaks off, or patience does. `early` goes up first: what the
/// client sent before the upstream was there.
///
/// An end in one direction is passed on and leaves the other alone (RFC 9293 §3.6, RFC 8446 §6.1). Dropping the
/// future stops at once; what was moved until then stands in the tallies.
pub async fn relay<C: Stream, U: Socket>(
    client: &mut C,
    upstream: &mut U,
    early: Vec<u8>,
    patience: Patience,
    up_tally: &mut Tally,
    down_tally: &mut Tally,
) -> Relayed {
    let mut up = Direction {
        held: early,
        ..Direction::default()
    };
    let mut down = Direction::default();
    let mut timer = Timer::default();
    let mut upload = Upload {
        upstream,
        delivered: false,
    };
    let mut answer = Answer::default();
    let outcome = poll_fn(|cx| {
        let upstream = &mut *upload.upstream;
        let before = up_tally.bytes() + down_tally.bytes();
        let up_done = match up.poll(client, upstream, down.met_reset(), up_tally, cx) {
            Poll::Ready(Err(Broken::Source(e))) => return Poll::Ready(Outcome::ClientFailed(e)),
            Poll::Ready(Err(Broken::Sink(e))) => {
                up.fail(e);
                true
            }
            Poll::Ready(Ok(())) => {
                upload.delivered = up.failure.is_none();
                true
            }
            Poll::Pending => false,
        };
        answer.went_up(up_tally, down_tally);
        let polled = down.poll(upstream, client, up.met_reset(), down_tally, cx);
        if down.source_ended() || matches!(polled, Poll::Ready(Err(Broken::Source(_)))) {
            answer.upstream_ended(!up.source_ended(), down_tally);
        }
        let down_done = match polled {
            Poll::Ready(Err(Broken::Source(e))) => return Poll::Ready(Outcome::UpstreamFailed(e)),
            Poll::Ready(Err(Broken::Sink(e))) => {
                down.fail(e);
                true
            }
            Poll::Ready(Ok(())) => true,
            Poll::Pending => false,
        };
        if up_done && down_done {
            return Poll::Ready(match (up.failure.take(), down.failure.take()) {
                (_, Some(e)) => Outcome::ClientFailed(e),
                (Some(e), None) => Outcome::UpstreamFailed(e),
                (None, None) => Outcome::Closed,
            });
        }
        let half = up_done || down_done;
        let limit = if half {
            Some(patience.half_closed)
        } else {
            patience.idle
        };
        let moved = before != up_tally.bytes() + down_tally.bytes();
        ready!(timer.poll(limit, moved, half, cx));
        Poll::Ready(if half {
            Outcome::HalfClosed
        } else {
            Outcome::Idle
        })
    })
    .await;
    Relayed {
        outcome,
        unanswered: answer.is_missing(),
    }
}

/// Whether the upstream has said anything since the client first did.
#[derive(Default)]
struct Answer {
    /// What had come down when the client's first byte went up.
    before: Option<u64>,
    /// Whether the upstream owed one when it ended; `None` while it has not.
    missing: Option<bool>,
}

impl Answer {
    fn went_up(&mut self, up: &Tally, down: &Tally) {
        if up.bytes() > 0 {
            self.before.get_or_insert(down.bytes());
        }
    }

    fn upstream_ended(&mut self, client_is_open: bool, down: &Tally) {
        let missing = client_is_open && self.before == Some(down.bytes());
        self.missing.get_or_insert(missing);
    }

    fn is_missing(&self) -> bool {
        self.missing == Some(true)
    }
}

/// Resets the upstream's connection unless the client's direction came to its end: when the client broke off, when
/// patience did, and when the relay is dropped in the middle.
///
/// A plain upstream must not take half an upload for a whole one. The other way round a reset could cost the
/// client bytes that are still on their way, and TLS tells it of the missing end anyway.
struct Upload<'a, U: Socket> {
    upstream: &'a mut U,
    delivered: bool,
}

impl<U: Socket> Drop for Upload<'_, U> {
    fn drop(&mut self) {
        if !self.delivered {
            self.upstream.reset();
        }
    }
}

/// One direction of a relay.
#[derive(Debug, Default)]
struct Direction {
    phase: Phase,
    /// What the sink did not take yet; empty while the direction keeps up.
    held: Vec<u8>,
    /// How much of `held` is gone.
    gone: usize,
    /// Why it ended early, while the other direction may still have bytes to bring.
    failure: Option<io::Error>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Moving,
    Ending(End),
    Ended,
}

/// Which end of a direction broke.
enum Broken {
    Source(io::Error),
    Sink(io::Error),
}

impl Direction {
    /// `was_reset` says that a write to the source has met a reset. The kernel tells of one only once, and a read
    /// then says that all is at its end.
    fn poll<S: Stream, K: Stream>(
        &mut self,
        source: &mut S,
        sink: &mut K,
        was_reset: bool,
        tally: &mut Tally,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        for _ in 0..CHUNKS_PER_TURN {
            match self.phase {
                Phase::Ended => return Poll::Ready(Ok(())),
                Phase::Ending(end) => {
                    ready!(self.poll_held(sink, tally, cx)).map_err(Broken::Sink)?;
                    // A sink that is gone already cannot be told; its own direction says why.
                    let _ = ready!(sink.poll_shutdown(cx, end));
                    self.phase = Phase::Ended;
                }
                Phase::Moving => {
                    ready!(self.poll_held(sink, tally, cx)).map_err(Broken::Sink)?;
                    ready!(sink.poll_flush(cx)).map_err(Broken::Sink)?;
                    ready!(source.poll_readable(cx)).map_err(Broken::Source)?;
                    self.move_chunk(source, sink, tally, cx)?;
                    if was_reset && matches!(self.phase, Phase::Ending(_)) {
                        let reset = io::ErrorKind::ConnectionReset.into();
                        return Poll::Ready(Err(Broken::Source(reset)));
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once into the thread's buffer and writes what the sink takes; only the rest is kept.
    fn move_chunk<S: Stream, K: Stream>(
        &mut self,
        source: &mut S,
        sink: &mut K,
        tally: &mut Tally,
        cx: &mut Context<'_>,
    ) -> Result<(), Broken> {
        BUFFER.with_borrow_mut(|buffer| {
            let read = match source.try_read(buffer) {
                Ok(0) => {
                    self.phase = Phase::Ending(End::Clean);
                    return Ok(());
                }
                Ok(n) => n,
                Err(e) => match e.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => return Ok(()),
                    io::ErrorKind::UnexpectedEof => {
                        self.phase = Phase::Ending(End::Truncated);
                        return Ok(());
                    }
                    _ => return Err(Broken::Source(e)),
                },
            };
            let mut rest = buffer.get(..read).unwrap_or_default();
            while !rest.is_empty() {
                match sink.poll_write(cx, rest) {
                    Poll::Ready(Ok(0)) => {
                        return Err(Broken::Sink(io::ErrorKind::WriteZero.into()));
                    }
                    Poll::Ready(Ok(n)) => {
                        tally.add(n);
                        rest = rest.get(n..).unwrap_or_default();
                    }
                    Poll::Ready(Err(e)) => return Err(Broken::Sink(e)),
                    Poll::Pending => {
                        self.held = rest.to_vec();
                        self.gone = 0;
                        break;
                    }
                }
            }
            Ok(())
        })
    }

    fn poll_held<K: Stream>(
        &mut self,
        sink: &mut K,
        tally: &mut Tally,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = self.held.get(self.gone..).filter(|rest| !rest.is_empty()) {
            let n = ready!(sink.poll_write(cx, rest))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            tally.add(n);
            self.gone += n;
        }
        if !self.held.is_empty() {
            self.held = Vec::new();
            self.gone = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// The sink is gone. What comes from it may still be on its way, so only this direction ends.
    fn fail(&mut self, error: io::Error) {
        self.phase = Phase::Ended;
        self.held = Vec::new();
        self.failure = Some(error);
    }

    /// Whether the source has said that no more is to come.
    fn source_ended(&self) -> bool {
        self.phase != Phase::Moving && self.failure.is_none()
    }

    /// Whether the sink was reset before it had ended its own direction: after a FIN the kernel says EPIPE instead.
    fn met_reset(&self) -> bool {
        (self.failure.as_ref()).is_some_and(|e| e.kind() == io::ErrorKind::ConnectionReset)
    }
}

/// A timer that exists only while there is a limit.
#[derive(Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    last: Option<Instant>,
    half: bool,
}

impl Timer {
    /// Ready when nothing has moved for `limit`. `half` starts the count anew when it changes.
    fn poll(
        &mut self,
        limit: Option<Duration>,
        moved: bool,
        half: bool,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let Some(limit) = limit else {
            return Poll::Pending;
        };
        let now = Instant::now();
        if moved || half != self.half || self.last.is_none() {
            self.last = Some(now);
        }
        let due = self.last.unwrap_or(now) + limit;
        // A stale timer is left to fire: it costs one wake-up, setting it anew would cost every chunk.
        if half != self.half || self.sleep.is_none() {
            self.half = half;
            self.sleep = Some(Box::pin(tokio::time::sleep_until(due)));
        }
        let Some(sleep) = self.sleep.as_mut() else {
            return Poll::Pending;
        };
        loop {
            ready!(sleep.as_mut().poll(cx));
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
