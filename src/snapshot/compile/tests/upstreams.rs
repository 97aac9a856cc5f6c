//! Upstreams whose endpoints or identity come from discovery: of the file and of services.

use std::borrow::Cow;
use std::time::Instant;

use super::services::{
    Desk, bare, desk, identity, in_mesh, standing_for_a_service, upstream, usual,
};

use super::*;
use crate::config::ConsulService;
use crate::name::SpiffeId;
use crate::snapshot::service::ServiceUpstream;

#[test]
fn an_upstream_of_the_file_has_the_endpoints_of_the_service_that_it_stands_for() {
    let mut desk = Desk::new(standing_for_a_service(false));
    let empty = |desk: &Desk| desk.upstream("web").empty.as_deref().map(str::to_owned);
    let unknown = Some("consul has no service `web`".to_owned());
    assert_eq!(empty(&desk), unknown);
    let web = Service {
        upstreams: vec![upstream("web", &["10.0.1.1:80"])],
        ..bare("web")
    };
    desk.learn([web.clone()]);
    assert_eq!(desk.dials("web"), ["10.0.1.1:80"]);
    assert_eq!(empty(&desk), None);
    desk.compile();
    assert_eq!(desk.dials("web"), ["10.0.1.1:80"]);

    let mut critical = web;
    critical.upstreams[0].endpoints.clear();
    critical.upstreams[0].empty = Some("its only instance is critical".into());
    desk.learn([critical]);
    assert_eq!(
        empty(&desk).as_deref(),
        Some("its only instance is critical")
    );

    desk.forget("web");
    assert!(desk.dials("web").is_empty());
    assert_eq!(empty(&desk), unknown);
    assert_eq!(desk.gets("web.test").as_deref(), Some("web"));
}

