//! The listeners that run, and how they change with the configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::config::{self, Config, Keepalive};
use crate::lifecycle::{Handed, Shutdown, Sockets};
use crate::metrics::Metrics;
use crate::net::listener::Listener;
use crate::proxy::Proxy;
use crate::snapshot::{self, ListenerId};

/// How long a listener that is removed goes on trying to accept those in its queue where descriptors or memory lack.
///
/// 2 s: another may wait for its address, and whoever comes there is not served in between.
const REMOVED: Duration = Duration::from_secs(2);

/// What every listener needs to serve those who come.
#[derive(Clone, Debug)]
pub(super) struct Serving {
    pub(super) proxy: Arc<Proxy>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shutdown: Shutdown,
    pub(super) handed: Handed,
}

/// Whether each socket that was handed over is one of these listeners': the clients of another would wait in vain. Those
/// for which there is none are bound, which is logged.
pub(super) fn claim(sockets: &Sockets, config: &Config) -> anyhow::Result<()> {
    let written = || config.listeners.iter().map(|listener| listener.address);
    for address in sockets.addresses() {
        anyhow::ensure!(
            written().any(|written| written == address),
            "the service manager has handed over a socket on {address}, which is no address of `listen` ({})",
            written()
                .map(|address| address.to_string())
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    if sockets.addresses().next().is_some() {
        for address in written().filter(|written| sockets.addresses().all(|one| one != *written)) {
            tracing::warn!(
                %address,
                "the service manager has handed over no socket on this address: the gateway binds it, and a restart \
                 refuses who comes in between"
            );
        }
    }
    Ok(())
}

/// The listeners that accept, in the order of the configuration.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    /// The number of the next one. None comes twice: who came in by a listener that is gone finds nothing of another.
    next: u32,
    running: Vec<Running>,
    /// Those that were told to end: each hears when its address is free.
    ending: Vec<oneshot::Receiver<Infallible>>,
}

/// One that accepts, until it is closed.
#[derive(Debug)]
struct Running {
    id: ListenerId,
    /// As it is written: with port 0 where the system chose one.
    written: config::Listener,
    bound: SocketAddr,
    /// For those who come from now on. Dropped, it ends the task.
    keepalive: watch::Sender<Keepalive>,
    /// Hears when the task has ended.
    closed: oneshot::Receiver<Infallible>,
}

/// The listeners of the next configuration, in its order. Nobody is accepted by the new ones yet.
#[derive(Debug)]
pub(super) struct Opened {
    listeners: Vec<(ListenerId, config::Listener, Socket)>,
    /// Those that end with it: who comes in by them until then must meet what they ask for.
    going: Vec<(ListenerId, config::Listener)>,
}

#[derive(Debug)]
enum Socket {
    /// It runs already.
    Running(SocketAddr),
    New(Listener),
}

impl Listeners {
    /// Binds what this configuration has more than the last one. The kernel queues clients there from now on.
    ///
    /// Where the address of a new listener and that of one that goes overlap (one of them stands for all addresses), the
    /// old one is closed first: nobody is accepted there in between, which is logged.
    ///
    /// # Errors
    /// The system refuses an address. The listeners are then as they were.
    pub(super) async fn open(
        &mut self,
        config: &Config,
        serving: &Serving,
        tasks: &mut JoinSet<()>,
    ) -> anyhow::Result<Opened> {
        // A listener that comes back in the next moment would find its address in use.
        for ended in std::mem::take(&mut self.ending) {
            let _: Result<Infallible, _> = ended.await;
        }
        let keepalive = &config.limits.keepalive;
        let mut opened = Vec::new();
        let mut blocked = Vec::new();
        for (place, listener) in config.listeners.iter().enumerate() {
            let written = listener.address;
            let same = |running: &&Running| running.written.address == written;
            if let Some(running) = self.running.iter().find(same) {
                let socket = Socket::Running(running.bound);
                opened.push((place, running.id, listener.clone(), socket));
            } else if self.going(config).any(|going| going.blocks(written)) {
                blocked.push((place, listener.clone()));
            } else {
                let socket = Socket::New(bind(written, keepalive, serving)?);
                opened.push((place, self.number(), listener.clone(), socket));
            }
        }
        if !blocked.is_empty() {
            let begin = Instant::now();
            let addresses: Vec<SocketAddr> = blocked.iter().map(|(_, one)| one.address).collect();
            let sockets = self.replace(&addresses, config, serving, tasks).await?;
            for ((place, listener), socket) in blocked.into_iter().zip(sockets) {
                opened.push((place, self.number(), listener, Socket::New(socket)));
            }
            opened.sort_by_key(|(place, ..)| *place);
            tracing::warn!(
                ?addresses,
                gap = ?begin.elapsed(),
                "a listener was closed before another could be bound in its place"
            );
        }
        let going = self.going(config);
        let going = going.map(|running| (running.id, running.written.clone()));
        let listeners = opened.into_iter();
        Ok(Opened {
            going: going.collect(),
            listeners: listeners
                .map(|(_, id, listener, socket)| (id, listener, socket))
                .collect(),
        })
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
        let mut before = std::mem::take(&mut self.running);
        for (id, listener, socket) in opened.listeners {
            let running = match socket {
                Socket::New(socket) => {
                    tracing::info!(address = %socket.address(), "listening");
                    let serving = serving.clone();
                    Running::start(id, listener, socket, keepalive, serving, tasks)
                }
                Socket::Running(_) => {
                    let Some(at) = before.iter().position(|running| running.id == id) else {
                        continue;
                    };
                    let mut running = before.swap_remove(at);
                    running.keepalive.send_replace(keepalive);
                    running.written = listener;
                    running
                }
            };
            self.running.push(running);
        }
        for gone in before {
            tracing::info!(address = %gone.bound, "no longer listening");
            if serving
                .handed
                .sockets
                .addresses()
                .any(|address| address == gone.bound)
            {
                tracing::warn!(
                    address = %gone.bound,
                    "the service manager holds this socket: clients wait there until it lets go of it"
                );
            }
            self.ending.push(gone.closed);
        }
    }

    /// Closes what goes and is in the way of these addresses, and binds them; or binds what it has closed again.
    async fn replace(
        &mut self,
        addresses: &[SocketAddr],
        config: &Config,
        serving: &Serving,
        tasks: &mut JoinSet<()>,
    ) -> anyhow::Result<Vec<Listener>> {
        let keepalive = config.limits.keepalive;
        let going: BTreeSet<ListenerId> = self.going(config).map(|running| running.id).collect();
        let (closing, staying) = self.running.drain(..).partition(|running: &Running| {
            let blocks = addresses.iter().any(|address| running.blocks(*address));
            going.contains(&running.id) && blocks
        });
        self.running = staying;
        let closing: Vec<Running> = closing;
        let mut closed = Vec::new();
        for running in closing {
            closed.push((running.id, running.written.clone(), running.bound));
            running.close().await;
        }
        let bound = (addresses.iter()).map(|address| bind(*address, &keepalive, serving));
        let bound: anyhow::Result<Vec<Listener>> = bound.collect();
        if bound.is_err() {
            for (id, written, address) in closed {
                match bind(address, &keepalive, serving) {
                    Ok(socket) => {
                        let serving = serving.clone();
                        let running =
                            Running::start(id, written, socket, keepalive, serving, tasks);
                        self.running.push(running);
                    }
                    Err(error) => {
                        tracing::error!(%address, %error, "the listener that ran there cannot be bound again");
                    }
                }
            }
        }
        bound
    }

    /// Those that this configuration does not have.
    fn going(&self, config: &Config) -> impl Iterator<Item = &Running> {
        let wanted: BTreeSet<SocketAddr> = config.listeners.iter().map(|one| one.address).collect();
        (self.running.iter()).filter(move |running| !wanted.contains(&running.written.address))
    }

    /// The addresses bound, in the order of the configuration.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.running.iter().map(|running| running.bound).collect()
    }

    fn number(&mut self) -> ListenerId {
        let id = ListenerId(self.next);
        self.next += 1;
        id
    }
}

