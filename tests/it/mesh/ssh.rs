//! What the gateway exists for: ssh by its name, to a machine behind a sidecar that has proved who it is.

use serde_json::json;

use super::{IDENTITY, Mesh, Proxy};
use crate::authority::Authority;
use crate::consul::service;
use crate::vm::{FILE, Vm, Way};

const NAME: &str = "simple01.domain.com";

/// The tags of a job that Traefik routes today.
const TAGS: [&str; 6] = [
    "traefik.enable=true",
    "traefik.consulcatalog.connect=true",
    "traefik.tcp.routers.simple01.entrypoints=https",
    "traefik.tcp.routers.simple01.tls=true",
    "traefik.tcp.routers.simple01.rule=HostSNI(`simple01.domain.com`)",
    "traefik.tcp.routers.simple01.service=simple01",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_person_works_on_a_vm_behind_consuls_built_in_sidecar() {
    a_person_works(Proxy::BuiltIn).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_works_on_a_vm_behind_envoy() {
    a_person_works(Proxy::Envoy).await;
}

async fn a_person_works(proxy: Proxy) {
    let authority = Authority::new();
    let Some(vm) = Vm::start(NAME, &authority).await else {
        return;
    };
    let service = service("simple01", vm.address, &TAGS);
    let Some((mut mesh, sidecar)) = Mesh::before(proxy, service, authority).await else {
        return;
    };
    let routes = mesh.routes().await;
    let route = routes.route("simple01@consul").unwrap();
    assert_eq!(route["source"], "consul");
    assert_eq!(route["rule"], "HostSNI(`simple01.domain.com`)");
    assert_eq!(route["action"], "terminate");
    assert_eq!(route["warnings"], json!([]), "{route}");
    assert_eq!(route["upstream"]["name"], "simple01@consul");
    assert_eq!(route["upstream"]["mesh"], true, "{route}");
    let spiffe = mesh.consul.spiffe_id("simple01");
    assert_eq!(route["upstream"]["spiffe"], spiffe);

    for way in [Way::SClient, Way::Connect] {
        let person = vm.person(way, mesh.gateway.address);
        person.runs_a_command().await;
        let record = person.ended(&mut mesh.gateway).await;
        assert_eq!(record["sni"], NAME);
        assert_eq!(record["route"], "simple01@consul");
        assert_eq!(record["upstream"], "simple01@consul");
        assert_eq!(record["endpoint"], sidecar.address.to_string());

        person.copies_a_file_both_ways().await;
        for moved in ["bytes_up", "bytes_down"] {
            let record = person.ended(&mut mesh.gateway).await;
            assert!(record[moved].as_u64().unwrap() > FILE, "{record}");
        }
    }
    // Who the gateway is in the mesh is no service that anybody could dial.
    let services = mesh.consul.get("/v1/catalog/services");
    assert!(services[IDENTITY].is_null(), "{services}");
}
