//! Under which terms tags are read: whose they are, and what holds where they say nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The prefix that is always ours.
const OURS: &str = "portcullis";

/// As many kinds of tags that mean nothing are told of by name.
const FOREIGN_SHOWN: usize = 5;

/// What the operator says of the tags of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Traefik's prefix; `portcullis` is one besides. Where both write a key, ours stands.
    pub prefix: Arc<str>,
    /// Whether an instance counts whose tags do not say (`enable`).
    pub exposed_by_default: bool,
    /// Whether one is dialled through the mesh only whose tags do not say (`consulcatalog.connect`).
    pub connect_by_default: bool,
}

/// As in Traefik.
impl Default for Terms {
    fn default() -> Self {
        Self {
            prefix: "traefik".into(),
            exposed_by_default: true,
            connect_by_default: false,
        }
    }
}

impl Terms {
    /// Whether there may be a route in the tags of a service, or in none of them if services without routers have one
    /// `by_default`: a quick look, at those of all its instances together.
    pub fn may_be_routed(&self, tags: &[Arc<str>], by_default: bool) -> bool {
        let mut ours = self.settings(tags);
        (by_default || ours.any(|(_, key, _)| is_tcp(key))) && self.may_be_exposed(tags)
    }

    /// Whether the service shall be dialled through the mesh only, by the tags of one of its instances.
    ///
    /// A value that is neither yes nor no counts as yes: what somebody wanted protected is not dialled plain for a typo.
    pub fn asks_for_mesh(&self, tags: &[Arc<str>]) -> bool {
        let says = self.values(tags, "consulcatalog.connect");
        let mut says = says.chain(self.values(tags, "nomad.connect")).peekable();
        match says.peek() {
            None => self.connect_by_default,
            Some(_) => says.any(|value| boolean(value) != Some(false)),
        }
    }

    /// The same by the tags of all its instances together, of which some may say nothing.
    pub fn may_ask_for_mesh(&self, tags: &[Arc<str>]) -> bool {
        self.connect_by_default || self.asks_for_mesh(tags)
    }

    /// Whether an instance stands apart from its service (`consulcatalog.canary`, `nomad.canary`), as its tags are read.
    pub fn is_canary(&self, tags: &[Arc<str>]) -> bool {
        let says = |key| self.values(tags, key).last().and_then(boolean) == Some(true);
        says("consulcatalog.canary") || says("nomad.canary")
    }

    /// What the tags ask for that means nothing here, such as routers for HTTP: said once for all of them.
    pub fn foreign(&self, tags: &[Arc<str>]) -> Option<String> {
        let kinds = self.settings(tags).filter_map(|(_, key, _)| {
            let kind = key.split('.').next()?.to_ascii_lowercase();
            let is_known = is_tcp(&kind) || ["enable", "consulcatalog", "nomad"].contains(&&*kind);
            (!is_known && is_word(&kind)).then_some(kind)
        });
        let kinds: BTreeSet<String> = kinds.collect();
        let mut says = self.values(tags, "enable").map(boolean).peekable();
        let is_out = match says.peek() {
            None => !self.exposed_by_default,
            Some(_) => says.all(|says| says == Some(false)),
        };
        if kinds.is_empty() || is_out {
            return None;
        }
        let shown = kinds
            .iter()
            .take(FOREIGN_SHOWN)
            .map(|kind| format!("`{kind}`"));
        let mut shown = shown.collect::<Vec<_>>().join(", ");
        if kinds.len() > FOREIGN_SHOWN {
            shown.push_str(", …");
        }
        Some(format!(
            "its tags under {shown} mean nothing here: only `tcp` routers are served"
        ))
    }

    /// The labels that a default rule reads: keys with `traefik.` for the prefix, and values; of two, the later one's.
    pub fn labels<'a>(&self, tags: &'a [Arc<str>]) -> BTreeMap<String, &'a str> {
        let ours = self.settings(tags);
        ours.map(|(_, key, value)| (format!("traefik.{key}"), value))
            .collect()
    }

    /// The prefixes, keys without them, and values of the tags that are ours; what counts more comes later.
    pub(super) fn settings<'t, 'a>(
        &'t self,
        tags: &'a [Arc<str>],
    ) -> impl Iterator<Item = (&'t str, &'a str, &'a str)> + use<'t, 'a> {
        let theirs = Some(&*self.prefix).filter(|prefix| *prefix != OURS);
        let prefixes = theirs.into_iter().chain([OURS]);
        prefixes.flat_map(move |prefix| {
            tags.iter().filter_map(move |tag| {
                let key = tag.strip_prefix(prefix)?.strip_prefix('.')?;
                let (key, value) = key.split_once('=')?;
                Some((prefix, key, value))
            })
        })
    }

    /// Whether the tags of an instance do not say whether it counts.
    pub(super) fn is_silent(&self, tags: &[Arc<str>]) -> bool {
        self.values(tags, "enable").next().is_none()
    }

    /// Whether any of the instances whose tags these are may count.
    fn may_be_exposed(&self, tags: &[Arc<str>]) -> bool {
        self.exposed_by_default
            || self
                .values(tags, "enable")
                .any(|value| boolean(value) != Some(false))
    }

    fn values<'t, 'a>(
        &'t self,
        tags: &'a [Arc<str>],
        key: &'static str,
    ) -> impl Iterator<Item = &'a str> + use<'t, 'a> {
        let ours = self.settings(tags);
        ours.filter(move |(_, written, _)| written.eq_ignore_ascii_case(key))
            .map(|(_, _, value)| value)
    }
}

/// `tcp` and all that begins like it, where Traefik looks for mistakes too.
pub(super) fn is_tcp(key: &str) -> bool {
    let start = key.as_bytes().get(..3);
    start.is_some_and(|start| start.eq_ignore_ascii_case(b"tcp"))
}

