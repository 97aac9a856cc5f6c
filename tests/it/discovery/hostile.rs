//! Services that are registered in bad faith, or by a program gone wild: they spoil themselves, and hold nobody up.

use std::time::{Duration, Instant};

use portcullis::status::State;
use serde_json::json;

use super::faults::{ready, register};
use super::{Watched, route};
use crate::fake_consul::{FakeConsul, Fault};

/// What is skipped of a service, as one text.
fn skipped(watched: &Watched, name: &str) -> String {
    let skipped = watched.services.get(name).map(|service| &service.skipped);
    format!("{skipped:?}")
}

#[tokio::test]
async fn a_tag_that_is_no_utf8_is_the_affair_of_its_service_alone() {
    let (consul, mut watched) = ready().await;
    let spoilt = |text: String| {
        let text = text.replace("MARK", "\u{1}").into_bytes().into_iter();
        text.map(|byte| if byte == 1 { 0xff } else { byte })
            .collect::<Vec<u8>>()
    };
    let tags = [
        "traefik.enable=true",
        "traefik.tcp.routers.bad.rule=HostSNI(`badMARK.example`)",
        "traefik.tcp.routers.bad.tls=true",
    ];
    consul.change(|world| {
        world.register("bad", &tags);
        register(world, "new");
        let entry = spoilt(world.services["bad"].to_string());
        let names = json!({"api": route("api.example"), "bad": tags, "consul": [], "new": route("new.example"), "web": route("web.example")});
        world.faults.insert("/service/bad", Fault::Bytes(entry));
        world.faults.insert("catalog/services", Fault::Bytes(spoilt(names.to_string())));
    });
    watched
        .until("the others are there", |watched| {
            watched.has("new") && watched.has("bad")
        })
        .await;
    let why = skipped(&watched, "bad");
    assert!(why.contains("its rule"), "{why}");
    assert!(watched.services["bad"].routes.is_empty());
    consul.change(|world| {
        world.faults.clear();
        world.deregister("bad");
        register(world, "bad");
    });
    watched
        .until("it is mended", |watched| {
            watched.has("bad") && !watched.services["bad"].routes.is_empty()
        })
        .await;
    assert_eq!(watched.state, State::Ready);
}

#[tokio::test]
async fn a_rule_of_64_kib_and_ten_thousand_routers_are_told_of_and_hold_nobody_up() {
    let consul = FakeConsul::start().await;
    let long = format!("HostSNI(`{}.example`)", "x".repeat(64 << 10));
    let long = [
        "traefik.enable=true".to_owned(),
        format!("traefik.tcp.routers.long.rule={long}"),
        "traefik.tcp.routers.long.tls=true".to_owned(),
    ];
    let many: Vec<String> = (0..10_000)
        .flat_map(|n| {
            [
                format!("traefik.tcp.routers.r{n}.rule=HostSNI(`r{n}.example`)"),
                format!("traefik.tcp.routers.r{n}.tls=true"),
            ]
        })
        .collect();
    let begun = Instant::now();
    consul.change(|world| {
        let long: Vec<&str> = long.iter().map(String::as_str).collect();
        world.register("long", &long);
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        world.register("many", &many);
        register(world, "web");
    });
    let mut watched = Watched::start(&consul.config());
    watched.until_ready().await;
    eprintln!("all are told after {:?}", begun.elapsed());
    assert!(skipped(&watched, "long").contains("bytes long"));
    let many = &watched.services["many"];
    assert!(many.routes.len() <= 1000, "{}", many.routes.len());
    assert!(skipped(&watched, "many").contains("defines more than 1000 routers"));
    assert!(watched.has("web"));

    // Each time that it is read again: others are told of at once.
    consul.change(|world| {
        world.index[1] += 1;
        world.checks = json!([{ "Node": "n1", "CheckID": "c", "ServiceName": "many", "Status": "critical", "ModifyIndex": 1 }]);
        register(world, "new");
    });
    let begun = Instant::now();
    watched
        .until("another is told", |watched| watched.has("new"))
        .await;
    let took = begun.elapsed();
    eprintln!("another is told after {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}
