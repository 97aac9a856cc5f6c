//! How often each limit was met, enforced or not.

use std::sync::atomic::{AtomicU64, Ordering};

/// A limit on connections that can be enforced, or only counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `limits.connections`: how many there are.
    Connections,
    /// `limits.handshakes`: how many have not finished their handshake.
    Handshakes,
    /// `limits.per_source`: how many one source has.
    PerSource,
    /// `limits.accept_rate`: how often one source comes.
    AcceptRate,
    /// `limits.per_route`, or a route's `max_connections`: how many a route has.
    PerRoute,
    /// `in_flight_conn` of a route's middlewares: how many one source has on it.
    InFlight,
    /// `limits.lifetime`: how long a tunnel lasts.
    Lifetime,
    /// `limits.idle_timeout`: how long a tunnel is silent.
    Idle,
}

impl Limit {
    /// Every one there is.
    pub const ALL: &[Limit] = &[
        Self::Connections,
        Self::Handshakes,
        Self::PerSource,
        Self::AcceptRate,
        Self::PerRoute,
        Self::InFlight,
        Self::Lifetime,
        Self::Idle,
    ];

    /// The word that stands in metric labels: the key of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Handshakes => "handshakes",
            Self::PerSource => "per_source",
            Self::AcceptRate => "accept_rate",
            Self::PerRoute => "per_route",
            Self::InFlight => "in_flight_conn",
            Self::Lifetime => "lifetime",
            Self::Idle => "idle_timeout",
        }
    }
}

/// What is used of a limit now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Which one.
    pub limit: Limit,
    /// As much is used. Of what each source or each route may have: by the one that is nearest to its limit.
    pub current: usize,
    /// As much there may be; `None` is no limit.
    pub max: Option<usize>,
}

/// For each limit, how often it refused or ended a connection, and how often it would have.
#[derive(Debug, Default)]
pub struct Exceeded([[AtomicU64; 2]; Limit::ALL.len()]);

impl Exceeded {
    /// Counts a connection that is over a limit.
    ///
    /// # Errors
    /// The limit, if it is enforced: the connection is refused, or ends.
    pub fn count(&self, limit: Limit, enforced: bool) -> Result<(), Limit> {
        let of_both = self.0.get(limit as usize);
        if let Some(count) = of_both.and_then(|both| both.get(usize::from(enforced))) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        match enforced {
            true => Err(limit),
            false => Ok(()),
        }
    }

    /// Every limit, whether it was enforced, and how often it was met so.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (Limit, bool, u64)> {
        let limits = Limit::ALL.iter().zip(&self.0);
        limits.flat_map(|(limit, [counted, enforced])| {
            [(true, enforced), (false, counted)]
                .map(|(is_enforced, count)| (*limit, is_enforced, count.load(Ordering::Relaxed)))
        })
    }
}
