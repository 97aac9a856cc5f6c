//! What TLS is made from, by the configuration: the index of certificates, policies, and what verifies upstreams.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::ClientConfig;

use crate::config::{Checked, Config, UpstreamTls};
use crate::snapshot::certificates::Certificates;
use crate::tls::client;
use crate::tls::server::ServerPolicy;

/// What was made.
#[derive(Debug)]
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

/// One policy for each option set that there is, known by the name that routes use: a tag may name any.
fn policies(
    config: &Config,
    certificates: &Arc<Certificates>,
) -> BTreeMap<Option<String>, Result<Arc<ServerPolicy>, String>> {
    let named = config.tls_options.iter();
    let named = named.map(|(name, options)| (Some(name.clone()), options));
    let default = config.tls_options.get("default");
    named
        .chain(default.map(|options| (None, options)))
        .map(|(name, options)| {
            let policy = ServerPolicy::new(options, certificates.clone(), None)
                .map(Arc::new)
                .map_err(|error| error.to_string());
            (name, policy)
        })
        .collect()
}

/// One configuration for each upstream with TLS; those that ask for the same share it.
fn client_configs(config: &Config) -> BTreeMap<String, Result<Arc<ClientConfig>, String>> {
    let mut made: Vec<(&UpstreamTls, Result<Arc<ClientConfig>, String>)> = Vec::new();
    let mut configs = BTreeMap::new();
    for (name, upstream) in &config.upstreams {
        let Some(tls) = &upstream.tls else { continue };
        let same = |other: &UpstreamTls| {
            (&other.roots, &other.proof, &other.certificate)
                == (&tls.roots, &tls.proof, &tls.certificate)
        };
        let config = match made.iter().find(|(other, _)| same(other)) {
            Some((_, config)) => config.clone(),
            None => {
                let config = client_config(tls);
                made.push((tls, config.clone()));
                config
            }
        };
        configs.insert(name.clone(), config);
    }
    configs
}

fn client_config(tls: &UpstreamTls) -> Result<Arc<ClientConfig>, String> {
    let certificate = tls.certificate.as_ref();
    let certificate = certificate.map(|(chain, key)| (chain.as_path(), key.as_path()));
    client::config(&tls.roots, certificate, tls.proof.clone()).map_err(|error| error.to_string())
}
