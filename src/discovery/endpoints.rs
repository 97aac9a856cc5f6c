//! What of a service can be dialled: the addresses, their shares, and why there is none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::exposure::Exposure;
use super::instance::{Health, Instance};
use super::reading::{Reading, Verdict};
use super::servers::Server;
use crate::config::EndpointAddress;
use crate::name::HostName;
use crate::net::dial::reaches;
use crate::snapshot::service::{NamedEndpoint, Skipped};
use crate::snapshot::upstream::Endpoint;

/// The greatest weight, as in the configuration: more says nothing that a smaller one could not.
const HEAVIEST: u32 = 65_535;

/// What can be dialled at the moment.
#[derive(Debug)]
pub(super) struct Available {
    /// By address.
    pub(super) endpoints: Vec<Endpoint>,
    /// By name and port: what these resolve to can be dialled too.
    pub(super) named: Vec<NamedEndpoint>,
    /// Why nothing can be, for people.
    pub(super) empty: Option<Arc<str>>,
}

/// Who wants to dial a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Its own tags: an instance whose tags cannot be read is not used.
    Tags,
    /// An upstream of the file, which does not depend on tags, unless they ask for the instance to be left out.
    File,
}

/// Finds out what can be dialled, and what may not be.
#[derive(Debug)]
pub(super) struct Survey<'a> {
    /// Our own addresses: dialling one of them would come back here, and dial again.
    own: &'a [SocketAddr],
    /// In which states an instance is dialled.
    accepted: &'a BTreeSet<Health>,
    /// Whether a name may stand for an address of this machine or its links.
    is_local_allowed: bool,
    /// The instances that are left out for it.
    pub(super) skipped: Vec<Skipped>,
}

impl<'a> Survey<'a> {
    pub(super) fn new(exposure: &'a Exposure) -> Self {
        Self {
            own: &exposure.own,
            accepted: &exposure.accepted,
            is_local_allowed: exposure.allow_local_addresses,
            skipped: Vec::new(),
        }
    }

    /// The instances themselves, at the addresses that they were registered with.
    pub(super) fn instances(&mut self, reading: &Reading<'_>, wish: Wish) -> Available {
        let mut tally = Tally::new("instance");
        for read in &reading.instances {
            match (&read.verdict, wish) {
                (Verdict::Disabled, _) | (Verdict::Silent, Wish::Tags) => tally.disabled = true,
                (Verdict::Unreadable(..), Wish::Tags) => tally.leave_out(Out::Unreadable),
                (Verdict::Unreadable(..) | Verdict::Silent, Wish::File)
                | (Verdict::Readable(_), _) => {
                    let Instance {
                        address, health, ..
                    } = read.instance;
                    self.offer(read.instance, address.as_ref(), *health, &mut tally);
                }
            }
        }
        tally.close()
    }

    /// The instances that define one of the `tcp.services`, at the ports that it gives them.
    pub(super) fn server(&mut self, server: &Server<'_>) -> Available {
        let mut tally = Tally::new("instance");
        for (instance, port) in &server.members {
            let mut address = instance.address.clone();
            match (&mut address, port) {
                (Some(EndpointAddress::Ip(address)), Some(port)) => address.set_port(*port),
                (Some(EndpointAddress::Dns(_, own)), Some(port)) => *own = *port,
                (_, None) | (None, _) => {}
            }
            self.offer(instance, address.as_ref(), instance.health, &mut tally);
        }
        tally.close()
    }

    /// What speaks for the service in the mesh. A sidecar is as healthy as its instance, at best.
    pub(super) fn sidecars(&mut self, reading: &Reading<'_>, wish: Wish) -> Available {
        let mut tally = Tally::new("sidecar");
        for sidecar in reading.found.sidecars.iter().flatten() {
            let (verdict, health) = reading.beside(sidecar);
            match (verdict, wish) {
                (Some(Verdict::Disabled), _) | (Some(Verdict::Silent), Wish::Tags) => {
                    tally.disabled = true;
                }
                (Some(Verdict::Unreadable(..)), Wish::Tags) => tally.leave_out(Out::Unreadable),
                _ => self.offer(sidecar, sidecar.address.as_ref(), health, &mut tally),
            }
        }
        tally.close()
    }

