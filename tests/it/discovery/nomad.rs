//! What a Nomad that changes, fails, hangs, lies or forgets does to what is served: what is true, and nothing else.

use std::time::Duration;

use portcullis::api::http::Client;
use portcullis::config::Nomad;
use portcullis::discovery::exposure::Exposure;
use portcullis::discovery::nomad::{self, Asking, Told};
use portcullis::status::State;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Watched, route};
use crate::fake_consul::Fault;
use crate::fake_nomad::{FakeNomad, World};

fn watched(nomad: &Nomad, before: Told) -> Watched<Told> {
    let own = ["127.0.0.1:8443".parse().unwrap()].into();
    let exposure = Exposure {
        allow_local_addresses: nomad.allow_local_addresses,
        ..Exposure::of(&nomad.tagging, &own)
    };
    let (client, known) = (Client::new(nomad).unwrap(), before.services.clone());
    let asking = Asking::from(nomad);
    Watched::following("nomad", &known, move |send, stop| {
        nomad::watch(client, asking, exposure, before, None, send, stop)
    })
}

fn register(world: &mut World, name: &str, port: u16) {
    world.register("default", name, port, &route(&format!("{name}.example")));
}

/// Two services, all told.
async fn ready() -> (FakeNomad, Watched<Told>) {
    let nomad = FakeNomad::start().await;
    nomad.change(|world| {
        register(world, "api", 9001);
        register(world, "web", 9002);
    });
    let mut watched = watched(&nomad.config(&["default"]), Told::default());
    watched.until_ready().await;
    assert_eq!(watched.take_told(), ["not ready", "+api", "+web", "ready"]);
    (nomad, watched)
}

#[tokio::test]
async fn a_service_of_nomads_own_comes_changes_and_goes() {
    let (nomad, mut watched) = ready().await;
    assert_eq!(watched.endpoints("web"), ["127.0.0.1:9002*1"]);
    let web = &watched.services["web"];
    assert_eq!(&*web.routes[0].name, "web/web-example@nomad");
    assert_eq!(&*web.routes[0].upstream, "web@nomad");

    nomad.change(|world| register(world, "new", 9003));
    watched
        .until("a new one", |watched| watched.has("new"))
        .await;
    nomad.change(|world| register(world, "web", 9012));
    watched
        .until("another port, of which the list says nothing", |watched| {
            watched.endpoints("web") == ["127.0.0.1:9012*1"]
        })
        .await;
    nomad.change(|world| {
        world.register("default", "web", 9012, &route("moved.example"));
    });
    watched
        .until("another rule", |watched| {
            format!("{:?}", watched.services["web"].routes).contains("moved.example")
        })
        .await;
    nomad.change(|world| world.deregister("default", "web"));
    watched
        .until("it is gone", |watched| !watched.has("web"))
        .await;
    nomad.change(|world| world.register("default", "new", 9003, &[]));
    watched
        .until("without tags", |watched| !watched.has("new"))
        .await;
    assert!(watched.has("api") && watched.state == State::Ready);
}

#[tokio::test]
async fn a_gateway_waits_for_a_nomad_that_is_not_well_yet_and_says_why() {
    for (fault, why) in [
        (Fault::Status(500, "No cluster leader"), "No cluster leader"),
        (Fault::Status(403, "Permission denied"), "needs read-job"),
        (Fault::Close, "broke off"),
        (Fault::Body("[[["), "is not what was expected"),
        (Fault::Body("{}"), "is not what was expected"),
    ] {
        let nomad = FakeNomad::start().await;
        nomad.change(|world| {
            register(world, "web", 9000);
            world.faults.insert("", fault.clone());
        });
        let mut watched = watched(&nomad.config(&["default"]), Told::default());
        watched
            .until(
                why,
                |watched| matches!(&watched.state, State::NotReady(text) if text.contains(why)),
            )
            .await;
        nomad.change(|world| world.faults.clear());
        watched.until_ready().await;
        assert!(watched.has("web"), "{fault:?}");
    }
}

