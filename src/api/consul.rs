//! Consul's HTTP API: an agent as `[consul]` says how to ask it.

pub use super::http::{Answer, Client, ClientError, Error, Query, TokenId, Watch, null_is_default};

use super::http::{Api, Server};
use crate::config::Consul;

impl<'a> From<&'a Consul> for Server<'a> {
    fn from(consul: &'a Consul) -> Self {
        Self {
            api: Api::Consul,
            address: &consul.address,
            https: consul.https,
            prefix: &consul.prefix,
            token: consul.token.as_ref(),
            login: consul.login.as_ref(),
            basic_auth: consul.basic_auth.as_ref(),
            roots: &consul.roots,
            certificate: consul.certificate.as_ref(),
            server_name: consul.server_name.as_deref(),
        }
    }
}
