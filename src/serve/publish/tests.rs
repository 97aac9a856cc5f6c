//! What the publisher takes in, when it publishes, and what it says of itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use super::*;

mod named;
use crate::config;
use crate::log::AccessLog;
use crate::name::{MeshService, SpiffeId};
use crate::rule::Rule;
use crate::snapshot::Source;
use crate::snapshot::service::{ServiceRoute, ServiceTls, ServiceUpstream};
use crate::snapshot::upstream::{Endpoint, Transport};
use crate::state::{self, Settings};
use crate::tls::mesh::Identity;
use crate::tls::test_certs::Ca;

struct Desk {
    cell: Arc<ArcSwap<Snapshot>>,
    status: Status,
    publisher: Publisher,
}

fn desk(text: &str) -> Desk {
    desk_with(text, Addresses::default())
}

fn desk_with(text: &str, kept: Addresses) -> Desk {
    let checked = config::parse(text, Path::new("portcullis.toml"));
    let inputs = Inputs {
        config: checked
            .unwrap_or_else(|mistakes| panic!("{mistakes}"))
            .config,
        listeners: BTreeMap::new(),
        own: Arc::default(),
        certificates: Arc::default(),
        policies: BTreeMap::new(),
        client_configs: BTreeMap::new(),
        transport_configs: BTreeMap::new(),
        addresses: BTreeMap::new(),
        restored: BTreeMap::new(),
        identity: None,
        denied: BTreeSet::new(),
    };
    let status = Status::default();
    let cell = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
    let metrics = Metrics::new();
    let told_names = watch::channel(BTreeSet::new()).0;
    let (cell_, status_) = (Arc::clone(&cell), status.clone());
    let publisher = Publisher::new(inputs, cell_, metrics, status_, kept, told_names);
    Desk {
        cell,
        status,
        publisher,
    }
}

fn no_configurations() -> Receiver<(Configured, oneshot::Sender<()>)> {
    mpsc::channel(1).1
}

fn sessions() -> Sessions {
    Sessions::new(AccessLog::off(), Metrics::new())
}

/// Two routes, each to an upstream with a name of its own.
const TWO_NAMES: &str = r#"
    [routes.one]
    host = "one.test"
    passthrough = true
    upstream = "one.internal:22"
    [routes.two]
    host = "two.test"
    passthrough = true
    upstream = "two.internal:22"
"#;

fn two_names() -> Desk {
    desk(TWO_NAMES)
}

fn answer(name: &str, addresses: Result<&[&str], &str>) -> Answer {
    let parse = |addresses: &[&str]| addresses.iter().map(|ip| ip.parse().unwrap()).collect();
    Answer {
        name: HostName::parse(name).unwrap(),
        addresses: addresses.map(parse).map_err(str::to_owned),
    }
}

fn no_changes() -> Receiver<Change> {
    mpsc::channel(1).1
}

/// A service with a route and one endpoint.
fn service(name: &str, endpoint: &str) -> Service {
    let place: Arc<str> = format!("{name}@consul").into();
    Service {
        key: key(name),
        upstreams: vec![ServiceUpstream {
            dialling: Ok(Default::default()),
            name: Arc::clone(&place),
            endpoints: vec![Endpoint {
                address: endpoint.parse().unwrap(),
                configured: endpoint.into(),
                weight: 1,
            }],
            named: Vec::new(),
            mesh: None,
            empty: None,
            check: None,
        }],
        routes: vec![ServiceRoute {
            name: Arc::clone(&place),
            rule: Rule::parse(&format!("HostSNI(`{name}.test`)")).unwrap(),
            priority: None,
            tls: ServiceTls::PassThrough,
            upstream: place,
            broken: None,
            middlewares: Vec::new(),
            mesh: false,
            warnings: Vec::new(),
        }],
        middlewares: BTreeMap::new(),
        skipped: Vec::new(),
        restored: None,
        notes: Vec::new(),
    }
}

