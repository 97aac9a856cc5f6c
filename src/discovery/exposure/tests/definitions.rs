//! Several instances that say different things.

use super::*;

fn at(modified: u64, instance: Instance) -> Instance {
    Instance {
        modified,
        ..instance
    }
}

fn ruled(id: &str, rule: &str) -> Instance {
    instance(
        id,
        &with(SSH, &[&format!("portcullis.tcp.routers.web.rule={rule}")]),
    )
}

#[test]
fn where_instances_disagree_the_newest_counts_and_the_others_are_listed() {
    let instances = vec![
        at(5, ruled("a", "HostSNI(`old`)")),
        at(9, ruled("b", "HostSNI(`new`)")),
        at(7, ruled("c", "HostSNI(`old`)")),
        at(3, ruled("d", "HostSNI(`new`)")),
        at(99, instance("e", &[])),
    ];
    let service = service(&web(instances), &exposure());
    assert_eq!(route(&service).rule.text(), "HostSNI(`new`)");
    assert_eq!(
        skipped(&service),
        [
            "node/a web: it differs from the newer definition of node/b, which counts",
            "node/c web: it differs from the newer definition of node/b, which counts",
        ]
    );
    assert_eq!(
        addresses(&service, "web@consul").len(),
        5,
        "each of them is dialled"
    );
}

#[test]
fn of_two_that_are_as_new_the_greater_id_counts() {
    let instances = vec![ruled("b", "HostSNI(`b`)"), ruled("a", "HostSNI(`a`)")];
    let service = service(&web(instances), &exposure());
    assert_eq!(route(&service).rule.text(), "HostSNI(`b`)");
}

#[test]
fn a_new_definition_that_cannot_be_read_leaves_the_old_one_serving() {
    let instances = vec![
        at(1, ruled("a", "HostSNI(`a`)")),
        at(2, ruled("b", "HostSNI(`")),
    ];
    let service = service(&web(instances), &exposure());
    assert_eq!(route(&service).rule.text(), "HostSNI(`a`)");
    let listed = skipped(&service);
    assert_eq!(listed.len(), 1);
    assert!(
        listed[0].starts_with("node/b web: its rule: "),
        "{listed:?}"
    );
}

#[test]
fn a_new_definition_that_must_refuse_is_not_replaced_by_an_old_one_that_need_not() {
    let allow_list = with(SSH, &["traefik.tcp.routers.web.middlewares=office@docker"]);
    for newer in [
        instance("b", &allow_list),
        instance("b", &with(SSH, &["portcullis.tcp.routers.web.tls=false"])),
        instance(
            "b",
            &with(SSH, &["portcullis.tcp.routers.web.entrypoints=internal"]),
        ),
    ] {
        let found = web(vec![at(1, instance("a", SSH)), at(2, newer)]);
        let service = service(&found, &exposure());
        assert!(
            service.routes.iter().all(|route| route.broken.is_some()),
            "{service:#?}"
        );
    }
}

#[test]
fn a_definition_that_several_share_is_refused_once() {
    let instances = vec![ruled("a", "HostSNI(`"), ruled("b", "HostSNI(`")];
    let listed = skipped(&service(&web(instances), &exposure()));
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert!(listed[0].starts_with("- web: "));
}

#[test]
fn each_instance_of_a_tcp_service_is_dialled_at_the_port_that_it_says() {
    let ssh = |id: &str, port: &str| {
        let port = format!("traefik.tcp.services.ssh.loadbalancer.server.port={port}");
        instance(
            id,
            &with(SSH, &[&port, "traefik.tcp.routers.web.service=ssh"]),
        )
    };
    let found = web(vec![
        ssh("a", "2222"),
        ssh("b", "2223"),
        ssh("c", ""),
        instance("d", SSH),
    ]);
    let service = service(&found, &exposure());
    assert_eq!(
        addresses(&service, "web/ssh@consul"),
        ["10.0.0.97:2222", "10.0.0.98:2223", "10.0.0.99:22"],
        "one that does not define it does not say where it is"
    );
    assert_eq!(upstreams(&service), ["web@consul", "web/ssh@consul"]);
}

#[test]
fn an_instance_that_is_to_be_dialled_in_another_way_than_the_newest_is_not_dialled() {
    let port = "traefik.tcp.services.s.loadbalancer.server.port=22";
    let encrypted = "traefik.tcp.services.s.loadbalancer.server.tls=true";
    let plain = at(2, instance("a", &with(SSH, &[port])));
    let tls = at(1, instance("b", &with(SSH, &[port, encrypted])));
    let found = web(vec![plain.clone(), tls.clone()]);
    let made = service(&found, &exposure());
    route(&made);
    assert_eq!(addresses(&made, "web/s@consul"), ["10.0.0.97:22"]);
    assert_eq!(
        skipped(&made),
        [
            "node/b -: its tcp service \"s\" is to be dialled in another way than the newer one of node/a"
        ]
    );
    let found = web(vec![at(0, plain), tls]);
    assert!(broken(&service(&found, &exposure())).starts_with("`loadbalancer.server.tls`"));
}

#[test]
fn of_how_long_one_side_may_go_on_the_newest_instance_decides_for_all() {
    let delay = |ms: i64| format!("traefik.tcp.services.s.loadbalancer.terminationdelay={ms}");
    for (newest, expected) in [
        (100, Duration::from_millis(100)),
        (0, Duration::ZERO),
        (-1, Timing::ENDLESS),
        (i64::MAX, Timing::ENDLESS),
    ] {
        let found = web(vec![
            at(1, instance("a", &with(SSH, &[&delay(5)]))),
            at(2, instance("b", &with(SSH, &[&delay(newest)]))),
        ]);
        let made = service(&found, &exposure());
        assert_eq!(
            addresses(&made, "web/s@consul"),
            ["10.0.0.97:22", "10.0.0.98:22"]
        );
        let dialling = made.upstreams[1].dialling.as_ref().unwrap();
        assert_eq!(dialling.half_closed, Some(expected), "{newest}");
    }
}
