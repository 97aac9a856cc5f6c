//! The shapes of Nomad's answers, each entry read on its own, so that a broken one spoils no other.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::api::http::null_is_default;
use crate::config::nomad::is_label;
use crate::name::quoted;

/// `GET /v1/services`: by namespace, each service with the tags of all its instances, sorted: Nomad's order means nothing.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(from = "Option<Vec<Box<RawValue>>>")]
pub(super) struct Services {
    pub(super) namespaces: BTreeMap<Arc<str>, Names>,
    /// How many entries do not say what they are of.
    pub(super) unreadable: usize,
}

/// The services of one namespace, each with its tags.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Names(pub(super) BTreeMap<Arc<str>, Vec<Arc<str>>>);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OfNamespace {
    namespace: String,
    #[serde(default, deserialize_with = "null_is_default")]
    services: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Named {
    service_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tagged {
    #[serde(default, deserialize_with = "null_is_default")]
    tags: Vec<Box<RawValue>>,
}

impl From<Option<Vec<Box<RawValue>>>> for Services {
    fn from(listed: Option<Vec<Box<RawValue>>>) -> Self {
        let mut all = Self::default();
        for raw in listed.into_iter().flatten() {
            let parsed = parse::<OfNamespace>(&raw);
            let Some(of) = parsed.ok().filter(|of| is_label(&of.namespace)) else {
                all.unreadable += 1;
                continue;
            };
            let services = all.namespaces.entry(of.namespace.into()).or_default();
            for raw in &of.services {
                let named = parse::<Named>(raw);
                match named.ok().filter(|named| is_label(&named.service_name)) {
                    Some(named) => services.0.insert(named.service_name.into(), tags(raw)),
                    None => {
                        all.unreadable += 1;
                        continue;
                    }
                };
            }
        }
        all
    }
}

/// Those that can be read. A service whose tags cannot is there all the same, and asks for nothing.
fn tags(raw: &RawValue) -> Vec<Arc<str>> {
    let tagged = parse::<Tagged>(raw).map(|tagged| tagged.tags);
    let tags = tagged.unwrap_or_default();
    let tags = tags.iter().filter_map(|tag| parse::<String>(tag).ok());
    let mut tags: Vec<Arc<str>> = tags.map(Arc::from).collect();
    tags.sort_unstable();
    tags
}

/// `GET /v1/service/NAME`: the instances.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "Option<Vec<Box<RawValue>>>")]
pub(super) struct Registrations(pub(super) Vec<Result<Registration, String>>);

impl From<Option<Vec<Box<RawValue>>>> for Registrations {
    fn from(entries: Option<Vec<Box<RawValue>>>) -> Self {
        let entries = entries.into_iter().flatten().map(|raw| {
            let entry: Registration = parse(&raw).map_err(|error| {
                format!("its entry cannot be read: {}", quoted(&error.to_string()))
            })?;
            match entry.id.is_empty() {
                false => Ok(entry),
                true => Err("it does not say which instance it is".to_owned()),
            }
        });
        Self(entries.collect())
    }
}

/// One instance.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Registration {
    #[serde(rename = "ID", deserialize_with = "null_is_default")]
    pub(super) id: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) service_name: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) namespace: String,
    #[serde(rename = "NodeID", deserialize_with = "null_is_default")]
    pub(super) node_id: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) tags: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) address: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) port: i64,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) modify_index: u64,
}

fn parse<T: DeserializeOwned>(raw: &RawValue) -> serde_json::Result<T> {
    serde_json::from_str(raw.get())
}
