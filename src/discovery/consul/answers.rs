//! The shapes of Consul's answers, each entry read on its own, so that a broken one spoils no other.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::elements::{MOST, MOST_OF_ONE, each, parse, too_many};
use super::super::instance::Health;
use crate::api::consul::null_is_default;
use crate::name::quoted;

/// `GET /v1/catalog/services`: each service with the tags of all its instances, sorted: Consul's order means nothing.
#[derive(Debug)]
pub(super) struct Services(pub(super) BTreeMap<Arc<str>, Vec<Arc<str>>>);

impl<'de> Deserialize<'de> for Services {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Services;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_unit<E>(self) -> Result<Services, E> {
                Ok(Services(BTreeMap::new()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut names: A) -> Result<Services, A::Error> {
                let mut listed = BTreeMap::new();
                while let Some((name, raw)) = names.next_entry::<String, Box<RawValue>>()? {
                    listed.insert(name.into(), tags(&raw));
                    if listed.len() > MOST {
                        return Err(A::Error::custom(too_many(MOST)));
                    }
                }
                Ok(Services(listed))
            }
        }
        deserializer.deserialize_any(Names)
    }
}

/// A name whose tags cannot be read is there all the same, and asks for nothing.
fn tags(raw: &RawValue) -> Vec<Arc<str>> {
    let tags = each(raw, MOST, |tag| parse::<String>(tag).ok()).unwrap_or_default();
    let mut tags: Vec<Arc<str>> = tags.into_iter().map(Arc::from).collect();
    tags.sort_unstable();
    tags
}

/// `GET /v1/health/state/any`: every check there is that can be read.
#[derive(Debug)]
pub(super) struct Checks(pub(super) Vec<Check>);

impl<'de> Deserialize<'de> for Checks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        each(deserializer, MOST, |check| parse(check).ok()).map(Self)
    }
}

/// One check, of a node or of an instance.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Check {
    #[serde(deserialize_with = "null_is_default")]
    pub(super) node: String,
    #[serde(rename = "CheckID", deserialize_with = "null_is_default")]
    pub(super) check_id: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) status: String,
    /// Empty for a check of the node.
    #[serde(deserialize_with = "null_is_default")]
    pub(super) service_name: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) modify_index: u64,
}

impl Check {
    /// What it says of its instance. A status that nobody knows is none to rely on.
    pub(super) fn health(&self) -> Health {
        let id = self.check_id.as_str();
        if id == "_node_maintenance" || id.starts_with("_service_maintenance:") {
            return Health::Maintenance;
        }
        match self.status.as_str() {
            "passing" => Health::Passing,
            "warning" => Health::Warning,
            _ => Health::Critical,
        }
    }
}

/// `GET /v1/health/service/NAME` and `GET /v1/health/connect/NAME`: instances with their nodes and checks.
#[derive(Debug)]
pub(super) struct Entries(pub(super) Vec<Result<Entry, Unreadable>>);

/// An entry of which nobody can say what it asks for.
#[derive(Debug)]
pub(super) struct Unreadable {
    /// `NODE/ID`, if that can be read.
    pub(super) id: Option<Arc<str>>,
    pub(super) why: String,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        each(deserializer, MOST_OF_ONE, |raw| Some(Entry::read(raw))).map(Self)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Entry {
    /// Why there is no more of it than what its tags ask for: nothing of it is dialled.
    #[serde(skip)]
    pub(super) broken: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) node: Node,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) service: Service,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) checks: Vec<Check>,
}

/// `GET /v1/catalog/nodes`: every node that can be read.
#[derive(Debug)]
pub(super) struct Nodes(pub(super) Vec<Node>);

impl<'de> Deserialize<'de> for Nodes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        each(deserializer, MOST, |node| parse(node).ok()).map(Self)
    }
}

/// `GET /v1/catalog/node-services/NODE`: a node, and every instance on it that can be read.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct NodeServices {
    #[serde(deserialize_with = "null_is_default")]
    pub(super) node: Node,
    #[serde(deserialize_with = "each_service")]
    pub(super) services: Vec<Registration>,
}

/// What is registered under an id, as far as it tells one state of it from another.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Registration {
    #[serde(deserialize_with = "null_is_default")]
    pub(super) kind: String,
    #[serde(rename = "ID", deserialize_with = "null_is_default")]
    pub(super) id: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) service: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) proxy: Proxy,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) modify_index: u64,
}

