//! What routes and upstreams of services are called, so that no service can take another's name.

use std::borrow::Cow;
use std::sync::Arc;

use super::instance::Found;
use super::nomad;
use crate::snapshot::Source;
use crate::snapshot::service::{ServiceKey, provider};

/// The longest name of a router, in bytes: it becomes part of the name of a route, in logs and metrics.
pub(super) const LONGEST: usize = 255;

/// The name of a route: `SERVICE@SOURCE` for the router that is called like its service, `SERVICE/ROUTER@SOURCE` for
/// any other. `router` is in lower case.
pub(super) fn route(key: &ServiceKey, router: &str) -> Arc<str> {
    part_of(
        key,
        Some(router).filter(|name| **name != local(key).to_ascii_lowercase()),
    )
}

/// The name of an upstream: `SERVICE@SOURCE` for the service's own, `SERVICE/SERVER@SOURCE` for one of its
/// `tcp.services`; `SERVICE/~NUMBER@SOURCE` and `SERVICE/~NUMBER/SERVER@SOURCE` for those of canaries.
pub(super) fn upstream(found: &Found, server: Option<&str>) -> Arc<str> {
    let Some(number) = found.canary else {
        return part_of(&found.key, server);
    };
    let (service, source) = (escaped(&found.key.name), found.key.provider());
    let server = server.map(|server| format!("/{}", escaped(server)));
    format!("{service}/~{number}{}@{source}", server.unwrap_or_default()).into()
}

/// The name of a service's own upstream, for its canaries.
pub(super) fn service(key: &ServiceKey) -> Arc<str> {
    part_of(key, None)
}

/// What a service is called by its own tags, and its canaries by theirs, as in Traefik.
pub(super) fn own(found: &Found) -> Cow<'_, str> {
    let local = local(&found.key);
    match found.canary {
        None => local.into(),
        Some(number) => format!("{local}-{number}").into(),
    }
}

/// What a service is called by its own tags: without the namespace, where its source has such.
pub(super) fn local(key: &ServiceKey) -> &str {
    match key.source {
        Source::Nomad => nomad::parts(&key.name).1,
        Source::File | Source::Consul => &key.name,
    }
}

/// The catalog that a tag of a service means by what stands after `@`, as Traefik calls its providers or as we do: the
/// service's own by the word alone (`consulcatalog`, `consul`), or one by its label (`consulcatalog-team`). `None` where it
/// is none of this source.
pub(super) fn place<'p>(key: &'p ServiceKey, provider: &'p str) -> Option<Option<&'p str>> {
    let words: &[&str] = match key.source {
        Source::Consul => &["consulcatalog", "consul"],
        source => &[source.as_str()],
    };
    words.iter().find_map(|word| {
        let rest = provider.strip_prefix(word)?;
        match rest.is_empty() {
            true => Some(key.place.as_deref()),
            false if key.source == Source::Consul => {
                let label = rest.strip_prefix('-');
                label.filter(|label| !label.is_empty()).map(Some)
            }
            false => None,
        }
    })
}

/// The upstream that a tag of a service means by the name of another one, in this catalog: of the same namespace of Nomad, if
/// it names none.
pub(super) fn other(key: &ServiceKey, place: Option<&str>, name: &str) -> Arc<str> {
    let source = provider(key.source, place);
    match key.source {
        Source::Nomad => {
            let (namespace, name) = match name.contains('.') {
                true => nomad::parts(name),
                false => (nomad::parts(&key.name).0, name),
            };
            format!("{}@{source}", nomad::key(namespace, name)).into()
        }
        Source::File | Source::Consul => format!("{name}@{source}").into(),
    }
}

fn part_of(key: &ServiceKey, part: Option<&str>) -> Arc<str> {
    let (service, source) = (escaped(&key.name), key.provider());
    match part {
        None => format!("{service}@{source}").into(),
        Some(part) => format!("{service}/{}@{source}", escaped(part)).into(),
    }
}

