//! The parts of a gateway that listen to Consul: for services, and for the gateway's own identity in the mesh.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;

use crate::api::consul::Client;
use crate::config::{Config, Consul};
use crate::discovery;
use crate::discovery::exposure::{Exposure, Wanted};
use crate::identity;
use crate::snapshot::service::Change;
use crate::status::{State, Status};

/// Starts them, if the configuration names a Consul. What they learn goes into `changes`.
///
/// # Errors
/// The agent's address, its CAs, our certificate for it, or the token cannot be used.
pub(super) fn start(
    config: &Config,
    own: &Arc<[SocketAddr]>,
    changes: &Sender<Change>,
    status: &Status,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let Some(consul) = &config.consul else {
        return Ok(());
    };
    let client = Client::new(consul).context("cannot ask Consul")?;
    let exposure = exposure(config, consul, own);
    let unheard = || State::NotReady("consul has not been heard yet".to_owned());
    status.set(discovery::consul::PART, unheard());
    tasks.spawn(discovery::consul::watch(
        client.clone(),
        exposure,
        changes.clone(),
    ));
    if let Some(service) = &consul.mesh_identity {
        status.set(identity::PART, unheard());
        tasks.spawn(identity::consul::watch(
            client,
            service.clone(),
            changes.clone(),
        ));
    }
    Ok(())
}

/// What tags may do, and which services upstreams of the file stand for.
fn exposure(config: &Config, consul: &Consul, own: &Arc<[SocketAddr]>) -> Exposure {
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
