//! Services that ask for the mesh: dialled through their sidecars, or not at all.

use super::*;

/// A service of the mesh with an instance and a sidecar for each id.
fn meshed(ids: &[&str]) -> Found {
    let instances = ids.iter().map(|id| instance(id, &with(SSH, &[CONNECT])));
    let mut found = web(instances.collect());
    found.sidecars = Some(ids.iter().map(|id| sidecar(id)).collect());
    found
}

fn sidecars(found: &Found) -> Vec<String> {
    let service = service(found, &exposure());
    assert_eq!(service.upstreams[0].mesh, Some(found.mesh.clone()));
    assert_eq!(
        upstreams(&service),
        ["web@consul"],
        "no way around the mesh"
    );
    addresses(&service, "web@consul")
}

#[test]
fn one_instance_that_asks_for_the_mesh_asks_for_all() {
    let mut found = meshed(&["a", "b"]);
    found.instances[1] = instance("b", SSH);
    assert_eq!(sidecars(&found), ["10.0.1.97:21000", "10.0.1.98:21000"]);
}

#[test]
fn an_instance_that_cannot_be_read_can_still_ask_for_the_mesh() {
    for tag in [
        "traefik.tcp.nonsense=1",
        "portcullis.consulcatalog.connect=ture",
    ] {
        let mut found = meshed(&["a", "b"]);
        found.instances[0] = instance("a", &[CONNECT, tag]);
        found.instances[1] = instance("b", SSH);
        assert_eq!(
            sidecars(&found),
            ["10.0.1.98:21000"],
            "the sidecar beside it is not used"
        );
    }
}

#[test]
fn an_instance_that_is_left_out_asks_for_nothing() {
    let mut found = meshed(&["a", "b"]);
    found.instances[0] = instance("a", &[CONNECT, "traefik.enable=false"]);
    assert_eq!(sidecars(&found), ["10.0.1.98:21000"]);
    found.instances[1] = instance("b", SSH);
    let made = service(&found, &exposure());
    assert_eq!(made.upstreams[0].mesh, None);
    assert_eq!(addresses(&made, "web@consul"), ["10.0.0.98:22"]);
}

#[test]
fn without_sidecars_or_an_identity_the_route_refuses_and_is_never_dialled_plain() {
    let no_identity = Exposure {
        mesh: false,
        ..exposure()
    };
    for (sidecars, exposure, missing) in [
        (None, exposure(), "its sidecars are not known"),
        (Some(Vec::new()), exposure(), "it has no sidecar there"),
        (
            Some(vec![sidecar("a")]),
            no_identity,
            "this gateway has no identity there: write `mesh_identity` in [consul]",
        ),
    ] {
        let mut found = meshed(&["a"]);
        found.sidecars = sidecars;
        let service = service(&found, &exposure);
        let reason = format!("it asks for the mesh (`consulcatalog.connect=true`), and {missing}");
        assert_eq!(broken(&service), reason);
        assert_eq!(skipped(&service), [format!("- web: {reason}")]);
        assert_eq!(upstreams(&service), ["web@consul"]);
        assert!(service.upstreams[0].mesh.is_some());
    }
}

#[test]
fn a_route_that_leads_elsewhere_does_not_need_the_mesh_of_its_own_service() {
    let mut found = meshed(&["a"]);
    found.sidecars = None;
    found.instances = vec![instance(
        "a",
        &with(
            SSH,
            &[CONNECT, "traefik.tcp.routers.web.service=bastion@file"],
        ),
    )];
    assert_eq!(&*route(&service(&found, &exposure())).upstream, "bastion");
}

#[test]
fn a_sidecar_is_as_healthy_as_the_worse_of_it_and_its_instance() {
    for (own, beside, used) in [
        (Health::Passing, Health::Passing, Some(10)),
        (Health::Passing, Health::Warning, Some(2)),
        (Health::Warning, Health::Passing, Some(2)),
        (Health::Passing, Health::Critical, None),
        (Health::Passing, Health::Maintenance, None),
        (Health::Critical, Health::Passing, None),
    ] {
        let mut found = meshed(&["a"]);
        found.instances[0].health = beside;
        let mut proxy = sidecar("a");
        (proxy.health, proxy.weight_passing, proxy.weight_warning) = (own, 10, 2);
        found.sidecars = Some(vec![proxy]);
        let service = service(&found, &exposure());
        let weight = service.upstreams[0]
            .endpoints
            .first()
            .map(|endpoint| endpoint.weight);
        assert_eq!(weight, used, "{own:?} beside {beside:?}");
        assert_eq!(service.upstreams[0].empty.is_some(), used.is_none());
        route(&service);
    }
}

#[test]
fn a_native_instance_and_a_gateway_speak_for_themselves() {
    let mut found = meshed(&["a"]);
    found.instances[0].health = Health::Warning;
    let mut native = found.instances[0].clone();
    (native.tags, native.health) = (Vec::new(), Health::Passing);
    let mut gateway = sidecar("g");
    gateway.beside = None;
    found.sidecars = Some(vec![native, gateway]);
    assert_eq!(sidecars(&found), ["10.0.0.97:22", "10.0.1.103:21000"]);
    found.instances[0] = instance("a", &["traefik.tcp=1", CONNECT]);
    found.instances.push(instance("b", &with(SSH, &[CONNECT])));
    assert_eq!(
        sidecars(&found),
        ["10.0.1.103:21000"],
        "a native instance is no better than its tags"
    );
}

