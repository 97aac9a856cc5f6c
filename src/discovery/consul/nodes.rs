//! What is registered on each node, compared with what it was: for a change of the catalog that does not say what has changed.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::answers::{NodeServices, Nodes};
use super::asking::Asking;
use super::checks::Touched;
use crate::api::consul::{Client, Error, Query};

/// So many nodes are asked at once. What has changed by name is read beside them, and must not wait for them.
const AT_ONCE: usize = 8;

/// A look is followed by as long a pause as it took, within these bounds, though changes come without pause.
const BETWEEN_LOOKS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// So long a look may take: all services are read then, which waits for no node.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where nodes are too many, they are counted again after so long.
const COUNTED_AGAIN: Duration = Duration::from_secs(60);

/// What was seen on the nodes, and when they are looked at again.
#[derive(Debug, Default)]
pub(super) struct Looks {
    seen: Option<Registered>,
    /// When the look under way began.
    began: Option<Instant>,
    /// When the next one is due.
    next: Option<Instant>,
    /// Not before.
    rested: Option<Instant>,
    /// Until then the nodes are taken to be too many.
    too_many: Option<Instant>,
}

/// What the catalog has registered, by the index at which that was last changed.
#[derive(Debug, Default)]
pub(super) struct Registered {
    nodes: HashMap<Box<str>, u64>,
    /// By node and id.
    instances: HashMap<(Box<str>, Box<str>), Instance>,
}

#[derive(Debug, PartialEq)]
struct Instance {
    service: Box<str>,
    /// The service that it speaks for, if it is a sidecar.
    beside: Box<str>,
    is_gateway: bool,
    modified: u64,
}

impl Looks {
    /// The nodes are to be looked at, not before this moment.
    pub(super) fn look(&mut self, at: Instant) {
        let at = self.rested.map_or(at, |rested| at.max(rested));
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// When a look is due, unless one is under way.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.next.filter(|_| self.began.is_none())
    }

    /// Whether they are worth a look.
    pub(super) fn are_few(&self, now: Instant) -> bool {
        self.too_many.is_none_or(|until| until <= now)
    }

    /// It is under way: what is due from now on is due after it.
    pub(super) fn begin(&mut self, now: Instant) {
        self.began = Some(now);
        self.next = None;
    }

    /// What was seen may be of another history.
    pub(super) fn forget(&mut self) {
        self.seen = None;
    }

    /// Takes in what is seen now, if it could be. Returns what has changed since the look before, if there is something to
    /// compare.
    pub(super) fn end(&mut self, look: Look, now: Instant) -> Option<Touched> {
        let (least, most) = BETWEEN_LOOKS;
        let took = self.began.take().map_or(least, |began| now - began);
        let rested = now + took.clamp(least, most);
        self.rested = Some(rested);
        self.next = self.next.map(|next| next.max(rested));
        self.too_many = matches!(look, Look::TooMany).then(|| now + COUNTED_AGAIN);
        let Look::Seen(seen) = look else {
            return None;
        };
        let before = self.seen.replace(seen)?;
        Some(self.seen.as_ref()?.changed_since(&before))
    }
}

impl Registered {
    /// What one node has, by id, which is the name too and may end in a kind, and index.
    #[cfg(test)]
    pub(super) fn of(node: &str, services: &[(&str, u64)]) -> Self {
        let mut answer = NodeServices::default();
        for (name, modified) in services {
            answer.services.push(super::answers::Registration {
                kind: name.split(' ').nth(1).unwrap_or_default().to_owned(),
                id: (*name).to_owned(),
                service: (*name).to_owned(),
                modify_index: *modified,
                ..Default::default()
            });
        }
        let mut all = Self::default();
        all.take(node.to_owned(), answer);
        all
    }

