//! The middlewares: what routes ask of their clients, what is typed and what it means.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::Middleware;
use super::decode::{Item, List, Table, Typed};
use super::diagnostic::Findings;
use super::routes::reference_help;
use super::value::{self, Wrong, read};
use crate::rule;

/// The two kinds, one of which each has.
const KINDS: [&str; 2] = ["ip_allow_list", "in_flight_conn"];

/// `[middlewares.NAME]`.
#[derive(Debug, Default)]
pub(super) struct Section {
    ip_allow_list: Option<List<Typed<String>>>,
    in_flight_conn: Option<Typed<i64>>,
}

impl Section {
    pub(super) fn read(mut table: Table<'_>, findings: &mut Findings<'_>) -> Self {
        let section = table.key();
        match KINDS.map(|kind| table.place(kind)) {
            [Some(one), Some(other)] => findings.error(
                if one.start > other.start { one } else { other },
                format!("`{}` has both `ip_allow_list` and `in_flight_conn`", section.key),
                "keep one, and give the other a [middlewares.NAME] section of its own: a route may name several",
            ),
            [None, None] if !KINDS.iter().any(|kind| table.has(kind)) => findings.missing(
                section.span,
                format!("`{}` has neither `ip_allow_list` nor `in_flight_conn`", section.key),
                "add `ip_allow_list = [\"10.0.0.0/8\"]` or `in_flight_conn = 10`",
            ),
            _ => {}
        }
        let section = Self {
            ip_allow_list: table.take("ip_allow_list", findings, Item::strings),
            in_flight_conn: table.take("in_flight_conn", findings, Item::integer),
        };
        table.finish(findings);
        section
    }

    /// What it means; `None` if it is broken, which is reported.
    pub(super) fn mean(&self, findings: &mut Findings<'_>) -> Option<Middleware> {
        if let Some(list) = &self.ip_allow_list {
            return Some(Middleware::IpAllowList(networks(list, findings).into()));
        }
        let most = self.in_flight_conn.as_ref()?;
        // More connections than that fit into no machine: a slip of the pen.
        let most = read(most, findings, |&most| value::number(most, 0..=10_000_000))?;
        Some(Middleware::InFlightConn(most))
    }
}

/// The middlewares that a route names.
pub(super) fn of_route(
    list: Option<&List<Typed<String>>>,
    known: &BTreeSet<&str>,
    findings: &mut Findings<'_>,
) -> Vec<String> {
    let Some(list) = list else {
        return Vec::new();
    };
    if list.is_empty {
        findings.error(
            list.span.clone(),
            format!("`{}` is an empty list", list.key),
            "name at least one [middlewares.NAME] section, or remove the list",
        );
    }
    let mut names: Vec<String> = Vec::new();
    for typed in &list.value {
        if !known.contains(typed.value.as_str()) {
            let section = format!("add a [middlewares.{}] section", typed.value.escape_debug());
            findings.missing(
                typed.span.clone(),
                format!("`{}`: there is no middleware {:?}", typed.key, typed.value),
                // Tags have to say whose it is; here it is plain.
                reference_help(typed.value.trim_end_matches("@file"), known, &section),
            );
        } else if names.contains(&typed.value) {
            findings.error(
                typed.span.clone(),
                format!("`{}`: {:?} is listed twice", typed.key, typed.value),
                "remove one of the two",
            );
        } else {
            names.push(typed.value.clone());
        }
    }
    names
}

fn networks(list: &List<Typed<String>>, findings: &mut Findings<'_>) -> Vec<IpNet> {
    const EXAMPLE: &str =
        "write addresses and networks, such as \"192.0.2.7\", \"10.0.0.0/8\" or \"2001:db8::/32\"";
    if list.is_empty {
        findings.missing(
            list.span.clone(),
            format!("`{}` is an empty list: it would let nobody in", list.key),
            EXAMPLE,
        );
    }
    let mut networks: Vec<IpNet> = Vec::new();
    for typed in &list.value {
        let network = read(typed, findings, |text| {
            let network = rule::network(text).map_err(|why| Wrong::new(why, EXAMPLE))?;
            match networks.contains(&network) {
                true => Err(Wrong::new(
                    format!("{text:?} is listed twice"),
                    "remove one of the two",
                )),
                false => Ok(network),
            }
        });
        networks.extend(network);
    }
    networks
}
