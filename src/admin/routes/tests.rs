//! What `/v1/routes` shows of each route, upstream and endpoint, and of what was asked for in vain.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::config;
use crate::metrics::Metrics;
use crate::name::MeshService;
use crate::rule::Rule;
use crate::snapshot::certificates::Certificates;
use crate::snapshot::compile::{Inputs, compile, update};
use crate::snapshot::service::{Service, ServiceRoute, ServiceTls, ServiceUpstream};
use crate::snapshot::table::Table;
use crate::snapshot::upstream::{Endpoint, UpstreamTls};
use crate::snapshot::{Listeners, Source};
use crate::tls::mesh::Identity;
use crate::tls::options::Options;
use crate::tls::server::ServerPolicy;
use crate::tls::test_certs::Ca;

fn upstream(name: &str, transport: Transport) -> Upstream {
    let endpoint = Endpoint {
        address: "10.0.0.5:22".parse().unwrap(),
        configured: "vm.internal:22".into(),
        weight: 3,
    };
    Upstream::new(name.into(), vec![endpoint], transport, Arc::default())
}

fn route(name: &str, priority: i64, action: Action, upstream: &str) -> Arc<Route> {
    Arc::new(Route {
        name: name.into(),
        source: Source::File,
        service: None,
        listeners: Listeners::All,
        rule: Rule::parse(&format!("HostSNI(`{name}`)")).unwrap(),
        priority,
        action,
        upstream: upstream.into(),
        mesh: false,
        max_connections: None,
        middlewares: Vec::new(),
        warnings: Vec::new(),
        metrics: Arc::default(),
    })
}

fn tls() -> UpstreamTls {
    let provider = crate::tls::provider();
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    UpstreamTls {
        config: Arc::new(config),
        server_name: "db.internal".try_into().unwrap(),
        spiffe: None,
        identity: None,
        former: None,
    }
}

fn terminate() -> Action {
    let certificates = Arc::new(Certificates::default());
    let policy = ServerPolicy::new(&Options::default(), certificates, None).unwrap();
    Action::Terminate {
        policy: Arc::new(policy),
        options: Some("strict".into()),
    }
}

#[test]
fn every_route_is_shown_whole_and_in_order() {
    let mut table = Table::default();
    let broken = Action::Broken("no option set is named `lost`".into());
    table.insert(route("vm.example.com", 25, broken, "tls"));
    table.insert(route("*.example.com", 100, Action::PassThrough, "vms"));
    table.insert(route("*", -1, Action::PassThrough, "vms"));
    table.insert(route("db.example.com", 101, terminate(), "vms"));
    let mut snapshot = Snapshot::default();
    snapshot.generation = 7;
    snapshot.table = table;
    let snapshot = snapshot
        .with(upstream("vms", Transport::Plain))
        .with(upstream("tls", Transport::Tls(tls())));
    let why = State::Degraded("it answers 500\u{1b}[31m".to_owned());
    let parts = BTreeMap::from([("consul".into(), why)]);
    let json: serde_json::Value = serde_json::from_slice(&json(&snapshot, &parts)).unwrap();
    let part =
        json!({ "name": "consul", "state": "degraded", "text": "it answers 500\\u{1b}[31m" });
    let plain = json!({ "name": "vms", "tls": false, "server_name": null, "spiffe": null,
        "mesh": false, "proxy_protocol": null, "empty": null, "from_disk": null });
    let tls = json!({ "name": "tls", "tls": true, "server_name": "db.internal", "spiffe": null,
        "mesh": false, "proxy_protocol": null, "empty": null, "from_disk": null });
    let endpoints = json!([{ "address": "10.0.0.5:22", "configured": "vm.internal:22", "weight": 3,
        "failures": 0, "out_for_seconds": null, "check": null, "check_error": null }]);
    let all = json!({
        "name": "*", "source": "file", "rule": "HostSNI(`*`)", "rule_syntax": "v3", "priority": -1,
        "default": true, "action": "pass_through", "tls_options": null, "broken_reason": null,
        "upstream": plain, "endpoints": endpoints, "shadowed_by": null,
        "service": null, "warnings": [], "members": [], "middlewares": [], "from_disk": null,
    });
    let wildcard = json!({
        "name": "*.example.com", "source": "file", "rule": "HostSNI(`*.example.com`)", "rule_syntax": "v3",
        "priority": 100, "default": false, "action": "pass_through", "tls_options": null,
        "broken_reason": null, "upstream": plain, "endpoints": endpoints, "shadowed_by": null,
        "service": null, "warnings": [], "members": [], "middlewares": [], "from_disk": null,
    });
    let db = json!({
        "name": "db.example.com", "source": "file", "rule": "HostSNI(`db.example.com`)", "rule_syntax": "v3",
        "priority": 101, "default": false, "action": "terminate", "tls_options": "strict",
        "broken_reason": null, "upstream": plain, "endpoints": endpoints, "shadowed_by": null,
        "service": null, "warnings": [], "members": [], "middlewares": [], "from_disk": null,
    });
    let vm = json!({
        "name": "vm.example.com", "source": "file", "rule": "HostSNI(`vm.example.com`)", "rule_syntax": "v3",
        "priority": 25, "default": false, "action": "broken", "tls_options": null,
        "broken_reason": "no option set is named `lost`", "upstream": tls,
        "endpoints": endpoints, "shadowed_by": { "source": "file", "name": "*.example.com" },
        "service": null, "warnings": [], "members": [], "middlewares": [], "from_disk": null,
    });
    assert_eq!(
        json,
        json!({ "generation": 7, "parts": [part], "routes": [all, wildcard, db, vm], "shadows_complete": true, "skipped": [], "tunnels": [] })
    );
}

