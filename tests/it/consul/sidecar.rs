//! The two sidecars that stand before a service of the mesh: Consul's own, and Envoy.

use std::net::{SocketAddr, TcpStream};

use serde_json::json;

use super::Consul;
use crate::peers;
use crate::support::{Child, run, wait_until};

/// A sidecar of a registered service, which accepts connections; dropped, it is killed.
pub(crate) struct Sidecar {
    /// Where the mesh reaches the service.
    pub(crate) address: SocketAddr,
    pub(crate) child: Child,
}

impl Consul {
    /// Starts Consul's built-in sidecar of a service registered with [`meshed`](super::meshed).
    ///
    /// It dials the service as soon as the handshake is done, and closes both sides at the first end.
    pub(crate) fn builtin_sidecar(&self, id: &str) -> Sidecar {
        let token = self.sidecar_token(&self.service_of(id));
        let arguments = ["connect", "proxy", "-sidecar-for", id];
        let command = self.command_with(token.as_deref(), &arguments);
        self.sidecar(&format!("{id}-sidecar-proxy"), Child::spawn(&command))
    }

    /// Starts Envoy as the sidecar of a service registered with [`meshed`](super::meshed), as `consul connect envoy`
    /// does; none where there is no Envoy.
    pub(crate) fn envoy_sidecar(&self, id: &str) -> Option<Sidecar> {
        let token = self.sidecar_token(&self.service_of(id));
        let envoy = self.envoy(id, token, &["-sidecar-for", id])?;
        Some(self.sidecar(&format!("{id}-sidecar-proxy"), envoy))
    }

    /// Registers a terminating gateway of this name and id, on this port of 127.0.0.1.
    pub(crate) fn register_gateway(&self, name: &str, port: u16) {
        self.register(&json!({
            "Kind": "terminating-gateway",
            "Name": name,
            "Address": "127.0.0.1",
            "Port": port,
        }));
    }

    /// Starts Envoy as that gateway; it must speak for a service. None where there is no Envoy.
    pub(crate) fn envoy_gateway(&self, name: &str) -> Option<Sidecar> {
        let what = ["-gateway", "terminating", "-proxy-id", name];
        let envoy = self.envoy(name, self.gateway_token(name), &what)?;
        Some(self.sidecar(name, envoy))
    }

    fn envoy(&self, name: &str, token: Option<String>, what: &[&str]) -> Option<Child> {
        let program = peers::pinned("envoy")?;
        let arguments = ["connect", "envoy", "-bootstrap"];
        let mut bootstrap = self.command_with(token.as_deref(), &arguments);
        bootstrap
            .args(what)
            .args(["-grpc-addr", &self.grpc(), "-admin-bind", "127.0.0.1:0"])
            .arg("-ignore-envoy-compatibility");
        if self.client.is_some() {
            let roots = self.folder().join("ca.pem");
            bootstrap.arg("-grpc-ca-file").arg(roots);
        }
        let done = run(&bootstrap, b"");
        assert!(done.status.success(), "{done:?}");
        let text = String::from_utf8(done.stdout).unwrap();
        let config = self.authority.write(&format!("envoy-{name}.json"), &text);

        let mut command = peers::unconfigured(&program, "ENVOY_");
        command
            .args(["--log-level", "warn", "--concurrency", "1"])
            .args(["--disable-hot-restart", "--config-path"])
            .arg(config);
        Some(Child::spawn(&command))
    }

    /// Which service an instance is of.
    fn service_of(&self, id: &str) -> String {
        let registered = self.get(&format!("/v1/agent/service/{id}"));
        registered["Service"].as_str().unwrap().to_owned()
    }

    /// That of this id, once it accepts.
    fn sidecar(&self, id: &str, child: Child) -> Sidecar {
        let registered = self.get(&format!("/v1/agent/service/{id}"));
        let [ip, port] = ["Address", "Port"].map(|field| {
            let value = &registered[field];
            value.as_str().map_or(value.to_string(), str::to_owned)
        });
        let address = format!("{ip}:{port}").parse().unwrap();
        wait_until("the sidecar accepts", || {
            assert!(!child.has_ended(), "the sidecar ended: {}", child.all());
            TcpStream::connect(address).is_ok()
        });
        Sidecar { address, child }
    }
}
