//! The record of one connection, from accept to end: written exactly once, by `Drop`.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::oneshot;
use tokio::time::Instant;

mod running;

use crate::config::ListenAddress;
use crate::log::{AccessLog, Client, Record};
use crate::metrics::{Exceeded, Metrics, RouteMetrics};
use crate::reason::Reason;
use running::Running;

/// Where sessions are written and counted, and from where they can be ended.
#[derive(Clone, Debug)]
pub struct Sessions {
    log: AccessLog,
    metrics: Arc<Metrics>,
    running: Arc<Running>,
}

/// One connection. It holds names and metric handles, never a route, so that no old snapshot outlives its time.
#[derive(Debug)]
pub struct Session {
    /// What is known so far.
    pub record: Record,
    /// Bytes from the client to the upstream.
    pub up: Tally,
    /// Bytes from the upstream to the client.
    pub down: Tally,
    started: Instant,
    stage: Instant,
    route: Option<Arc<RouteMetrics>>,
    /// Its number among those that run.
    id: u64,
    sessions: Sessions,
}

/// Bytes of one direction: for the record, and for the route's counter as they move.
#[derive(Debug, Default)]
pub struct Tally {
    bytes: u64,
    counter: Option<Counter<u64, AtomicU64>>,
}

impl Sessions {
    /// Sessions that end in this log and these metrics.
    pub fn new(log: AccessLog, metrics: Arc<Metrics>) -> Self {
        Self {
            log,
            metrics,
            running: Arc::default(),
        }
    }

    /// What limits on these connections count on.
    pub fn exceeded(&self) -> &Arc<Exceeded> {
        self.metrics.exceeded()
    }

    /// Begins the record of a connection that was just accepted. Until [`Session::end`] says otherwise, its reason is
    /// [`Reason::Internal`]: a task that panics ends so. The receiver hears why others want it to end, if they do.
    pub fn begin(
        &self,
        client: Client,
        listener: ListenAddress,
    ) -> (Session, oneshot::Receiver<Reason>) {
        let now = Instant::now();
        let (id, told) = self.running.begin();
        let session = Session {
            record: Record::new(client, listener),
            up: Tally::default(),
            down: Tally::default(),
            started: now,
            stage: now,
            route: None,
            id,
            sessions: self.clone(),
        };
        (session, told)
    }

    /// How many run.
    pub fn count(&self) -> usize {
        self.running.count()
    }

    /// Ends those whose route is chosen (`None` has none yet), evenly over `span` and in no order, so that they do not all
    /// come back at once. Returns when the last one has been told.
    pub async fn end(&self, reason: Reason, span: Duration, chosen: impl Fn(Option<&str>) -> bool) {
        self.running.end(reason, span, chosen).await;
    }

    /// Ends every one that runs, and those that begin from now on.
    pub fn close(&self, reason: Reason) {
        self.running.close(reason);
    }
}

impl Session {
    /// What limits on it count on.
    pub fn exceeded(&self) -> &Arc<Exceeded> {
        self.sessions.exceeded()
    }

    /// When the connection was accepted.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The connection has a route from now on.
    pub fn routed(&mut self, name: &Arc<str>, upstream: &Arc<str>, metrics: &Arc<RouteMetrics>) {
        self.record.route = Some(Arc::clone(name));
        self.record.upstream = Some(Arc::clone(upstream));
        self.sessions.running.routed(self.id, name);
        metrics.active.inc();
        self.up.counter = Some(metrics.bytes_up.clone());
        self.down.counter = Some(metrics.bytes_down.clone());
        self.route = Some(Arc::clone(metrics));
    }

    /// The hello is there: the name it asks for, and the first protocol it offers.
    pub fn hello_done(&mut self, sni: Option<String>, alpn: Option<Vec<u8>>) {
        self.record.hello_time = Some(self.lap());
        self.record.sni = sni;
        self.record.alpn = alpn;
    }

