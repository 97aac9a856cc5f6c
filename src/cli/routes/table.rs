//! Routes as a person reads them: a line with how each fares, and below it what it takes, where it leads, and what is wrong.

use std::collections::BTreeMap;
use std::fmt;

use super::listing::{Listing, Member, Route, Skipped, Standing, Upstream};
use crate::log::printable;

/// Between columns.
const GAP: usize = 2;

/// Before what stands below a line.
const INDENT: &str = "    ";

/// As narrow as lines are broken for.
const NARROWEST: usize = 40;

/// So many addresses, or instances, are named; of more there is the number, and `--json` has all.
const MOST_NAMED: usize = 4;

/// The most of one text that is shown, in bytes: rules can have 64 KiB.
const SHOWN: usize = 2048;

/// The width of the terminal that stdout is, in columns; none where it is no terminal, and lines are as long as they are.
pub(super) fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    // A terminal that does not know its size says 0.
    (size.ws_col > 0).then(|| usize::from(size.ws_col).max(NARROWEST))
}

/// What is to be shown, and how.
pub(super) struct Drawing<'a> {
    /// Whose routes these are.
    pub(super) title: &'a str,
    pub(super) listing: &'a Listing,
    pub(super) width: Option<usize>,
    pub(super) colour: bool,
}

impl fmt::Display for Drawing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Listing {
            routes,
            tunnels,
            skipped,
            ..
        } = self.listing;
        self.text(f, "", &shown(self.title))?;
        for (head, all) in [("ROUTE", routes), ("TUNNEL", tunnels)] {
            if !all.is_empty() {
                writeln!(f)?;
                self.table(f, head, all)?;
            }
        }
        let (notes, refused): (Vec<_>, Vec<_>) = skipped.iter().partition(|one| one.note);
        self.skipped(f, "Skipped", &refused)?;
        self.skipped(f, "Notes", &notes)?;
        writeln!(f)?;
        let tunnels = match tunnels.as_slice() {
            [] => String::new(),
            tunnels => format!("{}; ", counted("tunnel", tunnels)),
        };
        let (routes, refused) = (counted("route", routes), refused.len());
        self.text(f, "", &format!("{routes}; {tunnels}{refused} skipped."))
    }
}

impl Drawing<'_> {
    fn table(&self, f: &mut fmt::Formatter<'_>, what: &str, routes: &[Route]) -> fmt::Result {
        let head = [what, "SOURCE", "TLS", "ENDPOINTS", "STATE"].map(str::to_owned);
        let rows: Vec<[String; 5]> = routes.iter().map(row).collect();
        let mut widths = head.each_ref().map(|cell| width(cell));
        for row in &rows {
            for (widest, cell) in widths.iter_mut().zip(row).skip(1) {
                *widest = (*widest).max(width(cell));
            }
        }
        let others: usize = widths.iter().skip(1).map(|other| other + GAP).sum();
        let room = self.width.map(|width| width.saturating_sub(others));
        let names = rows.iter().map(|[name, ..]| width(name));
        let fitting = names.filter(|name| room.is_none_or(|room| *name <= room));
        let [first, ..] = &mut widths;
        *first = fitting.fold(*first, usize::max);
        self.row(f, &head, &widths, None)?;
        for (route, row) in routes.iter().zip(&rows) {
            self.row(f, row, &widths, Some(route.standing()))?;
            for line in details(route) {
                self.text(f, INDENT, &line)?;
            }
        }
        Ok(())
    }

    fn row(
        &self,
        f: &mut fmt::Formatter<'_>,
        cells: &[String; 5],
        widths: &[usize; 5],
        standing: Option<Standing>,
    ) -> fmt::Result {
        let [name, others @ .., state] = cells;
        let [first, widths @ .., _] = widths;
        if width(name) > *first {
            // A name is never cut: it has a line of its own.
            writeln!(f, "{name}")?;
            write!(f, "{:first$}", "")?;
        } else {
            write!(f, "{name:first$}")?;
        }
        for (cell, width) in others.iter().zip(widths) {
            write!(f, "{:GAP$}{cell:width$}", "")?;
        }
        writeln!(f, "{:GAP$}{}", "", self.painted(state, standing))
    }

    fn skipped(&self, f: &mut fmt::Formatter<'_>, what: &str, all: &[&Skipped]) -> fmt::Result {
        if all.is_empty() {
            return Ok(());
        }
        writeln!(f, "\n{what}: {}", all.len())?;
        // What is wrong with many instances alike is told once, where it comes first.
        let mut places: BTreeMap<_, usize> = BTreeMap::new();
        let mut groups: Vec<(&Skipped, Vec<&str>)> = Vec::new();
        for one in all {
            let key = (
                &one.source,
                &one.catalog,
                &one.service,
                &one.router,
                &one.reason,
            );
            let at = *places.entry(key).or_insert(groups.len());
            match groups.get_mut(at) {
                Some((_, instances)) => instances.extend(one.instance.as_deref()),
                None => groups.push((one, one.instance.iter().map(String::as_str).collect())),
            }
        }
        for (one, instances) in groups {
            self.text(f, "  ", &place(one, &instances))?;
            self.text(f, "      ", &shown(&one.reason))?;
        }
        Ok(())
    }

    fn painted(&self, text: &str, standing: Option<Standing>) -> String {
        let colour = match standing {
            Some(_) if !self.colour => return text.to_owned(),
            None => return text.to_owned(),
            Some(Standing::Serves) => 32,
            Some(Standing::Failing | Standing::Empty) => 33,
            Some(Standing::Shadowed | Standing::Refuses) => 31,
        };
        format!("\x1b[{colour}m{text}\x1b[0m")
    }

    /// Writes a text in lines that fit, each after this indent.
    fn text(&self, f: &mut fmt::Formatter<'_>, indent: &str, text: &str) -> fmt::Result {
        let room = self.width.map(|all| all.saturating_sub(width(indent)));
        for line in wrapped(text, room) {
            writeln!(f, "{indent}{line}")?;
        }
        Ok(())
    }
}

