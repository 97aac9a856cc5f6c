//! What the watch over Consul says of itself, told and logged when it changes.

use std::borrow::Cow;
use std::time::SystemTime;

use jiff::Timestamp;

use super::super::logged::{Fares, Logged};
use super::known::Known;
use crate::config::Place;
use crate::status::State;

/// What is asked again and again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Poll {
    Catalog,
    Checks,
    /// Whether anybody answers at all.
    Pulse,
}

/// What was last said, and what there is to say.
#[derive(Debug, Default)]
pub(super) struct Report {
    part: Cow<'static, str>,
    /// Whether the gateway serves without it from the start: it is not the first catalog.
    is_further: bool,
    /// What keeps each of them from being answered.
    catalog: Option<String>,
    checks: Option<String>,
    pulse: Option<String>,
    /// Why there is no ACL token by login, or not another one though it is time.
    login: Option<String>,
    /// Since when one of them has not been, or what changed in that time has not been read.
    since: Option<Timestamp>,
    /// Whether everything has been known once.
    is_complete: bool,
    /// When what is served from the disk was last confirmed.
    restored: Option<Timestamp>,
    /// Why nothing is served from the disk.
    refused: Option<String>,
    told: Option<State>,
    logged: Logged,
    /// What was last logged that is no trouble.
    noted: Option<&'static str>,
}

impl Report {
    /// Whether everything was known once already, by a watch before this one; and when what that had from the disk was
    /// confirmed.
    pub(super) fn after(place: &Place, is_complete: bool, restored: Option<SystemTime>) -> Self {
        let restored = restored.map(|at| Timestamp::try_from(at).unwrap_or_default());
        Self {
            part: super::part(place),
            is_further: place.is_further,
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

    /// A poll was answered, or why it was not. Returns whether it is answered again.
    pub(super) fn heard(&mut self, poll: Poll, error: Option<String>) -> bool {
        let place = match poll {
            Poll::Catalog => &mut self.catalog,
            Poll::Checks => &mut self.checks,
            Poll::Pulse => &mut self.pulse,
        };
        let before = std::mem::replace(place, error);
        let fails = place.is_some();
        if fails {
            self.since.get_or_insert_with(Timestamp::now);
        }
        before.is_some() && !fails
    }

    /// How the login fares.
    pub(super) fn login(&mut self, trouble: Option<String>) {
        self.login = trouble;
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

    /// Whether something keeps Consul from being heard.
    pub(super) fn is_troubled(&self) -> bool {
        [&self.catalog, &self.checks, &self.pulse]
            .iter()
            .any(|error| error.is_some())
    }

    /// Whether nothing at all is heard of Consul.
    pub(super) fn is_silent(&self) -> bool {
        self.catalog.is_some() && self.checks.is_some()
    }

    /// What is to be said now, if it is something new.
    pub(super) fn news(&mut self, known: &Known) -> Option<State> {
        let state = match refused(self.state(known)?, known) {
            // The routes of the other catalogs are needed whether or not this one is heard.
            State::NotReady(why) if self.is_further && self.is_troubled() => State::Degraded(why),
            state => state,
        };
        if self.told.as_ref() == Some(&state) {
            return None;
        }
        self.told = Some(state.clone());
        Some(state)
    }

    fn state(&mut self, known: &Known) -> Option<State> {
        // What was kept was whole when it was confirmed.
        self.is_complete |= known.is_restored();
        let polls = [&self.catalog, &self.checks, &self.pulse];
        if let Some(error) = polls.into_iter().flatten().next() {
            if self.logged.is_news(Fares::Failing, error) {
                tracing::warn!(part = &*self.part, %error, "consul does not answer");
            }
            let since = self.since.unwrap_or_default();
            let is_served = known.refusal().is_none_or(|(_, is_all)| !is_all);
            return Some(match self.is_complete && is_served {
                true => State::Degraded(format!(
                    "what was known of consul's services at {since:.0} is served{}: {error}",
                    if known.is_restored() {
                        ", from the disk"
                    } else {
                        ""
                    }
                )),
                false => {
                    let refused = self.refused.iter().map(|why| format!("; {why}"));
                    let refused: String = refused.collect();
                    State::NotReady(format!("waiting for consul: {error}{refused}"))
                }
            });
        }
        let login = self.login.as_ref();
        let login = login.map(|why| format!("no other ACL token is had by login: {why}"));
        let trouble = known.trouble().or(login);
        if known.is_whole() {
            // What is doubted from the start is read once more when the doubt ends, and only then is all known.
            if !known.is_inheriting() {
                self.since = None;
                self.restored = None;
            }
            self.is_complete |= !known.is_hidden();
        } else if known.refusal().is_some_and(|(_, is_all)| is_all) {
            return Some(State::NotReady("waiting for consul's answers".to_owned()));
        } else if let Some(at) = self.restored {
            return Some(State::Degraded(format!(
                "what was known of consul's services at {at:.0} is served, from the disk, until consul has answered"
            )));
        } else if self.is_complete && self.since.is_some() {
            // It answers again, and what changed in the meantime is being read.
            return None;
        }
        if let Some(trouble) = &trouble
            && self.logged.is_news(Fares::Troubled, trouble)
        {
            tracing::warn!(part = &*self.part, "{trouble}");
        }
        Some(match trouble {
            Some(trouble) if self.is_complete => State::Degraded(trouble),
            Some(trouble) => State::NotReady(trouble),
            None if !self.is_complete => {
                State::NotReady("waiting for consul's first answers".to_owned())
            }
            None => {
                if self.logged.is_news(Fares::Well, "") {
                    tracing::info!(
                        part = &*self.part,
                        "consul answers, and nothing is in doubt"
                    );
                }
                let note = known.remark();
                if std::mem::replace(&mut self.noted, note) != note
                    && let Some(note) = note
                {
                    tracing::info!(part = &*self.part, "{note}");
                }
                note.map_or(State::Ready, |note| State::Noted(note.to_owned()))
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
