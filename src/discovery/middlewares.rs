//! The middlewares that tags define and routers name: whose definition counts, and what it means.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::instance::Instance;
use super::names;
use super::reading::Reading;
use super::shortened;
use super::tags;
use crate::config::Middleware;
use crate::name::quoted;
use crate::rule;
use crate::snapshot::service::{ServiceKey, Skipped, provider};

/// As many middlewares count of one service, and as many networks of one of its lists, by their names and as written.
///
/// 1,000, as of its routers: more than anybody writes, and each connection is looked for among the networks.
const MOST: usize = 1000;

/// As many middlewares a router may name: each is looked up for each connection.
const MOST_NAMED: usize = 100;

/// What a service defines, by the names that routes have for it; or what is wrong with it.
///
/// As of routers, the newest instance's definition counts of those that can be read. Where an older one differs, it is
/// listed: while a job is rolled out that is so for a moment, and must not take its routes down.
pub(super) fn definitions(
    reading: &Reading<'_>,
    skipped: &mut Vec<Skipped>,
) -> BTreeMap<Arc<str>, Result<Middleware, Arc<str>>> {
    let mut defined: BTreeMap<&str, Vec<(&Instance, &tags::Middleware)>> = BTreeMap::new();
    for (instance, tags) in reading.readable() {
        for (name, middleware) in &tags.middlewares {
            let all = defined.entry(name).or_default();
            all.push((instance, middleware));
        }
    }
    let mut definitions = BTreeMap::new();
    for (name, all) in defined.into_iter().take(MOST) {
        let newest = all.iter().max_by_key(|(instance, _)| instance.rank());
        let Some((newest, counts)) = newest else {
            continue;
        };
        for (instance, _) in all.iter().filter(|(_, other)| other != counts) {
            skipped.push(Skipped {
                instance: Some(Arc::clone(&instance.id)),
                router: None,
                reason: shortened(&format!(
                    "its middleware {} differs from the newer definition of {}, which counts",
                    quoted(name),
                    newest.id
                )),
            });
        }
        let key = &reading.found.key;
        let meaning = meaning(counts).map_err(|why| shortened(&why));
        definitions.insert(shared(key, key.place.as_deref(), name), meaning);
    }
    definitions
}

/// The middlewares that a router names, as the snapshot knows them, and what is wrong with that, if it can be told by its
/// own service. The others' and the file's come and go: those are looked for when there is a client.
pub(super) fn named(
    key: &ServiceKey,
    names: &[String],
    own: &BTreeMap<Arc<str>, Result<Middleware, Arc<str>>>,
) -> (Vec<Arc<str>>, Option<String>) {
    let mut found = Vec::new();
    let mut wrong = None;
    if names.len() > MOST_NAMED {
        wrong = Some(format!(
            "it names {} middlewares: at most {MOST_NAMED}",
            names.len()
        ));
    }
    for name in names.iter().take(MOST_NAMED) {
        let middleware = match name.rsplit_once('@') {
            Some((name, "file")) => Ok(Arc::from(name)),
            // What Traefik calls its provider, and what we do.
            Some((own, provider)) => match names::place(key, provider) {
                Some(place) => Ok(shared(key, place, &own.to_ascii_lowercase())),
                None => Err(format!(
                    "its middleware {} is of the provider {}: only `@file` and `@{}` are known here",
                    quoted(name),
                    quoted(provider),
                    key.source.as_str()
                )),
            },
            None => Ok(shared(
                key,
                key.place.as_deref(),
                &name.to_ascii_lowercase(),
            )),
        };
        match middleware {
            Ok(name) if name.len() > names::LONGEST => drop(wrong.get_or_insert(format!(
                "the name of its middleware {} has {} bytes: at most {}",
                quoted(&name),
                name.len(),
                names::LONGEST
            ))),
            Ok(name) => {
                if let Some(Err(why)) = own.get(&name) {
                    wrong.get_or_insert(format!("its middleware {}: {why}", quoted(&name)));
                }
                if !found.contains(&name) {
                    found.push(name);
                }
            }
            Err(why) => drop(wrong.get_or_insert(why)),
        }
    }
    (found, wrong)
}

/// The name under which routes of all services find what one of a catalog defines. In lower case, but for what follows `@`.
fn shared(key: &ServiceKey, place: Option<&str>, name: &str) -> Arc<str> {
    format!("{name}@{}", provider(key.source, place)).into()
}

fn meaning(tags: &tags::Middleware) -> Result<Middleware, String> {
    let tags::Middleware {
        ip_allow_list,
        ip_white_list,
        in_flight_conn,
    } = tags;
    match (ip_allow_list, ip_white_list, in_flight_conn) {
        (Some(list), None, None) | (None, Some(list), None) => {
            Ok(Middleware::IpAllowList(networks(list)?.into()))
        }
        (None, None, Some(amount)) => {
            let amount = amount.ok_or("it has no `inflightconn.amount`")?;
            let amount = usize::try_from(amount);
            amount
                .map(Middleware::InFlightConn)
                .map_err(|_| "its `inflightconn.amount` is less than 0".to_owned())
        }
        (None, None, None) => Err(
            "it has neither an `ipallowlist.sourcerange` nor an `inflightconn.amount`".to_owned(),
        ),
        _ => Err("it is of several kinds: give each a name of its own, and name all".to_owned()),
    }
}

fn networks(list: &[String]) -> Result<Vec<IpNet>, String> {
    match list.len() {
        0 => Err("its `sourcerange` is empty: it would let nobody in".to_owned()),
        1..=MOST => {
            let networks = list.iter().map(|text| {
                // The whole text is a stranger's, and as long as it likes.
                rule::network(text).map_err(|_| {
                    format!(
                        "in its `sourcerange`, {} is no address or network",
                        quoted(text)
                    )
                })
            });
            networks.collect()
        }
        more => Err(format!(
            "its `sourcerange` has {more} networks: at most {MOST}"
        )),
    }
}
