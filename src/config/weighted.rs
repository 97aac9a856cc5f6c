//! The upstreams that stand for others, each with its share: what is typed and what it means.

use std::collections::BTreeSet;

use toml::de::DeValue;

use super::decode::{Item, List, Typed};
use super::diagnostic::Findings;
use super::file::{self, File};
use super::routes::reference_help;
use super::value::{self, read};

/// One of them, as a string or a table.
#[derive(Debug)]
pub(super) struct Member {
    upstream: Typed<String>,
    weight: Option<Typed<i64>>,
}

/// `weighted` of an upstream.
pub(super) fn read_list(item: Item<'_>, findings: &mut Findings<'_>) -> Option<List<Member>> {
    item.list(findings, read_member)
}

fn read_member(item: Item<'_>, findings: &mut Findings<'_>) -> Option<Member> {
    match item.value() {
        DeValue::String(_) => item.string(findings).map(|upstream| Member {
            upstream,
            weight: None,
        }),
        DeValue::Table(_) => {
            let mut table = item.table(findings)?;
            let upstream = table.require("upstream", "\"blue\"", findings, Item::string);
            let weight = table.take("weight", findings, Item::integer);
            table.finish(findings);
            upstream.map(|upstream| Member { upstream, weight })
        }
        _ => item.wrong("a string", findings),
    }
}

/// What the list of an upstream means; empty where there is none.
pub(super) fn members(
    upstream: &file::Upstream,
    file: &File,
    findings: &mut Findings<'_>,
) -> Vec<super::Member> {
    let Some(list) = &upstream.weighted else {
        return Vec::new();
    };
    refuse_beside(upstream, findings);
    let mut members: Vec<super::Member> = Vec::new();
    for typed in &list.value {
        // As of an endpoint.
        let weight = match &typed.weight {
            Some(weight) => read(weight, findings, |value| value::number(*value, 0..=65_535)),
            None => Some(1),
        };
        if !is_known(&typed.upstream, file, findings) {
            continue;
        }
        let name = &typed.upstream.value;
        if members.iter().any(|member| member.upstream == *name) {
            findings.error(
                typed.upstream.span.clone(),
                format!("`{}`: {name:?} is listed twice", list.key),
                "write it once, with the `weight` that it shall have",
            );
            continue;
        }
        members.push(super::Member {
            upstream: name.clone(),
            weight: weight.unwrap_or(1),
        });
    }
    if list.is_empty {
        findings.missing(
            list.span.clone(),
            format!("`{}` is an empty list: there is nothing to dial", list.key),
            "name at least one upstream, such as [{ upstream = \"blue\", weight = 3 }]",
        );
    } else if !members.is_empty() && members.iter().all(|member| member.weight == 0) {
        findings.error(
            list.span.clone(),
            format!(
                "`{}`: every weight is 0: there is nothing to dial",
                list.key
            ),
            "give at least one upstream a weight of 1 or more",
        );
    }
    members
}

/// What each member has for itself.
fn refuse_beside(upstream: &file::Upstream, findings: &mut Findings<'_>) {
    let tls = upstream.tls.as_ref().map(|tls| &tls.place);
    let transport = upstream.transport.as_ref().map(Typed::place);
    let proxy = (upstream.proxy_protocol.as_ref()).map(|send| send.place());
    for place in [tls.cloned(), transport, proxy].into_iter().flatten() {
        findings.error(
            place.span,
            format!(
                "`{}` beside `weighted`: each of those says for itself how it is dialled",
                place.key
            ),
            "remove it, and write it at the upstreams that are named",
        );
    }
}

/// Whether there is, or may be, an upstream of that name, which is not weighted itself.
fn is_known(typed: &Typed<String>, file: &File, findings: &mut Findings<'_>) -> bool {
    let name = typed.value.as_str();
    let mut missing = |message: String, help: String| {
        let message = format!("`{}`: {message}", typed.key);
        findings.missing(typed.span.clone(), message, help);
        false
    };
    let found = file.upstreams.iter().find(|(known, _)| known.value == name);
    match (found, name.rsplit_once('@')) {
        (Some((_, other)), _) if other.weighted.is_some() => {
            findings.error(
                typed.span.clone(),
                format!("`{}`: {name:?} is weighted itself", typed.key),
                "name the upstreams that it stands for",
            );
            false
        }
        (Some(_), _) => true,
        (None, Some((_, source @ ("consul" | "nomad")))) => {
            let is_there = match source {
                "consul" => file.consul.is_some(),
                _ => file.nomad.is_some(),
            };
            is_there
                || missing(
                    format!("there is no [{source}] section to find {name:?} by"),
                    format!("add a line `[{source}]`, or name an upstream of this file"),
                )
        }
        (None, _) => {
            let known: BTreeSet<&str> = (file.upstreams.iter())
                .filter(|(_, other)| other.weighted.is_none())
                .map(|(known, _)| known.value.as_str())
                .collect();
            let otherwise = "add an [upstreams.NAME] section and name it here; a service is NAME@consul or NAME@nomad";
            let plain = name.trim_end_matches("@file");
            missing(
                format!("there is no upstream {name:?}"),
                reference_help(plain, &known, otherwise),
            )
        }
    }
}
