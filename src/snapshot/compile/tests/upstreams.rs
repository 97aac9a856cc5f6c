//! Upstreams whose endpoints or identity come from discovery: of the file and of services.

use std::time::Instant;

use super::services::{
    Desk, bare, desk, identity, in_mesh, standing_for_a_service, upstream, usual,
};
use super::*;
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
