//! What each part of the gateway reports of itself, in one vocabulary, for `/readyz`.

pub mod step;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// The board on which every part writes its state.
#[derive(Clone, Debug, Default)]
pub struct Status {
    parts: Arc<Mutex<BTreeMap<Arc<str>, State>>>,
}

/// The state of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It works.
    Ready,
    /// It works, and this is no failure: an operator may want to know it.
    Noted(String),
    /// It works, with something an operator should know.
    Degraded(String),
    /// The gateway must not get traffic, and why.
    NotReady(String),
}

impl State {
    /// A word for it, of a closed set: for metrics, and for programs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Noted(_) => "noted",
            Self::Degraded(_) => "degraded",
            Self::NotReady(_) => "not_ready",
        }
    }

    /// What there is to say of it, for people.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Ready => None,
            Self::Noted(text) | Self::Degraded(text) | Self::NotReady(text) => Some(text),
        }
    }
}

impl Status {
    /// Sets the state of a part; the part exists from then on.
    pub fn set(&self, part: &str, state: State) {
        self.lock().insert(part.into(), state);
    }

    /// The part does not exist any more.
    pub fn remove(&self, part: &str) {
        self.lock().remove(part);
    }

    /// Every part with its state.
    pub fn parts(&self) -> BTreeMap<Arc<str>, State> {
        self.lock().clone()
    }

    /// Whether every part allows traffic, and at least one part exists.
    pub fn is_ready(&self) -> bool {
        let parts = self.lock();
        !parts.is_empty()
            && !parts
                .values()
                .any(|state| matches!(state, State::NotReady(_)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Arc<str>, State>> {
        self.parts
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
