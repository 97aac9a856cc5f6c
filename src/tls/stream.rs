//! A TLS connection over TCP, read and written when it is ready, so that no buffer is held by an idle one.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::net::SendFlags;
use rustls::server::AcceptedAlert;
use rustls::{ClientConfig, CommonState, InvalidMessage, ProtocolVersion, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::records::{CHUNK, FULL_RECORD, Records, SEALED};
use super::refusal::describe;

/// How much ciphertext is read at a time, with what was left over before: four full records, so that a peer that sends
/// such leaves nothing over.
const READ: usize = 4 * FULL_RECORD;

/// How much of a handshake's last flight may wait for the first words behind it.
///
/// 4 KiB: a client's certificate with its chain, or a ticket. A larger one goes at once.
const HELD: usize = 4096;

thread_local! {
    /// Ciphertext that came, decrypted in place: a read, behind as much of one handshake message.
    static OPENED: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ + CHUNK].into_boxed_slice());
    /// What came of it.
    static PLAIN: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(CHUNK));
    /// Ciphertext that goes.
    static SEALING: RefCell<Box<[u8]>> = RefCell::new(vec![0; SEALED].into_boxed_slice());
}

/// A TLS connection over TCP, after its handshake.
///
/// Nothing but this type knows how the records are made. Buffers belong to the thread: a connection holds only what is
/// left over, half a record or what its peer does not take.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
    records: Records,
    /// Plaintext that came with the last of the handshake.
    early: Vec<u8>,
    /// The last flight of the handshake waits for what is said first, so that both go in one segment: a server's ticket
    /// until the first write, a client's Finished until nothing is there to be written.
    held: bool,
    /// How the peer has ended its direction, once it has.
    end: Option<End>,
    /// Why nothing can be sent any more. The kernel tells of a reset only once.
    broken: Option<io::ErrorKind>,
    /// Whether an end without `close_notify` is an error.
    must_end: bool,
}

/// How a direction of a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a `close_notify` (RFC 8446 §6.1), or with TCP's FIN where there is no TLS.
    Clean,
    /// TCP ended and TLS had not: bytes may be missing.
    Truncated,
}

