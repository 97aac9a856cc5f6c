//! The listeners that run, the admin interface's too, and how they change with the configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;
use tokio::task::JoinSet;

mod claim;
mod missing;
mod operators;
mod replace;
mod running;
mod wanted;

use crate::admin::{self, BindError};
use crate::config::{Config, Keepalive, ListenAddress};
use crate::lifecycle::{Handed, Shutdown};
use crate::metrics::Metrics;
use crate::net::listener::Listener;
use crate::proxy::Proxy;
use crate::retry;
use crate::snapshot::{self, ListenerId};
pub(super) use claim::claim;
use missing::Missing;
use operators::Admin;
use replace::Blocked;
use running::{Running, bind};
use wanted::{Wanted, wanted};

/// What every listener needs to serve those who come, and the admin interface.
#[derive(Clone, Debug)]
pub(super) struct Serving {
    pub(super) proxy: Arc<Proxy>,
    pub(super) sources: admin::Sources,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shutdown: Shutdown,
    pub(super) handed: Handed,
}

/// The listeners that accept, in the order of the configuration, and the admin interface.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    /// The number of the next one. None comes twice: who came in by a listener that is gone finds nothing of another.
    next: u32,
    running: Vec<Running>,
    admin: Option<Admin>,
    /// What should run, and could not be bound again when it had been closed in vain.
    missing: Option<Missing>,
    /// Those that were told to end: each hears when its address is free.
    ending: Vec<oneshot::Receiver<Infallible>>,
}

/// The listeners of the next configuration, in its order. Nobody is accepted by the new ones yet.
#[derive(Debug)]
pub(super) struct Opened {
    listeners: Vec<(ListenerId, Wanted, Socket)>,
    admin: Option<(ListenAddress, AdminSocket)>,
    /// What each one does, and those that end with it: who comes in by them until then must meet what they ask for.
    described: BTreeMap<ListenerId, snapshot::Listener>,
}

#[derive(Debug)]
enum Socket {
    /// It runs already.
    Running(ListenAddress),
    New(Listener),
}

impl Socket {
    fn address(&self) -> ListenAddress {
        match self {
            Self::Running(bound) => bound.clone(),
            Self::New(listener) => listener.address(),
        }
    }
}

#[derive(Debug)]
enum AdminSocket {
    /// It runs already.
    Running(ListenAddress),
    New(admin::Listener),
}

/// Why a configuration cannot be listened by.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("cannot listen on {address}: {error}")]
    Listen {
        address: ListenAddress,
        error: io::Error,
    },
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(
        "`admin`: {0}; `admin = \"127.0.0.1:9444\"`, or another address, moves it, and `admin = false` does without"
    )]
    Admin(BindError),
    #[error(
        "`{key}` cannot become {address}: the sandbox was entered at the start, and a UNIX socket can be made in no other \
         directory until the next one; restart, or keep the directory"
    )]
    Sandboxed { key: String, address: ListenAddress },
    /// Each try would close once more what serves.
    #[error(
        "{0} (what it was to replace was closed for it, and serves again; so it is not tried again before a file \
         changes, or somebody asks for a reload)"
    )]
    InPlace(Box<Self>),
    /// The same, and what was closed is gone too: that is tried again.
    #[error(
        "{0} (what it was to replace was closed for it and cannot be bound again: {1}; that is tried again of itself, this \
         configuration not before a file changes, or somebody asks for a reload)"
    )]
    InVain(Box<Self>, String),
}

impl OpenError {
    /// Whether trying again may do, and does no harm.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Listen { error, .. } => retry::may_pass(error),
            Self::Bind(error) | Self::Admin(error) => error.may_pass(),
            Self::Sandboxed { .. } | Self::InPlace(_) | Self::InVain(..) => false,
        }
    }
}