fn row(route: &Route) -> [String; 5] {
    let tls = match route.action.as_str() {
        "pass_through" => "passes",
        "terminate" => "ends",
        _ => "-",
    };
    let (usable, all) = (route.usable(), route.all_endpoints());
    let endpoints = match usable == all {
        true => all.to_string(),
        false => format!("{usable} of {all}"),
    };
    let state = route.standing().as_str().to_owned();
    [
        shown(&route.name),
        shown(&route.source),
        tls.to_owned(),
        endpoints,
        state,
    ]
}

/// What stands below the line of a route.
fn details(route: &Route) -> Vec<String> {
    let mut lines = vec![shown(&route.rule), shown(&leads_to(route))];
    for member in &route.members {
        lines.push(shown(&share(member)));
    }
    let middlewares = route.middlewares.iter().map(|one| one.name.as_str());
    let mut asks: Vec<String> = middlewares
        .map(|name| format!("middleware {name}"))
        .collect();
    let options = route.tls_options.iter();
    asks.extend(options.map(|options| format!("TLS options {options}")));
    if !asks.is_empty() {
        lines.push(shown(&format!("asks of its clients: {}", asks.join(", "))));
    }
    match route.standing() {
        Standing::Refuses => {
            let why = route.broken_reason.as_deref().unwrap_or("it is broken");
            lines.push(shown(&format!("refuses its clients: {why}")));
        }
        Standing::Shadowed => {
            let by = route.shadowed_by.as_ref().map_or("another", |by| &by.name);
            lines.push(shown(&format!("gets no client: {by} takes them all")));
        }
        Standing::Empty => {
            let why = route.upstream.empty.as_deref();
            let why = why.unwrap_or("it has no endpoint yet");
            lines.push(shown(&format!("refuses its clients: {why}")));
        }
        Standing::Failing => {
            let mut endpoints = route.weighed();
            let why = endpoints.find_map(|endpoint| endpoint.check_error.as_deref());
            let why = why.unwrap_or("they could not be dialled");
            lines.push(shown(&format!("no endpoint works, all are tried: {why}")));
        }
        Standing::Serves => {}
    }
    let disk = route.from_disk.iter();
    lines.extend(disk.map(|at| shown(&format!("from the disk, as it was at {at}"))));
    let warnings = route.warnings.iter();
    lines.extend(warnings.map(|warning| shown(&format!("warning: {warning}"))));
    lines
}

fn leads_to(route: &Route) -> String {
    let upstream = &route.upstream;
    let name = match upstream.name == route.name {
        true => String::new(),
        false => format!("{} ", upstream.name),
    };
    if !route.members.is_empty() {
        return format!("to {name}by weight:");
    }
    let addresses: Vec<&str> = (route.endpoints.iter())
        .map(|endpoint| endpoint.address.as_str())
        .collect();
    let addresses = match (name.is_empty(), addresses.as_slice()) {
        (_, []) => name.trim_end().to_owned(),
        (true, addresses) => some(addresses),
        (false, addresses) => format!("{name}({})", some(addresses)),
    };
    let addresses = if addresses.is_empty() {
        "nothing"
    } else {
        &addresses
    };
    format!("to {addresses}{}", way(upstream))
}

