//! Middlewares of tags: what they mean, whose are named, and that no route serves without one.

use std::net::IpAddr;

use super::*;
use crate::config::Middleware;

/// What a service with these tags, each after `traefik.tcp.middlewares.`, defines by this name.
fn defined(tags: &[&str], name: &str) -> Result<Middleware, Arc<str>> {
    let tags: Vec<String> = tags
        .iter()
        .map(|tag| format!("traefik.tcp.middlewares.{tag}"))
        .collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let service = tagged(&with(SSH, &tags));
    route(&service);
    service.middlewares[name].clone()
}

fn list(networks: &[&str]) -> Middleware {
    let networks = networks.iter().map(|text| text.parse().unwrap());
    Middleware::IpAllowList(networks.collect())
}

#[test]
fn a_middleware_is_what_its_tags_say() {
    for (tags, expected) in [
        (
            &["m.ipallowlist.sourcerange=10.0.0.0/8, 192.0.2.7,2001:db8::/32"][..],
            list(&["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"]),
        ),
        (
            &["M.IPWhiteList.SourceRange=::ffff:10.1.2.3/104"],
            list(&["10.0.0.0/8"]),
        ),
        (
            &["m.inflightconn=", "m.inflightconn.amount=3"],
            Middleware::InFlightConn(3),
        ),
        (&["m.inflightconn.amount=0"], Middleware::InFlightConn(0)),
    ] {
        assert_eq!(defined(tags, "m@consul"), Ok(expected), "{tags:?}");
    }
    let everybody = list(&["0.0.0.0/0", "::/0"]);
    let tag = "all.ipallowlist.sourcerange=0.0.0.0/0,::/0";
    assert_eq!(defined(&[tag], "all@consul"), Ok(everybody));
}

#[test]
fn a_middleware_that_means_nothing_harms_only_who_names_it() {
    let many = format!("m.ipallowlist.sourcerange={}", ["10.0.0.1"; 1001].join(","));
    for (tags, reason) in [
        (
            &["m.ipallowlist.sourcerange="][..],
            "its `sourcerange` is empty: it would let nobody in",
        ),
        (
            &["m.ipwhitelist="],
            "its `sourcerange` is empty: it would let nobody in",
        ),
        (
            &["m.ipallowlist.sourcerange=10.0.0.0/33"],
            "in its `sourcerange`, \"10.0.0.0/33\" is no address or network",
        ),
        (
            &["m.ipallowlist.sourcerange=10.0.0.1,,10.0.0.2"],
            "in its `sourcerange`, \"\" is no address or network",
        ),
        (
            &[&many],
            "its `sourcerange` has 1001 networks: at most 1000",
        ),
        (&["m.inflightconn="], "it has no `inflightconn.amount`"),
        (
            &["m.inflightconn.amount=-1"],
            "its `inflightconn.amount` is less than 0",
        ),
        (
            &["m="],
            "it has neither an `ipallowlist.sourcerange` nor an `inflightconn.amount`",
        ),
        (
            &[
                "m.inflightconn.amount=1",
                "m.ipallowlist.sourcerange=10.0.0.1",
            ],
            "it is of several kinds: give each a name of its own, and name all",
        ),
        (
            &[
                "m.ipallowlist.sourcerange=10.0.0.1",
                "m.ipwhitelist.sourcerange=10.0.0.1",
            ],
            "it is of several kinds: give each a name of its own, and name all",
        ),
    ] {
        assert_eq!(defined(tags, "m@consul"), Err(reason.into()), "{tags:?}");
        let tags: Vec<String> = tags
            .iter()
            .map(|tag| format!("traefik.tcp.middlewares.{tag}"))
            .collect();
        let mut all: Vec<&str> = tags.iter().map(String::as_str).collect();
        all.push("traefik.tcp.routers.web.middlewares=m");
        let service = tagged(&with(SSH, &all));
        let reason = format!("its middleware \"m@consul\": {reason}");
        assert_eq!(broken(&service), reason);
        assert_eq!(skipped(&service), [format!("- web: {reason}")]);
    }
}

