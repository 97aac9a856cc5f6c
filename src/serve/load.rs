//! What TLS is made from, by the configuration: the index of certificates, policies, and what verifies upstreams.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;

use crate::config::{CertificateFiles, Checked, Config, UpstreamTls};
use crate::snapshot::certificates::Certificates;
use crate::tls::client;
use crate::tls::files::Certificate;
use crate::tls::server::ServerPolicy;

/// What was made. A clone shares it.
#[derive(Clone, Debug, Default)]
pub(super) struct Loaded {
    pub(super) certificates: Arc<Certificates>,
    pub(super) policies: BTreeMap<Option<String>, Result<Arc<ServerPolicy>, String>>,
    pub(super) client_configs: BTreeMap<String, Result<Arc<ClientConfig>, String>>,
    /// Chains in directories that do not serve as they are, in whose place what they were before is shown.
    pub(super) kept: Vec<PathBuf>,
}

/// Makes everything, from the certificates as they were read while checking. An option set whose CAs do not serve, or
/// an upstream whose roots do not, is the end of the routes that need it, and of no others.
///
/// Of what was made `before`, certificates and policies that would be made from the same stay: so do the clients' sessions.
pub(super) fn load(checked: Checked, before: &Loaded) -> (Config, Loaded) {
    let Checked {
        config,
        mut certificates,
        ..
    } = checked;
    let kept = broken(&config, &certificates, &before.certificates);
    certificates.extend(kept.iter().map(|one| Certificate::clone(one)));
    let certificates = match before.certificates.holds(&certificates) {
        true => Arc::clone(&before.certificates),
        false => Arc::new(Certificates::new(certificates)),
    };
    let loaded = Loaded {
        policies: policies(&config, &certificates, before),
        client_configs: client_configs(&config),
        certificates,
        kept: kept.iter().map(|one| one.source.clone()).collect(),
    };
    (config, loaded)
}

/// The certificates of before whose chains still stand in a directory, and do not serve as they are: half of a pair that is
/// being written. Of a pair that is listed by itself the whole configuration is refused.
fn broken(
    config: &Config,
    certificates: &[Certificate],
    before: &Certificates,
) -> Vec<Arc<Certificate>> {
    let directories: Vec<&PathBuf> = (config.certificates.iter())
        .filter_map(|files| match files {
            CertificateFiles::Directory(directory) => Some(directory),
            CertificateFiles::Pair { .. } => None,
        })
        .collect();
    let is_broken = |one: &Certificate| {
        directories.iter().any(|at| one.source.starts_with(at))
            && !certificates.iter().any(|new| new.source == one.source)
            && one.source.exists()
    };
    before
        .iter()
        .filter(|one| is_broken(one))
        .cloned()
        .collect()
}

/// One policy for each option set that there is, known by the name that routes use: a tag may name any.
fn policies(
    config: &Config,
    certificates: &Arc<Certificates>,
    before: &Loaded,
) -> BTreeMap<Option<String>, Result<Arc<ServerPolicy>, String>> {
    let named = config.tls_options.iter();
    let named = named.map(|(name, options)| (Some(name.clone()), options));
    let default = config.tls_options.get("default");
    named
        .chain(default.map(|options| (None, options)))
        .map(|(name, options)| {
            let last = before.policies.get(&name);
            let last = last.and_then(|last| last.as_ref().ok());
            let policy = ServerPolicy::following(options, certificates.clone(), last)
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

/// Of all that is wrong the first mistake, in one line with its place. There may be warnings before it; what cannot be bound is
/// one line already.
pub(super) fn first_mistake(why: &str) -> String {
    let mut lines = why.lines().map(str::trim_start).peekable();
    let first = lines.peek().copied().unwrap_or_default();
    let what = lines.find(|line| line.starts_with("error"));
    let place = lines.find_map(|line| line.strip_prefix("--> "));
    let place = place.map_or_else(String::new, |place| format!(" ({place})"));
    format!("{}{place}", what.unwrap_or(first))
}
