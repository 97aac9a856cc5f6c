//! Who is let in: connections in all, unfinished handshakes, and those of one source and one route.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

pub mod files;
mod sources;

use crate::config::{Cap, Limits};
use crate::metrics::{Exceeded, Limit, RouteMetrics, Usage};
use sources::{Place, Sources};

/// Counts the connections that there are. What it allows is said at each step, so that a limit that changes holds for those
/// who come, and ends nobody who is in.
#[derive(Debug)]
pub struct Limiter {
    /// How many connections there may be where the configuration says no number.
    room: usize,
    connections: AtomicUsize,
    handshakes: AtomicUsize,
    sources: Sources,
    exceeded: Arc<Exceeded>,
}

impl Limiter {
    /// Nobody is in yet. Connections that are over a limit are counted here.
    ///
    /// The limit of open files is asked for now: it is to be raised before.
    pub fn new(exceeded: Arc<Exceeded>) -> Self {
        Self {
            room: files::room(files::limit()),
            connections: AtomicUsize::new(0),
            handshakes: AtomicUsize::new(0),
            sources: Sources::default(),
            exceeded,
        }
    }

    /// What is used now of the limits that hold for all, and of those of a source by the one that uses the most.
    ///
    /// It goes through every source: milliseconds where there are as many as can be.
    pub fn usage(&self, limits: &Limits) -> [Usage; 4] {
        let rate = limits.accept_rate;
        let (of_source, of_burst) = self.sources.busiest(Instant::now(), rate);
        let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        let burst = rate.per_second.map(|_| rate.burst);
        [
            (
                Limit::Connections,
                count(&self.connections),
                Some(self.connections(limits)),
            ),
            (
                Limit::Handshakes,
                count(&self.handshakes),
                self.handshakes(limits),
            ),
            (Limit::PerSource, of_source, limits.per_source.max),
            (
                Limit::AcceptRate,
                of_burst,
                burst.and_then(|burst| usize::try_from(burst).ok()),
            ),
        ]
        .map(|(limit, current, max)| Usage {
            limit,
            current,
            max,
        })
    }

    /// Keeps room for one more connection and its handshake; `None` where there is none. Whoever can wait is not refused
    /// then, and nothing is counted.
    pub fn reserve(self: &Arc<Self>, limits: &Limits) -> Option<Room> {
        enter(&self.connections, self.connections_cap(limits))?;
        if enter(&self.handshakes, self.handshakes_cap(limits)).is_none() {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Room(Arc::clone(self)))
    }

    fn connections_cap(&self, limits: &Limits) -> Cap {
        Cap {
            max: Some(self.connections(limits)),
            ..limits.connections
        }
    }

    fn handshakes_cap(&self, limits: &Limits) -> Cap {
        Cap {
            max: self.handshakes(limits),
            ..limits.handshakes
        }
    }

    /// How many connections there may be.
    fn connections(&self, limits: &Limits) -> usize {
        limits.connections.max.unwrap_or(self.room)
    }

    /// How many unfinished handshakes there may be. Strangers who say nothing must leave room for tunnels where that is
    /// small.
    fn handshakes(&self, limits: &Limits) -> Option<usize> {
        let half = self.connections(limits).div_ceil(2);
        limits.handshakes.max.map(|max| max.min(half))
    }
}

/// Room that is kept for a connection, until this is dropped: right before the connection takes it up.
#[derive(Debug)]
pub struct Room(Arc<Limiter>);

impl Drop for Room {
    fn drop(&mut self) {
        self.0.handshakes.fetch_sub(1, Ordering::Relaxed);
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one connection takes up. Dropped, it gives all of it back.
#[derive(Debug)]
pub struct Admission<'a> {
    limiter: &'a Limiter,
    source: Option<Place>,
    route: Option<Arc<RouteMetrics>>,
    is_connection: bool,
    is_handshake: bool,
    is_routed: bool,
    is_in_flight: bool,
}

impl<'a> Admission<'a> {
    /// Nothing is taken up yet.
    pub fn new(limiter: &'a Limiter) -> Self {
        Self {
            limiter,
            source: None,
            route: None,
            is_connection: false,
            is_handshake: false,
            is_routed: false,
            is_in_flight: false,
        }
    }

    /// The connection was accepted: it is one more, and its handshake is not finished.
    ///
    /// # Errors
    /// The limit that refuses it.
    pub fn accepted(&mut self, limits: &Limits) -> Result<(), Limit> {
        let limiter = self.limiter;
        let connections = limiter.connections_cap(limits);
        limiter.take(&limiter.connections, connections, Limit::Connections)?;
        self.is_connection = true;
        let handshakes = limiter.handshakes_cap(limits);
        limiter.take(&limiter.handshakes, handshakes, Limit::Handshakes)?;
        self.is_handshake = true;
        Ok(())
    }

    /// The connection comes from there: what vouches for the address was read, if there is such a thing.
    ///
    /// # Errors
    /// The limit that refuses it.
    pub fn source(&mut self, client: IpAddr, limits: &Limits) -> Result<(), Limit> {
        let Limiter {
            sources, exceeded, ..
        } = self.limiter;
        if self.source.is_none() {
            self.source = Some(sources.enter(client, Instant::now(), limits, exceeded)?);
        }
        Ok(())
    }

    /// The connection has this route, which may have so many.
    ///
    /// # Errors
    /// The limit that refuses it.
    pub fn routed(&mut self, route: &Arc<RouteMetrics>, cap: Cap) -> Result<(), Limit> {
        if !self.is_routed {
            self.limiter.take(&route.admitted, cap, Limit::PerRoute)?;
            self.route = Some(Arc::clone(route));
            self.is_routed = true;
        }
        Ok(())
    }

    /// The connection's source has so many at most of this route, and this is one of them.
    ///
    /// # Errors
    /// It has as many.
    pub fn in_flight(&mut self, route: &Arc<RouteMetrics>, most: usize) -> Result<(), Limit> {
        let source = self.source.as_ref().map(Place::source);
        if source.is_none_or(|source| !route.in_flight.enter(source, most)) {
            return self.limiter.exceeded.count(Limit::InFlight, true);
        }
        self.route = Some(Arc::clone(route));
        self.is_in_flight = true;
        Ok(())
    }

    /// The client's handshake is finished.
    pub fn established(&mut self) {
        if std::mem::take(&mut self.is_handshake) {
            self.limiter.handshakes.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        self.established();
        if self.is_connection {
            self.limiter.connections.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(route) = &self.route {
            if self.is_routed {
                route.admitted.fetch_sub(1, Ordering::Relaxed);
            }
            if let Some(place) = self.source.as_ref().filter(|_| self.is_in_flight) {
                route.in_flight.leave(place.source());
            }
        }
        if let Some(place) = self.source.take() {
            self.limiter.sources.leave(place, Instant::now());
        }
    }
}

impl Limiter {
    /// One more of these, unless there are as many as there may be.
    fn take(&self, count: &AtomicUsize, cap: Cap, limit: Limit) -> Result<(), Limit> {
        match enter(count, cap) {
            Some(true) => Ok(()),
            _ => self.exceeded.count(limit, cap.enforce),
        }
    }
}

/// One more of these, and whether there was room; `None` if there was none and that is enforced. At no moment are there more,
/// not even for one that is refused: nobody is turned away because of somebody who is on the way out.
fn enter(count: &AtomicUsize, cap: Cap) -> Option<bool> {
    let has_room = |count: usize| cap.max.is_none_or(|max| count < max);
    let before = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
        (has_room(count) || !cap.enforce).then_some(count + 1)
    });
    before.ok().map(has_room)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