#[test]
fn a_router_names_its_services_middlewares_those_of_others_and_the_files() {
    let names = |value: &str| {
        let tag = format!("traefik.tcp.routers.web.middlewares={value}");
        let service = tagged(&with(SSH, &[&tag]));
        route(&service).middlewares.join(" ")
    };
    for (value, expected) in [
        ("", ""),
        ("office", "office@consul"),
        (
            "Office@consulcatalog, few@consul",
            "office@consul few@consul",
        ),
        ("few,Office@file,few@consul", "few@consul Office"),
        ("a@b@file", "a@b"),
    ] {
        assert_eq!(names(value), expected, "{value}");
    }
}

#[test]
fn what_can_be_no_middleware_takes_the_route_down() {
    let many = ["m"; 101].join(",");
    let long = "m".repeat(300);
    for (value, reason) in [
        (
            "office@docker",
            "its middleware \"office@docker\" is of the provider \"docker\": only `@file` and `@consul` are known here",
        ),
        (
            "Office@ConsulCatalog",
            "its middleware \"Office@ConsulCatalog\" is of the provider \"ConsulCatalog\"",
        ),
        (
            "a,office@",
            "its middleware \"office@\" is of the provider \"\"",
        ),
        (&many, "it names 101 middlewares: at most 100"),
        (&long, "the name of its middleware \"mmm"),
    ] {
        let tag = format!("traefik.tcp.routers.web.middlewares={value}");
        let service = tagged(&with(SSH, &[&tag]));
        assert!(broken(&service).starts_with(reason), "{service:#?}");
    }
}

#[test]
fn the_newest_definition_counts_and_an_older_one_that_differs_is_listed() {
    let allows = |id: &str, modified, network: &str| Instance {
        modified,
        ..instance(
            id,
            &with(
                SSH,
                &[
                    "traefik.tcp.routers.web.middlewares=m",
                    &format!("traefik.tcp.middlewares.m.ipallowlist.sourcerange={network}"),
                ],
            ),
        )
    };
    let found = web(vec![
        allows("a", 3, "10.0.0.0/8"),
        allows("b", 2, "10.0.0.0/8"),
        allows("c", 1, "0.0.0.0/0"),
        instance("d", SSH),
    ]);
    let service = service(&found, &exposure());
    assert_eq!(service.middlewares["m@consul"], Ok(list(&["10.0.0.0/8"])));
    let mut listed = skipped(&service);
    listed.retain(|line| line.contains("middleware"));
    assert_eq!(
        listed,
        [
            "node/c -: its middleware \"m\" differs from the newer definition of node/a, which counts"
        ]
    );
    let newest_is_wrong = web(vec![
        allows("a", 3, "10.0.0.0/8"),
        allows("b", 4, "10.0.0.0/x"),
    ]);
    assert!(broken(&super::service(&newest_is_wrong, &exposure())).contains("10.0.0.0/x"));
}

#[test]
fn an_amount_that_is_no_number_takes_the_instance_out_as_in_traefik() {
    let service = tagged(&with(
        SSH,
        &["traefik.tcp.middlewares.m.inflightconn.amount=many"],
    ));
    assert!(broken(&service).contains("its tags cannot be read"));
    assert!(skipped(&service)[1].contains("\"many\" is not a whole number"));
    assert!(service.middlewares.is_empty());
}

#[test]
fn a_service_that_only_defines_a_middleware_is_not_idle() {
    let service = tagged(&["traefik.tcp.middlewares.m.ipallowlist.sourcerange=10.0.0.1"]);
    assert!(service.routes.is_empty() && service.upstreams.is_empty() && !service.is_idle());
    let lists = |address: &str| match &service.middlewares["m@consul"] {
        Ok(Middleware::IpAllowList(networks)) => {
            let address: IpAddr = address.parse().unwrap();
            networks
                .iter()
                .any(|network| crate::rule::covers(network, address))
        }
        other => panic!("{other:?}"),
    };
    assert!(lists("10.0.0.1") && lists("::ffff:10.0.0.1") && !lists("10.0.0.2"));
}
