//! One direction of a relay: what was read is written on, or moved by the kernel, and only what the sink does not take is kept.

use std::io;
use std::task::{Context, Poll, ready};

use super::Stream;
use crate::net::session::Tally;
use crate::net::splice::Pipe;
use crate::tls::End;

/// How often one direction moves bytes before others get their turn.
pub(super) const MOVES_PER_TURN: usize = 16;

/// A read of so many bytes is followed by another, most likely: the kernel is asked to move what comes next.
///
/// 32 KiB: less costs the same either way, and a session of keystrokes never takes a pipe.
const BULK: usize = 32 * 1024;

/// One direction of a relay.
#[derive(Debug, Default)]
pub(super) struct Direction {
    phase: Phase,
    /// What the sink did not take yet; empty while the direction keeps up.
    held: Vec<u8>,
    /// How much of `held` is gone.
    gone: usize,
    /// What the kernel moves bytes through, while they flow.
    pipe: Option<Pipe>,
    /// The last read was a large one.
    bulk: bool,
    /// The kernel has refused to move bytes, and is not asked again.
    copies: bool,
    /// The first bytes that were read, whatever was read with them.
    opening: [u8; 4],
    /// The source has ended without saying so.
    cut_off: bool,
    /// How the source broke off, while what came from it before is still to be delivered.
    broken_off: Option<io::Error>,
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
pub(super) enum Broken {
    Source(io::Error),
    Sink(io::Error),
}

impl Direction {
    /// A direction whose first bytes are there already.
    pub(super) fn holding(held: Vec<u8>) -> Self {
        Self {
            held,
            ..Self::default()
        }
    }

