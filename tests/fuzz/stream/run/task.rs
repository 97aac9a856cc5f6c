//! What the task does with its stream, and what it may expect of each call.

use std::io::{self, ErrorKind};
use std::task::{Context, Poll};

use portcullis::tls::End;
use portcullis::tls::records::{CHUNK, FULL_RECORD};

use super::{Run, Side, turn, words};

/// How much is read at once at most.
const READ: usize = 4 * FULL_RECORD + CHUNK;

impl Run {
    /// As a relay does it when it is woken.
    pub(super) fn attend(&mut self) {
        for _ in 0..16 {
            if !self.receive() {
                break;
            }
        }
        while self.wanted > 0 && self.write() {}
        self.flush();
        self.shutdown();
        let more = self.ended.is_none() && self.unread.is_none() && !self.reading;
        if more && matches!(self.side, Side::Open(_)) {
            self.waker.wake_by_ref();
        }
    }

    pub(super) fn has_to_write(&self) -> bool {
        let flushed = self
            .promised
            .back()
            .is_none_or(|(_, words)| *words == self.sealed);
        self.unwritten.is_none()
            && (self.wanted > 0 || !flushed || self.closing.is_some() && !self.closed)
    }

    /// Polls the handshake, or asks for what has come; tells whether there may be more at once.
    pub(super) fn receive(&mut self) -> bool {
        let mut cx = Context::from_waker(&self.waker);
        let stream = match &mut self.side {
            Side::Greeting(greeting) => {
                match greeting.as_mut().poll(&mut cx) {
                    Poll::Pending => return false,
                    Poll::Ready(Ok(stream)) => self.side = Side::Open(stream),
                    Poll::Ready(Err(failed)) => {
                        let gone = self.peer_ended || !self.link.is_whole();
                        assert!(self.touched || gone, "the handshake: {}", failed.error);
                        self.side = Side::Failed { _tcp: failed.tcp };
                    }
                }
                return true;
            }
            Side::Open(stream) => stream,
            Side::Failed { .. } => return false,
        };
        // The kernel tells of a reset once, and so does the stream.
        if self.unread == Some(ErrorKind::ConnectionReset) {
            return false;
        }
        let (before, said) = (self.taken, self.said);
        let pulled = self.link.pulled();
        let taken = &mut self.taken;
        let received = stream.poll_receive(&mut cx, &mut |piece| {
            assert!(*taken + piece.len() <= said, "more than was said");
            assert!(piece == words(*taken, piece.len()), "other than was said");
            *taken += piece.len();
        });
        let more = self.taken > before;
        assert!(self.ended.is_none() || !more, "after the end");
        assert!(self.unread.is_none() || !more, "after {:?}", self.unread);
        assert!(self.taken - before <= READ && self.link.pulled() - pulled <= READ);
        self.reading = received.is_pending();
        match received {
            Poll::Pending => {
                assert!(self.ended.is_none() && self.unread.is_none(), "no end");
                if self.link.pulled() < self.link.sent() {
                    // What came after the runtime has last looked is still to be told.
                    turn();
                    assert!(self.woken.is(), "nobody is told of what is there");
                } else {
                    let all = self.taken >= self.arrived();
                    assert!(self.touched || all, "it is kept back");
                }
            }
            Poll::Ready(Ok(end)) => {
                assert!(self.unread.is_none(), "no way back from {:?}", self.unread);
                assert!(self.ended.is_none() || self.ended == end, "another end");
                self.ended = end;
                match end {
                    Some(End::Clean) => {
                        assert!(
                            self.touched || self.peer_closed.is_some(),
                            "no close_notify"
                        );
                        assert!(self.touched || self.taken == self.said, "not yet");
                    }
                    Some(End::Truncated) => {
                        assert!(self.peer_ended || !self.link.is_whole(), "no end");
                        assert!(self.touched || self.taken >= self.arrived(), "not yet");
                        let all = self.peer_closed.is_some_and(|at| self.is_sent(at));
                        assert!(self.touched || !all, "a close_notify was passed over");
                    }
                    None => return true,
                }
            }
            Poll::Ready(Err(error)) => {
                self.is_due(&error);
                assert!(self.ended.is_none(), "{error} after an end");
                self.unread = Some(error.kind());
            }
        }
        false
    }

    /// Tells whether more can be written at once.
    pub(super) fn write(&mut self) -> bool {
        let Side::Open(stream) = &mut self.side else {
            return false;
        };
        let mut cx = Context::from_waker(&self.waker);
        let wrote = stream.poll_write(&mut cx, &words(self.sealed, self.wanted));
        self.writing = wrote.is_pending();
        match wrote {
            Poll::Pending => {
                assert!(self.unwritten.is_none(), "no way back");
                false
            }
            Poll::Ready(Ok(taken)) => {
                assert!(
                    self.unwritten.is_none(),
                    "written after {:?}",
                    self.unwritten
                );
                assert_eq!(taken, self.wanted.min(CHUNK));
                // No more than one write is held.
                self.promise();
                self.sealed += taken;
                self.wanted -= taken;
                true
            }
            Poll::Ready(Err(error)) => {
                self.break_off(&error);
                false
            }
        }
    }

    pub(super) fn flush(&mut self) {
        let Side::Open(stream) = &mut self.side else {
            return;
        };
        if self.closing.is_some() || self.wanted > 0 {
            return;
        }
        let mut cx = Context::from_waker(&self.waker);
        let flushed = stream.poll_flush(&mut cx);
        self.writing = flushed.is_pending();
        match flushed {
            Poll::Pending => assert!(self.unwritten.is_none(), "no way back"),
            Poll::Ready(Ok(())) => {
                assert!(
                    self.unwritten.is_none(),
                    "flushed after {:?}",
                    self.unwritten
                );
                self.promise();
            }
            Poll::Ready(Err(error)) => self.break_off(&error),
        }
    }

    pub(super) fn shutdown(&mut self) {
        let Side::Open(stream) = &mut self.side else {
            return;
        };
        let Some(end) = self.closing.filter(|_| self.wanted == 0 && !self.closed) else {
            return;
        };
        if self.unwritten.is_some() {
            return;
        }
        let mut cx = Context::from_waker(&self.waker);
        let shut = stream.poll_shutdown(&mut cx, end);
        self.writing = shut.is_pending();
        match shut {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => {
                self.closed = true;
                self.promise();
            }
            Poll::Ready(Err(error)) => self.break_off(&error),
        }
    }

    /// All that was taken is in the kernel.
    fn promise(&mut self) {
        let arrived = self.link.arrived();
        assert!(
            arrived >= self.sealed || !self.link.is_whole(),
            "it is held"
        );
        self.promised.push_back((arrived, self.sealed));
    }

    fn break_off(&mut self, error: &io::Error) {
        self.is_due(error);
        self.unwritten = Some(error.kind());
        self.wanted = 0;
    }

    /// Where nobody meddles, nothing fails but by the peer's leaving or by keys that are worn out.
    fn is_due(&self, error: &io::Error) {
        let due = match error.kind() {
            ErrorKind::InvalidData => self.touched || self.is_worn(),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => !self.link.is_whole(),
            _ => false,
        };
        assert!(due || self.unwritten == Some(error.kind()), "{error}");
    }

    pub(super) fn is_worn(&self) -> bool {
        self.setting.old && self.setting.worn
    }
}