#[test]
fn an_endpoint_that_is_passed_over_says_for_how_long() {
    let upstream = upstream("u", Transport::Plain);
    let shown = |now| serde_json::to_value(endpoints(&upstream, now)).unwrap()[0].clone();
    let now = Instant::now();
    upstream.turn(now).next().unwrap().failed(now).unwrap();
    assert_eq!(
        (&shown(now)["failures"], &shown(now)["out_for_seconds"]),
        (&json!(1), &json!(1))
    );
    let due = now + std::time::Duration::from_secs(2);
    assert_eq!(shown(due)["out_for_seconds"], json!(0));
    upstream.turn(due).next().unwrap().succeeded();
    assert_eq!(
        (&shown(due)["failures"], &shown(due)["out_for_seconds"]),
        (&json!(0), &json!(null))
    );
}

fn service(name: &str) -> Service {
    Service {
        key: ServiceKey {
            place: None,
            source: Source::Consul,
            name: name.into(),
        },
        upstreams: Vec::new(),
        routes: Vec::new(),
        middlewares: BTreeMap::new(),
        skipped: Vec::new(),
        restored: None,
        notes: Vec::new(),
    }
}

fn service_upstream(name: &str) -> ServiceUpstream {
    ServiceUpstream {
        dialling: Ok(Default::default()),
        name: name.into(),
        endpoints: Vec::new(),
        named: Vec::new(),
        mesh: None,
        empty: None,
        check: None,
    }
}

fn service_route(name: &str, upstream: &str) -> ServiceRoute {
    let host = name.replace('@', ".");
    ServiceRoute {
        name: name.into(),
        rule: Rule::parse(&format!("HostSNI(`{host}`)")).unwrap(),
        priority: None,
        tls: ServiceTls::PassThrough,
        upstream: upstream.into(),
        broken: None,
        middlewares: Vec::new(),
        mesh: false,
        warnings: Vec::new(),
    }
}

/// What is shown when discovery has found these services.
fn shown(services: impl IntoIterator<Item = Service>) -> serde_json::Value {
    let ca = Ca::new("mesh");
    let file =
        "[routes.file]\nhost = \"file.test\"\npassthrough = true\nupstream = \"10.0.0.1:1\"\n";
    let checked = config::parse(file, Path::new("portcullis.toml"));
    let config = checked
        .unwrap_or_else(|mistakes| panic!("{mistakes}"))
        .config;
    let inputs = Inputs {
        config,
        listeners: BTreeMap::new(),
        own: Arc::default(),
        certificates: Arc::default(),
        policies: BTreeMap::new(),
        client_configs: BTreeMap::new(),
        transport_configs: BTreeMap::new(),
        addresses: BTreeMap::new(),
        restored: BTreeMap::new(),
        identity: Some(Arc::new(Identity {
            id: SpiffeId::parse("spiffe://mesh.test/ns/default/dc/dc1/svc/gate").unwrap(),
            certificate: Arc::new(ca.issue(&["gate"]).certified_key()),
            roots: ca.roots(),
            not_after: std::time::SystemTime::now(),
            former: None,
        })),
        denied: Default::default(),
    };
    let metrics = Metrics::new();
    let services = services.into_iter();
    let services = services.map(|service| (service.key.clone(), Some(Arc::new(service))));
    let first = compile(&inputs, None, &metrics);
    let snapshot = update(&inputs, &first, &services.collect(), &metrics);
    serde_json::from_slice(&json(&snapshot, &BTreeMap::new())).unwrap()
}