/// As Go's `strconv.ParseBool`.
pub(super) fn boolean(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// What can be shown as it is.
fn is_word(kind: &str) -> bool {
    (1..=32).contains(&kind.len())
        && kind
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(list: &[&str]) -> Vec<Arc<str>> {
        list.iter().map(|tag| Arc::from(*tag)).collect()
    }

    #[test]
    fn a_look_at_tags_finds_every_router_that_there_may_be() {
        let terms = Terms::default();
        for ours in [
            "traefik.tcp.routers.a.rule=x",
            "traefik.TCP.Routers.a.rule=x",
            "portcullis.tcp.routers.a.tls=true",
            "traefik.tcpx=",
        ] {
            assert!(
                terms.may_be_routed(&tags(&["other", ours]), false),
                "{ours}"
            );
        }
        for none in [
            "traefik.http.routers.a.rule=x",
            "traefik.enable=true",
            "tcp.routers.a.rule=x",
            "traefik.tcp.routers.a.rule",
            "",
        ] {
            assert!(!terms.may_be_routed(&tags(&[none]), false), "{none}");
            assert!(terms.may_be_routed(&tags(&[none]), true), "{none}");
        }
    }

    #[test]
    fn what_is_not_exposed_by_default_must_say_that_it_is() {
        let terms = Terms {
            exposed_by_default: false,
            ..Terms::default()
        };
        let router = "traefik.tcp.routers.a.rule=x";
        for (enable, expected) in [
            ("", false),
            ("traefik.enable=false", false),
            ("traefik.Enable=true", true),
            ("portcullis.enable=1", true),
            // What it means is for the instance to be told.
            ("traefik.enable=maybe", true),
        ] {
            let tags = tags(&[router, enable]);
            assert_eq!(terms.may_be_routed(&tags, false), expected, "{enable}");
            assert_eq!(terms.may_be_routed(&tags, true), expected, "{enable}");
        }
    }

    #[test]
    fn another_prefix_takes_the_place_of_traefiks_and_ours_stays() {
        let terms = Terms {
            prefix: "edge.gate".into(),
            ..Terms::default()
        };
        for (tag, expected) in [
            ("edge.gate.tcp.routers.a.rule=x", true),
            ("portcullis.tcp.routers.a.rule=x", true),
            ("traefik.tcp.routers.a.rule=x", false),
            ("edge.tcp.routers.a.rule=x", false),
            ("edge.gatetcp.routers.a.rule=x", false),
        ] {
            assert_eq!(terms.may_be_routed(&tags(&[tag]), false), expected, "{tag}");
        }
        let ours = Terms {
            prefix: OURS.into(),
            ..Terms::default()
        };
        let tags = tags(&["portcullis.a=b"]);
        assert_eq!(ours.settings(&tags).count(), 1, "once, though it is both");
    }

    #[test]
    fn the_mesh_is_asked_for_by_tags_or_else_by_default() {
        let default = |connect_by_default| Terms {
            connect_by_default,
            ..Terms::default()
        };
        for (list, off, on) in [
            (&[] as &[&str], false, true),
            (&["traefik.consulcatalog.connect=false"], false, false),
            (&["traefik.consulcatalog.connect=true"], true, true),
            (&["traefik.ConsulCatalog.Connect=ture"], true, true),
            (
                &[
                    "traefik.consulcatalog.connect=true",
                    "portcullis.consulcatalog.connect=0",
                ],
                true,
                true,
            ),
        ] {
            assert_eq!(default(false).asks_for_mesh(&tags(list)), off, "{list:?}");
            assert_eq!(default(true).asks_for_mesh(&tags(list)), on, "{list:?}");
            assert!(default(true).may_ask_for_mesh(&tags(list)));
        }
    }

    #[test]
    fn tags_that_mean_nothing_are_told_of_once_by_their_kinds() {
        let terms = Terms::default();
        let told = terms.foreign(&tags(&[
            "traefik.http.routers.a.rule=Host(`a`)",
            "portcullis.HTTP.routers.b.rule=Host(`b`)",
            "traefik.udp.routers.a.entrypoints=dns",
            "traefik.tls.stores.default.defaultgeneratedcert.resolver=le",
            "traefik.tcp.routers.a.rule=x",
            "traefik.consulcatalog.connect=true",
            "traefik.\x1b[31m.x=y",
        ]));
        let told = told.unwrap_or_default();
        assert!(
            told.contains("under `http`, `tls`, `udp` mean nothing here"),
            "{told}"
        );
        for none in [
            &["traefik.enable=true", "traefik.tcp.routers.a.rule=x"] as &[_],
            &["http", "http.routers=x"],
            &[],
        ] {
            assert_eq!(terms.foreign(&tags(none)), None);
        }
        let closed = Terms {
            exposed_by_default: false,
            ..Terms::default()
        };
        let http = "traefik.http.routers.a.rule=Host(`a`)";
        assert_eq!(closed.foreign(&tags(&[http])), None);
        assert!(
            closed
                .foreign(&tags(&[http, "traefik.enable=true"]))
                .is_some()
        );
        assert_eq!(terms.foreign(&tags(&[http, "traefik.enable=false"])), None);
    }

    #[test]
    fn labels_have_traefiks_prefix_whatever_the_prefix_is() {
        let terms = Terms {
            prefix: "edge".into(),
            ..Terms::default()
        };
        let tags = tags(&[
            "portcullis.host=b",
            "edge.host=a",
            "edge.port=",
            "other=1",
            "edge.x",
        ]);
        let labels = terms.labels(&tags);
        let expected = [("traefik.host", "b"), ("traefik.port", "")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value));
        assert_eq!(labels, expected.into());
    }
}
