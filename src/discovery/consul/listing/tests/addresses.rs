//! Where instances are dialled, and by whom they are spoken for.

use super::*;

/// The only instance of an entry with these keys in its service and these in its node, or why it cannot be dialled.
fn dialled(service: Value, node: Value, addressing: Addressing) -> Result<String, String> {
    let mut entry = entry(service);
    for (key, value) in node.as_object().unwrap() {
        entry["Node"][key] = value.clone();
    }
    let entries = entries(json!([entry]));
    let found = listing(
        &Place::default(),
        &"web".into(),
        &entries,
        None,
        &"dc1".into(),
        addressing,
    )
    .found;
    match &found.instances[0].address {
        Some(address) => Ok(address.to_string()),
        None => Err(found.unusable[0].1.to_string()),
    }
}

#[test]
fn the_tagged_address_that_is_wanted_is_dialled_where_there_is_one() {
    let at = |service: &Value, node: &Value, tag| {
        let addressing = Addressing {
            tag: Some(tag),
            ..Addressing::default()
        };
        dialled(service.clone(), node.clone(), addressing).unwrap()
    };
    let own = json!({"Address": "10.0.0.2", "TaggedAddresses": {
        "lan_ipv4": {"Address": "10.0.0.3", "Port": 81}, "wan": {"address": "198.51.100.1", "port": 82},
        "lan_ipv6": {"Address": "2001:db8::3", "Port": 0}, "wan_ipv4": null,
        "consul-virtual": {"Address": "240.0.0.1", "Port": 83}}});
    let node =
        json!({"TaggedAddresses": {"lan": "10.0.0.9", "wan": "198.51.100.9", "wan_ipv4": null}});
    assert_eq!(at(&own, &node, AddressTag::LanIpv4), "10.0.0.3:81");
    assert_eq!(at(&own, &node, AddressTag::Wan), "198.51.100.1:82");
    assert_eq!(at(&own, &node, AddressTag::LanIpv6), "[2001:db8::3]:8080");
    // A container's address is not its node's.
    assert_eq!(at(&own, &node, AddressTag::Lan), "10.0.0.2:8080");
    assert_eq!(at(&own, &node, AddressTag::WanIpv4), "10.0.0.2:8080");
    let bare = json!({"Address": ""});
    assert_eq!(at(&bare, &node, AddressTag::Wan), "198.51.100.9:8080");
    assert_eq!(at(&bare, &node, AddressTag::WanIpv4), "10.0.0.1:8080");
    let untold = dialled(own, node, Addressing::default());
    assert_eq!(untold.unwrap(), "10.0.0.2:8080");
}

#[test]
fn a_loopback_address_of_another_node_is_not_dialled_on_this_one() {
    let any = Addressing {
        is_local_allowed: true,
        ..Addressing::default()
    };
    for address in [
        "127.0.0.1",
        "::1",
        "127.9.9.9",
        "169.254.169.254",
        "fe80::1",
        "::ffff:127.0.0.1",
    ] {
        let service = json!({"Address": address});
        let refused = dialled(service.clone(), json!({}), Addressing::default()).unwrap_err();
        assert!(refused.contains("allow_local_addresses"), "{refused}");
        assert!(dialled(service, json!({}), any).is_ok(), "{address}");
    }
    let ours = json!({"Address": "127.0.0.1"});
    let service = json!({"Address": "127.0.0.1"});
    assert!(dialled(service, ours.clone(), Addressing::default()).is_ok());
    let metadata = json!({"Address": "169.254.169.254"});
    assert!(dialled(metadata, ours, Addressing::default()).is_err());
}

/// As Consul 1.22 registers it: "Multiport services".
#[test]
fn of_several_ports_the_default_one_is_dialled_and_tags_may_name_another() {
    let both = json!([{"Name": "ssh", "Port": 22}, {"name": "web", "port": 443, "default": true}]);
    let several = json!({"Port": 0, "Ports": both});
    let found = only(super::service(json!([entry(several.clone())])));
    assert_eq!(found.address, "10.0.0.2:443".parse().ok());
    assert_eq!(found.ports, [("ssh".into(), 22), ("web".into(), 443)]);
    let tagged =
        json!({"Port": 0, "Ports": both, "TaggedAddresses": {"wan": {"Address": "198.51.100.1"}}});
    let wan = Addressing {
        tag: Some(AddressTag::Wan),
        ..Addressing::default()
    };
    assert_eq!(dialled(tagged, json!({}), wan).unwrap(), "198.51.100.1:443");
    for (service, port) in [
        // A sidecar has a port of its own beside those of its service.
        (json!({"Port": 21000, "Ports": both}), "10.0.0.2:21000"),
        (
            json!({"Port": 0, "Ports": [{"Name": "ssh", "Port": 22}]}),
            "10.0.0.2:22",
        ),
        (json!({"Ports": null}), "10.0.0.2:8080"),
    ] {
        assert_eq!(
            dialled(service, json!({}), Addressing::default()).unwrap(),
            port
        );
    }
    let none = dialled(
        json!({"Port": 0, "Ports": []}),
        json!({}),
        Addressing::default(),
    );
    assert_eq!(none.unwrap_err(), "it has no port");
    let odd = json!({"Port": 0, "Ports": [{"Name": "a", "Port": 70000, "Default": true}]});
    let odd = dialled(odd, json!({}), Addressing::default());
    assert_eq!(odd.unwrap_err(), "its port 70000 is none");
}

#[test]
fn what_a_peer_exports_is_refused_by_its_name() {
    let why = dialled(
        json!({"PeerName": "cluster-2"}),
        json!({}),
        Addressing::default(),
    );
    assert!(why.unwrap_err().contains("cluster-2"));
}

/// A proxy may have any id, and stand beside an instance with others; a gateway speaks for services that have none.
#[test]
fn several_sidecars_of_any_id_and_gateways_speak_for_a_service() {
    let sidecar = |id: &str, beside: &str| {
        entry(
            json!({"ID": id, "Service": "envoy", "Kind": "connect-proxy", "Tags": [],
            "Proxy": {"DestinationServiceName": "web", "DestinationServiceID": beside}}),
        )
    };
    let gateway = entry(json!({"ID": "gw", "Service": "egress", "Kind": "terminating-gateway"}));
    let all = json!([
        sidecar("a", "web-1"),
        sidecar("b", "web-1"),
        gateway,
        entry(json!({"ID": "m", "Service": "mesh", "Kind": "mesh-gateway"}))
    ]);
    let found = connect(all).found;
    let sidecars: Vec<_> = found.sidecars.as_deref().unwrap().iter().collect();
    let ids: Vec<&str> = sidecars.iter().map(|one| &*one.id).collect();
    assert_eq!(ids, ["n1/a", "n1/b", "n1/gw"]);
    let beside: Vec<_> = sidecars.iter().map(|one| one.beside.as_deref()).collect();
    assert_eq!(beside, [Some("n1/web-1"), Some("n1/web-1"), None]);
    assert!(found.unusable[0].1.contains("mesh-gateway"), "{found:?}");
}
