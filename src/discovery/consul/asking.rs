//! How one of Consul's catalogs is asked, what its part is called, and what may help where there is no answer.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::answers::Entries;
use super::listing::{Addressing, Listing, listing};
use crate::api::consul::{Answer, Client, Error, Query};
use crate::config::{Consistency, Place};
use crate::snapshot::Source;
use crate::snapshot::service::provider;

/// What the watch over this catalog is called in `/readyz` and on the disk: `consul`, or `consul-LABEL`.
pub fn part(place: &Place) -> Cow<'static, str> {
    provider(Source::Consul, place.label.as_deref())
}

/// How Consul is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asking {
    /// Which of its catalogs.
    pub place: Place,
    /// Which server may answer.
    pub consistency: Consistency,
    /// Everything is read again so often in quiet times.
    pub refresh: Duration,
    /// Which of an instance's addresses is dialled.
    pub addressing: Addressing,
}

impl Asking {
    pub(super) fn parameters(&self) -> Vec<(&str, &str)> {
        let mut parameters = self.place.parameters();
        parameters.extend(match self.consistency {
            Consistency::Default => None,
            Consistency::Stale => Some(("stale", "")),
            Consistency::Consistent => Some(("consistent", "")),
        });
        parameters
    }

    /// The answer, if it is not too old for one that a server gave which is not the leader. That may be so though it was not asked
    /// for.
    pub(super) fn fresh<T>(&self, answer: Answer<T>) -> Result<Answer<T>, Error> {
        match self.consistency {
            Consistency::Stale => answer.fresh(),
            Consistency::Default | Consistency::Consistent if answer.stale => answer.fresh(),
            Consistency::Default | Consistency::Consistent => Ok(answer),
        }
    }

    /// Reads a service; its sidecars too if the tags of an instance ask for them, or anything else does.
    pub(super) async fn read(
        &self,
        client: &Client,
        name: &Arc<str>,
        asks: impl Fn(&[Arc<str>]) -> bool,
        datacenter: &Arc<str>,
    ) -> Result<Listing, Error> {
        let entries = async |kind| {
            let query = Query {
                path: &["health", kind, name],
                parameters: &self.parameters(),
                consistent: false,
            };
            self.fresh(client.read::<Entries>(&query).await?)
        };
        let service = entries("service").await?;
        let mut alone = listing(
            &self.place,
            name,
            &service.value,
            None,
            datacenter,
            self.addressing,
        );
        alone.found.filtered = service.filtered;
        let mut instances = alone.found.instances.iter();
        // Where there is none, what is known of the service decides.
        let is_asked = asks(&[]) || instances.any(|instance| asks(&instance.tags));
        // Nothing speaks for what is a sidecar itself.
        if !is_asked || !alone.stands_for.is_empty() {
            return Ok(alone);
        }
        let connect = entries("connect").await?;
        let mut both = listing(
            &self.place,
            name,
            &service.value,
            Some(&connect.value),
            datacenter,
            self.addressing,
        );
        both.found.filtered = service.filtered || connect.filtered;
        Ok(both)
    }
}

/// An error as it is told to people, with what may help.
pub(super) fn told(error: &Error, place: &Place) -> String {
    if let Error::TooLarge { .. } = error {
        return format!(
            "{error} (an ACL token with service:read on nothing but what is routed makes consul's answers smaller)"
        );
    }
    let Error::Status { code, text, .. } = error else {
        return error.to_string();
    };
    let help = if error.is_denied() {
        "its ACL token needs service:read and node:read on what is routed"
    } else if *code == 400 && text.contains("Enterprise") {
        "only Consul Enterprise has them: leave `namespaces` and `partition` out of [consul], and CONSUL_NAMESPACE and CONSUL_PARTITION unset"
    } else if place.datacenter.is_some() && text.contains("No path to datacenter") {
        "`consul catalog datacenters` lists those that are joined with the agent's own"
    } else {
        return error.to_string();
    };
    format!("{error} ({help})")
}
