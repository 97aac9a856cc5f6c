//! What is told of a real Consul, and how soon.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use portcullis::config::{self, Catalog, ConsulAddress, Place, Secret, Tagging, Token};
use portcullis::status::State;
use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::{Watched, route};
use crate::consul::{Consul, Options, Status, meshed, service, sidecar};

/// How a gateway is told to ask this agent.
fn config(consul: &Consul, token: Option<String>) -> config::Consul {
    let address: SocketAddr = consul
        .address()
        .trim_start_matches("http://")
        .parse()
        .unwrap();
    config::Consul {
        address: ConsulAddress::Tcp(address.ip().to_string(), address.port()),
        https: false,
        prefix: String::new(),
        token: token.map(|token| Token::Value(Secret::new(token))),
        login: None,
        places: vec![Place::default()],
        basic_auth: None,
        roots: Vec::new(),
        certificate: None,
        server_name: None,
        mesh_identity: None,
        tagging: Tagging::default(),
        catalog: Catalog::default(),
    }
}

/// A service with a route, at this port.
fn routed(name: &str, port: u16) -> Value {
    let tags = route(&format!("{name}.example"));
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    service(name, SocketAddr::from(([127, 0, 0, 1], port)), &tags)
}

/// The same in the mesh, with its sidecar at this port.
fn in_mesh(name: &str, port: u16) -> Value {
    let mut service = routed(name, 9);
    let tags = service["Tags"].as_array_mut().unwrap();
    tags.push(json!("traefik.consulcatalog.connect=true"));
    meshed(service, port)
}

/// An agent with two services, and a watch that has told of them.
async fn ready() -> Option<(Consul, Watched)> {
    let consul = block_in_place(Consul::start)?;
    block_in_place(|| {
        consul.register(&routed("other", 9001));
        consul.register(&routed("web", 9000));
    });
    let mut watched = Watched::start(&config(&consul, None));
    watched.until_ready().await;
    watched.take_told();
    Some((consul, watched))
}

