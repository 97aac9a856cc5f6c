//! Instances that are tried out: which clients land on them, and that nobody else does.

use super::*;

const CANARY: &str = "traefik.consulcatalog.canary=true";

/// A router of a canary, for a host of its own.
const OWN: &[&str] = &[
    CANARY,
    "traefik.tcp.routers.new.tls.passthrough=true",
    "traefik.tcp.routers.new.rule=HostSNI(`new.test`)",
];

fn find<'s>(service: &'s Service, route: &str) -> &'s ServiceRoute {
    let mut routes = service.routes.iter();
    let found = routes.find(|found| &*found.name == route);
    found.unwrap_or_else(|| panic!("no {route}: {service:#?}"))
}

/// The addresses that a route leads to.
fn dialled(service: &Service, route: &str) -> Vec<String> {
    addresses(service, &find(service, route).upstream)
}

#[test]
fn a_canary_gets_the_clients_of_its_own_routers_and_nobody_elses() {
    let found = web(vec![
        instance("a", SSH),
        instance("b", SSH),
        instance("c", OWN),
    ]);
    let service = service(&found, &exposure());
    assert_eq!(
        dialled(&service, "web@consul"),
        ["10.0.0.97:22", "10.0.0.98:22"]
    );
    assert_eq!(dialled(&service, "web/new@consul"), ["10.0.0.99:22"]);
    assert_eq!(skipped(&service), [""; 0]);
    // One that is promoted is one of them.
    let found = web(vec![instance("a", SSH), instance("c", SSH)]);
    let promoted = super::service(&found, &exposure());
    assert_eq!(
        dialled(&promoted, "web@consul"),
        ["10.0.0.97:22", "10.0.0.99:22"]
    );
}

#[test]
fn a_router_of_a_canary_that_names_the_service_leads_to_the_others() {
    let named = with(OWN, &["traefik.tcp.routers.new.service=web"]);
    let found = web(vec![instance("a", SSH), instance("c", &named)]);
    let service = service(&found, &exposure());
    assert_eq!(dialled(&service, "web/new@consul"), ["10.0.0.97:22"]);
}

#[test]
fn one_that_names_its_service_is_refused_where_that_cannot_be_reached_in_the_mesh() {
    let named = with(OWN, &["traefik.tcp.routers.new.service=web", CONNECT]);
    let service = service(&web(vec![instance("c", &named)]), &exposure());
    let broken = find(&service, "web/new@consul").broken.as_deref();
    assert!(
        broken.is_some_and(|why| why.contains("it asks for the mesh")),
        "{service:#?}"
    );
}

#[test]
fn a_canary_takes_no_router_and_no_rule_from_its_service() {
    for tags in [
        with(SSH, &[CANARY]),
        [
            CANARY,
            "traefik.tcp.routers.other.tls.passthrough=true",
            "traefik.tcp.routers.other.rule=HostSNI(`web.test`)",
        ]
        .to_vec(),
    ] {
        let newest = Instance {
            modified: 9,
            ..instance("c", &tags)
        };
        let service = service(&web(vec![instance("a", SSH), newest]), &exposure());
        assert_eq!(service.routes.len(), 1, "{service:#?}");
        assert_eq!(dialled(&service, "web@consul"), ["10.0.0.97:22"]);
        assert!(
            skipped(&service)[0].contains("it is a canary's"),
            "{service:#?}"
        );
    }
}

#[test]
fn sets_of_canaries_are_apart_from_each_other_and_the_newest_are_routed() {
    let all: Vec<Instance> = (0..20)
        .map(|n| {
            let rule = format!("traefik.tcp.routers.r{n}.rule=HostSNI(`r{n}.test`)");
            let tls = format!("traefik.tcp.routers.r{n}.tls.passthrough=true");
            Instance {
                id: format!("node/{n}").into(),
                address: format!("10.0.0.{n}:22").parse().ok(),
                modified: n,
                ..instance("a", &[CANARY, &rule, &tls])
            }
        })
        .collect();
    let service = service(&web(all), &exposure());
    assert_eq!(service.routes.len(), 8);
    assert_eq!(dialled(&service, "web/r19@consul"), ["10.0.0.19:22"]);
    assert_eq!(dialled(&service, "web/r12@consul"), ["10.0.0.12:22"]);
    let skipped = skipped(&service);
    assert_eq!(skipped.len(), 12, "{skipped:#?}");
    assert!(skipped[0].contains("there are newer ones"), "{skipped:#?}");
}

#[test]
fn canaries_have_their_sidecars_and_are_protected_where_their_service_is() {
    let of = |tags: &[&str]| {
        let mut found = web(vec![
            instance("a", &with(SSH, &[CONNECT])),
            instance("c", tags),
        ]);
        found.sidecars = Some(vec![sidecar("a"), sidecar("c")]);
        service(&found, &exposure())
    };
    for tags in [with(OWN, &[CONNECT]), OWN.to_vec()] {
        let service = of(&tags);
        assert_eq!(dialled(&service, "web@consul"), ["10.0.1.97:21000"]);
        assert_eq!(dialled(&service, "web/new@consul"), ["10.0.1.99:21000"]);
        let upstreams = service.upstreams.iter();
        assert!(upstreams.clone().all(|upstream| {
            upstream
                .mesh
                .as_ref()
                .is_some_and(|mesh| &*mesh.service == "web")
        }));
    }
}

#[test]
fn an_upstream_of_the_file_that_stands_for_a_service_has_none_of_its_canaries() {
    let mut exposure = exposure();
    let wanted = Wanted {
        upstream: "file".into(),
        mesh: false,
    };
    exposure.wanted.insert("web".to_owned(), vec![wanted]);
    let found = web(vec![instance("a", SSH), instance("c", OWN)]);
    assert_eq!(
        addresses(&service(&found, &exposure), "file"),
        ["10.0.0.97:22"]
    );
}

#[test]
fn by_default_a_canary_has_the_name_that_traefik_gives_it() {
    let mut exposure = exposure();
    let template = "HostSNI(`{{ normalize .Name }}.test`)";
    exposure.default_rule = crate::rule::Template::parse(template).ok();
    let tags = ["traefik.enable=true", CANARY];
    let found = web(vec![instance("a", &[]), instance("c", &tags)]);
    let service = service(&found, &exposure);
    let rules: Vec<String> = service
        .routes
        .iter()
        .map(|route| route.rule.to_string())
        .collect();
    // FNV-1 of `traefik.consulcatalog.canary=truetraefik.enable=true`.
    assert_eq!(
        rules,
        [
            "HostSNI(`web.test`)",
            "HostSNI(`web-9558336265365081477.test`)"
        ]
    );
}
