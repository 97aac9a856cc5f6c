//! The parts of a gateway that listen to Consul: for services, and for the gateway's own identity in the mesh.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::keep;
use crate::api::consul::Client;
use crate::config::{self, CheckState, Config, Place};
use crate::discovery;
use crate::discovery::consul::{Addressing, Asking, Told, intentions, part};
use crate::discovery::exposure::{Exposure, Wanted};
use crate::discovery::instance::Health;
use crate::discovery::terms::Terms;
use crate::identity::{self, Keeper};
use crate::name::MeshService;
use crate::snapshot::Snapshot;
use crate::snapshot::service::Change;
use crate::state;
use crate::status::{State, Status};

/// What listens to one Consul.
#[derive(Debug)]
pub(super) struct Consul {
    client: Client,
    config: config::Consul,
    exposures: Vec<Exposure>,
    stop: CancellationToken,
    /// What those that watch the catalogs leave when they have stopped.
    told: Vec<(Place, oneshot::Receiver<Told>)>,
    keeper: Option<oneshot::Receiver<Keeper>>,
    /// What asks for intentions has taken its word back.
    intentions: Option<oneshot::Receiver<()>>,
}

/// What is to listen to one.
#[derive(Debug)]
pub(super) struct Prepared {
    config: config::Consul,
    client: Client,
    /// One for each catalog.
    exposures: Vec<Exposure>,
}

/// A client of the Consul that the configuration names, if it names one.
///
/// # Errors
/// The agent's address, its CAs, our certificate for it, or the token cannot be used.
pub(super) fn client(config: &Config) -> anyhow::Result<Option<Client>> {
    let client = config.consul.as_ref().map(Client::new);
    client.transpose().context("cannot ask Consul")
}

pub(super) fn prepare(
    client: Option<Client>,
    config: &Config,
    own: &Arc<[SocketAddr]>,
) -> Option<Prepared> {
    let consul = config.consul.as_ref()?;
    Some(Prepared {
        config: consul.clone(),
        client: client?,
        exposures: (consul.places.iter())
            .map(|place| exposure(config, consul, place, own))
            .collect(),
    })
}

/// Listens as is prepared, anew where that differs from what runs. What is learnt goes into `changes`.
///
/// What the last one knew is handed to the next one, and is served until that one has found out; without a next one it is
/// gone. The last one has told everything before the next one, or this, tells anything.
pub(super) async fn take(
    running: &mut Option<Consul>,
    prepared: Option<Prepared>,
    state: Option<&state::State>,
    (changes, snapshot): (&Sender<Change>, &Arc<ArcSwap<Snapshot>>),
    status: &Status,
    tasks: &mut JoinSet<()>,
) {
    let same = |running: &Consul, next: &Prepared| {
        running.config == next.config && running.exposures == next.exposures
    };
    if let (Some(running), Some(next)) = (&running, &prepared)
        && same(running, next)
    {
        return;
    }
    let Some(before) = running.take() else {
        if let Some(next) = prepared {
            let unheard = || State::NotReady("consul has not been heard yet".to_owned());
            for place in &next.config.places {
                status.set(&part(place), unheard());
            }
            if next.config.mesh_identity.is_some() {
                status.set(identity::PART, unheard());
            }
            *running = Some(next.start(Left::default(), state, (changes, snapshot), tasks));
        }
        return;
    };
    let left = before.stop().await;
    for change in left.told_of(prepared.as_ref()) {
        // Nobody listens where the process ends.
        let _ = changes.send(change).await;
    }
    *running = prepared.map(|next| next.start(left, state, (changes, snapshot), tasks));
}

/// What is left of those that listened.
#[derive(Debug, Default)]
struct Left {
    told: BTreeMap<Place, Told>,
    keeper: Option<Keeper>,
}

impl Left {
    /// What follows from their end, before those that come next have heard anything.
    fn told_of(&self, next: Option<&Prepared>) -> Vec<Change> {
        let anew = |is_known: bool| match is_known {
            true => State::Degraded(
                "consul is asked anew, as the configuration has changed; what was known is served"
                    .to_owned(),
            ),
            false => State::NotReady("consul has not been heard yet".to_owned()),
        };
        // Those that come next judge anew.
        let mut changes = vec![Change::Refused(identity::PART.into(), false)];
        let places = next.map_or(&[] as &[_], |next| &next.config.places);
        for (place, told) in &self.told {
            changes.push(Change::Refused(part(place).into(), false));
            if !places.contains(place) {
                changes.extend(told.keys().cloned().map(Change::Gone));
                changes.push(Change::Ended(part(place).into()));
            }
        }
        for place in places {
            let is_served = self.told.get(place).is_some_and(Told::is_served);
            changes.push(Change::State(part(place).into(), anew(is_served)));
        }
        changes.push(
            match next.and_then(|next| next.config.mesh_identity.as_ref()) {
                Some(_) => {
                    let has_one = self.keeper.as_ref().is_some_and(Keeper::has_one);
                    Change::State(identity::PART.into(), anew(has_one))
                }
                None => Change::Ended(identity::PART.into()),
            },
        );
        changes
    }
}

