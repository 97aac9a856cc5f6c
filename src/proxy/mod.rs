//! The data path: what happens to a connection, from its first byte to its last.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::AlertDescription;
use tokio::net::TcpStream;
use tokio::time::timeout_at;

mod announce;
mod client;
mod failure;
pub mod hello;
mod middlewares;
mod origin;
mod raw;
mod status;
mod terminate;
mod upstream;

use crate::config::{Limits, ListenAddress};
use crate::log;
use crate::metrics::Limit;
use crate::net::limits::{Admission, Limiter, Room};
use crate::net::raw::{Accepted, Raw, Socket};
use crate::net::session::{Session, Sessions};
use crate::net::{self, Stream};
use crate::reason::Reason;
use crate::rule::Facts;
use crate::snapshot::{Action, Listener, ListenerId, Names, Snapshot};
use client::Client;
use failure::{Answer, Ending, Failure};
use hello::Hello;
use upstream::Pair;

/// Serves connections, each from the snapshot of the moment it came.
#[derive(Clone, Debug)]
pub struct Proxy {
    snapshot: Arc<ArcSwap<Snapshot>>,
    sessions: Sessions,
    limiter: Arc<Limiter>,
}

impl Proxy {
    /// A proxy that reads this cell, and whose connections are these sessions.
    pub fn new(snapshot: Arc<ArcSwap<Snapshot>>, sessions: Sessions) -> Self {
        let limiter = Arc::new(Limiter::new(Arc::clone(sessions.exceeded())));
        Self {
            snapshot,
            sessions,
            limiter,
        }
    }

    /// Who is in.
    pub fn limiter(&self) -> &Arc<Limiter> {
        &self.limiter
    }

    /// Keeps room for one who waits to be accepted; `None` where the limits leave none at the moment.
    pub fn room(&self) -> Option<Room> {
        self.limiter.reserve(&self.snapshot.load().limits)
    }

    /// What whoever is accepted at the moment gets.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// One connection, from accept to the end of its session, by the snapshot of when it was accepted. `address` is the
    /// listener's, for the record.
    pub async fn handle(
        &self,
        accepted: Accepted,
        (listener, address): (ListenerId, ListenAddress),
        snapshot: Arc<Snapshot>,
    ) {
        let (socket, client) = accepted.into_parts();
        let (mut session, told) = self.sessions.begin(client, address);
        let mut admission = Admission::new(&self.limiter);
        let ended = tokio::select! {
            ended = self.serve(socket, (listener, snapshot), &mut session, &mut admission) => ended,
            Ok(reason) = told => Err(Failure::Told(reason).into()),
        };
        match ended {
            Ok(()) => session.end(Reason::Closed, None),
            Err(Ending { failure, tcp }) => {
                session.end(failure.reason(), Some(failure.to_string()));
                drop(session);
                if let Some(tcp) = tcp {
                    Box::pin(net::close(tcp)).await;
                }
            }
        }
    }

    /// Admission, origin, hello, route, its middlewares, terminate or pass, dial, relay. A raw listener's are fewer: admission,
    /// user, dial, relay.
    async fn serve(
        &self,
        socket: Socket,
        (listener, snapshot): (ListenerId, Arc<Snapshot>),
        session: &mut Session,
        admission: &mut Admission<'_>,
    ) -> Result<(), Ending> {
        // Nothing weaker takes the place of what it asked for.
        let Some(at) = snapshot.listener(listener).cloned() else {
            return Err(Failure::ListenerGone.reset(socket));
        };
        if let Err(limit) = admit(session.record.client, &at, &snapshot.limits, admission) {
            return Err(Failure::Limit(limit).reset(socket));
        }
        // The snapshot and the hello end here, so that no tunnel keeps an old one alive; the box, so that none keeps the
        // room that a handshake takes.
        let at = (listener, at);
        let pair = Box::pin(enter(snapshot, socket, at, session, admission)).await?;
        upstream::relay(pair, session).await
    }
}

/// By the kind of the listener. No UNIX socket hears names.
async fn enter(
    snapshot: Arc<Snapshot>,
    socket: Socket,
    (listener, at): (ListenerId, Listener),
    session: &mut Session,
    admission: &mut Admission<'_>,
) -> Result<Pair, Ending> {
    match (socket, session.record.client, at) {
        (socket, _, Listener::Raw(at)) => {
            let client = Box::new(Raw::new(socket));
            raw::establish(snapshot, client, at, session, admission).await
        }
        (Socket::Tcp(tcp), log::Client::Tcp(peer), Listener::Tls(at)) => {
            establish(snapshot, (tcp, peer), (listener, at), session, admission).await
        }
        (socket, _, Listener::Tls(_)) => Err(Failure::ListenerGone.reset(socket)),
    }
}

