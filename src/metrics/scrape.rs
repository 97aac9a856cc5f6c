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

use super::{Checked, Exceeded, RouteMetrics, UpstreamMetrics, Usage};
use crate::log::AccessLog;
use crate::reason::Reason;

/// What is read at the moment of a scrape: everything that comes and goes.
#[derive(Debug, Default)]
pub(super) struct Live {
    routes: Mutex<Handles<RouteMetrics>>,
    upstreams: Mutex<Handles<UpstreamMetrics>>,
    pub(super) unrouted: Ended,
    pub(super) exceeded: Arc<Exceeded>,
    pub(super) usage: Mutex<Vec<Usage>>,
    pub(super) parts: Mutex<Vec<(Arc<str>, &'static str)>>,
    pub(super) certificates: Mutex<BTreeMap<String, SystemTime>>,
    pub(super) own_certificates: Mutex<BTreeMap<String, SystemTime>>,
    pub(super) identity: Mutex<Option<SystemTime>>,
    pub(super) log: OnceLock<AccessLog>,
}

/// The handles of what has a name and comes and goes: each shows until nothing counts on it any more.
#[derive(Debug)]
pub(super) struct Handles<T> {
    current: BTreeMap<Arc<str>, Arc<T>>,
    /// What is gone, and its connections not yet.
    leaving: BTreeMap<Arc<str>, Arc<T>>,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self {
            current: BTreeMap::new(),
            leaving: BTreeMap::new(),
        }
    }
}

impl<T> Handles<T> {
    /// The handle of this name. One that comes back while connections of its former life go on counts on with them.
    pub(super) fn of(&mut self, name: &str, make: impl FnOnce() -> T) -> Arc<T> {
        if let Some(handle) = self.current.get(name) {
            return Arc::clone(handle);
        }
        let (name, handle) = self
            .leaving
            .remove_entry(name)
            .unwrap_or_else(|| (name.into(), Arc::new(make())));
        self.current.insert(name, Arc::clone(&handle));
        handle
    }

    pub(super) fn forget(&mut self, name: &str) {
        if let Some((name, handle)) = self.current.remove_entry(name) {
            self.leaving.insert(name, handle);
        }
        self.sweep();
    }

    /// Every one there is at this moment, so that the text is made without the lock.
    fn all(&mut self) -> Vec<(Arc<str>, Arc<T>)> {
        self.sweep();
        let all = self.current.iter().chain(&self.leaving);
        all.map(|(name, handle)| (label(name), Arc::clone(handle)))
            .collect()
    }

    fn sweep(&mut self) {
        self.leaving
            .retain(|_, handle| Arc::strong_count(handle) > 1);
    }
}

/// A name without what would command the terminal of whoever reads the text: a source may have it from a stranger.
fn label(name: &Arc<str>) -> Arc<str> {
    // The format has its own way with the end of a line.
    let commands = |c: char| c.is_control() && c != '\n';
    if !name.contains(commands) {
        return Arc::clone(name);
    }
    let escaped = name.chars().map(|c| match commands(c) {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    });
    escaped.collect::<String>().into()
}

impl Live {
    pub(super) fn routes(&self) -> MutexGuard<'_, Handles<RouteMetrics>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn upstreams(&self) -> MutexGuard<'_, Handles<UpstreamMetrics>> {
        self.upstreams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Live {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let routes = self.routes().all();
        encode_routes(&routes, &self.unrouted, &mut encoder)?;
        let upstreams = self.upstreams().all();
        encode_upstreams(&upstreams, &mut encoder)?;

        encode_exceeded(&self.exceeded, &mut encoder)?;
        let usage = self.usage.lock();
        encode_usage(&usage.unwrap_or_else(PoisonError::into_inner), &mut encoder)?;

        let help = "1 for the state that a part of the gateway is in";
        let mut family = encoder.encode_descriptor("part_state", help, None, MetricType::Gauge)?;
        let parts = self.parts.lock();
        for (part, state) in parts.unwrap_or_else(PoisonError::into_inner).iter() {
            let labels = [("part", &**part), ("state", state)];
            ConstGauge::new(1_i64).encode(family.encode_family(&labels)?)?;
        }

        for (metric, help, certificates) in [
            (
                "certificate_not_after",
                "When an edge certificate ends, in seconds since 1970",
                &self.certificates,
            ),
            (
                "own_certificate_not_after",
                "When a certificate ends that is shown to those who are dialled, in seconds since 1970",
                &self.own_certificates,
            ),
        ] {
            let unit = Some(&Unit::Seconds);
            let mut family = encoder.encode_descriptor(metric, help, unit, MetricType::Gauge)?;
            let certificates = certificates.lock();
            let certificates = certificates.unwrap_or_else(PoisonError::into_inner);
            for (name, end) in certificates.iter() {
                seconds(*end).encode(family.encode_family(&[("name", name.as_str())])?)?;
            }
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

/// Every series from the start: an alert on the growth of one must see its first step.
fn encode_exceeded(exceeded: &Exceeded, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Connections that a limit refused or ended, or would have where it is not enforced";
    let mut family =
        encoder.encode_descriptor("limit_exceeded", help, None, MetricType::Counter)?;
    for (limit, enforced, count) in exceeded.counts() {
        let enforced = if enforced { "true" } else { "false" };
        let labels = [("limit", limit.as_str()), ("enforced", enforced)];
        ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn encode_usage(usage: &[Usage], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let gauge = |count: usize| ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
    let help = "What is used of a limit now, by the source or route that is nearest to its own";
    let mut family = encoder.encode_descriptor("limit_current", help, None, MetricType::Gauge)?;
    for used in usage {
        let labels = [("limit", used.limit.as_str())];
        gauge(used.current).encode(family.encode_family(&labels)?)?;
    }
    let help = "The limit";
    let mut family = encoder.encode_descriptor("limit_max", help, None, MetricType::Gauge)?;
    for used in usage {
        if let Some(max) = used.max {
            let labels = [("limit", used.limit.as_str())];
            gauge(max).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

/// An upstream whose endpoints never failed costs no series of failures, and one that is not checked none of checks.
fn encode_upstreams(
    upstreams: &[(Arc<str>, Arc<UpstreamMetrics>)],
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let help = "Times that an endpoint was passed over from then on, as it could not be dialled";
    let mut family =
        encoder.encode_descriptor("endpoint_ejections", help, None, MetricType::Counter)?;
    for (name, upstream) in upstreams {
        if upstream.ejections.get() > 0 {
            let labels = [("upstream", &**name)];
            upstream.ejections.encode(family.encode_family(&labels)?)?;
        }
    }

    let help = "Endpoints of upstreams that are checked, by what their last check came to";
    let mut family =
        encoder.encode_descriptor("upstream_endpoints", help, None, MetricType::Gauge)?;
    for (name, upstream) in upstreams {
        let counts = upstream.checked.lock();
        let counts = *counts.unwrap_or_else(PoisonError::into_inner);
        if counts == Checked::default() {
            continue;
        }
        for (state, count) in [
            ("passing", counts.passing),
            ("failing", counts.failing),
            ("unchecked", counts.unchecked),
        ] {
            let labels = [("upstream", &**name), ("state", state)];
            let count = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            count.encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

/// Connections ended, by reason: numbers side by side, as a route without traffic should cost little.
#[derive(Debug)]
pub(super) struct Ended([AtomicU64; Reason::ALL.len()]);

impl Default for Ended {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

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
