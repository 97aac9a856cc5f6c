//! The section `[nomad]`: which agent is asked, as whom, and what of Nomad's own services is routed.

use std::path::{Path, PathBuf};

use super::agent::{Agent, Fallback, Program, Reader, Written};
use super::consul::entry_points;
use super::decode::{Item, List, Typed};
use super::diagnostic::{Findings, NOWHERE};
use super::value::{Wrong, read};
use super::{Environment, Secret};

/// As many namespaces are watched one by one: each is a blocking query that stays open. More are a case for `*`.
const MOST_NAMESPACES: usize = 8;

/// How Nomad is asked, and what is made of its answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nomad {
    /// The agent, or the socket of the task that this process is.
    pub agent: Agent,
    /// The namespaces whose services are looked at.
    pub namespaces: Namespaces,
    /// The entry points of tags that are ours: a router that names others only is somebody else's.
    pub entry_points: Vec<String>,
    /// Whether a tag may make a route for clients that name no host.
    pub allow_default_from_tags: bool,
    /// Whether loopback and link-local addresses are dialled: of which machine they are Nomad does not say. Default: false.
    pub allow_local_addresses: bool,
}

/// Some namespaces of Nomad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespaces {
    /// Those that the token may read, `*`.
    All,
    /// These, each once, and at least one.
    Only(Vec<String>),
}

/// `[nomad]` as it is typed. `None` is a key that is absent, or wrong and reported.
#[derive(Debug, Default)]
pub(super) struct Section {
    address: Option<Typed<String>>,
    token: Option<Typed<Secret>>,
    token_file: Option<Typed<String>>,
    roots: Option<List<Typed<String>>>,
    chain: Option<Typed<String>>,
    key: Option<Typed<String>>,
    server_name: Option<Typed<String>>,
    namespaces: Option<List<Typed<String>>>,
    entry_points: Option<List<Typed<String>>>,
    allow_default_from_tags: Option<Typed<bool>>,
    allow_local_addresses: Option<Typed<bool>>,
}

static NOMAD: Program = Program {
    section: "nomad",
    port: 4646,
    address: "NOMAD_ADDR",
    token: "NOMAD_TOKEN",
    token_file: None,
    auth: "NOMAD_HTTP_AUTH",
    ssl: None,
    unverified: ("NOMAD_SKIP_VERIFY", true),
    ca_file: "NOMAD_CACERT",
    ca_folder: "NOMAD_CAPATH",
    chain: "NOMAD_CLIENT_CERT",
    key: "NOMAD_CLIENT_KEY",
    server_name: "NOMAD_TLS_SERVER_NAME",
    address_help: "write \"127.0.0.1:4646\", \"https://nomad.internal:4646\" or \"unix:///run/nomad.sock\"",
    name_example: "\"server.global.nomad\"",
    token_help: "give the SecretID of an ACL token, or the token of a workload identity; none is needed where Nomad has no ACLs",
};

impl Section {
    /// Reads the section; one that is no table is reported, and stands there nevertheless.
    pub(super) fn read(item: Item<'_>, findings: &mut Findings<'_>) -> Self {
        let Some(mut table) = item.table(findings) else {
            return Self::default();
        };
        if let (Some(token), Some(file)) = (table.place("token"), table.place("token_file")) {
            findings.error(
                if token.start > file.start {
                    token
                } else {
                    file
                },
                "`nomad` has both `token` and `token_file`",
                "keep one: the file can be written anew without a restart",
            );
        }
        let section = Self {
            address: table.take("address", findings, Item::string),
            token: table.take("token", findings, Item::secret),
            token_file: table.take("token_file", findings, Item::string),
            roots: table.take("roots", findings, Item::strings),
            chain: table.take("chain", findings, Item::string),
            key: table.take("key", findings, Item::string),
            server_name: table.take("server_name", findings, Item::string),
            namespaces: table.take("namespaces", findings, Item::strings),
            entry_points: table.take("entry_points", findings, Item::strings),
            allow_default_from_tags: table.take("allow_default_from_tags", findings, Item::boolean),
            allow_local_addresses: table.take("allow_local_addresses", findings, Item::boolean),
        };
        table.finish(findings);
        section
    }