/// A handshake that failed. The alert, if there is one to send, is on its way.
#[derive(Debug)]
pub struct HandshakeFailed {
    /// Why.
    pub error: HandshakeError,
    /// The connection, for a close that does not cut the alert off.
    pub tcp: TcpStream,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The two sides did not agree, or one did not prove who it is.
    #[error("{}", describe(.0))]
    Tls(#[from] rustls::Error),
    /// What the peer said first begins no record of TLS (RFC 8446 §5.1); this is how it began.
    #[error("the peer speaks no TLS; it says `{}`", .0.escape_ascii())]
    NotTls(Vec<u8>),
    /// The peer went away in the middle of it.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// How much is told of what is no TLS: enough to know HTTP and SSH by.
const OPENING: usize = 8;

impl Stream {
    /// Ends the TLS of a client of which `received` has been read, its hello first.
    ///
    /// Cancelling it closes the connection; the caller sets the deadline.
    pub async fn accept(
        tcp: TcpStream,
        received: Vec<u8>,
        config: Arc<ServerConfig>,
    ) -> Result<Box<Self>, HandshakeFailed> {
        match Records::server(config) {
            Ok(records) => Self::new(tcp, records).handshake(received).await,
            Err(error) => Err(HandshakeFailed {
                error: error.into(),
                tcp,
            }),
        }
    }

    /// Opens TLS towards a server, which must prove that it is `name`.
    ///
    /// Cancelling it closes the connection; the caller sets the deadline.
    pub async fn connect(
        tcp: TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Box<Self>, HandshakeFailed> {
        match Records::client(config, name) {
            Ok(records) => Self::new(tcp, records).handshake(Vec::new()).await,
            Err(error) => Err(HandshakeFailed {
                error: error.into(),
                tcp,
            }),
        }
    }

    /// What was agreed: version, protocol, certificates.
    pub fn agreed(&self) -> &CommonState {
        self.records.agreed()
    }

    /// Takes the plaintext that has come with the last of the handshake, which is the first that is to be relayed.
    pub fn take_early(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.early)
    }

    /// The socket underneath.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Gives up TLS where it stands; the socket is left.
    pub fn into_tcp(self) -> TcpStream {
        self.tcp
    }

    /// Reads once from the socket, and hands the plaintext to `take` in one piece. Ready, perhaps with nothing, with
    /// whether the peer has ended its direction.
    ///
    /// An end without `close_notify` that follows on a reset is told as `ConnectionReset`, also when a write has met the reset before.
    /// `InvalidData` is a breach of TLS, or its alert.
    pub fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<Option<End>>> {
        if !self.early.is_empty() {
            take(&std::mem::take(&mut self.early));
        } else if self.end.is_none() {
            self.held &= !self.records.is_client();
            // Answers that TLS itself owes (a refused renegotiation's) go out even when this side has nothing to say. A peer
            // that takes no more may have said why, or all that it had to say: that is still to be read, and whoever writes is told.
            if !self.held && !self.records.owed().is_empty() {
                let _ = self.poll_flush(cx);
            }
            match ready!(self.poll_gather(cx, take)) {
                Ok(()) => {}
                Err(HandshakeError::Io(e)) => return Poll::Ready(Err(e)),
                Err(HandshakeError::NotTls(_)) => {
                    return Poll::Ready(Err(invalid(InvalidMessage::InvalidContentType.into())));
                }
                Err(HandshakeError::Tls(e)) => {
                    // The alert, if rustls made one: best effort, nobody waits for it.
                    self.held = false;
                    let _ = self.poll_flush(cx);
                    return Poll::Ready(Err(invalid(e)));
                }
            }
        }
        match self.end {
            // The peer is gone without a word, or was reset and a write has been told so.
            Some(End::Truncated) if self.broken == Some(io::ErrorKind::ConnectionReset) => {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
            Some(End::Truncated) if self.must_end => {
                let what = "tls ended without close_notify: bytes may be missing";
                let cut = io::Error::new(io::ErrorKind::UnexpectedEof, what);
                Poll::Ready(Err(cut))
            }
            end => Poll::Ready(Ok(end)),
        }
    }

    /// From now on an end without `close_notify` is an error, for bytes that go on where nothing else could tell that some are
    /// missing (RFC 8446 §6.1).
    pub fn must_end(&mut self) {
        self.must_end = true;
    }

    /// Takes bytes to encrypt and send. Ready with how many were taken, once all that were taken before are in the kernel.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        let taken = SEALING.with_borrow_mut(|out| {
            let held = self.take_held(out);
            let room = out.get_mut(held..).unwrap_or_default();
            let sealed = self.records.seal(buf, room).inspect_err(|_| {
                // Nothing more is to be read either, and whoever reads is told of it only when it asks.
                cx.waker().wake_by_ref();
            });
            let (taken, sealed) = sealed.map_err(invalid)?;
            let mut rest = out.get(..held + sealed).unwrap_or_default();
            while !rest.is_empty() {
                match Pin::new(&mut self.tcp).poll_write(cx, rest) {
                    Poll::Ready(sent) => rest = rest.get(some(sent)?..).unwrap_or_default(),
                    Poll::Pending => {
                        self.records.owe(rest);
                        break;
                    }
                }
            }
            Ok(taken)
        });
        Poll::Ready(taken.inspect_err(|e: &io::Error| self.broken = Some(e.kind())))
    }

