//! Services whose instances are registered with names.

use super::*;
use crate::snapshot::service::NamedEndpoint;

/// A service with one instance, at this name.
fn at(name: &str, host: &str) -> Service {
    let mut service = service(name, "10.0.0.1:22");
    let upstream = &mut service.upstreams[0];
    upstream.endpoints.clear();
    upstream.named.push(NamedEndpoint {
        host: HostName::parse(host).unwrap(),
        port: 5432,
        configured: "n1/db".into(),
        weight: 3,
        is_local_allowed: false,
    });
    service
}

fn told(service: Service) -> Change {
    Change::Service(Arc::new(service))
}

#[test]
fn a_service_with_a_name_is_dialled_at_what_that_resolves_to_and_says_so_while_it_does_not() {
    let mut desk = desk("");
    desk.publisher.learn([told(at("db", "db.internal"))]);
    let empty = |desk: &Desk| {
        let snapshot = desk.cell.load();
        let upstream = snapshot.upstream("db@consul").unwrap();
        upstream.empty.as_deref().map(str::to_owned)
    };
    let why = empty(&desk).unwrap();
    assert!(why.contains("db.internal"), "{why}");
    assert_eq!(desk.state(), State::Ready, "nobody waits for it");
    desk.publisher
        .hear([answer("db.internal", Ok(&["10.0.0.7", "2001:db8::7"]))]);
    let both = ["10.0.0.7:5432", "[2001:db8::7]:5432"];
    assert_eq!(desk.endpoints("db@consul"), both);
    assert_eq!(empty(&desk), None);
    // A failure after an answer is not told: the last good one is kept, also when all is compiled anew.
    desk.publisher.learn([found("web", "10.0.1.1:80")]);
    desk.publisher.publish(&BTreeMap::new(), true);
    assert_eq!(desk.endpoints("db@consul"), both);
    desk.publisher.learn([told(at("db", "other.internal"))]);
    assert!(desk.endpoints("db@consul").is_empty());
    desk.publisher
        .hear([answer("other.internal", Err("no such name"))]);
    let state = State::Degraded("not resolving: other.internal".to_owned());
    assert_eq!(desk.state(), state);
    desk.publisher.learn([Change::Gone(key("db"))]);
    assert_eq!(desk.state(), State::Ready);
}

#[test]
fn a_name_that_stands_for_this_machine_leads_nowhere_unless_that_is_allowed() {
    let mut desk = desk("");
    let mut service = at("db", "db.internal");
    desk.publisher.learn([told(service.clone())]);
    let local = [
        "127.0.0.1",
        "169.254.169.254",
        "::1",
        "fe80::1",
        "0.0.0.0",
        "::ffff:127.0.0.1",
    ];
    desk.publisher.hear([answer("db.internal", Ok(&local))]);
    assert!(desk.endpoints("db@consul").is_empty());
    service.upstreams[0].named[0].is_local_allowed = true;
    desk.publisher.learn([told(service)]);
    assert_eq!(desk.endpoints("db@consul").len(), 4);
}

#[tokio::test]
async fn the_name_of_a_service_is_served_from_the_disk_where_nobody_resolves_it_at_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        folder: folder.path().join("state"),
        key_file: None,
        max_age: Settings::MAX_AGE,
    };
    let begin = || {
        let state = state::State::start(&settings, &[NAMES], drop).unwrap();
        let kept = Addresses::of(Some(&state), NAMES);
        (state, desk_with("", kept))
    };
    let (state, mut desk) = begin();
    desk.publisher.learn([
        told(at("db", "db.internal")),
        told(at("old", "old.internal")),
    ]);
    desk.publisher.hear([
        answer("db.internal", Ok(&["10.0.0.7"])),
        answer("old.internal", Ok(&["10.0.0.8"])),
    ]);
    desk.publisher.learn([Change::Gone(key("old"))]);
    state.close();

    // It hangs, or says that it has no answer.
    for fails in [false, true] {
        let (state, mut desk) = begin();
        desk.publisher.learn([
            told(at("db", "db.internal")),
            told(at("old", "old.internal")),
        ]);
        assert!(desk.publisher.grace.is_some() && desk.endpoints("db@consul").is_empty());
        match fails {
            true => (desk.publisher).hear([answer("db.internal", Err("no answer"))]),
            false => desk.publisher.restore(),
        }
        assert_eq!(desk.endpoints("db@consul"), ["10.0.0.7:5432"]);
        let said = desk.state();
        assert!(
            matches!(&said, State::Degraded(why) if why.contains("from the disk") && why.ends_with(": db.internal")),
            "{said:?}"
        );
        let snapshot = desk.cell.load_full();
        let restored = |name: &str| snapshot.upstream(name).unwrap().restored.is_some();
        assert!(restored("db@consul") && !restored("old@consul"));
        assert!(desk.endpoints("old@consul").is_empty(), "it was gone");
        if fails {
            desk.publisher
                .hear([answer("db.internal", Ok(&["10.0.0.9"]))]);
            assert_eq!(desk.endpoints("db@consul"), ["10.0.0.9:5432"]);
            desk.publisher.learn([Change::Gone(key("db"))]);
            desk.publisher.learn([Change::Gone(key("old"))]);
            assert_eq!(desk.state(), State::Ready);
        }
        state.close();
    }
    let stored = state::State::start(&settings, &[NAMES], drop).unwrap();
    let stored = stored.open(NAMES, "").stored.unwrap().unwrap();
    let kept = stored.entries::<serde_json::Value>().unwrap();
    assert!(kept.is_empty(), "nobody has a name any more: {kept:?}");
}