    /// What differs: services by name, those that a sidecar speaks for too, and nodes.
    fn changed_since(&self, before: &Self) -> Touched {
        let mut touched = Touched::default();
        for (ours, theirs) in [(self, before), (before, self)] {
            for (node, modified) in &ours.nodes {
                if theirs.nodes.get(node) != Some(modified) {
                    touched.nodes.insert((&**node).into());
                }
            }
            for (key, instance) in &ours.instances {
                if theirs.instances.get(key) != Some(instance) {
                    let names = [&instance.service, &instance.beside].into_iter();
                    let names = names.filter(|name| !name.is_empty());
                    touched.any |= instance.is_gateway;
                    touched.services.extend(names.map(|name| (&**name).into()));
                }
            }
        }
        touched
    }

    fn take(&mut self, node: String, answer: NodeServices) {
        let node = node.into_boxed_str();
        for service in answer.services {
            let instance = Instance {
                service: service.service.into(),
                beside: service.proxy.destination_service_name.into(),
                is_gateway: service.kind == "terminating-gateway",
                modified: service.modify_index,
            };
            let key = (node.clone(), service.id.into());
            self.instances.insert(key, instance);
        }
        self.nodes.insert(node, answer.node.modify_index);
    }
}

/// What became of a look.
#[derive(Debug)]
pub(super) enum Look {
    Seen(Registered),
    /// They are more than the services: to read those is less.
    TooMany,
    /// One does not answer, or all do not in time.
    Failed,
}

/// Asks for the nodes (`catalog/nodes`), and each for what is registered on it (`catalog/node-services/NODE`, since Consul 1.7),
/// if they are fewer than so many.
pub(super) async fn look(client: Client, asking: Asking, many: usize) -> Look {
    match timeout(PATIENCE, seen(&client, &asking, many)).await {
        Ok(Ok(Some(seen))) => Look::Seen(seen),
        Ok(Ok(None)) => Look::TooMany,
        Ok(Err(error)) => {
            tracing::debug!(%error, "consul's nodes cannot be looked at");
            Look::Failed
        }
        Err(_) => Look::Failed,
    }
}

