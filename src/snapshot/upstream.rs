//! An upstream: its endpoints as addresses, their shares, and whose turn it is.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::ejection::{Attempt, EndpointState};
use super::service::ServiceKey;
use super::weighted::Member;
use crate::config::{HealthCheck, SendProxy, Timing};
use crate::metrics::UpstreamMetrics;
use crate::name::SpiffeId;
use crate::tls::mesh::Identity;

/// What a route's bytes go to.
#[derive(Debug)]
pub struct Upstream {
    /// Its name in the configuration, its address, or `NAME@SOURCE`.
    pub name: Arc<str>,
    /// The service whose endpoints it has; `None` for the file's own.
    pub service: Option<ServiceKey>,
    /// How it is dialled.
    pub transport: Transport,
    /// The name that it is asked for, where it is another gateway: its alerts mean what ours do.
    pub gateway: Option<Arc<str>>,
    /// The PROXY header that it is sent, if any.
    pub send_proxy: Option<SendProxy>,
    /// How its endpoints are checked; `None` is not at all.
    pub check: Option<Arc<HealthCheck>>,
    /// What it has in place of the limits.
    pub timing: Timing,
    /// The upstreams that it stands for, by weight; then it has no endpoints of its own. Empty for any other.
    pub members: Arc<[Member]>,
    /// Why there is no endpoint, where there is more to say than that.
    pub empty: Option<Arc<str>>,
    /// Whether Consul says that an intention denies the gateway.
    pub is_denied: bool,
    /// When the oldest of what it was made of was last confirmed, if that comes from the disk.
    pub restored: Option<SystemTime>,
    /// What outlives the snapshot.
    pub state: Arc<UpstreamState>,
    /// What its connections count on.
    pub metrics: Arc<UpstreamMetrics>,
    endpoints: Vec<Endpoint>,
    /// What is known of each endpoint, in the same order; outlives the snapshot too.
    states: Vec<Arc<EndpointState>>,
}

/// One address that can be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where to dial.
    pub address: SocketAddr,
    /// The address as configured: this one, or the DNS name it came from.
    pub configured: Arc<str>,
    /// Its share among the endpoints; 0 is never dialled.
    pub weight: u32,
}

/// How an upstream is dialled.
#[derive(Clone, Debug, PartialEq)]
pub enum Transport {
    /// Over plain TCP.
    Plain,
    /// Over TLS.
    Tls(UpstreamTls),
    /// Not at all: the TLS that it asks for could not be made, for this reason. Nothing weaker takes its place.
    Broken(Arc<str>),
}

/// TLS towards an upstream.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    /// Roots, client certificate, and what it must prove.
    pub config: Arc<ClientConfig>,
    /// The name in the hello (an address stands for none), which it must prove unless it must prove something else.
    pub server_name: ServerName<'static>,
    /// The SPIFFE ID that it must prove instead.
    pub spiffe: Option<SpiffeId>,
    /// The gateway's identity in the mesh that it is dialled with, if it is a service there.
    pub identity: Option<Arc<Identity>>,
    /// The one of a former mesh, which it may still be in.
    pub former: Option<Arc<Identity>>,
}

/// Equal when the same proof is asked for: the configuration is the same object.
impl PartialEq for UpstreamTls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
            && self.server_name == other.server_name
            && self.spiffe == other.spiffe
    }
}

impl Transport {
    /// What a dial makes TLS with, where it does; or why nothing can be dialled.
    pub fn tls(&self) -> Result<Option<(Arc<ClientConfig>, ServerName<'static>)>, &Arc<str>> {
        match self {
            Self::Plain => Ok(None),
            Self::Tls(tls) => Ok(Some((Arc::clone(&tls.config), tls.server_name.clone()))),
            Self::Broken(why) => Err(why),
        }
    }
}

/// What an upstream remembers from one snapshot to the next.
#[derive(Debug, Default)]
pub struct UpstreamState {
    turn: AtomicU64,
}