#[test]
fn an_upstream_of_the_file_that_is_to_be_in_the_mesh_is_never_dialled_plainly() {
    let mut desk = Desk::new(standing_for_a_service(true));
    let broken = |desk: &Desk| match &desk.upstream("web").transport {
        Transport::Broken(why) => why.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(broken(&desk), "nothing is known of its service yet");
    desk.learn([Service {
        upstreams: vec![upstream("web", &["10.0.1.1:80"])],
        ..bare("web")
    }]);
    assert_eq!(broken(&desk), "its service is not in the mesh");
}

#[test]
fn a_mesh_upstream_waits_for_the_identity_and_a_new_one_keeps_its_turn_and_what_fails() {
    let mut desk = desk();
    let mut web = usual("web", "10.0.1.1:80");
    web.upstreams[0] = ServiceUpstream {
        mesh: in_mesh("web"),
        ..upstream("web@consul", &["10.0.1.1:80", "10.0.1.2:80"])
    };
    desk.learn([web]);
    assert_eq!(
        desk.upstream("web@consul").transport,
        Transport::Broken("the gateway has no mesh identity".into())
    );
    let first = identity();
    desk.inputs.identity = Some(Arc::clone(&first));
    desk.compile();
    let before = desk.upstream("web@consul");
    let Transport::Tls(tls) = &before.transport else {
        panic!("{:?}", before.transport);
    };
    let id = "spiffe://mesh.test/ns/default/dc/dc1/svc/web";
    assert_eq!(tls.spiffe.as_ref().map(SpiffeId::as_str), Some(id));
    assert_eq!(
        tls.server_name.to_str(),
        "web.default.dc1.internal.mesh.test"
    );
    assert!(before.is_mesh());
    let now = Instant::now();
    let failing = before.turn(now).next().unwrap();
    let address = failing.endpoint.address;
    assert!(failing.failed(now).is_some());

    let renewed = identity();
    desk.inputs.identity = Some(Arc::clone(&renewed));
    desk.compile();
    let after = desk.upstream("web@consul");
    let Transport::Tls(tls) = &after.transport else {
        panic!("{:?}", after.transport);
    };
    assert!(Arc::ptr_eq(tls.identity.as_ref().unwrap(), &renewed));
    assert!(
        Arc::ptr_eq(&before.state, &after.state),
        "its turn goes on where it was"
    );
    let mut out = after.states().filter(|(_, state)| state.out(now).is_some());
    assert_eq!(out.next().unwrap().0.address, address);
    assert!(out.next().is_none());
}

#[test]
fn no_service_takes_the_place_of_an_upstream_that_the_file_has_for_itself() {
    let mut desk = desk();
    desk.learn([Service {
        upstreams: vec![
            upstream("b", &["10.6.6.6:6"]),
            upstream("10.0.0.9:22", &["10.6.6.6:6"]),
        ],
        ..bare("evil")
    }]);
    assert_eq!(desk.dials("b"), ["10.0.0.2:22"]);
    assert!(desk.snapshot.upstream("10.0.0.9:22").is_none());
    desk.forget("evil");
    assert_eq!(desk.dials("b"), ["10.0.0.2:22"]);
}

#[test]
fn no_service_takes_the_place_of_an_upstream_that_the_file_has_for_another() {
    let mut desk = Desk::new(standing_for_a_service(false));
    let evil = Service {
        upstreams: vec![upstream("web", &["10.6.6.6:6"])],
        ..bare("evil")
    };
    desk.learn([evil.clone()]);
    assert!(desk.dials("web").is_empty());
    let web = Service {
        upstreams: vec![upstream("web", &["10.0.1.1:80"])],
        ..bare("web")
    };
    desk.learn([evil, web]);
    desk.forget("evil");
    desk.compile();
    assert_eq!(desk.dials("web"), ["10.0.1.1:80"]);
}

#[test]
fn an_upstream_that_comes_to_stand_for_a_service_dials_its_former_endpoints_no_more() {
    let mut desk = desk();
    assert_eq!(desk.dials("b"), ["10.0.0.2:22"]);
    let b = desk.inputs.config.upstreams.get_mut("b").unwrap();
    b.endpoints.clear();
    b.service = Some(ConsulService {
        place: None,
        name: "b".to_owned(),
        mesh: false,
    });
    desk.compile();
    assert!(desk.dials("b").is_empty());
    desk.learn([Service {
        upstreams: vec![upstream("b", &["10.0.1.1:80"])],
        ..bare("b")
    }]);
    assert_eq!(desk.dials("b"), ["10.0.1.1:80"]);
    desk.inputs.config.upstreams.remove("b");
    desk.compile();
    assert!(desk.snapshot.upstream("b").is_none());
}

#[test]
fn a_route_that_asks_for_the_mesh_refuses_an_upstream_outside_it_whoever_owns_that() {
    let mut desk = Desk::new(inputs(""));
    let mut web = usual("web", "10.0.1.1:80");
    web.routes[0].upstream = "other@consul".into();
    web.routes[0].mesh = true;
    let way = |desk: &Desk| {
        let route = route(&desk.snapshot, "web.test").unwrap();
        let way = desk.snapshot.way(route);
        way.map(|upstream| upstream.name.to_string())
            .map_err(Cow::into_owned)
    };
    desk.learn([web.clone()]);
    let gone = "its upstream does not exist".to_owned();
    assert_eq!(way(&desk), Err(gone));

    desk.learn([usual("other", "10.0.1.2:80")]);
    let why = way(&desk).unwrap_err();
    assert!(why.contains("asks for the mesh"), "{why}");

    let mut other = usual("other", "10.0.1.2:80");
    other.upstreams[0].mesh = in_mesh("other");
    desk.inputs.identity = Some(identity());
    desk.learn([other]);
    assert_eq!(way(&desk), Ok("other@consul".to_owned()));

    web.routes[0].mesh = false;
    desk.learn([web, usual("other", "10.0.1.2:80")]);
    assert_eq!(way(&desk), Ok("other@consul".to_owned()));
}
