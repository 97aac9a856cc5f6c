//! Which services the checks of Consul are about, and which of them changed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::answers;

/// Every check as it was last told, by its node and id.
#[derive(Debug, Default)]
pub(super) struct Checks(HashMap<(Box<str>, Box<str>), Seen>);

/// What tells one state of a check from another. The index alone would do, but for a Consul that lost its data.
#[derive(Debug, PartialEq)]
struct Seen {
    service: Box<str>,
    status: Box<str>,
    modified: u64,
}

/// What changed, came or went: whose checks, or what is registered itself.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Touched {
    /// Services, by the name that they are registered under.
    pub(super) services: BTreeSet<Arc<str>>,
    /// Nodes, and so every service on them.
    pub(super) nodes: BTreeSet<Arc<str>>,
    /// What speaks for services that nobody names here, and so any of them.
    pub(super) any: bool,
}

impl Checks {
    /// Whether there is none that can be seen. Consul's own servers have one each.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes in all checks, and tells what is new about them.
    pub(super) fn take(&mut self, answer: answers::Checks) -> Touched {
        let mut touched = Touched::default();
        let mut old = std::mem::take(&mut self.0);
        for check in answer.0 {
            let key = (check.node.into(), check.check_id.into());
            let seen = Seen {
                service: check.service_name.into(),
                status: check.status.into(),
                modified: check.modify_index,
            };
            let before = old.remove(&key);
            if before.as_ref() != Some(&seen) {
                // It may have moved from one service to another.
                for seen in [Some(&seen), before.as_ref()].into_iter().flatten() {
                    touched.add(&key.0, &seen.service);
                }
            }
            self.0.insert(key, seen);
        }
        for ((node, _), seen) in &old {
            touched.add(node, &seen.service);
        }
        touched
    }
}

impl Touched {
    /// A check of a node names no service.
    fn add(&mut self, node: &str, service: &str) {
        if service.is_empty() {
            self.nodes.insert(node.into());
        } else {
            self.services.insert(service.into());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    type Row<'a> = (&'a str, &'a str, &'a str, &'a str, u64);

    fn answer(rows: &[Row<'_>]) -> answers::Checks {
        let checks = rows.iter().map(|(node, id, service, status, modified)| {
            serde_json::json!({"Node": node, "CheckID": id, "ServiceName": service, "Status": status,
                "ModifyIndex": modified, "Output": "x", "ServiceTags": null})
        });
        let text = serde_json::Value::from(checks.collect::<Vec<_>>()).to_string();
        serde_json::from_str(&text).unwrap()
    }

    const BEFORE: &[Row<'_>] = &[
        ("n1", "serfHealth", "", "passing", 1),
        ("n1", "web", "web", "passing", 2),
        ("n1", "api", "api", "passing", 3),
        ("n2", "web", "web", "passing", 4),
    ];

    /// What is touched when these rows take the place of the rows of the same node and id.
    fn touched(changed: &[Row<'_>], gone: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let mut checks = Checks::default();
        checks.take(answer(BEFORE));
        assert_eq!(checks.take(answer(BEFORE)), Touched::default());
        let is = |row: &Row<'_>, keys: &[(&str, &str)]| keys.contains(&(row.0, row.1));
        let keys: Vec<_> = changed.iter().map(|row| (row.0, row.1)).collect();
        let kept = BEFORE
            .iter()
            .filter(|row| !is(row, &keys) && !is(row, gone));
        let mut after: Vec<_> = kept.chain(changed).copied().collect();
        // Consul's order means nothing.
        after.reverse();
        let found = checks.take(answer(&after));
        assert_eq!(checks.take(answer(&after)), Touched::default());
        let names = |names: BTreeSet<Arc<str>>| names.iter().map(|n| n.to_string()).collect();
        (names(found.services), names(found.nodes))
    }

    #[test]
    fn a_change_is_found_by_status_and_by_index() {
        for (changed, services) in [
            (("n1", "web", "web", "critical", 2), &["web"] as &[_]),
            // It was something else in between, and may have been read as that.
            (("n1", "web", "web", "passing", 9), &["web"]),
            (("n1", "web", "api", "passing", 2), &["api", "web"]),
            (("n3", "db", "db", "passing", 2), &["db"]),
        ] {
            let (found, nodes) = touched(&[changed], &[]);
            assert_eq!(found, services, "{changed:?}");
            assert!(nodes.is_empty());
        }
        assert_eq!(touched(&[], &[("n1", "api")]).0, ["api"]);
    }

    #[test]
    fn a_check_of_a_node_touches_the_node() {
        let maintenance = ("n2", "_node_maintenance", "", "critical", 9);
        assert_eq!(touched(&[maintenance], &[]), (vec![], vec!["n2".into()]));
        let (services, nodes) = touched(&[], &[("n1", "serfHealth")]);
        assert_eq!((services, nodes), (vec![], vec!["n1".to_owned()]));
    }

    #[test]
    fn rubbish_among_the_checks_hides_no_other() {
        let mut checks = Checks::default();
        let text =
            r#"[1, null, {"Node": 5}, {"Node": "n1", "CheckID": "web", "ServiceName": "web"}, {}]"#;
        let found = checks.take(serde_json::from_str(text).unwrap());
        assert_eq!(found.services, BTreeSet::from(["web".into()]));
    }
}