impl Opened {
    /// What each one does, those that end with it among them.
    pub(super) fn described(&self) -> BTreeMap<ListenerId, snapshot::Listener> {
        let describe = |listener: &config::Listener| snapshot::Listener {
            unknown_name: listener.unknown_name,
            accept_proxy: listener.accept_proxy.clone(),
            ..Default::default()
        };
        let opened = (self.listeners.iter()).map(|(id, listener, _)| (id, listener));
        let going = self.going.iter().map(|(id, listener)| (id, listener));
        let listeners = opened.chain(going);
        listeners
            .map(|(id, listener)| (*id, describe(listener)))
            .collect()
    }

    /// The addresses bound, in the order of the configuration.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let sockets = self.listeners.iter().map(|(_, _, socket)| match socket {
            Socket::Running(bound) => *bound,
            Socket::New(listener) => listener.address(),
        });
        sockets.collect()
    }
}

impl Running {
    fn start(
        id: ListenerId,
        written: config::Listener,
        socket: Listener,
        keepalive: Keepalive,
        serving: Serving,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let bound = socket.address();
        let (keepalive, changes) = watch::channel(keepalive);
        let (open, closed) = oneshot::channel();
        let tracked = serving.shutdown.clone();
        tasks.spawn(tracked.track(async move {
            accept(id, socket, changes, serving).await;
            drop(open);
        }));
        Self {
            id,
            written,
            bound,
            keepalive,
            closed,
        }
    }