impl Upstream {
    /// An upstream; no endpoints means that nothing can be dialled for now.
    pub fn new(
        name: Arc<str>,
        endpoints: Vec<Endpoint>,
        transport: Transport,
        state: Arc<UpstreamState>,
    ) -> Self {
        Self {
            name,
            service: None,
            transport,
            gateway: None,
            send_proxy: None,
            check: None,
            timing: Timing::default(),
            members: Arc::default(),
            empty: None,
            is_denied: false,
            restored: None,
            state,
            metrics: Arc::default(),
            states: endpoints.iter().map(|_| Arc::default()).collect(),
            endpoints,
        }
    }

    /// Whether neither a connection nor an operator could tell this upstream from the other.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.service == other.service
            && self.endpoints == other.endpoints
            && self.transport == other.transport
            && self.gateway == other.gateway
            && self.send_proxy == other.send_proxy
            && self.check == other.check
            && self.timing == other.timing
            && self.members == other.members
            && self.empty == other.empty
            && self.is_denied == other.is_denied
            && self.restored == other.restored
    }

    /// Whether it is a service of the mesh.
    pub fn is_mesh(&self) -> bool {
        matches!(&self.transport, Transport::Tls(tls) if tls.identity.is_some())
    }

    /// What must allow the gateway to dial it, if it is a service of the mesh.
    pub fn intention(&self) -> Option<Intention> {
        let Transport::Tls(UpstreamTls {
            spiffe: Some(destination),
            identity: Some(identity),
            ..
        }) = &self.transport
        else {
            return None;
        };
        Some(Intention {
            source: identity.id.clone(),
            destination: destination.clone(),
        })
    }

    /// What denies the gateway this service, by Consul's word.
    pub fn denial(&self) -> Option<Intention> {
        self.intention().filter(|_| self.is_denied)
    }

    /// What outlives the snapshot of the endpoint at this address.
    pub fn state_at(&self, address: SocketAddr) -> Option<&Arc<EndpointState>> {
        let places = self.endpoints.iter().zip(&self.states);
        let mut places = places.filter(|(endpoint, _)| endpoint.address == address);
        places.next().map(|(_, state)| state)
    }

    /// Its endpoints, resolved; empty when a DNS name has not resolved yet.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Whether there is anything to dial.
    pub(super) fn has_endpoint(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.weight > 0)
    }

    /// Whether there is an endpoint that is not passed over.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        let mut states = self.states();
        states.any(|(endpoint, state)| endpoint.weight > 0 && state.is_open(now))
    }

    /// Its endpoints, with what is known of each.
    pub fn states(&self) -> impl Iterator<Item = (&Endpoint, &EndpointState)> {
        let states = self.states.iter().map(|state| &**state);
        self.endpoints.iter().zip(states)
    }

    /// Its endpoints that are checked, with what is known of each: those that may be dialled, where there is a check.
    pub fn checked(&self) -> impl Iterator<Item = (&Endpoint, &EndpointState)> {
        let is_checked = self.check.is_some();
        self.states()
            .filter(move |(endpoint, _)| is_checked && endpoint.weight > 0)
    }

    /// Goes on where the last upstream of this name was: whose turn it is, and which endpoints fail.
    pub(super) fn go_on_from(&mut self, last: &Self) {
        self.state = Arc::clone(&last.state);
        self.metrics = Arc::clone(&last.metrics);
        let addresses = last.endpoints.iter().map(|endpoint| endpoint.address);
        let known: HashMap<SocketAddr, &Arc<EndpointState>> = addresses.zip(&last.states).collect();
        for (endpoint, state) in self.endpoints.iter().zip(&mut self.states) {
            if let Some(known) = known.get(&endpoint.address) {
                *state = Arc::clone(known);
            }
        }
    }

    /// The endpoints to try for one connection that begins to dial now, each once: the one whose turn it is, those
    /// after it, and at the end those that are passed over, as nothing else is left.
    ///
    /// One that fails its check is passed over too. Where all do they are tried all the same: a check that asks for the wrong
    /// thing must not take down what works, and whoever would be refused loses nothing by a try.
    ///
    /// Weighted round robin among those that are not passed over: of as many turns as their weights add up to, each gets
    /// exactly its weight, and the turns of a heavy one do not come in a row. When all are, it is among all.
    pub fn turn(&self, now: Instant) -> Turn<'_> {
        let is_open =
            |state: &EndpointState| state.is_open(now) && !(self.check.is_some() && state.fails());
        let first = self.first(is_open).or_else(|| self.first(|_| true));
        Turn {
            upstream: self,
            now,
            first: first.unwrap_or(0),
            step: 0,
            tried: Vec::new(),
        }
    }

    /// The place of the endpoint whose turn it is among these; `None` when their weights add up to nothing.
    fn first(&self, among: impl Fn(&EndpointState) -> bool) -> Option<usize> {
        let states = self.states.iter().zip(&self.endpoints).enumerate();
        let states = states.filter(|(_, (state, _))| among(state));
        let weights = states.map(|(place, (_, endpoint))| (place, u64::from(endpoint.weight)));
        self.state.first(weights)
    }
}