impl Consul {
    /// What asks its agent.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Returns when they have told all that they know.
    async fn stop(self) -> Left {
        self.stop.cancel();
        // One that has died of a defect has left nothing, and takes the process with it.
        let mut told = BTreeMap::new();
        for (place, left) in self.told {
            told.insert(place, left.await.unwrap_or_default());
        }
        let keeper = match self.keeper {
            Some(keeper) => keeper.await.ok(),
            None => None,
        };
        if let Some(ended) = self.intentions {
            let _ = ended.await;
        }
        self.client.log_out().await;
        Left { told, keeper }
    }
}

impl Prepared {
    /// Listens with what is left of the last ones. What those knew is better than what is on the disk, which is for those that
    /// knew nothing yet, or were none: at a start.
    fn start(
        self,
        mut left: Left,
        state: Option<&state::State>,
        (changes, snapshot): (&Sender<Change>, &Arc<ArcSwap<Snapshot>>),
        tasks: &mut JoinSet<()>,
    ) -> Consul {
        let Self {
            config,
            client,
            exposures,
        } = self;
        let kept = |part: &str, origin: &str, is_known: bool| {
            state.map(|state| match is_known {
                true => state.go_on(part, origin),
                false => state.open(part, origin),
            })
        };
        let stop = CancellationToken::new();
        let mut told = Vec::new();
        for (place, exposure) in config.places.iter().zip(&exposures) {
            let before = left.told.remove(place).unwrap_or_default();
            let origin = keep::origin_in(&config, place);
            let kept = kept(&part(place), &origin, before.replaces_stored());
            let asking = Asking {
                place: place.clone(),
                consistency: config.catalog.consistency,
                refresh: config.catalog.refresh_interval,
                addressing: Addressing {
                    tag: config.catalog.tagged_address,
                    is_local_allowed: config.catalog.allow_local_addresses,
                },
            };
            let watching = discovery::consul::watch(
                // One that hangs must not hold up the reads of another.
                match place.is_further {
                    false => client.clone(),
                    true => client.apart(),
                },
                asking,
                exposure.clone(),
                before,
                kept,
                changes.clone(),
                stop.clone(),
            );
            let (leave, left) = oneshot::channel();
            tasks.spawn(async move {
                // Where nobody asks for it, the process ends.
                let _ = leave.send(watching.await);
            });
            told.push((place.clone(), left));
        }
        // As in Traefik the gateway is in the first of the namespaces that are listed.
        let namespace = config
            .places
            .first()
            .and_then(|place| place.namespace.clone());
        let source = config.mesh_identity.as_ref().map(|service| MeshService {
            partition: None,
            namespace: namespace.as_deref().unwrap_or("default").into(),
            datacenter: "".into(),
            service: service.as_str().into(),
        });
        let asks = source.filter(|_| config.catalog.check_intentions);
        let intentions = asks.map(|source| {
            let (client, snapshot) = (client.clone(), Arc::clone(snapshot));
            let (changes, stop) = (changes.clone(), stop.clone());
            let source = source.intention_name();
            let watching = intentions::watch(client, source, snapshot, changes, stop);
            let (leave, left) = oneshot::channel();
            tasks.spawn(async move {
                watching.await;
                let _ = leave.send(());
            });
            left
        });
        let keeper = config.mesh_identity.as_ref().map(|service| {
            let before = left.keeper.filter(Keeper::has_one);
            let origin = match &namespace {
                Some(namespace) => format!("{} ns={namespace}", keep::origin(&config)),
                None => keep::origin(&config),
            };
            let kept = kept(keep::IDENTITY, &origin, before.is_some());
            let keeper = match before {
                Some(keeper) => keeper.go_on(service.clone(), namespace),
                None => Keeper::new(service.clone(), namespace),
            };
            let (leave, left) = oneshot::channel();
            let (changes, stop) = (changes.clone(), stop.clone());
            let watching = identity::consul::watch(client.clone(), keeper, kept, changes, stop);
            tasks.spawn(async move {
                let _ = leave.send(watching.await);
            });
            left
        });
        Consul {
            client,
            config,
            exposures,
            stop,
            told,
            keeper,
            intentions,
        }
    }
}

/// What tags of this catalog may do, and which of its services upstreams of the file stand for.
fn exposure(
    config: &Config,
    consul: &config::Consul,
    place: &Place,
    own: &Arc<[SocketAddr]>,
) -> Exposure {
    let mut wanted: BTreeMap<String, Vec<Wanted>> = BTreeMap::new();
    for (name, upstream) in &config.upstreams {
        if let Some(service) = &upstream.service
            && service.place == place.label
        {
            let all = wanted.entry(service.name.clone()).or_default();
            all.push(Wanted {
                upstream: name.as_str().into(),
                mesh: service.mesh,
            });
        }
    }
    let catalog = &consul.catalog;
    let accepted = catalog.strict_checks.iter().map(|state| match state {
        CheckState::Passing => Health::Passing,
        CheckState::Warning => Health::Warning,
        CheckState::Critical => Health::Critical,
        CheckState::Maintenance => Health::Maintenance,
    });
    let exposure = Exposure::of(&consul.tagging, own);
    Exposure {
        terms: Terms {
            connect_by_default: catalog.connect_by_default,
            ..exposure.terms
        },
        accepted: accepted.collect(),
        allow_local_addresses: catalog.allow_local_addresses,
        wanted,
        mesh: consul.mesh_identity.is_some(),
        ..exposure
    }
}
