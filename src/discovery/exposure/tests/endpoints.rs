//! Which addresses are dialled, with which shares, and what is said where there is none.

use super::*;

fn healthy(id: &str, health: Health) -> Instance {
    Instance {
        health,
        weight_passing: 10,
        weight_warning: 2,
        ..instance(id, SSH)
    }
}

fn weights(service: &Service) -> Vec<u32> {
    let endpoints = service.upstreams[0].endpoints.iter();
    endpoints.map(|endpoint| endpoint.weight).collect()
}

fn empty(instances: Vec<Instance>) -> String {
    let service = service(&web(instances), &exposure());
    assert_eq!(service.routes.len(), 1, "the route stays");
    let reason = service.upstreams[0].empty.as_ref().unwrap();
    reason.to_string()
}

#[test]
fn passing_and_warning_instances_are_dialled_with_the_weights_that_they_ask_for() {
    let mut heavy = healthy("c", Health::Passing);
    heavy.weight_passing = 100_000;
    let mut weightless = healthy("d", Health::Warning);
    weightless.weight_warning = 0;
    let found = web(vec![
        heavy,
        weightless,
        healthy("b", Health::Warning),
        healthy("a", Health::Passing),
        healthy("e", Health::Critical),
        healthy("f", Health::Maintenance),
    ]);
    let service = service(&found, &exposure());
    assert_eq!(weights(&service), [10, 2, 65_535, 0]);
    let first = &service.upstreams[0].endpoints[0];
    assert_eq!(
        (first.address.to_string().as_str(), &*first.configured),
        ("10.0.0.97:22", "node/a")
    );
    assert_eq!(service.upstreams[0].empty, None);
    assert_eq!(skipped(&service), [""; 0]);
}

#[test]
fn an_address_that_is_registered_twice_is_dialled_once() {
    let (mut a, b) = (healthy("a", Health::Warning), healthy("b", Health::Passing));
    a.address.clone_from(&b.address);
    let made = service(&web(vec![a, b]), &exposure());
    assert_eq!(weights(&made), [10]);
}

#[test]
fn where_nothing_can_be_dialled_the_route_stays_and_says_why() {
    let weightless = |id| Instance {
        weight_passing: 0,
        ..instance(id, SSH)
    };
    let nowhere = |id| Instance {
        address: None,
        ..instance(id, SSH)
    };
    let critical = |id| healthy(id, Health::Critical);
    let maintained = |id| healthy(id, Health::Maintenance);
    for (instances, reason) in [
        (vec![critical("a")], "its only instance is critical"),
        (
            vec![critical("a"), critical("b"), critical("c")],
            "all 3 instances are critical",
        ),
        (
            vec![critical("a"), maintained("b")],
            "all 2 instances are critical or in maintenance",
        ),
        (
            vec![weightless("a"), weightless("b")],
            "all 2 instances are of weight 0",
        ),
        (
            vec![weightless("a"), critical("b")],
            "all 2 instances are critical or of weight 0",
        ),
        (
            vec![maintained("a"), instance("b", &["traefik.tcp=1"])],
            "all 2 instances are in maintenance or without readable tags",
        ),
        (
            vec![nowhere("a")],
            "its only instance is without an address to dial",
        ),
        (
            vec![critical("a"), instance("b", &["traefik.enable=false"])],
            "its only instance is critical",
        ),
    ] {
        assert_eq!(empty(instances), reason);
    }
}

#[test]
fn an_instance_that_is_this_gateway_itself_is_never_dialled() {
    let mut own = instance("a", SSH);
    own.address = "[::ffff:192.0.2.9]:8443".parse().ok();
    let made = service(&web(vec![own.clone(), instance("b", SSH)]), &exposure());
    assert_eq!(addresses(&made, "web@consul"), ["10.0.0.98:22"]);
    assert_eq!(
        skipped(&made),
        [
            "node/a -: [::ffff:192.0.2.9]:8443 points at this gateway's own listener: it would dial itself"
        ]
    );
    assert_eq!(empty(vec![own]), "its only instance is this gateway itself");

    let port = "traefik.tcp.services.s.loadbalancer.server.port=8443";
    let mut by_port = instance("a", &with(SSH, &[port]));
    by_port.address = "192.0.2.9:22".parse().ok();
    let made = service(&web(vec![by_port]), &exposure());
    assert!(addresses(&made, "web/s@consul").is_empty());
}