fn key(name: &str) -> ServiceKey {
    ServiceKey {
        place: None,
        source: Source::Consul,
        name: name.into(),
    }
}

fn found(name: &str, endpoint: &str) -> Change {
    Change::Service(Arc::new(service(name, endpoint)))
}

impl Desk {
    fn endpoints(&self, upstream: &str) -> Vec<String> {
        let snapshot = self.cell.load();
        let endpoints = snapshot.upstream(upstream).unwrap().endpoints().iter();
        endpoints
            .map(|endpoint| endpoint.address.to_string())
            .collect()
    }

    fn state(&self) -> State {
        self.status.parts()[NAMES].clone()
    }
}

#[test]
fn until_every_name_has_an_answer_the_gateway_is_not_ready() {
    let mut desk = two_names();
    let both = "not resolved yet: one.internal, two.internal";
    assert_eq!(desk.state(), State::NotReady(both.to_owned()));
    desk.publisher
        .hear([answer("one.internal", Ok(&["10.0.0.1"]))]);
    assert_eq!(
        desk.state(),
        State::NotReady("not resolved yet: two.internal".to_owned())
    );
    desk.publisher
        .hear([answer("two.internal", Err("no such name"))]);
    assert_eq!(
        desk.state(),
        State::Degraded("not resolving: two.internal".to_owned())
    );
    desk.publisher
        .hear([answer("two.internal", Ok(&["10.0.0.2"]))]);
    assert_eq!(desk.state(), State::Ready);
}

#[test]
fn without_names_the_gateway_is_ready_at_once() {
    let desk =
        desk("[routes.one]\nhost = \"one.test\"\npassthrough = true\nupstream = \"10.0.0.1:22\"");
    assert_eq!(desk.state(), State::Ready);
    assert_eq!(desk.cell.load().generation, 1);
}

#[tokio::test]
async fn the_snapshot_follows_the_answers_and_batches_them() {
    let desk = two_names();
    let cell = Arc::clone(&desk.cell);
    let (send, received) = mpsc::channel(64);
    for answer in [
        answer("one.internal", Ok(&["10.0.0.1"])),
        answer("two.internal", Ok(&["10.0.0.2", "fd00::2"])),
        answer("one.internal", Ok(&["10.0.0.9"])),
    ] {
        send.send(answer).await.unwrap();
    }
    drop(send);
    desk.publisher
        .run(received, no_changes(), no_configurations(), sessions())
        .await;
    let snapshot = cell.load();
    assert_eq!(
        snapshot.generation, 2,
        "three answers that wait together are one change"
    );
    let endpoints = |upstream: &str| -> Vec<String> {
        let endpoints = snapshot.upstream(upstream).unwrap().endpoints().iter();
        endpoints
            .map(|endpoint| endpoint.address.to_string())
            .collect()
    };
    assert_eq!(endpoints("one.internal:22"), ["10.0.0.9:22"]);
    assert_eq!(
        endpoints("two.internal:22"),
        ["10.0.0.2:22", "[fd00::2]:22"]
    );
}

#[test]
fn a_name_that_fails_before_it_ever_had_an_answer_leaves_the_others_served() {
    let mut desk = two_names();
    desk.publisher.hear([
        answer("one.internal", Ok(&["10.0.0.1"])),
        answer("two.internal", Err("no such name")),
    ]);
    assert_eq!(desk.endpoints("one.internal:22"), ["10.0.0.1:22"]);
    assert!(desk.endpoints("two.internal:22").is_empty());
}