    /// What it means, completed from the environment as every client of Nomad reads it. What is broken is reported, and
    /// its default stands in for it.
    pub(super) fn mean(
        &self,
        folder: &Path,
        environment: &Environment,
        findings: &mut Findings<'_>,
    ) -> Nomad {
        let reader = Reader {
            program: &NOMAD,
            written: Written {
                address: &self.address,
                token: &self.token,
                token_file: &self.token_file,
                roots: &self.roots,
                chain: &self.chain,
                key: &self.key,
                server_name: &self.server_name,
            },
            fallback: of_task(environment, findings),
            folder,
            environment,
        };
        let yes = |typed: &Option<Typed<bool>>| typed.as_ref().is_some_and(|typed| typed.value);
        Nomad {
            agent: reader.agent(findings),
            namespaces: self.namespaces(environment, findings),
            entry_points: entry_points(self.entry_points.as_ref(), findings),
            allow_default_from_tags: yes(&self.allow_default_from_tags),
            allow_local_addresses: yes(&self.allow_local_addresses),
        }
    }

    fn namespaces(&self, environment: &Environment, findings: &mut Findings<'_>) -> Namespaces {
        let list = match &self.namespaces {
            Some(list) => list.clone(),
            None => List {
                key: "NOMAD_NAMESPACE".to_owned(),
                value: (environment.read("NOMAD_NAMESPACE", findings).into_iter()).collect(),
                span: NOWHERE,
                is_empty: false,
            },
        };
        if list.is_empty {
            findings.missing(
                list.span.clone(),
                format!("`{}` is an empty list: no service would be found", list.key),
                "leave it out for [\"default\"], or write a namespace, or \"*\" for all",
            );
        }
        if list.value.len() > MOST_NAMESPACES {
            findings.error(
                list.span.clone(),
                format!(
                    "`{}` has {} namespaces, each of which would be watched by a connection of its own: at most {MOST_NAMESPACES}",
                    list.key,
                    list.value.len()
                ),
                "write [\"*\"]: all that the token may read, over one connection",
            );
        }
        let mut names: Vec<String> = Vec::new();
        for typed in &list.value {
            let name = read(typed, findings, |text| match is_namespace(text) {
                true if names.contains(text) => Err(Wrong::new(
                    format!("{text:?} is listed twice"),
                    "remove one of the two",
                )),
                true if text == "*" && list.value.len() > 1 => Err(Wrong::new(
                    "\"*\" stands for every namespace, and others stand beside it",
                    "keep \"*\", or the others",
                )),
                true => Ok(text.clone()),
                false => Err(Wrong::new(
                    format!("{text:?} is not the name of a namespace"),
                    "write 1 to 128 letters, digits and `-`, or \"*\" for all",
                )),
            });
            names.extend(name);
        }
        match names.as_slice() {
            [] => Namespaces::Only(vec!["default".to_owned()]),
            [all] if all == "*" => Namespaces::All,
            _ => Namespaces::Only(names),
        }
    }
}

/// What Nomad allows (`validNamespaceName`), and the wildcard.
fn is_namespace(text: &str) -> bool {
    let is_name = (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    is_name || text == "*"
}

/// What a task of Nomad has in its folder of secrets: the socket of the task API, and the token of its workload identity,
/// which Nomad renews.
fn of_task(environment: &Environment, findings: &mut Findings<'_>) -> Fallback {
    let Some(folder) = environment.read("NOMAD_SECRETS_DIR", findings) else {
        return Fallback::default();
    };
    let there = |name: &str| Some(PathBuf::from(&folder.value).join(name)).filter(|at| at.exists());
    Fallback {
        socket: there("api.sock"),
        token_file: there("nomad_token"),
    }
}
