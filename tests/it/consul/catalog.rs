//! What a test tells the agent: services, their health, intentions, tokens, the mesh's CA.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::Consul;
use crate::bao::Bao;
use crate::support::wait_until;

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

/// An agent tells the catalog of a change a moment after it was told: the first five wait until it has.
impl Consul {
    /// Registers a service, or changes it.
    pub(crate) fn register(&self, service: &Value) {
        self.put("/v1/agent/service/register", service);
        let name = service["Name"].as_str().unwrap();
        let id = service["ID"].as_str().unwrap_or(name);
        let check = &service["Check"];
        if check["Status"] == "passing" && !check["TTL"].is_null() {
            // Until its check has been told so by name, the service would be critical after a restart.
            self.set_status(id, Status::Passing);
        }
        self.settle(id);
        self.settle(&format!("{id}-sidecar-proxy"));
    }

    /// Takes a service out of the catalog, and its sidecar if they were registered as one.
    pub(crate) fn deregister(&self, id: &str) {
        self.put(&format!("/v1/agent/service/deregister/{id}"), &Value::Null);
        self.settle(id);
        self.settle(&format!("{id}-sidecar-proxy"));
    }

    /// Lets the check of [`service`] say something else. The alias check of a sidecar follows within two seconds.
    pub(crate) fn set_status(&self, id: &str, status: Status) {
        let status = match status {
            Status::Passing => "pass",
            Status::Warning => "warn",
            Status::Critical => "fail",
        };
        let path = format!("/v1/agent/check/{status}/service:{id}");
        self.put(&path, &Value::Null);
        self.settle(id);
    }

    /// Puts a service into maintenance, or ends that.
    pub(crate) fn service_maintenance(&self, id: &str, enable: bool) {
        let path = format!("/v1/agent/service/maintenance/{id}?enable={enable}&reason=a+test");
        self.put(&path, &Value::Null);
        self.settle(id);
    }

    /// Puts the node, and so all its services, into maintenance, or ends that.
    pub(crate) fn node_maintenance(&self, enable: bool) {
        let path = format!("/v1/agent/maintenance?enable={enable}&reason=a+test");
        self.put(&path, &Value::Null);
        // The checks of the node are those of no service.
        wait_until("the catalog knows it", || {
            statuses(&self.checks(""), "").contains_key("_node_maintenance") == enable
        });
    }

    /// Lets the node have a check of its own, beside those of its services, which says this.
    pub(crate) fn set_node_check(&self, id: &str, status: Status) {
        let check = json!({ "ID": id, "Name": id, "TTL": "1h" });
        self.put("/v1/agent/check/register", &check);
        let (verb, told) = match status {
            Status::Passing => ("pass", "passing"),
            Status::Warning => ("warn", "warning"),
            Status::Critical => ("fail", "critical"),
        };
        self.put(&format!("/v1/agent/check/{verb}/{id}"), &Value::Null);
        wait_until("the catalog knows it", || {
            statuses(&self.checks(""), "")
                .get(id)
                .is_some_and(|status| *status == told)
        });
    }

    /// Waits until the catalog says of a service what the agent does.
    fn settle(&self, id: &str) {
        let node = self.node();
        let service = format!("/v1/catalog/node-services/{node}?filter=ID+==+%22{id}%22");
        wait_until("the catalog knows it", || {
            // Its status is that of the service.
            let agents = self.get_always(&format!("/v1/agent/health/service/id/{id}"));
            let catalogs = &self.get(&service)["Services"][0];
            let is_same = |field: &&str| {
                let [ours, theirs] = [&agents["Service"][field], &catalogs[field]];
                ours == theirs || (is_empty(ours) && is_empty(theirs))
            };
            let fields = ["Service", "Tags", "Address", "Port", "Meta", "Weights"];
            // The agent lists the checks of its node too.
            let ours = statuses(&agents["Checks"], id);
            fields.iter().all(is_same) && ours == statuses(&self.checks(id), id)
        });
    }

    /// The checks of a service in the catalog.
    fn checks(&self, id: &str) -> Value {
        let node = self.node();
        self.get(&format!(
            "/v1/health/node/{node}?filter=ServiceID+==+%22{id}%22"
        ))
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
        self.token_with(json!({}), rules)
    }

    /// The same for so long, such as `60s`, which is the least.
    pub(crate) fn token_for(&self, time: &str, rules: &str) -> String {
        self.token_with(json!({ "ExpirationTTL": time }), rules)
    }

    /// A new token of this description that may do what these rules say besides, if there are any.
    pub(super) fn token_with(&self, mut token: Value, rules: &str) -> String {
        if !rules.is_empty() {
            // A policy needs a name of its own.
            let count = self.get("/v1/acl/policies").as_array().unwrap().len();
            let name = format!("test-{count}");
            let policy = json!({ "Name": name, "Rules": rules });
            self.put("/v1/acl/policy", &policy);
            token["Policies"] = json!([{ "Name": name }]);
        }
        let token = self.put("/v1/acl/token", &token);
        token["SecretID"].as_str().unwrap().to_owned()
    }

    /// Lets a token of [`Consul::token`] do what these rules say from now on.
    pub(crate) fn change_rights(&self, token: &str, rules: &str) {
        let policies = &self.token_itself(token)["Policies"];
        let [id, name] = ["ID", "Name"].map(|field| policies[0][field].as_str().unwrap());
        let policy = json!({ "ID": id, "Name": name, "Rules": rules });
        self.put(&format!("/v1/acl/policy/{id}"), &policy);
    }

    /// Lets a token be none.
    pub(crate) fn delete_token(&self, token: &str) {
        let itself = self.token_itself(token);
        let accessor = itself["AccessorID"].as_str().unwrap();
        self.delete(&format!("/v1/acl/token/{accessor}"));
    }

    fn token_itself(&self, token: &str) -> Value {
        let answer = self.get_as(Some(token), "/v1/acl/token/self");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
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

/// The status of each check of this service, or of none.
fn statuses<'a>(checks: &'a Value, id: &str) -> BTreeMap<&'a str, &'a Value> {
    let checks = checks.as_array().map(Vec::as_slice).unwrap_or_default();
    let statuses = checks.iter();
    statuses
        .filter(|check| check["ServiceID"] == id)
        .map(|check| (check["CheckID"].as_str().unwrap(), &check["Status"]))
        .collect()
}

/// Whether it is what Go makes of an empty list or map, or nothing.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}
