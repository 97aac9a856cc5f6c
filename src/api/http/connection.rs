//! Connections to the agent: over TCP or a UNIX socket, with TLS or without, used again while they last.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::error::{cause, refusal};
use super::limits::Limits;
use crate::config::{ConsulAddress, Keepalive};
use crate::net;

/// How many connections wait for the next question, and for how long. As many as there are reads at once; 20 s are longer
/// than the pauses within a burst of questions, or between two looks whether anybody answers, and shorter than what NATs
/// forget.
const IDLE: (usize, Duration) = (16, Duration::from_secs(20));

/// Answers that grow beyond so many bytes take turns, [`LARGE_AT_ONCE`] at a time, until they have been read as JSON: an agent
/// that answers everything with as much as is allowed must not fill the memory once for each question.
///
/// 1 MiB: what is known of one service is smaller, and of a cluster with a thousand services two answers are larger.
const LARGE: usize = 1024 * 1024;

/// Two: the catalog and the checks, which change together.
pub(super) const LARGE_AT_ONCE: usize = 2;

/// How much of the body of a refusal is read, in bytes: its beginning says why.
const REFUSAL: usize = 4096;

/// The agent, and the connections to it that wait for a question.
pub(super) struct Agent {
    pub(super) address: ConsulAddress,
    /// What verifies the agent, and the name that it must prove.
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    pub(super) limits: Limits,
    pub(super) idle: Mutex<Vec<(Instant, Connection)>>,
    /// The turns of large answers.
    pub(super) large: Arc<Semaphore>,
}

/// A whole answer: of one that is not 200, the beginning.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// The turn of a large one, which lasts as long as its bytes.
    pub(super) turn: Option<OwnedSemaphorePermit>,
}

/// Why there is no answer.
pub(super) enum Failure {
    Unreachable(String),
    BrokenOff(String),
    Timeout(Duration),
    TooLarge,
}

/// A connection between two questions. It lives in whoever asks over it, and ends with them: no task runs it.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Reads and writes; `None` once the connection has ended.
    driver: Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>,
}

impl Agent {
    /// Asks, and reads the answer to its end. `patience` is for its head.
    ///
    /// A question over a connection that had been waiting is asked again over a new one if the old one proves to have
    /// ended: only questions are asked here, which change nothing.
    pub(super) async fn ask(
        &self,
        request: Request<Full<Bytes>>,
        patience: Duration,
    ) -> Result<Reply, Failure> {
        if let Some(mut connection) = self.waiting().await {
            match connection.head(request.clone(), patience).await {
                Ok(head) => return self.whole(connection, head).await,
                Err(Failure::BrokenOff(_)) => {}
                Err(failure) => return Err(failure),
            }
        }
        let mut connection = self.connect().await?;
        let head = connection.head(request, patience).await?;
        self.whole(connection, head).await
    }

    /// Lets something be done: over a new connection, so that it is not done twice. Otherwise as [`ask`](Self::ask).
    pub(super) async fn post(
        &self,
        request: Request<Full<Bytes>>,
        patience: Duration,
    ) -> Result<Reply, Failure> {
        let mut connection = self.connect().await?;
        let head = connection.head(request, patience).await?;
        self.whole(connection, head).await
    }

    /// Reads an answer to its end, and keeps the connection if it serves for another.
    async fn whole(
        &self,
        mut connection: Connection,
        head: hyper::Response<Incoming>,
    ) -> Result<Reply, Failure> {
        let (parts, body) = head.into_parts();
        let is_good = parts.status == StatusCode::OK;
        let most = if is_good { self.limits.bytes } else { REFUSAL };
        // What is said to be too large is not waited for.
        if is_good && usize::try_from(body.size_hint().lower()).is_ok_and(|size| size > most) {
            return Err(Failure::TooLarge);
        }
        let mut turn = None;
        let collect = self.collect(body, most, &mut turn);
        let read = connection.drive(|_| timeout(self.limits.body, collect));
        let (body, is_whole) = match read.await {
            Ok(read) => read.map_err(|error| Failure::BrokenOff(cause(&error)))?,
            Err(_) => return Err(Failure::Timeout(self.limits.body)),
        };
        if is_whole {
            self.keep(connection);
        } else if is_good {
            return Err(Failure::TooLarge);
        }
        Ok(Reply {
            status: parts.status,
            headers: parts.headers,
            body,
            turn,
        })
    }