/// Without the characters that hold a name together.
fn escaped(part: &str) -> String {
    let part = part.replace('%', "%25");
    let part = part.replace('/', "%2F").replace('@', "%40");
    // What follows is a number, and no name of anybody's.
    match part.strip_prefix('~') {
        Some(rest) => format!("%7E{rest}"),
        None => part,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::name::MeshService;

    fn key(name: &str) -> ServiceKey {
        ServiceKey {
            source: Source::Consul,
            place: None,
            name: name.into(),
        }
    }

    fn found(name: &str) -> Found {
        Found {
            key: key(name),
            mesh: MeshService {
                partition: None,
                namespace: "default".into(),
                datacenter: "dc1".into(),
                service: name.into(),
            },
            instances: Vec::new(),
            sidecars: None,
            unusable: Vec::new(),
            filtered: false,
            canary: None,
        }
    }

    #[test]
    fn what_canaries_have_nobody_else_can_be_called() {
        let canaries = Found {
            canary: Some(7),
            ..found("web")
        };
        assert_eq!(&*own(&canaries), "web-7");
        assert_eq!(&*upstream(&canaries, None), "web/~7@consul");
        assert_eq!(&*upstream(&canaries, Some("~7")), "web/~7/%7E7@consul");
        assert_eq!(&*upstream(&found("web"), Some("~7")), "web/%7E7@consul");
    }

    #[test]
    fn a_route_is_called_like_its_service_or_after_it() {
        for (service, router, name) in [
            ("simple01", "simple01", "simple01@consul"),
            ("Simple01", "simple01", "Simple01@consul"),
            ("simple01", "ssh", "simple01/ssh@consul"),
            ("a/b", "c", "a%2Fb/c@consul"),
            ("a", "b/c", "a/b%2Fc@consul"),
            ("a@file", "b@c%", "a%40file/b%40c%25@consul"),
        ] {
            assert_eq!(&*route(&key(service), router), name);
        }
    }

    #[test]
    fn a_catalog_is_part_of_names_and_tags_mean_their_own_or_one_by_its_label() {
        let mut own = key("web");
        own.place = Some("dc2.team".into());
        assert_eq!(&*route(&own, "ssh"), "web/ssh@consul-dc2.team");
        for (provider, meant) in [
            ("consulcatalog", Some(Some("dc2.team"))),
            ("consul", Some(Some("dc2.team"))),
            ("consulcatalog-other", Some(Some("other"))),
            ("consul-other", Some(Some("other"))),
            ("consul-", None),
            ("consulting", None),
            ("docker", None),
        ] {
            assert_eq!(place(&own, provider), meant, "{provider}");
        }
        assert_eq!(place(&key("web"), "consul"), Some(None));
        assert_eq!(&*other(&own, Some("other"), "api"), "api@consul-other");
    }

    #[test]
    fn an_upstream_is_called_like_its_service_or_after_it() {
        assert_eq!(&*upstream(&found("web"), None), "web@consul");
        assert_eq!(&*upstream(&found("web"), Some("ssh")), "web/ssh@consul");
    }

    /// Names that are easily taken for one another.
    fn part() -> impl Strategy<Value = String> {
        let token = prop::sample::select(&["a", "/", "%", "@", "%2F", "%25", "%40", "@consul"][..]);
        prop::collection::vec(token, 0..4).prop_map(|tokens| tokens.concat())
    }

    proptest! {
        #[test]
        fn no_two_routes_have_one_name_and_no_two_upstreams(
            a in part(), b in part(), c in part(), d in part(),
        ) {
            let (b, d) = (b.to_ascii_lowercase(), d.to_ascii_lowercase());
            let same = a == c && b == d;
            prop_assert_eq!(route(&key(&a), &b) == route(&key(&c), &d), same);
            prop_assert_eq!(upstream(&found(&a), Some(&b)) == upstream(&found(&c), Some(&d)), same);
            prop_assert_eq!(upstream(&found(&a), None) == upstream(&found(&c), None), a == c);
            prop_assert_ne!(upstream(&found(&a), None), upstream(&found(&c), Some(&d)));
        }
    }

    /// All short names of few characters, so that no chance is missed.
    #[test]
    fn of_all_short_names_no_two_make_one() {
        let tokens = ["a", "A", "/", "%", "2F", "@"];
        let mut parts = vec![String::new()];
        for first in tokens {
            parts.push(first.to_owned());
            parts.extend(tokens.iter().map(|second| format!("{first}{second}")));
        }
        let mut seen = std::collections::HashMap::new();
        for service in &parts {
            for router in parts.iter().filter(|part| !part.contains(['A', 'F'])) {
                let taken = seen.insert(route(&key(service), router), (service, router));
                assert_eq!(taken, None, "{service:?} {router:?}");
            }
        }
    }
}
