//! What a gateway asks and dials: the agents of its sources, and every endpoint, each once.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::{CONSUL, NOMAD, rights};
use crate::api::http::{Api, Client, ClientError, Error, Query, Server};
use crate::config::Config;
use crate::log::printable;
use crate::net::dial::Dial;
use crate::snapshot::Snapshot;
use crate::snapshot::upstream::Upstream;
use crate::status::step::{Finding, Step};

/// So many endpoints are dialled, and no more.
///
/// 200: a gateway's own; of a catalog of thousands a sample tells as much, and every dial is a stranger's log line.
const MOST: usize = 200;

/// So many at once.
const AT_ONCE: usize = 32;

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

/// One dial.
struct Tried {
    upstream: usize,
    address: SocketAddr,
    result: Result<(), String>,
    took: Duration,
}

/// Dials every endpoint once, with the TLS that a connection would have, and hangs up.
pub(super) async fn dial(snapshot: &Snapshot, patience: Duration, tell: &mut dyn FnMut(Step)) {
    let upstreams: Vec<&Arc<Upstream>> = snapshot.upstreams().collect();
    let mut waiting = Vec::new();
    for (index, upstream) in upstreams.iter().enumerate() {
        let endpoints = upstream.endpoints().iter();
        let endpoints = endpoints.filter(|endpoint| endpoint.weight > 0);
        waiting.extend(endpoints.map(|endpoint| (index, endpoint.address)));
    }
    let left_out = waiting.len().saturating_sub(MOST);
    waiting.truncate(MOST);
    let mut waiting = waiting.into_iter();
    let (mut dials, mut tried) = (JoinSet::new(), Vec::new());
    loop {
        while dials.len() < AT_ONCE
            && let Some((index, address)) = waiting.next()
        {
            let Some(upstream) = upstreams.get(index) else {
                continue;
            };
            let upstream = Arc::clone(upstream);
            dials.spawn(async move { one(index, &upstream, address, patience).await });
        }
        match dials.join_next().await {
            Some(Ok(done)) => tried.push(done),
            Some(Err(_)) => {}
            None => break,
        }
    }
    tried.sort_by_key(|one| (one.upstream, one.address));
    for (index, upstream) in upstreams.iter().enumerate() {
        let of_it: Vec<_> = tried.iter().filter(|one| one.upstream == index).collect();
        told(upstream, &of_it, tell);
    }
    if left_out > 0 {
        let detail = format!("{left_out} more endpoints were not dialled");
        tell(Step::unknown("upstream", detail));
    }
}

async fn one(upstream: usize, to: &Upstream, address: SocketAddr, patience: Duration) -> Tried {
    let began = Instant::now();
    // Where a PROXY header goes first, a handshake without one tells nothing.
    let bare = to.send_proxy.is_some_and(|header| !header.inside_tls);
    let result = match to.transport.tls() {
        Err(why) => Err(why.to_string()),
        Ok(tls) => {
            let dial = Dial {
                tls: tls.filter(|_| !bare),
                timeout: patience,
                keepalive: to.timing.keepalive.unwrap_or_default(),
                sends_first: false,
                proxy_header: None,
            };
            let dialled = dial.connect(address).await;
            dialled.map(drop).map_err(|error| error.to_string())
        }
    };
    Tried {
        upstream,
        address,
        result,
        took: began.elapsed(),
    }
}

fn told(upstream: &Upstream, tried: &[&Tried], tell: &mut dyn FnMut(Step)) {
    let (step, name) = ("upstream", &upstream.name);
    if tried.is_empty() && upstream.members.is_empty() {
        let why = upstream.empty.as_deref().unwrap_or("no endpoint is known");
        tell(Step::fail(
            step,
            format!("{name} has nothing to dial: {why}"),
            "look at its service and that one's checks, or at its name in DNS",
        ));
    }
    let works = tried.iter().any(|one| one.result.is_ok());
    for one in tried {
        // One that stands in its route has no other name.
        let whose = match one.address.to_string() {
            address if *address == **name => address,
            address => format!("{name}: {address}"),
        };
        let how = match upstream.transport.tls() {
            Ok(Some(_)) => "answers, and proves who it is (TLS)",
            _ => "answers",
        };
        let told = match &one.result {
            Ok(()) => Step::ok(step, format!("{whose} {how}")),
            Err(why) => {
                let detail = format!("{whose}: {}", printable(why, SHOWN));
                match works {
                    true => Step::warn(step, detail, "its other endpoints are used meanwhile"),
                    false => Step::fail(step, detail, "is it up, and may this machine reach it?"),
                }
            }
        };
        tell(told.took(one.took));
    }
}
