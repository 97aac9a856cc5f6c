//! The relay: bytes both ways between two streams, each direction ending on its own.

use std::future::{Future, poll_fn};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

mod direction;
mod timer;

use super::session::Tally;
use crate::config::Span;
use crate::metrics::Exceeded;
use crate::tls::End;
use direction::{Broken, Direction};
use timer::{Over, Timer};

/// What a relay moves bytes between.
pub trait Stream {
    /// Reads once, and hands what came to `take`, piece by piece. Ready, perhaps with nothing, with whether the peer has
    /// ended its direction, and how. No buffer is held for a stream that has nothing to say.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<Option<End>>>;
    /// Takes bytes; ready with how many.
    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>>;
    /// Ready when the bytes taken are in the kernel.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Ends the direction towards this stream; the other stays open. It is the `last` to end where the other has ended
    /// already: the stream is dropped next, which sends the FIN.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>, end: End, last: bool)
    -> Poll<io::Result<()>>;
    /// The socket, if its bytes are those of the relay: the kernel can move them by itself.
    fn plain(&self) -> Option<&TcpStream> {
        None
    }
}

/// A stream over TCP, as every one is but a program's stdin and stdout.
pub trait Socket: Stream {
    /// Makes the coming close a reset, so that the peer cannot take it for an ordinary end.
    fn reset(&self);
    /// The socket, for a close that lets the last words arrive.
    fn into_tcp(self) -> TcpStream;
}

/// When a relay gives up.
#[derive(Clone, Debug)]
pub struct Patience {
    /// Without a byte in either direction.
    pub idle: Span,
    /// Without a byte after one direction has ended.
    pub half_closed: Duration,
    /// At this moment, whatever flows; `None` is never.
    pub until: Option<Instant>,
    /// Whether that is the end, or only counted.
    pub ends_then: bool,
    /// Where what is over a limit is counted; once a relay where it goes on.
    pub exceeded: Arc<Exceeded>,
}

impl Patience {
    /// For ever, but for what is half closed.
    pub fn endless(half_closed: Duration) -> Self {
        Self {
            idle: Span::default(),
            half_closed,
            until: None,
            ends_then: true,
            exceeded: Arc::default(),
        }
    }
}

/// What became of a relay.
#[derive(Debug)]
pub struct Relayed {
    /// How it ended.
    pub outcome: Outcome,
    /// The upstream was the first to end or break off, soon after the client's first byte went up, and nothing had come
    /// from it since.
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
    /// It had lasted long enough.
    Lifetime,
    /// Silence after one direction had ended.
    HalfClosed,
}

