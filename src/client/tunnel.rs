//! What flows through a tunnel: the gateway's status first, where it has promised one, then stdin and stdout.

use std::io;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::failure::Failure;
use super::stdio::{Over, Stdio};
use crate::config::Limits;
use crate::net::promised::{Promised, Unkept};
use crate::net::relay::{self, Outcome, Patience, Relayed, Socket, Stream};
use crate::net::session::Tally;
use crate::tls::{self, End};

/// How long a tunnel may go on whose user has hung up.
///
/// 1 s: what ssh wrote last is in the pipe, and the gateway's answer a round trip away. Nobody waits for it.
const FAREWELL: Duration = Duration::from_secs(1);

/// What an SSH server says first, in a line of at most so many bytes (RFC 4253 §4.2).
const BANNER: [u8; 4] = *b"SSH-";
const BANNER_AT_MOST: u64 = 255;

/// Relays between stdin and stdout and the tunnel until both directions have ended; sets `input_ended` when stdin has.
/// A gateway that has promised to say what became of its dial has `patience` for it. The input goes up meanwhile.
///
/// The end of stdin goes up and leaves the answer alone; the end of the answer closes stdout and leaves the input
/// alone, unless that is typed by a person. When the user has `hung_up`, or nobody reads stdout any more, the last of
/// the input still goes up and the tunnel ends as it should, so that neither end takes it for a failure.
pub async fn relay(
    tunnel: Box<tls::Stream>,
    patience: Duration,
    input_ended: &AtomicBool,
    hung_up: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let reader_gone = Notify::new();
    let mut stdio = Stdio::new(input_ended, &reader_gone);
    let mut tunnel = Tunnel::new(tunnel, patience);
    let endless = Patience::endless(Limits::default().half_closed);
    let (mut up, mut down) = (Tally::default(), Tally::default());
    let relay = relay::relay(
        &mut stdio,
        &mut tunnel,
        Vec::new(),
        &endless,
        &mut up,
        &mut down,
    );
    let relayed = tokio::select! {
        relayed = relay => relayed,
        () = farewell(hung_up, &reader_gone) => return Ok(()),
    };
    let came = Came {
        status: tunnel.status(),
        is_nothing: down.bytes() == 0,
        is_banner: tunnel.opening == BANNER && down.bytes() <= BANNER_AT_MOST,
    };
    ended(relayed, stdio.into_over(), &came, endless.half_closed)
}

/// Ends soon after the user has hung up, or the reader of stdout has gone.
async fn farewell(hung_up: impl Future<Output = ()>, reader_gone: &Notify) {
    tokio::select! {
        () = hung_up => {}
        () = reader_gone.notified() => {}
    }
    sleep(FAREWELL).await;
}

/// What came down, until the end.
struct Came {
    status: Status,
    is_nothing: bool,
    is_banner: bool,
}

fn ended(
    relayed: Relayed,
    over: Option<Over>,
    came: &Came,
    half_closed: Duration,
) -> Result<(), Failure> {
    let is_denial = relayed.unanswered && came.is_banner;
    match (over, relayed.outcome) {
        (Some(Over::Peer(_)), _) if is_denial => Err(Failure::EndedAfterBanner),
        (Some(Over::Peer(End::Truncated)), _) => Err(cut(came)),
        (Some(Over::Peer(End::Clean)), _) | (None, Outcome::Closed) => Ok(()),
        (Some(Over::Output(e)), _) => Err(Failure::Output(e)),
        (None, Outcome::UpstreamFailed(e)) => Err(broken(e, came, is_denial)),
        (None, Outcome::ClientFailed(e)) => Err(Failure::Input(e)),
        (None, Outcome::Idle | Outcome::Lifetime | Outcome::HalfClosed) => {
            Err(Failure::Silent(half_closed))
        }
    }
}

/// An end that TLS has not announced.
fn cut(came: &Came) -> Failure {
    match came.status {
        Status::Awaited => Failure::NoStatus,
        status if came.is_nothing => Failure::NothingCame {
            was_reached: status == Status::Good,
        },
        _ => Failure::CutOff,
    }
}

fn broken(error: io::Error, came: &Came, is_denial: bool) -> Failure {
    match Unkept::of(&error) {
        Some(Unkept::Refused(refusal)) => return Failure::Refused(refusal.clone()),
        Some(Unkept::Bad(error)) => return Failure::BadFrame(*error),
        Some(Unkept::Silent) => return Failure::NoStatus,
        Some(Unkept::Late(time)) => return Failure::NoFrame(*time),
        None => {}
    }
    match tls::late_refusal(&error) {
        Some(refused) if came.is_nothing => Failure::Handshake(refused),
        _ if is_denial => Failure::EndedAfterBanner,
        None if came.is_nothing && error.kind() == io::ErrorKind::ConnectionReset => cut(came),
        _ => Failure::BrokeOff(error),
    }
}

/// What is known of the gateway's dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// Nothing, and nothing will be: the gateway has promised no status.
    Unknown,
    /// It is promised, and has not come.
    Awaited,
    /// The target has taken the connection.
    Good,
}

/// TLS to the gateway, and what is seen of its bytes.
struct Tunnel {
    promised: Promised,
    is_promised: bool,
    /// The first bytes of the target that came together.
    opening: [u8; 4],
    has_opened: bool,
}

impl Tunnel {
    fn new(tls: Box<tls::Stream>, patience: Duration) -> Self {
        let promised = Promised::new(tls, patience);
        Self {
            is_promised: promised.is_awaited(),
            promised,
            opening: [0; 4],
            has_opened: false,
        }
    }

    fn status(&self) -> Status {
        match (self.is_promised, self.promised.is_awaited()) {
            (false, _) => Status::Unknown,
            (true, true) => Status::Awaited,
            (true, false) => Status::Good,
        }
    }
}

impl Stream for Tunnel {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<Option<End>>> {
        self.promised.poll_receive(cx, &mut |bytes| {
            if !self.has_opened && !bytes.is_empty() {
                self.has_opened = true;
                if let Some(opening) = bytes.first_chunk() {
                    self.opening = *opening;
                }
            }
            take(bytes);
        })
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.promised.tls_mut().poll_write(cx, buf)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.promised.tls_mut().poll_flush(cx)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>, end: End, _: bool) -> Poll<io::Result<()>> {
        self.promised.tls_mut().poll_shutdown(cx, end)
    }
}

impl Socket for Tunnel {
    fn reset(&self) {
        self.promised.tls().reset();
    }

    fn into_tcp(self) -> TcpStream {
        self.promised.into_tls().into_tcp()
    }
}
