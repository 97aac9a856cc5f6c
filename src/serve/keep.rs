//! The state on the disk: started with the gateway, how that fares, and what a later configuration makes of it.

use std::slice;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::{self, ConsulAddress, Place};
use crate::discovery;
use crate::metrics::Metrics;
use crate::state::{FolderError, Settings, State};
use crate::status::{self, Status};

/// The part of the status that tells of it.
const PART: &str = "state";

/// The part that holds the identity in the mesh; its name is that of a file.
pub(super) const IDENTITY: &str = "identity";

/// The state as it is kept, by the configuration of the start.
#[derive(Debug)]
pub(super) struct Keeping {
    /// What keeps it, if it is kept.
    pub(super) state: Option<Arc<State>>,
    settings: Option<Settings>,
    board: Arc<Board>,
}

/// What is told of it.
#[derive(Debug)]
struct Board {
    status: Status,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    /// Whether anything has become known, and why it cannot be written.
    written: Option<Result<(), String>>,
    /// What a later configuration wants otherwise, and gets at the next start.
    pending: Option<String>,
}

impl Keeping {
    /// Starts to keep the state, if it is to be kept. What is wrong with the disk is told, and keeps nobody from serving.
    pub(super) fn start(
        settings: Option<&Settings>,
        status: &Status,
        metrics: &Arc<Metrics>,
        consul: Option<&config::Consul>,
    ) -> Self {
        let board = Arc::new(Board {
            status: status.clone(),
            told: Mutex::default(),
        });
        let state = settings.and_then(|settings| start(settings, &board, metrics, consul));
        Self {
            state: state.map(Arc::new),
            settings: settings.cloned(),
            board,
        }
    }

    /// Takes in what a later configuration says: the bound counts at once; a folder is locked and a key is in use, and
    /// what is to become of them is told.
    pub(super) async fn follow(&self, wanted: Option<Settings>) {
        if let (Some(state), Some(wanted)) = (&self.state, &wanted) {
            state.set_max_age(wanted.max_age);
        }
        let (state, settings) = (self.state.clone(), self.settings.clone());
        // A file is read for it.
        let asked = tokio::task::spawn_blocking(move || {
            pending(state.as_deref(), settings.as_ref(), wanted.as_ref())
        });
        if let Ok(pending) = asked.await {
            self.board.pending(pending);
        }
    }
}

fn start(
    settings: &Settings,
    board: &Arc<Board>,
    metrics: &Arc<Metrics>,
    consul: Option<&config::Consul>,
) -> Option<State> {
    let mut parts = vec![IDENTITY, super::publish::NAMES, discovery::nomad::PART];
    let first = Place::default();
    let places = consul.map_or(slice::from_ref(&first), |consul| &consul.places);
    let catalogs: Vec<_> = places.iter().map(discovery::consul::part).collect();
    parts.extend(catalogs.iter().map(|part| &**part));
    let tell = {
        let (board, metrics) = (Arc::clone(board), Arc::clone(metrics));
        move |outcome: Result<(), FolderError>| {
            // What hangs has not failed yet.
            if !matches!(outcome, Err(FolderError::Hangs(..))) {
                metrics.state_written(outcome.is_ok());
            }
            board.written(outcome.map_err(|error| error.to_string()));
        }
    };
    let started = State::start(settings, &parts, tell);
    let failed = |error: &_| board.written(Err(format!("{error}")));
    started.inspect_err(failed).ok()
}

/// What the next start makes otherwise.
fn pending(
    state: Option<&State>,
    settings: Option<&Settings>,
    wanted: Option<&Settings>,
) -> Option<String> {
    const NEXT: &str = "the next start";
    let what = match (state, settings, wanted) {
        (_, None, None) => return None,
        (_, None, Some(_)) => format!("`state_dir` is new: nothing is kept before {NEXT}"),
        (None, Some(_), _) => format!("`state_dir` is used, or not, from {NEXT} on"),
        (Some(_), Some(settings), None) => format!(
            "`state_dir` is gone: {} is written to until {NEXT}",
            settings.folder.display()
        ),
        (Some(_), Some(settings), Some(wanted)) if settings.folder != wanted.folder => format!(
            "`state_dir` has changed: {} is written to until {NEXT}",
            settings.folder.display()
        ),
        (Some(state), Some(_), Some(wanted)) => {
            match state.is_sealed_with(wanted.key_file.as_deref()) {
                Ok(true) => return None,
                Ok(false) => format!(
                    "the key of `state_key_file` has changed: what is written is sealed as before until {NEXT}"
                ),
                Err(error) => format!("{error}: what is written is sealed as before until {NEXT}"),
            }
        }
    };
    Some(what)
}

impl Board {
    fn written(&self, outcome: Result<(), String>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = Some(outcome);
        if told.written == outcome {
            return;
        }
        match &outcome {
            Some(Err(why)) => tracing::error!("the state is not kept on the disk: {why}"),
            _ => tracing::info!("the state is kept on the disk"),
        }
        told.written = outcome;
        self.show(&told);
    }

    fn pending(&self, pending: Option<String>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(what) = &pending {
            tracing::warn!("{what}");
        }
        told.pending = pending;
        self.show(&told);
    }

    fn show(&self, told: &Told) {
        let trouble = told.written.as_ref().and_then(|written| {
            let why = written.as_ref().err()?;
            Some(format!("the last good is not kept: {why}"))
        });
        let all: Vec<String> = trouble.into_iter().chain(told.pending.clone()).collect();
        match (all.is_empty(), &told.written) {
            (true, None) => self.status.remove(PART),
            (true, Some(_)) => self.status.set(PART, status::State::Ready),
            (false, _) => {
                let what = all.join("; ");
                self.status.set(PART, status::State::Degraded(what));
            }
        }
    }
}

/// The source of what is learnt of Consul: what another one has told is not served for it.
pub(super) fn origin(consul: &config::Consul) -> String {
    let scheme = if consul.https { "https" } else { "http" };
    format!("{scheme} {}{}", consul.address, consul.prefix)
}

/// The same of one of its catalogs.
pub(super) fn origin_in(consul: &config::Consul, place: &Place) -> String {
    let origin = origin(consul);
    match place.parameters().is_empty() {
        true => origin,
        false => format!("{origin} {place}"),
    }
}

/// The same of Nomad. The socket that a task has is that of its machine's agent, wherever its folder is this time.
pub(super) fn origin_of_nomad(nomad: &config::Nomad) -> String {
    let config::Agent {
        address,
        https,
        prefix,
        ..
    } = &nomad.agent;
    let scheme = if *https { "https" } else { "http" };
    let agent = match address {
        ConsulAddress::Unix(path) if path.ends_with("api.sock") => "task-api".to_owned(),
        address => address.to_string(),
    };
    let region = nomad.region.iter().map(|region| format!(" {region}"));
    format!("{scheme} {agent}{prefix}{}", region.collect::<String>())
}
