//! Which route a client gets, which routes nobody gets, and what two tables share.

use std::net::IpAddr;

use super::*;
use crate::rule::Rule;
use crate::snapshot::{Action, Listeners};

mod random;
mod shadows;
mod sources;

const FIRST: ListenerId = ListenerId(0);
const SECOND: ListenerId = ListenerId(1);

impl Table {
    /// How many parts of the exact names, and of the whole list, this table has for itself.
    pub(in crate::snapshot) fn parts_not_shared(&self, other: &Self) -> (usize, usize) {
        (
            self.exact.parts_not_shared(&other.exact),
            self.all.parts_not_shared(&other.all),
        )
    }
}

/// A route with its rule's own priority, on every listener.
fn route(name: &str, rule: &str) -> Route {
    let rule = Rule::parse(rule).unwrap_or_else(|e| panic!("{rule}: {e}"));
    Route {
        name: name.into(),
        source: Source::File,
        service: None,
        listeners: Listeners::All,
        priority: rule.priority(),
        rule,
        action: Action::PassThrough,
        upstream: "u".into(),
        mesh: false,
        max_connections: None,
        middlewares: Vec::new(),
        warnings: Vec::new(),
        metrics: Arc::default(),
    }
}

fn prior(priority: i64, route: Route) -> Route {
    Route { priority, ..route }
}

fn on(listeners: &[ListenerId], route: Route) -> Route {
    let listeners = Listeners::Only(listeners.to_vec());
    Route { listeners, ..route }
}

fn table(routes: impl IntoIterator<Item = Route>) -> Table {
    let mut table = Table::default();
    for route in routes {
        table.insert(Arc::new(route));
    }
    table
}

/// A client, and the listener it comes to.
#[derive(Clone, Debug)]
struct Client {
    listener: ListenerId,
    name: Option<HostName>,
    address: IpAddr,
    alpn: Vec<Vec<u8>>,
    wildcard: WildcardDepth,
}

impl Client {
    fn named(name: &str) -> Self {
        Self {
            listener: FIRST,
            name: Some(HostName::parse(name).unwrap()),
            address: "192.0.2.1".parse().unwrap(),
            alpn: Vec::new(),
            wildcard: WildcardDepth::One,
        }
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            name: self.name.as_ref(),
            client: self.address,
            alpn: &self.alpn,
            wildcard: self.wildcard,
        }
    }

    /// The name of the route it gets.
    fn gets<'a>(&self, table: &'a Table) -> Option<&'a str> {
        table
            .find(self.listener, &self.facts())
            .map(|route| &*route.name)
    }
}

fn shadow(table: &Table, name: &str) -> Option<String> {
    let routes = table.routes();
    let route = routes.iter().find(|route| &*route.name == name).unwrap();
    table
        .shadows()
        .of(route)
        .map(|other| other.name.to_string())
}

#[test]
fn a_name_that_no_route_takes_gets_none() {
    let table = table([route("a", "HostSNI(`a.test`)")]);
    assert_eq!(Client::named("b.test").gets(&table), None);
    let nameless = Client {
        name: None,
        ..Client::named("a.test")
    };
    assert_eq!(nameless.gets(&table), None);
}

#[test]
fn the_higher_priority_goes_first_however_narrow_the_other_is() {
    let table = table([
        prior(9, route("exact", "HostSNI(`a.test`)")),
        prior(10, route("wildcard", "HostSNI(`*.test`)")),
    ]);
    assert_eq!(Client::named("a.test").gets(&table), Some("wildcard"));
}

#[test]
fn of_equal_priorities_the_narrower_goes_first() {
    let rules = [
        "HostSNI(`a.test`)",
        "HostSNI(`*.test`)",
        "HostSNIRegexp(`^a`)",
        "HostSNI(`*`)",
    ];
    // Named so that the order of names would decide otherwise.
    let names = ["d", "c", "b", "a"];
    for first in 0..rules.len() {
        let routes = (first..rules.len()).map(|n| prior(1, route(names[n], rules[n])));
        assert_eq!(
            Client::named("a.test").gets(&table(routes)),
            Some(names[first])
        );
    }
}

