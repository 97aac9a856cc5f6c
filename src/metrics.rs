//! Every metric there is, and its Prometheus text; labels are configured names and closed sets only.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

mod scrape;

use scrape::{Ended, Live};

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
/// | `portcullis_accept_errors_total` | counter | `kind` | calls to accept that failed: `files`, `memory`, `aborted`, `other` |
/// | `portcullis_access_log_dropped_total` | counter, lines | | access log lines lost to a slow or closed output |
/// | `portcullis_access_log_suppressed_total` | counter, lines | | refusals counted instead of logged during a flood |
/// | `portcullis_snapshot_generation` | gauge | | how many snapshots were published |
/// | `portcullis_certificate_not_after_seconds` | gauge, seconds since 1970 | `name` | when an edge certificate ends |
/// | `portcullis_mesh_identity_not_after_seconds` | gauge, seconds since 1970 | | when the gateway's certificate in the mesh ends; absent while it has none |
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    accepted: Family<[(&'static str, String); 1], Counter>,
    accept_errors: Family<[(&'static str, &'static str); 1], Counter>,
    generation: Gauge,
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
        let generation = Gauge::default();
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
            "snapshot_generation",
            "How many snapshots were published",
            generation.clone(),
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
            generation,
            handshake,
            dial,
            live,
        })
    }

    /// The counter of a listener's connections, by the address it is bound to.
    pub fn accepted(&self, listener: SocketAddr) -> Counter {
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

    /// The handles of one route; the same counters for the same name.
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        let mut routes = self.live.routes();
        if let Some(route) = routes.current.get(name) {
            return Arc::clone(route);
        }
        // A route that comes back while connections of its former life go on counts on with them.
        let (name, route) = routes.leaving.remove_entry(name).unwrap_or_else(|| {
            let route = RouteMetrics {
                handshake: self.handshake.clone(),
                dial: self.dial.clone(),
                ..RouteMetrics::default()
            };
            (name.into(), Arc::new(route))
        });
        routes.current.insert(name, Arc::clone(&route));
        route
    }

    /// Forgets a route that is gone. Its series end when nothing counts on it any more: with the last of its connections.
    pub fn forget_route(&self, name: &str) {
        let mut routes = self.live.routes();
        if let Some((name, route)) = routes.current.remove_entry(name) {
            routes.leaving.insert(name, route);
        }
        routes.sweep();
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

    /// Replaces the edge certificates: each one's name in the configuration, and when it ends.
    pub fn certificates(&self, certificates: impl IntoIterator<Item = (String, SystemTime)>) {
        let certificates = certificates.into_iter().collect();
        *self
            .live
            .certificates
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = certificates;
    }

    /// Tells when the gateway's certificate in the mesh ends.
    pub fn identity(&self, not_after: SystemTime) {
        let identity = self.live.identity.lock();
        *identity.unwrap_or_else(PoisonError::into_inner) = Some(not_after);
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
            bytes_up: Counter::default(),
            bytes_down: Counter::default(),
            handshake: Histogram::new(SECONDS),
            dial: Histogram::new(SECONDS),
            ended: Ended::default(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use super::*;

    /// A registry in which every family has at least one sample.
    fn full() -> Arc<Metrics> {
        let metrics = Metrics::new();
        metrics.accepted("[::]:8443".parse().unwrap()).inc();
        metrics.accept_failed(&io::Error::from_raw_os_error(24));
        let route = metrics.route("vm");
        route.active.inc();
        route.bytes_up.inc_by(7);
        route.handshake.observe(0.02);
        metrics.ended(Some(&route), Reason::Closed);
        metrics.ended(None, Reason::NotTls);
        metrics.ended(None, Reason::NotTls);
        metrics.published(3);
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        metrics.certificates([("edge.pem".to_owned(), end)]);
        metrics.identity(end + Duration::from_secs(1));
        metrics
    }

    /// The sample lines of an exposition, checked line by line: each belongs to a family that was described before it.
    fn samples(text: &str) -> BTreeMap<String, f64> {
        let mut types = BTreeMap::new();
        let mut helps = BTreeSet::new();
        let mut samples = BTreeMap::new();
        let body = text.strip_suffix("# EOF\n").unwrap();
        for line in body.lines() {
            let words: Vec<_> = line.splitn(4, ' ').collect();
            match words[..] {
                ["#", "HELP", name, _] => assert!(helps.insert(name), "{name} twice"),
                ["#", "TYPE", name, kind] => {
                    assert!(types.insert(name, kind).is_none(), "{name} twice")
                }
                ["#", "UNIT", name, unit] => assert!(name.ends_with(unit), "{line}"),
                _ => {
                    let (series, value) = line.rsplit_once(' ').unwrap();
                    let name = series.split('{').next().unwrap();
                    let suffixes = ["_total", "_info", "_bucket", "_sum", "_count", ""];
                    let family = suffixes.iter().find_map(|suffix| {
                        name.strip_suffix(suffix)
                            .filter(|family| types.contains_key(family))
                    });
                    let family = family.unwrap_or_else(|| panic!("{line} belongs to no family"));
                    assert!(helps.contains(family), "{family} has no HELP");
                    assert!(
                        samples
                            .insert(series.to_owned(), value.parse().unwrap())
                            .is_none(),
                        "{line}"
                    );
                }
            }
        }
        samples
    }

    #[test]
    fn every_family_is_described_and_every_documented_metric_is_there() {
        let text = full().encode();
        let samples = samples(&text);
        let documented: Vec<&str> = include_str!("metrics.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("/// | `")?.split('`').next())
            .collect();
        assert!(!documented.is_empty());
        for name in documented {
            assert!(
                samples.keys().any(|series| series.starts_with(name)),
                "{name} is missing in\n{text}"
            );
        }
    }

    #[test]
    fn a_scrape_shows_what_was_counted() {
        let samples = samples(&full().encode());
        for (series, value) in [
            (
                r#"portcullis_connections_accepted_total{listener="[::]:8443"}"#,
                1.0,
            ),
            (
                r#"portcullis_connections_ended_total{route="vm",reason="closed",fault="none"}"#,
                1.0,
            ),
            (
                r#"portcullis_connections_ended_total{route="",reason="not_tls",fault="client"}"#,
                2.0,
            ),
            (r#"portcullis_connections_active{route="vm"}"#, 1.0),
            (r#"portcullis_bytes_total{route="vm",direction="up"}"#, 7.0),
            (
                r#"portcullis_bytes_total{route="vm",direction="down"}"#,
                0.0,
            ),
            (r#"portcullis_handshake_seconds_bucket{le="0.025"}"#, 1.0),
            (r#"portcullis_handshake_seconds_bucket{le="0.01"}"#, 0.0),
            ("portcullis_dial_seconds_count", 0.0),
            (r#"portcullis_accept_errors_total{kind="files"}"#, 1.0),
            ("portcullis_access_log_dropped_total", 0.0),
            ("portcullis_snapshot_generation", 3.0),
            (
                r#"portcullis_certificate_not_after_seconds{name="edge.pem"}"#,
                1_800_000_000.0,
            ),
            (
                "portcullis_mesh_identity_not_after_seconds",
                1_800_000_001.0,
            ),
        ] {
            assert_eq!(
                samples.get(series),
                Some(&value),
                "{series} in {samples:#?}"
            );
        }
    }

    #[test]
    fn labels_are_configured_names_and_closed_sets_only() {
        let text = full().encode();
        let keys: BTreeSet<_> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once('{')?.1.rsplit_once('}'))
            .flat_map(|(labels, _)| {
                labels
                    .split(',')
                    .filter_map(|label| Some(label.split_once('=')?.0))
            })
            .collect();
        let allowed = [
            "direction",
            "fault",
            "kind",
            "le",
            "listener",
            "name",
            "reason",
            "route",
            "version",
        ];
        assert_eq!(keys, BTreeSet::from(allowed));
    }

    #[test]
    fn a_gateway_outside_of_every_mesh_tells_no_end_of_its_identity() {
        assert!(
            !Metrics::new()
                .encode()
                .contains("mesh_identity_not_after_seconds ")
        );
    }

    #[test]
    fn the_same_name_gives_the_same_counters() {
        let metrics = Metrics::new();
        metrics.route("a").bytes_up.inc();
        metrics.route("a").bytes_up.inc();
        assert_eq!(metrics.route("a").bytes_up.get(), 2);
    }

    #[test]
    fn a_forgotten_route_shows_until_its_last_connection_ends() {
        let metrics = Metrics::new();
        let route = metrics.route("gone");
        metrics.route("kept");
        metrics.forget_route("gone");
        metrics.ended(Some(&route), Reason::Drained);
        assert!(
            metrics
                .encode()
                .contains(r#"{route="gone",reason="drained",fault="none"}"#)
        );
        drop(route);
        let text = metrics.encode();
        assert!(!text.contains("gone"), "{text}");
        assert!(text.contains(r#"{route="kept"}"#), "{text}");
    }

    #[test]
    fn a_route_that_comes_back_counts_on_with_its_old_connections() {
        let metrics = Metrics::new();
        let before = metrics.route("flaps");
        before.active.inc();
        metrics.forget_route("flaps");
        assert!(Arc::ptr_eq(&before, &metrics.route("flaps")));
        assert_eq!(
            metrics
                .encode()
                .matches(r#"connections_active{route="flaps"} 1"#)
                .count(),
            1
        );
    }

    #[test]
    fn a_name_with_quotes_and_newlines_stays_within_its_label() {
        let metrics = Metrics::new();
        metrics.route("a\"} 1\nb\\").active.inc();
        let text = metrics.encode();
        assert!(
            text.contains(r#"connections_active{route="a\"} 1\nb\\"} 1"#),
            "{text}"
        );
    }
}
