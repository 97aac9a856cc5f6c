//! What a service does not get, and that nothing else of it suffers for that.

use super::*;

#[test]
fn a_router_that_is_refused_is_listed_with_its_reason() {
    for (tag, reason) in [
        (
            "entrypoints=ssh, HTTPS",
            "it is for the entry points \"ssh\", \"HTTPS\", and none of them is one of `entry_points` in [consul]",
        ),
        (
            "tls=false",
            "it is not for TLS: add `tcp.routers.web.tls=true`, or `tcp.routers.web.tls.passthrough=true`",
        ),
        ("rule=", "it has no rule: add `tcp.routers.web.rule`"),
        ("rule=Host(`a`)", "its rule: there is no matcher `Host`"),
        ("rule=HostSNI(`a`", "its rule: "),
        (
            "priority=9223372036854774808",
            "its priority is greater than 9223372036854774807",
        ),
    ] {
        let good = [
            "traefik.tcp.routers.good.tls=true",
            "traefik.tcp.routers.good.rule=HostSNI(`good`)",
        ];
        let tag = format!("portcullis.tcp.routers.web.{tag}");
        let service = tagged(&[SSH, &good, &[&tag]].concat());
        assert_eq!(&*route(&service).name, "web/good@consul");
        let listed = skipped(&service);
        assert_eq!(listed.len(), 1, "{listed:?}");
        assert!(
            listed[0].starts_with(&format!("- web: {reason}")),
            "{listed:?}"
        );
    }
}

#[test]
fn a_router_of_several_services_must_name_one() {
    let service = tagged(&with(
        SSH,
        &[
            "traefik.tcp.services.a.loadbalancer.server.port=1",
            "traefik.tcp.services.b.loadbalancer.server.port=2",
        ],
    ));
    assert!(service.routes.is_empty());
    assert!(
        skipped(&service)[0].contains("cannot be linked automatically with several tcp services")
    );
}

#[test]
fn what_protects_or_changes_the_bytes_takes_the_route_down_where_it_is_missing() {
    for (tag, reason) in [
        (
            "routers.web.rulesyntax=v4",
            "`rulesyntax` is not supported yet, and the route must not serve without it",
        ),
        (
            "services.s.loadbalancer.server.tls=true",
            "`loadbalancer.server.tls` alone does not say which name an instance must prove: name a transport of the file that does, with `loadbalancer.serverstransport=NAME@file`",
        ),
        (
            "services.s.loadbalancer.serverstransport=t",
            "the transport \"t\" would be one of tags, which cannot define any: write `NAME@file`",
        ),
        (
            "services.s.loadbalancer.serverstransport=t@consulcatalog",
            "the transport \"t@consulcatalog\" is of the provider \"consulcatalog\": only those of the file can be had, as in `NAME@file`",
        ),
    ] {
        let service = tagged(&with(SSH, &[&format!("traefik.tcp.{tag}")]));
        assert_eq!(broken(&service), reason);
        assert_eq!(skipped(&service), [format!("- web: {reason}")]);
    }
    // A service that the route does not lead to, and a middleware that it does not name, are not its concern.
    route(&tagged(&with(
        SSH,
        &[
            "traefik.tcp.services.s.loadbalancer.server.tls=true",
            "traefik.tcp.middlewares.m.ipallowlist.sourcerange=10.0.0.0/33",
            "traefik.tcp.routers.web.service=web",
        ],
    )));
}

#[test]
fn an_option_set_that_is_not_the_files_takes_the_route_down() {
    for (options, reason) in [
        (
            "strict",
            "the option set \"strict\" would be one of tags, which cannot define any: write `NAME@file`",
        ),
        (
            "strict@internal",
            "the option set \"strict@internal\" is of the provider \"internal\"",
        ),
        (
            "default@consulcatalog",
            "the option set \"default@consulcatalog\" is of the provider",
        ),
    ] {
        let options = format!("portcullis.tcp.routers.r.tls.options={options}");
        let service = tagged(&["portcullis.tcp.routers.r.rule=HostSNI(`a`)", &options]);
        assert!(broken(&service).starts_with(reason), "{service:#?}");
    }
}

#[test]
fn a_service_of_a_provider_that_is_none_here_takes_the_route_down() {
    let service = tagged(&with(SSH, &["traefik.tcp.routers.web.service=web@docker"]));
    assert!(broken(&service).contains("is of the provider \"docker\""));
}

#[test]
fn an_instance_that_cannot_be_read_is_listed_and_hides_no_other() {
    let found = web(vec![
        instance("a", &with(SSH, &["traefik.tcp.routers.web.priority=high"])),
        instance("b", SSH),
        instance("c", &with(SSH, &["traefik.enable=perhaps"])),
    ]);
    let service = service(&found, &exposure());
    route(&service);
    assert_eq!(addresses(&service, "web@consul"), ["10.0.0.98:22"]);
    assert_eq!(
        skipped(&service),
        [
            "node/a -: tag \"traefik.tcp.routers.web.priority\": \"high\" is not a whole number of 64 bits",
            "node/c -: tag \"traefik.enable\": \"perhaps\" is not true or false",
        ]
    );
}

