//! What the gateway makes of a Consul that changes, fails and recovers: the changes it tells, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use portcullis::api::consul::Client;
use portcullis::config::Consul;
use portcullis::discovery::consul::{self, Asking, Told};
use portcullis::discovery::exposure::Exposure;
use portcullis::snapshot::service::{Change, Service};
use portcullis::status::State;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::PATIENCE;

mod agent;
mod anew;
mod asking;
mod faults;
mod hostile;
mod large;
mod nomad;
mod places;

/// A watch over Consul, or over Nomad, and everything that it has told.
struct Watched<T = Told> {
    part: Arc<str>,
    changes: mpsc::Receiver<Change>,
    services: BTreeMap<String, Arc<Service>>,
    state: State,
    /// In short, and in order: `+web`, `-web`, `ready`, `degraded`, `not ready`.
    told: Vec<String>,
    tasks: JoinSet<T>,
    stop: CancellationToken,
}

impl Watched {
    fn start(consul: &Consul) -> Self {
        Self::start_after(Told::default(), consul)
    }

    /// A watch that follows one that has told this.
    fn start_after(before: Told, consul: &Consul) -> Self {
        let exposure = Exposure {
            mesh: true,
            ..Exposure::of(&consul.tagging, &[].into())
        };
        let asking = Asking {
            place: consul.places[0].clone(),
            consistency: consul.catalog.consistency,
            refresh: consul.catalog.refresh_interval,
            addressing: consul::Addressing::default(),
        };
        let client = Client::new(consul).unwrap();
        let known = before.services.clone();
        let part = consul::part(&consul.places[0]);
        Self::following(&part, &known, move |send, stop| {
            consul::watch(client, asking, exposure, before, None, send, stop)
        })
    }
}

impl<T: Send + 'static> Watched<T> {
    /// This watch, which knows these services already.
    fn following<W: Future<Output = T> + Send + 'static>(
        part: &str,
        known: &[Arc<Service>],
        watch: impl FnOnce(mpsc::Sender<Change>, CancellationToken) -> W,
    ) -> Self {
        let services = known.iter();
        let services = services.map(|service| (service.key.name.to_string(), Arc::clone(service)));
        let services = services.collect();
        let (send, changes) = mpsc::channel(16);
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        tasks.spawn(watch(send, stop.clone()));
        Self {
            part: part.into(),
            changes,
            services,
            state: State::NotReady(String::new()),
            told: Vec::new(),
            tasks,
            stop,
        }
    }

    /// Stops it; gives what it has told.
    async fn stop(mut self) -> T {
        self.stop.cancel();
        let told = timeout(PATIENCE, self.tasks.join_next()).await;
        told.unwrap().unwrap().unwrap()
    }

    /// Takes what is told until this is so.
    async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            let change = timeout(PATIENCE, self.changes.recv()).await;
            match change {
                Ok(Some(change)) => self.take(change),
                Ok(None) => panic!("the watch has ended; told: {:?}", self.told),
                Err(_) => panic!(
                    "in vain until {what}; told: {:?}, {:?}, {:#?}",
                    self.told, self.state, self.services
                ),
            }
        }
    }

    async fn until_ready(&mut self) {
        self.until("it is ready", |watched| watched.state == State::Ready)
            .await;
    }

    /// Until what it says of itself holds this text.
    async fn until_degraded(&mut self, text: &str) {
        self.until(
            text,
            |watched| matches!(&watched.state, State::Degraded(why) if why.contains(text)),
        )
        .await;
    }

    /// Takes what is told in this time, which must not end it.
    async fn during(&mut self, time: Duration) {
        let end = tokio::time::Instant::now() + time;
        while let Ok(change) = tokio::time::timeout_at(end, self.changes.recv()).await {
            self.take(change.expect("the watch goes on"));
        }
    }

    fn take(&mut self, change: Change) {
        let told = match change {
            Change::Service(service) => {
                let name = service.key.name.to_string();
                let told = format!("+{name}");
                self.services.insert(name, service);
                told
            }
            Change::Gone(key) => {
                let known = self.services.remove(&*key.name);
                assert!(known.is_some(), "{key:?} was never told of");
                format!("-{}", key.name)
            }
            Change::State(part, state) => {
                assert_eq!(part, self.part);
                assert_ne!(state, self.state, "it is told when it changes");
                self.state = state;
                match self.state {
                    State::Ready | State::Noted(_) => "ready",
                    State::Degraded(_) => "degraded",
                    State::NotReady(_) => "not ready",
                }
                .to_owned()
            }
            Change::Identity(_)
            | Change::Intention(..)
            | Change::Restored(..)
            | Change::Refused(..)
            | Change::Ended(_) => {
                panic!("nobody asked for that")
            }
        };
        self.told.push(told);
    }

    /// What was told since this was last called.
    fn take_told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }

    fn has(&self, name: &str) -> bool {
        self.services.contains_key(name)
    }

    /// The endpoints of a service, sorted: `address*weight`.
    fn endpoints(&self, name: &str) -> Vec<String> {
        let upstreams = self.services.get(name).map(|service| &service.upstreams);
        let endpoints = upstreams.into_iter().flatten();
        let endpoints = endpoints.flat_map(|upstream| &upstream.endpoints);
        let endpoints = endpoints.map(|endpoint| (endpoint.address, endpoint.weight));
        let endpoints: BTreeSet<_> = endpoints.collect();
        let endpoints = endpoints.iter();
        endpoints
            .map(|(address, weight)| format!("{address}*{weight}"))
            .collect()
    }
}

/// The tags of a route to this host.
fn route(host: &str) -> Vec<String> {
    let name = host.replace('.', "-");
    vec![
        "traefik.enable=true".to_owned(),
        format!("traefik.tcp.routers.{name}.rule=HostSNI(`{host}`)"),
        format!("traefik.tcp.routers.{name}.tls=true"),
    ]
}
