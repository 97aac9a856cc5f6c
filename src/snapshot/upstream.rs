//! An upstream: its endpoints as addresses, their shares, and whose turn it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::service::ServiceKey;
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
    /// Why there is no endpoint, where there is more to say than that.
    pub empty: Option<Arc<str>>,
    /// What outlives the snapshot.
    pub state: Arc<UpstreamState>,
    endpoints: Vec<Endpoint>,
    /// The sums of the weights up to and with each endpoint.
    shares: Vec<u64>,
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
        let shares = endpoints
            .iter()
            .scan(0, |sum, endpoint| {
                *sum += u64::from(endpoint.weight);
                Some(*sum)
            })
            .collect();
        Self {
            name,
            service: None,
            transport,
            empty: None,
            state,
            endpoints,
            shares,
        }
    }

    /// Whether a connection could not tell this upstream from the other.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.service == other.service
            && self.endpoints == other.endpoints
            && self.transport == other.transport
            && self.empty == other.empty
    }

    /// Whether it is a service of the mesh.
    pub fn is_mesh(&self) -> bool {
        matches!(&self.transport, Transport::Tls(tls) if tls.identity.is_some())
    }

    /// Its endpoints, resolved; empty when a DNS name has not resolved yet.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The endpoints to try for one connection, each once: the one whose turn it is, then those after it.
    ///
    /// Weighted round robin: of as many turns as the weights add up to, each endpoint gets exactly its weight,
    /// and the turns of a heavy one do not come in a row.
    pub fn turn(&self) -> impl Iterator<Item = &Endpoint> {
        let total = self.shares.last().copied().unwrap_or(0);
        let first = match total {
            0 => 0,
            total => {
                let turn = self.state.turn.fetch_add(1, Ordering::Relaxed) % total;
                let slot = u128::from(turn) * u128::from(stride(total)) % u128::from(total);
                self.shares
                    .partition_point(|&share| u128::from(share) <= slot)
            }
        };
        self.endpoints
            .iter()
            .cycle()
            .skip(first)
            .take(self.endpoints.len())
            .filter(|endpoint| endpoint.weight > 0)
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
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn upstream(weights: &[u32]) -> Upstream {
        let endpoints = weights
            .iter()
            .enumerate()
            .map(|(i, &weight)| {
                let address = SocketAddr::from(([10, 0, 0, 1], u16::try_from(i).unwrap()));
                Endpoint {
                    address,
                    configured: address.to_string().into(),
                    weight,
                }
            })
            .collect();
        Upstream::new("u".into(), endpoints, Transport::Plain, Arc::default())
    }

    #[test]
    fn equal_endpoints_take_turns() {
        let upstream = upstream(&[1, 1]);
        let ports: Vec<u16> = (0..4)
            .map(|_| upstream.turn().next().unwrap().address.port())
            .collect();
        assert!(ports == [0, 1, 0, 1] || ports == [1, 0, 1, 0], "{ports:?}");
    }

    #[test]
    fn the_turns_of_a_heavy_endpoint_do_not_come_in_a_row() {
        let upstream = upstream(&[2, 1, 1]);
        let ports: Vec<u16> = (0..8)
            .map(|_| upstream.turn().next().unwrap().address.port())
            .collect();
        assert!(ports.windows(3).all(|w| w != [0, 0, 0]), "{ports:?}");
    }

    #[test]
    fn an_endpoint_of_weight_zero_is_never_tried() {
        let upstream = upstream(&[0, 3, 0]);
        for _ in 0..6 {
            let ports: Vec<u16> = upstream.turn().map(|e| e.address.port()).collect();
            assert_eq!(ports, [1]);
        }
    }

    #[test]
    fn without_endpoints_there_is_no_turn() {
        assert_eq!(upstream(&[]).turn().count(), 0);
        assert_eq!(upstream(&[0, 0]).turn().count(), 0);
    }

    proptest! {
        #[test]
        fn each_endpoint_gets_exactly_its_share(weights in prop::collection::vec(0u32..20, 1..8)) {
            let upstream = upstream(&weights);
            let total: u32 = weights.iter().sum();
            let mut seen = HashMap::new();
            for _ in 0..total {
                *seen.entry(upstream.turn().next().unwrap().address.port()).or_insert(0) += 1;
            }
            for (i, &weight) in weights.iter().enumerate() {
                prop_assert_eq!(seen.get(&u16::try_from(i).unwrap()).copied().unwrap_or(0), weight);
            }
        }

        #[test]
        fn each_endpoint_is_tried_once(weights in prop::collection::vec(1u32..20, 1..8)) {
            let upstream = upstream(&weights);
            let mut ports: Vec<u16> = upstream.turn().map(|e| e.address.port()).collect();
            ports.sort_unstable();
            let all: Vec<u16> = (0..u16::try_from(weights.len()).unwrap()).collect();
            prop_assert_eq!(ports, all);
        }
    }
}
