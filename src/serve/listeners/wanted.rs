//! What a configuration wants to be listened on: the addresses for TLS, and those of tunnels.

use std::sync::Arc;

use crate::config::{self, Config, ListenAddress};
use crate::metrics::RouteMetrics;
use crate::snapshot::{self, Names, Raw};

/// One address, and what those who come there get.
#[derive(Clone, Debug)]
pub(in crate::serve) struct Wanted {
    pub(super) address: ListenAddress,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Tls(config::Listener),
    Raw {
        tunnel: Arc<str>,
        /// Of the file of a UNIX socket.
        mode: u32,
    },
}

/// All of them, in the order of the configuration, those for TLS first.
pub(super) fn wanted(config: &Config) -> Vec<Wanted> {
    let tls = config.listeners.iter().map(|listener| Wanted {
        address: listener.address.into(),
        kind: Kind::Tls(listener.clone()),
    });
    let raw = config.tunnels.iter().flat_map(|(name, tunnel)| {
        let name: Arc<str> = name.as_str().into();
        tunnel.listen.iter().map(move |address| Wanted {
            address: address.clone(),
            kind: Kind::Raw {
                tunnel: Arc::clone(&name),
                mode: tunnel.socket_mode(),
            },
        })
    });
    tls.chain(raw).collect()
}

impl Wanted {
    /// Whether clients are to speak TLS there.
    pub(super) fn is_tls(&self) -> bool {
        matches!(self.kind, Kind::Tls(_))
    }

    /// The tunnel that begins there.
    pub(super) fn tunnel(&self) -> Option<&Arc<str>> {
        match &self.kind {
            Kind::Raw { tunnel, .. } => Some(tunnel),
            Kind::Tls(_) => None,
        }
    }

    /// The mode of a UNIX socket.
    pub(super) fn mode(&self) -> u32 {
        match self.kind {
            Kind::Raw { mode, .. } => mode,
            Kind::Tls(_) => 0o600,
        }
    }

    /// What it does at this address by this configuration; nothing where that has its tunnel no more.
    pub(super) fn describe(
        &self,
        bound: ListenAddress,
        config: &Config,
    ) -> Option<snapshot::Listener> {
        match &self.kind {
            Kind::Tls(listener) => Some(snapshot::Listener::Tls(Names {
                unknown_name: listener.unknown_name,
                accept_proxy: listener.accept_proxy.clone(),
                ..Names::default()
            })),
            Kind::Raw { tunnel: name, .. } => {
                let tunnel = config.tunnels.get(&**name)?;
                Some(snapshot::Listener::Raw(Arc::new(Raw {
                    name: Arc::clone(name),
                    address: bound,
                    upstream: tunnel.upstream.as_str().into(),
                    allow_uids: tunnel.allow_uids.clone(),
                    max_connections: tunnel.max_connections,
                    // The compiler knows them.
                    metrics: Arc::new(RouteMetrics::default()),
                })))
            }
        }
    }
}
