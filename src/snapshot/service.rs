//! The shape of a service, as every source of discovery tells it: its upstreams, its routes, and what it asked for in vain.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Source;
use super::upstream::Endpoint;
use crate::config::{HealthCheck, Middleware, ProxyVersion};
use crate::name::{HostName, MeshService};
use crate::rule::Rule;
use crate::status::State;
use crate::tls::mesh::Identity;

/// What the control plane has learnt since the last snapshot. Changes are taken in the order in which they were sent.
#[derive(Clone, Debug)]
pub enum Change {
    /// A service is as this from now on: all of it, not what is new about it.
    Service(Arc<Service>),
    /// A service is gone, with its routes.
    Gone(ServiceKey),
    /// The gateway's own identity in the mesh, shown to upstreams from the next connection on; or none, as what there was
    /// serves no more.
    Identity(Option<Arc<Identity>>),
    /// What a part has told comes from the disk, where it was kept when it was last confirmed then; or none of it does
    /// any more.
    Restored(Arc<str>, Option<SystemTime>),
    /// Whether what the disk keeps of a part is refused, and its source has told nothing in its place.
    Refused(Arc<str>, bool),
    /// Whether Consul says that an intention denies the gateway this service.
    Intention(ServiceKey, bool),
    /// What a part says of itself. Told when what was sent before it is being served.
    State(Arc<str>, State),
    /// A part is no more, and says nothing of itself from now on.
    Ended(Arc<str>),
}

/// What makes a service the same service from one snapshot to the next.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// Who told us of it.
    pub source: Source,
    /// The label of the catalog that it is in, where its source has several; `None` for the first.
    pub place: Option<Arc<str>>,
    /// Its name there.
    pub name: Arc<str>,
}

impl ServiceKey {
    /// What stands after the `@` in names of its catalog: `consul`, or `consul-LABEL`.
    pub fn provider(&self) -> Cow<'static, str> {
        provider(self.source, self.place.as_deref())
    }

    /// Why nothing can be dialled where the source has no such service, for people.
    pub fn unknown(&self) -> Arc<str> {
        let at = self.place.iter().map(|place| format!(" ({place})"));
        let at: String = at.collect();
        format!(
            "{}{at} has no service `{}`",
            self.source.as_str(),
            self.name
        )
        .into()
    }
}

/// What stands after the `@` in names: the word of a source, with the label of the catalog if it has one.
pub fn provider(source: Source, place: Option<&str>) -> Cow<'static, str> {
    match place {
        None => source.as_str().into(),
        Some(place) => format!("{}-{place}", source.as_str()).into(),
    }
}

/// A service that discovery has found: the unit in which changes are published.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Which service it is.
    pub key: ServiceKey,
    /// Where its routes, and routes of the file, can send bytes.
    pub upstreams: Vec<ServiceUpstream>,
    /// What its tags ask for, and gets. Names are unique within the source.
    pub routes: Vec<ServiceRoute>,
    /// What its tags define for routes to ask of their clients, its own and others' of the source, by `NAME@SOURCE`; or
    /// what is wrong with that.
    pub middlewares: BTreeMap<Arc<str>, Result<Middleware, Arc<str>>>,
    /// What its tags ask for in vain.
    pub skipped: Vec<Skipped>,
    /// When its source last confirmed all this, if it comes from the disk; `None` where its source has told it.
    pub restored: Option<SystemTime>,
    /// What else its owner may want to know: that tags of it mean nothing here, or instances do not count. No failure.
    pub notes: Vec<Arc<str>>,
}

impl Service {
    /// The same with nothing to dial, for this reason: its routes stay, and refuse.
    pub fn emptied(&self, why: &Arc<str>) -> Self {
        let mut emptied = self.clone();
        for route in &mut emptied.routes {
            route.broken.get_or_insert_with(|| Arc::clone(why));
        }
        for upstream in &mut emptied.upstreams {
            upstream.endpoints.clear();
            upstream.named.clear();
            upstream.empty = Some(Arc::clone(why));
        }
        emptied
    }

    /// Whether clients may depend on it, of its own routes or of others'.
    pub fn is_used(&self) -> bool {
        !self.upstreams.is_empty() || !self.middlewares.is_empty()
    }

    /// Whether there is nothing in it that anybody could see or use.
    pub fn is_idle(&self) -> bool {
        self.routes.is_empty() && self.skipped.is_empty() && self.middlewares.is_empty()
    }

    /// What has become of what it asked for.
    pub fn standing(&self) -> Standing {
        match (self.routes.is_empty(), self.skipped.is_empty()) {
            (false, true) => Standing::Routed,
            (false, false) => Standing::Partly,
            (true, false) => Standing::Skipped,
            (true, true) => Standing::Unrouted,
        }
    }
}

