//! The section `[consul.login]`: a JWT that is exchanged for an ACL token, as a workload of Nomad or Kubernetes does it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Secret, Token, TokenError, read_bounded};
use crate::config::decode::{Item, Typed};
use crate::config::diagnostic::Findings;
use crate::config::files;
use crate::config::value::{Wrong, read};

/// The largest JWT, in bytes. 16 KiB: those of Nomad and Kubernetes have one or two, and Consul reads as much of a header.
const MOST: u64 = 16 * 1024;

/// What is exchanged for an ACL token (Consul's "Auth Methods", `/v1/acl/login`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The auth method that knows the JWT.
    pub auth_method: String,
    /// The file that holds the JWT; read again when it changes.
    pub token_file: PathBuf,
    /// What the token's description says in Consul, for people.
    pub meta: BTreeMap<String, String>,
}

impl Login {
    /// The JWT as its file holds it, without white space around it.
    pub fn jwt(&self) -> Result<Secret, TokenError> {
        let wrong = |reason: String| TokenError {
            path: Some(self.token_file.clone()),
            reason,
        };
        let text = read_bounded(&self.token_file, MOST).map_err(wrong)?;
        let text = text.trim();
        let is_jwt = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        match is_jwt {
            true => Ok(Secret::new(text.to_owned())),
            false => Err(wrong("holds no JWT".to_owned())),
        }
    }
}

/// What is typed of it. `None` is a key that is absent, or wrong and reported.
#[derive(Debug)]
pub(super) struct Keys {
    place: Typed<()>,
    auth_method: Option<Typed<String>>,
    token_file: Option<Typed<String>>,
    meta: BTreeMap<String, String>,
}

impl Keys {
    pub(super) fn read(item: Item<'_>, findings: &mut Findings<'_>) -> Option<Self> {
        let mut table = item.table(findings)?;
        let place = table.key();
        let auth_method =
            table.require("auth_method", "\"nomad-workloads\"", findings, Item::string);
        let token_file = table.require(
            "token_file",
            "\"/secrets/nomad_consul.jwt\"",
            findings,
            Item::string,
        );
        let meta = table.take("meta", findings, meta).unwrap_or_default();
        table.finish(findings);
        Some(Self {
            place,
            auth_method,
            token_file,
            meta,
        })
    }
}

fn meta(item: Item<'_>, findings: &mut Findings<'_>) -> Option<BTreeMap<String, String>> {
    let named = item.table(findings)?.into_named();
    let read = named
        .into_iter()
        .filter_map(|(key, item)| Some((key.value, item.string(findings)?.value)));
    Some(read.collect())
}

/// What it means. There is one way to a token: `token` is that of the agent, if one is written or in the environment.
pub(super) fn meaning(
    keys: Option<&Keys>,
    token: Option<&Token>,
    folder: &Path,
    findings: &mut Findings<'_>,
) -> Option<Login> {
    let keys = keys?;
    if token.is_some() {
        findings.error(
            keys.place.span.clone(),
            "[consul.login] beside a token: it is not clear as whom Consul is asked",
            "keep one: remove `token`, `token_file`, CONSUL_HTTP_TOKEN or CONSUL_HTTP_TOKEN_FILE, or the login",
        );
    }
    let method = read(keys.auth_method.as_ref()?, findings, |text| {
        match text.as_str() {
            "" => Err(Wrong::new(
                "the name of an auth method is empty",
                "write it as `consul acl auth-method list` has it",
            )),
            text => Ok(text.to_owned()),
        }
    });
    let file = files::path(keys.token_file.as_ref()?, folder, findings);
    Some(Login {
        auth_method: method?,
        token_file: file?,
        meta: keys.meta.clone(),
    })
}
