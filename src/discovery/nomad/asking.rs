//! How Nomad is asked for its services, and what may help where there is no answer.

use std::time::Duration;

use crate::api::http::{Answer, Error};
use crate::config::{Namespaces, Nomad};

/// How Nomad is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asking {
    /// The region; `None` is the agent's own.
    pub region: Option<String>,
    /// The namespaces whose services are looked at.
    pub namespaces: Namespaces,
    /// Whether any server may answer.
    pub stale: bool,
    /// Everything is read again so often in quiet times.
    pub refresh: Duration,
}

impl From<&Nomad> for Asking {
    fn from(nomad: &Nomad) -> Self {
        Self {
            region: nomad.region.clone(),
            namespaces: nomad.namespaces.clone(),
            stale: nomad.stale,
            refresh: nomad.refresh_interval,
        }
    }
}

impl Asking {
    /// What is said with a question about a namespace.
    pub(super) fn parameters<'a>(&'a self, namespace: &'a str) -> Vec<(&'a str, &'a str)> {
        let stale = self.stale.then_some(("stale", ""));
        self.of_the_leader(namespace)
            .into_iter()
            .chain(stale)
            .collect()
    }

    /// The same where nobody but the leader may answer.
    pub(super) fn of_the_leader<'a>(&'a self, namespace: &'a str) -> Vec<(&'a str, &'a str)> {
        let namespace = [("namespace", namespace)].into_iter();
        namespace.chain(self.of_region()).collect()
    }

    /// What is said with a question about no namespace.
    pub(super) fn of_region(&self) -> Option<(&str, &str)> {
        self.region.as_deref().map(|region| ("region", region))
    }

    /// The answer, if it is not too old.
    pub(super) fn fresh<T>(&self, answer: Answer<T>) -> Result<Answer<T>, Error> {
        match self.stale {
            true => answer.fresh(),
            false => Ok(answer),
        }
    }
}

/// An error as it is told to people.
pub(super) fn told(error: &Error) -> String {
    if error.is_denied() {
        return format!(
            "{error} (its token needs read-job on each namespace, or to be that of a workload there)"
        );
    }
    match error {
        Error::Status { text, .. } if text.contains("No path to region") => {
            format!(
                "{error} (`nomad server members` lists the regions that are joined with the agent's own)"
            )
        }
        error => error.to_string(),
    }
}
