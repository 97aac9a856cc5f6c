//! What is used of each limit now, of the routes' too.

use std::sync::atomic::Ordering;

use crate::metrics::{Limit, Usage};
use crate::net::limits::Limiter;
use crate::snapshot::{Route, Snapshot};

/// Every limit on how many there may be. With 100,000 routes it takes as long as to list them.
pub(super) fn used(limiter: &Limiter, snapshot: &Snapshot) -> Vec<Usage> {
    let routes = snapshot.table.routes().into_iter();
    let of_route = |route: &Route| Usage {
        limit: Limit::PerRoute,
        current: route.metrics.admitted.load(Ordering::Relaxed),
        max: (route.max_connections).map_or(snapshot.limits.per_route.max, |cap| cap.max),
    };
    let nearest = routes.map(|route| of_route(route)).max_by_key(nearness);
    let mut used = limiter.usage(&snapshot.limits).to_vec();
    used.extend(nearest);
    used
}

/// Who has a limit comes before who has none, then it is by how many millionths of it are used, then by how much is.
fn nearness(used: &Usage) -> (bool, usize, usize) {
    let part = |max: usize| used.current.saturating_mul(1_000_000) / max.max(1);
    (used.max.is_some(), used.max.map_or(0, part), used.current)
}
