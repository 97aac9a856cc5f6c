//! The records of one TLS connection, without its socket: ciphertext in, plaintext out, and what is owed to the peer.

use std::fmt;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
    UnbufferedStatus,
};
use rustls::{ClientConfig, CommonState, Error, InvalidMessage, ServerConfig};
use rustls_pki_types::ServerName;

/// The largest record that a peer may send without padding: header, 2^14 bytes, type and tag (RFC 8446 §5.2).
pub const FULL_RECORD: usize = 5 + 16_384 + 1 + 16;

/// How much plaintext is sealed at a time: four full records.
///
/// 64 KiB: one write of four records costs a third of four writes, and the thread's buffers stay in its cache.
pub const CHUNK: usize = 64 * 1024;

/// What a chunk becomes, and room for what TLS itself may owe before it: a key update, an alert, a flight that was held.
pub const SEALED: usize = CHUNK + 8192;

/// How much of the bytes is shown to rustls at once, as in its own buffer: a handshake message that is not whole in so
/// many, with the records around it, is too large, however TCP has cut it.
const WINDOW: usize = 0xffff;

const TOO_LARGE: InvalidMessage = InvalidMessage::HandshakePayloadTooLarge;

/// One connection's TLS. It holds no buffer but what is left over: half a record, or what the peer has not taken.
pub struct Records {
    side: Side,
    /// The beginning of a record, or of a handshake message, whose rest has not come.
    partial: Vec<u8>,
    /// What is to be sent before anything else: a flight of the handshake, an alert, what a write left over.
    owed: Vec<u8>,
    /// How much of `owed` is sent.
    sent: usize,
    ended: bool,
    /// Why it has come to nothing; rustls is not asked again.
    failed: Option<Error>,
}

enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

impl Records {
    /// The side of a server.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        UnbufferedServerConnection::new(config).map(|tls| Self::new(Side::Server(tls)))
    }

    /// The side of a client, to which the server must prove that it is `name`.
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        UnbufferedClientConnection::new(config, name).map(|tls| Self::new(Side::Client(tls)))
    }

    /// What was agreed: version, protocol, certificates.
    pub fn agreed(&self) -> &CommonState {
        match &self.side {
            Side::Server(tls) => tls,
            Side::Client(tls) => tls,
        }
    }

    /// Whether this is the side of a client.
    pub fn is_client(&self) -> bool {
        matches!(self.side, Side::Client(_))
    }

    /// The peer has ended its direction with a `close_notify`. What comes behind it is ignored (RFC 8446 §6.1).
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// How many bytes at the front of a buffer [`open`](Self::open) fills with what was left over before. It fails
    /// where nothing more can be opened, or the peer has sent more of one message than any may have.
    pub fn kept(&self) -> Result<usize, Error> {
        self.usable()?;
        match self.partial.len() {
            kept if kept < WINDOW => Ok(kept),
            _ => Err(TOO_LARGE.into()),
        }
    }

    /// Decrypts in place: `buffer` is room for the bytes [`kept`](Self::kept), then ciphertext that is new. `take` is
    /// handed the plaintext, a record at a time.
    ///
    /// After an error nothing more can be opened or sealed; an alert may be [`owed`](Self::owed).
    pub fn open(&mut self, buffer: &mut [u8], take: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        if let Some(front) = buffer.get_mut(..self.partial.len()) {
            front.copy_from_slice(&self.partial);
        }
        let opened = self.open_all(buffer, take).inspect_err(|e| self.fail(e))?;
        // Nothing is kept of what comes behind an end.
        let rest = buffer.get(opened..).filter(|_| !self.ended);
        match rest.unwrap_or_default() {
            [] => self.partial = Vec::new(),
            rest => {
                self.partial.clear();
                self.partial.extend_from_slice(rest);
            }
        }
        Ok(())
    }

    /// Encrypts up to [`CHUNK`] bytes into `out`, which has [`SEALED`] bytes; tells how many were taken, and how many
    /// came of them. What is owed must be sent before them.
    pub fn seal(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<(usize, usize), Error> {
        let plaintext = plaintext.get(..CHUNK).unwrap_or(plaintext);
        let sealed = self.write(&Words::Data(plaintext), out)?;
        Ok((plaintext.len(), sealed))
    }

    /// Owes the peer a `close_notify`. rustls makes one only, however often it is asked.
    pub fn close(&mut self) -> Result<(), Error> {
        let mut out = [0; 1024];
        let sealed = self.write(&Words::Close, &mut out)?;
        self.owe(out.get(..sealed).unwrap_or_default());
        Ok(())
    }

    /// What is to be sent before anything else.
    pub fn owed(&self) -> &[u8] {
        self.owed.get(self.sent..).unwrap_or_default()
    }

    /// So many bytes of what was owed are sent.
    pub fn paid(&mut self, sent: usize) {
        self.sent += sent;
        if self.sent >= self.owed.len() {
            self.owed = Vec::new();
            self.sent = 0;
        }
    }

    /// Adds what was sealed and not sent to what is owed.
    pub fn owe(&mut self, sealed: &[u8]) {
        self.owed.extend_from_slice(sealed);
    }

    fn new(side: Side) -> Self {
        Self {
            side,
            partial: Vec::new(),
            owed: Vec::new(),
            sent: 0,
            ended: false,
            failed: None,
        }
    }

    /// Tells how much of `buffer` is done with.
    fn open_all(&mut self, buffer: &mut [u8], take: &mut dyn FnMut(&[u8])) -> Result<usize, Error> {
        self.usable()?;
        let mut opened = 0;
        loop {
            let end = buffer.len().min(opened + WINDOW);
            let more = end < buffer.len();
            let incoming = buffer.get_mut(opened..end).unwrap_or_default();
            let (discard, step) = match &mut self.side {
                Side::Server(tls) => read(tls.process_tls_records(incoming), take, &mut self.owed)?,
                Side::Client(tls) => read(tls.process_tls_records(incoming), take, &mut self.owed)?,
            };
            opened += discard;
            match step {
                Step::Again => {}
                Step::PeerClosed => self.ended = true,
                Step::Done if self.ended || !more => return Ok(opened),
                Step::Done if discard == 0 => return Err(TOO_LARGE.into()),
                Step::Done => {}
            }
        }
    }

    fn write(&mut self, words: &Words<'_>, out: &mut [u8]) -> Result<usize, Error> {
        self.usable()?;
        let mut written = 0;
        loop {
            let room = out.get_mut(written..).unwrap_or_default();
            // rustls must see again what it has not done with: it remembers how far it came.
            let partial = &mut self.partial;
            let step = match &mut self.side {
                Side::Server(tls) => write(tls.process_tls_records(partial), words, room),
                Side::Client(tls) => write(tls.process_tls_records(partial), words, room),
            };
            let (sealed, step) = step.inspect_err(|e| self.fail(e))?;
            written += sealed;
            match step {
                Step::Again => {}
                Step::PeerClosed => self.ended = true,
                Step::Done => return Ok(written),
            }
        }
    }

    fn usable(&self) -> Result<(), Error> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Keeps the error, and the alert that rustls has made of it.
    fn fail(&mut self, error: &Error) {
        self.partial = Vec::new();
        while self.failed.is_none() && self.agreed().wants_write() {
            let nothing = &mut |_: &[u8]| {};
            let step = match &mut self.side {
                Side::Server(tls) => {
                    read(tls.process_tls_records(&mut []), nothing, &mut self.owed)
                }
                Side::Client(tls) => {
                    read(tls.process_tls_records(&mut []), nothing, &mut self.owed)
                }
            };
            if step.is_err() {
                break;
            }
        }
        self.failed.get_or_insert_with(|| error.clone());
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

/// What is to be written.
enum Words<'a> {
    Data(&'a [u8]),
    Close,
}

/// Whether rustls has more to say.
enum Step {
    Again,
    PeerClosed,
    Done,
}

/// One step of reading: how much of the bytes is done with.
fn read<D>(
    status: UnbufferedStatus<'_, '_, D>,
    take: &mut dyn FnMut(&[u8]),
    owed: &mut Vec<u8>,
) -> Result<(usize, Step), Error> {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state? {
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                let record = record?;
                discard += record.discard;
                take(record.payload);
            }
            Step::Again
        }
        ConnectionState::EncodeTlsData(data) => {
            encode(data, owed)?;
            Step::Again
        }
        // It stands in what is owed, which is sent in its order or not at all.
        ConnectionState::TransmitTlsData(flight) => {
            flight.done();
            Step::Again
        }
        ConnectionState::PeerClosed => Step::PeerClosed,
        ConnectionState::BlockedHandshake
        | ConnectionState::WriteTraffic(_)
        | ConnectionState::Closed => Step::Done,
        other => return Err(unexpected(&other)),
    };
    Ok((discard, step))
}