/// Relays until both directions have ended, one side breaks off, or patience does. `early` goes up first: what the
/// client sent before the upstream was there.
///
/// An end in one direction is passed on and leaves the other alone (RFC 9293 §3.6, RFC 8446 §6.1). Dropping the
/// future stops at once; what was moved until then stands in the tallies.
///
/// Not an `async fn`: such a future holds its arguments twice, and there is one for each tunnel.
pub fn relay<C: Stream, U: Socket>(
    client: &mut C,
    upstream: &mut U,
    early: Vec<u8>,
    patience: &Patience,
    up_tally: &mut Tally,
    down_tally: &mut Tally,
) -> impl Future<Output = Relayed> {
    let mut up = Direction::holding(early);
    let mut down = Direction::default();
    let mut timer = Timer::default();
    let mut upload = Upload {
        upstream,
        delivered: false,
    };
    let mut answer = Answer::default();
    poll_fn(move |cx| {
        let upstream = &mut *upload.upstream;
        let before = up_tally.bytes() + down_tally.bytes();
        let up_done = match up.poll(client, upstream, &down, up_tally, cx) {
            // It leaves because it was shown half an answer.
            Poll::Ready(Err(Broken::Source(_))) if down.was_cut_off() => {
                return answer.at(Outcome::UpstreamFailed(cut_off()));
            }
            Poll::Ready(Err(Broken::Source(e))) => {
                return answer.at(Outcome::ClientFailed(e));
            }
            Poll::Ready(Err(Broken::Sink(e))) => {
                up.fail(e);
                true
            }
            Poll::Ready(Ok(())) => {
                upload.delivered = !up.has_failed();
                true
            }
            Poll::Pending => false,
        };
        answer.went_up(up_tally, down_tally);
        let polled = down.poll(upstream, client, &up, down_tally, cx);
        if down.source_ended() || matches!(polled, Poll::Ready(Err(Broken::Source(_)))) {
            answer.upstream_ended(!up.source_ended(), down.opening(), down_tally);
        }
        let down_done = match polled {
            // And it, because it was shown half a question.
            Poll::Ready(Err(Broken::Source(_))) if up.was_cut_off() => {
                return answer.at(Outcome::ClientFailed(cut_off()));
            }
            Poll::Ready(Err(Broken::Source(e))) => {
                return answer.at(Outcome::UpstreamFailed(e));
            }
            Poll::Ready(Err(Broken::Sink(e))) => {
                down.fail(e);
                true
            }
            Poll::Ready(Ok(())) => true,
            Poll::Pending => false,
        };
        if up_done && down_done {
            return answer.at(match (up.take_failure(), down.take_failure()) {
                (_, Some(e)) => Outcome::ClientFailed(e),
                (Some(e), None) => Outcome::UpstreamFailed(e),
                (None, None) => Outcome::Closed,
            });
        }
        let half = up_done || down_done;
        let moved = before != up_tally.bytes() + down_tally.bytes();
        // Both may have been full: an upstream that waits for the client to read would wait for ever.
        let is_stuck = down.has_failed() && up.holds();
        let half_closed = half.then_some(match is_stuck {
            true => patience.half_closed.min(CLIENT_GONE),
            false => patience.half_closed,
        });
        let over = ready!(timer.poll(patience, moved, half_closed, cx));
        answer.at(match (over, down.take_failure()) {
            (Over::Age, _) => Outcome::Lifetime,
            (Over::Silence, Some(e)) if is_stuck => Outcome::ClientFailed(e),
            (Over::Silence, _) if half => Outcome::HalfClosed,
            (Over::Silence, _) => Outcome::Idle,
        })
    })
}

/// What the one has done whose end made the other leave.
fn cut_off() -> io::Error {
    let what = "tls ended without close_notify, and the other side left";
    io::Error::new(io::ErrorKind::UnexpectedEof, what)
}

/// How long an upstream may take none of what a client has said who is gone.
///
/// 10 s: it is there, and may be busy; nobody is left to whom its answer would matter.
const CLIENT_GONE: Duration = Duration::from_secs(10);

/// An upstream that ends later than this after the client's first byte has not ended at it.
///
/// 5 s: a sidecar decides at that byte, and its end is here within a round trip; what takes longer is a service that waited
/// for more, or took what it was sent and had nothing to say.
const AT_THE_FIRST_BYTE: Duration = Duration::from_secs(5);

/// What an SSH server says whoever its client is, in a line of at most so many bytes (RFC 4253 §4.2): no answer, though it
/// may come when the client, which speaks at once too, has been heard already.
const BANNER: [u8; 4] = *b"SSH-";
const BANNER_AT_MOST: u64 = 255;

/// Whether the upstream has said anything since the client first did.
#[derive(Default)]
struct Answer {
    /// When the client's first byte went up, and what had come down by then.
    before: Option<(Instant, u64)>,
    /// Whether the upstream owed one when it ended; `None` while it has not.
    missing: Option<bool>,
}

impl Answer {
    fn went_up(&mut self, up: &Tally, down: &Tally) {
        if up.bytes() > 0 {
            self.before
                .get_or_insert_with(|| (Instant::now(), down.bytes()));
        }
    }

    fn upstream_ended(&mut self, client_is_open: bool, opening: [u8; 4], down: &Tally) {
        self.missing.get_or_insert_with(|| {
            let soon = |since: Instant| since.elapsed() < AT_THE_FIRST_BYTE;
            client_is_open
                && (self.before).is_some_and(|(since, before)| {
                    let is_banner = opening == BANNER && down.bytes() <= BANNER_AT_MOST;
                    (before == down.bytes() || is_banner) && soon(since)
                })
        });
    }

    /// The end of the relay.
    fn at(&self, outcome: Outcome) -> Poll<Relayed> {
        Poll::Ready(Relayed {
            outcome,
            unanswered: self.missing == Some(true),
        })
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
