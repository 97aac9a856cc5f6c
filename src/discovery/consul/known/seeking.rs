//! Which services a change concerns, and where that is sought if nothing says it.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::super::super::reads::AFTER_A_CHANGE;
use super::super::checks::Touched;
use super::super::nodes::Look;
use super::Known;

impl Known {
    /// Takes in what is registered on the nodes, or that it is not known.
    pub(in super::super) fn looked(&mut self, look: Look, now: Instant) {
        match self.looks.end(look, now) {
            Some(touched) if !touched.any => self.read_touched(&touched),
            // Whatever changed is found all the same.
            Some(_) | None => self.reads.sweep_now(now),
        }
    }

    /// When the nodes are to be looked at, unless they are.
    pub(in super::super) fn look_at(&self) -> Option<Instant> {
        self.looks.look_at()
    }

    /// They are being looked at, if they are fewer than this.
    pub(in super::super) fn look(&mut self, now: Instant) -> usize {
        self.looks.begin(now);
        self.swept().len()
    }

    /// Every service that a sweep reads.
    pub(super) fn swept(&self) -> BTreeSet<Arc<str>> {
        let mut names = self.catalog.routed();
        names.extend(self.catalog.routed_sidecars().cloned());
        names.extend(self.exposure.wanted.keys().map(|name| name.as_str().into()));
        names.extend(self.services.keys().cloned());
        names
    }

    /// Something has changed and nobody says what, or may have beside what `is_explained`: the nodes are looked at, or all
    /// services read, whichever are fewer.
    pub(super) fn seek(&mut self, is_explained: bool, now: Instant) {
        match (self.looks.are_few(now), is_explained) {
            (true, true) => self.looks.look(now + AFTER_A_CHANGE),
            (true, false) => self.looks.look(now),
            (false, true) => self.reads.sweep_soon(now),
            (false, false) => self.reads.sweep_now(now),
        }
    }

    pub(super) fn read_touched(&mut self, touched: &Touched) {
        for name in &touched.services {
            // What a sidecar says counts for those it speaks for.
            if self.is_read(name) && !self.catalog.is_sidecar(name) {
                self.reads.now(name);
            }
        }
        self.read_again(|held| {
            !held.speakers.is_disjoint(&touched.services) || !held.nodes.is_disjoint(&touched.nodes)
        });
    }
}
