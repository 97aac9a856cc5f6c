//! What comes and goes among the metrics, read at the moment of a scrape.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::RouteMetrics;
use crate::log::AccessLog;
use crate::reason::Reason;

/// What is read at the moment of a scrape: everything that comes and goes.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) routes: Mutex<Routes>,
    pub(super) unrouted: Ended,
    pub(super) certificates: Mutex<BTreeMap<String, SystemTime>>,
    pub(super) identity: Mutex<Option<SystemTime>>,
    pub(super) log: OnceLock<AccessLog>,
}

#[derive(Debug, Default)]
pub(super) struct Routes {
    pub(super) current: BTreeMap<Arc<str>, Arc<RouteMetrics>>,
    /// Routes that are gone, and their connections not yet.
    pub(super) leaving: BTreeMap<Arc<str>, Arc<RouteMetrics>>,
}

impl Routes {
    pub(super) fn sweep(&mut self) {
        self.leaving.retain(|_, route| Arc::strong_count(route) > 1);
    }
}

impl Live {
    pub(super) fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every route there is at this moment, so that the text is made without the lock.
    fn every_route(&self) -> Vec<(Arc<str>, Arc<RouteMetrics>)> {
        let mut routes = self.routes();
        routes.sweep();
        let all = routes.current.iter().chain(&routes.leaving);
        all.map(|(name, route)| (Arc::clone(name), Arc::clone(route)))
            .collect()
    }
}

impl Collector for Live {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let routes = self.every_route();
        encode_routes(&routes, &self.unrouted, &mut encoder)?;

        let help = "When an edge certificate ends, in seconds since 1970";
        let mut family = encoder.encode_descriptor(
            "certificate_not_after",
            help,
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        for (name, end) in self
            .certificates
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            seconds(*end).encode(family.encode_family(&[("name", name.as_str())])?)?;
        }

        let identity = self.identity.lock();
        if let Some(end) = *identity.unwrap_or_else(PoisonError::into_inner) {
            let help = "When the gateway's certificate in the mesh ends, in seconds since 1970";
            let family = encoder.encode_descriptor(
                "mesh_identity_not_after",
                help,
                Some(&Unit::Seconds),
                MetricType::Gauge,
            )?;
            seconds(end).encode(family)?;
        }

        let log = self.log.get();
        let help = "Access log lines lost to a slow or closed output";
        let family =
            encoder.encode_descriptor("access_log_dropped", help, None, MetricType::Counter)?;
        ConstCounter::new(log.map_or(0, AccessLog::dropped)).encode(family)?;
        let help = "Refusals counted instead of logged during a flood";
        let family =
            encoder.encode_descriptor("access_log_suppressed", help, None, MetricType::Counter)?;
        ConstCounter::new(log.map_or(0, AccessLog::suppressed)).encode(family)
    }
}

/// Since 1970.
fn seconds(time: SystemTime) -> ConstGauge<i64> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.unwrap_or(Duration::ZERO).as_secs();
    ConstGauge::new(i64::try_from(seconds).unwrap_or(i64::MAX))
}

fn encode_routes(
    routes: &[(Arc<str>, Arc<RouteMetrics>)],
    unrouted: &Ended,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let help = "Connections ended, by route (empty for none), reason and fault";
    let mut family =
        encoder.encode_descriptor("connections_ended", help, None, MetricType::Counter)?;
    let ended = routes.iter().map(|(name, route)| (&**name, &route.ended));
    for (route, ended) in std::iter::once(("", unrouted)).chain(ended) {
        for (reason, count) in ended.counts() {
            let fault = reason.fault().as_str();
            let labels = [
                ("route", route),
                ("reason", reason.as_str()),
                ("fault", fault),
            ];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
    }

    let help = "Connections that have the route now";
    let mut family =
        encoder.encode_descriptor("connections_active", help, None, MetricType::Gauge)?;
    for (name, route) in routes {
        route
            .active
            .encode(family.encode_family(&[("route", &**name)])?)?;
    }

    let help = "Bytes relayed: up from the client, down to it";
    let mut family = encoder.encode_descriptor("bytes", help, None, MetricType::Counter)?;
    for (name, route) in routes {
        for (direction, bytes) in [("up", &route.bytes_up), ("down", &route.bytes_down)] {
            bytes.encode(family.encode_family(&[("route", &**name), ("direction", direction)])?)?;
        }
    }
    Ok(())
}

/// Connections ended, by reason: numbers side by side, as a route without traffic should cost little.
#[derive(Debug, Default)]
pub(super) struct Ended([AtomicU64; Reason::ALL.len()]);

impl Ended {
    pub(super) fn count(&self, reason: Reason) {
        if let Some(count) = self.0.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The reasons that occurred, and how often.
    fn counts(&self) -> impl Iterator<Item = (Reason, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        Reason::ALL
            .iter()
            .copied()
            .zip(counts)
            .filter(|(_, count)| *count > 0)
    }
}
