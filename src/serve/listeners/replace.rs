//! Addresses that overlap: what goes is closed first, and bound again if that was in vain.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;

use tokio::task::JoinSet;

use super::operators::Admin;
use super::wanted::Wanted;
use super::{Listeners, OpenError, Serving, listen};
use crate::admin;
use crate::config::{Config, Keepalive, ListenAddress};
use crate::net::listener::Listener;
use crate::snapshot::ListenerId;

/// What can only be bound when something that goes is closed.
#[derive(Debug, Default)]
pub(super) struct Blocked {
    /// With its place in the configuration.
    pub(super) listeners: Vec<(usize, Wanted)>,
    pub(super) admin: Option<SocketAddr>,
}

/// What was closed for that, and is bound again if it was in vain.
#[derive(Debug, Default)]
pub(super) struct Closed {
    pub(super) listeners: Vec<ClosedListener>,
    /// As it is written, and as it was bound.
    pub(super) admin: Option<(ListenAddress, ListenAddress)>,
}

/// A listener as it ran.
#[derive(Debug)]
pub(super) struct ClosedListener {
    pub(super) id: ListenerId,
    pub(super) written: Wanted,
    pub(super) bound: ListenAddress,
    pub(super) keepalive: Keepalive,
}

impl Listeners {
    /// Closes what goes and is in the way of these, and binds them; or binds what it has closed again.
    pub(super) async fn replace(
        &mut self,
        blocked: &Blocked,
        config: &Config,
        serving: &Serving,
        tasks: &mut JoinSet<()>,
    ) -> Result<(Vec<Listener>, Option<admin::Listener>), OpenError> {
        let keepalive = &config.limits.keepalive;
        let closed = self.close(&blocked.addresses(), config).await;
        let bound = blocked.bind(keepalive, serving).await;
        if bound.is_err() {
            self.reopen(closed, serving, tasks).await;
        }
        bound.map_err(|error| match self.lack() {
            None => OpenError::InPlace(Box::new(error)),
            Some(lack) => OpenError::InVain(Box::new(error), lack),
        })
    }

    /// Closes what goes and is in the way of these addresses.
    async fn close(&mut self, addresses: &[SocketAddr], config: &Config) -> Closed {
        let going: BTreeSet<ListenerId> = self.going(config).map(|running| running.id).collect();
        let mut closed = Closed::default();
        let mut ending = Vec::new();
        for running in std::mem::take(&mut self.running) {
            let blocks = addresses.iter().any(|address| running.blocks(*address));
            if !(blocks && going.contains(&running.id)) {
                self.running.push(running);
                continue;
            }
            closed.listeners.push(ClosedListener {
                id: running.id,
                written: running.written.clone(),
                bound: running.bound.clone(),
                keepalive: running.keepalive(),
            });
            ending.push(running.close());
        }
        let blocks = |admin: &Admin| addresses.iter().any(|address| admin.blocks(*address));
        let goes = self.going_admin(config).is_some_and(blocks);
        if let Some(admin) = self.admin.take_if(|_| goes) {
            closed.admin = Some((admin.written.clone(), admin.bound.clone()));
            ending.push(admin.close());
        }
        for ended in ending {
            let _: Result<Infallible, _> = ended.await;
        }
        closed
    }
}

impl Blocked {
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let listeners = self.listeners.iter();
        let listeners = listeners.filter_map(|(_, one)| one.address.tcp());
        listeners.chain(self.admin).collect()
    }

    async fn bind(
        &self,
        keepalive: &Keepalive,
        serving: &Serving,
    ) -> Result<(Vec<Listener>, Option<admin::Listener>), OpenError> {
        let mut sockets = Vec::new();
        for (_, wanted) in &self.listeners {
            sockets.push(listen(wanted, keepalive, serving)?);
        }
        let admin = match self.admin {
            Some(address) => {
                let bound = admin::Listener::bind(&ListenAddress::Tcp(address)).await;
                Some(bound.map_err(OpenError::Admin)?)
            }
            None => None,
        };
        Ok((sockets, admin))
    }
}
