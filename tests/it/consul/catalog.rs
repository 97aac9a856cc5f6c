//! What a test tells the agent: services, their health, intentions, tokens, the mesh's CA.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::Consul;
use crate::bao::Bao;

/// What a check says of a service.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Status {
    Passing,
    Warning,
    Critical,
}

/// A service to be registered, whose id is its name; it is passing until [`Consul::set_status`] says otherwise.
///
/// It is JSON as of `/v1/agent/service/register`: a test may change or add what it likes.
pub(crate) fn service(name: &str, address: SocketAddr, tags: &[&str]) -> Value {
    json!({
        "Name": name,
        "Address": address.ip(),
        "Port": address.port(),
        "Tags": tags,
        "Check": { "TTL": "1h", "Status": "passing" },
    })
}

/// The same service with a sidecar on this port of 127.0.0.1 (one of [`crate::ports::free`]), as healthy as itself.
///
/// The agent's own checks of a sidecar would first look after up to ten seconds. After a restart they are there all the
/// same: the sidecar must run, and is critical until then. [`sidecar`] knows no such wait.
pub(crate) fn meshed(mut service: Value, port: u16) -> Value {
    let alias = json!({ "AliasService": service["Name"], "Status": "passing" });
    service["Connect"] = json!({
        "SidecarService": { "Address": "127.0.0.1", "Port": port, "Checks": [alias] },
    });
    service
}

/// A sidecar of a registered service, to be registered by itself; otherwise as that of [`meshed`].
pub(crate) fn sidecar(service: &Value, port: u16) -> Value {
    let name = service["Name"].as_str().unwrap();
    json!({
        "Kind": "connect-proxy",
        "Name": format!("{name}-sidecar-proxy"),
        "Address": "127.0.0.1",
        "Port": port,
        "Tags": service["Tags"],
        "Proxy": {
            "DestinationServiceName": name,
            "DestinationServiceID": name,
            "LocalServiceAddress": service["Address"],
            "LocalServicePort": service["Port"],
        },
        "Check": { "AliasService": name, "Status": "passing" },
    })
}

impl Consul {
    /// Registers a service, or changes it; it is in the catalog when this returns.
    pub(crate) fn register(&self, service: &Value) {
        self.put("/v1/agent/service/register", service);
        if service["Check"]["Status"] == "passing" && !service["Check"]["TTL"].is_null() {
            // Until its check has been told so by name, the service would be critical after a restart.
            self.set_status(service["Name"].as_str().unwrap(), Status::Passing);
        }
    }

    /// Takes a service out of the catalog, its sidecar too.
    pub(crate) fn deregister(&self, id: &str) {
        self.put(&format!("/v1/agent/service/deregister/{id}"), &Value::Null);
    }

    /// Lets the check of [`service`] say something else. The alias check of a sidecar follows within two
    /// seconds.
    pub(crate) fn set_status(&self, id: &str, status: Status) {
        let status = match status {
            Status::Passing => "pass",
            Status::Warning => "warn",
            Status::Critical => "fail",
        };
        let path = format!("/v1/agent/check/{status}/service:{id}");
        self.put(&path, &Value::Null);
    }

    /// Puts a service into maintenance, or ends that.
    pub(crate) fn service_maintenance(&self, id: &str, enable: bool) {
        let path = format!("/v1/agent/service/maintenance/{id}?enable={enable}&reason=a+test");
        self.put(&path, &Value::Null);
    }

    /// Puts the node, and so all its services, into maintenance, or ends that.
    pub(crate) fn node_maintenance(&self, enable: bool) {
        let path = format!("/v1/agent/maintenance?enable={enable}&reason=a+test");
        self.put(&path, &Value::Null);
    }

    /// Lets a service of the mesh open connections to another, or not; sidecars hear of it a moment later.
    pub(crate) fn intend(&self, source: &str, destination: &str, allow: bool) {
        let action = if allow { "allow" } else { "deny" };
        let intention = json!({
            "Kind": "service-intentions",
            "Name": destination,
            "Sources": [{ "Name": source, "Action": action }],
        });
        self.put("/v1/config", &intention);
    }

    /// A new token that may do what these rules say, in Consul's language: `service_prefix "" { policy = "read" }`.
    pub(crate) fn token(&self, rules: &str) -> String {
        // A policy needs a name of its own.
        let count = self.get("/v1/acl/policies").as_array().unwrap().len();
        let name = format!("test-{count}");
        let policy = json!({ "Name": name, "Rules": rules });
        self.put("/v1/acl/policy", &policy);
        let token = self.put("/v1/acl/token", &json!({ "Policies": [{ "Name": name }] }));
        token["SecretID"].as_str().unwrap().to_owned()
    }

    /// Moves the mesh to a CA in OpenBao. The old root stays trusted; new leaves come with the certificates that lead
    /// from the old root to the new one. A leaf that was asked for before is renewed within half a minute, at random.
    pub(crate) fn use_vault_ca(&self, bao: &Bao) {
        let config = json!({
            "Provider": "vault",
            "Config": {
                "Address": bao.address(),
                "Token": Bao::TOKEN,
                "RootPKIPath": "connect-root",
                "IntermediatePKIPath": "connect-inter",
                "LeafCertTTL": "1h",
            },
        });
        self.put("/v1/connect/ca/configuration", &config);
    }
}
