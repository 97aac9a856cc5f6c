//! A service as its source tells it, before its tags are read: the one shape for all sources.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::config::EndpointAddress;
use crate::name::{HostName, MeshService, quoted};
use crate::snapshot::service::{ServiceKey, is_local};

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
    /// Whether the source left something of it out that the gateway's token may not see.
    pub filtered: bool,
    /// For canaries, which stand apart from the service: the number that is Traefik's for their tags.
    pub canary: Option<u64>,
}

impl Found {
    /// Whether its source knows nothing of such a service.
    pub(super) fn is_nowhere(&self) -> bool {
        let sidecars = self.sidecars.as_deref().unwrap_or_default();
        self.instances.is_empty() && sidecars.is_empty() && self.unusable.is_empty()
    }
}

/// One address of a service, and what its source says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// `NODE/ID`, unique among the instances.
    pub id: Arc<str>,
    /// For a sidecar: the instance that it stands beside.
    pub beside: Option<Arc<str>>,
    /// Where it is dialled; `None` where it cannot be, which its source has listed as unusable. Its tags count all the same.
    pub address: Option<EndpointAddress>,
    /// Its ports that have names, for tags to choose from; its address has the default one.
    pub ports: Vec<(Arc<str>, u16)>,
    /// Its tags, as they were registered.
    pub tags: Vec<Arc<str>>,
    /// The worst of its checks and its node's; passing where the source does not say.
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

/// Where an instance is dialled that was registered so, with an IP address or a DNS name; otherwise why it cannot be.
pub(super) fn address(text: &str, port: i64) -> Result<EndpointAddress, String> {
    let port = match u16::try_from(port) {
        Ok(0) => Err("it has no port".to_owned()),
        Ok(port) => Ok(port),
        Err(_) => Err(format!("its port {port} is none")),
    };
    let Ok(ip) = text.parse::<IpAddr>() else {
        let name = HostName::parse(text).map_err(|_| {
            let text = quoted(text);
            format!("its address {text} is neither an IP address nor a host name")
        })?;
        return Ok(EndpointAddress::Dns(name, port?));
    };
    let ip = ip.to_canonical();
    if ip.is_unspecified() || ip.is_multicast() {
        return Err(format!("its address {ip} cannot be dialled"));
    }
    Ok(EndpointAddress::Ip(SocketAddr::new(ip, port?)))
}

/// Refuses what would be dialled on this machine, or its links, and was meant of another: what listens here on loopback
/// addresses is not for strangers. `is_here` says whether the instance is on this machine, if its source tells; `section` is
/// the one of the configuration that may allow it.
pub(super) fn means_the_same_here(
    address: SocketAddr,
    is_here: impl FnOnce() -> Option<bool>,
    section: &str,
) -> Result<(), String> {
    let ip = address.ip();
    if !is_local(ip) {
        return Ok(());
    }
    let why = match ip.is_loopback().then(is_here) {
        None => "it is a link-local address",
        Some(Some(true)) => return Ok(()),
        Some(Some(false)) => "it is another machine's loopback address",
        Some(None) => "it is a loopback address, and nothing tells of which machine",
    };
    Err(format!(
        "its address {ip} is not dialled: {why} (`allow_local_addresses` in [{section}] allows it)"
    ))
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
