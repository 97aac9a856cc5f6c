//! The only writer of snapshots: takes in what changed, compiles, and publishes the result as one.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::mpsc::Receiver;

use crate::config::EndpointAddress;
use crate::metrics::Metrics;
use crate::name::HostName;
use crate::net::resolve::Answer;
use crate::snapshot::Snapshot;
use crate::snapshot::compile::{Inputs, compile};
use crate::status::{State, Status};

/// The part of the status that tells of upstreams' names.
const NAMES: &str = "names";

/// Holds the inputs and publishes what they compile to.
pub(super) struct Publisher {
    inputs: Inputs,
    cell: Arc<ArcSwap<Snapshot>>,
    metrics: Arc<Metrics>,
    status: Status,
    /// Names that have not been answered yet, for good or ill.
    waiting: BTreeSet<HostName>,
    /// Names without any address.
    failing: BTreeSet<HostName>,
}

impl Publisher {
    /// Publishes the first snapshot.
    pub(super) fn new(inputs: Inputs, metrics: Arc<Metrics>, status: Status) -> Self {
        let first = compile(&inputs, None, &metrics);
        metrics.published(first.generation);
        let waiting = names(&inputs);
        let publisher = Self {
            inputs,
            cell: Arc::new(ArcSwap::from_pointee(first)),
            metrics,
            status,
            waiting,
            failing: BTreeSet::new(),
        };
        publisher.report();
        publisher
    }

    /// What connections read.
    pub(super) fn cell(&self) -> Arc<ArcSwap<Snapshot>> {
        Arc::clone(&self.cell)
    }

    /// The DNS names that the inputs need.
    pub(super) fn names(&self) -> BTreeSet<HostName> {
        names(&self.inputs)
    }

    /// Takes in answers until there are none to come.
    pub(super) async fn run(mut self, mut answers: Receiver<Answer>) {
        let mut batch = Vec::new();
        while answers.recv_many(&mut batch, 64).await > 0 {
            for answer in batch.drain(..) {
                self.take(answer);
            }
            self.publish();
            self.report();
        }
    }

    fn take(&mut self, Answer { name, addresses }: Answer) {
        self.waiting.remove(&name);
        match addresses {
            Ok(addresses) => {
                self.failing.remove(&name);
                self.inputs.addresses.insert(name, addresses);
            }
            Err(_) => {
                self.failing.insert(name);
            }
        }
    }

    fn publish(&self) {
        let next = compile(&self.inputs, Some(&self.cell.load()), &self.metrics);
        self.metrics.published(next.generation);
        self.cell.store(Arc::new(next));
    }

    fn report(&self) {
        let list = |names: &BTreeSet<HostName>| {
            let names: Vec<&str> = names.iter().map(HostName::as_str).collect();
            names.join(", ")
        };
        let state = if !self.waiting.is_empty() {
            State::NotReady(format!("not resolved yet: {}", list(&self.waiting)))
        } else if !self.failing.is_empty() {
            State::Degraded(format!("not resolving: {}", list(&self.failing)))
        } else {
            State::Ready
        };
        self.status.set(NAMES, state);
    }
}

fn names(inputs: &Inputs) -> BTreeSet<HostName> {
    let upstreams = inputs.config.upstreams.values();
    upstreams
        .flat_map(|upstream| &upstream.endpoints)
        .filter_map(|endpoint| match &endpoint.address {
            EndpointAddress::Dns(name, _) => Some(name.clone()),
            EndpointAddress::Ip(_) => None,
        })
        .collect()
}
