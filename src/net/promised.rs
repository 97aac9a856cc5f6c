//! TLS to a gateway that may have promised a status: then its first bytes are the gateway's own word, and those behind it the target's.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use super::frame::{Decoder, Frame, FrameError, Refusal};
use super::relay;
use crate::tls::options::PORTCULLIS;
use crate::tls::{self, End};

/// How long a gateway may take for its status where nothing more is said.
///
/// 20 s: it dials meanwhile, by its defaults twice for 5 s; what it says then is better than silence.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// TLS whose status may be still to come. What goes up does not wait for it.
#[derive(Debug)]
pub struct Promised {
    tls: Box<tls::Stream>,
    /// Until it has come; in a box, so that a stream whose status has come keeps nothing of it.
    awaited: Option<Box<Awaited>>,
}

/// What has come of a status, and how long it may take.
#[derive(Debug)]
struct Awaited {
    decoder: Decoder,
    patience: Duration,
    late: Pin<Box<Sleep>>,
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
    /// It says nothing, and ends.
    #[error("the gateway has promised a status, and ended without one")]
    Silent,
    /// It says nothing for so long.
    #[error("the gateway has promised a status, and sends none within {0:?}")]
    Late(Duration),
}

impl Unkept {
    /// What an error of the stream is, if it is such a one.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl Promised {
    /// The handshake has just ended. The promise is `portcullis/1`, agreed on, and is to be kept within `patience`.
    pub fn new(tls: Box<tls::Stream>, patience: Duration) -> Self {
        let is_promised = tls.agreed().alpn_protocol() == Some(PORTCULLIS);
        let awaited = || Awaited {
            decoder: Decoder::default(),
            patience,
            late: Box::pin(sleep(patience)),
        };
        Self {
            tls,
            awaited: is_promised.then(|| Box::new(awaited())),
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
            let Some(waiting) = awaited.as_mut() else {
                return take(bytes);
            };
            match waiting.decoder.take(bytes) {
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
        let unkept = match (unkept, &received, awaited) {
            (Some(unkept), ..) => unkept,
            (None, Poll::Ready(Ok(Some(_))), Some(_)) => Unkept::Silent,
            (None, Poll::Pending, Some(waiting)) => {
                ready!(waiting.late.as_mut().poll(cx));
                Unkept::Late(waiting.patience)
            }
            (None, ..) => return received,
        };
        Poll::Ready(Err(io::Error::other(unkept)))
    }
}