/// One step of writing: how many bytes of `out` came of it.
fn write<D>(
    status: UnbufferedStatus<'_, '_, D>,
    words: &Words<'_>,
    out: &mut [u8],
) -> Result<(usize, Step), Error> {
    let step = match status.state? {
        ConnectionState::WriteTraffic(mut traffic) => {
            let sealed = match words {
                Words::Data(plaintext) => traffic.encrypt(plaintext, out),
                Words::Close => traffic.queue_close_notify(out),
            };
            return Ok((sealed.map_err(unsealed)?, Step::Done));
        }
        ConnectionState::EncodeTlsData(mut data) => {
            let encoded = data
                .encode(out)
                .map_err(|e| Error::General(e.to_string()))?;
            return Ok((encoded, Step::Again));
        }
        ConnectionState::TransmitTlsData(flight) => {
            flight.done();
            Step::Again
        }
        ConnectionState::PeerClosed => Step::PeerClosed,
        // Both sides have closed: there is nothing left to say, and nobody to hear it.
        ConnectionState::Closed if matches!(words, Words::Close) => Step::Done,
        other => return Err(unexpected(&other)),
    };
    Ok((0, step))
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, owed: &mut Vec<u8>) -> Result<(), Error> {
    let start = owed.len();
    // An empty buffer is told what is wanted.
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
        data.encode(&mut [])
    {
        owed.resize(start + required_size, 0);
    }
    let room = owed.get_mut(start..).unwrap_or_default();
    let encoded = data.encode(room);
    encoded
        .map(|_| ())
        .map_err(|e| Error::General(e.to_string()))
}

/// The keys of TLS 1.2 wear out and cannot be renewed (RFC 5246 §6.1): the connection has to end.
fn unsealed(error: EncryptError) -> Error {
    Error::General(error.to_string())
}

fn unexpected<D>(state: &ConnectionState<'_, '_, D>) -> Error {
    Error::General(format!("no place for {state:?}"))
}
