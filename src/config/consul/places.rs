//! Which of Consul's catalogs are read: those of some datacenters, and in each of them of some namespaces.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::config::decode::{List, Typed};
use crate::config::diagnostic::{Findings, NOWHERE};
use crate::config::file::File;
use crate::config::value::{Wrong, read};
use crate::config::{Environment, Upstream};

/// As many catalogs are read at once.
///
/// 16: each takes two blocking queries and at times four reads more, and an agent allows 200 connections for each address
/// of its clients (`http_max_conns_per_client`).
const MOST_CATALOGS: usize = 16;

/// One of Consul's catalogs: each datacenter has one, and in it each namespace of each partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The datacenter; `None` is the agent's own.
    pub datacenter: Option<String>,
    /// The namespace (Consul Enterprise); `None` is the token's own.
    pub namespace: Option<String>,
    /// The partition (Consul Enterprise); `None` is the agent's own.
    pub partition: Option<String>,
    /// What tells it from others in names: `web@consul-LABEL`. `None` for that of the first datacenter, where namespaces are
    /// not listed: `web@consul`.
    pub label: Option<Arc<str>>,
    /// Whether there is one before it: the gateway is ready to serve without having heard of this one.
    pub is_further: bool,
}

impl Place {
    /// What a question says to be asked of this catalog: `dc`, `ns`, `partition`.
    pub fn parameters(&self) -> Vec<(&str, &str)> {
        let all = [
            ("dc", &self.datacenter),
            ("ns", &self.namespace),
            ("partition", &self.partition),
        ];
        let said = all.into_iter();
        said.filter_map(|(key, value)| Some((key, value.as_deref()?)))
            .collect()
    }
}

/// As it is written in messages.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (key, value) in self.parameters() {
            write!(f, "{separator}{key}={value}")?;
            separator = "&";
        }
        Ok(())
    }
}

/// What is typed of it. `None` is a key that is absent, or wrong and reported.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys<'a> {
    pub(super) datacenters: Option<&'a List<Typed<String>>>,
    pub(super) namespaces: Option<&'a List<Typed<String>>>,
    pub(super) partition: Option<&'a Typed<String>>,
}

impl Keys<'_> {
    /// The catalogs, the first one first; at least one.
    pub(super) fn places(
        &self,
        environment: &Environment,
        findings: &mut Findings<'_>,
    ) -> Vec<Place> {
        let datacenters = names(self.datacenters, "a datacenter", findings);
        let mut namespaces = names(self.namespaces, "a namespace", findings);
        // Of its own accord an agent means `default`, with or without Enterprise.
        let of = |name: &str, findings: &mut Findings<'_>| {
            let typed = environment.read(name, findings);
            let typed = typed.filter(|typed| typed.value != "default")?;
            read(&typed, findings, |text| part(text, "a namespace"))
        };
        let is_listed = !namespaces.is_empty();
        if self.namespaces.is_none() {
            namespaces.extend(of("CONSUL_NAMESPACE", findings));
        }
        let partition = match self.partition {
            Some(typed) => read(typed, findings, |text| part(text, "a partition")),
            None => of("CONSUL_PARTITION", findings),
        };
        let all = |names: Vec<String>| -> Vec<Option<String>> {
            match names.is_empty() {
                true => vec![None],
                false => names.into_iter().map(Some).collect(),
            }
        };
        let (datacenters, namespaces) = (all(datacenters), all(namespaces));
        let mut places = Vec::new();
        for (n, datacenter) in datacenters.iter().enumerate() {
            for namespace in &namespaces {
                // Neither can hold a dot, and either all have a namespace there or none: no two are alike.
                let parts = [
                    datacenter.as_deref().filter(|_| n > 0),
                    namespace.as_deref().filter(|_| is_listed),
                ];
                let label: Vec<&str> = parts.into_iter().flatten().collect();
                places.push(Place {
                    is_further: !places.is_empty(),
                    datacenter: datacenter.clone(),
                    namespace: namespace.clone(),
                    partition: partition.clone(),
                    label: (!label.is_empty()).then(|| label.join(".").into()),
                });
            }
        }
        if places.len() > MOST_CATALOGS {
            let list = self.namespaces.or(self.datacenters);
            findings.error(
                list.map_or(NOWHERE, |list| list.span.clone()),
                format!(
                    "`datacenters` and `namespaces` make {} catalogs to be read: at most {MOST_CATALOGS}",
                    places.len()
                ),
                "leave some out, or run a gateway in each datacenter",
            );
            places.truncate(1);
        }
        places
    }
}