#[test]
fn a_route_of_a_service_says_whose_it_is_and_what_its_upstream_must_prove() {
    let mut web = service("web");
    web.upstreams = vec![
        ServiceUpstream {
            dialling: Ok(Default::default()),
            mesh: Some(MeshService {
                partition: None,
                namespace: "default".into(),
                datacenter: "dc1".into(),
                service: "web".into(),
            }),
            empty: Some("all 3 instances are critical".into()),
            check: None,
            ..service_upstream("web@consul")
        },
        service_upstream("plain@consul"),
    ];
    web.routes = vec![
        service_route("mesh@consul", "web@consul"),
        ServiceRoute {
            warnings: vec!["it is dialled plainly".into()],
            ..service_route("plain@consul", "plain@consul")
        },
        ServiceRoute {
            broken: Some("web has no sidecar".into()),
            ..service_route("refuses@consul", "plain@consul")
        },
        service_route("stray@consul", "gone@consul"),
    ];
    let shown = shown([web]);
    let route = |place: usize, key: &str| shown["routes"][place][key].clone();
    assert_eq!(
        [0, 1, 2, 3, 4].map(|n| route(n, "name")),
        [
            "file",
            "mesh@consul",
            "plain@consul",
            "refuses@consul",
            "stray@consul"
        ]
    );
    assert_eq!(
        [
            (0, json!("file"), json!(null)),
            (1, json!("consul"), json!("web"))
        ],
        [0, 1].map(|n| (n, route(n, "source"), route(n, "service")))
    );
    assert_eq!(
        route(1, "upstream"),
        json!({
            "name": "web@consul", "tls": true, "mesh": true,
            "server_name": "web.default.dc1.internal.mesh.test",
            "spiffe": "spiffe://mesh.test/ns/default/dc/dc1/svc/web",
            "proxy_protocol": null, "empty": "all 3 instances are critical", "from_disk": null,
        })
    );
    assert_eq!(route(2, "warnings"), json!(["it is dialled plainly"]));
    for (n, reason) in [
        (3, "web has no sidecar"),
        (4, "its upstream does not exist"),
    ] {
        assert_eq!(
            (route(n, "action"), route(n, "broken_reason")),
            (json!("broken"), json!(reason))
        );
    }
    assert_eq!(shown["skipped"], json!([]));
}

#[test]
fn a_route_says_what_it_asks_of_its_clients_and_what_of_that_is_missing() {
    let naming = |name: &str, middlewares: &[&str]| ServiceRoute {
        middlewares: middlewares.iter().map(|name| Arc::from(*name)).collect(),
        ..service_route(name, "web@consul")
    };
    let mut web = service("web");
    web.upstreams = vec![service_upstream("web@consul")];
    let office = [
        "10.0.0.0/8".parse().unwrap(),
        "2001:db8::7/128".parse().unwrap(),
    ];
    web.middlewares = [
        (
            "office@consul".into(),
            Ok(Middleware::IpAllowList(office.into())),
        ),
        ("few@consul".into(), Ok(Middleware::InFlightConn(3))),
    ]
    .into();
    web.routes = vec![
        naming("all@consul", &["office@consul", "few@consul"]),
        naming("lost@consul", &["few@consul", "gone"]),
    ];
    let shown = shown([web]);
    let route = |name: &str| {
        let mut routes = shown["routes"].as_array().unwrap().iter();
        routes.find(|route| route["name"] == name).unwrap()
    };
    let office = json!({ "name": "office@consul", "in_flight_conn": null,
        "ip_allow_list": ["10.0.0.0/8", "2001:db8::7/128"] });
    let few = json!({ "name": "few@consul", "ip_allow_list": null, "in_flight_conn": 3 });
    let gone = json!({ "name": "gone", "ip_allow_list": null, "in_flight_conn": null });
    assert_eq!(route("all@consul")["middlewares"], json!([office, few]));
    assert_eq!(route("all@consul")["action"], "pass_through");
    assert_eq!(route("lost@consul")["middlewares"], json!([few, gone]));
    assert_eq!(route("lost@consul")["action"], "broken");
    let reason = "the file has no middleware \"gone\"";
    assert_eq!(route("lost@consul")["broken_reason"], reason);
}

#[test]
fn what_services_asked_for_in_vain_is_listed_in_order_with_its_reason() {
    let mut web = service("web");
    web.skipped = vec![
        Skipped {
            instance: Some("node1/web-1".into()),
            router: Some("odd".into()),
            reason: "its rule is empty".into(),
        },
        Skipped {
            instance: None,
            router: None,
            reason: "nothing is enabled".into(),
        },
    ];
    let mut api = service("api");
    api.skipped = vec![Skipped {
        instance: None,
        router: Some("api".into()),
        reason: "it is not for TLS".into(),
    }];
    let entry = |service: &str, router: Option<&str>, reason: &str| json!({ "source": "consul", "catalog": null, "service": service, "instance": null, "router": router, "reason": reason, "note": false });
    let first = json!({
        "source": "consul", "catalog": null, "service": "web", "instance": "node1/web-1", "router": "odd",
        "reason": "its rule is empty", "note": false,
    });
    web.notes = vec!["its tags under `http` mean nothing here".into()];
    let mut note = entry("web", None, "its tags under `http` mean nothing here");
    note["note"] = true.into();
    assert_eq!(
        shown([web, api])["skipped"],
        json!([
            entry("api", Some("api"), "it is not for TLS"),
            first,
            entry("web", None, "nothing is enabled"),
            note,
        ])
    );
}
