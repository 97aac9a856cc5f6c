//! From an option set to the `ServerConfig`s that serve it: one for each answer to ALPN, made once.

use std::sync::Arc;

use rustls::server::{
    NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::files::{FileError, load_roots};
use super::options::{ClientAuth, Options, PORTCULLIS, Version};

/// What ends TLS for the routes that share an option set.
///
/// Tickets belong to one policy alone, so that nothing that was agreed under one can be resumed under another; where
/// a client certificate is asked for there are none at all. Sessions are kept nowhere else, and early data never taken.
#[derive(Debug)]
pub struct ServerPolicy {
    options: Options,
    certificates: Arc<dyn ResolvesServerCert>,
    /// What clients' certificates are verified against, as it was read.
    client_roots: Option<Arc<RootCertStore>>,
    tickets: Option<Tickets>,
    configs: Configs,
    /// For clients that are to be told what becomes of the dial; none where ALPN is off.
    telling: Option<Arc<ServerConfig>>,
}

/// The keys that seal the session tickets of one policy: they end with it. Kept when only the certificates change.
#[derive(Clone, Debug)]
struct Tickets(Arc<dyn ProducesTickets>);

/// The configurations of a policy: what they answer to ALPN is all they differ in.
#[derive(Debug)]
enum Configs {
    /// One answer for every client: the list's, or none.
    One(Arc<ServerConfig>),
    /// Whatever suits the client.
    ByOffer {
        h2: Arc<ServerConfig>,
        http11: Arc<ServerConfig>,
        none: Arc<ServerConfig>,
    },
}

impl ServerPolicy {
    /// The policy of an option set from now on: the last one of the same set, if nothing that it was made from has changed.
    ///
    /// Client CAs are compared by what their files hold, which is read for it.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn following(
        options: &Options,
        certificates: Arc<dyn ResolvesServerCert>,
        previous: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, PolicyError> {
        let client_roots = client_roots(options)?;
        let anchors = |roots: &Option<Arc<RootCertStore>>| roots.as_ref().map(|r| r.roots.clone());
        if let Some(previous) = previous
            && previous.options == *options
            && Arc::ptr_eq(&previous.certificates, &certificates)
            && anchors(&previous.client_roots) == anchors(&client_roots)
        {
            return Ok(Arc::clone(previous));
        }
        let previous = previous.map(|previous| &**previous);
        Self::with_roots(options, certificates, client_roots, previous).map(Arc::new)
    }

    /// Makes a policy, reading the CA files that its option set names.
    ///
    /// `previous` is the policy of the same option set in the last snapshot. Its tickets go on if the options are still
    /// equal: where that is so, no client certificate was or is asked for, and so no CA can have changed either.
    pub fn new(
        options: &Options,
        certificates: Arc<dyn ResolvesServerCert>,
        previous: Option<&ServerPolicy>,
    ) -> Result<Self, PolicyError> {
        let client_roots = client_roots(options)?;
        Self::with_roots(options, certificates, client_roots, previous)
    }

    fn with_roots(
        options: &Options,
        certificates: Arc<dyn ResolvesServerCert>,
        client_roots: Option<Arc<RootCertStore>>,
        previous: Option<&ServerPolicy>,
    ) -> Result<Self, PolicyError> {
        let tickets = match (&options.client_auth, previous) {
            (ClientAuth::Optional(_) | ClientAuth::Required(_), _) => None,
            (ClientAuth::None, Some(previous)) if previous.options == *options => {
                previous.tickets.clone()
            }
            (ClientAuth::None, _) => Some(Tickets(rustls::crypto::aws_lc_rs::Ticketer::new()?)),
        };
        let base = base_config(
            options,
            Arc::clone(&certificates),
            client_roots.clone(),
            tickets.as_ref(),
        )?;
        let answering = |protocols: &[&[u8]]| {
            let mut config = base.clone();
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        let configs = match &options.alpn {
            Some(list) => {
                list.iter().try_for_each(|name| check_protocol(name))?;
                Configs::One(answering(
                    &list.iter().map(String::as_bytes).collect::<Vec<_>>(),
                ))
            }
            None => Configs::ByOffer {
                h2: answering(&[b"h2"]),
                http11: answering(&[b"http/1.1"]),
                none: answering(&[]),
            },
        };
        let is_off = options.alpn.as_ref().is_some_and(Vec::is_empty);
        Ok(Self {
            telling: (!is_off).then(|| answering(&[PORTCULLIS])),
            options: options.clone(),
            certificates,
            client_roots,
            tickets,
            configs,
        })
    }

    /// The configuration for a client that offers these protocols. [`PORTCULLIS`] goes before all others.
    pub fn config(&self, offered: &[Vec<u8>]) -> &Arc<ServerConfig> {
        let offers = |name: &[u8]| offered.iter().any(|one| one == name);
        if let Some(telling) = self.telling.as_ref().filter(|_| offers(PORTCULLIS)) {
            return telling;
        }
        match &self.configs {
            Configs::One(config) => config,
            Configs::ByOffer { h2, .. } if offers(b"h2") => h2,
            Configs::ByOffer { http11, .. } if offers(b"http/1.1") => http11,
            Configs::ByOffer { none, .. } => none,
        }
    }

    /// Whether clients are asked for a certificate, needed or not.
    pub fn asks_for_certificate(&self) -> bool {
        self.options.client_auth != ClientAuth::None
    }

    /// The option set that it was made from.
    pub fn options(&self) -> &Options {
        &self.options
    }
}

/// Why an option set cannot be served. A route that refers to it refuses; it is never served with another.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A file of client CAs does not serve.
    #[error("client CAs: {0}")]
    ClientCa(#[from] FileError),
    /// Client certificates are asked for, and nothing could verify one.
    #[error("client certificates are asked for, but no CA file is named")]
    NoClientCa,
    /// A protocol that cannot be offered.
    #[error("the ALPN protocol `{}` {reason}", protocol.escape_default())]
    Protocol {
        /// The protocol as listed.
        protocol: String,
        /// Why not.
        reason: &'static str,
    },
    /// The TLS library refused: versions without a suite, or no randomness.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
}

impl PolicyError {
    /// What to do about it.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::ClientCa(error) => error.help.as_deref(),
            Self::NoClientCa => Some("name the CA that the clients' certificates come from"),
            Self::Protocol { .. } => Some("take it out of the list"),
            Self::Tls(_) => None,
        }
    }
}