impl Listeners {
    /// Binds what this configuration has more than the last one. The kernel queues clients there from now on.
    ///
    /// Where a new address and that of one that goes overlap (they are the same, of the admin interface and a listener, or
    /// one of them stands for all addresses), the old one is closed first: nobody is accepted there in between, which is
    /// logged.
    ///
    /// # Errors
    /// The system refuses an address, or the sandbox. The listeners are then as they were, or are [missing](Self::state) and
    /// tried again where even that is refused.
    pub(super) async fn open(
        &mut self,
        config: &Config,
        serving: &Serving,
        tasks: &mut JoinSet<()>,
    ) -> Result<Opened, OpenError> {
        // What comes back in the next moment would find its address in use.
        for ended in std::mem::take(&mut self.ending) {
            let _: Result<Infallible, _> = ended.await;
        }
        claim::tell_modes(&serving.handed.sockets, config);
        let keepalive = &config.limits.keepalive;
        let mut opened: Vec<(usize, ListenerId, Wanted, Socket)> = Vec::new();
        let mut blocked = Blocked::default();
        for (place, wanted) in wanted(config).into_iter().enumerate() {
            // Two may have port 0: each goes on with its own.
            let same = |running: &&Running| {
                let is_taken = opened.iter().any(|(_, id, ..)| *id == running.id);
                running.written.address == wanted.address && !is_taken
            };
            if let Some(running) = self.running.iter().find(same) {
                let (id, bound) = (running.id, running.bound.clone());
                let again = match running.is_lost() {
                    true => found_again(listen(&wanted, keepalive, serving), &bound),
                    false => None,
                };
                opened.push(match again {
                    Some(socket) => (place, self.number(), wanted, Socket::New(socket)),
                    None => (place, id, wanted, Socket::Running(bound)),
                });
            } else if (wanted.address.tcp()).is_some_and(|it| self.is_in_the_way(it, config)) {
                blocked.listeners.push((place, wanted));
            } else {
                let socket = Socket::New(listen(&wanted, keepalive, serving)?);
                opened.push((place, self.number(), wanted, socket));
            }
        }
        let mut admin = None;
        if let Some(written) = &config.admin {
            let running = self.admin.as_ref();
            let running = running.filter(|running| running.is_at(written));
            admin = match (running, written) {
                (Some(running), written) => {
                    let bound = running.bound.clone();
                    let again = match running.is_lost() {
                        true => found_again(admin::Listener::bind(written).await, &bound),
                        false => None,
                    };
                    Some(again.map_or(AdminSocket::Running(bound), AdminSocket::New))
                }
                (None, ListenAddress::Tcp(address)) if self.is_in_the_way(*address, config) => {
                    blocked.admin = Some(*address);
                    None
                }
                (None, written) => {
                    permits("admin", written, serving)?;
                    let bound = admin::Listener::bind(written).await;
                    Some(AdminSocket::New(bound.map_err(OpenError::Admin)?))
                }
            };
        }
        let addresses = blocked.addresses();
        if !addresses.is_empty() {
            let begin = Instant::now();
            let (sockets, operators) = self.replace(&blocked, config, serving, tasks).await?;
            for ((place, listener), socket) in blocked.listeners.into_iter().zip(sockets) {
                opened.push((place, self.number(), listener, Socket::New(socket)));
            }
            opened.sort_by_key(|(place, ..)| *place);
            admin = operators.map(AdminSocket::New).or(admin);
            tracing::warn!(
                ?addresses,
                gap = ?begin.elapsed(),
                "a listener was closed before another could be bound in its place"
            );
        }
        let stays = |running: &&Running| opened.iter().any(|(_, id, ..)| *id == running.id);
        let going = self.running.iter().filter(|running| !stays(running));
        let going = going.map(|running| (running.id, &running.written, running.bound.clone()));
        let described = (opened.iter())
            .map(|(_, id, wanted, socket)| (*id, wanted, socket.address()))
            .chain(going)
            .filter_map(|(id, wanted, bound)| Some((id, wanted.describe(bound, config)?)))
            .collect();
        let listeners = opened.into_iter();
        Ok(Opened {
            described,
            admin: config.admin.clone().zip(admin),
            listeners: listeners
                .map(|(_, id, listener, socket)| (id, listener, socket))
                .collect(),
        })
    }

