//! The model of a service: everything a connection needs to know, compiled, immutable, read once per connection.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

pub mod certificates;
pub mod compile;
pub mod ejection;
mod middlewares;
pub mod service;
mod shards;
pub mod table;
pub mod upstream;
pub mod weighted;

use crate::config::{AcceptProxy, Cap, Limits, ListenAddress, UnknownName};
use crate::metrics::RouteMetrics;
use crate::name::WildcardDepth;
use crate::rule::Rule;
use crate::tls::server::ServerPolicy;

use certificates::Certificates;
use middlewares::Middlewares;
use service::{Service, ServiceKey, Standing};
use shards::Shards;
use table::{RouteId, Table};
use upstream::Upstream;

/// What every connection is served from until the next one is published.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Counts publications, from 1.
    pub generation: u64,
    /// The routes, indexed.
    pub table: Table,
    /// The edge certificates, indexed.
    pub certificates: Arc<Certificates>,
    upstreams: Shards<Arc<str>, Arc<Upstream>>,
    services: Shards<ServiceKey, Arc<Service>>,
    middlewares: Middlewares,
    /// How many services there are of each standing; one that there was stays, with none.
    standings: BTreeMap<(Source, Standing), usize>,
    /// What each listener does.
    pub listeners: BTreeMap<ListenerId, Listener>,
    /// The addresses that are bound, the admin interface's too: no upstream may be one of them.
    pub own: Arc<[SocketAddr]>,
    /// Every limit and timeout.
    pub limits: Arc<Limits>,
    /// The routes that the last one had and this one has not.
    pub gone: Vec<RouteId>,
}

impl Snapshot {
    /// What a listener does; nothing of one that is gone.
    pub fn listener(&self, id: ListenerId) -> Option<&Listener> {
        self.listeners.get(&id)
    }

    /// The tunnels, in no order; one for each of their addresses.
    pub fn tunnels(&self) -> impl Iterator<Item = &Arc<Raw>> {
        self.listeners
            .values()
            .filter_map(|listener| match listener {
                Listener::Raw(raw) => Some(raw),
                Listener::Tls(_) => None,
            })
    }

    /// Whether there is such a route, or tunnel.
    pub fn has(&self, id: &RouteId) -> bool {
        let is_tunnel = || self.tunnels().any(|raw| raw.name == id.name);
        self.table.route(id).is_some() || (id.source == Source::File && is_tunnel())
    }

    /// An upstream by its name: as the file has it, or `NAME@SOURCE`.
    pub fn upstream(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.upstreams.find(name)
    }

    /// Every upstream, in no order.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.values()
    }

    /// The same with this upstream.
    #[cfg(test)]
    pub(crate) fn with(mut self, upstream: Upstream) -> Self {
        let name = Arc::clone(&upstream.name);
        self.upstreams
            .change(name, |slot| *slot = Some(Arc::new(upstream)));
        self
    }

    /// A service that discovery has told of.
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.services.find(key)
    }

    /// Every service that discovery has told of, in order.
    pub fn services(&self) -> Vec<&Arc<Service>> {
        let mut services: Vec<_> = self.services.values().collect();
        services.sort_unstable_by_key(|service| &service.key);
        services
    }

    /// How many services of each source have become what; one that there was stays, with none.
    pub fn standings(&self) -> &BTreeMap<(Source, Standing), usize> {
        &self.standings
    }
}

/// A listener, for as long as the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u32);

/// What a listener does with those who come.
#[derive(Clone, Debug)]
pub enum Listener {
    /// It speaks TLS, and the names that it hears lead on.
    Tls(Names),
    /// It takes bytes as they are: there is one way for them.
    Raw(Arc<Raw>),
}

impl Default for Listener {
    fn default() -> Self {
        Self::Tls(Names::default())
    }
}

