//! The parts of a gateway that listen to Consul: for services, and for the gateway's own identity in the mesh.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::mpsc::Sender;
use tokio::task::{AbortHandle, JoinSet};

use super::keep;
use crate::api::consul::Client;
use crate::config::{self, Config};
use crate::discovery;
use crate::discovery::exposure::{Exposure, Wanted};
use crate::identity;
use crate::snapshot::service::Change;
use crate::state;
use crate::status::{State, Status};

/// What listens to one Consul.
#[derive(Debug)]
pub(super) struct Consul {
    config: config::Consul,
    exposure: Exposure,
    tasks: Vec<AbortHandle>,
}

/// What is to listen to one.
#[derive(Debug)]
pub(super) struct Prepared {
    config: config::Consul,
    client: Client,
    exposure: Exposure,
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
        exposure: exposure(config, consul, own),
    })
}

/// Listens as is prepared, anew where that differs from what runs. What is learnt goes into `changes`.
pub(super) fn take(
    running: &mut Option<Consul>,
    prepared: Option<Prepared>,
    state: Option<&state::State>,
    changes: &Sender<Change>,
    status: &Status,
    tasks: &mut JoinSet<()>,
) {
    let same = |running: &Consul, next: &Prepared| {
        running.config == next.config && running.exposure == next.exposure
    };
    if let (Some(running), Some(next)) = (&running, &prepared)
        && same(running, next)
    {
        return;
    }
    if let Some(before) = running.take() {
        before.tasks.iter().for_each(AbortHandle::abort);
        status.remove(discovery::consul::PART);
        status.remove(identity::PART);
    }
    *running = prepared.map(|next| next.start(state, changes, status, tasks));
}

impl Prepared {
    fn start(
        self,
        state: Option<&state::State>,
        changes: &Sender<Change>,
        status: &Status,
        tasks: &mut JoinSet<()>,
    ) -> Consul {
        let Self {
            config,
            client,
            exposure,
        } = self;
        let unheard = || State::NotReady("consul has not been heard yet".to_owned());
        status.set(discovery::consul::PART, unheard());
        let origin = keep::origin(&config);
        let kept = |part| state.map(|state| state.open(part, &origin));
        let watching = discovery::consul::watch(
            client.clone(),
            exposure.clone(),
            kept(discovery::consul::PART),
            changes.clone(),
        );
        let mut running = vec![tasks.spawn(watching)];
        if let Some(service) = &config.mesh_identity {
            status.set(identity::PART, unheard());
            let kept = kept(keep::IDENTITY);
            let watching = identity::consul::watch(client, service.clone(), kept, changes.clone());
            running.push(tasks.spawn(watching));
        }
        Consul {
            config,
            exposure,
            tasks: running,
        }
    }
}

/// What tags may do, and which services upstreams of the file stand for.
fn exposure(config: &Config, consul: &config::Consul, own: &Arc<[SocketAddr]>) -> Exposure {
    let mut wanted: BTreeMap<String, Vec<Wanted>> = BTreeMap::new();
    for (name, upstream) in &config.upstreams {
        if let Some(service) = &upstream.service {
            let all = wanted.entry(service.name.clone()).or_default();
            all.push(Wanted {
                upstream: name.as_str().into(),
                mesh: service.mesh,
            });
        }
    }
    Exposure {
        entry_points: consul.entry_points.clone(),
        allow_default_from_tags: consul.allow_default_from_tags,
        own: Arc::clone(own),
        wanted,
        mesh: consul.mesh_identity.is_some(),
    }
}
