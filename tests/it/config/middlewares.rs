//! Middlewares: what they mean, and what is said of one that is broken or missing.

use std::sync::Arc;

use portcullis::config::{Level, Middleware};

use super::{expect, good};

/// A route that names these.
fn route(middlewares: &str) -> String {
    format!(
        "[routes.vm]\nhost = \"ssh.vm.example.com\"\npassthrough = true\nupstream = \"10.0.0.5:22\"\nmiddlewares = {middlewares}\n"
    )
}

#[test]
fn a_middleware_is_a_list_of_networks_or_a_number() {
    let text = "[middlewares.office]\nip_allow_list = [\"10.1.2.3/8\", \"::ffff:192.0.2.7\", \"2001:db8::/32\"]\n\
                [middlewares.nobody]\nin_flight_conn = 0\n";
    let config = good(&[text, &route("[\"nobody\", \"office\"]")].concat()).config;
    let networks =
        ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"].map(|text| text.parse().unwrap());
    assert_eq!(
        config.middlewares,
        [
            (
                "office".to_owned(),
                Middleware::IpAllowList(Arc::new(networks))
            ),
            ("nobody".to_owned(), Middleware::InFlightConn(0)),
        ]
        .into()
    );
    assert_eq!(config.routes["vm"].middlewares, ["nobody", "office"]);
}

#[test]
fn a_middleware_that_is_broken_is_told_with_its_place_and_its_remedy() {
    expect(
        Level::Error,
        &[
            (
                "«[middlewares.office]»\n",
                "middlewares.office",
                "add `ip_allow_list = [\"10.0.0.0/8\"]` or `in_flight_conn = 10`",
            ),
            (
                "[middlewares.office]\nip_allow_list = [\"10.0.0.0/8\"]\n«in_flight_conn» = 1\n",
                "middlewares.office",
                "a [middlewares.NAME] section of its own",
            ),
            (
                "[middlewares.office]\nip_allow_list = «[]»\n",
                "middlewares.office.ip_allow_list",
                "such as \"192.0.2.7\", \"10.0.0.0/8\"",
            ),
            (
                "[middlewares.office]\nip_allow_list = [«\"10.0.0.0/33\"»]\n",
                "middlewares.office.ip_allow_list[0]",
                "such as \"192.0.2.7\", \"10.0.0.0/8\"",
            ),
            (
                "[middlewares.office]\nip_allow_list = [\"10.0.0.0/8\", «\"10.1.0.0/8\"»]\n",
                "middlewares.office.ip_allow_list[1]",
                "remove one of the two",
            ),
            (
                "[middlewares.office]\nip_allow_list = «\"10.0.0.0/8\"»\n",
                "middlewares.office.ip_allow_list",
                "put it in brackets",
            ),
            (
                "[middlewares.few]\nin_flight_conn = «-1»\n",
                "middlewares.few.in_flight_conn",
                "0 to 10000000",
            ),
            (
                "[middlewares.few]\n«inflightconn» = 1\n",
                "middlewares.few",
                "did you mean `in_flight_conn`?",
            ),
            (
                "[middlewares.«\"a@file\"»]\nin_flight_conn = 1\n",
                "middlewares.\"a@file\"",
                "letters",
            ),
        ],
    );
}

#[test]
fn a_route_names_middlewares_that_there_are_each_once() {
    let few = "[middlewares.few]\nin_flight_conn = 1\n";
    let cases = [
        (route("«[]»"), "routes.vm.middlewares", "remove the list"),
        (
            route("[\"few\", «\"few\"»]"),
            "routes.vm.middlewares[1]",
            "remove one of the two",
        ),
        (
            route("[«\"fev\"»]"),
            "routes.vm.middlewares[0]",
            "did you mean \"few\"? otherwise add a [middlewares.fev] section",
        ),
        (
            route("[\"few\", «\"few@file\"»]"),
            "routes.vm.middlewares[1]",
            "did you mean \"few\"?",
        ),
    ];
    let cases = cases.map(|(text, key, remedy)| ([few, &text].concat(), key, remedy));
    let cases: Vec<(&str, &str, &str)> = cases
        .iter()
        .map(|(text, key, remedy)| (text.as_str(), *key, *remedy))
        .collect();
    expect(Level::Error, &cases);
}
