//! What comes through the gateway: its status, what it makes of a client certificate, and the target's first bytes.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::{failed, step_of};
use crate::client::connect::Connect;
use crate::client::exit::Exit;
use crate::client::failure::Failure;
use crate::net;
use crate::net::frame::{Decoder, Frame};
use crate::net::greeting::{self, First, GREETING};
use crate::status::step::Step;
use crate::tls::client::Witness;
use crate::tls::options::PORTCULLIS;
use crate::tls::{self, End, chain};

/// How many of the first bytes are shown.
const SHOWN: usize = 60;

/// So many CAs are told of that a client certificate may come from.
const AUTHORITIES: usize = 3;

/// Hears what the gateway says of its dial, and then the target.
pub(super) async fn hear(
    connect: &Connect,
    tunnel: Box<tls::Stream>,
    witness: &Witness,
    tell: &mut dyn FnMut(Step),
) -> Result<(), Exit> {
    let mut hearing = Hearing {
        is_promised: tunnel.agreed().alpn_protocol() == Some(PORTCULLIS),
        tunnel,
        came: Vec::new(),
    };
    let began = Instant::now();
    let status = match hearing.is_promised {
        true => hearing.status(connect.timeout).await,
        false => Ok(()),
    };
    let took = began.elapsed();
    let greeting = match status {
        Ok(()) => hearing.greeting().await,
        Err(failure) => Err(failure),
    };
    let heard = said(connect, &hearing, witness, greeting, took, tell);
    let closing = async {
        let _ = poll_fn(|cx| hearing.tunnel.poll_shutdown(cx, End::Clean)).await;
        net::close(hearing.tunnel.into_tcp()).await;
    };
    let _ = timeout(GREETING, closing).await;
    heard
}

/// Tells of all that was heard, in the order in which it happens.
fn said(
    connect: &Connect,
    hearing: &Hearing,
    witness: &Witness,
    greeting: Result<Greeting, Failure>,
    took: Duration,
    tell: &mut dyn FnMut(Step),
) -> Result<(), Exit> {
    let report = greeting
        .as_ref()
        .err()
        .map(|failure| connect.report(failure));
    let step = report.as_ref().map(|report| match &greeting {
        Err(Failure::Refused(_) | Failure::BadFrame(_)) => "upstream",
        _ => step_of(report.exit),
    });
    if let Some(report) = &report
        && step == Some("client certificate")
    {
        let mut failed = failed("client certificate", report);
        failed.detail.push_str(&takers(witness));
        tell(failed.took(took));
        return Err(report.exit);
    }
    tell(certificate(connect, witness));
    let status_came = greeting.is_ok() || matches!(&greeting, Err(Failure::NothingCame { .. }));
    let target = &connect.target;
    if hearing.is_promised && status_came {
        let detail = format!("the gateway has reached {target}");
        tell(Step::ok("upstream", detail).took(took));
    } else if !hearing.is_promised {
        let why = match connect.alpn.is_empty() {
            true => "the gateway does not speak portcullis/1, or passes TLS through",
            false => "with --alpn the gateway is not asked for its status",
        };
        tell(Step::unknown("upstream", format!("cannot be told: {why}")));
    }
    let greeting = match (greeting, report) {
        (Ok(greeting), _) => greeting,
        (Err(_), Some(report)) => {
            let step = match status_came {
                true => "first bytes",
                false => step.unwrap_or("upstream"),
            };
            tell(failed(step, &report).took(took));
            return Err(report.exit);
        }
        (Err(_), None) => return Err(Exit::BrokeOff),
    };
    tell(match greeting {
        Greeting::Bytes(bytes, waited) => Step::ok("first bytes", shown(&bytes)).took(waited),
        Greeting::Silence => Step::unknown(
            "first bytes",
            format!(
                "none within {GREETING:?}: so it is where the client speaks first (HTTP, RDP, PostgreSQL); an SSH server greets at once"
            ),
        ),
        Greeting::Closed(waited) => Step::warn(
            "first bytes",
            format!("{target} closed the connection without a word"),
            "what stands there may not be ready, or want something first: its own log says more",
        )
        .took(waited),
    });
    Ok(())
}

