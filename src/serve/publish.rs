//! The only writer of snapshots: takes in what changed, compiles, and publishes the result as one.

use std::collections::BTreeSet;
use std::panic::resume_unwind;
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
            let heard = std::mem::take(&mut batch);
            // Connections share this thread, and 100,000 routes take a quarter of a second.
            let hearing = tokio::task::spawn_blocking(move || {
                self.hear(heard);
                self
            });
            self = match hearing.await {
                Ok(publisher) => publisher,
                Err(defect) if defect.is_panic() => resume_unwind(defect.into_panic()),
                // The process ends.
                Err(_) => return,
            };
        }
    }

    fn hear(&mut self, answers: impl IntoIterator<Item = Answer>) {
        for answer in answers {
            self.take(answer);
        }
        self.publish();
        self.report();
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use tokio::sync::mpsc;

    use super::*;
    use crate::config;

    struct Desk {
        cell: Arc<ArcSwap<Snapshot>>,
        status: Status,
        publisher: Publisher,
    }

    fn desk(text: &str) -> Desk {
        let checked = config::parse(text, Path::new("portcullis.toml"));
        let inputs = Inputs {
            config: checked
                .unwrap_or_else(|mistakes| panic!("{mistakes}"))
                .config,
            listeners: BTreeMap::new(),
            own: Arc::default(),
            certificates: Arc::default(),
            policies: BTreeMap::new(),
            client_configs: BTreeMap::new(),
            addresses: BTreeMap::new(),
            identity: None,
        };
        let status = Status::default();
        let publisher = Publisher::new(inputs, Metrics::new(), status.clone());
        Desk {
            cell: publisher.cell(),
            status,
            publisher,
        }
    }

    fn two_names() -> Desk {
        desk(
            r#"
            [routes.one]
            host = "one.test"
            passthrough = true
            upstream = "one.internal:22"
            [routes.two]
            host = "two.test"
            passthrough = true
            upstream = "two.internal:22"
            "#,
        )
    }

    fn answer(name: &str, addresses: Result<&[&str], &str>) -> Answer {
        let parse = |addresses: &[&str]| addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        Answer {
            name: HostName::parse(name).unwrap(),
            addresses: addresses.map(parse).map_err(str::to_owned),
        }
    }

    impl Desk {
        fn endpoints(&self, upstream: &str) -> Vec<String> {
            let snapshot = self.cell.load();
            let endpoints = snapshot.upstream(upstream).unwrap().endpoints().iter();
            endpoints
                .map(|endpoint| endpoint.address.to_string())
                .collect()
        }

        fn state(&self) -> State {
            self.status.parts()[NAMES].clone()
        }
    }

    #[test]
    fn until_every_name_has_an_answer_the_gateway_is_not_ready() {
        let mut desk = two_names();
        let both = "not resolved yet: one.internal, two.internal";
        assert_eq!(desk.state(), State::NotReady(both.to_owned()));
        desk.publisher
            .hear([answer("one.internal", Ok(&["10.0.0.1"]))]);
        assert_eq!(
            desk.state(),
            State::NotReady("not resolved yet: two.internal".to_owned())
        );
        desk.publisher
            .hear([answer("two.internal", Err("no such name"))]);
        assert_eq!(
            desk.state(),
            State::Degraded("not resolving: two.internal".to_owned())
        );
        desk.publisher
            .hear([answer("two.internal", Ok(&["10.0.0.2"]))]);
        assert_eq!(desk.state(), State::Ready);
    }

    #[test]
    fn without_names_the_gateway_is_ready_at_once() {
        let desk = desk(
            "[routes.one]\nhost = \"one.test\"\npassthrough = true\nupstream = \"10.0.0.1:22\"",
        );
        assert_eq!(desk.state(), State::Ready);
        assert_eq!(desk.cell.load().generation, 1);
    }

    #[tokio::test]
    async fn the_snapshot_follows_the_answers_and_batches_them() {
        let desk = two_names();
        let cell = Arc::clone(&desk.cell);
        let (send, received) = mpsc::channel(64);
        for answer in [
            answer("one.internal", Ok(&["10.0.0.1"])),
            answer("two.internal", Ok(&["10.0.0.2", "fd00::2"])),
            answer("one.internal", Ok(&["10.0.0.9"])),
        ] {
            send.send(answer).await.unwrap();
        }
        drop(send);
        desk.publisher.run(received).await;
        let snapshot = cell.load();
        assert_eq!(
            snapshot.generation, 2,
            "three answers that wait together are one change"
        );
        let endpoints = |upstream: &str| -> Vec<String> {
            let endpoints = snapshot.upstream(upstream).unwrap().endpoints().iter();
            endpoints
                .map(|endpoint| endpoint.address.to_string())
                .collect()
        };
        assert_eq!(endpoints("one.internal:22"), ["10.0.0.9:22"]);
        assert_eq!(
            endpoints("two.internal:22"),
            ["10.0.0.2:22", "[fd00::2]:22"]
        );
    }

    #[test]
    fn a_name_that_fails_before_it_ever_had_an_answer_leaves_the_others_served() {
        let mut desk = two_names();
        desk.publisher.hear([
            answer("one.internal", Ok(&["10.0.0.1"])),
            answer("two.internal", Err("no such name")),
        ]);
        assert_eq!(desk.endpoints("one.internal:22"), ["10.0.0.1:22"]);
        assert!(desk.endpoints("two.internal:22").is_empty());
    }

    #[tokio::test]
    async fn what_shares_a_thread_with_the_publisher_goes_on_while_it_compiles() {
        let mut text = String::from("[routes.a]\nhost = \"a.test\"\nupstream = \"a.internal:1\"\n");
        for n in 0..5_000 {
            text += &format!("[routes.r{n}]\nhost = \"r{n}.test\"\nupstream = \"10.0.0.1:1\"\n");
        }
        let Desk { publisher, .. } = desk(&text);
        let cell = publisher.cell();
        let (answers, received) = mpsc::channel(1);
        let running = tokio::spawn(publisher.run(received));
        let address = answer("a.internal", Ok(&["10.0.0.7"]));
        answers.send(address).await.unwrap();
        let mut turns = 0;
        while cell.load().generation == 1 {
            tokio::task::yield_now().await;
            turns += 1;
        }
        assert!(turns > 10, "{turns}");
        drop(answers);
        running.await.unwrap();
    }
}
