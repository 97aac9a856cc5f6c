//! What the watch over Nomad says of itself, told and logged when it changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::known::Known;
use crate::status::State;

/// What was last said, and what there is to say.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// What keeps a query from being answered, by its namespace.
    queries: BTreeMap<Arc<str>, String>,
    /// What keeps Nomad from answering whatever it is asked.
    pulse: Option<String>,
    /// Since when something is not answered, or what changed in that time has not been read.
    since: Option<Timestamp>,
    /// Whether everything has been known once.
    is_complete: bool,
    told: Option<State>,
    logged: Logged,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Logged {
    #[default]
    Nothing,
    Ready,
    Failing,
    Troubled,
}

impl Report {
    /// Whether everything was known once already, by a watch before this one.
    pub(super) fn after(is_complete: bool) -> Self {
        Self {
            since: is_complete.then(Timestamp::now),
            is_complete,
            ..Self::default()
        }
    }

    /// Whether everything has been known once.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// A query was answered, or why it was not. Returns whether it is answered again.
    pub(super) fn heard(&mut self, query: &Arc<str>, error: Option<String>) -> bool {
        let was_failing = self.queries.remove(query).is_some();
        match error {
            None => was_failing,
            Some(error) => {
                self.queries.insert(Arc::clone(query), error);
                self.since.get_or_insert_with(Timestamp::now);
                false
            }
        }
    }

    /// Whether anybody answers at all. Returns whether somebody does again.
    pub(super) fn felt(&mut self, error: Option<String>) -> bool {
        let before = std::mem::replace(&mut self.pulse, error);
        if self.pulse.is_some() {
            self.since.get_or_insert_with(Timestamp::now);
        }
        before.is_some() && self.pulse.is_none()
    }

    /// Whether none of so many queries is answered.
    pub(super) fn is_silent(&self, queries: usize) -> bool {
        self.queries.len() >= queries
    }

    /// What is to be said now, if it is something new.
    pub(super) fn news(&mut self, known: &Known) -> Option<State> {
        let state = self.state(known)?;
        if self.told.as_ref() == Some(&state) {
            return None;
        }
        self.told = Some(state.clone());
        Some(state)
    }

    fn state(&mut self, known: &Known) -> Option<State> {
        if let Some(error) = self.queries.values().chain(&self.pulse).next() {
            if self.logged != Logged::Failing {
                tracing::warn!(%error, "nomad does not answer");
                self.logged = Logged::Failing;
            }
            let since = self.since.unwrap_or_default();
            return Some(match self.is_complete {
                true => State::Degraded(format!(
                    "what was known of nomad's services at {since:.0} is served: {error}"
                )),
                false => State::NotReady(format!("waiting for nomad: {error}")),
            });
        }
        let trouble = known.trouble();
        if known.is_whole() {
            self.since = None;
            self.is_complete = true;
        } else if self.is_complete && self.since.is_some() {
            // It answers again, and what changed in the meantime is being read.
            return None;
        }
        if let Some(trouble) = &trouble
            && self.logged != Logged::Troubled
        {
            tracing::warn!("{trouble}");
            self.logged = Logged::Troubled;
        }
        Some(match trouble {
            Some(trouble) if self.is_complete => State::Degraded(trouble),
            Some(trouble) => State::NotReady(trouble),
            None if !self.is_complete => {
                State::NotReady("waiting for nomad's first answers".to_owned())
            }
            None => {
                if self.logged != Logged::Ready {
                    tracing::info!("nomad answers, and nothing is in doubt");
                    self.logged = Logged::Ready;
                }
                State::Ready
            }
        })
    }
}