/// How many tickets a client of TLS 1.3 is given.
///
/// 1: it takes one for its next connection, and gets the next there; each costs the handshake 2 %.
const TICKETS: usize = 1;

/// What clients' certificates are verified against, read from the files that the option set names.
fn client_roots(options: &Options) -> Result<Option<Arc<RootCertStore>>, PolicyError> {
    match &options.client_auth {
        ClientAuth::None => Ok(None),
        ClientAuth::Optional(files) | ClientAuth::Required(files) => {
            Ok(Some(Arc::new(load_roots(files)?)))
        }
    }
}

/// All of a configuration but its answer to ALPN. Clones share the tickets.
fn base_config(
    options: &Options,
    certificates: Arc<dyn ResolvesServerCert>,
    client_roots: Option<Arc<RootCertStore>>,
    tickets: Option<&Tickets>,
) -> Result<ServerConfig, PolicyError> {
    let versions = versions(options);
    let mut provider = (*super::provider()).clone();
    if let Some(ciphers) = &options.ciphers {
        ciphers.restrict(&mut provider);
    }
    // Else a client that lists TLS 1.3 suites in vain would be taken for one that can use any kind of key.
    provider
        .cipher_suites
        .retain(|suite| versions.contains(&suite.version()));
    let builder = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&versions)?;
    let builder = match client_roots {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let mut verifier =
                WebPkiClientVerifier::builder_with_provider(roots, super::provider());
            if let ClientAuth::Optional(_) = options.client_auth {
                verifier = verifier.allow_unauthenticated();
            }
            builder
                .with_client_cert_verifier(verifier.build().map_err(|_| PolicyError::NoClientCa)?)
        }
    };
    let mut config = builder.with_cert_resolver(certificates);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    match tickets {
        // The library's own default for a ticketer is one that makes none.
        None => config.send_tls13_tickets = 0,
        Some(Tickets(ticketer)) => {
            config.ticketer = Arc::clone(ticketer);
            config.send_tls13_tickets = TICKETS;
        }
    }
    Ok(config)
}

fn versions(options: &Options) -> Vec<&'static SupportedProtocolVersion> {
    [
        (Version::Tls13, &rustls::version::TLS13),
        (Version::Tls12, &rustls::version::TLS12),
    ]
    .into_iter()
    .filter(|(version, _)| (options.min_version..=options.max_version).contains(version))
    .map(|(_, version)| version)
    .collect()
}

fn check_protocol(name: &str) -> Result<(), PolicyError> {
    let reason = match name.len() {
        _ if name == "acme-tls/1" => "is kept for ACME's own handshakes (RFC 8737)",
        1..=255 => return Ok(()),
        _ => "is not 1 to 255 bytes long (RFC 7301 §3.1)",
    };
    Err(PolicyError::Protocol {
        protocol: name.to_owned(),
        reason,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
