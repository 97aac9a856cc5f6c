//! Addresses that overlap: what goes is closed first, and bound again if that was in vain.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;

use tokio::task::JoinSet;

use super::operators::Admin;
use super::running::{Running, bind};
use super::{Listeners, OpenError, Serving, listen};
use crate::admin;
use crate::config::{self, AdminAddress, Config, Keepalive};
use crate::net::listener::Listener;
use crate::snapshot::ListenerId;

/// What can only be bound when something that goes is closed.
#[derive(Debug, Default)]
pub(super) struct Blocked {
    /// With its place in the configuration.
    pub(super) listeners: Vec<(usize, config::Listener)>,
    pub(super) admin: Option<SocketAddr>,
}

/// What was closed for that, and is bound again if it was in vain.
#[derive(Debug, Default)]
struct Closed {
    listeners: Vec<(ListenerId, config::Listener, SocketAddr)>,
    admin: Option<(AdminAddress, AdminAddress)>,
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
            self.reopen(closed, keepalive, serving, tasks).await;
        }
        bound.map_err(|error| OpenError::InPlace(Box::new(error)))
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
            let (id, written, bound) = (running.id, running.written.clone(), running.bound);
            closed.listeners.push((id, written, bound));
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

    /// Serves on where it did before.
    async fn reopen(
        &mut self,
        closed: Closed,
        keepalive: &Keepalive,
        serving: &Serving,
        tasks: &mut JoinSet<()>,
    ) {
        for (id, written, address) in closed.listeners {
            match bind(address, keepalive, serving) {
                Ok(socket) => {
                    let serving = serving.clone();
                    let running = Running::start(id, written, socket, *keepalive, serving, tasks);
                    self.running.push(running);
                }
                Err(error) => {
                    tracing::error!(%address, %error, "the listener that ran there cannot be bound again");
                }
            }
        }
        if let Some((written, bound)) = closed.admin {
            match admin::Listener::bind(&bound).await {
                Ok(listener) => self.admin = Some(Admin::start(written, listener, serving, tasks)),
                Err(error) => {
                    tracing::error!(%error, "the admin interface that ran there cannot be bound again");
                }
            }
        }
    }
}

impl Blocked {
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let listeners = self.listeners.iter().map(|(_, one)| one.address);
        listeners.chain(self.admin).collect()
    }

    async fn bind(
        &self,
        keepalive: &Keepalive,
        serving: &Serving,
    ) -> Result<(Vec<Listener>, Option<admin::Listener>), OpenError> {
        let mut sockets = Vec::new();
        for (_, listener) in &self.listeners {
            sockets.push(listen(listener.address, keepalive, serving)?);
        }
        let admin = match self.admin {
            Some(address) => Some(admin::Listener::bind(&AdminAddress::Tcp(address)).await?),
            None => None,
        };
        Ok((sockets, admin))
    }
}