#[tokio::test]
async fn what_was_known_is_served_while_nomad_fails_and_what_changed_is_told_before_it_is_ready_again()
 {
    for fault in [
        Fault::Status(500, "No cluster leader"),
        Fault::Status(403, "Permission denied"),
        Fault::Close,
        Fault::Body("\"maintenance\""),
    ] {
        let (nomad, mut watched) = ready().await;
        nomad.change(|world| {
            world.faults.insert("", fault.clone());
        });
        watched.until_degraded("what was known").await;
        nomad.change(|world| {
            register(world, "new", 9003);
            world.deregister("default", "api");
            world.faults.clear();
        });
        watched.until_ready().await;
        let mut told = watched.take_told();
        assert_eq!(told.pop().unwrap(), "ready", "{fault:?}");
        told.retain(|told| told != "degraded");
        told.sort();
        assert_eq!(told, ["+new", "-api"], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_is_noticed_by_its_pulse() {
    let (nomad, mut watched) = ready().await;
    let start = Instant::now();
    nomad.change(|world| {
        world.faults.insert("", Fault::Hang);
    });
    watched.until_degraded("does not answer within 5s").await;
    assert!(start.elapsed() <= Duration::from_secs(16));
    assert!(watched.has("api") && watched.has("web"));
}

#[tokio::test]
async fn a_service_that_cannot_be_read_stays_as_it_was_and_holds_up_no_other() {
    for fault in [
        Fault::Status(500, "no"),
        Fault::Body("[1]"),
        Fault::Body("null"),
        Fault::Close,
    ] {
        let (nomad, mut watched) = ready().await;
        nomad.change(|world| {
            world.faults.insert("service/web", fault.clone());
            register(world, "web", 9999);
            register(world, "api", 9998);
        });
        watched.until_degraded("\"web\"").await;
        assert_eq!(watched.endpoints("web"), ["127.0.0.1:9002*1"], "{fault:?}");
        assert_eq!(watched.endpoints("api"), ["127.0.0.1:9998*1"], "{fault:?}");
        nomad.change(|world| world.faults.clear());
        watched.until_ready().await;
        assert_eq!(watched.endpoints("web"), ["127.0.0.1:9999*1"], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_after_a_full_one_is_doubted_and_then_believed() {
    let (nomad, mut watched) = ready().await;
    let start = Instant::now();
    nomad.change(|world| {
        world.deregister("default", "api");
        world.deregister("default", "web");
    });
    watched.until_degraded("nomad no longer lists 2 of 2").await;
    assert!(watched.has("api") && watched.has("web"));
    watched.until_ready().await;
    assert!(start.elapsed() >= Duration::from_secs(5));
    assert!(watched.services.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_nomad_that_has_lost_its_data_takes_nothing_down() {
    let (nomad, mut watched) = ready().await;
    nomad.change(|world| {
        world.services.clear();
        world.index = 3;
        world.faults.insert("", Fault::Close);
    });
    watched.until_degraded("what was known").await;
    nomad.change(|world| world.faults.clear());
    watched.until_degraded("lost its data").await;
    watched.during(Duration::from_secs(60)).await;
    assert!(watched.has("api") && watched.has("web"));
    nomad.change(|world| register(world, "web", 9500));
    watched
        .until("what is registered anew is followed", |watched| {
            watched.endpoints("web") == ["127.0.0.1:9500*1"]
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_may_no_longer_read_one_of_all_namespaces_takes_nothing_down_there() {
    let nomad = FakeNomad::start().await;
    nomad.change(|world| {
        register(world, "web", 9000);
        world.register("prod", "web", 9001, &route("prod.example"));
    });
    let mut watched = watched(&nomad.config(&["*"]), Told::default());
    watched.until_ready().await;
    assert!(watched.has("web") && watched.has("web.prod"));
    assert_eq!(
        &*watched.services["web.prod"].routes[0].upstream,
        "web.prod@nomad"
    );

    nomad.change(|world| {
        world.hidden.push("prod");
        world.index += 1;
    });
    watched.until_degraded("no longer lists 1 of 1").await;
    watched.during(Duration::from_secs(60)).await;
    assert!(watched.has("web.prod"));

    // It may again, and there is nothing left: that is believed.
    nomad.change(|world| {
        world.hidden.clear();
        world.deregister("prod", "web");
    });
    watched.until_ready().await;
    assert!(watched.has("web") && !watched.has("web.prod"));
}

#[tokio::test]
async fn namespaces_that_are_named_are_watched_each_and_no_other() {
    let nomad = FakeNomad::start().await;
    nomad.change(|world| {
        for namespace in ["default", "prod", "secret"] {
            world.register(
                namespace,
                "web",
                9000,
                &route(&format!("{namespace}.example")),
            );
        }
    });
    let mut before = watched(&nomad.config(&["default", "prod"]), Told::default());
    before.until_ready().await;
    let names: Vec<&String> = before.services.keys().collect();
    assert_eq!(names, ["web", "web.prod"]);

    // A watch that follows gives up what is asked for no more, and says nothing new of the rest.
    let mut after = watched(&nomad.config(&["default"]), before.stop().await);
    after.until_ready().await;
    assert_eq!(after.take_told(), ["-web.prod", "ready"]);
}

#[tokio::test]
async fn rubbish_in_a_list_spoils_nothing_beside_it_and_takes_nothing_away() {
    let (nomad, mut watched) = ready().await;
    nomad.change(|world| {
        world.services.remove(&("default", "api".to_owned()));
        world.beside = vec![
            json!(1),
            json!({ "Namespace": "default", "Services": [null, { "ServiceName": "a.b" }] }),
        ];
        register(world, "new", 9003);
    });
    watched.until_degraded("3 entries").await;
    watched
        .until("what is new is told", |watched| watched.has("new"))
        .await;
    assert!(
        watched.has("api"),
        "it may be one of those that cannot be read"
    );
    nomad.change(|world| {
        world.beside.clear();
        world.index += 1;
    });
    watched.until_ready().await;
    assert!(!watched.has("api"));
}

/// What becomes of a service whose entries are these.
async fn listed(entries: Value) -> Watched<Told> {
    listed_where(true, entries).await
}

async fn listed_where(allow_local_addresses: bool, entries: Value) -> Watched<Told> {
    let nomad = FakeNomad::start().await;
    nomad.change(|world| {
        world
            .services
            .insert(("default", "web".to_owned()), entries);
    });
    let config = Nomad {
        allow_local_addresses,
        ..nomad.config(&["default"])
    };
    let mut watched = watched(&config, Told::default());
    watched.until_ready().await;
    watched
}

fn entry(id: &str, more: Value) -> Value {
    let mut entry = json!({ "ID": id, "ServiceName": "web", "Namespace": "default", "NodeID": "0123456789",
        "Tags": route("web.example"), "Address": "10.0.0.1", "Port": 22 });
    for (key, value) in more.as_object().unwrap() {
        entry[key] = value.clone();
    }
    entry
}

#[tokio::test]
async fn what_cannot_be_dialled_is_listed_with_its_reason_and_the_rest_is_dialled() {
    let watched = listed(json!([
        entry("a", json!({})),
        entry("b", json!({ "Address": "2001:db8::1", "Tags": null })),
        entry("c", json!({ "Address": "web internal" })),
        entry("d", json!({ "Port": 0 })),
        entry("e", json!({ "Port": 70_000 })),
        entry("f", json!({ "Address": "0.0.0.0" })),
        entry("g", json!({ "Address": "127.0.0.1", "Port": 8443 })),
        entry("h", json!({ "ServiceName": "other" })),
        entry("a", json!({ "Address": "10.0.0.9" })),
        entry("i", json!({ "Port": "22" })),
    ]))
    .await;
    assert_eq!(
        watched.endpoints("web"),
        ["10.0.0.1:22*1", "[2001:db8::1]:22*1"]
    );
    let skipped = &watched.services["web"].skipped;
    let reasons: Vec<String> = (skipped.iter())
        .map(|skipped| {
            format!(
                "{}: {}",
                skipped.instance.as_deref().unwrap(),
                skipped.reason
            )
        })
        .collect();
    for (id, reason) in [
        ("01234567/c", "neither an IP address nor a host name"),
        ("01234567/d", "it has no port"),
        ("01234567/e", "its port 70000 is none"),
        ("01234567/f", "cannot be dialled"),
        ("01234567/g", "points at this gateway's own listener"),
        ("01234567/h", "it is of another service, \"other.default\""),
        ("01234567/a", "it is listed twice"),
        ("01234567/i", "its entry cannot be read"),
    ] {
        let is_told = reasons
            .iter()
            .any(|told| told.starts_with(id) && told.contains(reason));
        assert!(is_told, "{id} {reason}: {reasons:#?}");
    }
    assert_eq!(reasons.len(), 8, "{reasons:#?}");
}

/// Whoever may register a service in Nomad must not lead strangers to what listens on this machine's loopback addresses.
#[tokio::test]
async fn a_loopback_address_is_dialled_where_that_is_allowed_and_nowhere_else() {
    let local = ["127.0.0.1", "::1", "::ffff:127.0.0.2", "169.254.169.254"];
    let entries = || {
        let all = (local.iter().enumerate())
            .map(|(n, address)| entry(&n.to_string(), json!({ "Address": address })))
            .chain([entry("good", json!({}))]);
        all.collect()
    };
    let refused = listed_where(false, entries()).await;
    assert_eq!(refused.endpoints("web"), ["10.0.0.1:22*1"]);
    let skipped = &refused.services["web"].skipped;
    assert_eq!(skipped.len(), local.len(), "{skipped:?}");
    for skipped in skipped {
        let reason = &skipped.reason;
        let told = reason.contains("`allow_local_addresses` in [nomad] allows it");
        assert!(told, "{reason}");
    }
    let allowed = listed_where(true, entries()).await;
    assert_eq!(allowed.endpoints("web").len(), 1 + local.len());
}

#[tokio::test]
async fn a_service_that_asks_for_the_mesh_is_refused_and_never_dialled_plain() {
    for key in ["traefik.consulcatalog.connect", "portcullis.nomad.connect"] {
        let mut tags = route("web.example");
        tags.push(format!("{key}=true"));
        let watched = listed(json!([entry("a", json!({ "Tags": tags }))])).await;
        let web = &watched.services["web"];
        let broken = web.routes[0].broken.as_deref().unwrap();
        assert!(broken.contains("no sidecars"), "{broken}");
        assert!(web.routes[0].mesh);
        assert_eq!(watched.endpoints("web"), [""; 0]);
    }
}

#[tokio::test]
async fn every_question_says_the_region_and_whether_any_server_may_answer() {
    for (text, why) in [("region=eu", "nomad server members"), ("stale=", "No path")] {
        let nomad = FakeNomad::start().await;
        nomad.change(|world| {
            register(world, "web", 9000);
            let refused = Fault::Status(500, "No path to region");
            world.faults.insert(text, refused);
        });
        let mut config = nomad.config(&["default"]);
        (config.region, config.stale) = (Some("eu".to_owned()), true);
        let mut watched = watched(&config, Told::default());
        let waits = |watched: &Watched<Told>| matches!(&watched.state, State::NotReady(text) if text.contains(why));
        watched.until(why, waits).await;
        nomad.change(|world| world.faults.clear());
        watched.until_ready().await;
    }
}

#[tokio::test]
async fn what_any_server_may_answer_is_not_taken_of_one_that_was_cut_off_from_its_leader() {
    let nomad = FakeNomad::start().await;
    nomad.change(|world| register(world, "web", 9000));
    let mut config = nomad.config(&["default"]);
    config.stale = true;
    let mut watched = watched(&config, Told::default());
    watched.until_ready().await;
    nomad.change(|world| {
        world.last_contact = 10_001;
        world.deregister("default", "web");
    });
    watched.until_degraded("old or older").await;
    assert!(watched.has("web"));
}