    /// Keeps those out of UNIX sockets whom their new modes keep out. Before that is published: until then `allow_uids` may have
    /// done it, and nothing would.
    pub(super) async fn narrow(&self, opened: &Opened) -> Result<(), OpenError> {
        for (id, wanted, _) in &opened.listeners {
            if let Some(running) = self.running.iter().find(|running| running.id == *id) {
                running.narrow(wanted).await?;
            }
        }
        Ok(())
    }

    /// Takes these as the listeners from now on: the new ones accept, and those that are not among them accept whom the
    /// kernel has accepted for them already, and end.
    pub(super) fn take(
        &mut self,
        opened: Opened,
        keepalive: Keepalive,
        serving: &Serving,
        tasks: &mut JoinSet<()>,
    ) {
        // Whatever of it is wished for still is among these.
        self.missing = None;
        let mut before = std::mem::take(&mut self.running);
        for (id, listener, socket) in opened.listeners {
            let running = match socket {
                Socket::New(socket) => {
                    match listener.tunnel() {
                        Some(tunnel) => {
                            tracing::info!(address = %socket.address(), %tunnel, "listening for a tunnel");
                        }
                        None => tracing::info!(address = %socket.address(), "listening"),
                    }
                    if socket.refuses_ipv4() {
                        tracing::warn!(
                            address = %socket.address(),
                            "the service manager has handed over a socket for IPv6 only: clients over IPv4 are refused; \
                             set BindIPv6Only=both in the socket unit, or hand over one of 0.0.0.0 too"
                        );
                    }
                    let serving = serving.clone();
                    Running::start(id, listener, socket, keepalive, serving, tasks)
                }
                Socket::Running(_) => {
                    let Some(at) = before.iter().position(|running| running.id == id) else {
                        continue;
                    };
                    let mut running = before.swap_remove(at);
                    running.go_on(listener, keepalive);
                    running
                }
            };
            self.running.push(running);
        }
        for gone in before {
            tracing::info!(address = %gone.bound, "no longer listening");
            let handed = &serving.handed.sockets;
            if handed.addresses().any(|address| *address == gone.bound) {
                tracing::warn!(
                    address = %gone.bound,
                    "the service manager holds this socket: clients wait there until it lets go of it"
                );
            }
            self.ending.push(gone.close());
        }
        let admin = match opened.admin {
            Some((_, AdminSocket::Running(_))) => return,
            Some((written, AdminSocket::New(listener))) => {
                tracing::info!(address = %listener.address(), "admin interface");
                Some(Admin::start(written, listener, serving, tasks))
            }
            None => None,
        };
        let gone = std::mem::replace(&mut self.admin, admin);
        self.ending.extend(gone.map(Admin::close));
    }

    /// Whether something that goes is bound where this is to be.
    fn is_in_the_way(&self, address: SocketAddr, config: &Config) -> bool {
        let admin = self.going_admin(config);
        self.going(config).any(|going| going.blocks(address))
            || admin.is_some_and(|admin| admin.blocks(address))
    }

    /// Those that this configuration does not have.
    fn going(&self, config: &Config) -> impl Iterator<Item = &Running> {
        let wanted: BTreeSet<ListenAddress> =
            wanted(config).into_iter().map(|one| one.address).collect();
        (self.running.iter()).filter(move |running| !wanted.contains(&running.written.address))
    }

    /// The admin interface, if this configuration has none or another.
    fn going_admin(&self, config: &Config) -> Option<&Admin> {
        let admin = self.admin.as_ref();
        admin.filter(|admin| !config.admin.as_ref().is_some_and(|to| admin.is_at(to)))
    }

