//! The admin interface.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::metrics::Metrics;
use crate::snapshot::Snapshot;
use crate::status::Status;

/// What the admin interface shows.
#[derive(Clone, Debug)]
pub struct Sources {
    /// What connections are served from.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// What each part reports.
    pub status: Status,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}
