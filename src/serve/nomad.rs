//! The part of a gateway that listens to Nomad for its own services.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::keep;
use crate::api::http::Client;
use crate::config::{self, Config};
use crate::discovery::exposure::{Exposure, Wanted};
use crate::discovery::nomad::{self, Asking, PART, Told};
use crate::snapshot::service::Change;
use crate::state;
use crate::status::{State, Status};

/// What listens to one Nomad.
#[derive(Debug)]
pub(super) struct Nomad {
    config: config::Nomad,
    exposure: Exposure,
    stop: CancellationToken,
    /// What it leaves when it has stopped.
    told: oneshot::Receiver<Told>,
}

/// What is to listen to one.
#[derive(Debug)]
pub(super) struct Prepared {
    config: config::Nomad,
    client: Client,
    exposure: Exposure,
}

/// A client of the Nomad that the configuration names, if it names one.
///
/// # Errors
/// The agent's address, its CAs, our certificate for it, or the token cannot be used.
pub(super) fn client(config: &Config) -> anyhow::Result<Option<Client>> {
    let client = config.nomad.as_ref().map(Client::new);
    client.transpose().context("cannot ask Nomad")
}

pub(super) fn prepare(
    client: Option<Client>,
    config: &Config,
    own: &Arc<[SocketAddr]>,
) -> Option<Prepared> {
    let nomad = config.nomad.as_ref()?;
    Some(Prepared {
        config: nomad.clone(),
        client: client?,
        exposure: Exposure {
            allow_local_addresses: nomad.allow_local_addresses,
            wanted: wanted(config),
            ..Exposure::of(&nomad.tagging, own)
        },
    })
}

/// The services that upstreams of the file stand for.
fn wanted(config: &Config) -> BTreeMap<String, Vec<Wanted>> {
    let mut wanted: BTreeMap<String, Vec<Wanted>> = BTreeMap::new();
    for (name, upstream) in &config.upstreams {
        if let Some(service) = &upstream.nomad_service {
            wanted.entry(service.key()).or_default().push(Wanted {
                upstream: name.as_str().into(),
                mesh: false,
            });
        }
    }
    wanted
}

/// Listens as is prepared, anew where that differs from what runs. What is learnt goes into `changes`.
///
/// What the last one knew is handed to the next one, and is served until that one has found out; without a next one it is
/// gone. The last one has told everything before the next one, or this, tells anything.
pub(super) async fn take(
    running: &mut Option<Nomad>,
    prepared: Option<Prepared>,
    state: Option<&state::State>,
    changes: &Sender<Change>,
    status: &Status,
    tasks: &mut JoinSet<()>,
) {
    let same = |running: &Nomad, next: &Prepared| {
        running.config == next.config && running.exposure == next.exposure
    };
    if let (Some(running), Some(next)) = (&running, &prepared)
        && same(running, next)
    {
        return;
    }
    let unheard = || State::NotReady("nomad has not been heard yet".to_owned());
    let Some(before) = running.take() else {
        *running = prepared.map(|next| {
            status.set(PART, unheard());
            next.start(Told::default(), state, changes, tasks)
        });
        return;
    };
    let told = before.stop().await;
    // The next one judges anew.
    let judged_anew = Change::Refused(PART.into(), false);
    let news = match &prepared {
        Some(_) if told.is_served() => vec![Change::State(
            PART.into(),
            State::Degraded(
                "nomad is asked anew, as the configuration has changed; what was known is served"
                    .to_owned(),
            ),
        )],
        Some(_) => vec![Change::State(PART.into(), unheard())],
        None => {
            let services = told.services.iter();
            let gone = services.map(|service| Change::Gone(service.key.clone()));
            gone.chain([Change::Ended(PART.into())]).collect()
        }
    };
    for change in [judged_anew].into_iter().chain(news) {
        // Nobody listens where the process ends.
        let _ = changes.send(change).await;
    }
    *running = prepared.map(|next| next.start(told, state, changes, tasks));
}

impl Nomad {
    /// Returns when it has told all that it knows.
    async fn stop(self) -> Told {
        self.stop.cancel();
        // One that has died of a defect has left nothing, and takes the process with it.
        self.told.await.unwrap_or_default()
    }
}

impl Prepared {
    /// Listens with what the last one has told. That is better than what is on the disk, which is for one that knew nothing yet,
    /// or was none: at a start.
    fn start(
        self,
        before: Told,
        state: Option<&state::State>,
        changes: &Sender<Change>,
        tasks: &mut JoinSet<()>,
    ) -> Nomad {
        let Self {
            config,
            client,
            exposure,
        } = self;
        let origin = keep::origin_of_nomad(&config);
        let kept = state.map(|state| match before.replaces_stored() {
            true => state.go_on(PART, &origin),
            false => state.open(PART, &origin),
        });
        let stop = CancellationToken::new();
        let (leave, told) = oneshot::channel();
        let watching = nomad::watch(
            client,
            Asking::from(&config),
            exposure.clone(),
            before,
            kept,
            changes.clone(),
            stop.clone(),
        );
        tasks.spawn(async move {
            // Where nobody asks for it, the process ends.
            let _ = leave.send(watching.await);
        });
        Nomad {
            config,
            exposure,
            stop,
            told,
        }
    }
}