    /// Reads a body to its end, or as far as it is larger than allowed; also whether that was all.
    async fn collect(
        &self,
        mut body: Incoming,
        most: usize,
        turn: &mut Option<OwnedSemaphorePermit>,
    ) -> hyper::Result<(Vec<u8>, bool)> {
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            let room = most.saturating_sub(bytes.len());
            match data.get(..room) {
                Some(part) if part.len() < data.len() => {
                    bytes.extend_from_slice(part);
                    return Ok((bytes, false));
                }
                _ => bytes.extend_from_slice(&data),
            }
            if bytes.len() > LARGE && turn.is_none() {
                // It is never closed.
                *turn = Arc::clone(&self.large).acquire_owned().await.ok();
            }
        }
        Ok((bytes, true))
    }

    /// A connection that waits and has not ended since.
    async fn waiting(&self) -> Option<Connection> {
        loop {
            let (since, mut connection) = self.lock().pop()?;
            if since.elapsed() < IDLE.1
                && let Ok(true) = timeout(self.limits.connect, connection.is_ready()).await
            {
                return Some(connection);
            }
        }
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.lock();
        idle.retain(|(since, _)| since.elapsed() < IDLE.1);
        if idle.len() < IDLE.0 {
            idle.push((Instant::now(), connection));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, Connection)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let within = self.limits.connect;
        match timeout(within, self.open()).await {
            Ok(opened) => opened.map_err(|error| Failure::Unreachable(refusal(&error))),
            Err(_) => {
                let reason = format!("no connection within {within:?}");
                Err(Failure::Unreachable(reason))
            }
        }
    }

    async fn open(&self) -> std::io::Result<Connection> {
        match &self.address {
            ConsulAddress::Tcp(host, port) => {
                let tcp = TcpStream::connect((host.as_str(), *port)).await?;
                // An agent on another machine that vanished is noticed before a blocking query would end.
                net::set_options(SockRef::from(&tcp), &Keepalive::default())?;
                self.secure(tcp).await
            }
            ConsulAddress::Unix(path) => self.secure(UnixStream::connect(path).await?).await,
        }
    }

    async fn secure<S>(&self, socket: S) -> std::io::Result<Connection>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        match &self.tls {
            None => Connection::new(socket).await,
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                Connection::new(connector.connect(name.clone(), socket).await?).await
            }
        }
    }
}

impl Connection {
    async fn new<S>(stream: S) -> std::io::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        Ok(Self {
            sender,
            driver: Some(Box::pin(driver)),
        })
    }

    /// Whether it takes a question: what the agent has sent or ended meanwhile is noticed here.
    async fn is_ready(&mut self) -> bool {
        self.drive(SendRequest::ready).await.is_ok() && self.driver.is_some()
    }

    /// Asks, and waits for the head of the answer.
    async fn head(
        &mut self,
        request: Request<Full<Bytes>>,
        patience: Duration,
    ) -> Result<hyper::Response<Incoming>, Failure> {
        let asked = self.drive(|sender| timeout(patience, sender.send_request(request)));
        match asked.await {
            Ok(head) => head.map_err(|error| Failure::BrokenOff(cause(&error))),
            Err(_) => Err(Failure::Timeout(patience)),
        }
    }

    /// Does some work on the connection while reading from it and writing to it.
    async fn drive<'a, F: Future>(
        &'a mut self,
        work: impl FnOnce(&'a mut SendRequest<Full<Bytes>>) -> F,
    ) -> F::Output {
        let Self { sender, driver } = self;
        let mut work = pin!(work(sender));
        if let Some(running) = driver {
            tokio::select! {
                biased;
                // Why it ended is told to the work that waits for it.
                _ = running.as_mut() => {}
                done = &mut work => return done,
            }
            *driver = None;
        }
        work.await
    }
}
