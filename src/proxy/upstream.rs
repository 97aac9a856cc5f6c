//! Reaching a route's upstream, and relaying to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::announce;
use super::client::Client;
use super::failure::{Ending, Failure};
use crate::metrics::{Limit, UpstreamMetrics};
use crate::net::Stream;
use crate::net::dial::{self, Dial, DialError, ProxyHeader};
use crate::net::promised::Unkept;
use crate::net::relay::{self, Outcome, Patience};
use crate::net::session::Session;
use crate::reason::Reason;
use crate::retry::chance;
use crate::snapshot::ejection::EndpointState;
use crate::snapshot::upstream::{Intention, Transport, Upstream};
use crate::snapshot::{Action, Raw, Route, Snapshot};
use crate::tls;

/// A client and its upstream, ready for bytes.
pub(super) struct Pair {
    client: Client,
    upstream: Stream,
    /// What the client has sent already.
    early: Vec<u8>,
    /// In a box: it is asked when a timer fires, and is larger than the rest.
    patience: Box<Patience>,
    /// Whose refusal may still come, where it is dialled over TLS (RFC 8446 §4.4.2.4: after the handshake seems complete).
    dialled: Option<Box<Dialled>>,
}

/// An endpoint that may still refuse the gateway's certificate, or break its promise.
struct Dialled {
    upstream: Arc<str>,
    /// What must allow this, in the mesh.
    intention: Option<Intention>,
    /// What it is asked for, if it is another gateway.
    gateway: Option<Arc<str>>,
    endpoint: SocketAddr,
    state: Arc<EndpointState>,
    metrics: Arc<UpstreamMetrics>,
}

impl Dialled {
    fn at(endpoint: Option<SocketAddr>, upstream: &Upstream) -> Option<Box<Self>> {
        let endpoint = endpoint.filter(|_| matches!(upstream.transport, Transport::Tls(_)))?;
        Some(Box::new(Self {
            upstream: Arc::clone(&upstream.name),
            intention: upstream.intention(),
            gateway: upstream.gateway.clone(),
            endpoint,
            state: Arc::clone(upstream.state_at(endpoint)?),
            metrics: Arc::clone(&upstream.metrics),
        }))
    }

    fn failed(&self, failure: &Failure) {
        if let Some(time) = self.state.failed_late(now()) {
            self.metrics.ejections.inc();
            let Self {
                upstream, endpoint, ..
            } = self;
            tracing::warn!(%upstream, %endpoint, error = %failure, ?time, "the endpoint is passed over");
        }
    }
}

impl Pair {
    /// Dials the upstream for a client that is ready, and closes it if nobody answers. A client that asked for it is told which.
    /// `destination` is where a PROXY header says that it has connected to.
    pub(super) async fn join(
        mut client: Client,
        early: Vec<u8>,
        destination: Option<SocketAddr>,
        upstream: &Upstream,
        snapshot: &Snapshot,
        session: &mut Session,
    ) -> Result<Self, Ending> {
        let limits = &snapshot.limits;
        let patience = Box::new(Patience {
            idle: limits.idle,
            half_closed: upstream.timing.half_closed.unwrap_or(limits.half_closed),
            until: limits
                .lifetime
                .max
                .map(|max| session.started() + early_by_chance(max)),
            ends_then: limits.lifetime.enforce,
            exceeded: Arc::clone(session.exceeded()),
        });
        let proxy_header = upstream.send_proxy.as_ref();
        let proxy_header = proxy_header
            .map(|send| announce::header(send, destination, &client, &mut session.record));
        let sends_first = !early.is_empty();
        match dial(upstream, sends_first, proxy_header, snapshot, session).await {
            Ok(mut stream) => {
                client.reached(&mut stream).await?;
                Ok(Self {
                    client,
                    upstream: stream,
                    early,
                    patience,
                    dialled: Dialled::at(session.record.endpoint, upstream),
                })
            }
            Err(failure) => Err(client.refuse(failure).await),
        }
    }
}

/// Where a connection of a route goes, if what dials it could be made. What is wrong with the route itself is told first, as in
/// `/v1/routes`: it knows better what its owner can mend.
pub(super) fn of<'a>(route: &Route, snapshot: &'a Snapshot) -> Result<&'a Upstream, Failure> {
    if let Action::Broken(why) = &route.action {
        return Err(Failure::RouteBroken(why.clone()));
    }
    let chosen = snapshot.choose(route, now()).map(|upstream| &**upstream);
    chosen.map_err(|why| Failure::RouteBroken(format!("upstream `{}`: {why}", route.upstream)))
}

/// The same for a tunnel.
pub(super) fn of_tunnel<'a>(raw: &Raw, snapshot: &'a Snapshot) -> Result<&'a Upstream, Failure> {
    let chosen = snapshot.choose_of(&raw.upstream, false, now());
    let chosen = chosen.map(|upstream| &**upstream);
    chosen.map_err(|why| Failure::RouteBroken(format!("upstream `{}`: {why}", raw.upstream)))
}