#[test]
fn a_port_by_its_name_is_the_one_that_each_instance_was_registered_with() {
    let named = "traefik.tcp.services.s.loadbalancer.server.port=grpc";
    let of = |id: &str, ports: &[(&str, u16)]| Instance {
        ports: (ports.iter())
            .map(|(name, port)| (Arc::from(*name), *port))
            .collect(),
        ..instance(id, &with(SSH, &[named]))
    };
    let all = vec![
        of("a", &[("ssh", 22), ("grpc", 9090)]),
        of("b", &[("grpc", 9191)]),
        of("c", &[("GRPC", 9292)]),
    ];
    let made = service(&web(all), &exposure());
    assert_eq!(
        addresses(&made, "web/s@consul"),
        ["10.0.0.97:9090", "10.0.0.98:9191"]
    );
    let told = skipped(&made);
    assert!(
        told.len() == 1 && told[0].contains("node/c") && told[0].contains("\"grpc\""),
        "{told:?}"
    );

    let mut found = web(vec![instance("a", &with(SSH, &[CONNECT, named]))]);
    found.sidecars = Some(vec![sidecar("a")]);
    let made = service(&found, &exposure());
    assert_eq!(skipped(&made), [""; 0]);
    let warnings = format!("{:?}", made.routes[0].warnings);
    assert!(warnings.contains("its sidecar decides"), "{warnings}");
}

#[test]
fn a_sidecar_that_is_this_gateway_itself_is_never_dialled() {
    let mut found = web(vec![instance("a", &with(SSH, &[CONNECT]))]);
    let mut own = sidecar("a");
    own.address = "192.0.2.9:8443".parse().ok();
    found.sidecars = Some(vec![own]);
    let service = service(&found, &exposure());
    assert!(service.upstreams[0].endpoints.is_empty());
    assert_eq!(service.skipped.len(), 1);
}

fn wanting(mesh: bool) -> Exposure {
    let wanted = Wanted {
        upstream: "bastion".into(),
        mesh,
    };
    Exposure {
        wanted: [("web".to_owned(), vec![wanted])].into(),
        ..exposure()
    }
}

#[test]
fn an_upstream_of_the_file_has_the_instances_of_its_service_whatever_their_tags_are() {
    let found = web(vec![
        instance("a", &[]),
        instance("b", &["traefik.tcp.nonsense=1"]),
        instance("c", &["traefik.enable=false"]),
    ]);
    let made = service(&found, &wanting(false));
    assert_eq!(upstreams(&made), ["bastion"]);
    assert_eq!(
        addresses(&made, "bastion"),
        ["10.0.0.97:22", "10.0.0.98:22"]
    );
    assert_eq!(made.upstreams[0].mesh, None);
    let other = Found {
        key: ServiceKey {
            place: None,
            name: "other".into(),
            ..found.key.clone()
        },
        ..found
    };
    assert_eq!(upstreams(&service(&other, &wanting(false))), [""; 0]);
}

#[test]
fn an_upstream_of_the_file_in_the_mesh_has_the_sidecars_alone() {
    let mut found = web(vec![instance("a", SSH), instance("b", &["traefik.tcp=1"])]);
    let none = service(&found, &wanting(true));
    let bastion = &none.upstreams[1];
    assert!(bastion.mesh.is_some() && bastion.endpoints.is_empty());
    assert_eq!(bastion.empty.as_deref(), Some("it has no sidecar"));
    found.sidecars = Some(vec![sidecar("a"), sidecar("b")]);
    let made = service(&found, &wanting(true));
    assert_eq!(
        addresses(&made, "bastion"),
        ["10.0.1.97:21000", "10.0.1.98:21000"]
    );
    assert_eq!(made.upstreams[1].mesh, Some(found.mesh));
    assert_eq!(
        made.upstreams[0].mesh, None,
        "what its tags expose is dialled as they say"
    );
}

#[test]
fn an_upstream_of_the_file_says_when_there_is_no_such_service() {
    for mesh in [false, true] {
        let nothing = Found {
            sidecars: mesh.then(Vec::new),
            ..web(Vec::new())
        };
        let service = service(&nothing, &wanting(mesh));
        let empty = service.upstreams[0].empty.as_deref();
        assert_eq!(empty, Some("consul has no service `web`"));
    }
}