#[test]
fn a_service_whose_tags_cannot_be_read_keeps_its_names_and_refuses_their_clients() {
    for mistake in [
        "traefik.tcp.routers.web.priority=high",
        "traefik.tcp.routers.web.typo=1",
        "traefik.tcp.=1",
        "traefik.enable=perhaps",
        "traefik.consulcatalog.connect=maybe",
    ] {
        let unreadable = tagged(&with(SSH, &[mistake]));
        assert_eq!(unreadable.routes.len(), 1, "{mistake}");
        let route = &unreadable.routes[0];
        assert_eq!(&*route.name, "web@consul");
        assert_eq!(route.rule.text(), "HostSNI(`web.test`)");
        assert_eq!(route.broken.as_deref(), Some("its tags cannot be read"));
    }
    // What is somebody else's stays that, and what is left out stays out.
    let elsewhere = with(
        SSH,
        &[
            "traefik.tcp.x=1",
            "portcullis.tcp.routers.web.entrypoints=ssh",
        ],
    );
    assert!(tagged(&elsewhere).routes.is_empty());
    let disabled = with(SSH, &["traefik.tcp.x=1", "traefik.enable=false"]);
    assert!(tagged(&disabled).routes.is_empty());
}

#[test]
fn an_instance_that_asks_to_be_left_out_is_nowhere() {
    let found = web(vec![instance(
        "a",
        &with(SSH, &["portcullis.enable=false"]),
    )]);
    let none = service(&found, &exposure());
    assert!(none.routes.is_empty() && none.upstreams.is_empty() && none.skipped.is_empty());
}

#[test]
fn what_the_source_could_not_use_is_listed() {
    let mut found = web(vec![instance("a", SSH)]);
    found.unusable = vec![("node/b".into(), "its address \"x\" is no IP address".into())];
    let service = service(&found, &exposure());
    route(&service);
    assert_eq!(
        skipped(&service),
        ["node/b -: its address \"x\" is no IP address"]
    );
}

#[test]
fn what_a_stranger_wrote_makes_no_reason_and_no_name_long() {
    let long = "x".repeat(100_000);
    let tags = [
        format!("traefik.tcp.routers.{long}.rule=HostSNI(`a`)"),
        format!("traefik.tcp.routers.{long}.tls=true"),
        format!("traefik.tcp.routers.b.rule=HostSNI(`{long}`"),
        "traefik.tcp.routers.c.tls=true".to_owned(),
        "traefik.tcp.routers.c.rule=HostSNI(`a`)".to_owned(),
        format!("traefik.tcp.routers.c.entrypoints={long},{long},{long},{long},{long}"),
        "traefik.tcp.routers.d.tls=true".to_owned(),
        "traefik.tcp.routers.d.rule=HostSNI(`a`)".to_owned(),
        format!("traefik.tcp.routers.d.service=web@{long}"),
    ];
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let mut found = web(vec![
        instance("a", &tags),
        instance("b", &["traefik.tcp.=\x1b"]),
    ]);
    found.unusable = vec![("node/c".into(), long.as_str().into())];
    let service = service(&found, &exposure());
    assert_eq!(service.skipped.len(), 6, "{:#?}", service.skipped);
    for skipped in &service.skipped {
        assert!(skipped.reason.chars().count() <= 301);
        assert!(
            skipped
                .router
                .as_ref()
                .is_none_or(|router| router.chars().count() <= 301)
        );
        assert!(!skipped.reason.contains('\x1b'));
    }
}

#[test]
fn a_service_with_too_many_routers_gets_as_many_as_are_allowed_and_is_told() {
    let tags: Vec<String> = (0..1500)
        .flat_map(|n| {
            let router = format!("traefik.tcp.routers.r{n:04}");
            [
                format!("{router}.rule=HostSNI(`h{n}`)"),
                format!("{router}.tls=true"),
            ]
        })
        .collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let service = tagged(&tags);
    assert_eq!(service.routes.len(), 1000);
    assert_eq!(
        skipped(&service),
        [
            "- -: the service defines more than 1000 routers, counting each definition: the rest are not read"
        ]
    );
}

#[test]
fn the_regular_expressions_of_all_routers_of_a_service_share_their_room() {
    let large = format!("HostSNIRegexp(`^[a-z]{{900}}{}$`)", "[a-z]{900}".repeat(20));
    let tags: Vec<String> = (0..10)
        .flat_map(|n| {
            let router = format!("traefik.tcp.routers.r{n}");
            [
                format!("{router}.rule={large}"),
                format!("{router}.tls=true"),
            ]
        })
        .collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let service = tagged(&tags);
    assert!(
        (1..10).contains(&service.routes.len()),
        "{}",
        service.routes.len()
    );
    let refused = skipped(&service);
    assert_eq!(refused.len(), 10 - service.routes.len());
    assert!(
        refused[0].contains("regular expressions are too large"),
        "{refused:?}"
    );
}