    /// Ready when everything that was taken is in the kernel.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(broken) = self.broken {
            return Poll::Ready(Err(broken.into()));
        }
        while !self.held && !self.records.owed().is_empty() {
            let sent = Pin::new(&mut self.tcp).poll_write(cx, self.records.owed());
            match ready!(sent).and_then(|n| some(Ok(n))) {
                Ok(n) => self.records.paid(n),
                Err(e) => {
                    self.broken = Some(e.kind());
                    return Poll::Ready(Err(e));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ends this side's direction, the other stays open: `close_notify` for a clean end, then FIN.
    ///
    /// The FIN is never left to the close: bytes that came behind the peer's `close_notify` are not read, so that a close
    /// is a reset (RFC 9293 §3.6.1), which takes along what has not left yet.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>, end: End) -> Poll<io::Result<()>> {
        if end == End::Clean && self.broken.is_none() {
            self.records.close().map_err(invalid)?;
            // The FIN that follows goes in one segment with it; what does not fit now goes without.
            match send_before_fin(&self.tcp, self.records.owed()) {
                Ok(sent) => self.records.paid(sent),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => {
                    self.broken = Some(e.kind());
                    return Poll::Ready(Err(e));
                }
            }
        }
        self.held = false;
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn new(tcp: TcpStream, records: Records) -> Box<Self> {
        Box::new(Self {
            tcp,
            records,
            early: Vec::new(),
            held: false,
            end: None,
            broken: None,
            must_end: false,
        })
    }

    async fn handshake(
        mut self: Box<Self>,
        received: Vec<u8>,
    ) -> Result<Box<Self>, HandshakeFailed> {
        match self.drive(received).await {
            Ok(()) => Ok(self),
            Err(error) => {
                // The alert, if rustls made one: best effort, nobody waits for it.
                let _ = self.tcp.try_write(self.records.owed());
                Err(HandshakeFailed {
                    error,
                    tcp: self.tcp,
                })
            }
        }
    }

    async fn drive(&mut self, mut received: Vec<u8>) -> Result<(), HandshakeError> {
        // A client says the first word here; bytes of its own come with the last of the handshake.
        let mut early = Vec::new();
        let mut take = |piece: &[u8]| early.extend_from_slice(piece);
        self.records.open(&mut received, &mut take)?;
        drop(received);
        loop {
            let agreed = self.agreed();
            let finished = !agreed.is_handshaking();
            // In TLS 1.2 the peer may wait for it.
            self.held = finished
                && agreed.protocol_version() == Some(ProtocolVersion::TLSv1_3)
                && self.records.owed().len() <= HELD;
            poll_fn(|cx| self.poll_flush(cx)).await?;
            if finished {
                break;
            }
            match self.end {
                None => poll_fn(|cx| self.poll_open(cx, &mut take)).await?,
                Some(_) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            }
        }
        self.early = early;
        Ok(())
    }

    /// Puts what was held at the front of `out`, and tells how much that is.
    fn take_held(&mut self, out: &mut [u8]) -> usize {
        let held = match self.held {
            true => self.records.owed().len(),
            false => 0,
        };
        self.held = false;
        if let Some(front) = out.get_mut(..held) {
            front.copy_from_slice(self.records.owed());
        }
        self.records.paid(held);
        held
    }

    /// One read from the socket, and what it decrypts to in one piece: one write of four records costs less than four
    /// writes, copying included.
    fn poll_gather(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<Result<(), HandshakeError>> {
        PLAIN.with_borrow_mut(|plain| {
            plain.clear();
            let opened = self.poll_open(cx, &mut |record| plain.extend_from_slice(record));
            if !plain.is_empty() {
                take(plain);
            }
            opened
        })
    }

    /// One read from the socket, and what it decrypts to, record by record.
    fn poll_open(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<Result<(), HandshakeError>> {
        let kept = self.records.kept()?;
        OPENED.with_borrow_mut(|buffer| {
            let end = READ.max(kept + FULL_RECORD);
            let mut read = ReadBuf::new(buffer.get_mut(kept..end).unwrap_or_default());
            ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut read))?;
            let new = read.filled().len();
            if new == 0 {
                self.end = Some(End::Truncated);
                return Poll::Ready(Ok(()));
            }
            let came = buffer.get_mut(..kept + new).unwrap_or_default();
            let opened = self.records.open(came, take);
            if self.records.ended() {
                self.end = Some(End::Clean);
            }
            Poll::Ready(opened.map_err(|error| self.refused(error, came)))
        })
    }

    /// Why what came cannot be opened: nothing of TLS looks like it, where nothing was agreed on before.
    fn refused(&self, error: rustls::Error, came: &[u8]) -> HandshakeError {
        match (&error, self.agreed().protocol_version()) {
            (rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType), None) => {
                HandshakeError::NotTls(came.iter().take(OPENING).copied().collect())
            }
            _ => HandshakeError::Tls(error),
        }
    }
}

/// The kernel takes something, or says why not.
fn some(sent: io::Result<usize>) -> io::Result<usize> {
    match sent {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        sent => sent,
    }
}

/// Sends what there is room for now, and lets the kernel wait for the FIN that comes at once.
fn send_before_fin(tcp: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return Ok(0);
    }
    #[cfg(target_os = "linux")]
    let more = SendFlags::MORE;
    #[cfg(not(target_os = "linux"))]
    let more = SendFlags::empty();
    let flags = SendFlags::NOSIGNAL | more;
    tcp.try_io(Interest::WRITABLE, || {
        Ok(rustix::net::send(tcp, bytes, flags)?)
    })
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The refusal in an error of a [`Stream`], if an alert of the peer is what it tells.
///
/// TLS 1.3 finishes a client's handshake before the server has judged the client's certificate (RFC 8446 §4.4.2.4): the
/// refusal then comes as an alert in place of the first byte.
pub fn late_refusal(error: &io::Error) -> Option<HandshakeError> {
    match error.get_ref()?.downcast_ref()? {
        refused @ rustls::Error::AlertReceived(_) => Some(HandshakeError::Tls(refused.clone())),
        _ => None,
    }
}

/// Writes the alert with which rustls answers a hello it refuses; false where it has none. Best effort: the socket is
/// new and its buffer empty.
pub fn send_alert(tcp: &TcpStream, mut alert: AcceptedAlert) -> bool {
    matches!(alert.write(&mut Socket(tcp)), Ok(written) if written > 0)
}

/// The socket as rustls wants it: writes that do not wait.
struct Socket<'a>(&'a TcpStream);

impl Write for Socket<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
