//! Services that are registered in bad faith, or by a program gone wild: they spoil themselves, and hold nobody up.

use std::time::{Duration, Instant};

use portcullis::status::State;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::faults::{ready, register};
use super::large::{self, Gateway, echoes};
use super::{Watched, route};
use crate::fake_consul::{FakeConsul, Fault, World};
use crate::gateway::{ask, metric};
use crate::support::PATIENCE;
use crate::upstream::Upstream;

/// What is skipped of a service, as one text.
fn skipped(watched: &Watched, name: &str) -> String {
    let skipped = watched.services.get(name).map(|service| &service.skipped);
    format!("{skipped:?}")
}

/// With a byte that no text has in place of each mark.
fn spoilt(text: String) -> Vec<u8> {
    let bytes = text.replace("MARK", "\u{1}").into_bytes().into_iter();
    bytes
        .map(|byte| if byte == 1 { 0xff } else { byte })
        .collect()
}

fn long_rule() -> Vec<String> {
    let long = format!("HostSNI(`{}.example`)", "x".repeat(64 << 10));
    vec![
        "traefik.enable=true".to_owned(),
        format!("traefik.tcp.routers.long.rule={long}"),
        "traefik.tcp.routers.long.tls=true".to_owned(),
    ]
}

fn many_routers() -> Vec<String> {
    let each = |n| {
        [
            format!("traefik.tcp.routers.r{n}.rule=HostSNI(`r{n}.example`)"),
            format!("traefik.tcp.routers.r{n}.tls=true"),
        ]
    };
    (0..10_000).flat_map(each).collect()
}

#[tokio::test]
async fn a_tag_that_is_no_utf8_is_the_affair_of_its_service_alone() {
    let (consul, mut watched) = ready().await;
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
    let (long, many) = (long_rule(), many_routers());
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

#[tokio::test(flavor = "multi_thread")]
async fn a_good_registration_that_becomes_a_bad_one_is_told_of_everywhere_and_served_again_when_it_is_mended()
 {
    let consul = FakeConsul::start().await;
    let echo = Upstream::echo().await;
    consul.change(|world| {
        large::register(world, "other", echo.address);
        large::register(world, "web", echo.address);
    });
    let gateway = Gateway::start(&consul).await;
    let mut other = gateway.open("other.example.test").await;
    let own = gateway.program.listener;
    let with_tags = |world: &mut World, tags: Vec<String>| {
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        world.register("web", &tags);
    };
    let no_utf8 = |world: &mut World| {
        with_tags(world, route("webMARK.example.test"));
        let entry = spoilt(world.services["web"].to_string());
        let names =
            json!({"other": route("other.example.test"), "web": route("webMARK.example.test")});
        world.faults.insert("/service/web", Fault::Bytes(entry));
        let names = Fault::Bytes(spoilt(names.to_string()));
        world.faults.insert("catalog/services", names);
    };
    let long = |world: &mut World| with_tags(world, long_rule());
    let many = |world: &mut World| with_tags(world, many_routers());
    let looped = |world: &mut World| large::register(world, "web", own);
    let whats = ["no UTF-8", "64 KiB", "10,000 routers", "a loop"];
    let spoil: [&dyn Fn(&mut World); 4] = [&no_utf8, &long, &many, &looped];
    let reasons = [
        "its rule",
        "bytes long",
        "defines more than 1000 routers",
        "points at this gateway's own listener",
    ];
    for ((what, spoil), reason) in whats.into_iter().zip(spoil).zip(reasons) {
        let mut tunnel = gateway.open("web.example.test").await;
        echoes(&mut tunnel).await;
        consul.change(spoil);
        let skipped = gateway.skips(what, "web", Some(reason)).await;
        println!("{what}: {skipped}");
        gateway.logs_of_web("WARN", reason).await;
        let mut counted = 0;
        for state in ["skipped", "partly"] {
            let labels = format!("source=\"consul\",state=\"{state}\"");
            let series = format!("portcullis_discovery_services{{{labels}}}");
            counted += metric(gateway.program.admin, &series).await.unwrap_or(0);
        }
        assert_eq!(counted, 1, "{what}");
        for tunnel in [&mut tunnel, &mut other] {
            echoes(tunnel).await;
        }
        echoes(&mut gateway.open("other.example.test").await).await;

        let before = gateway.mended();
        consul.change(|world| {
            world.faults.clear();
            large::register(world, "web", echo.address);
        });
        gateway.skips(what, "web", None).await;
        echoes(&mut gateway.open("web.example.test").await).await;
        until(what, async || gateway.mended() > before).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_in_the_shadow_of_another_is_in_the_log_with_the_other() {
    let consul = FakeConsul::start().await;
    for name in ["a", "b"] {
        consul.change(|world| {
            let tags = route("both.example.test");
            let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
            world.register(name, &tags);
        });
    }
    let gateway = Gateway::start(&consul).await;
    let child = &gateway.program.child;
    let line = child.wait_for("which route gets no clients", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        line["route"].is_string().then_some(line)
    });
    assert_eq!(line["level"], "WARN", "{line}");
    assert!(line["route"].as_str().unwrap().starts_with("\"b"), "{line}");
    assert!(line["by"].as_str().unwrap().starts_with("\"a"), "{line}");
    assert_eq!([&line["source"], &line["by_source"]], ["consul"; 2]);
}

impl Gateway {
    /// Waits until `/v1/routes` says that this is skipped of a service, or that nothing is; returns what it says.
    async fn skips(&self, what: &str, service: &str, reason: Option<&str>) -> Value {
        let late = Instant::now() + PATIENCE;
        loop {
            let (_, text) = ask(self.program.admin, "/v1/routes").await;
            let list: Value = serde_json::from_str(&text).unwrap();
            let all = list["skipped"].as_array().unwrap().iter();
            let mut of_it = all.filter(|one| one["service"] == service && one["note"] == false);
            let found = match reason {
                Some(reason) => of_it.find(|one| one["reason"].as_str().unwrap().contains(reason)),
                None => of_it.next().is_none().then_some(&Value::Null),
            };
            if let Some(found) = found {
                return found.clone();
            }
            assert!(Instant::now() < late, "{what}: {}", list["skipped"]);
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until a line at this level says this of the service `web`.
    async fn logs_of_web(&self, level: &str, reason: &str) {
        until(reason, async || {
            self.of_web().iter().any(|line| {
                line["level"] == level && line["reason"].as_str().unwrap_or("").contains(reason)
            })
        })
        .await;
    }

    /// How often it was logged that nothing of `web` is skipped any more.
    fn mended(&self) -> usize {
        let lines = self.of_web().into_iter();
        lines
            .filter(|line| line["message"] == "a service gets all that it asks for again")
            .count()
    }

    fn of_web(&self) -> Vec<Value> {
        let lines = self.program.child.stderr();
        let lines = lines.iter().map(|line| serde_json::from_str(line).unwrap());
        lines
            .filter(|line: &Value| line["service"] == "\"web\"" && line["source"] == "consul")
            .collect()
    }
}

/// Waits for what no event tells.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let late = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < late, "waited in vain: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}