/// What has become of what a service asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It has routes, and all that it asked for.
    Routed,
    /// It has routes, and asked for something else in vain.
    Partly,
    /// All that it asked for was in vain.
    Skipped,
    /// It asks for no route: the file names it, routes of others name its middlewares, or its tags are for somebody else.
    Unrouted,
}

impl Standing {
    /// The word that stands in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Routed => "routed",
            Standing::Partly => "partly",
            Standing::Skipped => "skipped",
            Standing::Unrouted => "unrouted",
        }
    }
}

/// Endpoints that a service has at the moment.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceUpstream {
    /// `NAME@SOURCE`; or the name of the upstream in the file that stands for this service.
    pub name: Arc<str>,
    /// The instances that may be dialled: healthy, enabled, with the weights that they ask for.
    pub endpoints: Vec<Endpoint>,
    /// The same of those that are registered with a name: they are dialled at what it resolves to.
    pub named: Vec<NamedEndpoint>,
    /// Who they prove to be, over mutual TLS. `None` is plain TCP.
    pub mesh: Option<MeshService>,
    /// Why nothing can be dialled, for people: `all 3 instances are critical`.
    pub empty: Option<Arc<str>>,
    /// How the instances are to be checked by the gateway itself; `None` is not at all.
    pub check: Option<Arc<HealthCheck>>,
    /// How its tags ask for it to be dialled; or why it must not be, as they ask for what cannot be had.
    pub dialling: Result<Dialling, Arc<str>>,
}

/// What tags ask for beyond a connection to an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dialling {
    /// TLS, with what the transport says of it. The mesh has its own in any case.
    pub tls: bool,
    /// A transport of the file, by its name there. Without it the upstream must not be dialled.
    pub transport: Option<Arc<str>>,
    /// A PROXY header, where the tags themselves ask for it.
    pub send_proxy: Option<ProxyVersion>,
    /// How long one direction may outlive the other, where the tags themselves say it.
    pub half_closed: Option<Duration>,
}

/// An instance that is registered with a DNS name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedEndpoint {
    /// What is resolved, by the control plane.
    pub host: HostName,
    /// The port at each of its addresses.
    pub port: u16,
    /// The instance.
    pub configured: Arc<str>,
    /// Its share among the endpoints, at each of its addresses; 0 is never dialled.
    pub weight: u32,
    /// Whether it may be dialled where the name stands for a loopback or link-local address.
    pub is_local_allowed: bool,
}

impl NamedEndpoint {
    /// What can be dialled of what the name resolves to.
    pub fn endpoints(&self, addresses: &[IpAddr]) -> impl Iterator<Item = Endpoint> {
        let addresses = addresses.iter().map(IpAddr::to_canonical);
        let is_dialled = |ip: &IpAddr| {
            let is_nowhere = ip.is_unspecified() || ip.is_multicast();
            !is_nowhere && (self.is_local_allowed || !is_local(*ip))
        };
        addresses.filter(is_dialled).map(|ip| Endpoint {
            address: SocketAddr::new(ip, self.port),
            configured: Arc::clone(&self.configured),
            weight: self.weight,
        })
    }
}

/// Whether an address means another machine to each that dials it: loopback (RFC 1122 §3.2.1.3, RFC 4291 §2.5.3) and
/// link-local ones (RFC 3927, RFC 4291 §2.5.6), among them the clouds' metadata services.
pub fn is_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    }
}

/// A route that a service asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceRoute {
    /// `NAME@SOURCE`, unique within the source.
    pub name: Arc<str>,
    /// Which clients it takes.
    pub rule: Rule,
    /// The priority that was asked for, if one was.
    pub priority: Option<i64>,
    /// What happens to the client's TLS.
    pub tls: ServiceTls,
    /// An upstream by its name in the snapshot: this service's, another's, or the file's.
    pub upstream: Arc<str>,
    /// What it asks of its clients: middlewares by their names in the snapshot.
    pub middlewares: Vec<Arc<str>>,
    /// Whether that must be one of the mesh, whoever's it is.
    pub mesh: bool,
    /// Why the route cannot serve and refuses its clients: what it needs is missing, and nothing weaker may take its place.
    pub broken: Option<Arc<str>>,
    /// What its owner should know, though it serves.
    pub warnings: Vec<Arc<str>>,
}

/// What happens to the client's TLS on a service's route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceTls {
    /// The upstream ends it.
    PassThrough,
    /// The gateway ends it, with an option set of the file; `None` for the defaults.
    Terminate(Option<String>),
}

/// Something that a service asked for and does not get, as `/v1/routes` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The instance that asked, where it was not the whole service.
    pub instance: Option<Arc<str>>,
    /// The router that its tags name, where it was one.
    pub router: Option<Arc<str>>,
    /// Why not, for the people who own the service.
    pub reason: Arc<str>,
}