    /// The client's handshake is finished, with this agreed.
    pub fn handshake_done(&mut self, tls: &rustls::CommonState) {
        let time = self.lap();
        self.record.handshake_time = Some(time);
        if let Some(route) = &self.route {
            route.handshake.observe(time.as_secs_f64());
        }
        self.record.alpn = tls.alpn_protocol().map(<[u8]>::to_vec);
        self.record.tls = match tls.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => Some("1.2"),
            Some(rustls::ProtocolVersion::TLSv1_3) => Some("1.3"),
            _ => None,
        };
    }

    /// The upstream does the handshake; the dial's time starts here.
    pub fn handshake_skipped(&mut self) {
        self.lap();
    }

    /// The upstream is ready for bytes.
    pub fn dial_done(&mut self) {
        let time = self.lap();
        self.record.dial_time = Some(time);
        if let Some(route) = &self.route {
            route.dial.observe(time.as_secs_f64());
        }
    }

    /// How the connection ended; the last word counts.
    pub fn end(&mut self, reason: Reason, detail: Option<String>) {
        self.record.reason = reason;
        self.record.detail = detail;
    }

    /// Time since the stage before.
    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        let lap = now - self.stage;
        self.stage = now;
        lap
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.record.duration = self.started.elapsed();
        self.record.bytes_up = self.up.bytes;
        self.record.bytes_down = self.down.bytes;
        if let Some(route) = &self.route {
            route.active.dec();
        }
        let Sessions {
            log,
            metrics,
            running,
        } = &self.sessions;
        running.gone(self.id);
        metrics.ended(self.route.as_deref(), self.record.reason);
        if log.is_on() {
            log.write(self.record.clone());
        }
    }
}

impl Tally {
    /// Counts bytes that were handed over.
    pub fn add(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.bytes += bytes;
        if let Some(counter) = &self.counter {
            counter.inc_by(bytes);
        }
    }

    /// The sum so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::io::{self, Write};
    use std::net::SocketAddr;
    use std::sync::{Mutex, PoisonError};

    use crate::config::LogFormat;

    use super::*;

    /// What the log has written.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            written.extend_from_slice(buf);
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Desk {
        sessions: Sessions,
        log: AccessLog,
        metrics: Arc<Metrics>,
        written: Written,
    }

    impl Desk {
        fn new() -> Self {
            let metrics = Metrics::new();
            let written = Written::default();
            let log = AccessLog::start(LogFormat::Json, Box::new(written.clone()));
            Self {
                sessions: Sessions::new(log.clone(), Arc::clone(&metrics)),
                log,
                metrics,
                written,
            }
        }

        fn begin(&self) -> Session {
            let address: SocketAddr = "192.0.2.1:2222".parse().unwrap();
            self.sessions.begin(address.into(), address.into()).0
        }

        /// The reasons of the records so far.
        fn reasons(&self) -> Vec<String> {
            self.log.flush();
            let written = self.written.0.lock().unwrap();
            let lines = std::str::from_utf8(&written).unwrap().lines();
            let records =
                lines.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            records
                .map(|record| record["reason"].as_str().unwrap().to_owned())
                .collect()
        }

        fn counts(&self, sample: &str) -> bool {
            self.metrics.encode().lines().any(|line| line == sample)
        }
    }

    #[tokio::test]
    async fn a_session_that_nobody_ended_is_an_internal_defect() {
        let desk = Desk::new();
        drop(desk.begin());
        assert_eq!(desk.reasons(), ["internal"]);
    }

    #[tokio::test]
    async fn a_task_that_panics_leaves_its_record_and_its_count() {
        let desk = Desk::new();
        let (mut session, metrics) = (desk.begin(), desk.metrics.route("vm"));
        let handling = tokio::spawn(async move {
            session.routed(&"vm".into(), &"u".into(), &metrics);
            session.up.add(7);
            // Quietly: nothing is printed for this one.
            std::panic::resume_unwind(Box::new("a defect"));
        });
        assert!(handling.await.unwrap_err().is_panic());
        assert_eq!(desk.reasons(), ["internal"]);
        for sample in [
            r#"portcullis_connections_active{route="vm"} 0"#,
            r#"portcullis_connections_ended_total{route="vm",reason="internal",fault="gateway"} 1"#,
            r#"portcullis_bytes_total{route="vm",direction="up"} 7"#,
        ] {
            assert!(
                desk.counts(sample),
                "no {sample} in {}",
                desk.metrics.encode()
            );
        }
    }

    #[tokio::test]
    async fn of_two_ends_the_last_word_counts_and_is_written_once() {
        let desk = Desk::new();
        let mut session = desk.begin();
        session.end(Reason::Closed, None);
        session.end(Reason::Drained, None);
        drop(session);
        assert_eq!(desk.reasons(), ["drained"]);
    }

    #[tokio::test]
    async fn a_session_counts_as_active_from_its_route_to_its_end() {
        let desk = Desk::new();
        let metrics = desk.metrics.route("vm");
        let mut session = desk.begin();
        assert!(desk.counts(r#"portcullis_connections_active{route="vm"} 0"#));
        session.routed(&"vm".into(), &"u".into(), &metrics);
        assert!(desk.counts(r#"portcullis_connections_active{route="vm"} 1"#));
        session.end(Reason::Closed, None);
        drop(session);
        assert!(desk.counts(r#"portcullis_connections_active{route="vm"} 0"#));
    }
}
