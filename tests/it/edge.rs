//! A gateway with one route, an upstream behind it, and both ends of its tunnels in the test's hands.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::version::TLS13;
use serde_json::Value;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::support::PATIENCE;
use crate::upstream::Upstream;

pub(crate) const NAME: &str = "relay.example.test";

/// How a route treats TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Terminate,
    Pass,
    ReEncrypt,
}

pub(crate) const MODES: [Mode; 3] = [Mode::Terminate, Mode::Pass, Mode::ReEncrypt];

/// A stream of either kind, as an upstream sees it.
pub(crate) trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {
    /// The socket underneath.
    fn tcp(&self) -> &TcpStream;
}

impl Pipe for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Pipe for tokio_rustls::server::TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// A gateway with one route, and the upstream behind it.
pub(crate) struct Edge {
    pub(crate) gateway: Gateway,
    pub(crate) authority: Authority,
    _upstream: Upstream,
}

impl Edge {
    pub(crate) async fn start<F>(
        mode: Mode,
        limits: &str,
        serve: impl Fn(Box<dyn Pipe>) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let authority = Authority::new();
        let issued = authority.issue_files("edge", &[NAME]);
        let upstream = match mode {
            Mode::Terminate => Upstream::tcp(move |tcp| serve(Box::new(tcp))).await,
            Mode::Pass | Mode::ReEncrypt => {
                Upstream::tls(issued.server(&[&TLS13]), move |tls| serve(Box::new(tls))).await
            }
        };
        let passthrough = mode == Mode::Pass;
        let tls = match mode {
            Mode::ReEncrypt => {
                format!("tls = {{ roots = [\"ca.pem\"], server_name = \"{NAME}\" }}")
            }
            _ => String::new(),
        };
        let tables = format!(
            "certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
             [limits]\n{limits}\n\
             [routes.relay]\nhost = \"{NAME}\"\npassthrough = {passthrough}\nupstream = \"u\"\n\
             [upstreams.u]\naddress = \"{}\"\n{tls}\n",
            upstream.address
        );
        Self {
            gateway: Gateway::start(&authority, &tables).await,
            authority,
            _upstream: upstream,
        }
    }

    pub(crate) async fn connect(&self) -> TlsStream<TcpStream> {
        let config = Arc::new(self.authority.client(&[&TLS13]));
        self.gateway.connect_tls(&config, NAME).await.unwrap()
    }

    pub(crate) async fn ended(&mut self) -> Value {
        self.gateway.ended().await
    }
}

/// An upstream that hands its streams to the test.
pub(crate) async fn handing_over(
    mode: Mode,
    limits: &str,
) -> (Edge, UnboundedReceiver<Box<dyn Pipe>>) {
    let (hand, handed) = unbounded_channel();
    let edge = Edge::start(mode, limits, move |stream| {
        let _ = hand.send(stream);
        std::future::ready(())
    })
    .await;
    (edge, handed)
}

/// Both ends of one tunnel.
pub(crate) async fn tunnel(
    edge: &Edge,
    handed: &mut UnboundedReceiver<Box<dyn Pipe>>,
) -> (TlsStream<TcpStream>, Box<dyn Pipe>) {
    let client = edge.connect().await;
    (client, handed.recv().await.unwrap())
}

/// A text that is not the same anywhere within 64 KiB of itself; its length is prime, so that no buffer fits it.
pub(crate) fn text() -> Vec<u8> {
    let mut state = 1_u32;
    let next = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    next.take(65_521).collect()
}

/// Reads to the end; a reset or a truncation is told.
pub(crate) async fn read_all(
    stream: &mut (impl AsyncRead + Unpin),
) -> (Vec<u8>, Option<ErrorKind>) {
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    let error = read.expect("the stream does not end").err();
    (bytes, error.map(|e| e.kind()))
}

/// Makes the close that comes a reset.
pub(crate) fn reset_on_close(tcp: &TcpStream) {
    let socket = SockRef::from(tcp);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

/// Writes until nothing more is taken for a while; what was taken is counted.
pub(crate) async fn fill(to: &mut (impl AsyncWrite + Unpin), taken: &AtomicU64) {
    let text = text();
    let mut at = 0;
    while let Ok(wrote) = timeout(Duration::from_millis(300), to.write(&text[at..])).await {
        let wrote = wrote.unwrap();
        taken.fetch_add(wrote as u64, Ordering::Relaxed);
        at = (at + wrote) % text.len();
    }
}
