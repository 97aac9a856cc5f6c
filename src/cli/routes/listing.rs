//! What `/v1/routes` says, as this command reads it, and how each route fares.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The source of every tunnel.
const FILE: &str = "file";

/// The answer. A gateway of another version may say more, or less.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Listing {
    pub(super) generation: u64,
    pub(super) routes: Vec<Route>,
    #[serde(deserialize_with = "tunnels")]
    pub(super) tunnels: Vec<Route>,
    pub(super) skipped: Vec<Skipped>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Route {
    pub(super) name: String,
    pub(super) source: String,
    pub(super) rule: String,
    pub(super) action: String,
    pub(super) tls_options: Option<String>,
    pub(super) broken_reason: Option<String>,
    pub(super) upstream: Upstream,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) members: Vec<Member>,
    pub(super) middlewares: Vec<Middleware>,
    pub(super) shadowed_by: Option<Named>,
    pub(super) warnings: Vec<String>,
    pub(super) from_disk: Option<String>,
}

/// What a tunnel has that a route has not.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Tunnel {
    listen: Vec<String>,
    #[serde(flatten)]
    rest: Route,
}

/// A tunnel fares as a route does; in place of a rule it has the addresses where it listens.
fn tunnels<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<Route>, D::Error> {
    let tunnels = Vec::<Tunnel>::deserialize(input)?.into_iter();
    let routes = tunnels.map(|Tunnel { listen, rest }| Route {
        source: FILE.to_owned(),
        rule: format!("listens on {}", listen.join(", ")),
        action: if rest.broken_reason.is_some() {
            "broken"
        } else {
            "tunnel"
        }
        .to_owned(),
        ..rest
    });
    Ok(routes.collect())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Upstream {
    pub(super) name: String,
    pub(super) tls: bool,
    pub(super) server_name: Option<String>,
    pub(super) spiffe: Option<String>,
    pub(super) mesh: bool,
    pub(super) proxy_protocol: Option<String>,
    pub(super) empty: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Member {
    pub(super) weight: u32,
    pub(super) upstream: Upstream,
    pub(super) endpoints: Vec<Endpoint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Endpoint {
    pub(super) address: String,
    pub(super) weight: u32,
    pub(super) out_for_seconds: Option<u64>,
    pub(super) check: Option<String>,
    pub(super) check_error: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Middleware {
    pub(super) name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Named {
    pub(super) name: String,
}

/// What a service asked for in vain, or what is to be known of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Skipped {
    pub(super) source: String,
    pub(super) catalog: Option<String>,
    pub(super) service: String,
    pub(super) instance: Option<String>,
    pub(super) router: Option<String>,
    pub(super) reason: String,
    pub(super) note: bool,
}

/// How a route fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Serves,
    /// Every endpoint is passed over, or its check fails: all are tried.
    Failing,
    /// It has nothing to dial.
    Empty,
    /// Another route takes every client that it could have.
    Shadowed,
    /// What it needs is missing or broken.
    Refuses,
}

impl Listing {
    /// What stands in the answer; of one source alone, if one is named.
    pub(super) fn read(json: &[u8], source: Option<&str>) -> Result<Self, serde_json::Error> {
        let mut listing: Self = serde_json::from_slice(json)?;
        if let Some(source) = source {
            listing.routes.retain(|route| route.source == source);
            listing.tunnels.retain(|tunnel| tunnel.source == source);
            listing.skipped.retain(|skipped| skipped.source == source);
        }
        Ok(listing)
    }

    /// Whether every route and every tunnel serves, and nothing was asked for in vain.
    pub(super) fn is_all_usable(&self) -> bool {
        let mut routes = self.routes.iter().chain(&self.tunnels);
        routes.all(|route| route.standing() == Standing::Serves)
            && self.skipped.iter().all(|skipped| skipped.note)
    }
}

/// The answer with what one source has told of, and nothing else.
pub(super) fn only(json: &[u8], source: &str) -> Result<Vec<u8>, serde_json::Error> {
    let mut answer: Value = serde_json::from_slice(json)?;
    for list in ["routes", "skipped"] {
        if let Some(Value::Array(entries)) = answer.get_mut(list) {
            let is_of = |entry: &Value| entry.get("source").and_then(Value::as_str) == Some(source);
            entries.retain(is_of);
        }
    }
    if let Some(tunnels) = answer.get_mut("tunnels").filter(|_| source != FILE) {
        *tunnels = Value::Array(Vec::new());
    }
    let mut json = serde_json::to_vec_pretty(&answer)?;
    json.push(b'\n');
    Ok(json)
}

impl Route {
    pub(super) fn standing(&self) -> Standing {
        if self.action == "broken" {
            return Standing::Refuses;
        }
        if self.shadowed_by.is_some() {
            return Standing::Shadowed;
        }
        match (self.all_endpoints(), self.usable()) {
            (0, _) => Standing::Empty,
            (_, 0) => Standing::Failing,
            _ => Standing::Serves,
        }
    }

    /// How many endpoints can be dialled at all.
    pub(super) fn all_endpoints(&self) -> usize {
        self.weighed().count()
    }

    /// How many of them nothing is known against.
    pub(super) fn usable(&self) -> usize {
        self.weighed().filter(|endpoint| endpoint.is_well()).count()
    }

    pub(super) fn weighed(&self) -> impl Iterator<Item = &Endpoint> {
        let members = self.members.iter().filter(|member| member.weight > 0);
        let others = members.flat_map(|member| &member.endpoints);
        let own = self.endpoints.iter().chain(others);
        own.filter(|endpoint| endpoint.weight > 0)
    }
}

impl Endpoint {
    pub(super) fn is_well(&self) -> bool {
        self.out_for_seconds.is_none() && self.check.as_deref() != Some("failing")
    }
}

impl Standing {
    /// The word in the table.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Serves => "serves",
            Self::Failing => "failing",
            Self::Empty => "empty",
            Self::Shadowed => "shadowed",
            Self::Refuses => "refuses",
        }
    }
}
