//! More agents of one Consul: the server of another datacenter, and the client of a server.

use super::{Consul, NODE_IS_KNOWN, Options, Ports, https_client};
use crate::authority::Authority;
use crate::support::wait_until;

impl Consul {
    /// Starts the agent of a datacenter `dc2`, in memory, which is joined with this one ([`Options::wan`]): it has the mesh and
    /// the trust domain in common.
    pub(crate) fn start_beside(&self) -> Self {
        let authority = certified();
        let mut consul = Self {
            child: None,
            program: self.program.clone(),
            client: https_client(&authority, self.options.http),
            options: self.options,
            authority,
            ports: Ports::free(),
            primary: Some(self.ports.wan),
            server: None,
        };
        while !consul.launch(NODE_IS_KNOWN) {
            consul.ports = Ports::free();
        }
        let path = "/v1/catalog/datacenters";
        wait_until("the datacenters know each other", || {
            self.get(path).as_array().is_some_and(|all| all.len() == 2)
        });
        if self.options.gateway {
            wait_until("the intentions have come", || {
                let intention = "/v1/config/service-intentions/*";
                let answer = consul.get_as(consul.token_if_needed(), intention);
                answer.status == 200
            });
        }
        consul
    }

    /// Starts an agent that is a client of this server, as it runs on every machine of a cluster.
    pub(crate) fn start_client(&self) -> Self {
        let authority = certified();
        let mut consul = Self {
            child: None,
            program: self.program.clone(),
            client: https_client(&authority, self.options.http),
            options: Options {
                persistent: true,
                ..self.options
            },
            authority,
            ports: Ports::free(),
            primary: None,
            server: Some(self.ports.serf),
        };
        while !consul.launch(NODE_IS_KNOWN) {
            consul.ports = Ports::free();
        }
        consul
    }
}

/// An authority of an agent's own, which has certified it.
pub(super) fn certified() -> Authority {
    let authority = Authority::new();
    authority.issue_files("agent", &["localhost", "127.0.0.1"]);
    authority
}