/// Says of each upstream that stands for a service in which of these catalogs that is.
pub(in crate::config) fn locate(
    upstreams: &mut BTreeMap<String, Upstream>,
    file: &File,
    places: &[Place],
    findings: &mut Findings<'_>,
) {
    for (name, typed) in &file.upstreams {
        let upstream = upstreams.get_mut(&name.value);
        if let Some(service) = upstream.and_then(|upstream| upstream.service.as_mut()) {
            let keys = [typed.datacenter.as_ref(), typed.namespace.as_ref()];
            let place = find(places, keys, findings);
            service.place = place.and_then(|place| place.label.clone());
        }
    }
}

/// The catalog of this datacenter and this namespace; what is not said is that of the first.
fn find<'p>(
    places: &'p [Place],
    [datacenter, namespace]: [Option<&Typed<String>>; 2],
    findings: &mut Findings<'_>,
) -> Option<&'p Place> {
    let is = |typed: Option<&Typed<String>>, own: &Option<String>, first: Option<&String>| {
        typed.map(|typed| &typed.value).or(first) == own.as_ref()
    };
    let first = places.first()?;
    let found = places.iter().find(|place| {
        is(datacenter, &place.datacenter, first.datacenter.as_ref())
            && is(namespace, &place.namespace, first.namespace.as_ref())
    });
    if found.is_none() {
        for (typed, list) in [(datacenter, "datacenters"), (namespace, "namespaces")] {
            let Some(typed) = typed else { continue };
            let mut known = places.iter().filter_map(|place| match list {
                "datacenters" => place.datacenter.as_ref(),
                _ => place.namespace.as_ref(),
            });
            if !known.any(|known| *known == typed.value) {
                findings.error(
                    typed.span.clone(),
                    format!(
                        "`{}`: {:?} is none of the `{list}` in [consul]",
                        typed.key, typed.value
                    ),
                    format!("add it to `{list}` in [consul]: only what is listed there is read"),
                );
            }
        }
    }
    found
}

/// The names in a list, each once.
fn names(
    list: Option<&List<Typed<String>>>,
    what: &str,
    findings: &mut Findings<'_>,
) -> Vec<String> {
    let Some(list) = list else {
        return Vec::new();
    };
    if list.is_empty {
        findings.missing(
            list.span.clone(),
            format!("`{}` is an empty list: nothing would be read", list.key),
            "leave it out for the agent's own, or write a name",
        );
    }
    let mut names: Vec<String> = Vec::new();
    for typed in &list.value {
        let name = read(typed, findings, |text| match names.contains(text) {
            true => Err(Wrong::new(
                format!("{text:?} is listed twice"),
                "remove one of the two",
            )),
            false => part(text, what),
        });
        names.extend(name);
    }
    names
}

/// What Consul allows in such names: letters, digits, `-` and `_`; datacenters are in lower case.
fn part(text: &str, what: &str) -> Result<String, Wrong> {
    let allowed = |b: u8| match what {
        "a datacenter" => b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b),
        _ => b.is_ascii_alphanumeric() || b == b'-',
    };
    match (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
        true => Ok(text.to_owned()),
        false => Err(Wrong::new(
            format!("{text:?} is not the name of {what}"),
            match what {
                "a datacenter" => {
                    "write it as `consul catalog datacenters` lists it, such as \"dc2\""
                }
                _ => "write 1 to 64 letters, digits and `-`",
            },
        )),
    }
}