    /// `other` is the way back. A write there may have met a reset of the source: the kernel tells of one only once, and
    /// a read then says that all is at its end.
    pub(super) fn poll<S: Stream, K: Stream>(
        &mut self,
        source: &mut S,
        sink: &mut K,
        other: &Self,
        tally: &mut Tally,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        for _ in 0..MOVES_PER_TURN {
            match self.phase {
                Phase::Ended => return Poll::Ready(Ok(())),
                Phase::Ending(end) => {
                    ready!(self.poll_held(sink, tally, cx)).map_err(Broken::Sink)?;
                    // A sink that is gone already cannot be told; its own direction says why.
                    let _ = ready!(sink.poll_shutdown(cx, end, other.phase == Phase::Ended));
                    self.phase = Phase::Ended;
                }
                Phase::Moving => {
                    ready!(self.poll_held(sink, tally, cx)).map_err(|e| self.broken_by(e))?;
                    ready!(sink.poll_flush(cx)).map_err(|e| self.broken_by(e))?;
                    if let Some(e) = self.broken_off.take() {
                        return Poll::Ready(Err(Broken::Source(e)));
                    }
                    match ready!(self.poll_move(source, sink, tally, cx))? {
                        Some(_) if other.met_reset() => {
                            let reset = io::ErrorKind::ConnectionReset.into();
                            return Poll::Ready(Err(Broken::Source(reset)));
                        }
                        Some(end) => {
                            self.cut_off = end == End::Truncated;
                            self.phase = Phase::Ending(end);
                        }
                        None => {}
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The sink is gone. What comes from it may still be on its way, so only this direction ends.
    pub(super) fn fail(&mut self, error: io::Error) {
        *self = Self {
            phase: Phase::Ended,
            failure: Some(error),
            ..Self::default()
        };
    }

    /// Whether something is to be written that the sink does not take.
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty() || self.pipe.as_ref().is_some_and(|pipe| pipe.held() > 0)
    }

    /// What the source said first, if it was copied here; zeroes where it was not.
    pub(super) fn opening(&self) -> [u8; 4] {
        self.opening
    }

    /// Whether the sink is gone.
    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Why it ended early, if it did.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// Whether the source has said that no more is to come.
    pub(super) fn source_ended(&self) -> bool {
        self.phase != Phase::Moving && !self.has_failed()
    }

    /// Whether the source has ended without saying so, and the sink was left to see that.
    pub(super) fn was_cut_off(&self) -> bool {
        self.cut_off
    }

    /// Whether the sink was reset before it had ended its own direction: after a FIN the kernel says EPIPE instead.
    fn met_reset(&self) -> bool {
        (self.failure.as_ref()).is_some_and(|e| e.kind() == io::ErrorKind::ConnectionReset)
    }

    /// What a sink's error means: where the source has broken off before, that is why it ended.
    fn broken_by(&mut self, sink: io::Error) -> Broken {
        let source = self.broken_off.take();
        source.map_or(Broken::Sink(sink), Broken::Source)
    }

    /// Moves what is there, once; tells how the source has ended, once it has. Nothing is held for one that is silent.
    fn poll_move<S: Stream, K: Stream>(
        &mut self,
        source: &mut S,
        sink: &mut K,
        tally: &mut Tally,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<End>, Broken>> {
        if self.bulk
            && !self.copies
            && let (Some(from), Some(_)) = (source.plain(), sink.plain())
        {
            self.pipe = self.pipe.take().or_else(Pipe::take);
            if let Some(pipe) = &mut self.pipe {
                let filled = pipe.poll_fill(from, cx);
                self.bulk = matches!(filled, Poll::Ready(Ok(BULK..)));
                match filled {
                    Poll::Ready(Ok(0)) => {
                        // The other direction may go on for long.
                        self.pipe = None;
                        return Poll::Ready(Ok(Some(End::Clean)));
                    }
                    Poll::Ready(Ok(_)) => return Poll::Ready(Ok(None)),
                    Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::Unsupported => {
                        self.copies = true;
                    }
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(Broken::Source(e))),
                    Poll::Pending => {}
                }
            }
        }
        self.pipe = None;
        self.poll_copy(source, sink, tally, cx)
    }

    /// Reads once into a buffer of the thread's and writes what the sink takes; only the rest is kept.
    fn poll_copy<S: Stream, K: Stream>(
        &mut self,
        source: &mut S,
        sink: &mut K,
        tally: &mut Tally,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<End>, Broken>> {
        let waker = cx.waker();
        let mut broken = None;
        let mut moved = 0;
        let opening = (tally.bytes() == 0 && !self.holds()).then_some(&mut self.opening);
        let mut opening = opening.into_iter().flatten();
        let mut take = |mut piece: &[u8]| {
            moved += piece.len();
            for (place, byte) in opening.by_ref().zip(piece) {
                *place = *byte;
            }
            while self.held.is_empty() && broken.is_none() && !piece.is_empty() {
                match sink.poll_write(&mut Context::from_waker(waker), piece) {
                    Poll::Ready(Ok(0)) => broken = Some(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(Ok(n)) => {
                        tally.add(n);
                        piece = piece.get(n..).unwrap_or_default();
                    }
                    Poll::Ready(Err(e)) => broken = Some(e),
                    Poll::Pending => break,
                }
            }
            if broken.is_none() {
                self.held.extend_from_slice(piece);
            }
        };
        let received = source.poll_receive(&mut Context::from_waker(waker), &mut take);
        self.bulk = moved >= BULK;
        if let Some(e) = broken {
            return Poll::Ready(Err(Broken::Sink(e)));
        }
        Poll::Ready(Ok(ready!(received).unwrap_or_else(|e| {
            self.broken_off = Some(e);
            None
        })))
    }

    /// Writes what the sink did not take before.
    fn poll_held<K: Stream>(
        &mut self,
        sink: &mut K,
        tally: &mut Tally,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if let (Some(pipe), Some(to)) = (&mut self.pipe, sink.plain()) {
            while pipe.held() > 0 {
                tally.add(ready!(pipe.poll_drain(to, cx))?);
            }
        }
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
}
