//! TLS to a gateway that may have promised a status: then its first bytes are the gateway's own word, and those behind it the target's.

use std::io;
use std::task::{Context, Poll};

use super::frame::{Decoder, Frame, FrameError, Refusal};
use super::relay;
use crate::tls::options::PORTCULLIS;
use crate::tls::{self, End};

/// TLS whose status may be still to come. What goes up does not wait for it.
#[derive(Debug)]
pub struct Promised {
    tls: Box<tls::Stream>,
    /// Until it has come.
    awaited: Option<Decoder>,
}

/// What comes in place of the target's bytes, as a relay hears it.
#[derive(Debug, thiserror::Error)]
pub enum Unkept {
    /// The gateway has no way to the target.
    #[error("the gateway says: {0}")]
    Refused(Refusal),
    /// It says what is no status.
    #[error("the gateway has promised a status, and sends none: {0}")]
    Bad(FrameError),
    /// It says nothing.
    #[error("the gateway has promised a status, and ended without one")]
    Silent,
}

impl Unkept {
    /// What an error of the stream is, if it is such a one.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl Promised {
    /// The handshake has just ended. The promise is `portcullis/1`, agreed on.
    pub fn new(tls: Box<tls::Stream>) -> Self {
        let is_promised = tls.agreed().alpn_protocol() == Some(PORTCULLIS);
        Self {
            tls,
            awaited: is_promised.then(Decoder::default),
        }
    }

    /// Whether the status is still to come.
    pub fn is_awaited(&self) -> bool {
        self.awaited.is_some()
    }

    /// The TLS beneath.
    pub fn tls(&self) -> &tls::Stream {
        &self.tls
    }

    /// The TLS beneath, to write to it or to end it.
    pub fn tls_mut(&mut self) -> &mut tls::Stream {
        &mut self.tls
    }

    /// The TLS beneath, alone.
    pub fn into_tls(self) -> Box<tls::Stream> {
        self.tls
    }

    /// Receives once, as [`relay::Stream`] does. A status alone gives no bytes.
    ///
    /// # Errors
    /// The stream's, or an [`Unkept`].
    pub fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<Option<End>>> {
        let Self { tls, awaited } = self;
        let mut unkept = None;
        let received = relay::Stream::poll_receive(&mut **tls, cx, &mut |bytes| {
            if unkept.is_some() {
                return;
            }
            let Some(decoder) = awaited.as_mut() else {
                return take(bytes);
            };
            match decoder.take(bytes) {
                Ok((None, _)) => {}
                Ok((Some(Frame::Ok), taken)) => {
                    *awaited = None;
                    match bytes.get(taken..) {
                        None | Some([]) => {}
                        Some(behind) => take(behind),
                    }
                }
                Ok((Some(Frame::Failed(refusal)), _)) => unkept = Some(Unkept::Refused(refusal)),
                Err(error) => unkept = Some(Unkept::Bad(error)),
            }
        });
        match (unkept, &received) {
            (Some(unkept), _) => Poll::Ready(Err(io::Error::other(unkept))),
            (None, Poll::Ready(Ok(Some(_)))) if self.awaited.is_some() => {
                Poll::Ready(Err(io::Error::other(Unkept::Silent)))
            }
            (None, _) => received,
        }
    }
}
