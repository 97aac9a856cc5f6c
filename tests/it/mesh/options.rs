//! What the operator says of the catalog, with a real Consul: who is exposed, by which tags, in which state, and how it is read.

use serde_json::json;

use super::{Host, IDENTITY, Mesh, at, configuration, plain_tags, tagged, tags};
use crate::consul::{Consul, Status, meshed};
use crate::ports;

impl Mesh {
    /// Changes the keys in `[consul]` of the gateway that runs.
    async fn reload(&self, keys: &str) {
        let text = configuration(&(at(&self.consul) + keys), "");
        self.gateway.rewrite(&self.authority, &text);
        self.gateway.reload.done("a test").await.unwrap();
    }

    /// Waits until exactly these services have routes.
    async fn routed(&self, mut names: Vec<&str>) {
        names.sort_unstable();
        self.told(&format!("{names:?} are routed"), |routes| {
            let all = routes.0["routes"].as_array().unwrap().iter();
            let mut all: Vec<&str> = all
                .map(|route| route["service"].as_str().unwrap())
                .collect();
            all.sort_unstable();
            all == names
        })
        .await;
    }
}

/// The tags of a plain service, without a word on whether it is exposed, under this prefix.
fn silent(prefix: &str, name: &str) -> Vec<String> {
    let tags = plain_tags(name, &format!("{name}.example.test"));
    let tags = tags.iter().skip(1);
    tags.map(|tag| tag.replacen("traefik", prefix, 1)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_option_that_changes_holds_at_once_and_what_stays_exposed_is_never_away() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let host = Host::start("vm").await;
    let with = |name: &str, more: &[&str]| {
        let mut tags = silent("traefik", name);
        tags.extend(more.iter().map(|tag| (*tag).to_owned()));
        tagged(name, host.address, &tags)
    };
    consul.register(&with("kept", &["portcullis.enable=true", "edge"]));
    consul.register(&with("silent", &["inner-1"]));
    consul.register(&tagged("other", host.address, &silent("edge", "other")));
    let mut mesh = Mesh::with(consul, "", "").await;
    mesh.routed(vec!["kept", "silent"]).await;
    let mut tunnel = mesh.open("kept.example.test").await.unwrap();

    let mut was_kept = true;
    for (keys, expected) in [
        ("exposed_by_default = false", vec!["kept"]),
        ("constraints = \"Tag(`edge`)\"", vec!["kept"]),
        ("constraints = \"!TagRegex(`^inner-[0-9]$`)\"", vec!["kept"]),
        ("", vec!["kept", "silent"]),
        ("prefix = \"edge\"", vec!["other"]),
        ("", vec!["kept", "silent"]),
    ] {
        mesh.reload(keys).await;
        let is_kept = expected.contains(&"kept");
        if std::mem::replace(&mut was_kept, is_kept) && is_kept {
            // Before anything has been read anew.
            let greeting = mesh.greets("kept.example.test").await;
            assert_eq!(greeting, "vm", "{keys}");
        }
        mesh.routed(expected).await;
        tunnel.is_alive().await;
    }
    let record = mesh.refuses("other.example.test").await;
    assert_eq!(record["reason"], "unknown_name", "{record}");
    tunnel.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_a_router_has_the_default_rule() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let host = Host::start("vm").await;
    let tag = |tag: &str| vec!["traefik.enable=true".to_owned(), tag.to_owned()];
    consul.register(&tagged(
        "my_vm",
        host.address,
        &tag("traefik.edge.zone=example.test"),
    ));
    consul.register(&tagged(
        "lost",
        host.address,
        &tag("traefik.edge.zone=no zone"),
    ));
    consul.register(&tagged("unasked", host.address, &[]));
    let keys = "exposed_by_default = false\n\
        default_rule = \"HostSNI(`{{ normalize .Name | lower }}.{{ index .Labels `traefik.edge.zone` }}`)\"\n";
    let mut mesh = Mesh::with(consul, keys, "").await;
    let route = mesh.route("my_vm@consul").await;
    assert_eq!(route["rule"], "HostSNI(`my-vm.example.test`)");
    assert_eq!(mesh.greets("my-vm.example.test").await, "vm");
    let routes = mesh.routes().await;
    assert_eq!(routes.0["routes"].as_array().unwrap().len(), 1);
    let lost = routes.skipped("lost");
    let reason = lost[0]["reason"].as_str().unwrap();
    assert!(
        reason.contains("what `default_rule` makes of it is no rule"),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_dialled_in_the_states_that_strict_checks_names() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let host = Host::start("vm").await;
    consul.register(&tagged("vm", host.address, &silent("traefik", "vm")));
    let mut mesh = Mesh::with(consul, "strict_checks = [\"passing\"]\n", "").await;
    assert_eq!(mesh.greets("vm.example.test").await, "vm");
    mesh.consul.set_status("vm", Status::Warning);
    mesh.told("it warns", |routes| {
        routes.endpoints("vm@consul").is_empty()
    })
    .await;
    let record = mesh.refuses("vm.example.test").await;
    assert_eq!(record["reason"], "no_healthy_upstream", "{record}");

    mesh.reload("").await;
    mesh.route("vm@consul").await;
    assert_eq!(mesh.greets("vm.example.test").await, "vm");
    mesh.consul.set_status("vm", Status::Critical);
    mesh.told("it fails", |routes| {
        routes.endpoints("vm@consul").is_empty()
    })
    .await;
    mesh.reload("strict_checks = [\"Any\"]\n").await;
    mesh.route("vm@consul").await;
    assert_eq!(mesh.greets("vm.example.test").await, "vm");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_say_goes_through_its_sidecar_by_default_or_nowhere() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let host = Host::start("vm").await;
    let service = tagged("vm", host.address, &silent("traefik", "vm"));
    consul.register(&meshed(service, ports::free()));
    let sidecar = consul.builtin_sidecar("vm");
    let lone = Host::start("lone").await;
    consul.register(&tagged("lone", lone.address, &silent("traefik", "lone")));
    let mut plain = silent("traefik", "plain");
    plain.push("traefik.consulcatalog.connect=false".to_owned());
    consul.register(&tagged("plain", lone.address, &plain));
    consul.intend(IDENTITY, "vm", true);
    let mut mesh = Mesh::with(consul, "connect_by_default = true\n", "").await;
    let route = mesh.route("vm@consul").await;
    assert_eq!(route["upstream"]["mesh"], true);
    assert_eq!(
        mesh.routes().await.endpoints("vm@consul"),
        [(sidecar.address, 1)]
    );
    assert_eq!(mesh.greets("vm.example.test").await, "vm");
    assert_eq!(mesh.greets("plain.example.test").await, "lone");
    let dials = lone.dials();
    let record = mesh.refuses("lone.example.test").await;
    assert!(
        record["detail"].to_string().contains("no sidecar"),
        "{record}"
    );
    assert_eq!(lone.dials(), dials, "never plain in its stead");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_followed_however_consistently_the_catalog_is_read() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let host = Host::start("vm").await;
    let service = |name: &str| tagged(name, host.address, &silent("traefik", name));
    consul.register(&service("first"));
    let mesh = Mesh::with(consul, "consistency = \"stale\"\n", "").await;
    mesh.routed(vec!["first"]).await;
    mesh.consul.register(&service("second"));
    mesh.routed(vec!["first", "second"]).await;
    mesh.reload("consistency = \"consistent\"\nrefresh_interval = \"5s\"\n")
        .await;
    mesh.consul.deregister("first");
    mesh.routed(vec!["second"]).await;
    mesh.is_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_for_http_are_listed_once_and_are_no_failure() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let host = Host::start("vm").await;
    let mut both = tags("both", "both.example.test");
    both.retain(|tag| !tag.contains("connect"));
    both.push("traefik.http.routers.both.rule=Host(`both`)".to_owned());
    consul.register(&tagged("both", host.address, &both));
    let http = ["traefik.http.routers.site.rule=Host(`site`)".to_owned()];
    consul.register(&tagged("site", host.address, &http));
    let mesh = Mesh::with(consul, "", "").await;
    mesh.route("both@consul").await;
    let routes = mesh
        .told("both are noted", |routes| {
            !routes.skipped("site").is_empty() && !routes.skipped("both").is_empty()
        })
        .await;
    for service in ["site", "both"] {
        let [note] = routes.skipped(service)[..] else {
            panic!("{}", routes.0);
        };
        assert_eq!(note["note"], json!(true));
        let reason = note["reason"].as_str().unwrap();
        assert!(
            reason.contains("under `http` mean nothing here"),
            "{reason}"
        );
    }
    let (_, metrics) = mesh.gateway.ask_admin("/metrics").await;
    for (state, count) in [("routed", 1), ("unrouted", 1)] {
        let line =
            format!("portcullis_discovery_services{{source=\"consul\",state=\"{state}\"}} {count}");
        assert!(metrics.contains(&line), "{line} in\n{metrics}");
    }
    assert!(!metrics.contains("state=\"skipped\"} 1"), "{metrics}");
    mesh.consul.deregister("site");
    mesh.told("it is gone", |routes| routes.skipped("site").is_empty())
        .await;
}