#[tokio::test]
async fn what_shares_a_thread_with_the_publisher_goes_on_while_it_compiles() {
    let mut text = String::from("[routes.a]\nhost = \"a.test\"\nupstream = \"a.internal:1\"\n");
    for n in 0..5_000 {
        text += &format!("[routes.r{n}]\nhost = \"r{n}.test\"\nupstream = \"10.0.0.1:1\"\n");
    }
    let Desk { publisher, .. } = desk(&text);
    let cell = Arc::clone(&publisher.cell);
    let (answers, received) = mpsc::channel(1);
    let running =
        tokio::spawn(publisher.run(received, no_changes(), no_configurations(), sessions()));
    let address = answer("a.internal", Ok(&["10.0.0.7"]));
    answers.send(address).await.unwrap();
    let mut turns = 0;
    while cell.load().generation == 1 {
        tokio::task::yield_now().await;
        turns += 1;
    }
    assert!(turns > 10, "{turns}");
    drop(answers);
    running.await.unwrap();
}

#[test]
fn changes_that_wait_together_are_one_publication_and_the_last_word_counts() {
    let mut desk = two_names();
    desk.publisher.learn([
        found("web", "10.0.1.1:80"),
        found("db", "10.0.2.1:80"),
        found("gone", "10.0.3.1:80"),
        Change::Gone(key("db")),
        found("web", "10.0.1.2:80"),
        Change::Gone(key("gone")),
        found("gone", "10.0.3.2:80"),
    ]);
    let snapshot = desk.cell.load();
    assert_eq!(snapshot.generation, 2);
    let services: Vec<_> = snapshot.services().iter().map(|s| s.key.clone()).collect();
    assert_eq!(services, [key("gone"), key("web")]);
    assert_eq!(desk.endpoints("web@consul"), ["10.0.1.2:80"]);
    assert_eq!(desk.endpoints("gone@consul"), ["10.0.3.2:80"]);
    assert!(snapshot.upstream("db@consul").is_none());
    let services = r#"portcullis_discovery_services{source="consul",state="routed"} 2"#;
    let scraped = desk.publisher.metrics.encode();
    assert!(scraped.lines().any(|line| line == services), "{scraped}");
}

#[test]
fn an_identity_and_the_services_that_came_with_it_are_one_publication() {
    let mut desk = two_names();
    let ca = Ca::new("mesh");
    let mut web = service("web", "10.0.1.1:80");
    web.upstreams[0].mesh = Some(MeshService {
        partition: None,
        namespace: "default".into(),
        datacenter: "dc1".into(),
        service: "web".into(),
    });
    desk.publisher.learn([
        Change::Service(Arc::new(web)),
        Change::Identity(Some(Arc::new(Identity {
            id: SpiffeId::parse("spiffe://mesh.test/ns/default/dc/dc1/svc/gate").unwrap(),
            certificate: Arc::new(ca.issue(&["gate"]).certified_key()),
            roots: ca.roots(),
            not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            former: None,
        }))),
    ]);
    let metrics = desk.publisher.metrics.encode();
    let end = "portcullis_mesh_identity_not_after_seconds 1800000000";
    assert!(metrics.contains(end), "{metrics}");
    let snapshot = desk.cell.load();
    assert_eq!(snapshot.generation, 2);
    let transport = &snapshot.upstream("web@consul").unwrap().transport;
    assert!(matches!(transport, Transport::Tls(_)), "{transport:?}");
}

#[test]
fn what_a_part_says_of_itself_publishes_nothing() {
    let mut desk = two_names();
    let state = State::Degraded("consul is gone".to_owned());
    desk.publisher
        .learn([Change::State("services".into(), state.clone())]);
    assert_eq!(desk.status.parts()["services"], state);
    assert_eq!(desk.cell.load().generation, 1);
}

#[tokio::test]
async fn a_part_is_ready_only_when_what_it_told_before_is_served() {
    let Desk {
        cell,
        status,
        publisher,
    } = two_names();
    let (changes, learnt) = mpsc::channel(64);
    let running =
        tokio::spawn(publisher.run(mpsc::channel(1).1, learnt, no_configurations(), sessions()));
    // Another thread, as it is with `/readyz`: what it sees is what it would answer.
    let watching = std::thread::spawn(move || {
        while !status.parts().contains_key("services") {
            std::hint::spin_loop();
        }
        cell.load().upstream("s999@consul").is_some()
    });
    for n in 0..1000 {
        let change = found(&format!("s{n}"), "10.0.1.1:80");
        changes.send(change).await.unwrap();
    }
    let ready = Change::State("services".into(), State::Ready);
    changes.send(ready).await.unwrap();
    drop(changes);
    running.await.unwrap();
    assert!(watching.join().unwrap());
}

