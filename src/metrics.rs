//! Every metric there is, and its Prometheus text; labels are configured names and closed sets only.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

mod exceeded;
mod in_flight;
mod scrape;

pub use exceeded::{Exceeded, Limit, Usage};
pub use in_flight::InFlight;
use scrape::{Ended, Live};

use crate::config::ListenAddress;
use crate::log::AccessLog;
use crate::reason::Reason;

/// What an answer with [`Metrics::encode`] in it calls itself.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of a time to a working connection: from a local network to the deadlines of a hello (10 s) and a dial (5 s).
const SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0];

/// The registry and its families. Hot paths keep handles ([`RouteMetrics`]) and never look a label up.
///
/// | name | type, unit | labels | meaning |
/// |---|---|---|---|
/// | `portcullis_build_info` | info | `version` | the version that runs |
/// | `portcullis_connections_accepted_total` | counter | `listener` | connections accepted |
/// | `portcullis_connections_ended_total` | counter | `route`, `reason`, `fault` | connections ended; `route` is empty for one that never got one |
/// | `portcullis_connections_active` | gauge | `route` | connections that have the route now |
/// | `portcullis_bytes_total` | counter, bytes | `route`, `direction` | bytes relayed: `up` from the client, `down` to it |
/// | `portcullis_handshake_seconds` | histogram, seconds | | from the hello to the end of the client's handshake |
/// | `portcullis_dial_seconds` | histogram, seconds | | until an upstream was ready for bytes, its own TLS included |
/// | `portcullis_upstream_endpoints` | gauge | `upstream`, `state` | endpoints that are checked: `passing`, `failing`, `unchecked` (its first check is to come) |
/// | `portcullis_endpoint_ejections_total` | counter | `upstream` | times that an endpoint was passed over from then on, as it could not be dialled |
/// | `portcullis_limit_exceeded_total` | counter | `limit`, `enforced` | connections that a limit refused or ended (`true`), or would have (`false`: dry-run) |
/// | `portcullis_limit_current` | gauge | `limit` | what is used now of a limit; of `per_source`, `accept_rate` (of its burst) and `per_route` by the source or route that is nearest to it |
/// | `portcullis_limit_max` | gauge | `limit` | that limit; absent where there is none |
/// | `portcullis_accept_errors_total` | counter | `kind` | calls to accept that failed: `files`, `memory`, `aborted`, `other` |
/// | `portcullis_connections_lost_total` | counter | `listener` | connections that waited when their listener was closed, and could not be accepted (at least one where nobody knows how many) |
/// | `portcullis_access_log_dropped_total` | counter, lines | | access log lines lost to a slow or closed output |
/// | `portcullis_access_log_suppressed_total` | counter, lines | | refusals counted instead of logged during a flood |
/// | `portcullis_discovery_services` | gauge | `source`, `state` | services found: `routed`, `partly` (something they ask for is skipped), `skipped` (all of it), `unrouted` (they ask for no route) |
/// | `portcullis_routes_shadowed` | gauge | | routes that get no clients, as others take all of theirs (`shadowed_by` in `/v1/routes`) |
/// | `portcullis_part_state` | gauge | `part`, `state` | 1 for the state that a part of the gateway is in, as in `/readyz`: `ready`, `noted`, `degraded`, `not_ready`; absent for the others |
/// | `portcullis_snapshot_generation` | gauge | | how many snapshots were published |
/// | `portcullis_configuration_reads_total` | counter | `outcome` | how often the configuration was read again: `taken`, `refused` (the one before serves on) |
/// | `portcullis_sandbox` | gauge | `extent` | 1 for how much of the sandbox holds: `whole`, `but_truncation`, `but_files`, `off` |
/// | `portcullis_state_restored_timestamp_seconds` | gauge, seconds since 1970 | `part` | when what is served from the disk, as its source has not told it since, was last confirmed; absent for a part that its source tells |
/// | `portcullis_state_refused` | gauge | `part` | 1 while what the disk keeps of a part is refused, and missed; absent otherwise |
/// | `portcullis_state_writes_total` | counter | `outcome` | attempts to keep the state on the disk: `written`, `failed` |
/// | `portcullis_certificate_not_after_seconds` | gauge, seconds since 1970 | `name` | when an edge certificate ends |
/// | `portcullis_own_certificate_not_after_seconds` | gauge, seconds since 1970 | `name` | when a certificate ends that is shown to upstreams, to the peers of tunnels or to agents |
/// | `portcullis_mesh_identity_not_after_seconds` | gauge, seconds since 1970 | | when the gateway's certificate in the mesh ends; absent while it has none |
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    accepted: Family<[(&'static str, String); 1], Counter>,
    accept_errors: Family<[(&'static str, &'static str); 1], Counter>,
    lost: Family<[(&'static str, String); 1], Counter>,
    services: Family<[(&'static str, &'static str); 2], Gauge>,
    shadowed: Gauge,
    generation: Gauge,
    reads: Family<[(&'static str, &'static str); 1], Counter>,
    sandbox: Family<[(&'static str, &'static str); 1], Gauge>,
    restored: Family<[(&'static str, String); 1], Gauge>,
    state_refused: Family<[(&'static str, String); 1], Gauge>,
    state_writes: Family<[(&'static str, &'static str); 1], Counter>,
    /// A histogram is 12 series: by route it would be that times the number of routes. The access log has both times of every connection.
    handshake: Histogram,
    dial: Histogram,
    live: Arc<Live>,
}

impl Metrics {
    /// An empty registry with every family registered.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("portcullis");
        let accepted = Family::default();
        let accept_errors = Family::default();
        let lost = Family::default();
        let services = Family::<_, Gauge>::default();
        let shadowed = Gauge::default();
        let generation = Gauge::default();
        let reads = Family::<_, Counter>::default();
        for outcome in ["taken", "refused"] {
            drop(reads.get_or_create(&[("outcome", outcome)]));
        }
        let sandbox = Family::<_, Gauge>::default();
        let restored = Family::<_, Gauge>::default();
        let state_refused = Family::<_, Gauge>::default();
        let state_writes = Family::<_, Counter>::default();
        for outcome in ["written", "failed"] {
            drop(state_writes.get_or_create(&[("outcome", outcome)]));
        }
        let handshake = Histogram::new(SECONDS);
        let dial = Histogram::new(SECONDS);
        let live = Arc::new(Live::default());
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version that runs", version);
        registry.register(
            "connections_accepted",
            "Connections accepted",
            accepted.clone(),
        );
        registry.register(
            "accept_errors",
            "Calls to accept that failed",
            accept_errors.clone(),
        );
        registry.register(
            "connections_lost",
            "Connections that waited when their listener was closed, and could not be accepted",
            lost.clone(),
        );
        registry.register(
            "discovery_services",
            "Services found, by what became of the routes that they ask for",
            services.clone(),
        );
        registry.register(
            "routes_shadowed",
            "Routes that get no clients, as others take all of theirs",
            shadowed.clone(),
        );
        registry.register(
            "snapshot_generation",
            "How many snapshots were published",
            generation.clone(),
        );
        registry.register(
            "configuration_reads",
            "How often the configuration was read again, by what became of it",
            reads.clone(),
        );
        registry.register(
            "sandbox",
            "1 for how much of the sandbox holds",
            sandbox.clone(),
        );
        registry.register_with_unit(
            "state_restored_timestamp",
            "When what is served from the disk was last confirmed by its source",
            Unit::Seconds,
            restored.clone(),
        );
        registry.register(
            "state_refused",
            "Whether what the disk keeps of a part is refused, and missed",
            state_refused.clone(),
        );
        registry.register(
            "state_writes",
            "Attempts to keep the state on the disk, by what became of them",
            state_writes.clone(),
        );
        registry.register_with_unit(
            "handshake",
            "From the hello to the end of the client's handshake",
            Unit::Seconds,
            handshake.clone(),
        );
        registry.register_with_unit(
            "dial",
            "Until an upstream was ready for bytes, its own TLS included",
            Unit::Seconds,
            dial.clone(),
        );
        registry.register_collector(Box::new(Arc::clone(&live)));
        Arc::new(Self {
            registry,
            accepted,
            accept_errors,
            lost,
            services,
            shadowed,
            generation,
            reads,
            sandbox,
            restored,
            state_refused,
            state_writes,
            handshake,
            dial,
            live,
        })
    }

    /// The counter of a listener's connections, by the address it is bound to.
    pub fn accepted(&self, listener: &ListenAddress) -> Counter {
        self.accepted
            .get_or_create_owned(&[("listener", listener.to_string())])
    }

    /// Counts a call to accept that failed.
    pub fn accept_failed(&self, error: &io::Error) {
        // Linux's ENFILE and EMFILE, ENOMEM and ENOBUFS: std has no stable kind for most of them.
        let kind = match error.raw_os_error() {
            Some(23 | 24) => "files",
            Some(12 | 105) => "memory",
            _ if error.kind() == io::ErrorKind::ConnectionAborted => "aborted",
            _ => "other",
        };
        self.accept_errors.get_or_create(&[("kind", kind)]).inc();
    }

    /// Counts those who waited when a listener was closed, and could not be accepted.
    pub fn lost(&self, listener: &ListenAddress, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.lost
            .get_or_create_owned(&[("listener", listener.to_string())])
            .inc_by(count);
    }

    /// What limits on connections count on.
    pub fn exceeded(&self) -> &Arc<Exceeded> {
        &self.live.exceeded
    }

    /// Tells how each part of the gateway fares now, for the next scrape: its name, and a word of a closed set.
    pub fn parts(&self, parts: impl Iterator<Item = (Arc<str>, &'static str)>) {
        let now = self.live.parts.lock();
        *now.unwrap_or_else(PoisonError::into_inner) = parts.collect();
    }

    /// Tells what is used of the limits now, for the next scrape.
    pub fn used(&self, usage: Vec<Usage>) {
        let used = self.live.usage.lock();
        *used.unwrap_or_else(PoisonError::into_inner) = usage;
    }

    /// The handles of one route; the same counters for the same name.
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        self.live.routes().of(name, || RouteMetrics {
            handshake: self.handshake.clone(),
            dial: self.dial.clone(),
            ..RouteMetrics::default()
        })
    }

    /// Forgets a route that is gone. Its series end when nothing counts on it any more: with the last of its connections.
    pub fn forget_route(&self, name: &str) {
        self.live.routes().forget(name);
    }

    /// The handles of one upstream; the same counters for the same name.
    pub fn upstream(&self, name: &str) -> Arc<UpstreamMetrics> {
        self.live.upstreams().of(name, UpstreamMetrics::default)
    }

    /// Forgets an upstream that is gone, as [`forget_route`](Self::forget_route) does a route.
    pub fn forget_upstream(&self, name: &str) {
        self.live.upstreams().forget(name);
    }

    /// Counts a connection that ended; `route` is `None` for one that never got a route.
    pub fn ended(&self, route: Option<&RouteMetrics>, reason: Reason) {
        route
            .map_or(&self.live.unrouted, |route| &route.ended)
            .count(reason);
    }

    /// Tells the number of the snapshot that was published last.
    pub fn published(&self, generation: u64) {
        self.generation
            .set(i64::try_from(generation).unwrap_or(i64::MAX));
    }

    /// Counts a configuration that was read again: taken, or refused.
    pub fn reloaded(&self, taken: bool) {
        let outcome = if taken { "taken" } else { "refused" };
        self.reads.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Tells how much of the sandbox holds, by a word of a closed set; once.
    pub fn sandbox(&self, extent: &'static str) {
        self.sandbox.get_or_create(&[("extent", extent)]).set(1);
    }

    /// Tells when what is served of a part from the disk was confirmed; `None` when nothing is.
    pub fn restored(&self, part: &str, confirmed: Option<SystemTime>) {
        let labels = [("part", part.to_owned())];
        let since = confirmed.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        match since {
            Some(since) => {
                let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
                self.restored.get_or_create(&labels).set(seconds);
            }
            None => drop(self.restored.remove(&labels)),
        }
    }

    /// Tells whether what the disk keeps of a part is refused, and nothing newer has come.
    pub fn state_refused(&self, part: &str, is_refused: bool) {
        let labels = [("part", part.to_owned())];
        match is_refused {
            true => drop(self.state_refused.get_or_create(&labels).set(1)),
            false => drop(self.state_refused.remove(&labels)),
        }
    }

    /// Counts an attempt to keep the state on the disk.
    pub fn state_written(&self, written: bool) {
        let outcome = if written { "written" } else { "failed" };
        self.state_writes
            .get_or_create(&[("outcome", outcome)])
            .inc();
    }

    /// Tells how many services of a source are in a state; both are words of closed sets.
    pub fn services(&self, source: &'static str, state: &'static str, count: usize) {
        let labels = [("source", source), ("state", state)];
        let gauge = self.services.get_or_create(&labels);
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Tells how many routes get no clients, as others take all of theirs.
    pub fn shadowed(&self, count: usize) {
        self.shadowed.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Replaces the edge certificates: each one's name in the configuration, and when it ends.
    pub fn certificates(&self, certificates: impl IntoIterator<Item = (String, SystemTime)>) {
        let certificates = certificates.into_iter().collect();
        *self
            .live
            .certificates
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = certificates;
    }

    /// The same of those that are shown to whoever is dialled.
    pub fn own_certificates(&self, certificates: impl IntoIterator<Item = (String, SystemTime)>) {
        let own = self.live.own_certificates.lock();
        *own.unwrap_or_else(PoisonError::into_inner) = certificates.into_iter().collect();
    }

    /// Tells when the gateway's certificate in the mesh ends.
    pub fn identity(&self, not_after: Option<SystemTime>) {
        let identity = self.live.identity.lock();
        *identity.unwrap_or_else(PoisonError::into_inner) = not_after;
    }

    /// Makes the access log's counts metrics; the first log that is given stays.
    pub fn access_log(&self, log: AccessLog) {
        let _ = self.live.log.set(log);
    }

    /// The exposition for a scrape (OpenMetrics 1.0 text, [`CONTENT_TYPE`]).
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

/// The handles that connections of one route count on.
#[derive(Debug)]
pub struct RouteMetrics {
    /// Connections that have the route now.
    pub active: Gauge,
    /// Connections that its limit has let in. Those that it refused are active until they have closed, and not among these.
    pub admitted: AtomicUsize,
    /// How many of its connections each source has, of those that came when a middleware limited that.
    pub in_flight: InFlight,
    /// Bytes from clients to upstreams.
    pub bytes_up: Counter<u64, AtomicU64>,
    /// Bytes from upstreams to clients.
    pub bytes_down: Counter<u64, AtomicU64>,
    /// Seconds from the hello to the end of the client's handshake; one histogram for all routes.
    pub handshake: Histogram,
    /// Seconds until an upstream was ready for bytes; one histogram for all routes.
    pub dial: Histogram,
    ended: Ended,
}

impl Default for RouteMetrics {
    /// Handles that no scrape shows.
    fn default() -> Self {
        Self {
            active: Gauge::default(),
            admitted: AtomicUsize::new(0),
            in_flight: InFlight::default(),
            bytes_up: Counter::default(),
            bytes_down: Counter::default(),
            handshake: Histogram::new(SECONDS),
            dial: Histogram::new(SECONDS),
            ended: Ended::default(),
        }
    }
}

/// The handles that connections to one upstream count on.
#[derive(Debug, Default)]
pub struct UpstreamMetrics {
    /// How often one of its endpoints was passed over from then on.
    pub ejections: Counter<u64, AtomicU64>,
    checked: Mutex<Checked>,
}

impl UpstreamMetrics {
    /// Replaces what is known of those of its endpoints that are checked.
    pub fn checked(&self, counts: Checked) {
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }
}

/// How many endpoints of an upstream that is checked are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Their last check passed.
    pub passing: usize,
    /// It failed.
    pub failing: usize,
    /// Their first one is to come.
    pub unchecked: usize,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
