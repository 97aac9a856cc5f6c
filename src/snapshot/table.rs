//! The index of routes: one look-up by name, client and ALPN, whose cost does not grow with the number of hosts.

use std::sync::Arc;

use super::Route;
use crate::rule::Facts;

/// The routes of a gateway. Cloning shares everything; a change to the clone copies only what it touches.
#[derive(Clone, Debug, Default)]
pub struct Table {}

impl Table {
    /// The route for a client, if any matches.
    pub fn find(&self, facts: &Facts<'_>) -> Option<&Arc<Route>> {
        let _ = facts;
        todo!()
    }

    /// Every route, by source and name.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        std::iter::empty()
    }

    /// The route that takes every client this one could have had, if there is one.
    pub fn shadowed_by(&self, route: &Route) -> Option<&Arc<Route>> {
        let _ = route;
        todo!()
    }
}
