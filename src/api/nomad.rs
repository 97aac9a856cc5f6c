//! Nomad's HTTP API: an agent, or the socket that a task has, as `[nomad]` says how to ask it.

use super::http::{Api, Server};
use crate::config::{Agent, Nomad};

impl<'a> From<&'a Nomad> for Server<'a> {
    fn from(Nomad { agent, .. }: &'a Nomad) -> Self {
        let Agent {
            address,
            https,
            prefix,
            token,
            basic_auth,
            roots,
            certificate,
            server_name,
        } = agent;
        Self {
            api: Api::Nomad,
            address,
            https: *https,
            prefix,
            token: token.as_ref(),
            login: None,
            basic_auth: basic_auth.as_ref(),
            roots,
            certificate: certificate.as_ref(),
            server_name: server_name.as_deref(),
        }
    }
}
