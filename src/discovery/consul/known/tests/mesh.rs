//! Services of the mesh, and the sidecars that speak for them.

use super::*;

fn mesh_tags(name: &str) -> Value {
    let mut tags = tags(name);
    tags.as_array_mut()
        .unwrap()
        .push(json!("traefik.consulcatalog.connect=true"));
    tags
}

fn sidecar(node: &str, name: &str, of: &str, tags: &Value) -> Value {
    let mut entry = instance(node, name, tags, 21000);
    entry["Service"]["Kind"] = json!("connect-proxy");
    entry["Service"]["Proxy"] = json!({"DestinationServiceName": of, "DestinationServiceID": of});
    entry
}

impl World {
    /// A service with a sidecar, known.
    fn mesh(tags: &Value, sidecar_tags: &Value) -> Self {
        let mut world = Self::new(Exposure {
            mesh: true,
            ..Exposure::default()
        });
        let beside = json!([sidecar("n1", "web-sidecar-proxy", "web", sidecar_tags)]);
        world.service = BTreeMap::from([
            ("web", json!([instance("n1", "web", tags, 80)])),
            ("web-sidecar-proxy", beside.clone()),
        ]);
        world.connect = BTreeMap::from([("web", beside)]);
        world.catalog(json!({"web": tags, "web-sidecar-proxy": sidecar_tags}));
        world.checks(json!([]));
        world
    }
}

#[test]
fn the_tags_that_a_sidecar_copies_make_no_second_route() {
    let mut world = World::mesh(&mesh_tags("web"), &mesh_tags("web"));
    assert_eq!(world.settle(), ["service web"]);
    let web = world.service("web");
    assert_eq!(web.routes.len(), 1);
    assert_eq!(web.upstreams[0].endpoints[0].address.port(), 21000);
    assert!(!world.known.services.contains_key("web-sidecar-proxy"));
    assert_eq!(world.known.trouble(), None);
    // Its check is one of the service's.
    world.take_read();
    world.checks(json!([["n1", "c", "web-sidecar-proxy", 3]]));
    world.settle();
    assert_eq!(world.take_read(), ["web"]);
    // When it leaves, the service has none: known at once.
    world.index += 1;
    world.connect.clear();
    world.catalog(json!({"web": mesh_tags("web")}));
    assert_eq!(world.settle(), ["service web"]);
    assert_eq!(world.service("web").upstreams[0].endpoints, []);
}

#[test]
fn a_sidecar_that_comes_later_under_any_name_is_noticed() {
    let tags = mesh_tags("web");
    let mut world = World::mesh(&tags, &json!([]));
    let instances = ["n1", "n2"].map(|node| instance(node, "web", &tags, 80));
    world.service.insert("web", json!(instances));
    world.settle();
    world.take_read();
    world.index += 1;
    let mut helper = sidecar("n2", "helper", "web", &json!([]));
    helper["Service"]["Port"] = json!(21001);
    let list = world.connect.get_mut("web").unwrap();
    list.as_array_mut().unwrap().push(helper.clone());
    world.service.insert("helper", json!([helper]));
    world.catalog(json!({"web": tags, "web-sidecar-proxy": [], "helper": [], "db": []}));
    assert_eq!(world.settle(), ["service web"]);
    assert_eq!(world.take_read(), ["db", "helper", "web"]);
    assert_eq!(world.service("web").upstreams[0].endpoints.len(), 2);
}

#[test]
fn the_tags_of_a_sidecar_count_where_its_service_has_no_instance() {
    let mut world = World::mesh(&json!([]), &mesh_tags("web"));
    assert_eq!(world.settle(), [""; 0]);
    world.index += 1;
    world.service.remove("web");
    world.catalog(json!({"web-sidecar-proxy": mesh_tags("web")}));
    world.now += Duration::from_secs(60);
    assert_eq!(world.settle(), ["service web"]);
    let web = world.service("web");
    assert_eq!((web.routes.len(), web.upstreams[0].endpoints.len()), (1, 1));
    // It is missed like any other when it leaves.
    world.index += 1;
    world.connect.clear();
    world.service.clear();
    world.catalog(json!({}));
    assert_eq!(world.settle(), [""; 0]);
    assert!(world.known.trouble().unwrap().contains("1 of 1"));
}

#[test]
fn sidecars_that_a_token_may_not_see_any_more_are_kept() {
    let mut world = World::mesh(&mesh_tags("web"), &json!([]));
    world.settle();
    world.filtered = true;
    let sidecars = world.connect.insert("web", json!([])).unwrap();
    world.checks(json!([["n1", "c", "web", 3]]));
    let trouble = world.trouble_after(4);
    assert!(trouble.contains("ACL"), "{trouble}");
    // One that always was so says nothing by it.
    world.connect.insert("web", sidecars);
    world.now += Duration::from_secs(60);
    assert_eq!(world.settle(), ["service web"]);
    let notes = &world.service("web").notes;
    assert!(notes[0].starts_with("ACLs hide some of"), "{notes:?}");
    world.connect.insert("web", json!([]));
    world.checks(json!([["n1", "c", "web", 4]]));
    assert_eq!(world.settle(), ["service web"]);
}
