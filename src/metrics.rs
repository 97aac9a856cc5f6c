//! Every metric there is, and its Prometheus text; labels are configured names and closed sets only.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use crate::reason::Reason;

/// The registry and its families. Hot paths keep handles ([`RouteMetrics`]) and never look a label up.
#[derive(Debug)]
pub struct Metrics {}

impl Metrics {
    /// An empty registry with every family registered.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Arc<Self> {
        todo!()
    }

    /// The handles of one route; the same counters for the same name.
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        let _ = name;
        todo!()
    }

    /// Forgets a route that is gone, so that its series end.
    pub fn forget_route(&self, name: &str) {
        let _ = name;
        todo!()
    }

    /// Counts a connection that ended; `route` is `None` for one that never got a route.
    pub fn ended(&self, route: Option<&str>, reason: Reason) {
        let _ = (route, reason);
        todo!()
    }

    /// The exposition for a scrape (OpenMetrics 1.0 text).
    pub fn encode(&self) -> String {
        todo!()
    }
}

/// The handles that connections of one route count on.
#[derive(Clone, Debug, Default)]
pub struct RouteMetrics {
    /// Connections that have the route now.
    pub active: Gauge,
    /// Bytes from clients to upstreams.
    pub bytes_up: Counter<u64, AtomicU64>,
    /// Bytes from upstreams to clients.
    pub bytes_down: Counter<u64, AtomicU64>,
}
