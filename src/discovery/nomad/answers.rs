//! The shapes of Nomad's answers, each entry read on its own, so that a broken one spoils no other.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::Deserializer;
use serde_json::value::RawValue;

use super::super::elements::{MOST, MOST_OF_ONE, each, parse};
use crate::api::http::null_is_default;
use crate::config::nomad::is_label;
use crate::name::quoted;

/// `GET /v1/services`: by namespace, each service with the tags of all its instances, sorted: Nomad's order means nothing.
#[derive(Debug, Default, PartialEq)]
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
    #[serde(default, deserialize_with = "names")]
    services: Listed,
}

/// Each service with its tags, or nothing where it does not say which it is.
type Listed = Vec<Option<(Arc<str>, Vec<Arc<str>>)>>;

fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Listed, D::Error> {
    each(deserializer, MOST, |raw| {
        let named = parse::<Named>(raw).ok();
        let named = named.filter(|named| is_label(&named.service_name));
        Some(named.map(|named| (named.service_name.into(), tags(raw))))
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Named {
    service_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tagged {
    #[serde(default, deserialize_with = "texts")]
    tags: Vec<String>,
}

fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    each(deserializer, MOST, |tag| parse(tag).ok())
}

impl<'de> Deserialize<'de> for Services {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let listed = each(deserializer, MOST, |raw| {
            Some(parse::<OfNamespace>(raw).ok())
        })?;
        let mut all = Self::default();
        for of in listed {
            let Some(of) = of.filter(|of| is_label(&of.namespace)) else {
                all.unreadable += 1;
                continue;
            };
            let names = all.namespaces.entry(of.namespace.into()).or_default();
            for service in of.services {
                match service {
                    Some((name, tags)) => drop(names.0.insert(name, tags)),
                    None => all.unreadable += 1,
                }
            }
        }
        Ok(all)
    }
}

/// Those that can be read. A service whose tags cannot is there all the same, and asks for nothing.
fn tags(raw: &RawValue) -> Vec<Arc<str>> {
    let tagged = parse::<Tagged>(raw).map(|tagged| tagged.tags);
    let tags = tagged.unwrap_or_default().into_iter();
    let mut tags: Vec<Arc<str>> = tags.map(Arc::from).collect();
    tags.sort_unstable();
    tags
}

/// `GET /v1/service/NAME`: the instances, and why nobody can say what an entry asks for.
#[derive(Debug, Default)]
pub(super) struct Registrations(pub(super) Vec<Result<Registration, String>>);

impl<'de> Deserialize<'de> for Registrations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        each(deserializer, MOST_OF_ONE, |raw| {
            Some(Registration::read(raw))
        })
        .map(Self)
    }
}

/// One instance.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Registration {
    /// Why there is no more of it than what its tags ask for: nothing of it is dialled.
    #[serde(skip)]
    pub(super) broken: Option<String>,
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

impl Registration {
    fn read(raw: &RawValue) -> Result<Self, String> {
        let entry = parse::<Self>(raw).or_else(|error| {
            let why = format!("its entry cannot be read: {}", quoted(&error.to_string()));
            parse::<Remains>(raw)
                .map_err(|_| why.clone())
                .map(|remains| Self {
                    broken: Some(why),
                    id: remains.id,
                    service_name: remains.service_name,
                    namespace: remains.namespace,
                    node_id: remains.node_id,
                    tags: remains.tags,
                    ..Self::default()
                })
        })?;
        match entry.id.is_empty() {
            false => Ok(entry),
            true => Err("it does not say which instance it is".to_owned()),
        }
    }
}

/// What of an entry must be readable for its tags to count.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Remains {
    #[serde(rename = "ID")]
    id: String,
    service_name: String,
    namespace: String,
    #[serde(default, rename = "NodeID", deserialize_with = "null_is_default")]
    node_id: String,
    #[serde(default, deserialize_with = "null_is_default")]
    tags: Vec<String>,
}
