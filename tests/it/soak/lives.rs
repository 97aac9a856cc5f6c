//! The two ends of every connection, and what became of them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::plan::Plan;
use super::talk::{self, Stop, Talk, Wire};
use crate::upstream::Upstream;

/// All lives of a test, and their count.
pub(crate) struct Lives {
    pub(crate) longest: Duration,
    /// How long one may take in all; only a failing test waits that long.
    pub(crate) patience: Duration,
    pub(crate) begun: AtomicU64,
    /// Clients and upstreams that came to the end of what they had to say and to hear.
    pub(crate) clean_clients: AtomicU64,
    pub(crate) clean_upstreams: AtomicU64,
    /// What those have heard: the upstreams, and the clients.
    pub(crate) up: AtomicU64,
    pub(crate) down: AtomicU64,
    /// Upstreams that are still at it.
    pub(crate) serving: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

impl Lives {
    pub(crate) fn new(longest: Duration, patience: Duration) -> Arc<Self> {
        Arc::new(Self {
            longest,
            patience,
            begun: AtomicU64::new(0),
            clean_clients: AtomicU64::new(0),
            clean_upstreams: AtomicU64::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            serving: AtomicU64::new(0),
            wrong: Mutex::new(Vec::new()),
        })
    }

    /// Lives the next life as a client of this gateway.
    pub(crate) async fn next(&self, gateway: SocketAddr, configs: &[Arc<ClientConfig>; 2]) {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let plan = Plan::new(number, self.longest);
        let ended = timeout(self.patience, client(gateway, configs, &plan)).await;
        let ended = ended.unwrap_or_else(|_| Err(Stop::Wrong("it hangs".to_owned())));
        self.judge("client", &plan, ended, &self.clean_clients, &self.down);
    }

    /// An upstream of this route that speaks TLS if it has a configuration for it.
    pub(crate) async fn upstream(
        self: &Arc<Self>,
        route: &'static str,
        config: Option<Arc<ServerConfig>>,
    ) -> Upstream {
        let lives = Arc::clone(self);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = socket2::SockRef::from(&listener);
        socket.set_recv_buffer_size(talk::SMALL).unwrap();
        Upstream::on(listener, move |tcp| {
            let (lives, config) = (Arc::clone(&lives), config.clone());
            lives.serving.fetch_add(1, Ordering::Relaxed);
            async move {
                match config {
                    None => lives.serve(route, tcp).await,
                    Some(config) => {
                        if let Ok(tls) = TlsAcceptor::from(config).accept(tcp).await {
                            lives.serve(route, tls).await;
                        }
                    }
                }
                lives.serving.fetch_sub(1, Ordering::Relaxed);
            }
        })
    }

    /// What was wrong; the first few, and their number.
    pub(crate) fn wrong(&self) -> (Vec<String>, usize) {
        let wrong = self.wrong.lock().unwrap();
        (wrong.iter().take(8).cloned().collect(), wrong.len())
    }

    async fn serve(&self, route: &str, wire: impl Wire) {
        let talk = Talk::new(wire);
        // A client may be gone before it has said which it is: then it has broken off, or is missed at its own end.
        let Ok(Some(number)) = timeout(self.patience, talk.number()).await else {
            return;
        };
        let plan = Plan::new(number, self.longest);
        let ended = match plan.route == route {
            true => timeout(self.patience, talk::upstream(talk, &plan)).await,
            false => Ok(Err(Stop::Wrong(format!("it came by the route {route}")))),
        };
        let ended = ended.unwrap_or_else(|_| Err(Stop::Wrong("it hangs".to_owned())));
        self.judge("upstream", &plan, ended, &self.clean_upstreams, &self.up);
    }

    fn judge(
        &self,
        side: &str,
        plan: &Plan,
        ended: Result<u64, Stop>,
        clean: &AtomicU64,
        heard: &AtomicU64,
    ) {
        match ended {
            Ok(count) if !plan.is_cut() => {
                clean.fetch_add(1, Ordering::Relaxed);
                heard.fetch_add(count, Ordering::Relaxed);
            }
            // Who did not break off has seen the other do it.
            Err(Stop::Cut | Stop::Broken(_)) if plan.is_cut() => {}
            ended => {
                let what = match ended {
                    Ok(_) => "it has not broken off".to_owned(),
                    Err(Stop::Cut) => "it has broken off".to_owned(),
                    Err(Stop::Broken(error)) => error.to_string(),
                    Err(Stop::Wrong(what)) => what,
                };
                let &Plan {
                    number,
                    kind,
                    route,
                    ..
                } = plan;
                let line = format!("{side} of {number} ({kind:?} by {route}): {what}");
                self.wrong.lock().unwrap().push(line);
            }
        }
    }
}

async fn client(
    gateway: SocketAddr,
    configs: &[Arc<ClientConfig>; 2],
    plan: &Plan,
) -> Result<u64, Stop> {
    let socket = TcpSocket::new_v4()?;
    if plan.down.sip.is_some() {
        socket.set_recv_buffer_size(talk::SMALL as u32)?;
    }
    let tcp = socket.connect(gateway).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(format!("{}.soak.test", plan.route)).unwrap();
    let config = Arc::clone(&configs[usize::from(plan.old)]);
    // Before the handshake is over nobody breaks off.
    let tls = TlsConnector::from(config).connect(name, tcp).await;
    let tls = tls.map_err(|error| Stop::Wrong(format!("no handshake: {error}")))?;
    talk::client(tls, plan).await
}
