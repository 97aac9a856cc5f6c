//! Who gets a name that several ask for, and what it serves when it changes hands.

use super::services::{asked, bare, desk, upstream, usual};
use super::*;
use crate::config::ConsulService;

#[test]
fn of_two_services_with_a_route_of_one_name_the_first_by_name_has_it() {
    for swapped in [false, true] {
        let mut desk = desk();
        let mut both = [usual("a", "10.0.1.1:80"), usual("b", "10.0.2.1:80")];
        for service in &mut both {
            service.routes[0].name = "web@consul".into();
        }
        if swapped {
            both.reverse();
        }
        for service in both.clone() {
            desk.learn([service]);
        }
        assert_eq!(desk.gets("a.test").as_deref(), Some("web@consul"));
        assert_eq!(desk.gets("b.test"), None);
        desk.compile();
        assert_eq!(desk.gets("b.test"), None);
        desk.forget("a");
        assert_eq!(desk.gets("a.test"), None);
        assert_eq!(desk.gets("b.test").as_deref(), Some("web@consul"));
        desk.forget("b");
        assert_eq!(desk.snapshot.table.routes().len(), 2);
    }
}

#[test]
fn a_name_that_moves_from_one_service_to_another_is_served_throughout() {
    for (from, to) in [("a", "b"), ("b", "a")] {
        let mut desk = desk();
        desk.learn([usual(from, "10.0.1.1:80")]);
        let mut heir = usual(to, "10.0.2.1:80");
        heir.upstreams[0].name = format!("{from}@consul").into();
        heir.routes = vec![asked(
            &format!("{from}@consul"),
            "HostSNI(`moved.test`)",
            &format!("{from}@consul"),
        )];
        desk.learn([bare(from), heir]);
        assert_eq!(desk.gets("moved.test"), Some(format!("{from}@consul")));
        assert_eq!(desk.dials(&format!("{from}@consul")), ["10.0.2.1:80"]);
    }
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
fn an_upstream_that_comes_to_stand_for_a_service_dials_its_former_endpoints_no_more() {
    let mut desk = desk();
    assert_eq!(desk.dials("b"), ["10.0.0.2:22"]);
    let b = desk.inputs.config.upstreams.get_mut("b").unwrap();
    b.endpoints.clear();
    b.service = Some(ConsulService {
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
