//! The admin interface over real sockets: what each address answers, whom it refuses, and what it outlasts.

mod slow;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use portcullis::admin::{self, BindError, Listener, Sources};
use portcullis::config::{ListenAddress, LogFormat};
use portcullis::lifecycle::{Reload, Shutdown};
use portcullis::log::{AccessLog, Record};
use portcullis::metrics::Metrics;
use portcullis::net::limits::Limiter;
use portcullis::reason::Reason;
use portcullis::snapshot::Snapshot;
use portcullis::status::{State, Status};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A running admin interface with nothing behind it.
struct Admin {
    address: ListenAddress,
    sources: Sources,
    shutdown: Shutdown,
    task: JoinHandle<()>,
}

impl Admin {
    async fn start(address: ListenAddress) -> Self {
        let listener = Listener::bind(&address).await.unwrap();
        let mut snapshot = Snapshot::default();
        snapshot.generation = 7;
        let metrics = Metrics::new();
        let sources = Sources {
            snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
            status: Status::default(),
            limiter: Arc::new(Limiter::new(Arc::clone(metrics.exceeded()))),
            metrics,
            reload: Reload::new().0,
            token: Arc::default(),
        };
        let shutdown = Shutdown::new();
        let address = listener.address();
        let task = tokio::spawn(admin::serve(
            listener,
            sources.clone(),
            shutdown.clone(),
            CancellationToken::new(),
        ));
        Self {
            address,
            sources,
            shutdown,
            task,
        }
    }

    async fn on_loopback() -> Self {
        Self::start(ListenAddress::Tcp("127.0.0.1:0".parse().unwrap())).await
    }

    async fn connect(&self) -> TcpStream {
        let ListenAddress::Tcp(address) = &self.address else {
            panic!("a UNIX socket")
        };
        TcpStream::connect(address).await.unwrap()
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
            .await
    }

    async fn ask(&self, request: &str) -> Answer {
        ask(self.connect().await, request).await
    }

