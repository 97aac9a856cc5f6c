//! The agent of a careful cluster: it denies what nothing allows, and speaks HTTPS alone; what the gateway needs there.

use std::fmt::Write;
use std::slice;

use serde_json::json;

use super::{Consul, Http, Options};

/// To be the service that the gateway is in the mesh, by a token of ACLs.
pub(crate) const ITSELF: &str = r#"service "portcullis" { policy = "write" }"#;
/// To read all services.
pub(crate) const SERVICES: &str = r#"service_prefix "" { policy = "read" }"#;
/// To read all nodes.
pub(crate) const NODES: &str = r#"node_prefix "" { policy = "read" }"#;

/// What a gateway needs in Consul, as the README says it, and no more.
pub(crate) const RIGHTS: [&str; 3] = [ITSELF, SERVICES, NODES];

/// An agent that denies what nothing allows, over HTTPS, in memory, with the gateway's token.
pub(crate) const STRICT: Options = Options {
    persistent: false,
    acl: true,
    gateway: true,
    http: Http::Tls,
    wan: false,
};

/// The same, which can be restarted with its data.
pub(crate) const STRICT_PERSISTENT: Options = Options {
    persistent: true,
    ..STRICT
};

/// The gateway's token: one that the test has made up, so that it is the same after all data are lost.
const TOKEN: &str = "1d0c4b7e-92a5-4f38-8e61-7b3f5a0c9d24";

impl Consul {
    /// Starts [`STRICT`]; none where there is no Consul.
    ///
    /// `let Some(consul) = Consul::strict() else { return };`
    pub(crate) fn strict() -> Option<Self> {
        Self::start_with(STRICT)
    }

    /// The keys in `[consul]` by which a gateway finds this agent and may do what it must.
    pub(crate) fn keys(&self) -> String {
        match self.options.gateway {
            true => self.way() + &format!("token = \"{TOKEN}\"\n"),
            false => self.way(),
        }
    }

    /// The keys that lead to this agent, without a token.
    pub(crate) fn way(&self) -> String {
        let file = |name: &str| format!("{:?}", self.folder().join(name).display().to_string());
        let mut keys = format!("address = \"{}\"\n", self.address());
        if matches!(self.options.http, Http::Tls | Http::MutualTls) {
            writeln!(keys, "roots = [{}]", file("ca.pem")).unwrap();
        }
        if self.options.http == Http::MutualTls {
            let (chain, key) = (file("client.pem"), file("client.key"));
            writeln!(keys, "chain = {chain}\nkey = {key}").unwrap();
        }
        keys
    }

    /// The variables by which it finds this agent and may do what it must.
    pub(crate) fn gateway_environment(&self) -> Vec<(&'static str, String)> {
        self.environment(Some(TOKEN))
    }

    /// Lets the gateway's token do what it must, and sidecars accept everybody, as they do where there are no ACLs.
    pub(super) fn admit_the_gateway(&self) {
        self.token_with(json!({ "SecretID": TOKEN }), &RIGHTS.join("\n"));
        self.intend("*", "*", true);
    }

    /// From now on a sidecar accepts only those whom an intention of its own allows.
    pub(crate) fn deny_by_default(&self) {
        self.forget_intentions("*");
    }

    /// From now on no intention says who may reach this service.
    pub(crate) fn forget_intentions(&self, service: &str) {
        self.delete(&format!("/v1/config/service-intentions/{service}"));
    }

    /// A token for the sidecar of such a service, as whoever runs one asks Consul for it; none where none are needed.
    pub(super) fn sidecar_token(&self, service: &str) -> Option<String> {
        let token = json!({ "ServiceIdentities": [{ "ServiceName": service }] });
        self.options.acl.then(|| self.token_with(token, ""))
    }

    /// A token for a terminating gateway, which must be the services that it speaks for; none where none are needed.
    pub(super) fn gateway_token(&self, name: &str) -> Option<String> {
        if !self.options.acl {
            return None;
        }
        let linked = self.get(&format!("/v1/config/terminating-gateway/{name}"));
        let linked = linked["Services"].as_array().unwrap().iter();
        let linked: Vec<_> = linked.map(|one| one["Name"].as_str().unwrap()).collect();
        let all = linked.iter().chain(slice::from_ref(&name));
        let mut rules = format!("{SERVICES}\n{NODES}\n");
        for service in all {
            writeln!(rules, "service \"{service}\" {{ policy = \"write\" }}").unwrap();
        }
        Some(self.token(&rules))
    }
}