async fn seen(client: &Client, asking: &Asking, many: usize) -> Result<Option<Registered>, Error> {
    let nodes: Nodes = ask(client, asking, &["catalog", "nodes"]).await?;
    let names: HashSet<String> = nodes.0.into_iter().map(|node| node.node).collect();
    if names.len() >= many {
        return Ok(None);
    }
    let (mut names, mut seen) = (names.into_iter(), Registered::default());
    let mut asked = JoinSet::new();
    loop {
        while asked.len() < AT_ONCE
            && let Some(name) = names.next()
        {
            let (client, asking) = (client.clone(), asking.clone());
            asked.spawn(async move {
                let path = ["catalog", "node-services", &name];
                let answer = ask::<NodeServices>(&client, &asking, &path).await;
                answer.map(|answer| (name, answer))
            });
        }
        match asked.join_next().await {
            None => return Ok(Some(seen)),
            Some(Ok(answer)) => {
                let (node, answer) = answer?;
                seen.take(node, answer);
            }
            Some(Err(error)) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends, and this with it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

async fn ask<T>(client: &Client, asking: &Asking, path: &[&str]) -> Result<T, Error>
where
    T: DeserializeOwned + Send + 'static,
{
    let query = Query {
        path,
        parameters: &asking.parameters(),
        consistent: false,
    };
    Ok(asking.fresh(client.read(&query).await?)?.value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    /// Each node with its index, and what is registered on it: id, service, what it speaks for, index.
    type Rows<'a> = &'a [(&'a str, u64, &'a [(&'a str, &'a str, &'a str, u64)])];

    const BEFORE: Rows<'_> = &[
        (
            "n1",
            1,
            &[("web-1", "web", "", 2), ("proxy", "web-proxy", "web", 3)],
        ),
        ("n2", 1, &[("web-1", "web", "", 4), ("db-1", "db", "", 5)]),
    ];

    fn registered(rows: Rows<'_>) -> Registered {
        let mut registered = Registered::default();
        for (node, modified, services) in rows {
            let services = services.iter().map(|(id, service, beside, modified)| {
                json!({"ID": id, "Service": service, "ModifyIndex": modified, "Tags": null,
                    "Proxy": {"DestinationServiceName": beside}})
            });
            let answer = json!({"Node": {"Node": node, "ModifyIndex": modified},
                "Services": services.collect::<Vec<Value>>()});
            let answer = serde_json::from_str(&answer.to_string()).unwrap();
            registered.take((*node).to_owned(), answer);
        }
        registered
    }

    #[track_caller]
    fn touches(after: Rows<'_>, services: &[&str], nodes: &[&str]) {
        let all = |names: &[&str]| -> BTreeSet<Arc<str>> {
            names.iter().map(|name| Arc::from(*name)).collect()
        };
        let touched = registered(after).changed_since(&registered(BEFORE));
        assert_eq!(touched.services, all(services));
        assert_eq!(touched.nodes, all(nodes));
    }

    #[test]
    fn what_moves_comes_or_goes_is_told_by_the_names_that_it_concerns() {
        let [(n1, _, first), (n2, _, second)] = BEFORE else {
            unreachable!()
        };
        touches(BEFORE, &[], &[]);
        touches(&[(n1, 9, first), (n2, 1, second)], &[], &["n1"]);
        let moved: &[_] = &[("web-1", "web", "", 4), ("db-1", "db", "", 9)];
        touches(&[(n1, 1, first), (n2, 1, moved)], &["db"], &[]);
        let sidecar: &[_] = &[("web-1", "web", "", 2), ("proxy", "web-proxy", "web", 9)];
        touches(
            &[(n1, 1, sidecar), (n2, 1, second)],
            &["web", "web-proxy"],
            &[],
        );
        // An id that belongs to another service now, at the same index as after a loss of data.
        let other: &[_] = &[("web-1", "web", "", 4), ("db-1", "api", "", 5)];
        touches(&[(n1, 1, first), (n2, 1, other)], &["api", "db"], &[]);
        touches(&[(n1, 1, first)], &["db", "web"], &["n2"]);
        let new: Rows<'_> = &[
            (n1, 1, first),
            (n2, 1, second),
            ("n3", 1, &[("x", "x", "", 9)]),
        ];
        touches(new, &["x"], &["n3"]);
    }

    #[test]
    fn what_cannot_be_read_hides_nothing_else() {
        let text =
            r#"{"Node": null, "Services": [1, null, {"ID": 5}, {"ID": "a", "Service": "a"}]}"#;
        let mut registered = Registered::default();
        registered.take("n1".to_owned(), serde_json::from_str(text).unwrap());
        let touched = registered.changed_since(&Registered::default());
        assert!(touched.services.contains("a"), "{touched:?}");
        for nothing in [r#"{"Node": null, "Services": null}"#, "{}"] {
            let answer: NodeServices = serde_json::from_str(nothing).unwrap();
            assert!(answer.services.is_empty());
        }
    }

    #[test]
    fn a_look_waits_for_the_one_before_and_rests_as_long_as_that_took() {
        let (mut looks, start) = (Looks::default(), Instant::now());
        let after = |millis| start + Duration::from_millis(millis);
        looks.look(after(250));
        looks.look(after(300));
        assert_eq!(looks.look_at(), Some(after(250)));
        looks.look(start);
        assert_eq!(looks.look_at(), Some(start));
        looks.begin(start);
        assert_eq!(looks.look_at(), None);
        // What changes while it is under way may have been missed by it.
        looks.look(after(10));
        assert_eq!(looks.look_at(), None);
        assert!(
            looks
                .end(Look::Seen(registered(BEFORE)), after(400))
                .is_none()
        );
        assert_eq!(looks.look_at(), Some(after(800)));
        looks.begin(after(800));
        // One that fails takes nothing away from the next.
        assert!(looks.end(Look::Failed, after(801)).is_none());
        looks.look(after(802));
        assert_eq!(looks.look_at(), Some(after(901)));
        looks.begin(after(901));
        assert!(looks.end(Look::Seen(registered(&[])), after(902)).is_some());
        looks.forget();
        looks.begin(after(2000));
        let first = looks.end(Look::Seen(registered(BEFORE)), after(20_000));
        assert!(first.is_none(), "it may be of another history");
        looks.look(after(20_000));
        assert_eq!(looks.look_at(), Some(after(25_000)));
    }
}
