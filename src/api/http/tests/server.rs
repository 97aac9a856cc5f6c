//! An HTTP server of a test's own: it answers what it is told to, faults among it, on real sockets.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::config::{Catalog, Consul, ConsulAddress, Tagging};

/// What happens after a question, whatever it was.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// These bytes; the connection stays.
    Send(String),
    /// These bytes, and then the connection ends.
    Close(String),
    /// These bytes, and then a reset.
    Reset(String),
    /// These bytes, and nothing more.
    Hang(String),
    /// The first, and then the second again and again, at this pace.
    Repeat(String, Vec<u8>, Duration),
}

/// An answer that is whole, with the headers and the body given.
pub(super) fn reply(status: &str, headers: &str, body: &str) -> Reply {
    let length = body.len();
    Reply::Send(format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    ))
}

/// A good answer with an index.
pub(super) fn good(index: u64, body: &str) -> Reply {
    reply("200 OK", &format!("X-Consul-Index: {index}\r\n"), body)
}

/// A server with its replies; each question, on whatever connection, takes the next. Without one it is not answered.
/// It ends with its owner.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    asked: UnboundedReceiver<String>,
    _tasks: JoinSet<()>,
}

impl Server {
    pub(super) async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self::start_with(None, replies).await
    }

    pub(super) async fn start_with(
        tls: Option<Arc<ServerConfig>>,
        replies: impl IntoIterator<Item = Reply>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (served, asked) = served(tls, replies);
        let mut tasks = JoinSet::new();
        let replies = Arc::clone(&served.replies);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let served = served.clone();
                connections.spawn(async move {
                    // A reset takes the place of the close.
                    if let Some(tcp) = served.serve(tcp).await {
                        tcp.set_zero_linger().unwrap();
                    }
                });
            }
        });
        Self {
            address,
            replies,
            asked,
            _tasks: tasks,
        }
    }

    /// The same on a UNIX socket. `address` says nothing then.
    pub(super) fn start_unix(
        path: &Path,
        tls: Option<Arc<ServerConfig>>,
        replies: impl IntoIterator<Item = Reply>,
    ) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let (served, asked) = served(tls, replies);
        let mut tasks = JoinSet::new();
        let replies = Arc::clone(&served.replies);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let served = served.clone();
                connections.spawn(async move { drop(served.serve(socket).await) });
            }
        });
        Self {
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            replies,
            asked,
            _tasks: tasks,
        }
    }

    /// How a client is told of it.
    pub(super) fn consul(&self) -> Consul {
        Consul {
            address: ConsulAddress::Tcp("127.0.0.1".to_owned(), self.address.port()),
            https: false,
            prefix: String::new(),
            login: None,
            places: vec![Default::default()],
            token: None,
            basic_auth: None,
            roots: Vec::new(),
            certificate: None,
            server_name: None,
            mesh_identity: None,
            tagging: Tagging::default(),
            catalog: Catalog::default(),
        }
    }

    /// The next question, head and all.
    pub(super) async fn asked(&mut self) -> String {
        self.asked.recv().await.unwrap()
    }

    /// The first line of the next question, without its version.
    pub(super) async fn asked_for(&mut self) -> String {
        let asked = self.asked().await;
        let line = asked.lines().next().unwrap();
        line.strip_suffix(" HTTP/1.1").unwrap().to_owned()
    }

    /// How many questions have come that nobody has looked at.
    pub(super) fn unseen(&self) -> usize {
        self.asked.len()
    }

    pub(super) fn then(&self, reply: Reply) {
        self.replies.lock().unwrap().push_back(reply);
    }
}

#[derive(Clone)]
struct Served {
    replies: Arc<Mutex<VecDeque<Reply>>>,
    asked: UnboundedSender<String>,
    tls: Option<TlsAcceptor>,
}

fn served(
    tls: Option<Arc<ServerConfig>>,
    replies: impl IntoIterator<Item = Reply>,
) -> (Served, UnboundedReceiver<String>) {
    let (asked, receiver) = unbounded_channel();
    let served = Served {
        replies: Arc::new(Mutex::new(replies.into_iter().collect())),
        asked,
        tls: tls.map(TlsAcceptor::from),
    };
    (served, receiver)
}

impl Served {
    /// Serves one connection; gives it back if it is to be reset.
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, socket: S) -> Option<S> {
        match &self.tls {
            None => {
                let mut socket = socket;
                self.answer(&mut socket).await.then_some(socket)
            }
            Some(acceptor) => {
                let mut stream = acceptor.accept(socket).await.ok()?;
                let is_reset = self.answer(&mut stream).await;
                is_reset.then_some(stream.into_inner().0)
            }
        }
    }

    /// Answers every question; whether the connection is to be reset.
    async fn answer<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut S) -> bool {
        let mut head = Vec::new();
        loop {
            let mut byte = [0];
            if stream.read_exact(&mut byte).await.is_err() {
                return false;
            }
            head.push(byte[0]);
            if !head.ends_with(b"\r\n\r\n") {
                continue;
            }
            let asked = String::from_utf8(std::mem::take(&mut head)).unwrap();
            let _ = self.asked.send(asked);
            let reply = self.replies.lock().unwrap().pop_front();
            match reply {
                Some(Reply::Send(bytes)) => stream.write_all(bytes.as_bytes()).await.unwrap(),
                Some(Reply::Close(bytes)) => {
                    let _ = stream.write_all(bytes.as_bytes()).await;
                    let _ = stream.shutdown().await;
                    return false;
                }
                Some(Reply::Reset(bytes)) => {
                    let _ = stream.write_all(bytes.as_bytes()).await;
                    let _ = stream.flush().await;
                    return true;
                }
                Some(Reply::Hang(bytes)) => {
                    let _ = stream.write_all(bytes.as_bytes()).await;
                    std::future::pending().await
                }
                Some(Reply::Repeat(first, again, pace)) => {
                    let _ = stream.write_all(first.as_bytes()).await;
                    while stream.write_all(&again).await.is_ok() {
                        tokio::time::sleep(pace).await;
                    }
                    return false;
                }
                None => {
                    // Until the client goes away.
                    let _ = stream.read(&mut byte).await;
                    return false;
                }
            }
        }
    }
}
