//! A TLS connection over TCP, read and written when it is ready, so that no buffer is held by an idle one.

use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::server::{Accepted, AcceptedAlert};
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use super::refusal::describe;

/// A TLS connection over TCP, after its handshake.
///
/// Nothing but this type knows how the records are made: whoever reads asks [`poll_readable`](Self::poll_readable)
/// first and takes a buffer only then.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
    tls: Connection,
    /// Decrypted bytes that wait inside `tls`.
    plaintext: usize,
    /// The peer has ended its direction, cleanly or not; the next read says which.
    ended: bool,
    /// Why nothing can be sent any more. The kernel tells of a reset only once.
    broken: Option<io::ErrorKind>,
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
    /// The peer went away in the middle of it.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Stream {
    /// Ends the TLS of a client whose hello has been read: `accepted` has taken it in, `unread` is what had been
    /// read behind it and not been taken.
    ///
    /// Cancelling it closes the connection; the caller sets the deadline.
    pub async fn accept(
        tcp: TcpStream,
        accepted: Accepted,
        unread: &[u8],
        config: Arc<ServerConfig>,
    ) -> Result<Self, HandshakeFailed> {
        let tls = match accepted.into_connection(config) {
            Ok(tls) => Connection::Server(tls),
            Err((error, alert)) => {
                send_alert(&tcp, alert);
                let error = HandshakeError::Tls(error);
                return Err(HandshakeFailed { error, tcp });
            }
        };
        Self::new(tcp, tls).handshake(unread).await
    }

    /// Opens TLS towards a server, which must prove that it is `name`.
    ///
    /// Cancelling it closes the connection; the caller sets the deadline.
    pub async fn connect(
        tcp: TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, HandshakeFailed> {
        match ClientConnection::new(config, name) {
            Ok(tls) => Self::new(tcp, Connection::Client(tls)).handshake(&[]).await,
            Err(error) => {
                let error = HandshakeError::Tls(error);
                Err(HandshakeFailed { error, tcp })
            }
        }
    }

    /// The connection's TLS, for what was agreed: version, protocol, certificates.
    pub fn tls(&self) -> &Connection {
        &self.tls
    }

    /// The socket underneath.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Gives up TLS where it stands; the socket is left.
    pub fn into_tcp(self) -> TcpStream {
        self.tcp
    }

    /// Ready when [`try_read`](Self::try_read) may have something to say: bytes, the end, or an error.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.plaintext > 0 || self.ended {
            return Poll::Ready(Ok(()));
        }
        // Answers that TLS itself owes (a key update's) go out even when this side has nothing to say. A peer that takes
        // no more may have said why, or all that it had to say: that is still to be read, and whoever writes is told.
        if self.tls.wants_write() {
            let _ = self.poll_flush(cx);
        }
        self.tcp.poll_read_ready(cx)
    }

    /// Reads what is there. `Ok(0)` is a clean end, `UnexpectedEof` one without `close_notify`,
    /// `ConnectionReset` also one that a write has met before, and `WouldBlock` means not yet.
    ///
    /// Asks the socket once at most: a peer that sends records with nothing in them gets its turn, and no more.
    pub fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.take_plaintext(buf) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.receive()?;
                self.take_plaintext(buf)
            }
            taken => taken,
        }
    }

    /// Takes bytes to encrypt and send. Ready with how many were taken, once all that were taken before are in the kernel.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        let taken = self.tls.writer().write(buf)?;
        // What does not fit into the kernel now goes out with the next write or flush.
        let _ = self.poll_flush(cx)?;
        Poll::Ready(Ok(taken))
    }

    /// Ready when everything that was taken is in the kernel.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(broken) = self.broken {
            return Poll::Ready(Err(broken.into()));
        }
        let flushed = self.poll_send(cx);
        if let Poll::Ready(Err(e)) = &flushed {
            self.broken = Some(e.kind());
        }
        flushed
    }

    /// Ends this side's direction, the other stays open: `close_notify` for a clean end, then FIN.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>, end: End) -> Poll<io::Result<()>> {
        if end == End::Clean {
            // rustls queues it once, however often this is polled.
            self.tls.send_close_notify();
        }
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn take_plaintext(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.tls.reader().read(buf) {
            Ok(n) => {
                self.plaintext = self.plaintext.saturating_sub(n);
                Ok(n)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && !self.ended => {
                self.plaintext = 0;
                Err(e)
            }
            // The peer is gone without a word, or was reset and a write has been told so.
            Err(_) if self.broken == Some(io::ErrorKind::ConnectionReset) => {
                Err(io::ErrorKind::ConnectionReset.into())
            }
            Err(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Socket(&self.tcp)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.tcp.poll_write_ready(cx))?;
                }
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn new(tcp: TcpStream, tls: Connection) -> Self {
        Self {
            tcp,
            tls,
            plaintext: 0,
            ended: false,
            broken: None,
        }
    }

    async fn handshake(mut self, mut unread: &[u8]) -> Result<Self, HandshakeFailed> {
        match self.drive(&mut unread).await {
            Ok(()) => Ok(self),
            Err(error) => {
                // The alert, if rustls made one: best effort, nobody waits for it.
                let _ = self.tls.write_tls(&mut Socket(&self.tcp));
                let tcp = self.tcp;
                Err(HandshakeFailed { error, tcp })
            }
        }
    }

    async fn drive(&mut self, unread: &mut &[u8]) -> Result<(), HandshakeError> {
        // What came in one read with the hello may be inside already.
        self.process()?;
        // A read of nothing would be an end to rustls; it takes nothing more once the peer has closed.
        while !unread.is_empty() && self.tls.read_tls(unread)? > 0 {
            self.process()?;
        }
        loop {
            std::future::poll_fn(|cx| self.poll_flush(cx)).await?;
            if !self.tls.is_handshaking() {
                return Ok(());
            }
            self.tcp.readable().await?;
            match self.tls.read_tls(&mut Socket(&self.tcp)) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(_) => self.process()?,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// One read from the socket, and what it decrypts to.
    fn receive(&mut self) -> io::Result<()> {
        if self.tls.read_tls(&mut Socket(&self.tcp))? == 0 {
            self.ended = true;
        }
        self.process().map_err(|e| {
            let _ = self.tls.write_tls(&mut Socket(&self.tcp));
            io::Error::new(io::ErrorKind::InvalidData, e)
        })
    }

    fn process(&mut self) -> Result<(), rustls::Error> {
        let state = self.tls.process_new_packets()?;
        self.plaintext = state.plaintext_bytes_to_read();
        self.ended |= state.peer_has_closed();
        Ok(())
    }
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

/// The socket as rustls wants it: reads and writes that do not wait.
struct Socket<'a>(&'a TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buf)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
