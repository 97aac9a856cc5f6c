//! A service as its source tells it, before its tags are read: the one shape for all sources.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::name::MeshService;
use crate::snapshot::service::ServiceKey;

/// A service, with everything that can be dialled for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Which service it is.
    pub key: ServiceKey,
    /// What its sidecars prove to be.
    pub mesh: MeshService,
    /// The instances of the service itself, in any state and order.
    pub instances: Vec<Instance>,
    /// What speaks for it in the mesh: sidecars, native instances, terminating gateways. `None` where nobody has looked.
    pub sidecars: Option<Vec<Instance>>,
    /// What the source could not make an instance of, and why: `node/id`, reason.
    pub unusable: Vec<(Arc<str>, Arc<str>)>,
}

/// One address of a service, and what its source says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// `NODE/ID`, unique among the instances.
    pub id: Arc<str>,
    /// For a sidecar: the instance that it stands beside.
    pub beside: Option<Arc<str>>,
    /// Where it is dialled.
    pub address: SocketAddr,
    /// Its tags, as they were registered.
    pub tags: Vec<Arc<str>>,
    /// The worst of its checks and its node's.
    pub health: Health,
    /// Its share among the instances while it is passing; 0 takes no new connections.
    pub weight_passing: u32,
    /// Its share while a check warns.
    pub weight_warning: u32,
    /// Grows with each change in the source; the same on every node that asks.
    pub modified: u64,
}

impl Instance {
    /// Whose tags count where two instances disagree: the greater one's, everywhere in the cluster.
    pub(super) fn rank(&self) -> (u64, &str) {
        (self.modified, &self.id)
    }
}

/// The worst of an instance's checks, the best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// All checks pass, or there are none.
    #[default]
    Passing,
    /// A check warns; the instance is still used.
    Warning,
    /// A check fails.
    Critical,
    /// Somebody took it, or its node, out of service.
    Maintenance,
}