/// What the gateway made of a client certificate, where it has gone on.
fn certificate(connect: &Connect, witness: &Witness) -> Step {
    let name = "client certificate";
    let Some(asked) = witness.asked() else {
        return Step::ok(name, "the gateway asks for none");
    };
    match &connect.certificate {
        Some((chain, _)) if asked.was_shown => Step::ok(
            name,
            format!("asked for, and {} was taken", chain.display()),
        ),
        _ => Step::ok(name, "asked for, and not required: none was shown"),
    }
}

/// Whose certificates the gateway takes, if it says so.
pub(super) fn takers(witness: &Witness) -> String {
    let asked = witness.asked().unwrap_or_default();
    let names: Vec<_> = (asked.authorities.iter())
        .filter_map(|name| chain::authority(name))
        .take(AUTHORITIES)
        .collect();
    match names.as_slice() {
        [] => String::new(),
        names => format!("; it takes those signed by {}", names.join(" or ")),
    }
}

fn shown(bytes: &[u8]) -> String {
    let cut = bytes.get(..SHOWN).unwrap_or(bytes);
    let more = match bytes.len() > SHOWN {
        true => "...",
        false => "",
    };
    format!("{}{more}", cut.escape_ascii())
}

/// What the target did at first.
enum Greeting {
    /// It sent these, after so long.
    Bytes(Vec<u8>, Duration),
    /// Nothing, yet.
    Silence,
    /// It ended its direction, with a `close_notify`.
    Closed(Duration),
}

struct Hearing {
    tunnel: Box<tls::Stream>,
    is_promised: bool,
    /// What has come and was not looked at; a record of TLS at most.
    came: Vec<u8>,
}

impl Hearing {
    /// Waits for what the gateway says of its dial.
    async fn status(&mut self, patience: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + patience;
        let mut decoder = Decoder::default();
        loop {
            let more = timeout_at(deadline, self.more()).await;
            let end = more
                .map_err(|_| Failure::NoFrame(patience))?
                .map_err(|error| broken(error, None))?;
            let came = std::mem::take(&mut self.came);
            let (frame, taken) = decoder.take(&came).map_err(Failure::BadFrame)?;
            self.came = came.get(taken..).unwrap_or_default().to_vec();
            match (frame, end) {
                (Some(Frame::Ok), _) => return Ok(()),
                (Some(Frame::Failed(refusal)), _) => return Err(Failure::Refused(refusal)),
                (None, Some(_)) => return Err(Failure::NoStatus),
                (None, None) => {}
            }
        }
    }

    /// Waits a moment for the target's first bytes.
    async fn greeting(&mut self) -> Result<Greeting, Failure> {
        let was_reached = self.is_promised;
        let began = Instant::now();
        let heard = greeting::first(&mut *self.tunnel, &mut self.came).await;
        match heard.map_err(|error| broken(error, Some(was_reached)))? {
            First::Bytes => Ok(Greeting::Bytes(self.came.clone(), began.elapsed())),
            First::Silence => Ok(Greeting::Silence),
            First::Ended(End::Truncated) => Err(Failure::NothingCame { was_reached }),
            First::Ended(End::Clean) => Ok(Greeting::Closed(began.elapsed())),
        }
    }

    /// Reads once; whether that was the end.
    async fn more(&mut self) -> io::Result<Option<End>> {
        let (tunnel, came) = (&mut self.tunnel, &mut self.came);
        poll_fn(|cx| tunnel.poll_receive(cx, &mut |bytes| came.extend_from_slice(bytes))).await
    }
}

/// An end that was not announced, before the status or, if `reached` is told, before the target's first byte.
fn broken(error: io::Error, reached: Option<bool>) -> Failure {
    match (tls::late_refusal(&error), reached) {
        (Some(refused), _) => Failure::Handshake(refused),
        (None, Some(was_reached)) if error.kind() == io::ErrorKind::ConnectionReset => {
            Failure::NothingCame { was_reached }
        }
        (None, None) if error.kind() == io::ErrorKind::ConnectionReset => Failure::NoStatus,
        _ => Failure::BrokeOff(error),
    }
}