    fn set(&self, part: &'static str, state: State) {
        self.sources.status.set(part, state);
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// Sends a request and reads all that comes.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer {
        status,
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

#[tokio::test]
async fn the_index_names_every_address_and_each_of_them_answers() {
    let admin = Admin::on_loopback().await;
    admin.set("listeners", State::Ready);
    let index = admin.get("/").await;
    assert_eq!(index.status, 200);
    let paths: Vec<_> = index
        .body
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    let read = ["/livez", "/readyz", "/metrics", "/v1/routes"];
    assert_eq!(paths, [&read[..], &["/v1/reload"]].concat());
    for path in read {
        assert_eq!(admin.get(path).await.status, 200, "{path}");
    }
    let refused = admin.get("/v1/reload").await;
    assert_eq!(refused.status, 405);
    assert!(refused.body.contains("takes POST"), "{}", refused.body);
}

#[tokio::test]
async fn readyz_follows_the_parts() {
    let admin = Admin::on_loopback().await;
    let readyz = async || {
        let answer = admin.get("/readyz").await;
        (answer.status, answer.body)
    };
    assert_eq!(
        readyz().await,
        (503, "gateway not ready: starting\n".into())
    );
    admin.set("listeners", State::Ready);
    assert_eq!(readyz().await, (200, "listeners ready\n".into()));
    admin.set("dns", State::NotReady("no answer\nlisteners ready".into()));
    assert_eq!(
        readyz().await,
        (
            503,
            "dns not ready: no answer\\nlisteners ready\nlisteners ready\n".into()
        )
    );
    admin.set("dns", State::Degraded("old answers".into()));
    assert_eq!(
        readyz().await,
        (200, "dns degraded: old answers\nlisteners ready\n".into())
    );
}

#[tokio::test]
async fn a_drain_ends_readiness_but_not_liveness_and_a_cut_ends_both() {
    let admin = Admin::on_loopback().await;
    admin.set("listeners", State::Ready);
    admin.shutdown.begin_drain();
    let readyz = admin.get("/readyz").await;
    assert_eq!(
        (readyz.status, readyz.body.as_str()),
        (503, "gateway not ready: draining\nlisteners ready\n")
    );
    assert_eq!(admin.get("/livez").await.status, 200);
    let mut waiting = admin.connect().await;
    admin.shutdown.cut();
    admin.task.await.unwrap();
    // An end or a reset: both are the end.
    assert_eq!(waiting.read(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn metrics_are_openmetrics_text() {
    let admin = Admin::on_loopback().await;
    admin.sources.metrics.ended(None, Reason::NotTls);
    let answer = admin.get("/metrics").await;
    let content_type = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(answer.head.contains(content_type), "{}", answer.head);
    let ended =
        "portcullis_connections_ended_total{route=\"\",reason=\"not_tls\",fault=\"client\"} 1\n";
    assert!(answer.body.contains(ended), "{}", answer.body);
    assert!(answer.body.ends_with("# EOF\n"));
}

#[tokio::test]
async fn what_the_access_log_left_out_is_counted_in_the_metrics() {
    let admin = Admin::on_loopback().await;
    let log = AccessLog::start(LogFormat::Json, Box::new(std::io::sink()));
    admin.sources.metrics.access_log(log.clone());
    let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
    let refusal = Record {
        reason: Reason::NotTls,
        ..Record::new(unspecified.into(), unspecified.into())
    };
    for _ in 0..10_000 {
        log.write(refusal.clone());
    }
    assert!(log.suppressed() > 0);
    let suppressed = format!(
        "portcullis_access_log_suppressed_total {}\n",
        log.suppressed()
    );
    let answer = admin.get("/metrics").await;
    assert!(answer.body.contains(&suppressed), "{}", answer.body);
}

#[tokio::test]
async fn routes_are_json_of_the_snapshot_that_is_published_now() {
    let admin = Admin::on_loopback().await;
    let answer = admin.get("/v1/routes").await;
    assert!(
        answer.head.contains("content-type: application/json"),
        "{}",
        answer.head
    );
    let parse = |body: &str| serde_json::from_str::<serde_json::Value>(body).unwrap();
    assert_eq!(
        parse(&answer.body),
        serde_json::json!({ "generation": 7, "parts": [], "routes": [], "shadows_complete": true, "tunnels": [], "skipped": [] })
    );
    let why = State::Degraded("it answers 500".to_owned());
    admin.set("consul", why);
    assert_eq!(
        parse(&admin.get("/v1/routes").await.body)["parts"],
        serde_json::json!([{ "name": "consul", "state": "degraded", "text": "it answers 500" }])
    );
    let mut next = Snapshot::clone(&admin.sources.snapshot.load());
    next.generation = 8;
    admin.sources.snapshot.store(Arc::new(next));
    assert_eq!(parse(&admin.get("/v1/routes").await.body)["generation"], 8);
}

#[tokio::test]
async fn what_is_not_there_is_404_and_what_is_not_allowed_is_405() {
    let admin = Admin::on_loopback().await;
    let answer = admin.get("/nothing").await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (404, "there is nothing here; / lists what there is\n")
    );
    let answer = admin
        .ask("POST /v1/routes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (405, "/v1/routes takes GET and HEAD, not POST\n")
    );
    assert!(answer.head.contains("allow: get,head"), "{}", answer.head);
}

#[tokio::test]
async fn a_request_for_a_foreign_name_is_refused_on_loopback() {
    let admin = Admin::on_loopback().await;
    for path in ["/livez", "/v1/routes", "/nothing"] {
        let answer = admin
            .ask(&format!(
                "GET {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n"
            ))
            .await;
        assert_eq!(answer.status, 421, "{path}");
        assert!(answer.body.contains("Host"), "{}", answer.body);
    }
    let ListenAddress::Tcp(address) = admin.address else {
        panic!()
    };
    assert_eq!(
        admin
            .ask(&format!("GET /livez HTTP/1.1\r\nHost: {address}\r\n\r\n"))
            .await
            .status,
        200
    );
    assert_eq!(admin.ask("GET /livez HTTP/1.0\r\n\r\n").await.status, 200);
}

#[tokio::test]
async fn any_name_is_answered_on_an_address_that_faces_the_network() {
    let admin = Admin::start(ListenAddress::Tcp("0.0.0.0:0".parse().unwrap())).await;
    let answer = admin
        .ask("GET /livez HTTP/1.1\r\nHost: gate.example\r\n\r\n")
        .await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_client_that_ends_its_side_first_still_gets_its_answer() {
    let admin = Admin::on_loopback().await;
    let mut stream = admin.connect().await;
    stream
        .write_all(b"GET /v1/routes HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(ask(stream, "").await.status, 200);
}

#[tokio::test]
async fn one_connection_serves_one_request() {
    let admin = Admin::on_loopback().await;
    let request = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let answer = admin.ask(&request.repeat(2)).await;
    assert_eq!(answer.body, "ok\n");
    assert!(answer.head.contains("connection: close"), "{}", answer.head);
}

#[tokio::test]
async fn a_unix_socket_is_for_its_owner_and_answers_whatever_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let admin = Admin::start(ListenAddress::Unix(path.clone())).await;
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let stream = UnixStream::connect(&path).await.unwrap();
    let answer = ask(
        stream,
        "GET /livez HTTP/1.1\r\nHost: anything.example\r\n\r\n",
    )
    .await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
    admin.shutdown.cut();
    admin.task.await.unwrap();
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let address = ListenAddress::Unix(path.clone());
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a socket outlives its listener");
    let listener = Listener::bind(&address).await.unwrap();
    assert!(matches!(
        Listener::bind(&address).await,
        Err(BindError::InUse(_))
    ));
    UnixStream::connect(&path).await.unwrap();
    drop(listener);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    std::fs::write(&path, "data").unwrap();
    let error = Listener::bind(&ListenAddress::Unix(path.clone()))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "cannot listen on {}: the file is there and is not a socket",
            path.display()
        )
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let admin = Admin::on_loopback().await;
    let ListenAddress::Tcp(address) = &admin.address else {
        panic!()
    };
    let error = Listener::bind(&admin.address)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(&format!("cannot listen on {address}: ")),
        "{error}"
    );
}