#[test]
fn ties_are_decided_by_the_name_whichever_came_first() {
    let tied = |name| route(name, "HostSNI(`a.test`)");
    for names in [["a", "b"], ["b", "a"]] {
        let table = table(names.map(tied));
        assert_eq!(Client::named("a.test").gets(&table), Some("a"));
    }
}

#[test]
fn a_condition_that_does_not_hold_leaves_the_client_to_the_next_route() {
    let table = table([
        route("office", "HostSNI(`a.test`) && ClientIP(`10.0.0.0/8`)"),
        route("h2", "HostSNI(`a.test`) && ALPN(`h2`)"),
        route("all", "HostSNI(`a.test`)"),
    ]);
    let client = Client::named("a.test");
    assert_eq!(client.gets(&table), Some("all"));
    let office = Client {
        address: "10.1.2.3".parse().unwrap(),
        ..client.clone()
    };
    assert_eq!(office.gets(&table), Some("office"));
    let h2 = Client {
        alpn: vec![b"h2".to_vec()],
        ..client
    };
    assert_eq!(h2.gets(&table), Some("h2"));
}

#[test]
fn a_route_of_one_listener_is_not_found_on_another() {
    let table = table([
        on(&[SECOND], prior(99, route("second", "HostSNI(`a.test`)"))),
        route("all", "HostSNI(`a.test`)"),
    ]);
    let client = Client::named("a.test");
    assert_eq!(client.gets(&table), Some("all"));
    let second = Client {
        listener: SECOND,
        ..client
    };
    assert_eq!(second.gets(&table), Some("second"));
}

#[test]
fn a_wildcard_takes_one_label_or_several_as_the_listener_says() {
    let table = table([route("wildcard", "HostSNI(`*.test`)")]);
    for (name, depth, expected) in [
        ("a.test", WildcardDepth::One, Some("wildcard")),
        ("b.a.test", WildcardDepth::One, None),
        ("b.a.test", WildcardDepth::Many, Some("wildcard")),
        ("test", WildcardDepth::Many, None),
    ] {
        let client = Client {
            wildcard: depth,
            ..Client::named(name)
        };
        assert_eq!(client.gets(&table), expected, "{name} {depth:?}");
    }
}

#[test]
fn a_rule_with_several_names_is_found_under_each() {
    let table = table([route(
        "both",
        "HostSNI(`a.test`) || HostSNI(`*.b.test`) || HostSNIRegexp(`^c[0-9]`)",
    )]);
    for name in ["a.test", "x.b.test", "c7.test"] {
        assert_eq!(Client::named(name).gets(&table), Some("both"), "{name}");
    }
    assert_eq!(Client::named("b.test").gets(&table), None);
}

#[test]
fn a_route_of_the_same_name_is_replaced_with_all_its_keys() {
    let mut table = table([route(
        "r",
        "HostSNI(`a.test`) || HostSNI(`*.b.test`) || HostSNIRegexp(`^c`)",
    )]);
    table.insert(Arc::new(route("r", "HostSNI(`d.test`)")));
    for name in ["a.test", "x.b.test", "c.test"] {
        assert_eq!(Client::named(name).gets(&table), None, "{name}");
    }
    assert_eq!(Client::named("d.test").gets(&table), Some("r"));
    assert_eq!(table.routes().len(), 1);
}

#[test]
fn a_removed_route_is_gone_and_leaves_the_others() {
    let mut table = table([
        route("a", "HostSNI(`a.test`)"),
        route("b", "HostSNI(`a.test`)"),
    ]);
    let id = |name: &str| RouteId {
        source: Source::File,
        name: name.into(),
    };
    table.remove(&id("a"));
    assert_eq!(Client::named("a.test").gets(&table), Some("b"));
    table.remove(&id("nobody"));
    table.remove(&id("b"));
    assert_eq!(Client::named("a.test").gets(&table), None);
    assert_eq!(table.routes().len(), 0);
}