/// The one way of a raw listener: a tunnel of the file.
#[derive(Clone, Debug)]
pub struct Raw {
    /// The tunnel's name. No route of the file has it: sessions, metrics and the log know the tunnel by it as they know a route.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: ListenAddress,
    /// Where its bytes go: an upstream by its name in the snapshot.
    pub upstream: Arc<str>,
    /// The users who may connect to its UNIX sockets; `None` is whoever can.
    pub allow_uids: Option<Arc<[u32]>>,
    /// How many connections it may have; `None` is what the limits say for every route.
    pub max_connections: Option<Cap>,
    /// What its connections count on.
    pub metrics: Arc<RouteMetrics>,
}

/// What a listener does with the names it hears.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// What happens to a client whose name no route matches.
    pub unknown_name: UnknownName,
    /// Whose PROXY headers are believed; `None` is nobody's.
    pub accept_proxy: Option<Arc<AcceptProxy>>,
    /// How many labels a `*` stands for.
    pub wildcard: WildcardDepth,
}

/// The listeners that a route takes clients from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listeners {
    /// Every one there is.
    All,
    /// These.
    Only(Vec<ListenerId>),
}

impl Listeners {
    /// Whether this listener is among them.
    pub fn contain(&self, id: ListenerId) -> bool {
        match self {
            Self::All => true,
            Self::Only(ids) => ids.contains(&id),
        }
    }
}

/// A route, ready to serve.
#[derive(Debug)]
pub struct Route {
    /// Its name, unique among all: `NAME` in the file, `NAME@SOURCE` elsewhere.
    pub name: Arc<str>,
    /// Who told us of it.
    pub source: Source,
    /// The service that asks for it; `None` in the file.
    pub service: Option<ServiceKey>,
    /// Where its clients come in.
    pub listeners: Listeners,
    /// Which clients it takes.
    pub rule: Rule,
    /// Written, or the rule's own.
    pub priority: i64,
    /// What happens to the client's TLS.
    pub action: Action,
    /// Where its bytes go: an upstream by its name in the snapshot.
    pub upstream: Arc<str>,
    /// Whether its upstream must be one of the mesh: the service that asked for the route asked for that too.
    pub mesh: bool,
    /// How many connections it may have; `None` is what the limits say for every route.
    pub max_connections: Option<Cap>,
    /// What it asks of its clients: middlewares by their names in the snapshot. Without one of them it serves nobody.
    pub middlewares: Vec<Arc<str>>,
    /// What its owner should know, though it serves.
    pub warnings: Vec<Arc<str>>,
    /// What its connections count on.
    pub metrics: Arc<RouteMetrics>,
}

impl Route {
    /// Whether a connection could not tell this route from the other.
    fn serves_like(&self, other: &Self) -> bool {
        self.service == other.service
            && self.rule == other.rule
            && self.priority == other.priority
            && self.listeners == other.listeners
            && self.action == other.action
            && self.upstream == other.upstream
            && self.mesh == other.mesh
            && self.max_connections == other.max_connections
            && self.middlewares == other.middlewares
            && self.warnings == other.warnings
    }
}

/// Who told us of a route. The order is the order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The configuration file.
    File,
    /// The tags of services in Consul's catalog.
    Consul,
    /// The tags of Nomad's own services.
    Nomad,
}

impl Source {
    /// The word that stands in `/v1/routes`.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::File => "file",
            Source::Consul => "consul",
            Source::Nomad => "nomad",
        }
    }
}

/// What happens to the client's TLS.
#[derive(Clone, Debug)]
pub enum Action {
    /// The upstream ends it.
    PassThrough,
    /// The gateway ends it, under this policy.
    Terminate {
        /// The policy of its option set.
        policy: Arc<ServerPolicy>,
        /// The name of the set; `None` for the defaults.
        options: Option<Arc<str>>,
    },
    /// Nothing: the route's option set is missing or broken, for this reason. It refuses, and never serves with another set.
    Broken(String),
}

/// Equal when a client is treated the same: the policy is the same object.
impl PartialEq for Action {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::PassThrough, Self::PassThrough) => true,
            (
                Self::Terminate { policy, options },
                Self::Terminate {
                    policy: p,
                    options: o,
                },
            ) => Arc::ptr_eq(policy, p) && options == o,
            (Self::Broken(why), Self::Broken(w)) => why == w,
            _ => false,
        }
    }
}
