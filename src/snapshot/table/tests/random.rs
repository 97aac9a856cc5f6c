//! Random tables against a walk through every route.

use proptest::prelude::*;

use super::*;

/// What `find` documents, by going through every route.
fn found_by_hand<'a>(routes: &'a [Route], client: &Client) -> Option<&'a str> {
    let matching = routes.iter().filter(|route| {
        route.listeners.contain(client.listener) && route.rule.matches(&client.facts())
    });
    let matching: Vec<&Route> = matching.collect();
    let is_claimed = matching
        .iter()
        .any(|route| route.source == Source::File && !route.rule.is_default());
    let counting = matching
        .into_iter()
        .filter(|route| !is_claimed || route.source == Source::File);
    let first = counting.min_by_key(|route| {
        let keys = route.rule.keys();
        let covering = keys
            .iter()
            .filter(|key| key.covers(client.name.as_ref(), client.wildcard));
        covering.map(|key| Precedence::of(route, key)).min()
    });
    first.map(|route| &*route.name)
}

fn rules() -> impl Strategy<Value = String> {
    let host = prop::sample::select(vec![
        "HostSNI(`a.test`)",
        "HostSNI(`b.test`)",
        "HostSNI(`c.b.test`)",
        "HostSNI(`*.test`)",
        "HostSNI(`*.b.test`)",
        "HostSNI(`*`)",
        "HostSNIRegexp(`^[ab]`)",
        "HostSNIRegexp(`test$`)",
        "!HostSNI(`a.test`)",
        "ClientIP(`10.0.0.0/8`)",
        "!ClientIP(`10.0.0.0/8`)",
        "ALPN(`h2`)",
    ]);
    let leaf = host.prop_map(str::to_owned);
    leaf.prop_recursive(2, 4, 2, |inner| {
        (inner.clone(), prop::sample::select(vec!["&&", "||"]), inner)
            .prop_map(|(left, operator, right)| format!("({left} {operator} {right})"))
    })
}

pub(super) fn routes() -> impl Strategy<Value = Vec<Route>> {
    let listeners = prop::sample::select(vec![
        Listeners::All,
        Listeners::All,
        Listeners::Only(vec![FIRST]),
        Listeners::Only(vec![SECOND]),
    ]);
    let source = prop::sample::select(vec![Source::File, Source::Consul]);
    let one = (rules(), prop::option::of(-1..3_i64), listeners, source);
    prop::collection::vec(one, 0..12).prop_map(|all| {
        let numbered = all.into_iter().enumerate();
        let routes = numbered.map(|(n, (rule, priority, listeners, source))| {
            let route = route(&format!("r{n:02}"), &rule);
            Route {
                priority: priority.unwrap_or(route.priority),
                listeners,
                source,
                ..route
            }
        });
        routes.collect()
    })
}

/// Every client that a rule above can tell from another.
pub(super) fn clients() -> Vec<Client> {
    let names = [
        "a.test",
        "b.test",
        "c.b.test",
        "d.c.b.test",
        "x.test",
        "test",
        "other",
    ];
    let names = names
        .map(|name| Some(HostName::parse(name).unwrap()))
        .into_iter()
        .chain([None]);
    let mut clients = Vec::new();
    for name in names {
        for listener in [FIRST, SECOND] {
            for address in ["10.1.2.3", "192.0.2.1"] {
                for alpn in [vec![], vec![b"h2".to_vec()]] {
                    for wildcard in [WildcardDepth::One, WildcardDepth::Many] {
                        clients.push(Client {
                            listener,
                            name: name.clone(),
                            address: address.parse().unwrap(),
                            alpn: alpn.clone(),
                            wildcard,
                        });
                    }
                }
            }
        }
    }
    clients
}

proptest! {
    #[test]
    fn the_index_finds_what_going_through_every_route_finds(
        routes in routes(),
        removed in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let mut table = Table::default();
        for one in &routes {
            // Replaced at once: an index that keeps traces of the first would be found out.
            let other = Route {
                source: one.source,
                ..prior(1000, route(&one.name, "HostSNI(`*`)"))
            };
            table.insert(Arc::new(other));
        }
        let mut routes = routes;
        for route in &routes {
            table.insert(Arc::new(copy(route)));
        }
        for index in removed {
            if !routes.is_empty() {
                let gone = routes.remove(index.index(routes.len()));
                table.remove(&gone.id());
            }
        }
        for client in clients() {
            prop_assert_eq!(client.gets(&table), found_by_hand(&routes, &client), "{:?}", client);
        }
    }

    #[test]
    fn a_shadowed_route_is_found_by_nobody(routes in routes()) {
        let table = table(routes);
        for route in table.routes() {
            if let Some(shadow) = table.shadows().of(route) {
                for client in clients() {
                    let gets = client.gets(&table);
                    prop_assert_ne!(gets, Some(&*route.name), "shadowed by {}: {:?}", shadow.name, client);
                }
            }
        }
    }
}

/// A copy: routes are not cloned outside tests.
pub(super) fn copy(route: &Route) -> Route {
    Route {
        name: Arc::clone(&route.name),
        source: route.source,
        service: route.service.clone(),
        listeners: route.listeners.clone(),
        rule: route.rule.clone(),
        priority: route.priority,
        action: route.action.clone(),
        upstream: Arc::clone(&route.upstream),
        mesh: false,
        max_connections: None,
        middlewares: Vec::new(),
        warnings: Vec::new(),
        metrics: Arc::clone(&route.metrics),
    }
}
