//! What the watch over Nomad says of itself, told and logged when it changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;

use super::super::logged::{Fares, Logged};
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
    /// When what is served from the disk was last confirmed.
    restored: Option<Timestamp>,
    /// Why nothing is served from the disk.
    refused: Option<String>,
    told: Option<State>,
    logged: Logged,
}

impl Report {
    /// Whether everything was known once already, by a watch before this one; and when what that had from the disk was
    /// confirmed.
    pub(super) fn after(is_complete: bool, restored: Option<SystemTime>) -> Self {
        let restored = restored.map(|at| Timestamp::try_from(at).unwrap_or_default());
        Self {
            since: is_complete.then(|| restored.unwrap_or_else(Timestamp::now)),
            is_complete,
            restored,
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

    /// What was kept on the disk is restored: served from now on, or refused by its names.
    pub(super) fn restored(&mut self, confirmed: SystemTime) {
        let at = Timestamp::try_from(confirmed).unwrap_or_default();
        self.restored = Some(at);
        self.since = Some(at);
        self.is_complete = true;
    }

    /// What was kept on the disk is not served.
    pub(super) fn refused(&mut self, why: String) {
        self.refused = Some(why);
    }

    /// Whether that is missed still.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.is_some() && !self.is_complete
    }

    /// Whether something keeps Nomad from being heard.
    pub(super) fn is_troubled(&self) -> bool {
        self.pulse.is_some() || !self.queries.is_empty()
    }

    /// What is to be said now, if it is something new.
    pub(super) fn news(&mut self, known: &Known) -> Option<State> {
        let state = refused(self.state(known)?, known);
        if self.told.as_ref() == Some(&state) {
            return None;
        }
        self.told = Some(state.clone());
        Some(state)
    }

    fn state(&mut self, known: &Known) -> Option<State> {
        // What was kept was whole when it was confirmed.
        self.is_complete |= known.is_restored();
        if let Some(error) = self.queries.values().chain(&self.pulse).next() {
            if self.logged.is_news(Fares::Failing, error) {
                tracing::warn!(%error, "nomad does not answer");
            }
            let since = self.since.unwrap_or_default();
            let is_served = known.refusal().is_none_or(|(_, is_all)| !is_all);
            return Some(match self.is_complete && is_served {
                true => State::Degraded(format!(
                    "what was known of nomad's services at {since:.0} is served{}: {error}",
                    if known.is_restored() {
                        ", from the disk"
                    } else {
                        ""
                    }
                )),
                false => {
                    let refused = self.refused.iter().map(|why| format!("; {why}"));
                    let refused: String = refused.collect();
                    State::NotReady(format!("waiting for nomad: {error}{refused}"))
                }
            });
        }
        let trouble = known.trouble();
        if known.is_whole() {
            // What is doubted from the start is read once more when the doubt ends, and only then is all known.
            if !known.is_inheriting() {
                self.since = None;
                self.restored = None;
            }
            self.is_complete = true;
        } else if known.refusal().is_some_and(|(_, is_all)| is_all) {
            return Some(State::NotReady("waiting for nomad's answers".to_owned()));
        } else if let Some(at) = self.restored {
            return Some(State::Degraded(format!(
                "what was known of nomad's services at {at:.0} is served, from the disk, until nomad has answered"
            )));
        } else if self.is_complete && self.since.is_some() {
            // It answers again, and what changed in the meantime is being read.
            return None;
        }
        if let Some(trouble) = &trouble
            && self.logged.is_news(Fares::Troubled, trouble)
        {
            tracing::warn!("{trouble}");
        }
        Some(match trouble {
            Some(trouble) if self.is_complete => State::Degraded(trouble),
            Some(trouble) => State::NotReady(trouble),
            None if !self.is_complete => {
                State::NotReady("waiting for nomad's first answers".to_owned())
            }
            None => {
                if self.logged.is_news(Fares::Well, "") {
                    tracing::info!("nomad answers, and nothing is in doubt");
                }
                State::Ready
            }
        })
    }
}

/// The same, where something from the disk is refused; where all is, nobody is to be sent here.
fn refused(state: State, known: &Known) -> State {
    let Some((why, is_all)) = known.refusal() else {
        return state;
    };
    match state {
        State::NotReady(text) => State::NotReady(format!("{text}; {why}")),
        State::Degraded(text) if is_all => State::NotReady(format!("{text}; {why}")),
        State::Degraded(text) => State::Degraded(format!("{text}; {why}")),
        State::Ready | State::Noted(_) if is_all => State::NotReady(why.to_owned()),
        State::Ready | State::Noted(_) => State::Degraded(why.to_owned()),
    }
}