    fn offer(
        &mut self,
        instance: &Instance,
        address: Option<&EndpointAddress>,
        health: Health,
        tally: &mut Tally,
    ) {
        let Some(address) = address else {
            return tally.leave_out(Out::Nowhere);
        };
        // What a name stands for is looked at when it is known.
        if let EndpointAddress::Ip(address) = *address
            && self.own.iter().any(|&own| reaches(address, own))
        {
            tally.leave_out(Out::Own);
            self.skipped.push(Skipped {
                instance: Some(Arc::clone(&instance.id)),
                router: None,
                reason: format!(
                    "{address} points at this gateway's own listener: it would dial itself"
                )
                .into(),
            });
            return;
        }
        if !self.accepted.contains(&health) {
            return tally.leave_out(Out::State(health));
        }
        let weight = match health {
            Health::Passing => instance.weight_passing,
            // Consul has no third share: what is worse than a warning gets no more than a warning leaves.
            Health::Warning | Health::Critical | Health::Maintenance => instance.weight_warning,
        };
        let weight = weight.min(HEAVIEST);
        let configured = Arc::clone(&instance.id);
        match address {
            EndpointAddress::Ip(address) => tally.take(Endpoint {
                address: *address,
                configured,
                weight,
            }),
            EndpointAddress::Dns(host, port) => tally.name(NamedEndpoint {
                host: host.clone(),
                port: *port,
                configured,
                weight,
                is_local_allowed: self.is_local_allowed,
            }),
        }
    }
}

/// One upstream's endpoints in the making.
#[derive(Debug)]
struct Tally {
    /// What is counted.
    noun: &'static str,
    /// Each address once: of two instances there, the one with the greater share, then the first by id.
    found: BTreeMap<SocketAddr, Endpoint>,
    /// The same of names.
    named: BTreeMap<(HostName, u16), NamedEndpoint>,
    /// Whether any asked to be left out.
    disabled: bool,
    /// How many are not used, and why.
    unused: usize,
    why: BTreeSet<Out>,
}

/// Why an instance is not used; in the order in which people are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Out {
    State(Health),
    Unreadable,
    Nowhere,
    Own,
    Weightless,
}

impl Tally {
    fn new(noun: &'static str) -> Self {
        Self {
            noun,
            found: BTreeMap::new(),
            named: BTreeMap::new(),
            disabled: false,
            unused: 0,
            why: BTreeSet::new(),
        }
    }

    fn take(&mut self, endpoint: Endpoint) {
        let rank = |e: &Endpoint| (e.weight, std::cmp::Reverse(Arc::clone(&e.configured)));
        match self.found.get_mut(&endpoint.address) {
            Some(there) if rank(there) >= rank(&endpoint) => {}
            Some(there) => *there = endpoint,
            None => {
                self.found.insert(endpoint.address, endpoint);
            }
        }
    }

    fn name(&mut self, endpoint: NamedEndpoint) {
        let rank = |e: &NamedEndpoint| (e.weight, std::cmp::Reverse(Arc::clone(&e.configured)));
        let place = (endpoint.host.clone(), endpoint.port);
        match self.named.get_mut(&place) {
            Some(there) if rank(there) >= rank(&endpoint) => {}
            Some(there) => *there = endpoint,
            None => {
                self.named.insert(place, endpoint);
            }
        }
    }

    fn leave_out(&mut self, why: Out) {
        self.unused += 1;
        self.why.insert(why);
    }

    fn close(mut self) -> Available {
        let endpoints: Vec<Endpoint> = self.found.into_values().collect();
        let named: Vec<NamedEndpoint> = self.named.into_values().collect();
        let weights = endpoints.iter().map(|endpoint| endpoint.weight);
        let mut weights = weights.chain(named.iter().map(|endpoint| endpoint.weight));
        if weights.any(|weight| weight > 0) {
            return Available {
                endpoints,
                named,
                empty: None,
            };
        }
        let weightless = endpoints.len() + named.len();
        if weightless > 0 {
            self.why.insert(Out::Weightless);
        }
        let noun = self.noun;
        let empty = match (self.unused + weightless, self.disabled) {
            (0, false) => format!("it has no {noun}"),
            (0, true) => format!("the tags of every {noun} ask for it to be left out"),
            (1, _) => format!("its only {noun} is {}", reasons(&self.why)),
            (count, _) => format!("all {count} {noun}s are {}", reasons(&self.why)),
        };
        Available {
            endpoints,
            named,
            empty: Some(empty.into()),
        }
    }
}

fn reasons(why: &BTreeSet<Out>) -> String {
    let words = why.iter().map(|out| match out {
        Out::State(Health::Passing) => "passing",
        Out::State(Health::Warning) => "warning",
        Out::State(Health::Critical) => "critical",
        Out::State(Health::Maintenance) => "in maintenance",
        Out::Unreadable => "without readable tags",
        Out::Nowhere => "without an address to dial",
        Out::Own => "this gateway itself",
        Out::Weightless => "of weight 0",
    });
    words.collect::<Vec<_>>().join(" or ")
}