impl UpstreamState {
    /// The place whose turn it is among these, each with its weight; `None` when those add up to nothing.
    pub(super) fn first(
        &self,
        weights: impl Iterator<Item = (usize, u64)> + Clone,
    ) -> Option<usize> {
        let total: u64 = weights.clone().map(|(_, weight)| weight).sum();
        if total == 0 {
            return None;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % total;
        let slot = u128::from(turn) * u128::from(stride(total)) % u128::from(total);
        let mut sum = 0;
        weights
            .clone()
            .find(|(_, weight)| {
                sum += u128::from(*weight);
                slot < sum
            })
            .map(|(place, _)| place)
    }
}

/// Who dials whom in the mesh: what an intention of Consul allows or denies. Written out, it tells a person how to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intention {
    /// The gateway.
    pub source: SpiffeId,
    /// The upstream, whose sidecar decides.
    pub destination: SpiffeId,
}

impl fmt::Display for Intention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |id: &SpiffeId| {
            let service = id.service().unwrap_or(id.as_str());
            let namespace = id.namespace().filter(|name| *name != "default");
            namespace.map_or(service.to_owned(), |name| format!("{name}/{service}"))
        };
        let (source, destination) = (name(&self.source), name(&self.destination));
        write!(
            f,
            "`consul intention check {source} {destination}` tells whether an intention denies it"
        )
    }
}

/// The endpoints that one connection tries, one after the other as they fail.
#[derive(Debug)]
pub struct Turn<'a> {
    upstream: &'a Upstream,
    now: Instant,
    first: usize,
    step: usize,
    tried: Vec<usize>,
}

impl<'a> Iterator for Turn<'a> {
    type Item = Attempt<'a>;

    fn next(&mut self) -> Option<Attempt<'a>> {
        let Upstream {
            endpoints, states, ..
        } = self.upstream;
        let count = endpoints.len();
        while self.step < 2 * count {
            let is_last_resort = self.step >= count;
            let place = (self.first + self.step) % count;
            self.step += 1;
            let (endpoint, state) = (endpoints.get(place)?, states.get(place)?);
            if endpoint.weight == 0 || self.tried.contains(&place) {
                continue;
            }
            let attempt = match is_last_resort {
                true => Some(Attempt::last_resort(endpoint, state)),
                false if self.upstream.check.is_some() && state.fails() => None,
                false => Attempt::open(endpoint, state, self.now),
            };
            if attempt.is_some() {
                self.tried.push(place);
                return attempt;
            }
        }
        None
    }
}

/// A step through `total` slots that meets each once and jumps widely: near the golden section, and coprime.
fn stride(total: u64) -> u64 {
    let golden = u64::try_from(u128::from(total) * 618 / 1000).unwrap_or(1);
    (golden.max(1)..)
        .find(|&step| gcd(step, total) == 1)
        .unwrap_or(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
