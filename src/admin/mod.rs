//! The admin interface: what operators and their probes read of a gateway over HTTP.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

mod actions;
mod host;
mod limits;
mod listener;
pub mod routes;

pub use listener::{BindError, Listener};

use crate::config::Token;
use crate::lifecycle::{Reload, Shutdown};
use crate::log::{escape, printable};
use crate::metrics::{self, Metrics};
use crate::net::limits::Limiter;
use crate::snapshot::Snapshot;
use crate::status::{self, Status};
use actions::Peer;
use listener::Stream;

/// What the interface shows.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The cell that connections are served from.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// What each part reports.
    pub status: Status,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// Who is in, of whom it shows how many.
    pub limiter: Arc<Limiter>,
    /// Whom `POST /v1/reload` asks.
    pub reload: Reload,
    /// What those who come over TCP must show before they change anything; without one they may not.
    pub token: Arc<ArcSwapOption<Token>>,
}

/// How many connections are served at once; the next ones wait in the system's queue.
///
/// 64: a few scrapers, probes and people, and a bound on what somebody who only opens connections takes from the gateway.
const CONNECTIONS: usize = 64;

/// From accept to the end of the request's headers: they come in one segment from everything that means well.
const HEADERS: Duration = Duration::from_secs(5);

/// From accept to the end of the answer: the list of 100,000 routes over a slow link.
const WHOLE: Duration = Duration::from_secs(30);

/// The most bytes of a request's headers; more is refused with 431.
const HEADER_BYTES: usize = 16 * 1024;

/// The most that a part says of itself, in bytes: two reasons, each with the beginning of what a peer answered.
const STATE: usize = 1024;

/// Serves until everything is cut, through a drain too: an operator wants to watch it, and `/readyz` says that it happens.
/// With `stop` it takes nobody new, and ends with its last answer.
///
/// One request a connection, so that no connection outlives its answer. Do not let [`Shutdown::track`] track this:
/// it would wait for itself.
pub async fn serve(
    listener: Listener,
    sources: Sources,
    shutdown: Shutdown,
    stop: CancellationToken,
) {
    let router = router(&listener, sources, shutdown.clone());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            stream = listener.accept(), if connections.len() < CONNECTIONS => {
                let router = router.clone();
                match stream {
                    Stream::Tcp(stream) => connections.spawn(converse(stream, Peer::Tcp, router)),
                    Stream::Unix(stream) => {
                        let peer = stream.peer_cred().map(|peer| peer.uid());
                        connections.spawn(converse(stream, Peer::Unix(peer.ok()), router))
                    }
                };
            }
            Some(_) = connections.join_next() => {}
            () = shutdown.cutting() => return,
            () = stop.cancelled() => break,
        }
    }
    drop(listener);
    // An answer takes no longer than [`WHOLE`].
    while connections.join_next().await.is_some() {}
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(stream: S, peer: Peer, router: Router) {
    let router = router.layer(Extension(peer));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(HEADER_BYTES)
        .keep_alive(false)
        // `nc -N` and the like end their side before they read the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // Whatever went wrong, it went wrong for that client alone.
    let _ = tokio::time::timeout(WHOLE, connection).await;
}

#[derive(Clone)]
struct Shared {
    sources: Sources,
    shutdown: Shutdown,
}

fn router(listener: &Listener, sources: Sources, shutdown: Shutdown) -> Router {
    let router = Router::new()
        .route("/", get(index))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .route("/v1/routes", get(list_routes))
        .route("/v1/reload", post(actions::reload))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .with_state(Shared { sources, shutdown });
    if listener.is_loopback() {
        router.layer(middleware::from_fn(host::check))
    } else {
        router
    }
}

async fn index() -> &'static str {
    "/livez      200 while the process runs\n\
     /readyz     200 while it should get traffic, else 503; one line a part\n\
     /metrics    for Prometheus (OpenMetrics text)\n\
     /v1/routes  every route, as JSON\n\
     /v1/reload  POST: reads the configuration again\n"
}

async fn readyz(State(shared): State<Shared>) -> (StatusCode, String) {
    let draining = shared.shutdown.is_draining();
    let mut text = String::new();
    if draining {
        text.push_str("gateway not ready: draining\n");
    }
    for (part, state) in shared.sources.status.parts() {
        // What went wrong may quote a peer: no line of it may pass for one of ours.
        let line = match state {
            status::State::Ready => format!("{part} ready\n"),
            status::State::Noted(what) => format!("{part} ready: {}\n", printable(what, STATE)),
            status::State::Degraded(what) => {
                format!("{part} degraded: {}\n", printable(what, STATE))
            }
            status::State::NotReady(why) => {
                format!("{part} not ready: {}\n", printable(why, STATE))
            }
        };
        text.push_str(&line);
    }
    if text.is_empty() {
        text.push_str("gateway not ready: starting\n");
    }
    let ready = !draining && shared.sources.status.is_ready();
    (
        if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        },
        text,
    )
}

async fn scrape(State(shared): State<Shared>) -> Response {
    let sources = shared.sources;
    let snapshot = sources.snapshot.load_full();
    let make = move || {
        let used = limits::used(&sources.limiter, &snapshot);
        sources.metrics.used(used);
        let parts = sources.status.parts().into_iter();
        sources
            .metrics
            .parts(parts.map(|(part, state)| (part, state.as_str())));
        sources.metrics.encode().into_bytes()
    };
    aside(metrics::CONTENT_TYPE, make).await
}

async fn list_routes(State(shared): State<Shared>) -> Response {
    let snapshot = shared.sources.snapshot.load_full();
    let parts = shared.sources.status.parts();
    aside("application/json", move || routes::json(&snapshot, &parts)).await
}

/// Makes an answer that grows with the number of routes on a thread of its own: connections share theirs.
async fn aside(
    content_type: &'static str,
    make: impl FnOnce() -> Vec<u8> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(make).await {
        Ok(body) => ([(header::CONTENT_TYPE, content_type)], body).into_response(),
        Err(error) => {
            tracing::error!(%error, "an answer of the admin interface could not be made");
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                "this answer could not be made; see the log\n",
            )
                .into_response()
        }
    }
}

async fn not_found() -> (StatusCode, &'static str) {
    (
        StatusCode::NOT_FOUND,
        "there is nothing here; / lists what there is\n",
    )
}

async fn not_allowed(method: Method, uri: Uri) -> (StatusCode, String) {
    let takes = match uri.path() {
        "/v1/reload" => "POST",
        _ => "GET and HEAD",
    };
    let (path, method) = (escape(uri.path()), escape(method.as_str()));
    let text = format!("{path} takes {takes}, not {method}\n");
    (StatusCode::METHOD_NOT_ALLOWED, text)
}
