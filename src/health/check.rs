//! One check of one endpoint: dialled as for a client, with what it is sent and what must come back.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use crate::config::{HealthCheck, Keepalive};
use crate::name::quoted;
use crate::net::Stream;
use crate::net::dial::{self, Dial, DialError, ProxyHeader};
use crate::net::proxy_header;
use crate::net::relay::Stream as _;
use crate::retry::may_pass;
use crate::snapshot::Snapshot;
use crate::snapshot::upstream::Upstream;
use crate::tls::{self, End};

/// How long an endpoint that has answered as it should may take to hear that this was all.
const CLOSING: Duration = Duration::from_secs(1);

/// A check that is due.
#[derive(Debug)]
pub(super) struct Check {
    upstream: Arc<Upstream>,
    wish: Arc<HealthCheck>,
    address: SocketAddr,
    own: Arc<[SocketAddr]>,
    keepalive: Keepalive,
}

/// What a check came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The endpoint does what it shall.
    Passed,
    /// It does not, for this reason.
    Failed(Arc<str>),
    /// It was not asked: the gateway lacks something.
    Unasked,
}

/// Why an endpoint that was reached fails its check.
#[derive(Debug, thiserror::Error)]
enum Wrong {
    #[error("it broke off: {0}")]
    Io(io::Error),
    #[error("it answered {}, which is not what is expected", quoted(.0))]
    Answer(String),
    #[error("it ended before it had said what is expected")]
    End,
}

impl Check {
    /// The check of an endpoint of this upstream as it is now; `None` where it is not checked.
    pub(super) fn of(
        upstream: &Arc<Upstream>,
        address: SocketAddr,
        snapshot: &Snapshot,
    ) -> Option<Self> {
        Some(Self {
            wish: Arc::clone(upstream.check.as_ref()?),
            upstream: Arc::clone(upstream),
            address,
            own: Arc::clone(&snapshot.own),
            keepalive: snapshot.limits.keepalive,
        })
    }

    pub(super) async fn run(self) -> Outcome {
        let mut address = self.address;
        if let Some(port) = self.wish.port {
            address.set_port(port);
        }
        if self.own.iter().any(|&own| dial::reaches(address, own)) {
            return Outcome::failed(format!("{address} is this gateway itself"));
        }
        // Its routes say why they refuse.
        let Ok(tls) = self.upstream.transport.tls() else {
            return Outcome::Unasked;
        };
        let proxy_header = self.upstream.send_proxy.map(|send| ProxyHeader {
            bytes: proxy_header::of_its_own(send.version),
            inside_tls: send.inside_tls,
        });
        let dial = Dial {
            tls,
            timeout: self.wish.timeout,
            keepalive: self.keepalive,
            sends_first: !self.wish.send.is_empty(),
            proxy_header,
        };
        // Reaching it and hearing from it share one time; in Traefik each has its own.
        let deadline = Instant::now() + self.wish.timeout;
        let mut stream = match dial.connect(address).await {
            Ok(stream) => stream,
            Err(DialError::Tcp(error)) if may_pass(&error) => return Outcome::Unasked,
            Err(error) => return Outcome::failed(error),
        };
        let asked = timeout_at(deadline, ask(&mut stream, &self.wish)).await;
        let Ok(asked) = asked else {
            return Outcome::failed(DialError::Timeout(self.wish.timeout));
        };
        if asked.is_ok() {
            // A peer in TLS has the whole handshake, and the end of it. Its own word is not waited for.
            let close = poll_fn(|cx| stream.poll_shutdown(cx, End::Clean, false));
            let _ = timeout_at(deadline, timeout(CLOSING, close)).await;
        }
        asked.map_or_else(Outcome::failed, |()| Outcome::Passed)
    }
}

impl Outcome {
    fn failed(why: impl ToString) -> Self {
        Self::Failed(why.to_string().into())
    }
}

/// Sends what is to be sent, and reads as much as is expected. More may follow: nobody reads it.
async fn ask(stream: &mut Stream, wish: &HealthCheck) -> Result<(), Wrong> {
    let mut rest = &*wish.send;
    while !rest.is_empty() {
        let taken = poll_fn(|cx| stream.poll_write(cx, rest)).await;
        rest = rest.get(taken.map_err(broken)?..).unwrap_or_default();
    }
    if !wish.send.is_empty() {
        poll_fn(|cx| stream.poll_flush(cx)).await.map_err(broken)?;
    }
    let mut answer: Vec<u8> = Vec::new();
    while answer.len() < wish.expect.len() {
        let mut take = |bytes: &[u8]| {
            let room = wish.expect.len() - answer.len();
            answer.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        };
        let end = poll_fn(|cx| stream.poll_receive(cx, &mut take)).await;
        let end = end.map_err(broken)?;
        if !wish.expect.starts_with(&answer) {
            return Err(Wrong::Answer(String::from_utf8_lossy(&answer).into_owned()));
        }
        if end.is_some() && answer.len() < wish.expect.len() {
            return Err(Wrong::End);
        }
    }
    Ok(())
}

/// What TLS 1.3 refuses is heard of when the first answer is read.
fn broken(error: io::Error) -> Wrong {
    match tls::late_refusal(&error) {
        Some(refusal) => Wrong::Io(io::Error::new(error.kind(), refusal.to_string())),
        None => Wrong::Io(error),
    }
}
