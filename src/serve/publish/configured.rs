//! A configuration that was found good, on its way to the publisher.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;

use crate::config::Config;
use crate::net::resolve::Answer;
use crate::serve::load::Loaded;
use crate::snapshot::compile::Inputs;
use crate::snapshot::{self, ListenerId};
use crate::tls::client::Made;

/// A configuration that was found good, and what was made and bound for it.
#[derive(Debug)]
pub(in crate::serve) struct Configured {
    pub(in crate::serve) config: Config,
    pub(in crate::serve) loaded: Loaded,
    pub(in crate::serve) listeners: BTreeMap<ListenerId, snapshot::Listener>,
    /// The addresses that are bound, the admin interface's too.
    pub(in crate::serve) own: Arc<[SocketAddr]>,
    /// What names that it has more than the last one resolve to, as far as they have been answered.
    pub(in crate::serve) answers: Vec<Answer>,
}

impl Configured {
    /// What is compiled from it, before anything else is known.
    pub(in crate::serve) fn inputs(self) -> Inputs {
        let Self {
            config,
            loaded,
            listeners,
            own,
            answers: _,
        } = self;
        Inputs {
            config,
            listeners,
            own,
            certificates: loaded.certificates,
            policies: loaded.policies,
            client_configs: configs(loaded.client_configs),
            transport_configs: configs(loaded.transport_configs),
            addresses: BTreeMap::new(),
            restored: BTreeMap::new(),
            identity: None,
            denied: BTreeSet::new(),
        }
    }
}

fn configs(
    made: BTreeMap<String, Result<Made, String>>,
) -> BTreeMap<String, Result<Arc<ClientConfig>, String>> {
    made.into_iter()
        .map(|(name, made)| (name, made.map(|made| made.config)))
        .collect()
}