#[test]
fn the_tags_of_sidecars_count_where_there_is_no_instance() {
    let mut proxy = sidecar("a");
    proxy.tags = with(SSH, &[CONNECT]).into_iter().map(Arc::from).collect();
    let mut disabled = sidecar("b");
    disabled.tags = vec!["traefik.enable=false".into()];
    let mut found = web(Vec::new());
    found.sidecars = Some(vec![disabled, proxy]);
    assert_eq!(sidecars(&found), ["10.0.1.97:21000"]);
    route(&service(&found, &exposure()));

    found.instances = vec![instance("c", &[])];
    assert!(
        service(&found, &exposure()).routes.is_empty(),
        "and nowhere else"
    );
}

#[test]
fn a_service_with_sidecars_that_does_not_ask_for_them_is_dialled_plain_and_flagged() {
    let plain = "it is dialled over plain TCP: tag it `portcullis.consulcatalog.connect=true` to go through its sidecars";
    let mut found = web(vec![instance("a", SSH)]);
    let outside = Exposure {
        mesh: false,
        ..exposure()
    };
    let flagged = |found: &Found, exposure: &Exposure| {
        let service = service(found, exposure);
        assert_eq!(service.upstreams[0].mesh, None);
        route(&service)
            .warnings
            .iter()
            .any(|warning| &**warning == plain)
    };
    assert!(flagged(&found, &exposure()));
    assert!(!flagged(&found, &outside));
    found.sidecars = Some(vec![sidecar("a")]);
    assert!(flagged(&found, &outside));
}

#[test]
fn what_the_mesh_decides_is_not_decided_by_tags() {
    for (tag, warning) in [
        (
            "server.port=2222",
            "`loadbalancer.server.port` has no effect: its sidecar decides",
        ),
        (
            "server.tls=true",
            "`loadbalancer.server.tls` has no effect: the mesh decides how its sidecar is dialled",
        ),
    ] {
        let mut found = meshed(&["a"]);
        let tag = format!("traefik.tcp.services.s.loadbalancer.{tag}");
        found.instances[0] = instance("a", &with(SSH, &[CONNECT, &tag]));
        assert_eq!(sidecars(&found), ["10.0.1.97:21000"]);
        let service = service(&found, &exposure());
        assert_eq!(route(&service).warnings, [warning.into()]);
        assert_eq!(&*route(&service).upstream, "web@consul");
    }
}

#[test]
fn how_a_sidecar_is_dialled_is_obeyed_but_for_its_tls() {
    let v2 = Some(ProxyVersion::V2(ProxyTlvs::default()));
    for (tag, asked) in [
        (
            "serverstransport=t@file",
            Dialling {
                transport: Some("t".into()),
                ..Dialling::default()
            },
        ),
        (
            "proxyprotocol=true",
            Dialling {
                send_proxy: v2,
                ..Dialling::default()
            },
        ),
        (
            "terminationdelay=250",
            Dialling {
                half_closed: Some(Duration::from_millis(250)),
                ..Dialling::default()
            },
        ),
    ] {
        let mut found = meshed(&["a"]);
        let tag = format!("traefik.tcp.services.s.loadbalancer.{tag}");
        let tls = "traefik.tcp.services.s.loadbalancer.server.tls=true";
        found.instances[0] = instance("a", &with(SSH, &[CONNECT, &tag, tls]));
        let service = service(&found, &exposure());
        let route = route(&service);
        assert_eq!(&*route.upstream, "web/s@consul");
        assert!(route.mesh);
        let upstream = (service.upstreams.iter())
            .find(|upstream| upstream.name == route.upstream)
            .unwrap();
        assert_eq!(upstream.mesh, Some(found.mesh.clone()));
        assert_eq!(upstream.dialling, Ok(asked));
        assert_eq!(addresses(&service, "web/s@consul"), ["10.0.1.97:21000"]);
    }
}

#[test]
fn a_check_in_the_mesh_goes_to_the_sidecar_whatever_port_it_names() {
    const CHECK: [&str; 2] = [
        "traefik.tcp.services.s.loadbalancer.healthcheck.port=8080",
        "traefik.tcp.services.s.loadbalancer.healthcheck.expect=x",
    ];
    let mut found = meshed(&["a"]);
    let plain = web(vec![instance("a", &with(SSH, &CHECK))]);
    let made = service(&plain, &exposure());
    let of = |made: &Service, name: &str| {
        let mut upstreams = made.upstreams.iter();
        let upstream = upstreams.find(|upstream| &*upstream.name == name).unwrap();
        upstream.check.clone()
    };
    assert_eq!(of(&made, "web@consul"), None);
    let check = of(&made, &route(&made).upstream).unwrap();
    assert_eq!((check.port, &*check.expect), (Some(8080), &b"x"[..]));

    found.instances = vec![instance("a", &with(SSH, &[CONNECT, CHECK[0], CHECK[1]]))];
    let made = service(&found, &exposure());
    let check = of(&made, "web@consul").unwrap();
    assert_eq!((check.port, &*check.expect), (None, &b"x"[..]));
    let warnings = &route(&made).warnings;
    let is_told = |warning: &Arc<str>| warning.contains("healthcheck.port` has no effect");
    assert!(warnings.iter().any(is_told), "{warnings:?}");
}
