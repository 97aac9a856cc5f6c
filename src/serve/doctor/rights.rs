//! What the gateway's tokens may do, right by right, and which rule adds what one lacks.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::timeout;

use super::{CONSUL_RIGHTS, NOMAD_RIGHTS};
use crate::api::http::{Client, Error, Query, Right};
use crate::config::{Consul, Namespaces, Nomad, Place};
use crate::status::step::Step;

/// As many namespaces are asked about, and no more.
const MOST: usize = 8;

/// A right that the README names.
struct Wanted<'a> {
    right: Right<'a>,
    /// What is not there without it.
    without: &'static str,
    /// Whether nothing works without it; what a rule on all names gives, narrower ones may give in part.
    is_needed: bool,
}

impl Wanted<'_> {
    /// The rule that gives it, as a policy has it.
    fn rule(&self) -> String {
        let Right {
            resource,
            access,
            segment,
        } = self.right;
        let prefix = if segment.is_empty() { "_prefix" } else { "" };
        format!("{resource}{prefix} \"{segment}\" {{ policy = \"{access}\" }}")
    }

    fn told(&self, is_had: bool, place: &str) -> Step {
        let rule = self.rule();
        if is_had {
            return Step::ok(CONSUL_RIGHTS, format!("the token has {rule}{place}"));
        }
        let lack = format!("the token lacks {rule}{place}: {}", self.without);
        match self.is_needed {
            true => Step::fail(CONSUL_RIGHTS, lack, format!("add to its policy: {rule}")),
            false => Step::warn(
                CONSUL_RIGHTS,
                lack,
                format!(
                    "add to its policy: {rule}; unless narrower rules name all that is to be routed"
                ),
            ),
        }
    }
}

/// Tells of each right in each datacenter that is read.
pub(super) async fn of_consul(
    client: &Client,
    consul: &Consul,
    patience: Duration,
    tell: &mut dyn FnMut(Step),
) {
    let itself = consul.mesh_identity.as_deref();
    let itself = itself.map(|name| Wanted {
        right: Right {
            resource: "service",
            access: "write",
            segment: name,
        },
        without: "the gateway cannot be that service in the mesh",
        is_needed: true,
    });
    let read = |resource, without| Wanted {
        right: Right {
            resource,
            access: "read",
            segment: "",
        },
        without,
        is_needed: false,
    };
    let services = "of services that no other rule names nothing is seen";
    let nodes = "of nodes that no other rule names no instance is seen";
    let readings = [read("service", services), read("node", nodes)];
    for (index, place) in consul.places.iter().enumerate() {
        // The certificate is asked for where the agent is.
        let wanted = itself.iter().filter(|_| index == 0).chain(&readings);
        let wanted: Vec<_> = wanted.collect();
        if !in_place(client, place, &wanted, patience, tell).await {
            return;
        }
    }
}

/// Whether the other places have something to say, too.
async fn in_place(
    client: &Client,
    place: &Place,
    wanted: &[&Wanted<'_>],
    patience: Duration,
    tell: &mut dyn FnMut(Step),
) -> bool {
    if place.namespace.is_some() || place.partition.is_some() {
        let detail = format!("what the token may do in {place} is not looked at");
        tell(Step::unknown(CONSUL_RIGHTS, detail));
        return true;
    }
    let datacenter = place.datacenter.as_deref();
    let named = datacenter.map_or_else(String::new, |name| format!(" in {name}"));
    let rights: Vec<_> = wanted.iter().map(|one| one.right).collect();
    let asked = timeout(patience, client.rights(datacenter, &rights)).await;
    match asked {
        Ok(Ok(Some(had))) => {
            let steps = wanted.iter().zip(had);
            steps.for_each(|(one, is_had)| tell(one.told(is_had, &named)));
            true
        }
        Ok(Ok(None)) => {
            let detail = "the agent has no ACLs: no right is needed";
            tell(Step::ok(CONSUL_RIGHTS, detail));
            false
        }
        Ok(Err(error)) if error.is_denied() => {
            tell(unknown_token(CONSUL_RIGHTS, &error));
            false
        }
        Ok(Err(error)) => {
            tell(untold(CONSUL_RIGHTS, &error.to_string()));
            true
        }
        Err(_) => {
            tell(untold(
                CONSUL_RIGHTS,
                &format!("no answer within {patience:?}"),
            ));
            true
        }
    }
}

/// A namespace, as `/v1/namespaces` lists those that a token may know of.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    name: String,
}

/// Tells for each namespace whether its services may be read.
pub(super) async fn of_nomad(
    client: &Client,
    nomad: &Nomad,
    patience: Duration,
    tell: &mut dyn FnMut(Step),
) {
    let region = nomad.region.as_deref().map(|region| ("region", region));
    let asked = timeout(patience, async {
        let names = match &nomad.namespaces {
            Namespaces::Only(names) => names.clone(),
            Namespaces::All => {
                let parameters: Vec<_> = region.into_iter().collect();
                let query = Query {
                    path: &["namespaces"],
                    parameters: &parameters,
                    consistent: false,
                };
                let listed = client.read::<Vec<Listed>>(&query).await?.value;
                listed.into_iter().map(|one| one.name).collect()
            }
        };
        for name in names.iter().take(MOST) {
            let parameters: Vec<_> = region.into_iter().chain([("namespace", &**name)]).collect();
            let query = Query {
                path: &["services"],
                parameters: &parameters,
                consistent: false,
            };
            let read = client.read::<serde::de::IgnoredAny>(&query).await;
            tell(in_namespace(name, read.map(drop)));
        }
        Ok::<usize, Error>(names.len())
    });
    match asked.await {
        Ok(Ok(0)) => tell(Step::fail(
            NOMAD_RIGHTS,
            "the token knows of no namespace: no service is seen",
            format!("add to its policy: {}", rule("default")),
        )),
        Ok(Ok(names)) if names > MOST => {
            let more = names - MOST;
            let detail = format!("{more} more namespaces were not asked about");
            tell(Step::unknown(NOMAD_RIGHTS, detail));
        }
        Ok(Ok(_)) => {}
        Ok(Err(error)) if error.is_denied() => tell(unknown_token(NOMAD_RIGHTS, &error)),
        Ok(Err(error)) => tell(untold(NOMAD_RIGHTS, &error.to_string())),
        Err(_) => tell(untold(
            NOMAD_RIGHTS,
            &format!("no answer within {patience:?}"),
        )),
    }
}

fn in_namespace(name: &str, read: Result<(), Error>) -> Step {
    let rule = rule(name);
    match read {
        Ok(()) => {
            let detail = format!("services of the namespace {name} can be read ({rule})");
            Step::ok(NOMAD_RIGHTS, detail)
        }
        Err(error) if error.is_denied() => Step::fail(
            NOMAD_RIGHTS,
            format!("the token lacks {rule}: no service of that namespace is seen"),
            format!("add to its policy: {rule}"),
        ),
        Err(error) => untold(NOMAD_RIGHTS, &error.to_string()),
    }
}

/// What gives a token of Nomad its right on a namespace.
fn rule(namespace: &str) -> String {
    format!("namespace \"{namespace}\" {{ capabilities = [\"read-job\"] }}")
}

fn unknown_token(step: &'static str, error: &Error) -> Step {
    let hint =
        "the token may be revoked, expired or of another cluster: put a new one into its place";
    Step::fail(step, error.to_string(), hint)
}

fn untold(step: &'static str, why: &str) -> Step {
    Step::unknown(step, format!("what the token may do cannot be told: {why}"))
}
