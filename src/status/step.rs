//! One step of `portcullis doctor`: what was looked at, how it is, and what to do.

use std::time::Duration;

use serde::{Serialize, Serializer};

/// What one look has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What was looked at, such as `TLS`: words that scripts may compare.
    pub step: &'static str,
    /// How it is.
    pub state: Finding,
    /// How long the look took, where it waited for something; in JSON milliseconds, with microseconds as their fraction.
    #[serde(rename = "took_ms", serialize_with = "milliseconds")]
    pub took: Option<Duration>,
    /// What was found, for a person. Who shows it escapes it.
    pub detail: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finding {
    /// Good.
    Ok,
    /// It works, and somebody should look at it.
    Warn,
    /// It does not work.
    Fail,
    /// It cannot be told from here.
    Unknown,
}

impl Finding {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
        }
    }
}

impl Step {
    /// All is well.
    pub fn ok(step: &'static str, detail: impl Into<String>) -> Self {
        Self::new(Finding::Ok, step, detail.into(), None)
    }

    /// It works, and this is to be done about it.
    pub fn warn(step: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Finding::Warn, step, detail.into(), Some(hint.into()))
    }

    /// It does not work, and this is to be done about it.
    pub fn fail(step: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Finding::Fail, step, detail.into(), Some(hint.into()))
    }

    /// It cannot be told, and why.
    pub fn unknown(step: &'static str, detail: impl Into<String>) -> Self {
        Self::new(Finding::Unknown, step, detail.into(), None)
    }

    /// The same, and how long it took.
    pub fn took(self, took: Duration) -> Self {
        Self {
            took: Some(took),
            ..self
        }
    }

    fn new(state: Finding, step: &'static str, detail: String, hint: Option<String>) -> Self {
        Self {
            step,
            state,
            took: None,
            detail,
            hint: hint.filter(|hint| !hint.is_empty()),
        }
    }
}

fn milliseconds<S: Serializer>(took: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    let milliseconds = took.map(|took| took.as_micros() as f64 / 1000.0);
    milliseconds.serialize(to)
}
