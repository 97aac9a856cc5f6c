//! What is made of Consul's answers, of true ones and of hostile ones.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use serde_json::{Value, json};

use super::super::super::instance::Health;
use super::super::answers::{Checks, Services};
use super::*;

mod addresses;

fn entries(list: Value) -> Entries {
    serde_json::from_str(&list.to_string()).unwrap()
}

/// What is made of these entries of `health/service/web`.
fn service(list: Value) -> Listing {
    listing(
        &Place::default(),
        &"web".into(),
        &entries(list),
        None,
        &"dc1".into(),
        Addressing::default(),
    )
}

/// What is made of these entries of `health/connect/web`, where the service has no instance of its own.
fn connect(list: Value) -> Listing {
    let none = entries(json!([]));
    listing(
        &Place::default(),
        &"web".into(),
        &none,
        Some(&entries(list)),
        &"dc1".into(),
        Addressing::default(),
    )
}

/// An entry as Consul 1.20 writes it, with `changes` to its service.
fn entry(changes: Value) -> Value {
    let mut entry = json!({
        "Node": {"ID": "31f8d30e", "Node": "n1", "Address": "10.0.0.1", "Datacenter": "dc2",
            "TaggedAddresses": {"lan": "10.0.0.1"}, "Meta": null},
        "Service": {"ID": "web-1", "Service": "web", "Tags": ["a", "b"], "Address": "10.0.0.2",
            "TaggedAddresses": {"consul-virtual": {"Address": "240.0.0.1", "Port": 80},
                "lan_ipv4": {"address": "10.9.9.9", "port": 1}},
            "Meta": null, "Port": 8080, "Weights": {"Passing": 3, "Warning": 2},
            "Proxy": {"Mode": ""}, "Connect": {}, "CreateIndex": 18, "ModifyIndex": 19},
        "Checks": [{"Node": "n1", "CheckID": "serfHealth", "Status": "passing"}],
    });
    for (key, value) in changes.as_object().unwrap() {
        entry["Service"][key] = value.clone();
    }
    entry
}

