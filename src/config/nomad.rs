//! The section `[nomad]`: which agent is asked, as whom, and what of Nomad's own services is routed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::agent::{Agent, Fallback, Program, Reader, Written};
use super::decode::{Item, List, Typed};
use super::diagnostic::{Findings, NOWHERE};
use super::file::File;
use super::passphrase;
use super::tags::{self, Tagging};
use super::value::{Wrong, choice, read};
use super::{Environment, Secret, Upstream};

/// As many namespaces are watched one by one: each is a blocking query that stays open. More are a case for `*`.
const MOST_NAMESPACES: usize = 8;

/// How Nomad is asked, and what is made of its answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nomad {
    /// The agent, or the socket of the task that this process is.
    pub agent: Agent,
    /// The region whose services are looked at; `None` is the agent's own.
    pub region: Option<String>,
    /// The namespaces whose services are looked at.
    pub namespaces: Namespaces,
    /// What tags may ask for.
    pub tagging: Tagging,
    /// Whether any server may answer: cheaper, there without a leader, and a moment late. Default: false, the leader does.
    /// (Nomad's "Consistency Modes"; it has no other.)
    pub stale: bool,
    /// Everything is read again so often in quiet times. Default: 60 s.
    pub refresh_interval: Duration,
    /// Whether loopback and link-local addresses are dialled: of which machine they are Nomad does not say. Default: false.
    pub allow_local_addresses: bool,
}

/// A service of Nomad's own, as an upstream of the file names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NomadService {
    /// Its namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

impl NomadService {
    /// What it is called here: as in Nomad, and of another namespace than `default` with that after a dot, which no name in
    /// Nomad has.
    pub fn key(&self) -> String {
        key(&self.namespace, &self.name)
    }
}

/// Some namespaces of Nomad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespaces {
    /// Those that the token may read, `*`.
    All,
    /// These, each once, and at least one.
    Only(Vec<String>),
}

/// What a service of a namespace [is called](NomadService::key) here.
pub(crate) fn key(namespace: &str, name: &str) -> String {
    match namespace {
        DEFAULT => name.to_owned(),
        _ => format!("{name}.{namespace}"),
    }
}

/// What Nomad lets a service be called, at most. A dot in it could make one of another.
pub(crate) fn is_label(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && (text.bytes()).all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// The namespace whose services are known by their names alone.
pub(crate) const DEFAULT: &str = "default";

/// `[nomad]` as it is typed. `None` is a key that is absent, or wrong and reported.
#[derive(Debug, Default)]
pub(super) struct Section {
    address: Option<Typed<String>>,
    token: Option<Typed<Secret>>,
    token_file: Option<Typed<String>>,
    roots: Option<List<Typed<String>>>,
    chain: Option<Typed<String>>,
    key: Option<Typed<String>>,
    passphrase: passphrase::Keys,
    server_name: Option<Typed<String>>,
    region: Option<Typed<String>>,
    namespaces: Option<List<Typed<String>>>,
    tagging: tags::Keys,
    consistency: Option<Typed<String>>,
    refresh_interval: Option<Typed<String>>,
    allow_local_addresses: Option<Typed<bool>>,
}

/// Traefik's options that are called otherwise here, or have nothing to say, with what to do.
const TRAEFIKS: &[(&str, &str)] = &[
    ("stale", "write `consistency = \"stale\"`"),
    (
        "watch",
        "leave it out: changes are always waited for, and served within a fraction of a second",
    ),
    (
        "throttle_duration",
        "leave it out: of changes that come in quick succession those are read together that can be",
    ),
    (
        "allow_empty_services",
        "leave it out: a service has its route as long as Nomad lists an instance of it; for one that stays, write a route of the file to `nomad_service`",
    ),
    (
        "endpoint",
        "its keys stand in [nomad] itself: `address`, `region`, `token`, `roots`, `chain`, `key`, `server_name`",
    ),
];

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
            passphrase: passphrase::Keys::take(&mut table, findings),
            server_name: table.take("server_name", findings, Item::string),
            region: table.take("region", findings, Item::string),
            namespaces: table.take("namespaces", findings, Item::strings),
            tagging: tags::Keys::read(&mut table, findings),
            consistency: table.take("consistency", findings, Item::string),
            refresh_interval: table.take("refresh_interval", findings, |item, findings| {
                item.quantity("s", findings)
            }),
            allow_local_addresses: table.take("allow_local_addresses", findings, Item::boolean),
        };
        table.refuse(TRAEFIKS, findings);
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
                passphrase: &self.passphrase,
                server_name: &self.server_name,
            },
            fallback: of_task(environment, findings),
            folder,
            environment,
        };
        Nomad {
            agent: reader.agent(findings),
            region: self.region(environment, findings),
            namespaces: self.namespaces(environment, findings),
            tagging: (self.tagging).mean("every service that Nomad lists", findings),
            stale: (self.consistency.as_ref())
                .and_then(|typed| read(typed, findings, |text| consistency(text)))
                .unwrap_or_default(),
            refresh_interval: tags::refresh_interval(self.refresh_interval.as_ref(), findings),
            allow_local_addresses: (self.allow_local_addresses.as_ref())
                .is_some_and(|typed| typed.value),
        }
    }

    fn region(&self, environment: &Environment, findings: &mut Findings<'_>) -> Option<String> {
        let variable = || environment.read("NOMAD_REGION", findings);
        let typed = self.region.clone().or_else(variable)?;
        read(&typed, findings, |text| {
            match is_namespace(text) && text != "*" {
                true => Ok(text.clone()),
                false => Err(Wrong::new(
                    format!("{text:?} is not the name of a region"),
                    "write it as `nomad server members` lists it, such as \"global\"",
                )),
            }
        })
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
            [] => Namespaces::Only(vec![DEFAULT.to_owned()]),
            [all] if all == "*" => Namespaces::All,
            _ => Namespaces::Only(names),
        }
    }
}

