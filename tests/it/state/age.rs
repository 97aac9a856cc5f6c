//! What is served from the disk grows too old while the gateway runs; and what a reload makes of the state's keys.

use std::fs;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::{MESH, PERSISTENT, PLAIN, Site, World, metric, ready, says, stop};
use crate::gateway::ask;
use crate::support::wait_until;
use crate::upstream::Upstream;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_from_the_disk_is_refused_when_it_grows_too_old_and_no_route_takes_its_clients() {
    let Some(mut world) = World::start(PERSISTENT).await else {
        return;
    };
    let mut site = Site::new(&world.consul);
    site.learns().await;
    world.consul.kill();
    site.keys = "state_max_age = \"8s\"".to_owned();
    // Nobody's client is to land here for want of a route.
    site.consul
        .push_str("[routes.any]\nrule = 'HostSNI(`*`)'\nupstream = \"127.0.0.1:9\"\n");
    let gateway = site.start();
    let from_the_disk = |parts: &str| parts.matches("from the disk").count() == 2;
    let (status, parts) = ready(&gateway, from_the_disk).await;
    assert_eq!(status, 200, "{parts}");
    site.serves(&gateway, PLAIN, "plain").await;
    site.serves(&gateway, MESH, "mesh").await;

    let too_old = |parts: &str| parts.matches("and `state_max_age` is 8 s").count() == 2;
    let (status, parts) = ready(&gateway, too_old).await;
    assert_eq!(status, 503, "{parts}");
    for part in ["consul not ready: ", "mesh identity not ready: "] {
        assert!(parts.contains(part), "{parts}");
    }
    says(
        &gateway,
        "consul's services from the disk are served no longer",
    );
    says(&gateway, "the mesh identity from the disk serves no longer");
    for host in [PLAIN, MESH] {
        assert_eq!(site.greeting(gateway.listener, host).await, None);
    }
    let route = async |name: &str| {
        let routes: Value =
            serde_json::from_str(&ask(gateway.admin, "/v1/routes").await.1).unwrap();
        let mut routes = routes["routes"].as_array().unwrap().clone();
        routes.retain(|route| route["name"] == name);
        routes.pop().unwrap()
    };
    for name in ["plain@consul", "mesh@consul"] {
        let route = route(name).await;
        assert_eq!(route["action"], "broken", "{route}");
        let why = route["broken_reason"].as_str().unwrap();
        assert!(why.contains("`state_max_age` is 8 s"), "{route}");
        assert!(route["from_disk"].is_string(), "{route}");
        assert_eq!(route["endpoints"], serde_json::json!([]), "{route}");
    }
    let of = |series: &str, part: &str| format!("portcullis_state_{series}{{part=\"{part}\"}}");
    for part in ["consul", "mesh identity"] {
        assert_eq!(
            metric(&gateway, &of("refused", part)).await,
            Some(1.0),
            "{part}"
        );
        let restored = of("restored_timestamp_seconds", part);
        assert_eq!(metric(&gateway, &restored).await, None, "{part}");
    }

    // Another bound counts at once.
    site.keys = "state_max_age = \"1h\"".to_owned();
    site.rewrite();
    let (status, parts) = ready(&gateway, |parts| {
        from_the_disk(parts) && !parts.contains("not ready")
    })
    .await;
    assert_eq!(status, 200, "{parts}");
    site.serves(&gateway, PLAIN, "plain").await;
    site.serves(&gateway, MESH, "mesh").await;
    for part in ["consul", "mesh identity"] {
        assert_eq!(metric(&gateway, &of("refused", part)).await, None, "{part}");
    }
    site.keys = "state_max_age = \"1s\"".to_owned();
    site.rewrite();
    let too_old = |parts: &str| parts.matches("and `state_max_age` is 1 s").count() == 2;
    let (status, parts) = ready(&gateway, too_old).await;
    assert_eq!(status, 503, "{parts}");

    world.consul.restart();
    let is_ready = |parts: &str| parts.lines().all(|line| line.ends_with(" ready"));
    ready(&gateway, is_ready).await;
    site.serves(&gateway, PLAIN, "plain").await;
    assert_eq!(route("plain@consul").await["from_disk"], Value::Null);
    assert_eq!(metric(&gateway, &of("refused", "consul")).await, None);
    stop(gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_start_what_is_too_old_refuses_by_name_and_what_is_damaged_is_not_ready_before_consul()
{
    let Some(mut world) = World::start(PERSISTENT).await else {
        return;
    };
    let mut site = Site::new(&world.consul);
    site.learns().await;
    world.consul.kill();
    let part = site.folder().join("consul");
    let written = fs::metadata(&part).unwrap().modified().unwrap();
    let is_old = || SystemTime::now() > written + Duration::from_secs(3);
    wait_until("it is too old", is_old);
    let any = Upstream::greeter("any").await;
    let default = format!(
        "[routes.any]\nrule = 'HostSNI(`*`)'\nupstream = \"{}\"\n",
        any.address
    );
    site.consul.push_str(&default);
    site.keys = "state_max_age = \"1s\"".to_owned();
    let gateway = site.start();
    let too_old = |parts: &str| parts.matches("and `state_max_age` is 1 s").count() == 2;
    let (status, parts) = ready(&gateway, too_old).await;
    assert_eq!(status, 503, "{parts}");
    for host in [PLAIN, MESH] {
        assert_eq!(site.greeting(gateway.listener, host).await, None, "{host}");
    }
    site.serves(&gateway, "other.example.test", "any").await;
    // What is refused is not forgotten.
    site.keys = "state_max_age = \"1h\"".to_owned();
    site.rewrite();
    site.serves(&gateway, PLAIN, "plain").await;
    site.serves(&gateway, MESH, "mesh").await;
    stop(gateway);

    fs::write(&part, "damaged").unwrap();
    let gateway = site.start();
    says(&gateway, "which services the disk had is not known");
    let (status, parts) = ready(&gateway, |parts| parts.contains("it is damaged")).await;
    assert_eq!(status, 503, "{parts}");
    let refused = "portcullis_state_refused{part=\"consul\"}";
    assert_eq!(metric(&gateway, refused).await, Some(1.0));
    world.consul.restart();
    let is_ready = |parts: &str| parts.lines().all(|line| line.ends_with(" ready"));
    ready(&gateway, is_ready).await;
    assert_eq!(metric(&gateway, refused).await, None);
    site.serves(&gateway, PLAIN, "plain").await;
    stop(gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_says_what_of_the_state_waits_for_the_next_start() {
    let mut site = Site::alone();
    site.authority.write("one.key", &"1a".repeat(32));
    site.keys = "state_key_file = \"one.key\"".to_owned();
    let gateway = site.start();
    let is_ready = |parts: &str| parts.contains("state ready");
    ready(&gateway, is_ready).await;
    let good = site.keys.clone();
    let otherwise = async |site: &Site, why: &str| {
        site.rewrite();
        let (status, parts) = ready(&gateway, |parts| parts.contains(why)).await;
        assert_eq!(status, 200, "{parts}");
        assert!(parts.contains("state degraded: "), "{parts}");
        says(&gateway, why);
    };
    site.keys = String::new();
    otherwise(&site, "the key of `state_key_file` has changed").await;
    site.keys = good;
    site.rewrite();
    ready(&gateway, is_ready).await;
    // Another key in the same file.
    site.authority.write("one.key", &"2b".repeat(32));
    gateway.child.signal("HUP");
    ready(&gateway, |parts| {
        parts.contains("the key of `state_key_file` has changed")
    })
    .await;
    site.authority.write("one.key", &"1a".repeat(32));
    gateway.child.signal("HUP");
    ready(&gateway, is_ready).await;
    site.state_dir = "\"elsewhere\"";
    otherwise(&site, "`state_dir` has changed: ").await;
    assert!(!site.authority.folder().join("elsewhere").exists());
    site.keys = String::new();
    site.state_dir = "false";
    otherwise(&site, "`state_dir` is gone: ").await;
    stop(gateway);
}