/// Before anything is made for it.
fn admit(
    client: log::Client,
    at: &Listener,
    limits: &Limits,
    admission: &mut Admission<'_>,
) -> Result<(), Limit> {
    admission.accepted(limits)?;
    // A user of this machine comes from no network.
    let Some(ip) = client.address().map(|address| address.ip()) else {
        return Ok(());
    };
    // A proxy is not where its clients come from: its header tells that.
    if let Listener::Tls(at) = at
        && (at.accept_proxy.as_ref()).is_some_and(|proxies| proxies.lists(ip))
    {
        return Ok(());
    }
    // Programs of this machine are no strangers, who alone are held to a rate.
    if let (Listener::Raw(_), true) = (at, ip.to_canonical().is_loopback()) {
        let mut limits = limits.clone();
        limits.accept_rate.per_second = None;
        return admission.source(ip, &limits);
    }
    admission.source(ip, limits)
}

async fn establish(
    snapshot: Arc<Snapshot>,
    (mut tcp, peer): (TcpStream, SocketAddr),
    (listener, at): (ListenerId, Names),
    session: &mut Session,
    admission: &mut Admission<'_>,
) -> Result<Pair, Ending> {
    let limits = &snapshot.limits;
    let deadline = session.started() + limits.handshake;

    let origin = origin::read(&mut tcp, peer, at.accept_proxy.as_deref());
    let (origin, early) = match timeout_at(deadline, origin).await {
        Ok(Ok(origin)) => origin,
        Ok(Err(failure)) => return Err(failure.answered(tcp, Answer::Close)),
        Err(_) => return Err(Failure::HelloTimeout.into()),
    };
    origin.record(&mut session.record);
    let client = origin.client().ip();
    if let Err(limit) = admission.source(client, limits) {
        return Err(Failure::Limit(limit).answered(tcp, Answer::Reset));
    }

    let hello = Hello::read(&mut tcp, early, limits.hello_bytes);
    let hello = match timeout_at(deadline, hello).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(error)) => return Err(failure::bad_hello(tcp, error)),
        Err(_) => return Err(Failure::HelloTimeout.into()),
    };
    session.hello_done(hello.sni.clone(), hello.alpn.first().cloned());

    let facts = Facts {
        name: hello.name.as_ref(),
        client,
        alpn: &hello.alpn,
        wildcard: at.wildcard,
    };
    let Some(route) = snapshot.table.find(listener, &facts) else {
        let failure = Failure::no_route(hello.name.as_ref());
        return Err(failure.answered(tcp, at.unknown_name.into()));
    };
    session.routed(&route.name, &route.upstream, &route.metrics);
    let asks = (client, hello.alpn.as_slice());
    let tcp = middlewares::pass(tcp, asks, route, &snapshot, admission)?;
    let cap = route.max_connections.unwrap_or(limits.per_route);
    if let Err(limit) = admission.routed(&route.metrics, cap) {
        let alert = status::over_limit(&hello.alpn, AlertDescription::InternalError);
        return Err(Failure::Limit(limit).answered(tcp, Answer::Alert(alert)));
    }
    let upstream = match upstream::of(route, &snapshot) {
        Ok(upstream) => upstream,
        Err(broken) => {
            return Err(broken.answered(tcp, Answer::Alert(AlertDescription::InternalError)));
        }
    };
    // Of a weighted one the member.
    session.record.upstream = Some(Arc::clone(&upstream.name));

    let (client, early) = match &route.action {
        Action::PassThrough => {
            session.handshake_skipped();
            (Stream::Tcp(tcp), hello.into_bytes())
        }
        Action::Terminate { policy, .. } => {
            let certificates = &snapshot.certificates;
            let mut tls = terminate::accept(tcp, hello, policy, certificates, deadline).await?;
            session.handshake_done(tls.agreed());
            // Whoever speaks first does so with the end of its handshake, mostly: no segment of its own goes up then.
            let early = tls.take_early();
            (Stream::Tls(tls), early)
        }
        Action::Broken(why) => {
            let failure = Failure::RouteBroken(why.clone());
            return Err(failure.answered(tcp, Answer::Alert(AlertDescription::InternalError)));
        }
    };
    admission.established();
    let (client, destination) = (Client::Edge(client), origin.destination());
    Pair::join(client, early, destination, upstream, &snapshot, session).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1,376 B: the session's record, both ends and what a relay remembers; what establishing takes, twice as much, is in
    /// a box that ends with it. A hundred thousand tunnels are 130 MB of futures.
    const LARGEST: usize = 1376;

    /// The size of the future that a function makes of these.
    fn size<'a, F: Future + 'a>(
        _: impl Fn(&'a Proxy, Accepted, (ListenerId, ListenAddress), Arc<Snapshot>) -> F,
    ) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_future_of_a_connection_is_no_larger_than_its_bound() {
        assert!(size(Proxy::handle) <= LARGEST, "{}", size(Proxy::handle));
    }
}
