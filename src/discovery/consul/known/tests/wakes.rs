//! What follows from a catalog that has changed and does not say what has.

use super::*;
use crate::discovery::consul::nodes::{Look, Registered};
use crate::discovery::reads::AFTER_A_CHANGE;

#[test]
fn a_wake_that_nothing_explains_reads_all_at_once_where_services_are_fewer_than_nodes() {
    let mut world = World::known();
    world.known.look(world.now);
    world.known.looked(Look::TooMany, world.now);
    world.settle();
    world.take_read();
    world.now += Duration::from_secs(10);
    let names = json!({"api": tags("api"), "consul": [], "web": tags("web")});
    // The same index is a poll that has ended without a change.
    world.catalog(names.clone());
    world.settle();
    assert_eq!(world.take_read(), [""; 0]);
    world.index += 1;
    world
        .service
        .insert("web", json!([instance("n2", "web", &tags("web"), 99)]));
    world.catalog(names.clone());
    assert_eq!(world.settle(), ["service web"]);
    assert_eq!(world.take_read(), ["api", "web"]);
    // A few in a row are not held up, and then one a second.
    for read in [2, 2, 0, 0] {
        world.index += 1;
        world.catalog(names.clone());
        world.settle();
        assert_eq!(world.take_read().len(), read);
    }
    let next = world.now + Duration::from_secs(1);
    assert_eq!(world.known.wake_at(), Some(next));
    world.now = next;
    world.settle();
    assert_eq!(world.take_read(), ["api", "web"]);
    // Another history, which may differ in everything.
    world.now += Duration::from_secs(10);
    world.index = 3;
    let mut changed = names;
    changed["web"] = json!(["more", "tags"]);
    world.catalog(changed);
    world.settle();
    assert_eq!(world.take_read(), ["api", "web"]);
}

#[test]
fn where_nodes_are_fewer_a_wake_is_explained_by_what_they_have() {
    let mut world = World::known();
    world.checks(json!([["n1", "alive", "", 1]]));
    world.settle();
    world.take_read();
    let mut names = json!({"api": tags("api"), "consul": [], "web": tags("web")});
    let seen = |index| Look::Seen(Registered::of("n1", &[("api", 1), ("web", index)]));
    let looked = |world: &mut World, names: &Value, seen| {
        world.index += 1;
        world.catalog(names.clone());
        world.settle();
        assert_eq!(world.take_read(), [""; 0]);
        assert_eq!(world.known.look_at(), Some(world.now));
        world.known.look(world.now);
        world.known.looked(seen, world.now);
        world.settle();
        world.now += Duration::from_secs(10);
        world.take_read()
    };
    // The first has nothing to compare with.
    assert_eq!(looked(&mut world, &names, seen(1)), ["api", "web"]);
    assert_eq!(looked(&mut world, &names, seen(2)), ["web"]);
    assert_eq!(looked(&mut world, &names, seen(2)), [""; 0]);
    // Where they cannot be looked at, all is read.
    assert_eq!(looked(&mut world, &names, Look::Failed), ["api", "web"]);
    assert_eq!(looked(&mut world, &names, seen(3)), ["web"]);

    // What explains one change may hide another.
    names["db"] = json!([]);
    world.index += 1;
    world.catalog(names.clone());
    world.settle();
    assert_eq!(world.take_read(), [""; 0]);
    let due = world.now + AFTER_A_CHANGE;
    assert_eq!(world.known.look_at(), Some(due));
    world.known.look(due);
    world.known.looked(seen(4), due);
    world.settle();
    assert_eq!(world.take_read(), ["web"]);

    // A gateway speaks for services that it does not name.
    world.now += Duration::from_secs(10);
    world.known.look(world.now);
    let gateway = Registered::of(
        "n1",
        &[("api", 1), ("web", 4), ("a terminating-gateway", 5)],
    );
    world.known.looked(Look::Seen(gateway), world.now);
    world.settle();
    assert_eq!(world.take_read(), ["api", "web"]);

    // Another history: all is read, and what was seen compares with nothing.
    world.now += Duration::from_secs(10);
    world.index = 3;
    world.catalog(names.clone());
    world.settle();
    assert_eq!(world.take_read(), ["api", "web"]);
    world.now += Duration::from_secs(10);
    world.index += 1;
    world.catalog(names);
    assert_eq!(world.known.look(world.now), 2);
    world.known.looked(seen(4), world.now);
    world.settle();
    assert_eq!(world.take_read(), ["api", "web"]);
}

