//! What a gateway asks: the agents of its sources.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::{Instant, timeout};

use super::{CONSUL, NOMAD, rights};
use crate::api::http::{Api, Client, ClientError, Error, Query, Server};
use crate::config::Config;
use crate::log::printable;
use crate::status::step::{Finding, Step};

/// How much is told of what an agent says, in bytes.
const SHOWN: usize = 300;

/// Asks each agent that the configuration names for its leader; the steps of those that do not answer.
pub(super) async fn ask(
    config: &Config,
    patience: Duration,
    tell: &mut dyn FnMut(Step),
) -> BTreeSet<&'static str> {
    let mut failed = BTreeSet::new();
    if let Some(consul) = &config.consul {
        let (server, address) = (Server::from(consul), &consul.address);
        match agent(CONSUL, server, address, patience, tell).await {
            Some(client) => {
                rights::of_consul(&client, consul, patience, tell).await;
                client.log_out().await;
            }
            None => drop(failed.insert(CONSUL)),
        }
    }
    if let Some(nomad) = &config.nomad {
        let (server, address) = (Server::from(nomad), &nomad.agent.address);
        match agent(NOMAD, server, address, patience, tell).await {
            Some(client) => rights::of_nomad(&client, nomad, patience, tell).await,
            None => drop(failed.insert(NOMAD)),
        }
    }
    failed
}

/// Tells how an agent answers; what asks it, if it does.
async fn agent(
    name: &'static str,
    server: Server<'_>,
    address: impl Display,
    patience: Duration,
    tell: &mut dyn FnMut(Step),
) -> Option<Client> {
    let client: Result<Client, ClientError> = Client::new(server);
    let client = match client {
        Ok(client) => client,
        Err(error) => {
            let hint = "look at the files and the token that its section names";
            tell(Step::fail(name, error.to_string(), hint));
            return None;
        }
    };
    let began = Instant::now();
    let query = Query {
        path: &["status", "leader"],
        parameters: &[],
        consistent: false,
    };
    let asked = timeout(patience, client.read::<String>(&query)).await;
    let took = began.elapsed();
    let step = match asked {
        Err(_) => Step::fail(
            name,
            format!("the agent at {address} did not answer within {patience:?}"),
            "a firewall may be in the way, or the agent hangs",
        ),
        Ok(Err(error)) => Step::fail(name, error.to_string(), remedy(&error)),
        Ok(Ok(answer)) if answer.value.is_empty() => Step::fail(
            name,
            format!("the agent at {address} knows of no leader"),
            "its servers have no quorum: nothing can be read until they have",
        ),
        Ok(Ok(answer)) => {
            let leader = printable(&answer.value, SHOWN);
            let version = version(&client, patience).await;
            let detail =
                format!("the agent at {address} answers ({version}); the leader is {leader}");
            Step::ok(name, detail)
        }
    };
    let answers = step.state != Finding::Fail;
    tell(step.took(took));
    if !answers {
        client.log_out().await;
    }
    answers.then_some(client)
}

/// What `/v1/agent/version` of Consul tells anybody.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    human_version: String,
}

/// Of what `/v1/agent/self` of Nomad tells who may read agents.
#[derive(Deserialize)]
struct Itself {
    config: Configured,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Configured {
    version: Numbered,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Numbered {
    version: String,
}

/// Which version an agent has, or that it does not say so.
async fn version(client: &Client, patience: Duration) -> String {
    let query = |path| Query {
        path,
        parameters: &[],
        consistent: false,
    };
    let asked = timeout(patience, async {
        match client.api() {
            Api::Consul => {
                let query = query(&["agent", "version"]);
                let told = client.read::<Version>(&query).await?;
                Ok(format!("Consul {}", told.value.human_version))
            }
            Api::Nomad => {
                let told = client.read::<Itself>(&query(&["agent", "self"])).await?;
                Ok(format!("Nomad {}", told.value.config.version.version))
            }
        }
    });
    match asked.await {
        Ok(Ok(version)) => printable(&version, SHOWN),
        Ok(Err(error)) if Error::is_denied(&error) => {
            "its version is told to tokens with `agent:read` only".to_owned()
        }
        Ok(Err(_)) | Err(_) => "its version is not told".to_owned(),
    }
}

fn remedy(error: &Error) -> &'static str {
    match error {
        Error::Unreachable { .. } => "is the agent running, and is that its address?",
        Error::Login { .. } => {
            "look at the auth method, and at the file that holds the bearer token"
        }
        Error::Status {
            code: 401 | 403, ..
        } => "the agent does not accept the token, or it lacks rights: the README lists them",
        _ => "is that an agent's HTTP API? the agent's own log says more",
    }
}
