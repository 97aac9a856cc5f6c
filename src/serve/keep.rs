//! The state on the disk: started with the gateway, and how that fares.

use std::sync::{Arc, Mutex, PoisonError};

use crate::config;
use crate::discovery;
use crate::metrics::Metrics;
use crate::state::{FolderError, Settings, State};
use crate::status::{self, Status};

/// The part of the status that tells of it.
const PART: &str = "state";

/// The part that holds the identity in the mesh; its name is that of a file.
pub(super) const IDENTITY: &str = "identity";

/// Starts to keep the state, if it is to be kept. What is wrong with the disk is told, and keeps nobody from serving.
pub(super) fn start(
    settings: Option<&Settings>,
    status: &Status,
    metrics: &Arc<Metrics>,
) -> Option<Arc<State>> {
    let settings = settings?;
    let parts = [discovery::consul::PART, IDENTITY, super::publish::NAMES];
    let (board, metrics) = (status.clone(), Arc::clone(metrics));
    let told = Mutex::new(None);
    let tell = move |outcome: Result<(), FolderError>| {
        metrics.state_written(outcome.is_ok());
        let trouble = outcome.err().map(|error| error.to_string());
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told == Some(trouble.clone()) {
            return;
        }
        match &trouble {
            Some(trouble) => tracing::error!("the state is not kept on the disk: {trouble}"),
            None => tracing::info!("the state is kept on the disk"),
        }
        board.set(PART, state(trouble.as_deref()));
        *told = Some(trouble);
    };
    match State::start(settings, &parts, tell) {
        Ok(state) => Some(Arc::new(state)),
        Err(error) => {
            let why = error.to_string();
            tracing::error!("the state is not kept on the disk: {why}");
            status.set(PART, self::state(Some(&why)));
            None
        }
    }
}

/// The source of what is learnt of Consul: what another one has told is not served for it.
pub(super) fn origin(consul: &config::Consul) -> String {
    let scheme = if consul.https { "https" } else { "http" };
    format!("{scheme} {}{}", consul.address, consul.prefix)
}

fn state(trouble: Option<&str>) -> status::State {
    match trouble {
        None => status::State::Ready,
        Some(why) => status::State::Degraded(format!("the last good is not kept: {why}")),
    }
}
