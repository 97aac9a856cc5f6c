//! A configuration that is bound and not served yet, and the turn from the one before to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Context;

use super::super::consul::{self, Consul};
use super::super::expiry;
use super::super::listeners::Opened;
use super::super::load::{self, Loaded};
use super::super::nomad;
use super::super::publish::{self, Configured};
use super::{INSECURE_LISTEN, LISTENERS, Parts};
use crate::config::{Checked, Config, Keepalive, Log, Token};
use crate::name::HostName;
use crate::net::limits::files;
use crate::net::resolve::Resolving;
use crate::state::Settings;
use crate::status::State;

/// What runs from the next configuration on: everything is bound, and nobody is served by it yet.
#[derive(Debug)]
pub(in crate::serve) struct Prepared {
    pub(super) opened: Opened,
    keepalive: Keepalive,
    log: Log,
    wants_sandbox: bool,
    loaded: Loaded,
    state: Option<Settings>,
    /// What `insecure_listen` lets in.
    open_to_all: Option<String>,
    names: BTreeSet<HostName>,
    /// Those that have been asked for.
    pub(super) resolving: BTreeMap<HostName, Resolving>,
    token: Option<Token>,
    consul: Option<consul::Prepared>,
    nomad: Option<nomad::Prepared>,
}

impl Parts {
    /// Makes and binds all that this configuration needs.
    ///
    /// # Errors
    /// Something cannot be bound, or made from it. Everything is then as it was.
    pub(in crate::serve) async fn prepare(
        &mut self,
        checked: Checked,
    ) -> anyhow::Result<(Configured, Prepared)> {
        files::suffice(&checked.config.limits, files::limit())?;
        let before = self.loaded.clone();
        // Files are read for it, and a system's roots are hundreds.
        let loading = tokio::task::spawn_blocking(move || load::load(checked, &before));
        let (config, loaded) = loading.await.context("it cannot be loaded")??;
        // The only step that a step behind it could not take back: the last one but those that cannot fail.
        let (client, nomad) = (consul::client(&config)?, nomad::client(&config)?);
        let opened = (self.listeners)
            .open(&config, &self.serving, &mut self.tasks)
            .await?;
        let own = opened.addresses();
        let (listeners, names) = (opened.described(), publish::names(&config));
        let prepared = Prepared {
            opened,
            keepalive: config.limits.keepalive,
            log: config.log,
            wants_sandbox: config.sandbox,
            loaded: loaded.clone(),
            state: config.state.clone(),
            open_to_all: open_to_all(&config),
            names,
            resolving: BTreeMap::new(),
            token: config.admin_token.clone(),
            consul: consul::prepare(client, &config, &own),
            nomad: nomad::prepare(nomad, &config, &own),
        };
        let configured = Configured {
            config,
            loaded,
            listeners,
            own,
            answers: Vec::new(),
        };
        Ok((configured, prepared))
    }

    /// Serves from it, and ends what it has no more. It is published by now.
    pub(in crate::serve) async fn take(&mut self, prepared: Prepared) {
        let Prepared {
            opened,
            keepalive,
            log,
            wants_sandbox,
            loaded,
            state,
            open_to_all,
            names,
            resolving,
            token,
            consul,
            nomad,
        } = prepared;
        self.expiring = Some(expiry::watch(
            loaded.own_certificates.clone(),
            &self.serving.metrics,
            &self.status,
            &mut self.tasks,
        ));
        self.loaded = loaded;
        self.serving.sources.token.store(token.map(Arc::new));
        (self.names).take(names, resolving, &self.news.answers, &mut self.tasks);
        self.keeping.follow(state).await;
        consul::take(
            &mut self.consul,
            consul,
            self.keeping.state.as_deref(),
            (&self.news.changes, &self.serving.sources.snapshot),
            &self.status,
            &mut self.tasks,
        )
        .await;
        let client = self.consul.as_ref().map(Consul::client);
        self.asking.store(client.cloned().map(Arc::new));
        nomad::take(
            &mut self.nomad,
            nomad,
            self.keeping.state.as_deref(),
            &self.news.changes,
            &self.status,
            &mut self.tasks,
        )
        .await;
        // After every part has told its state: who asks `/readyz` at once hears of all of them.
        (self.listeners).take(opened, keepalive, &self.serving, &mut self.tasks);
        self.status.set(LISTENERS, self.listeners.state());
        match open_to_all {
            Some(what) => self.status.set(INSECURE_LISTEN, State::Noted(what)),
            None => self.status.remove(INSECURE_LISTEN),
        }
        if self.log != log {
            tracing::warn!("[log] has changed: the log is written so from the next start on");
        }
        if self.serving.handed.sandbox.is_some() && self.wants_sandbox != wants_sandbox {
            tracing::warn!("`insecure_no_sandbox` has changed: it counts at the next start");
        }
        self.wants_sandbox = wants_sandbox;
    }
}

/// Which tunnels take bytes of the network in the clear, if any does.
fn open_to_all(config: &Config) -> Option<String> {
    let tunnels = config.tunnels.iter();
    let open = tunnels.flat_map(|(name, tunnel)| {
        let open = tunnel.open();
        open.map(move |address| format!("`{name}` on {address}"))
    });
    let open: Vec<String> = open.collect();
    (!open.is_empty()).then(|| {
        let open = open.join(", ");
        format!(
            "tunnels take bytes of the network in the clear, by `insecure_listen = true`: {open}"
        )
    })
}