/// Dials the endpoint whose turn it is; while none answers, the next, as often as the limits allow.
///
/// No byte of the client has gone up yet, so that trying another is safe.
async fn dial(
    upstream: &Upstream,
    sends_first: bool,
    proxy_header: Option<ProxyHeader>,
    snapshot: &Snapshot,
    session: &mut Session,
) -> Result<Stream, Failure> {
    let limits = &snapshot.limits;
    let tls = upstream.transport.tls();
    let tls = tls.map_err(|why| Failure::RouteBroken(why.to_string()))?;
    let dial = Dial {
        tls,
        timeout: upstream.timing.dial.unwrap_or(limits.dial),
        keepalive: upstream.timing.keepalive.unwrap_or(limits.keepalive),
        sends_first,
        proxy_header,
    };
    if let Some(denial) = upstream.denial() {
        return Err(Failure::DeniedByIntention(Box::new(denial)));
    }
    let mut told = (
        Failure::NoHealthyUpstream(upstream.empty.clone()),
        session.record.endpoint,
    );
    for attempt in upstream.turn(now()).take(limits.dial_attempts) {
        let address = attempt.endpoint.address;
        session.record.endpoint = Some(address);
        let own = snapshot.own.iter();
        if own.copied().any(|own| dial::reaches(address, own)) {
            told = further(told, (Failure::Loop, Some(address)));
            continue;
        }
        let failure = match dial.connect(address).await {
            Ok(stream) => {
                session.dial_done();
                if attempt.succeeded() {
                    tracing::info!(upstream = %upstream.name, endpoint = %address, "the endpoint answers again");
                }
                return Ok(stream);
            }
            Err(error) => {
                tracing::debug!(upstream = %upstream.name, endpoint = %address, %error, "dial failed");
                match error {
                    DialError::Tls(error) => {
                        let gateway = upstream.gateway.as_ref();
                        Failure::upstream_tls(error, upstream.intention(), gateway)
                    }
                    error => Failure::Dial(error),
                }
            }
        };
        // What the gateway has too little of says nothing of the endpoint.
        if failure.is_of_endpoint()
            && let Some(time) = attempt.failed(now())
        {
            upstream.metrics.ejections.inc();
            tracing::warn!(upstream = %upstream.name, endpoint = %address, error = %failure, ?time, "the endpoint is passed over");
        }
        told = further(told, (failure, Some(address)));
    }
    let (failure, endpoint) = told;
    session.record.endpoint = endpoint;
    Err(failure)
}

/// Of the failures of two endpoints the one that is told. One that does not prove who it is says more of what is wrong than
/// one that is not there, whichever was tried last.
fn further(
    told: (Failure, Option<SocketAddr>),
    next: (Failure, Option<SocketAddr>),
) -> (Failure, Option<SocketAddr>) {
    let rank = |failure: &Failure| match failure.reason() {
        Reason::UpstreamIdentity => 2,
        Reason::UpstreamTls | Reason::RefusedByGateway => 1,
        _ => 0,
    };
    if rank(&next.0) >= rank(&told.0) {
        next
    } else {
        told
    }
}

/// Up to a tenth less, so that what began together does not come back together.
fn early_by_chance(max: Duration) -> Duration {
    max.mul_f64(1.0 - chance() / 10.0)
}

/// The time by the runtime's clock.
fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

/// Relays until the end.
#[expect(
    clippy::manual_async_fn,
    reason = "such a future holds its arguments twice"
)]
pub(super) fn relay(
    mut pair: Pair,
    session: &mut Session,
) -> impl Future<Output = Result<(), Ending>> {
    async move {
        let early = std::mem::take(&mut pair.early);
        let (client, upstream) = (&mut pair.client, &mut pair.upstream);
        let (up, down) = (&mut session.up, &mut session.down);
        let relayed = relay::relay(client, upstream, early, &pair.patience, up, down).await;
        let intention = pair.dialled.as_ref();
        let intention = intention.and_then(|dialled| dialled.intention.clone());
        let denial = (intention.clone())
            .filter(|_| relayed.unanswered)
            .map(Failure::PossibleIntentionDenial);
        let failure = match relayed.outcome {
            Outcome::Closed => None,
            Outcome::ClientFailed(e) => Some(Failure::ClientReset(e)),
            Outcome::UpstreamFailed(e) => {
                let refusal = tls::late_refusal(&e).filter(|_| session.down.bytes() == 0);
                // Each comes in place of the first byte, and tells of the endpoint as a dial does.
                let is_late = refusal.is_some() || Unkept::of(&e).is_some();
                let gateway = pair.dialled.as_ref();
                let gateway = gateway.and_then(|dialled| dialled.gateway.as_ref());
                let failure = match refusal {
                    Some(refusal) => Failure::upstream_tls(refusal, intention, gateway),
                    None => denial.unwrap_or_else(|| Failure::upstream(e)),
                };
                if let Some(dialled) = &pair.dialled
                    && is_late
                    && failure.is_of_endpoint()
                {
                    dialled.failed(&failure);
                }
                return Err(pair.client.fail(failure));
            }
            Outcome::Idle => Some(Failure::Limit(Limit::Idle)),
            Outcome::Lifetime => Some(Failure::Limit(Limit::Lifetime)),
            Outcome::HalfClosed => Some(Failure::HalfClosed),
        };
        denial
            .or(failure)
            .map_or(Ok(()), |failure| Err(failure.into()))
    }
}
