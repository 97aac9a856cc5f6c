//! What the publisher says of the names that upstreams and services have.

use super::*;

impl Publisher {
    /// Tells which do not resolve, and what is served in place of an answer.
    pub(super) fn report(&mut self) {
        let list = |names: &mut dyn Iterator<Item = &HostName>| {
            let names: Vec<&str> = names.map(HostName::as_str).collect();
            names.join(", ")
        };
        let addresses = &self.inputs.addresses;
        let is_known = |name: &&HostName| addresses.contains_key(*name);
        let mut waiting = self
            .waiting
            .iter()
            .filter(|name| !is_known(name))
            .peekable();
        let mut failing = self
            .failing
            .iter()
            .filter(|name| !is_known(name))
            .peekable();
        let restored = &self.inputs.restored;
        let oldest = restored.values().min().copied();
        let is_refused = failing.peek().is_some() && self.kept.refused().is_some();
        self.metrics.state_refused(NAMES, is_refused);
        let state = if waiting.peek().is_some() {
            let what = format!("not resolved yet: {}", list(&mut waiting));
            match self.has_been_ready {
                true => State::Degraded(what),
                false => State::NotReady(what),
            }
        } else if failing.peek().is_some() {
            let why = self.kept.refused().map(|why| format!("; {why}"));
            let why = why.unwrap_or_default();
            State::Degraded(format!("not resolving: {}{why}", list(&mut failing)))
        } else if let Some(at) = oldest {
            State::Degraded(format!(
                "not resolving, and served from the disk as it was at {}: {}",
                written(at),
                list(&mut restored.keys())
            ))
        } else if self.named.left_out() > 0 {
            State::Degraded(format!(
                "{} names of services are not resolved: there are more than {}",
                self.named.left_out(),
                named::MOST_NAMES
            ))
        } else {
            State::Ready
        };
        self.has_been_ready |= !matches!(state, State::NotReady(_));
        self.status.set(NAMES, state);
        if std::mem::replace(&mut self.told_restored, oldest) != oldest {
            self.metrics.restored(NAMES, oldest);
        }
    }
}
