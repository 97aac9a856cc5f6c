//! One end of a connection: it says its words to the end, hears the other's, and checks each as it comes.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::plan::{Flow, Plan};
use super::words::{Sum, Words};

/// What the kernel may hold for a receiver who may be slow, so that the pressure reaches the sender. It is set before the
/// connection is made: whoever takes back what has been offered must drop what comes, and TCP waits ever longer.
pub(crate) const SMALL: usize = 64 * 1024;

/// The most that is read at once.
const READ: usize = 32 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// What an end speaks on.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin {
    /// Changes its keys, where there are some that can be changed.
    fn rekey(&mut self);
    fn tcp(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn rekey(&mut self) {}

    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Wire for tokio_rustls::client::TlsStream<TcpStream> {
    fn rekey(&mut self) {
        // TLS 1.2 has no way to.
        let _ = self.get_mut().1.refresh_traffic_keys();
    }

    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

impl Wire for tokio_rustls::server::TlsStream<TcpStream> {
    fn rekey(&mut self) {
        let _ = self.get_mut().1.refresh_traffic_keys();
    }

    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Why an end has not come to its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It has broken off, as planned.
    Cut,
    /// The connection is broken.
    Broken(io::Error),
    /// What came is not what the other end says.
    Wrong(String),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// A client's life on a connection; tells how many bytes it has heard.
pub(crate) async fn client(wire: impl Wire, plan: &Plan) -> Result<u64, Stop> {
    let talk = Talk::new(wire);
    talk.write_all(&plan.number.to_le_bytes()).await?;
    talk.both(plan, true).await
}

/// An upstream's side of it, once its number has been heard.
pub(crate) async fn upstream(talk: Talk<impl Wire>, plan: &Plan) -> Result<u64, Stop> {
    talk.both(plan, false).await
}

/// A connection on which both directions go on at once.
pub(crate) struct Talk<W>(Mutex<W>);

impl<W: Wire> Talk<W> {
    pub(crate) fn new(wire: W) -> Self {
        Self(Mutex::new(wire))
    }

    /// The number that a client says first; none where it has gone before.
    pub(crate) async fn number(&self) -> Option<u64> {
        let mut number = [0; 8];
        let mut heard = 0;
        while heard < number.len() {
            match self.read(number.len() - heard).await {
                Ok(piece) if !piece.is_empty() => {
                    number[heard..heard + piece.len()].copy_from_slice(&piece);
                    heard += piece.len();
                }
                _ => return None,
            }
        }
        Some(u64::from_le_bytes(number))
    }

    async fn both(self, plan: &Plan, is_client: bool) -> Result<u64, Stop> {
        let words = |up| Words::new(plan.number, up);
        let (said, heard) = match is_client {
            true => (&plan.up, &plan.down),
            false => (&plan.down, &plan.up),
        };
        let say = self.say(said, words(is_client));
        let hear = self.hear(heard, words(!is_client));
        let ended = if said.waits {
            match hear.await {
                Ok(count) => say.await.map(|()| count),
                Err(stop) => Err(stop),
            }
        } else {
            tokio::try_join!(say, hear).map(|((), count)| count)
        };
        if said.resets && matches!(ended, Err(Stop::Cut)) {
            let wire = self.0.lock().unwrap();
            let socket = socket2::SockRef::from(wire.tcp());
            // RFC 9293 §3.10.4: closing with no time to linger sends RST.
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
        ended
    }

    /// Says the words, their sum, and that this is the end.
    async fn say(&self, flow: &Flow, words: Words) -> Result<(), Stop> {
        let mut sum = Sum::new();
        let end = flow.cut.unwrap_or(flow.bytes);
        let mut chunks = 0;
        while sum.count() < end {
            if !flow.pause.is_zero() {
                sleep(flow.pause).await;
            }
            let mut chunk = vec![0; flow.chunk.min(end - sum.count()) as usize];
            words.fill(sum.count(), &mut chunk);
            sum.add(&chunk);
            self.write_all(&chunk).await?;
            chunks += 1;
            if flow.rekey > 0 && chunks % flow.rekey == 0 {
                self.0.lock().unwrap().rekey();
            }
        }
        if flow.cut.is_some() {
            return Err(Stop::Cut);
        }
        self.write_all(&sum.written()).await?;
        poll_fn(|cx| Pin::new(&mut *self.0.lock().unwrap()).poll_shutdown(cx)).await?;
        Ok(())
    }

    /// Hears the other end out; tells how many bytes that were.
    async fn hear(&self, flow: &Flow, words: Words) -> Result<u64, Stop> {
        let (sip, pause) = flow.sip.unwrap_or((READ, Duration::ZERO));
        let mut sum = Sum::new();
        let mut written = Vec::new();
        let mut sipped = sip;
        loop {
            if !pause.is_zero() && sipped >= sip {
                sleep(pause).await;
                sipped = 0;
            }
            let piece = self.read(sip).await?;
            sipped += piece.len();
            if piece.is_empty() {
                break;
            }
            let left = usize::try_from(flow.bytes - sum.count()).unwrap_or(usize::MAX);
            let (heard, rest) = piece.split_at(left.min(piece.len()));
            if !words.are(sum.count(), heard) {
                let (at, count) = (sum.count(), heard.len());
                return Err(Stop::Wrong(format!("a wrong byte in {count} from {at} on")));
            }
            sum.add(heard);
            written.extend_from_slice(rest);
            if written.len() > Sum::LENGTH {
                return Err(Stop::Wrong("more than all".to_owned()));
            }
        }
        // A clean end comes behind the last byte and nowhere else.
        if sum.count() < flow.bytes || written != sum.written() {
            let (heard, all) = (sum.count(), flow.bytes);
            return Err(Stop::Wrong(format!("an end after {heard} bytes of {all}")));
        }
        Ok(sum.count() + Sum::LENGTH as u64)
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let wrote = poll_fn(|cx| Pin::new(&mut *self.0.lock().unwrap()).poll_write(cx, bytes));
            match wrote.await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => bytes = &bytes[n..],
            }
        }
        poll_fn(|cx| Pin::new(&mut *self.0.lock().unwrap()).poll_flush(cx)).await
    }

    /// Up to so many bytes as soon as there are some; none is the end. Whoever waits holds no buffer: there are thousands.
    async fn read(&self, most: usize) -> io::Result<Vec<u8>> {
        poll_fn(|cx| {
            BUFFER.with_borrow_mut(|buffer| {
                let mut read = ReadBuf::new(&mut buffer[..most.min(READ)]);
                Pin::new(&mut *self.0.lock().unwrap())
                    .poll_read(cx, &mut read)
                    .map_ok(|()| read.filled().to_vec())
            })
        })
        .await
    }
}