/// A check that comes and goes between two answers of the poll is in neither, and was read with the service.
#[test]
fn what_was_read_of_a_moment_that_no_poll_has_told_of_is_read_again_when_the_next_one_answers() {
    let mut world = World::known();
    let well = instance("n2", "web", &tags("web"), 2);
    let mut sick = well.clone();
    sick["Checks"] =
        json!([{"CheckID": "_node_maintenance", "Status": "critical", "ModifyIndex": 12}]);
    world.service.insert("web", json!([sick]));
    world.known.reads.now(&"web".into());
    assert_eq!(world.settle(), ["service web"]);
    assert_eq!(world.service("web").upstreams[0].endpoints, []);
    world.service.insert("web", json!([well]));
    world.index = 13;
    world.checks(json!([]));
    assert_eq!(world.settle(), ["service web"]);
    assert_eq!(world.service("web").upstreams[0].endpoints.len(), 1);
    world.take_read();
    world.index = 14;
    world.checks(json!([]));
    assert_eq!(world.settle(), [""; 0]);
    assert_eq!(world.take_read(), [""; 0], "and then no more");
}

/// As from what answers with the same index whatever has happened.
#[test]
fn an_index_that_stays_behind_what_was_read_has_it_read_no_oftener() {
    let mut world = World::known();
    let mut web = instance("n2", "web", &tags("web"), 2);
    web["Checks"] = json!([{"CheckID": "c", "Status": "passing", "ModifyIndex": 120}]);
    web["Service"]["ModifyIndex"] = json!(120);
    world.service.insert("web", json!([web]));
    world.known.reads.now(&"web".into());
    world.settle();
    world.take_read();
    let names = json!({"api": tags("api"), "consul": [], "web": tags("web")});
    for _ in 0..3 {
        world.checks(json!([]));
        world.catalog(names.clone());
        world.settle();
        assert_eq!(world.take_read(), [""; 0]);
    }
}

#[test]
fn an_instance_that_came_and_went_between_two_answers_is_gone_with_the_next_one() {
    let mut world = World::known();
    world.checks(json!([["n1", "alive", "", 1]]));
    world.settle();
    let instances = [("n1", 2), ("n2", 3)];
    let [first, mut second] =
        instances.map(|(node, port)| instance(node, "web", &tags("web"), port));
    second["Service"]["ModifyIndex"] = json!(12);
    let both = json!([first.clone(), second]);
    world.service.insert("web", both);
    world.known.reads.now(&"web".into());
    assert_eq!(world.settle(), ["service web"]);
    world.service.insert("web", json!([first]));
    world.index = 13;
    world.catalog(json!({"api": tags("api"), "consul": [], "web": tags("web")}));
    assert_eq!(world.settle(), ["service web"]);
    assert_eq!(world.service("web").upstreams[0].endpoints.len(), 1);
}

#[test]
fn an_agent_whose_index_stays_behind_what_was_read_has_nothing_read_again_by_each_answer() {
    let mut world = World::known();
    world.checks(json!([["n1", "alive", "", 1]]));
    world.index = 1;
    let names = json!({"api": tags("api"), "consul": [], "web": tags("web")});
    let mut web = instance("n1", "web", &tags("web"), 2);
    web["Service"]["ModifyIndex"] = json!(12);
    web["Checks"] = json!([{"CheckID": "alive", "Status": "passing", "ModifyIndex": 12}]);
    world.service.insert("web", json!([web]));
    world.catalog(names.clone());
    world.checks(json!([["n1", "alive", "", 1]]));
    world.settle();
    world.now += Duration::from_secs(10);
    world.settle();
    world.take_read();
    for _ in 0..3 {
        world.now += Duration::from_secs(1);
        world.catalog(names.clone());
        world.checks(json!([["n1", "alive", "", 1]]));
        world.settle();
        assert_eq!(world.take_read(), [""; 0]);
    }
}