fn sidecar(changes: Value) -> Value {
    let mut sidecar = entry(json!({
        "Kind": "connect-proxy", "ID": "web-1-sidecar-proxy", "Service": "web-sidecar-proxy", "Port": 21000,
        "Proxy": {"DestinationServiceName": "web", "DestinationServiceID": "web-1"},
    }));
    for (key, value) in changes.as_object().unwrap() {
        sidecar["Service"][key] = value.clone();
    }
    sidecar
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<Arc<str>> {
    names.into_iter().map(Arc::from).collect()
}

/// The one instance that there is, and nothing unusable.
fn only(listing: Listing) -> Instance {
    assert_eq!(listing.found.unusable, []);
    let mut instances = listing.found.instances;
    instances.extend(listing.found.sidecars.into_iter().flatten());
    assert_eq!(instances.len(), 1);
    instances.remove(0)
}

/// The one reason why nothing can be used.
fn unusable(listing: Listing) -> (String, String) {
    let dialled = |instance: &Instance| instance.address.is_some();
    assert!(!listing.found.instances.iter().any(dialled));
    assert_eq!(listing.found.sidecars.unwrap_or_default(), []);
    assert_eq!(listing.found.unusable.len(), 1);
    let (id, why) = &listing.found.unusable[0];
    (id.to_string(), why.to_string())
}

#[test]
fn an_instance_is_taken_as_it_was_registered() {
    let listing = service(json!([entry(json!({}))]));
    assert_eq!(
        listing.found.mesh,
        MeshService {
            partition: None,
            namespace: "default".into(),
            datacenter: "dc2".into(),
            service: "web".into(),
        }
    );
    assert_eq!(listing.nodes, set(["n1"]));
    assert_eq!(listing.datacenter, Some("dc2".into()));
    assert!(listing.stands_for.is_empty() && listing.speakers.is_empty());
    assert_eq!(listing.found.sidecars, None);
    assert_eq!(
        only(listing),
        Instance {
            id: "n1/web-1".into(),
            beside: None,
            address: "10.0.0.2:8080".parse().ok(),
            ports: Vec::new(),
            tags: vec!["a".into(), "b".into()],
            health: Health::Passing,
            weight_passing: 3,
            weight_warning: 2,
            modified: 19,
        }
    );
}

#[test]
fn null_nothing_and_unknown_fields_are_read_as_consul_means_them() {
    for text in ["null", "[]"] {
        let empty: Entries = serde_json::from_str(text).unwrap();
        assert!(empty.0.is_empty());
        let none: Checks = serde_json::from_str(text).unwrap();
        assert_eq!(none.0.len(), 0);
    }
    let bare = json!([{"Node": {"Node": "n1", "Address": "10.0.0.1", "Meta": null}, "More": {"deep": [1]},
        "Service": {"ID": "web-1", "Service": "web", "Port": 80, "Tags": null, "Weights": null, "Proxy": null,
            "Connect": null, "Address": null}, "Checks": null}]);
    let instance = only(service(bare));
    assert_eq!(instance.address, "10.0.0.1:80".parse().ok());
    assert_eq!((instance.weight_passing, instance.weight_warning), (1, 1));
    assert_eq!(instance.health, Health::Passing);
    assert!(instance.tags.is_empty());
}

#[test]
fn the_tags_of_the_catalog_are_read_name_by_name() {
    let read = |text: &str| serde_json::from_str::<Services>(text).unwrap().0;
    let expected = BTreeMap::from([
        ("broken".into(), vec![]),
        ("empty".into(), vec![]),
        ("half".into(), vec!["x".into()]),
        ("web".into(), vec!["a".into(), "b".into()]),
    ]);
    let text = r#"{"web": ["b", "a"], "empty": null, "broken": 7, "half": [1, "x", {}]}"#;
    assert_eq!(read(text), expected);
    assert!(read("null").is_empty());
    assert!(read("{}").is_empty());
    assert!(serde_json::from_str::<Services>("[]").is_err());
}

#[test]
fn the_worst_check_counts_and_maintenance_more() {
    use Health::{Critical, Maintenance, Passing, Warning};
    for (checks, health) in [
        (json!([]), Passing),
        (
            json!([["a", "passing"], ["serfHealth", "passing"]]),
            Passing,
        ),
        (json!([["a", "warning"], ["b", "passing"]]), Warning),
        (
            json!([["a", "warning"], ["serfHealth", "critical"]]),
            Critical,
        ),
        (json!([["a", "PASSING"]]), Critical),
        (json!([["a", ""]]), Critical),
        (json!([["a", "unknown"]]), Critical),
        (
            json!([["a", "critical"], ["_node_maintenance", "critical"]]),
            Maintenance,
        ),
        (
            json!([["_service_maintenance:web-1", "passing"]]),
            Maintenance,
        ),
        (json!([["node_maintenance", "passing"]]), Passing),
    ] {
        let list = checks.as_array().unwrap().iter();
        let list = list.map(|check| json!({"CheckID": check[0], "Status": check[1]}));
        let mut entry = entry(json!({}));
        entry["Checks"] = list.collect();
        assert_eq!(only(service(json!([entry]))).health, health, "{checks}");
    }
}

#[test]
fn an_instance_that_cannot_be_dialled_is_listed_with_its_reason() {
    let cases = [
        (json!({"Address": "db example.com"}), "nor a host name"),
        (json!({"Address": "10.0.0.1:80"}), "neither an IP address"),
        (json!({"Address": "a\u{1b}[31m\n"}), r#""a\u{1b}[31m\n""#),
        (json!({"Address": "0.0.0.0"}), "0.0.0.0 cannot be dialled"),
        (json!({"Address": "::"}), "cannot be dialled"),
        (json!({"Address": "224.0.0.1"}), "cannot be dialled"),
        (json!({"Port": 0}), "no port"),
        (json!({"Port": null}), "no port"),
        (json!({"Port": 70000}), "its port 70000 is none"),
        (json!({"Port": -1}), "its port -1 is none"),
        (json!({"SocketPath": "/run/web.sock"}), "UNIX socket"),
        (json!({"Port": "80"}), "its entry cannot be read"),
        (json!({"Tags": [1]}), "its entry cannot be read"),
        (json!({"ModifyIndex": -1}), "its entry cannot be read"),
    ];
    for (changes, reason) in cases {
        let (id, why) = unusable(service(json!([entry(changes)])));
        assert_eq!(id, "n1/web-1");
        assert!(why.contains(reason), "{why}");
        assert!(!why.contains(char::is_control), "{why}");
    }
    let mut homeless = entry(json!({"Address": ""}));
    homeless["Node"]["Address"] = json!("");
    assert!(
        unusable(service(json!([homeless])))
            .1
            .contains("no address")
    );
    let (_, why) = unusable(service(json!([entry(
        json!({"Address": "x".repeat(5000)})
    )])));
    assert!(why.len() < 300, "{why}");
}

#[test]
fn the_tags_of_an_instance_that_cannot_be_dialled_count() {
    for changes in [
        json!({"Address": "db example.com"}),
        json!({"Port": 0}),
        json!({"SocketPath": "/run/web.sock"}),
    ] {
        let listing = service(json!([entry(changes)]));
        let [instance] = &listing.found.instances[..] else {
            panic!("{listing:?}");
        };
        assert_eq!(instance.address, None);
        assert_eq!(instance.tags, ["a".into(), "b".into()]);
    }
}

#[test]
fn addresses_are_those_that_a_socket_takes() {
    for (address, dialled) in [
        ("2001:db8::1", "[2001:db8::1]:8080"),
        ("DB.example.com.", "db.example.com:8080"),
        ("::ffff:10.0.0.7", "10.0.0.7:8080"),
        ("", "10.0.0.1:8080"),
    ] {
        let instance = only(service(json!([entry(json!({"Address": address}))])));
        assert_eq!(instance.address, dialled.parse().ok());
    }
    let lower = json!([{"Node": {"Node": "n"}, "Service": {"ID": "i", "Service": "web", "address": "10.0.0.3", "port": 5}}]);
    assert_eq!(only(service(lower)).address, "10.0.0.3:5".parse().ok());
}

#[test]
fn weights_are_shares_whatever_is_written() {
    for (weights, shares) in [
        (json!({"Passing": 0, "Warning": 0}), (0, 0)),
        (json!({"Passing": 10}), (10, 1)),
        (json!({"Passing": -5, "Warning": i64::MIN}), (0, 0)),
        (
            json!({"Passing": i64::MAX, "Warning": 4_294_967_296_i64}),
            (u32::MAX, u32::MAX),
        ),
    ] {
        let instance = only(service(json!([entry(json!({"Weights": weights}))])));
        assert_eq!((instance.weight_passing, instance.weight_warning), shares);
    }
}

#[test]
fn of_a_broken_entry_its_tags_count_and_nothing_is_dialled_and_it_spoils_no_other() {
    let mut broken = entry(json!({"ID": "b", "Port": "22"}));
    broken["Checks"] = json!([{"ModifyIndex": -1}]);
    let listing = service(json!([entry(json!({"ID": "a"})), broken]));
    let [a, b] = &listing.found.instances[..] else {
        panic!("{listing:?}")
    };
    assert!(a.address.is_some() && b.address.is_none());
    assert_eq!(a.tags, b.tags);
    assert_eq!(&*listing.found.unusable[0].0, "n1/b");
    assert_eq!(listing.unreadable, 0);
}

#[test]
fn an_entry_of_which_not_even_the_tags_can_be_read_leaves_the_service_as_it_was() {
    let tags = entry(json!({"Tags": ["a", 1]}));
    let list = json!([7, null, {"Node": [], "Service": {}}, entry(json!({})), "x", {"Service": {"Port": {}}}, tags]);
    let listing = service(list);
    assert_eq!(listing.found.instances.len(), 1);
    assert_eq!(listing.unreadable, 6);
    let ids: Vec<_> = listing.found.unusable.iter().map(|(id, _)| &**id).collect();
    let named = [
        "entry 0", "entry 1", "entry 2", "entry 4", "entry 5", "n1/web-1",
    ];
    assert_eq!(ids, named);
    assert_eq!(service(json!([])).unreadable, 0);
}

#[test]
fn what_is_listed_twice_is_taken_once_and_order_means_nothing() {
    let (a, b) = (entry(json!({"ID": "a"})), entry(json!({"ID": "b"})));
    let twice = service(json!([a, b, a]));
    assert_eq!(twice.found.instances.len(), 2);
    assert_eq!(
        twice.found.unusable,
        [("n1/a".into(), "it is listed twice".into())]
    );
    assert_eq!(service(json!([a, b])), service(json!([b, a])));
}

#[test]
fn an_enormous_list_is_cut_and_told_in_one_line() {
    let many = |change: fn(usize) -> Value| -> Value {
        let list = (0..MOST_INSTANCES + 5).map(change);
        list.collect()
    };
    let taken = service(many(|n| entry(json!({"ID": n.to_string()}))));
    assert_eq!(taken.found.instances.len(), MOST_INSTANCES);
    assert_eq!(
        taken.found.unusable,
        [("web".into(), "5 more entries are left out".into())]
    );
    let rubbish = service(many(|_| entry(json!({"Port": 0}))));
    assert_eq!(rubbish.found.unusable.len(), MOST_UNUSABLE + 1);
    let (_, why) = rubbish.found.unusable.last().unwrap();
    assert_eq!(**why, *"9955 more entries are left out");
}

#[test]
fn proxies_and_gateways_are_no_instances_of_the_service_that_they_are_named_as() {
    let list = json!([
        sidecar(json!({"Service": "web"})),
        sidecar(json!({"Service": "web", "ID": "x", "Proxy": {"DestinationServiceName": "api"}})),
        entry(json!({"ID": "m", "Kind": "mesh-gateway"})),
        entry(json!({"ID": "t", "Kind": "terminating-gateway"})),
        entry(json!({"ID": "u", "Kind": "something-new"})),
    ]);
    let listing = service(list);
    assert_eq!(listing.found.instances, []);
    let told = listing.found.unusable.iter();
    let told: Vec<_> = told.map(|(id, why)| (&**id, &**why)).collect();
    let none = |kind: &str| format!("its kind \"{kind}\" is none to dial");
    assert_eq!(
        told,
        [
            ("n1/m", &*none("mesh-gateway")),
            ("n1/t", &*none("terminating-gateway")),
            ("n1/u", &*none("something-new")),
        ]
    );
    assert_eq!(listing.stands_for, set(["api", "web"]));
}

#[test]
fn a_sidecar_is_found_with_the_instance_that_it_stands_beside() {
    let listing = connect(json!([sidecar(json!({}))]));
    assert_eq!(listing.speakers, set(["web-sidecar-proxy"]));
    let found = only(listing);
    assert_eq!(*found.id, *"n1/web-1-sidecar-proxy");
    assert_eq!(found.beside, Some("n1/web-1".into()));
    assert_eq!(found.address, "10.0.0.2:21000".parse().ok());
    assert_eq!(found.tags.len(), 2);
    let alone = connect(json!([sidecar(
        json!({"Proxy": {"DestinationServiceName": "web"}})
    )]));
    assert_eq!(only(alone).beside, None);
}

#[test]
fn a_native_instance_and_a_terminating_gateway_stand_beside_none() {
    let native = only(connect(json!([entry(
        json!({"Connect": {"Native": true}})
    )])));
    assert_eq!((&*native.id, native.beside), ("n1/web-1", None));
    let gateway = json!({"Kind": "terminating-gateway", "Service": "exit", "ID": "exit"});
    let listing = connect(json!([entry(gateway)]));
    assert_eq!(listing.speakers, set(["exit"]));
    let gateway = only(listing);
    assert_eq!((gateway.beside, gateway.tags), (None, vec![]));
}

#[test]
fn what_speaks_for_another_service_is_never_dialled_for_this_one() {
    let other =
        json!({"Proxy": {"DestinationServiceName": "api", "DestinationServiceID": "web-1"}});
    let (_, why) = unusable(connect(json!([sidecar(other)])));
    assert_eq!(why, "it is of another service, \"api\"");
    let (_, why) = unusable(connect(json!([entry(json!({"Kind": "mesh-gateway"}))])));
    assert_eq!(why, "its kind \"mesh-gateway\" is none to dial");
    // Plain TCP, listed where mutual TLS is due.
    assert!(
        unusable(connect(json!([entry(json!({}))])))
            .1
            .contains("kind \"\"")
    );
    // Consul finds `Web` under `web`, but its certificates are for `Web`.
    let case = json!({"Proxy": {"DestinationServiceName": "Web"}});
    let listing = connect(json!([sidecar(case)]));
    assert_eq!(listing.found.sidecars, Some(vec![]));
    assert_eq!(
        service(json!([entry(json!({"Service": "WEB"}))]))
            .found
            .instances,
        []
    );
}
