//! What a token may not see, and what an operator is told of it.

use super::*;

#[test]
fn a_gateway_that_may_see_nothing_says_so() {
    let mut world = World::new(Exposure::default());
    let answer = Answer {
        value: serde_json::from_str("{}").unwrap(),
        index: 1,
        known_leader: true,
        last_contact: Duration::ZERO,
        stale: false,
        filtered: false,
        default_deny: true,
        token: TokenId::default(),
    };
    world.known.catalog(answer, false, world.now);
    world.checks(json!([]));
    world.settle();
    assert!(world.known.is_hidden());
    assert!(world.known.trouble().unwrap().contains("no ACL token"));
}

#[test]
fn a_token_that_sees_nothing_is_told_which_right_it_lacks() {
    let lacking = |checks: Value| {
        let mut world = World::new(Exposure::default());
        world.filtered = true;
        world.catalog(json!({}));
        world.checks(checks);
        world.settle();
        let trouble = world.known.trouble().unwrap();
        let again = world.known.ask_at(world.now);
        assert_eq!(again, Some(world.now), "no blocking query tells of it");
        (world.known.is_hidden(), trouble)
    };
    let (is_hidden, trouble) = lacking(json!([]));
    assert!(is_hidden && trouble.contains("node_prefix"), "{trouble}");
    // Perhaps what it may see is not there yet.
    let (is_hidden, trouble) = lacking(json!([["n1", "serfHealth", "", 1]]));
    assert!(
        !is_hidden && trouble.contains("service_prefix"),
        "{trouble}"
    );
    let mut world = World::known();
    assert_eq!(world.known.remark(), None);
    world.filtered = true;
    world.catalog(json!({"api": tags("api"), "web": tags("web")}));
    assert!(world.known.remark().is_some() && world.known.trouble().is_none());
    let minute = Duration::from_secs(60);
    assert_eq!(world.known.ask_at(world.now), Some(world.now + minute));
}
