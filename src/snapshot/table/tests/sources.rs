//! The file against what services ask for, and services against each other.

use proptest::prelude::*;

use super::*;

fn of_consul(route: Route) -> Route {
    Route {
        source: Source::Consul,
        ..route
    }
}

fn shadow_of(table: &Table, source: Source, name: &str) -> Option<(Source, String)> {
    let id = RouteId {
        source,
        name: name.into(),
    };
    let shadow = table.shadows().of(table.route(&id).unwrap())?;
    Some((shadow.source, shadow.name.to_string()))
}

#[test]
fn the_file_has_a_name_whatever_priority_or_length_a_tag_gives_itself() {
    for file in [
        "HostSNI(`a.test`)",
        "HostSNI(`*.test`)",
        "HostSNIRegexp(`^a`)",
    ] {
        for tag in [
            "HostSNI(`a.test`)",
            "HostSNI(`a.test`) && !ClientIP(`10.0.0.0/8`)",
            "HostSNI(`*.test`)",
            "HostSNI(`*`)",
        ] {
            let table = table([
                prior(1, route("file", file)),
                of_consul(prior(1000, route("tag", tag))),
            ]);
            let client = Client::named("a.test");
            assert_eq!(client.gets(&table), Some("file"), "{file} against {tag}");
        }
    }
}

#[test]
fn what_the_file_does_not_name_is_free_for_services() {
    let table = table([
        route("named", "HostSNI(`a.test`)"),
        prior(1, route("rest", "HostSNI(`*`)")),
        of_consul(route("b@consul", "HostSNI(`b.test`)")),
    ]);
    for (name, gets) in [
        ("a.test", "named"),
        ("b.test", "b@consul"),
        ("c.test", "rest"),
    ] {
        assert_eq!(Client::named(name).gets(&table), Some(gets));
    }
}

#[test]
fn a_client_that_the_files_condition_leaves_goes_to_the_service() {
    let table = table([
        route("office", "HostSNI(`a.test`) && ClientIP(`10.0.0.0/8`)"),
        of_consul(route("a@consul", "HostSNI(`a.test`)")),
    ]);
    let client = Client::named("a.test");
    assert_eq!(client.gets(&table), Some("a@consul"));
    let office = Client {
        address: "10.1.2.3".parse().unwrap(),
        ..client
    };
    assert_eq!(office.gets(&table), Some("office"));
    assert_eq!(shadow_of(&table, Source::Consul, "a@consul"), None);
}

#[test]
fn of_two_services_on_one_host_priority_and_then_the_name_decides_and_the_loser_knows() {
    let tied = |name| of_consul(route(name, "HostSNI(`a.test`)"));
    let with_priority = prior(99, tied("b@consul"));
    for (routes, winner, loser) in [
        ([tied("a@consul"), tied("b@consul")], "a@consul", "b@consul"),
        ([tied("b@consul"), tied("a@consul")], "a@consul", "b@consul"),
        ([tied("a@consul"), with_priority], "b@consul", "a@consul"),
    ] {
        let table = table(routes);
        assert_eq!(Client::named("a.test").gets(&table), Some(winner));
        assert_eq!(
            shadow_of(&table, Source::Consul, loser),
            Some((Source::Consul, winner.to_owned()))
        );
        assert_eq!(shadow_of(&table, Source::Consul, winner), None);
    }
}

#[test]
fn a_service_that_the_file_has_taken_the_name_from_knows_it() {
    let table = table([
        prior(1, route("file", "HostSNI(`a.test`)")),
        of_consul(prior(1000, route("a@consul", "HostSNI(`a.test`)"))),
        of_consul(prior(1000, route("wide@consul", "HostSNI(`*.test`)"))),
        of_consul(prior(1000, route("all@consul", "HostSNI(`*`)"))),
    ]);
    assert_eq!(
        shadow_of(&table, Source::Consul, "a@consul"),
        Some((Source::File, "file".to_owned()))
    );
    for name in ["wide@consul", "all@consul"] {
        assert_eq!(shadow_of(&table, Source::Consul, name), None);
    }
    assert_eq!(shadow_of(&table, Source::File, "file"), None);
}

#[test]
fn no_service_shadows_a_default_route_of_the_file_which_still_has_what_the_file_names() {
    let table = table([
        prior(41, route("rest", "HostSNI(`*`)")),
        prior(35, route("named", "HostSNI(`a.test`)")),
        of_consul(prior(58, route("all@consul", "HostSNI(`*`)"))),
    ]);
    assert_eq!(Client::named("b.test").gets(&table), Some("all@consul"));
    assert_eq!(Client::named("a.test").gets(&table), Some("rest"));
    assert_eq!(shadow_of(&table, Source::File, "rest"), None);
}

#[test]
fn a_service_and_the_file_may_use_the_same_name_for_a_route() {
    let mut table = table([
        route("r", "HostSNI(`a.test`)"),
        of_consul(route("r", "HostSNI(`b.test`)")),
    ]);
    assert_eq!(table.routes().len(), 2);
    table.remove(&RouteId {
        source: Source::Consul,
        name: "r".into(),
    });
    assert_eq!(Client::named("a.test").gets(&table), Some("r"));
    assert_eq!(Client::named("b.test").gets(&table), None);
}

proptest! {
    #[test]
    fn the_winner_is_the_same_in_whatever_order_routes_arrive(
        routes in random::routes(),
        order in prop::collection::vec(any::<u64>(), 12),
    ) {
        let mut places: Vec<usize> = (0..routes.len()).collect();
        places.sort_by_key(|place| order[*place]);
        let in_order = table(routes.iter().map(random::copy));
        let in_another = table(places.into_iter().map(|place| random::copy(&routes[place])));
        for client in random::clients() {
            prop_assert_eq!(client.gets(&in_order), client.gets(&in_another), "{:?}", client);
        }
        let shadows = |table: &Table| -> Vec<_> {
            let routes = table.routes().into_iter();
            routes.map(|route| (route.id(), table.shadows().of(route).map(|by| by.id()))).collect()
        };
        prop_assert_eq!(shadows(&in_order), shadows(&in_another));
    }
}
