//! What a gateway dials: every endpoint, once, and what it does first.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ProtocolVersion;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::remedy::{Dialled, Fault};
use crate::log::printable;
use crate::net::Stream;
use crate::net::dial::Dial;
use crate::net::greeting::{self, First};
use crate::net::promised::Promised;
use crate::snapshot::Snapshot;
use crate::snapshot::upstream::Upstream;
use crate::status::step::Step;
use crate::tls::{self, End};

/// So many endpoints are dialled, and no more.
///
/// 200: a gateway's own; of a catalog of thousands a sample tells as much, and every dial is a stranger's log line.
const MOST: usize = 200;

/// So many at once.
const AT_ONCE: usize = 32;

/// How much is told of what a peer says, in bytes.
const SHOWN: usize = 300;

/// One dial.
struct Tried {
    upstream: usize,
    address: SocketAddr,
    result: Result<(), Fault>,
    took: Duration,
}

/// Dials every endpoint once, with the TLS that a connection would have, hears whether it is refused then, and hangs up.
pub(super) async fn dial(snapshot: &Snapshot, patience: Duration, tell: &mut dyn FnMut(Step)) {
    let upstreams: Vec<&Arc<Upstream>> = snapshot.upstreams().collect();
    let mut waiting = Vec::new();
    for (index, upstream) in upstreams.iter().enumerate() {
        let endpoints = upstream.endpoints().iter();
        let endpoints = endpoints.filter(|endpoint| endpoint.weight > 0);
        waiting.extend(endpoints.map(|endpoint| (index, endpoint.address)));
    }
    let left_out = waiting.len().saturating_sub(MOST);
    waiting.truncate(MOST);
    let mut waiting = waiting.into_iter();
    let (mut dials, mut tried) = (JoinSet::new(), Vec::new());
    loop {
        while dials.len() < AT_ONCE
            && let Some((index, address)) = waiting.next()
        {
            let Some(upstream) = upstreams.get(index) else {
                continue;
            };
            let upstream = Arc::clone(upstream);
            dials.spawn(async move { one(index, &upstream, address, patience).await });
        }
        match dials.join_next().await {
            Some(Ok(done)) => tried.push(done),
            Some(Err(_)) => {}
            None => break,
        }
    }
    tried.sort_by_key(|one| (one.upstream, one.address));
    for (index, upstream) in upstreams.iter().enumerate() {
        let of_it: Vec<_> = tried.iter().filter(|one| one.upstream == index).collect();
        told(upstream, &of_it, tell);
    }
    if left_out > 0 {
        let detail = format!("{left_out} more endpoints were not dialled");
        tell(Step::unknown("upstream", detail));
    }
}

async fn one(upstream: usize, to: &Upstream, address: SocketAddr, patience: Duration) -> Tried {
    let began = Instant::now();
    // Where a PROXY header goes first, a handshake without one tells nothing.
    let bare = to.send_proxy.is_some_and(|header| !header.inside_tls);
    let tls = match to.transport.tls() {
        Ok(tls) => tls.filter(|_| !bare),
        Err(why) => {
            let result = Err(Fault::broken(why));
            return Tried {
                upstream,
                address,
                result,
                took: began.elapsed(),
            };
        }
    };
    let dialled = Dialled::new(address, tls.as_ref(), to);
    let dial = Dial {
        tls,
        timeout: patience,
        keepalive: to.timing.keepalive.unwrap_or_default(),
        sends_first: false,
        proxy_header: None,
    };
    let connected = dial.connect(address).await;
    let mut took = began.elapsed();
    let result = match connected {
        Err(error) => Err(dialled.failed(&error)),
        Ok(Stream::Tcp(_)) => Ok(()),
        Ok(Stream::Tls(stream)) => refused(stream, &dialled).await,
        Ok(Stream::Promised(promised)) => {
            let result = reached(*promised, &dialled, patience).await;
            took = began.elapsed();
            result
        }
    };
    Tried {
        upstream,
        address,
        result,
        took,
    }
}

/// Waits a moment for a refusal. In TLS 1.3 it comes after the handshake: the server has not judged our certificate by then, or that we
/// have none (RFC 8446 §4.4.2.4).
async fn refused(mut stream: Box<tls::Stream>, dialled: &Dialled) -> Result<(), Fault> {
    if stream.agreed().protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return Ok(());
    }
    match greeting::first(&mut *stream, &mut Vec::new()).await {
        Ok(First::Bytes | First::Silence | First::Ended(End::Clean)) => Ok(()),
        Ok(First::Ended(End::Truncated)) => Err(dialled.hung_up()),
        Err(error) => Err(dialled.broke_off(&error)),
    }
}

/// Waits for what a gateway says of its own dial.
async fn reached(
    mut promised: Promised,
    dialled: &Dialled,
    patience: Duration,
) -> Result<(), Fault> {
    let kept = timeout(patience, async {
        while promised.is_awaited() {
            poll_fn(|cx| promised.poll_receive(cx, &mut |_| {})).await?;
        }
        Ok(())
    });
    match kept.await {
        Err(_) => Err(dialled.no_status(patience)),
        Ok(kept) => kept.map_err(|error| dialled.broke_off(&error)),
    }
}

fn told(upstream: &Upstream, tried: &[&Tried], tell: &mut dyn FnMut(Step)) {
    let (step, name) = ("upstream", &upstream.name);
    if tried.is_empty() && upstream.members.is_empty() {
        let why = upstream.empty.as_deref().unwrap_or("no endpoint is known");
        tell(Step::fail(
            step,
            format!("{name} has nothing to dial: {why}"),
            "look at its service and that one's checks, or at its name in DNS",
        ));
    }
    let works = tried.iter().any(|one| one.result.is_ok());
    for one in tried {
        // One that stands in its route has no other name.
        let whose = match one.address.to_string() {
            address if address == **name => address,
            address => format!("{name}: {address}"),
        };
        let how = match upstream.transport.tls() {
            Ok(Some(_)) => "answers, and proves who it is (TLS)",
            _ => "answers",
        };
        let told = match &one.result {
            Ok(()) => Step::ok(step, format!("{whose} {how}")),
            Err(fault) => {
                let detail = format!("{whose}: {}", printable(&fault.detail, SHOWN));
                match works {
                    true => {
                        let hint =
                            format!("its other endpoints are used meanwhile; {}", fault.hint);
                        Step::warn(step, detail, hint)
                    }
                    false => Step::fail(step, detail, fault.hint.as_str()),
                }
            }
        };
        tell(told.took(one.took));
    }
}
