//! Reaching a route's upstream, and relaying to it.

use super::failure::{Answer, Ending, Failure};
use crate::net::Stream;
use crate::net::dial::{self, Dial, DialError};
use crate::net::relay::{self, Outcome, Patience, Socket};
use crate::net::session::Session;
use crate::snapshot::upstream::{Transport, Upstream};
use crate::snapshot::{Route, Snapshot};
use crate::tls;

/// A client and its upstream, ready for bytes.
pub(super) struct Pair {
    client: Stream,
    upstream: Stream,
    /// What the client has sent already.
    early: Vec<u8>,
    patience: Patience,
}

impl Pair {
    /// Dials the upstream for a client that is ready, and closes it if nobody answers.
    pub(super) async fn join(
        client: Stream,
        early: Vec<u8>,
        upstream: &Upstream,
        snapshot: &Snapshot,
        session: &mut Session,
    ) -> Result<Self, Ending> {
        let limits = &snapshot.limits;
        let patience = Patience {
            idle: limits.idle,
            half_closed: limits.half_closed,
        };
        match dial(upstream, snapshot, session).await {
            Ok(upstream) => Ok(Self {
                client,
                upstream,
                early,
                patience,
            }),
            Err(failure) => Err(failure.answered(client.into_tcp(), Answer::Close)),
        }
    }
}

/// Where a route's bytes go, if what dials it could be made.
pub(super) fn of<'a>(route: &Route, snapshot: &'a Snapshot) -> Result<&'a Upstream, Failure> {
    let broken = |why: &str| {
        let name = &route.upstream;
        Err(Failure::RouteBroken(format!("upstream `{name}`: {why}")))
    };
    match snapshot.upstream(&route.upstream) {
        None => broken("it does not exist"),
        Some(upstream) => match &upstream.transport {
            Transport::Broken(why) => broken(why),
            Transport::Plain | Transport::Tls(_) => Ok(upstream),
        },
    }
}

/// Dials the endpoint whose turn it is; while none answers, the next, as often as the limits allow.
///
/// No byte of the client has gone up yet, so that trying another is safe.
async fn dial(
    upstream: &Upstream,
    snapshot: &Snapshot,
    session: &mut Session,
) -> Result<Stream, Failure> {
    let limits = &snapshot.limits;
    let tls = match &upstream.transport {
        Transport::Plain => None,
        Transport::Tls(tls) => Some((tls.config.clone(), tls.server_name.clone())),
        Transport::Broken(why) => return Err(Failure::RouteBroken(why.to_string())),
    };
    let dial = Dial {
        tls,
        timeout: limits.dial,
        keepalive: limits.keepalive,
    };
    let mut failure = Failure::NoEndpoint;
    for endpoint in upstream.turn().take(limits.dial_attempts) {
        session.record.endpoint = Some(endpoint.address);
        let own = snapshot.own.iter();
        if own.copied().any(|own| dial::reaches(endpoint.address, own)) {
            failure = Failure::Loop;
            continue;
        }
        match dial.connect(endpoint.address).await {
            Ok(stream) => {
                session.dial_done();
                return Ok(stream);
            }
            Err(error) => {
                tracing::debug!(upstream = %upstream.name, endpoint = %endpoint.address, %error, "dial failed");
                failure = Failure::Dial(error);
            }
        }
    }
    Err(failure)
}

/// Relays until the end.
pub(super) async fn relay(pair: Pair, session: &mut Session) -> Result<(), Ending> {
    let Pair {
        mut client,
        mut upstream,
        early,
        patience,
    } = pair;
    let (up, down) = (&mut session.up, &mut session.down);
    match relay::relay(&mut client, &mut upstream, early, patience, up, down).await {
        Outcome::Closed => Ok(()),
        Outcome::ClientFailed(e) => Err(Failure::ClientReset(e).into()),
        // The client may still be sending; a reset on top would cost it the upstream's last words.
        Outcome::UpstreamFailed(e) => {
            let refused = tls::late_refusal(&e).filter(|_| session.down.bytes() == 0);
            let failure = match refused {
                Some(refused) => Failure::Dial(DialError::Tls(refused)),
                None => Failure::UpstreamReset(e),
            };
            Err(failure.answered(client.into_tcp(), Answer::Close))
        }
        Outcome::Idle => Err(Failure::Idle.into()),
        Outcome::HalfClosed => Err(Failure::HalfClosed.into()),
    }
}
