//! The two sidecars that stand before a service of the mesh: Consul's own, and Envoy.

use std::net::{SocketAddr, TcpStream};

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
        let command = self.command(&["connect", "proxy", "-sidecar-for", id]);
        self.sidecar(id, Child::spawn(&command))
    }

    /// Starts Envoy as the sidecar of a service registered with [`meshed`](super::meshed), as `consul connect envoy`
    /// does; none where there is no Envoy.
    pub(crate) fn envoy_sidecar(&self, id: &str) -> Option<Sidecar> {
        let program = peers::pinned("envoy")?;
        let grpc = format!("http://{}", self.grpc());
        let mut bootstrap = self.command(&["connect", "envoy", "-bootstrap", "-sidecar-for", id]);
        bootstrap
            .args(["-grpc-addr", &grpc, "-admin-bind", "127.0.0.1:0"])
            .arg("-ignore-envoy-compatibility");
        let done = run(&bootstrap, b"");
        assert!(done.status.success(), "{done:?}");
        let text = String::from_utf8(done.stdout).unwrap();
        let config = self.authority.write(&format!("envoy-{id}.json"), &text);

        let mut command = peers::unconfigured(&program, "ENVOY_");
        command
            .args(["--log-level", "warn", "--concurrency", "1"])
            .args(["--disable-hot-restart", "--config-path"])
            .arg(config);
        Some(self.sidecar(id, Child::spawn(&command)))
    }

    fn sidecar(&self, id: &str, child: Child) -> Sidecar {
        let registered = self.get(&format!("/v1/agent/service/{id}-sidecar-proxy"));
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