fn each_service<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Registration>, D::Error> {
    each(deserializer, MOST, |service| parse(service).ok())
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Node {
    #[serde(deserialize_with = "null_is_default")]
    pub(super) node: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) modify_index: u64,
    #[serde(alias = "address", deserialize_with = "null_is_default")]
    pub(super) address: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) datacenter: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) tagged_addresses: BTreeMap<String, Option<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Service {
    #[serde(deserialize_with = "null_is_default")]
    pub(super) kind: String,
    #[serde(rename = "ID", deserialize_with = "null_is_default")]
    pub(super) id: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) service: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) partition: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) namespace: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) tags: Vec<String>,
    #[serde(alias = "address", deserialize_with = "null_is_default")]
    pub(super) address: String,
    #[serde(alias = "port", deserialize_with = "null_is_default")]
    pub(super) port: i64,
    /// Where it has several (Consul Enterprise): then it has no `port` of its own.
    #[serde(deserialize_with = "null_is_default")]
    pub(super) ports: Vec<NamedPort>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) tagged_addresses: BTreeMap<String, Option<TaggedAddress>>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) socket_path: String,
    /// The cluster that it is imported from, if it is from another one.
    #[serde(deserialize_with = "null_is_default")]
    pub(super) peer_name: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) weights: Weights,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) proxy: Proxy,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) connect: Connect,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) modify_index: u64,
}

/// One of the ports of an instance that has several ("Multiport services" in Consul's documentation).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct NamedPort {
    #[serde(alias = "name", deserialize_with = "null_is_default")]
    pub(super) name: String,
    #[serde(alias = "port", deserialize_with = "null_is_default")]
    pub(super) port: i64,
    #[serde(alias = "default", deserialize_with = "null_is_default")]
    pub(super) default: bool,
}

/// An address of an instance for others than its own network. Consul answers in one case, and documents the other.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct TaggedAddress {
    #[serde(alias = "address", deserialize_with = "null_is_default")]
    pub(super) address: String,
    #[serde(alias = "port", deserialize_with = "null_is_default")]
    pub(super) port: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Weights {
    pub(super) passing: i64,
    pub(super) warning: i64,
}

/// As Consul has it where nothing was registered.
impl Default for Weights {
    fn default() -> Self {
        Self {
            passing: 1,
            warning: 1,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Proxy {
    #[serde(deserialize_with = "null_is_default")]
    pub(super) destination_service_name: String,
    #[serde(rename = "DestinationServiceID", deserialize_with = "null_is_default")]
    pub(super) destination_service_id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Connect {
    pub(super) native: bool,
}

impl Service {
    /// Where it is reached that does not say another port: at the one that counts where several have names.
    pub(super) fn default_port(&self) -> i64 {
        let chosen = self.ports.iter().find(|port| port.default);
        let named = chosen.or(self.ports.first());
        match named.filter(|_| self.port == 0) {
            Some(named) => named.port,
            None => self.port,
        }
    }
}

impl Entry {
    fn read(raw: &RawValue) -> Result<Self, Unreadable> {
        let entry = parse::<Self>(raw).or_else(|error| {
            let why = format!("its entry cannot be read: {}", quoted(&error.to_string()));
            let value = parse(raw).unwrap_or_default();
            Self::remains(&value, &why).ok_or_else(|| Unreadable {
                id: id_in(&value),
                why,
            })
        })?;
        match entry.node.node.is_empty() || entry.service.id.is_empty() {
            false => Ok(entry),
            true => Err(Unreadable {
                id: None,
                why: "it does not say which instance of which node it is".to_owned(),
            }),
        }
    }

    /// What it is and what its tags ask for, where no more can be read of it than that.
    fn remains(entry: &Value, why: &str) -> Option<Self> {
        let text = |value: Option<&Value>| match value {
            None | Some(Value::Null) => Some(String::new()),
            Some(Value::String(text)) => Some(text.clone()),
            Some(_) => None,
        };
        let at = |path| text(entry.pointer(path));
        let tags = match entry.get("Service")?.get("Tags") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(tags)) => tags
                .iter()
                .map(|tag| text(Some(tag)))
                .collect::<Option<_>>()?,
            Some(_) => return None,
        };
        Some(Self {
            broken: Some(why.to_owned()),
            node: Node {
                node: at("/Node/Node")?,
                ..Node::default()
            },
            service: Service {
                kind: at("/Service/Kind")?,
                id: at("/Service/ID")?,
                service: at("/Service/Service")?,
                tags,
                proxy: Proxy {
                    destination_service_name: at("/Service/Proxy/DestinationServiceName")?,
                    destination_service_id: at("/Service/Proxy/DestinationServiceID")?,
                },
                ..Service::default()
            },
            checks: Vec::new(),
        })
    }

    /// `NODE/ID`.
    pub(super) fn id(&self) -> Arc<str> {
        format!("{}/{}", self.node.node, self.service.id).into()
    }
}

/// The id of an entry that cannot be read otherwise.
fn id_in(entry: &Value) -> Option<Arc<str>> {
    let node = entry.pointer("/Node/Node")?.as_str()?;
    let id = entry.pointer("/Service/ID")?.as_str()?;
    Some(format!("{node}/{id}").into())
}