/// Says of each upstream that stands for a service in which namespace that is: in the first, where it does not say.
pub(super) fn locate(
    upstreams: &mut BTreeMap<String, Upstream>,
    file: &File,
    namespaces: &Namespaces,
    findings: &mut Findings<'_>,
) {
    for (name, typed) in &file.upstreams {
        let upstream = upstreams.get_mut(&name.value);
        let Some(service) = upstream.and_then(|upstream| upstream.nomad_service.as_mut()) else {
            continue;
        };
        match (&typed.namespace, namespaces) {
            (None, Namespaces::All) => {}
            (None, Namespaces::Only(names)) => {
                service.namespace = names.first().cloned().unwrap_or_default();
            }
            (Some(typed), Namespaces::Only(names)) if !names.contains(&typed.value) => findings
                .error(
                    typed.span.clone(),
                    format!(
                        "`{}`: {:?} is none of the `namespaces` in [nomad]",
                        typed.key, typed.value
                    ),
                    "add it to `namespaces` in [nomad]: only what is listed there is read",
                ),
            (Some(typed), _) => {
                let name = read(typed, findings, |text| {
                    match is_namespace(text) && text != "*" {
                        true => Ok(text.clone()),
                        false => Err(Wrong::new(
                            format!("{text:?} is not the name of a namespace"),
                            "write 1 to 128 letters, digits and `-`",
                        )),
                    }
                });
                service.namespace = name.unwrap_or_default();
            }
        }
    }
}

/// The name of a service, as an upstream has it.
pub(super) fn service_name(typed: &Typed<String>, findings: &mut Findings<'_>) -> Option<String> {
    read(typed, findings, |text| match is_label(text) {
        true => Ok(text.clone()),
        false => Err(Wrong::new(
            format!("{text:?} is not the name of a service of Nomad"),
            "write 1 to 128 letters, digits, `-` and `_`, such as \"web\"; its `namespace` is a key of its own",
        )),
    })
}

/// Whether any server may answer.
fn consistency(text: &str) -> Result<bool, Wrong> {
    if text == "consistent" {
        return Err(Wrong::new(
            "Nomad has no mode \"consistent\"",
            "leave it out: its leader answers by default",
        ));
    }
    choice(text, &[("default", false), ("stale", true)])
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
