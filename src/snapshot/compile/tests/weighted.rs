//! Upstreams of the file that stand for others: whose turn it is, who is passed over, and what remains.

use std::time::Instant;

use super::services::{Desk, bare, identity, in_mesh, upstream, usual};
use super::*;

const WEIGHTED: &str = r#"
    [routes.both]
    host = "both.test"
    passthrough = true
    upstream = "both"
    [upstreams.both]
    weighted = [{ upstream = "blue", weight = 3 }, "green@consul", { upstream = "idle", weight = 0 }]
    [upstreams.blue]
    address = "10.0.0.1:22"
    [upstreams.idle]
    address = "10.0.0.2:22"
    [consul]
"#;

/// Who gets the next eight connections of a route.
fn turns(desk: &Desk, host: &str) -> Vec<String> {
    let route = route(&desk.snapshot, host).unwrap();
    let now = Instant::now();
    let chosen = (0..8).map(|_| desk.snapshot.choose(route, now).unwrap().name.to_string());
    let mut chosen: Vec<String> = chosen.collect();
    chosen.sort();
    chosen
}

fn shares(blue: usize, green: usize) -> Vec<String> {
    let mut all = vec!["blue".to_owned(); blue];
    all.resize(blue + green, "green@consul".to_owned());
    all
}

fn green(endpoints: &[&str]) -> Service {
    Service {
        upstreams: vec![upstream("green@consul", endpoints)],
        ..bare("green")
    }
}

#[test]
fn each_member_gets_exactly_its_share_and_one_that_is_away_none() {
    let mut desk = Desk::new(inputs(WEIGHTED));
    assert_eq!(
        turns(&desk, "both.test"),
        shares(8, 0),
        "it is not there yet"
    );
    desk.learn([green(&["10.0.1.1:80"])]);
    assert_eq!(turns(&desk, "both.test"), shares(6, 2));
    desk.learn([green(&[])]);
    assert_eq!(
        turns(&desk, "both.test"),
        shares(8, 0),
        "it has no endpoint"
    );
    desk.learn([green(&["10.0.1.1:80"])]);
    desk.compile();
    assert_eq!(turns(&desk, "both.test"), shares(6, 2));
    let mut broken = green(&["10.0.1.1:80"]);
    broken.upstreams[0].dialling = Err("it is wrong".into());
    desk.learn([broken]);
    assert_eq!(
        turns(&desk, "both.test"),
        shares(8, 0),
        "it cannot be dialled"
    );
    desk.forget("green");
    assert_eq!(turns(&desk, "both.test"), shares(8, 0));
}

#[test]
fn a_member_whose_endpoints_all_fail_is_passed_over_while_another_can_be_dialled() {
    let mut desk = Desk::new(inputs(WEIGHTED));
    desk.learn([green(&["10.0.1.1:80"])]);
    let now = Instant::now();
    let fail = |name: &str| {
        let upstream = desk.upstream(name);
        for _ in 0..20 {
            for attempt in upstream.turn(now) {
                attempt.failed(now);
            }
        }
    };
    fail("blue");
    assert_eq!(turns(&desk, "both.test"), shares(0, 8));
    let both = route(&desk.snapshot, "both.test").unwrap();
    let members = &desk.upstream("both").members;
    let why = |place: usize| desk.snapshot.passes_over(&members[place], both.mesh, now);
    assert!(why(0).unwrap().contains("passed over"));
    assert_eq!(why(1), None);
    // Nobody is left who would be better.
    fail("green@consul");
    assert_eq!(turns(&desk, "both.test"), shares(6, 2));
}

#[test]
fn without_a_member_that_serves_the_reasons_are_told() {
    let mut desk = Desk::new(inputs(WEIGHTED));
    desk.inputs.config.upstreams.remove("blue");
    desk.compile();
    let why = |desk: &Desk| {
        let both = route(&desk.snapshot, "both.test").unwrap();
        let chosen = desk.snapshot.choose(both, Instant::now());
        chosen
            .map(|upstream| upstream.name.to_string())
            .map_err(std::borrow::Cow::into_owned)
    };
    let none = "no member of it serves: `blue`: its upstream does not exist; `green@consul`: its upstream does not exist";
    assert_eq!(why(&desk), Err(none.to_owned()));
    // One that has nothing to dial just now says why.
    desk.learn([green(&[])]);
    assert_eq!(why(&desk), Ok("green@consul".to_owned()));
}

#[test]
fn a_route_of_a_service_in_the_mesh_leads_to_members_in_the_mesh_only() {
    let mut inputs = inputs(WEIGHTED);
    inputs.identity = Some(identity());
    let mut desk = Desk::new(inputs);
    let mut web = usual("web", "10.0.1.9:80");
    web.upstreams[0].mesh = in_mesh("web");
    web.routes[0].upstream = "both".into();
    desk.learn([web, green(&["10.0.1.1:80"])]);
    let way = |desk: &Desk| {
        let web = route(&desk.snapshot, "web.test").unwrap();
        desk.snapshot
            .way(web)
            .map(drop)
            .map_err(|why| why.into_owned())
    };
    assert!(way(&desk).unwrap_err().contains("asks for the mesh"));
    let mut meshed = green(&["10.0.1.1:80"]);
    meshed.upstreams[0].mesh = in_mesh("green");
    desk.learn([meshed]);
    assert_eq!(turns(&desk, "web.test"), shares(0, 8));
}