#[test]
fn one_of_two_routes_with_the_same_rule_is_shadowed() {
    for rule in [
        "HostSNI(`a.test`)",
        "HostSNI(`*.test`)",
        "HostSNIRegexp(`^a`)",
        "HostSNI(`*`)",
        "HostSNI(`a.test`) && ClientIP(`10.0.0.0/8`)",
        "HostSNI(`a.test`) || HostSNI(`b.test`)",
    ] {
        let table = table([route("a", rule), route("b", rule)]);
        assert_eq!(shadow(&table, "b").as_deref(), Some("a"), "{rule}");
        assert_eq!(shadow(&table, "a"), None, "{rule}");
    }
}

#[test]
fn a_broader_rule_shadows_only_with_the_higher_priority() {
    for rule in [
        "HostSNI(`*`)",
        "HostSNI(`*.test`)",
        "HostSNI(`a.test`) || HostSNI(`b.test`)",
    ] {
        let exact = || route("exact", "HostSNI(`a.test`) && ClientIP(`10.0.0.0/8`)");
        let high = table([exact(), prior(1000, route("broad", rule))]);
        assert_eq!(shadow(&high, "exact").as_deref(), Some("broad"), "{rule}");
        let low = table([exact(), prior(1, route("broad", rule))]);
        assert_eq!(shadow(&low, "exact"), None, "{rule}");
    }
}

#[test]
fn a_rule_with_a_condition_shadows_no_other() {
    let table = table([
        prior(
            9,
            route("office", "HostSNI(`a.test`) && ClientIP(`10.0.0.0/8`)"),
        ),
        prior(8, route("h2", "HostSNI(`a.test`) && ALPN(`h2`)")),
        prior(7, route("all", "HostSNI(`a.test`)")),
    ]);
    assert_eq!(
        ["office", "h2", "all"].map(|name| shadow(&table, name)),
        [None, None, None]
    );
}

#[test]
fn a_route_with_one_name_left_is_not_shadowed() {
    let both = || route("both", "HostSNI(`a.test`) || HostSNI(`b.test`)");
    let one = table([both(), prior(1000, route("a", "HostSNI(`a.test`)"))]);
    assert_eq!(shadow(&one, "both"), None);
    let all = table([
        both(),
        prior(1000, route("a", "HostSNI(`a.test`)")),
        prior(1000, route("b", "HostSNI(`b.test`)")),
    ]);
    assert!(shadow(&all, "both").is_some());
}

#[test]
fn a_route_of_one_listener_does_not_shadow_that_of_all() {
    let all = || route("all", "HostSNI(`a.test`)");
    let first = |priority| {
        on(
            &[FIRST],
            prior(priority, route("first", "HostSNI(`a.test`)")),
        )
    };
    assert_eq!(shadow(&table([all(), first(1000)]), "all"), None);
    assert_eq!(
        shadow(&table([all(), first(1)]), "first").as_deref(),
        Some("all")
    );
}

#[test]
fn a_change_to_one_route_among_many_shares_the_rest() {
    let many = (0..2000).map(|n| route(&format!("r{n}"), &format!("HostSNI(`h{n}.test`)")));
    let old = table(many.chain([
        route("wildcard", "HostSNI(`*.test`)"),
        route("regexp", "HostSNIRegexp(`^x`)"),
        route("any", "HostSNI(`*`)"),
    ]));
    let mut new = old.clone();
    new.insert(Arc::new(prior(99, route("r7", "HostSNI(`h7.test`)"))));
    assert_eq!(new.exact.parts_not_shared(&old.exact), 1);
    assert_eq!(new.all.parts_not_shared(&old.all), 1);
    assert_eq!(new.wildcard.parts_not_shared(&old.wildcard), 0);
    assert!(Arc::ptr_eq(&new.regexp, &old.regexp) && Arc::ptr_eq(&new.any, &old.any));
    let priority = |table: &Table| {
        let client = Client::named("h7.test");
        table.find(FIRST, &client.facts()).unwrap().priority
    };
    assert_eq!((priority(&new), priority(&old)), (99, 18));
}