    /// Whether nothing can be bound there while this one is.
    fn blocks(&self, address: SocketAddr) -> bool {
        config::overlap(self.bound, address)
    }

    /// Returns when its address is free.
    async fn close(self) {
        drop(self.keepalive);
        let _: Result<Infallible, _> = self.closed.await;
    }
}

/// Accepts on one listener until it is to be closed, and leaves nobody in its queue.
async fn accept(
    id: ListenerId,
    listener: Listener,
    mut keepalive: watch::Receiver<Keepalive>,
    serving: Serving,
) {
    let Serving {
        proxy,
        metrics,
        shutdown,
        handed: _,
    } = serving;
    let address = listener.address();
    let accepted = metrics.accepted(address);
    let take = |tcp: TcpStream, client: SocketAddr| {
        accepted.inc();
        let proxy = Arc::clone(&proxy);
        let handling = async move { proxy.handle(tcp, client, id, address).await };
        tokio::spawn(shutdown.track(handling));
    };
    let failed = |error: &std::io::Error| {
        metrics.accept_failed(error);
        tracing::warn!(%address, %error, "cannot accept");
    };
    let is_stop = {
        // One future for all turns: begun anew it would forget how long it pauses.
        let mut accepting = pin!(listener.accept(take, failed));
        loop {
            tokio::select! {
                () = &mut accepting => {}
                () = shutdown.closing() => break true,
                changed = keepalive.changed() => match changed {
                    Ok(()) => {
                        if let Err(error) = listener.keep_alive(&keepalive.borrow_and_update()) {
                            tracing::warn!(%address, %error, "the keepalive cannot be changed");
                        }
                    }
                    Err(_) => break false,
                },
            }
        }
    };
    // What a stop ends gives back descriptors to its last moment.
    let give_up = async {
        tokio::select! {
            () = shutdown.cutting() => {}
            () = tokio::time::sleep(REMOVED), if !is_stop => {}
        }
    };
    if let Err(lost) = listener.close(take, failed, give_up).await {
        metrics.lost(address, lost.0.unwrap_or(1));
        tracing::error!(%address, waiting = lost.0, "{lost}");
    }
}

/// Takes the socket that was handed over for this address, or binds one.
fn bind(address: SocketAddr, keepalive: &Keepalive, serving: &Serving) -> anyhow::Result<Listener> {
    let listener = match serving.handed.sockets.at(address) {
        Ok(Some(socket)) => Listener::adopt(socket, keepalive),
        Ok(None) => Listener::bind(address, keepalive),
        Err(error) => Err(error),
    };
    listener.with_context(|| format!("cannot listen on {address}"))
}