#[tokio::test]
async fn the_publisher_goes_on_while_either_channel_lives() {
    for names_first in [true, false] {
        let Desk {
            cell, publisher, ..
        } = two_names();
        let (answers, received) = mpsc::channel(1);
        let (changes, learnt) = mpsc::channel(1);
        let running =
            tokio::spawn(publisher.run(received, learnt, no_configurations(), sessions()));
        let change = found("web", "10.0.1.1:80");
        let address = answer("one.internal", Ok(&["10.0.0.1"]));
        if names_first {
            answers.send(address).await.unwrap();
            drop(answers);
            changes.send(change).await.unwrap();
            drop(changes);
        } else {
            changes.send(change).await.unwrap();
            drop(changes);
            answers.send(address).await.unwrap();
            drop(answers);
        }
        running.await.unwrap();
        let snapshot = cell.load();
        assert!(snapshot.upstream("web@consul").is_some(), "{names_first}");
        let names = snapshot.upstream("one.internal:22").unwrap().endpoints();
        assert_eq!(names.len(), 1, "{names_first}");
    }
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_served_from_the_disk_and_one_that_waits_after_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        folder: folder.path().join("state"),
        key_file: None,
        max_age: Settings::MAX_AGE,
    };
    let kept = || {
        let state = state::State::start(&settings, &[NAMES], drop).unwrap();
        let kept = Addresses::of(Some(&state), NAMES);
        (state, kept)
    };
    let (state, mut before) = kept();
    for (name, address) in [
        ("one", "10.0.0.1"),
        ("two", "10.0.0.2"),
        ("old", "10.0.0.3"),
    ] {
        let name = HostName::parse(&format!("{name}.internal")).unwrap();
        before.put(&name, &[address.parse().unwrap()], false);
    }
    state.close();

    let (state, kept) = kept();
    let mut desk = desk_with(TWO_NAMES, kept);
    let addresses = |desk: &Desk| -> Vec<String> {
        let addresses = desk.publisher.inputs.addresses.values().flatten();
        addresses.map(ToString::to_string).collect()
    };
    assert_eq!(addresses(&desk), [""; 0]);
    let (publisher, names) = (&mut desk.publisher, |desk: &Desk| {
        desk.status.parts()[NAMES].clone()
    });
    publisher.hear([answer("one.internal", Err("no answer"))]);
    assert_eq!(addresses(&desk), ["10.0.0.1"], "at once");
    assert!(matches!(names(&desk), State::NotReady(why) if why.ends_with(": two.internal")));
    desk.publisher.restore();
    assert_eq!(addresses(&desk), ["10.0.0.1", "10.0.0.2"]);
    let said = names(&desk);
    let State::Degraded(why) = &said else {
        panic!("{said:?}");
    };
    assert!(why.contains("served from the disk as it was at 2"), "{why}");
    assert!(why.ends_with(": one.internal, two.internal"), "{why}");

    let live = ["one", "two"].map(|name| answer(&format!("{name}.internal"), Ok(&["10.9.9.9"])));
    desk.publisher.hear(live);
    assert_eq!(addresses(&desk), ["10.9.9.9", "10.9.9.9"]);
    assert_eq!(names(&desk), State::Ready);
    state.close();
    let state = state::State::start(&settings, &[NAMES], drop).unwrap();
    let stored = state.open(NAMES, "").stored.unwrap().unwrap();
    let kept = stored.entries::<serde_json::Value>().unwrap();
    assert_eq!(kept.len(), 2, "what no upstream has is not kept: {kept:?}");
}
