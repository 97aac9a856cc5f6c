//! What the middlewares of a route are, whoever defines them, and that a route without one of them serves nobody.

use super::services::{Desk, bare, key, usual};
use super::*;
use crate::config::Middleware;

const FILE: &str = r#"
    [middlewares.office]
    ip_allow_list = ["10.0.0.0/8"]
    [middlewares.few]
    in_flight_conn = 2
    [routes.one]
    host = "one.test"
    passthrough = true
    upstream = "10.0.0.1:22"
    middlewares = ["few", "office"]
"#;

fn few(most: usize) -> Result<Middleware, Arc<str>> {
    Ok(Middleware::InFlightConn(most))
}

/// A service with a route that names these.
fn naming(name: &str, middlewares: &[&str]) -> Service {
    let mut service = usual(name, "10.0.1.1:80");
    service.routes[0].middlewares = middlewares.iter().map(|name| Arc::from(*name)).collect();
    service
}

/// A service that defines `m@consul`.
fn defining(name: &str, definition: Result<Middleware, Arc<str>>) -> Service {
    let mut service = bare(name);
    service.middlewares = [("m@consul".into(), definition)].into();
    service
}

/// The numbers that the middlewares of a host's route say.
fn asked(desk: &Desk, host: &str) -> Result<Vec<usize>, String> {
    let found = desk
        .snapshot
        .middlewares(route(&desk.snapshot, host).unwrap())?;
    let most = found.into_iter().filter_map(|middleware| match middleware {
        Middleware::InFlightConn(most) => Some(*most),
        Middleware::IpAllowList(_) => None,
    });
    Ok(most.collect())
}

#[test]
fn a_middleware_of_the_file_is_had_by_its_routes_and_by_those_of_services() {
    let mut desk = Desk::new(inputs(FILE));
    desk.learn([naming("web", &["few", "gone"]), naming("api", &["few"])]);
    assert_eq!(asked(&desk, "one.test"), Ok(vec![2]));
    assert_eq!(asked(&desk, "api.test"), Ok(vec![2]));
    let gone = "the file has no middleware \"gone\"";
    assert_eq!(asked(&desk, "web.test"), Err(gone.to_owned()));

    let text = FILE
        .replace("= 2", "= 3")
        .replace(".office]", ".gone]")
        .replace(", \"office\"", "");
    desk.inputs = inputs(&text);
    desk.compile();
    assert_eq!(asked(&desk, "one.test"), Ok(vec![3]));
    assert_eq!(asked(&desk, "web.test"), Ok(vec![3]));
    desk.inputs = inputs(ROUTES);
    desk.compile();
    let gone = "the file has no middleware \"few\"";
    assert_eq!(asked(&desk, "api.test"), Err(gone.to_owned()));
}

#[test]
fn a_middleware_of_another_service_comes_changes_and_goes_with_it() {
    let mut desk = Desk::new(inputs(FILE));
    desk.learn([naming("web", &["m@consul"])]);
    let gone = Err("no service defines its middleware \"m@consul\"".to_owned());
    assert_eq!(asked(&desk, "web.test"), gone);
    for most in [4, 5] {
        desk.learn([defining("edge", few(most))]);
        assert_eq!(asked(&desk, "web.test"), Ok(vec![most]));
    }
    desk.compile();
    assert_eq!(asked(&desk, "web.test"), Ok(vec![5]));
    desk.learn([defining("edge", Err("its `sourcerange` is empty".into()))]);
    let wrong = "its middleware \"m@consul\", of the service `edge`: its `sourcerange` is empty";
    assert_eq!(asked(&desk, "web.test"), Err(wrong.to_owned()));
    desk.learn([bare("edge")]);
    assert_eq!(asked(&desk, "web.test"), gone);
    desk.learn([defining("edge", few(4))]);
    desk.forget("edge");
    assert_eq!(asked(&desk, "web.test"), gone);
}

#[test]
fn a_service_that_defines_another_thing_by_the_same_name_takes_the_route_down_and_not_that_of_the_owner()
 {
    let mut desk = Desk::new(inputs(FILE));
    let mut owner = naming("owner", &["m@consul"]);
    owner.middlewares = defining("owner", few(2)).middlewares;
    desk.learn([
        owner,
        naming("web", &["m@consul"]),
        defining("twin", few(2)),
    ]);
    assert_eq!(asked(&desk, "web.test"), Ok(vec![2]));
    desk.learn([defining("evil", few(1000))]);
    let differ = "the services `evil` and `owner` define its middleware \"m@consul\" differently";
    assert_eq!(asked(&desk, "web.test"), Err(differ.to_owned()));
    assert_eq!(asked(&desk, "owner.test"), Ok(vec![2]));
    desk.forget("evil");
    assert_eq!(asked(&desk, "web.test"), Ok(vec![2]));
    assert!(desk.snapshot.service(&key("evil")).is_none());
}

#[test]
fn who_is_on_a_route_is_remembered_whatever_its_middlewares_become() {
    let mut desk = Desk::new(inputs(FILE));
    let in_flight = |desk: &Desk| Arc::clone(&route(&desk.snapshot, "one.test").unwrap().metrics);
    let first = in_flight(&desk);
    assert!(first.in_flight.enter(7, 2) && first.in_flight.enter(7, 2));
    desk.inputs = inputs(&FILE.replace("middlewares = [", "max_connections = 9 #"));
    desk.compile();
    desk.inputs = inputs(FILE);
    desk.compile();
    assert!(!in_flight(&desk).in_flight.enter(7, 2));
    first.in_flight.leave(7);
    assert!(in_flight(&desk).in_flight.enter(7, 2));
}