fn share(member: &Member) -> String {
    let Member {
        weight,
        upstream,
        endpoints,
    } = member;
    let addresses: Vec<&str> = endpoints.iter().map(|one| one.address.as_str()).collect();
    let addresses = match addresses.as_slice() {
        [] => upstream
            .empty
            .as_deref()
            .unwrap_or("nothing to dial")
            .to_owned(),
        addresses => some(addresses),
    };
    format!(
        "  {weight} to {} ({addresses}){}",
        upstream.name,
        way(upstream)
    )
}

/// How it is dialled.
fn way(upstream: &Upstream) -> String {
    let proof = upstream.spiffe.as_ref().or(upstream.server_name.as_ref());
    let proof = proof
        .map(|proof| format!(" as {proof}"))
        .unwrap_or_default();
    let transport = match (upstream.mesh, upstream.tls) {
        (true, _) => format!(", in the mesh{proof}"),
        (false, true) => format!(", over TLS{proof}"),
        (false, false) => String::new(),
    };
    let header = upstream.proxy_protocol.iter();
    let header: String = header
        .map(|version| format!(", with a PROXY header {version}"))
        .collect();
    transport + &header
}

/// Who asked for what was skipped.
fn place(skipped: &Skipped, instances: &[&str]) -> String {
    let Skipped {
        source,
        catalog,
        service,
        router,
        ..
    } = skipped;
    let catalog = catalog.as_ref().map(|label| format!("-{label}"));
    let router = router.as_ref().map(|router| format!(", router {router}"));
    let instances = match instances {
        [] => None,
        [one] => Some(format!(", instance {one}")),
        all => Some(format!(", {} instances: {}", all.len(), some(all))),
    };
    let parts = [catalog, router, instances].map(Option::unwrap_or_default);
    let [catalog, router, instances] = parts;
    shown(&format!("{service}@{source}{catalog}{router}{instances}"))
}

/// The first of them, and how many more there are.
fn some(all: &[&str]) -> String {
    let named: Vec<&str> = all.iter().take(MOST_NAMED).copied().collect();
    match all.len().saturating_sub(named.len()) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// How many there are of a kind, and how they fare.
fn counted(kind: &str, routes: &[Route]) -> String {
    let mut counts: BTreeMap<Standing, usize> = BTreeMap::new();
    for route in routes {
        *counts.entry(route.standing()).or_default() += 1;
    }
    let counts = counts.iter().map(|(standing, count)| {
        let word = match (standing, count) {
            (Standing::Serves, 1) => "serves",
            (Standing::Serves, _) => "serve",
            (Standing::Failing, _) => "failing",
            (Standing::Empty, _) => "empty",
            (Standing::Shadowed, _) => "shadowed",
            (Standing::Refuses, 1) => "refuses",
            (Standing::Refuses, _) => "refuse",
        };
        format!("{count} {word}")
    });
    let counts: Vec<String> = counts.collect();
    match routes.len() {
        0 => format!("No {kind}s"),
        1 => format!("1 {kind}: {}", counts.join(", ")),
        all => format!("{all} {kind}s: {}", counts.join(", ")),
    }
}

/// Whoever registers a service writes parts of it: no byte of theirs moves the cursor.
fn shown(text: &str) -> String {
    // What indents a line is ours.
    let text = match text.strip_prefix("  ") {
        Some(rest) => return format!("  {}", printable(rest, SHOWN)),
        None => text,
    };
    printable(text, SHOWN)
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// The text in lines of at most so many characters, broken between words, or within one that fits on no line.
fn wrapped(text: &str, room: Option<usize>) -> Vec<String> {
    let Some(room) = room.map(|room| room.max(1)) else {
        return vec![text.to_owned()];
    };
    let indent: String = text.chars().take_while(|one| *one == ' ').collect();
    let mut lines = Vec::new();
    let mut line = indent.clone();
    for word in text.split_whitespace() {
        let is_begun = line.len() > indent.len();
        if is_begun && width(&line) + 1 + width(word) > room {
            lines.push(std::mem::replace(&mut line, indent.clone()));
        } else if is_begun {
            line.push(' ');
        }
        for character in word.chars() {
            if width(&line) == room {
                lines.push(std::mem::replace(&mut line, indent.clone()));
            }
            line.push(character);
        }
    }
    lines.push(line);
    lines
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