/// Tells the agent something, waits until this is told of it, and says how long that took.
async fn see(
    watched: &mut Watched,
    what: &str,
    tell: impl FnOnce(),
    is_so: impl Fn(&Watched) -> bool,
) {
    // A gateway that has had nothing to do for a while, as most of the time.
    watched.during(Duration::from_millis(300)).await;
    assert!(!is_so(watched), "{what}: it was so before");
    let start = Instant::now();
    block_in_place(tell);
    let asked = start.elapsed();
    watched.until(what, is_so).await;
    eprintln!(
        "{what}: told after {:?}, of which the agent took {asked:?}",
        start.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_a_service_is_told_at_once() {
    let Some((consul, mut watched)) = ready().await else {
        return;
    };
    let register = |service: &Value| drop(consul.put("/v1/agent/service/register", service));
    let call = |path: &str| drop(consul.put(path, &Value::Null));
    let endpoints =
        |wanted: &'static [&str]| move |watched: &Watched| watched.endpoints("web") == wanted;
    let rule = |host: &'static str| {
        move |watched: &Watched| format!("{:?}", watched.services["web"].routes).contains(host)
    };

    let told = &mut watched;
    see(
        told,
        "a new service",
        || register(&routed("new", 9002)),
        |told| told.has("new"),
    )
    .await;
    let mut web = routed("web", 9000);
    web["Tags"] = json!(route("moved.example"));
    see(
        told,
        "another tag",
        || register(&web),
        rule("moved.example"),
    )
    .await;
    web["Port"] = json!(9009);
    see(
        told,
        "another port",
        || register(&web),
        endpoints(&["127.0.0.1:9009*1"]),
    )
    .await;
    web["Address"] = json!("127.0.0.2");
    see(
        told,
        "another address",
        || register(&web),
        endpoints(&["127.0.0.2:9009*1"]),
    )
    .await;
    web["Weights"] = json!({"Passing": 7, "Warning": 3});
    see(
        told,
        "another weight",
        || register(&web),
        endpoints(&["127.0.0.2:9009*7"]),
    )
    .await;
    let warn = || call("/v1/agent/check/warn/service:web");
    see(told, "a warning", warn, endpoints(&["127.0.0.2:9009*3"])).await;
    let fail = || call("/v1/agent/check/fail/service:web");
    see(told, "a failure", fail, endpoints(&[])).await;
    assert_eq!(
        told.services["web"].routes.len(),
        1,
        "its route refuses now"
    );
    let pass = || call("/v1/agent/check/pass/service:web");
    see(
        told,
        "the end of a failure",
        pass,
        endpoints(&["127.0.0.2:9009*7"]),
    )
    .await;
    let maintain = || call("/v1/agent/service/maintenance/web?enable=true");
    see(told, "maintenance", maintain, endpoints(&[])).await;
    let resume = || call("/v1/agent/service/maintenance/web?enable=false");
    see(
        told,
        "the end of maintenance",
        resume,
        endpoints(&["127.0.0.2:9009*7"]),
    )
    .await;
    let maintain = || call("/v1/agent/maintenance?enable=true");
    let is_empty = |told: &Watched| {
        ["web", "other"]
            .iter()
            .all(|name| told.endpoints(name).is_empty())
    };
    see(told, "maintenance of the node", maintain, is_empty).await;
    let resume = || call("/v1/agent/maintenance?enable=false");
    see(
        told,
        "the end of it",
        resume,
        endpoints(&["127.0.0.2:9009*7"]),
    )
    .await;
    let second = json!({"ID": "web-2", "Name": "web", "Address": "127.0.0.3", "Port": 1, "Tags": web["Tags"]});
    let both = endpoints(&["127.0.0.2:9009*7", "127.0.0.3:1*1"]);
    see(told, "a second instance", || register(&second), both).await;
    let leave = || call("/v1/agent/service/deregister/web");
    see(
        told,
        "an instance that left",
        leave,
        endpoints(&["127.0.0.3:1*1"]),
    )
    .await;
    let leave = || call("/v1/agent/service/deregister/web-2");
    see(told, "a service that left", leave, |told| !told.has("web")).await;
    assert_eq!(told.state, State::Ready);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_the_mesh_is_dialled_at_its_sidecars() {
    let Some((consul, mut watched)) = ready().await else {
        return;
    };
    let register = |service: &Value| drop(consul.put("/v1/agent/service/register", service));
    let call = |path: &str| drop(consul.put(path, &Value::Null));
    let endpoints =
        |wanted: &'static [&str]| move |watched: &Watched| watched.endpoints("ssh") == wanted;
    let told = &mut watched;
    let first = endpoints(&["127.0.0.1:21001*1"]);
    see(
        told,
        "a service and its sidecar",
        || register(&in_mesh("ssh", 21001)),
        first,
    )
    .await;
    assert_eq!(told.services["ssh"].routes.len(), 1);
    assert!(!told.has("ssh-sidecar-proxy"), "its tags are a copy");
    let mesh = told.services["ssh"].upstreams[0].mesh.clone().unwrap();
    assert_eq!(
        (&*mesh.service, &*mesh.datacenter, &*mesh.namespace),
        ("ssh", "dc1", "default")
    );
    // Another sidecar, under another name and without tags, of a second instance without a check.
    let mut second = in_mesh("ssh", 0);
    for key in ["Connect", "Check"] {
        second.as_object_mut().unwrap().remove(key);
    }
    second["ID"] = json!("ssh-2");
    let mut helper = sidecar(&second, 21002);
    helper["Name"] = json!("helper");
    helper["Tags"] = json!([]);
    helper["Proxy"]["DestinationServiceID"] = json!("ssh-2");
    helper["Check"] = Value::Null;
    block_in_place(|| register(&second));
    let both = endpoints(&["127.0.0.1:21001*1", "127.0.0.1:21002*1"]);
    see(
        told,
        "a sidecar of another name",
        || register(&helper),
        both,
    )
    .await;
    let leave = || call("/v1/agent/service/deregister/ssh-sidecar-proxy");
    see(
        told,
        "a sidecar that left",
        leave,
        endpoints(&["127.0.0.1:21002*1"]),
    )
    .await;
    let leave = || call("/v1/agent/service/deregister/helper");
    see(told, "the last sidecar", leave, endpoints(&[])).await;
    assert_eq!(
        told.services["ssh"].routes.len(),
        1,
        "it refuses, and is never dialled plain"
    );
    let native = json!({"ID": "ssh-3", "Name": "ssh", "Port": 5, "Address": "127.0.0.1", "Tags": second["Tags"],
        "Connect": {"Native": true}});
    see(
        told,
        "a native instance",
        || register(&native),
        endpoints(&["127.0.0.1:5*1"]),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_alone_carries_the_route_of_its_service() {
    let Some((consul, mut watched)) = ready().await else {
        return;
    };
    let mut alone = sidecar(&in_mesh("ghost", 0), 21003);
    alone["Check"] = Value::Null;
    let register = || drop(consul.put("/v1/agent/service/register", &alone));
    let is_there = |told: &Watched| told.endpoints("ghost") == ["127.0.0.1:21003*1"];
    see(&mut watched, "a sidecar alone", register, is_there).await;
    assert!(!watched.has("ghost-sidecar-proxy"));
    let leave = || {
        drop(consul.put(
            "/v1/agent/service/deregister/ghost-sidecar-proxy",
            &Value::Null,
        ))
    };
    see(&mut watched, "its end", leave, |told| !told.has("ghost")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consul_that_restarts_with_its_data_loses_no_service() {
    let options = Options {
        persistent: true,
        ..Options::default()
    };
    let Some(mut consul) = block_in_place(|| Consul::start_with(options)) else {
        return;
    };
    block_in_place(|| {
        consul.register(&routed("other", 9001));
        consul.register(&routed("web", 9000));
    });
    let mut watched = Watched::start(&config(&consul, None));
    watched.until_ready().await;
    watched.take_told();
    block_in_place(|| consul.kill());
    watched
        .until_degraded("what was known of consul's services at 2")
        .await;
    block_in_place(|| consul.restart());
    watched.until_ready().await;
    let told = watched.take_told();
    assert!(told.iter().all(|told| !told.starts_with('-')), "{told:?}");
    see(
        &mut watched,
        "a change after the restart",
        || consul.set_status("web", Status::Critical),
        |watched| watched.endpoints("web").is_empty(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consul_that_restarts_without_its_data_takes_no_route_down() {
    let Some((mut consul, mut watched)) = ready().await else {
        return;
    };
    block_in_place(|| consul.restart_empty());
    watched
        .until_degraded("no longer lists 2 of 2 services")
        .await;
    // Longer than the time after which an empty answer may be believed.
    watched.during(Duration::from_secs(7)).await;
    assert!(watched.has("web") && watched.has("other"));
    assert!(matches!(&watched.state, State::Degraded(why) if why.contains("lost its data")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_acls_hide_is_not_gone() {
    let options = Options {
        acl: true,
        ..Options::default()
    };
    let Some(consul) = block_in_place(|| Consul::start_with(options)) else {
        return;
    };
    // Without a token all there is to see is an empty list.
    let mut nobody = Watched::start(&config(&consul, None));
    nobody
        .until("it says why", |watched| {
            matches!(&watched.state, State::NotReady(why) if why.contains("no ACL token is sent"))
        })
        .await;
    let rules = |services: &str| format!("{services} node_prefix \"\" {{ policy = \"read\" }}");
    let token = block_in_place(|| {
        consul.register(&routed("other", 9001));
        consul.register(&routed("web", 9000));
        consul.token(&rules(r#"service_prefix "" { policy = "read" }"#))
    });
    let mut watched = Watched::start(&config(&consul, Some(token.clone())));
    watched.until_ready().await;
    watched.take_told();
    let policy = block_in_place(|| {
        let token = consul.get_as(Some(&token), "/v1/acl/token/self").json();
        token["Policies"][0].clone()
    });
    let narrow = |services: &str| {
        let path = format!("/v1/acl/policy/{}", policy["ID"].as_str().unwrap());
        let policy = json!({"Name": policy["Name"], "Rules": rules(services)});
        block_in_place(|| consul.put(&path, &policy));
    };
    // Consul judges a long poll by what its token could see when it began: the second change is heard with other ears.
    let register = |name: &str| block_in_place(|| consul.register(&routed(name, 9002)));
    narrow(r#"service "web" { policy = "read" }"#);
    register("a");
    watched.until_degraded("").await;
    register("b");
    watched.until_degraded("what ACLs hide").await;
    narrow("");
    register("c");
    register("d");
    watched.during(Duration::from_secs(7)).await;
    assert!(
        watched.has("web") && watched.has("other"),
        "{:?}",
        watched.take_told()
    );
    // A token that is deleted is an error, and no answer.
    let id = block_in_place(|| consul.get_as(Some(&token), "/v1/acl/token/self").json());
    block_in_place(|| {
        consul.delete(&format!(
            "/v1/acl/token/{}",
            id["AccessorID"].as_str().unwrap()
        ))
    });
    block_in_place(|| consul.register(&routed("last", 9003)));
    watched
        .until_degraded("needs service:read and node:read")
        .await;
    assert!(watched.has("web") && watched.has("other"));
}
