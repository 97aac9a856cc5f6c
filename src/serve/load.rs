//! Reading what a configuration names: certificates, the CAs of option sets, the roots of upstreams.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustls::ClientConfig;

use crate::certs;
use crate::config::{Action, Config};
use crate::snapshot::certificates::Certificates;
use crate::tls::client;
use crate::tls::server::ServerPolicy;

/// What was read.
pub(super) struct Loaded {
    pub(super) certificates: Arc<Certificates>,
    pub(super) policies: BTreeMap<Option<String>, Result<Arc<ServerPolicy>, String>>,
    pub(super) client_configs: BTreeMap<String, Result<Arc<ClientConfig>, String>>,
}

/// Reads everything. A certificate that does not serve is an error of the whole; an option set or the roots of an
/// upstream that do not are the end of the routes that need them, and of no others.
pub(super) fn load(config: &Config) -> anyhow::Result<Loaded> {
    let found = certs::files::load(&config.certificates)?;
    let certificates = Arc::new(Certificates::new(found));
    Ok(Loaded {
        policies: policies(config, &certificates),
        client_configs: client_configs(config),
        certificates,
    })
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