    /// Where clients connect, in the order of the configuration, those of tunnels, and operators.
    pub(super) fn addresses(&self) -> Bound {
        let tls = self
            .running
            .iter()
            .filter(|running| running.written.is_tls());
        let tunnels = self.running.iter().filter_map(|running| {
            let name = running.written.tunnel()?;
            Some((Arc::clone(name), running.bound.clone()))
        });
        Bound {
            listeners: tls.filter_map(|running| running.bound.tcp()).collect(),
            tunnels: tunnels.collect(),
            admin: self.admin.as_ref().map(|admin| admin.bound.clone()),
        }
    }

    fn number(&mut self) -> ListenerId {
        let id = ListenerId(self.next);
        self.next += 1;
        id
    }
}

/// What is bound.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) listeners: Vec<SocketAddr>,
    /// With the names of the tunnels.
    pub(super) tunnels: Vec<(Arc<str>, ListenAddress)>,
    pub(super) admin: Option<ListenAddress>,
}

impl Opened {
    /// What each one does, those that end with it among them.
    pub(super) fn described(&self) -> BTreeMap<ListenerId, snapshot::Listener> {
        self.described.clone()
    }

    /// Every TCP address that is bound, the admin interface's too.
    pub(super) fn addresses(&self) -> Arc<[SocketAddr]> {
        let sockets = self.listeners.iter();
        let sockets = sockets.map(|(_, _, socket)| socket.address());
        let admin = self.admin.as_ref().map(|(_, socket)| match socket {
            AdminSocket::Running(bound) => bound.clone(),
            AdminSocket::New(listener) => listener.address(),
        });
        let all = sockets.chain(admin);
        all.filter_map(|address| address.tcp()).collect()
    }
}

/// What the listeners of a configuration would do, and the TCP addresses that would be bound: as they are written.
pub(super) fn planned(
    config: &Config,
) -> (BTreeMap<ListenerId, snapshot::Listener>, Arc<[SocketAddr]>) {
    let wanted = wanted(config);
    let listeners = (0..).map(ListenerId).zip(&wanted);
    let listeners = listeners
        .filter_map(|(id, wanted)| Some((id, wanted.describe(wanted.address.clone(), config)?)));
    let addresses = wanted.iter().map(|wanted| &wanted.address);
    let addresses = addresses.chain(&config.admin);
    let own = addresses.filter_map(ListenAddress::tcp).collect();
    (listeners.collect(), own)
}

fn listen(
    wanted: &Wanted,
    keepalive: &Keepalive,
    serving: &Serving,
) -> Result<Listener, OpenError> {
    if let Some(tunnel) = wanted.tunnel() {
        permits(
            &format!("tunnels.{tunnel}.listen"),
            &wanted.address,
            serving,
        )?;
    }
    bind(&wanted.address, wanted.mode(), keepalive, serving)
}

/// What was bound in the place of a UNIX socket that nobody finds any more. Where that is refused, whatever else there is of
/// the configuration is served all the same.
fn found_again<L, E: fmt::Display>(bound: Result<L, E>, address: &ListenAddress) -> Option<L> {
    match bound {
        Ok(listener) => {
            tracing::warn!(%address, "the file of this socket was gone, or another's: it is bound again");
            Some(listener)
        }
        Err(error) => {
            tracing::error!(%address, %error, "the file of this socket is gone, or another's: nobody finds it");
            None
        }
    }
}

/// # Errors
/// A socket would be where the sandbox lets nothing be made. One that was handed over is there already.
fn permits(key: &str, address: &ListenAddress, serving: &Serving) -> Result<(), OpenError> {
    let mut handed = serving.handed.sockets.addresses();
    let is_handed = handed.any(|one| one == address);
    match (address, &serving.handed.sandbox) {
        (ListenAddress::Unix(path), Some(sandbox))
            if !is_handed && !sandbox.permits_socket(path) =>
        {
            Err(OpenError::Sandboxed {
                key: key.to_owned(),
                address: address.clone(),
            })
        }
        _ => Ok(()),
    }
}
