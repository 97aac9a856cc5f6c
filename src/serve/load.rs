//! What TLS is made from, by the configuration: the index of certificates, policies, and what verifies upstreams.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{CertificateFiles, Checked, Config, UpstreamTls};
use crate::snapshot::certificates::Certificates;
use crate::tls::client::{ClientError, Made};
use crate::tls::files::{Certificate, FileError, OwnCertificate};
use crate::tls::server::{PolicyError, ServerPolicy};

/// What was made. A clone shares it.
#[derive(Clone, Debug, Default)]
pub(super) struct Loaded {
    pub(super) certificates: Arc<Certificates>,
    pub(super) policies: BTreeMap<Option<String>, Result<Arc<ServerPolicy>, String>>,
    pub(super) client_configs: BTreeMap<String, Result<Made, String>>,
    /// By the transports of the file.
    pub(super) transport_configs: BTreeMap<String, Result<Made, String>>,
    /// Chains in directories that do not serve as they are, in whose place what they were before is shown.
    pub(super) kept: Vec<PathBuf>,
    /// What those who are dialled are shown.
    pub(super) own_certificates: Vec<OwnCertificate>,
}

/// A file that was good while it was checked cannot be read for want of something else.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct Shortage(FileError);

/// Makes everything, from the certificates as they were read while checking. An option set whose CAs do not serve, or
/// an upstream whose roots do not, is the end of the routes that need it, and of no others.
///
/// Of what was made `before`, whatever would be made from the same stays: so do the clients' sessions, and what is known of
/// the chains that upstreams show.
///
/// # Errors
/// There is too little of something just now, which is no fault of an option set or an upstream: no route ends by it.
pub(super) fn load(checked: Checked, before: &Loaded) -> Result<(Config, Loaded), Shortage> {
    let Checked {
        config,
        mut certificates,
        own_certificates,
        ..
    } = checked;
    let kept = broken(&config, &certificates, &before.certificates);
    certificates.extend(kept.iter().map(|one| Certificate::clone(one)));
    let certificates = match before.certificates.holds(&certificates) {
        true => Arc::clone(&before.certificates),
        false => Arc::new(Certificates::new(certificates)),
    };
    let mut loaded = Loaded {
        kept: kept.iter().map(|one| one.source.clone()).collect(),
        certificates,
        own_certificates,
        ..Loaded::default()
    };
    loaded.make_policies(&config, before)?;
    loaded.make_client_configs(&config, before)?;
    Ok((config, loaded))
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

impl Loaded {
    /// One policy for each option set that there is, known by the name that routes use: a tag may name any.
    fn make_policies(&mut self, config: &Config, before: &Self) -> Result<(), Shortage> {
        let named = config.tls_options.iter();
        let named = named.map(|(name, options)| (Some(name.clone()), options));
        let default = config.tls_options.get("default");
        for (name, options) in named.chain(default.map(|options| (None, options))) {
            let last = before.policies.get(&name);
            let last = last.and_then(|last| last.as_ref().ok());
            let certificates = self.certificates.clone();
            let policy = match ServerPolicy::following(options, certificates, last) {
                Err(PolicyError::ClientCa(error)) if error.may_pass => return Err(Shortage(error)),
                made => made.map_err(|error| error.to_string()),
            };
            self.policies.insert(name, policy);
        }
        Ok(())
    }

    /// One configuration for each upstream with TLS, and for each transport; those that ask for the same share it, those of before among them.
    fn make_client_configs(&mut self, config: &Config, before: &Self) -> Result<(), Shortage> {
        let mut made: Vec<(&UpstreamTls, Result<Made, String>)> = Vec::new();
        let upstreams = config.upstreams.iter();
        let upstreams = upstreams.map(|(name, upstream)| (name, &upstream.tls, false));
        let transports = config.transports.iter();
        let transports = transports.map(|(name, transport)| (name, &transport.tls, true));
        for (name, tls, is_transport) in upstreams.chain(transports) {
            let Some(tls) = tls else { continue };
            let same = |other: &UpstreamTls| {
                other.roots == tls.roots
                    && other.proof == tls.proof
                    && other.certificate == tls.certificate
                    && other.alpn == tls.alpn
                    && other.ciphers == tls.ciphers
            };
            let config = match made.iter().find(|(other, _)| same(other)) {
                Some((_, config)) => config.clone(),
                None => {
                    let config = client_config(tls, before)?;
                    made.push((tls, config.clone()));
                    config
                }
            };
            let all = match is_transport {
                true => &mut self.transport_configs,
                false => &mut self.client_configs,
            };
            all.insert(name.clone(), config);
        }
        Ok(())
    }
}

fn client_config(tls: &UpstreamTls, before: &Loaded) -> Result<Result<Made, String>, Shortage> {
    let certificate = tls.certificate.as_ref();
    let certificate = certificate.map(|(chain, key)| (chain.as_path(), key));
    let transports = before.transport_configs.values();
    let before = before.client_configs.values().chain(transports).flatten();
    let (proof, ciphers) = (tls.proof.clone(), tls.ciphers.as_ref());
    match Made::following(&tls.roots, certificate, proof, &tls.alpn, ciphers, before) {
        Err(ClientError::File(error)) if error.may_pass => Err(Shortage(error)),
        made => Ok(made.map_err(|error| error.to_string())),
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config;
    use crate::tls::test_certs::Ca;

    #[test]
    fn an_upstream_keeps_its_tls_while_nothing_that_it_is_made_from_changes() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let (first, second) = (Ca::new("first"), Ca::new("second"));
        write("a.pem", &first.pem());
        write("b.pem", &second.pem());
        let text = |name: &str| {
            let upstream = |name: &str, ca: &str| {
                format!(
                    "[upstreams.{name}]\naddress = \"127.0.0.1:1\"\n\
                     tls = {{ server_name = \"{name}.test\", roots = [\"{ca}.pem\"] }}\n"
                )
            };
            format!(
                "admin = false\n{}{}",
                upstream(name, "a"),
                upstream("other", "b")
            )
        };
        let reload = |name: &str, before: &Loaded| {
            let path = folder.path().join("portcullis.toml");
            let checked = config::parse(&text(name), &path);
            let checked = checked.unwrap_or_else(|mistakes| panic!("{mistakes}"));
            load(checked, before).unwrap().1
        };
        let of = |loaded: &Loaded, name: &str| {
            Arc::clone(&loaded.client_configs[name].as_ref().unwrap().config)
        };
        let one = reload("one", &Loaded::default());
        // By another name too: what it is made from is the same.
        let two = reload("two", &one);
        assert!(Arc::ptr_eq(&of(&one, "one"), &of(&two, "two")));
        assert!(Arc::ptr_eq(&of(&one, "other"), &of(&two, "other")));
        assert!(!Arc::ptr_eq(&of(&one, "one"), &of(&one, "other")));

        write("a.pem", &Ca::new("first").pem());
        let three = reload("two", &two);
        assert!(!Arc::ptr_eq(&of(&two, "two"), &of(&three, "two")));
        assert!(Arc::ptr_eq(&of(&two, "other"), &of(&three, "other")));
    }
}
