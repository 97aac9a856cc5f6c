//! Services whose tags ask for nothing that is served here: told of once, never read, never missed.

use super::*;

fn http(name: &str) -> Value {
    json!([format!("traefik.http.routers.{name}.rule=Host(`{name}`)")])
}

/// Two services with routes, all known, and one for HTTP.
fn world() -> World {
    let mut world = World::known();
    world.take_read();
    world.index += 1;
    world.catalog(json!({"api": tags("api"), "web": tags("web"), "site": http("site")}));
    assert_eq!(world.told(), ["service site"]);
    world
}

#[test]
fn a_service_for_http_is_told_of_once_and_never_read() {
    let mut world = world();
    for _ in 0..3 {
        world.index += 1;
        world.now += Duration::from_secs(60);
        world.catalog(json!({"api": tags("api"), "web": tags("web"), "site": http("site")}));
        assert_eq!(world.settle(), [""; 0]);
    }
    assert!(!world.take_read().contains(&"site".to_owned()));
    let noted = &world.known.noted["site"];
    assert!(noted.notes[0].contains("`http`") && noted.skipped.is_empty());
    assert_eq!(world.known.trouble(), None);
}

#[test]
fn it_goes_with_its_tags_or_the_catalog_and_comes_to_be_read_with_a_router() {
    let mut world = world();
    world.index += 1;
    world.catalog(json!({"api": tags("api"), "web": tags("web"), "site": []}));
    assert_eq!(world.told(), ["gone site"]);
    world.index += 1;
    world.catalog(json!({"api": tags("api"), "web": tags("web"), "site": http("site")}));
    assert_eq!(world.told(), ["service site"]);
    world.index += 1;
    world.catalog(json!({"api": tags("api"), "web": tags("web")}));
    assert_eq!(world.told(), ["gone site"]);

    world.index += 1;
    world
        .service
        .insert("site", json!([instance("n1", "site", &tags("site"), 3)]));
    world.catalog(json!({"api": tags("api"), "web": tags("web"), "site": tags("site")}));
    assert_eq!(world.settle(), ["service site"]);
    assert_eq!(world.service("site").routes.len(), 1);
    // And when its router goes, what is left of it is noted.
    world.index += 1;
    world.now += Duration::from_secs(10);
    world
        .service
        .insert("site", json!([instance("n1", "site", &http("site"), 3)]));
    world.catalog(json!({"api": tags("api"), "web": tags("web"), "site": http("site")}));
    assert_eq!(world.settle(), ["gone site", "service site"]);
    assert!(world.known.noted.contains_key("site"));
}

#[test]
fn the_sidecar_that_nobody_looks_at_is_not_noted_beside_its_service() {
    let mut world = world();
    world.index += 1;
    world.catalog(json!({
        "api": tags("api"), "web": tags("web"),
        "site": http("site"), "site-sidecar-proxy": http("site"), "lone-sidecar-proxy": http("lone"),
    }));
    assert_eq!(world.told(), ["service lone-sidecar-proxy"]);
}

#[test]
fn the_watch_that_follows_tells_what_has_become_of_them() {
    let told = world().known.told();
    assert_eq!(told.services.len(), 2);
    let mut keys: Vec<&str> = told.keys().map(|key| &*key.name).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["api", "site", "web"]);
    // The prefix is another one now, and nothing that was known is anybody's.
    let exposure = Exposure {
        terms: Terms {
            prefix: "edge".into(),
            ..Terms::default()
        },
        ..Exposure::default()
    };
    let mut after = World::new(Exposure::default());
    after.known = Known::new(&Place::default(), exposure, Duration::from_secs(60), told);
    after.index = 100;
    after.catalog(json!({"api": tags("api"), "web": tags("web"), "site": http("site")}));
    assert_eq!(after.told(), ["gone site"]);
}
