//! What TLS is made from, by the configuration: the index of certificates, policies, and what verifies upstreams.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustls::ClientConfig;

use crate::config::{Action, Checked, Config};
use crate::snapshot::certificates::Certificates;
use crate::tls::client;
use crate::tls::server::ServerPolicy;

/// What was made.
pub(super) struct Loaded {
    pub(super) certificates: Arc<Certificates>,
    pub(super) policies: BTreeMap<Option<String>, Result<Arc<ServerPolicy>, String>>,
    pub(super) client_configs: BTreeMap<String, Result<Arc<ClientConfig>, String>>,
}

/// Makes everything, from the certificates as they were read while checking. An option set whose CAs do not serve, or
/// an upstream whose roots do not, is the end of the routes that need it, and of no others.
pub(super) fn load(checked: Checked) -> (Config, Loaded) {
    let Checked {
        config,
        certificates,
        ..
    } = checked;
    let certificates = Arc::new(Certificates::new(certificates));
    let loaded = Loaded {
        policies: policies(&config, &certificates),
        client_configs: client_configs(&config),
        certificates,
    };
    (config, loaded)
}

/// One policy for each option set that a route refers to and that exists, known by the name that the routes use.
fn policies(
    config: &Config,
    certificates: &Arc<Certificates>,
) -> BTreeMap<Option<String>, Result<Arc<ServerPolicy>, String>> {
    let names: BTreeSet<&Option<String>> = config
        .routes
        .values()
        .filter_map(|route| match &route.action {
            Action::Terminate { options } => Some(options),
            Action::PassThrough => None,
        })
        .collect();
    names
        .into_iter()
        .filter_map(|name| {
            let options = config
                .tls_options
                .get(name.as_deref().unwrap_or("default"))?;
            let policy = ServerPolicy::new(options, certificates.clone(), None)
                .map(Arc::new)
                .map_err(|error| error.to_string());
            Some((name.clone(), policy))
        })
        .collect()
}

/// One configuration for each upstream with TLS; those that trust the same roots share it.
fn client_configs(config: &Config) -> BTreeMap<String, Result<Arc<ClientConfig>, String>> {
    let mut by_roots = BTreeMap::new();
    let mut configs = BTreeMap::new();
    for (name, upstream) in &config.upstreams {
        if let Some(tls) = &upstream.tls {
            let made = by_roots
                .entry(&tls.roots)
                .or_insert_with(|| client::config(&tls.roots, None).map_err(|e| e.to_string()));
            configs.insert(name.clone(), made.clone());
        }
    }
    configs
}
