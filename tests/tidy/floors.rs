//! The floors of the house, and who uses whom.

use std::collections::{BTreeMap, BTreeSet};

use crate::file::Source;
use crate::paths::{Use, uses};

/// A module uses lower floors. On its own floor it may use its neighbours without a cycle, but not on floor 4: the data
/// plane, the control plane and their like meet in the snapshot only.
#[rustfmt::skip]
const FLOORS: [&[&str]; 7] = [
    &["name", "rule", "reason", "retry"],
    &["config", "tls", "metrics", "log", "lifecycle", "stop", "state", "watch", "sandbox"],
    &["net", "api", "status"],
    &["snapshot"],
    &["proxy", "client", "discovery", "certs", "identity", "health", "admin", "migrate"],
    &["serve"],
    &["cli", "main", "lib"],
];
const ISLANDS: usize = 4;

/// Every breach of the floors in these files of `src/`.
pub(crate) fn floors(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    let mut neighbours: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in sources {
        let home = module_path(&file.path);
        let root = file.path.trim_start_matches("src/").trim_end_matches(".rs");
        let room = home.first().map_or(root, String::as_str);
        let Some(own) = floor(room) else {
            found.push(format!("{}: `{room}` stands on no floor", file.path));
            continue;
        };
        for Use { of, line } in uses(&file.text, &home) {
            let complaint = match floor(&of) {
                _ if of == room => continue,
                Some(other) if other < own => continue,
                Some(other) if other > own => {
                    format!("`{room}` (floor {own}) uses `{of}` (floor {other})")
                }
                Some(ISLANDS) => {
                    format!("`{room}` uses `{of}`: rooms of floor {own} never import each other")
                }
                Some(_) => {
                    neighbours.entry(room.to_owned()).or_default().insert(of);
                    continue;
                }
                // Under the roof a re-export or a glob hides nothing: there is no floor above.
                None if own + 1 == FLOORS.len() => continue,
                None if of.is_empty() => {
                    "takes the whole crate, which hides what it uses".to_owned()
                }
                None => format!("`{of}` stands on no floor"),
            };
            found.push(format!("{}:{line}: {complaint}", file.path));
        }
    }
    found.dedup();
    let circular = neighbours
        .keys()
        .filter(|room| reaches(&neighbours, room, room, &mut BTreeSet::new()));
    found.extend(circular.map(|room| format!("`{room}` uses a neighbour that uses `{room}`")));
    found
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&module))
}

fn reaches(
    uses: &BTreeMap<String, BTreeSet<String>>,
    from: &str,
    to: &str,
    seen: &mut BTreeSet<String>,
) -> bool {
    let Some(next) = uses.get(from) else {
        return false;
    };
    next.iter()
        .any(|room| room == to || (seen.insert(room.clone()) && reaches(uses, room, to, seen)))
}

/// `src/tls/files.rs` is `tls::files`, `src/tls/mod.rs` is `tls`, and the roots are nothing.
fn module_path(path: &str) -> Vec<String> {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs");
    let mut parts: Vec<String> = inside.split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| last == "mod") || inside == "lib" || inside == "main" {
        parts.pop();
    }
    parts
}

/// What the floors have to say of one made-up file.
fn verdict(path: &str, text: &str) -> String {
    floors(&[Source::new(path, text)]).join("; ")
}

#[test]
fn an_upward_path_is_found() {
    assert_eq!(
        verdict("src/name.rs", "use crate::config::Settings;"),
        "src/name.rs:1: `name` (floor 0) uses `config` (floor 1)"
    );
    assert_eq!(
        verdict("src/tls/files.rs", "\n use crate::snapshot;"),
        "src/tls/files.rs:2: `tls` (floor 1) uses `snapshot` (floor 3)"
    );
    assert_eq!(
        verdict("src/proxy/mod.rs", "fn f() { crate::serve::run() }"),
        "src/proxy/mod.rs:1: `proxy` (floor 4) uses `serve` (floor 5)"
    );
    let in_tests = "#[cfg(test)]\nmod tests {\n    use crate::proxy;\n}";
    assert_eq!(
        verdict("src/rule/mod.rs", in_tests),
        "src/rule/mod.rs:3: `rule` (floor 0) uses `proxy` (floor 4)"
    );
}

#[test]
fn a_downward_path_is_free_and_so_are_a_modules_own_parts() {
    assert_eq!(
        verdict(
            "src/proxy/mod.rs",
            "use crate::{name, snapshot::{Snapshot, table}, net::*};"
        ),
        ""
    );
    assert_eq!(
        verdict(
            "src/tls/mod.rs",
            "use crate::tls::files; use self::stream as s; use super::tls;"
        ),
        ""
    );
    assert_eq!(
        verdict(
            "src/main.rs",
            "use portcullis::cli; fn main() { portcullis::cli::run() }"
        ),
        ""
    );
    assert_eq!(
        verdict(
            "src/lib.rs",
            "pub use crate::proxy::Proxy; pub use crate::*;"
        ),
        ""
    );
}

#[test]
fn rooms_of_the_planes_never_import_each_other() {
    let found =
        "src/proxy/hello.rs:1: `proxy` uses `certs`: rooms of floor 4 never import each other";
    assert_eq!(
        verdict("src/proxy/hello.rs", "use super::super::certs::Store;"),
        found
    );
    assert_eq!(verdict("src/proxy/hello.rs", "use super::Proxy;"), "");
}

#[test]
fn a_circle_of_neighbours_is_found() {
    let log = Source::new("src/log.rs", "use crate::config::Format;");
    let config = Source::new("src/config/mod.rs", "use crate::tls::options;");
    assert_eq!(floors(&[log, config]), Vec::<String>::new());
    let log = Source::new("src/log.rs", "use crate::config::Format;");
    let config = Source::new(
        "src/config/mod.rs",
        "use crate::{name::HostName, tls::options};",
    );
    let tls = Source::new("src/tls/files.rs", "use super::super::log;");
    let circle = ["config", "log", "tls"]
        .map(|room| format!("`{room}` uses a neighbour that uses `{room}`"));
    assert_eq!(floors(&[log, config, tls]), circle);
}

#[test]
fn what_hides_the_floors_is_refused() {
    let whole = "src/name.rs:1: takes the whole crate, which hides what it uses";
    for text in [
        "use crate::*;",
        "use crate as all;",
        "use crate::{self as all};",
        "use super::*;",
        "use portcullis as p;",
    ] {
        assert_eq!(verdict("src/name.rs", text), whole, "{text}");
    }
    assert_eq!(
        verdict("src/name.rs", "#[path = \"../config/mod.rs\"] mod c;"),
        "src/name.rs:1: `#[path]` stands on no floor"
    );
    assert_eq!(
        verdict("src/attic.rs", ""),
        "src/attic.rs: `attic` stands on no floor"
    );
    assert_eq!(
        verdict("src/name.rs", "use crate::attic::Box;"),
        "src/name.rs:1: `attic` stands on no floor"
    );
}
