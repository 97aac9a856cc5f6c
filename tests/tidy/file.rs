//! The shape of one file: how it opens, its length, its name; a script, a document.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::paths::{code_only, tokens};
use crate::root;

/// Files that may say `unsafe`; each says there why it must.
const UNSAFE: [&str; 0] = [];

/// More than this is two files.
const LINES: usize = 450;

/// Names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 10] = [
    "util", "utils", "helper", "helpers", "common", "types", "manager", "misc", "shared", "core",
];

/// A source file: its path from the root of the repository, with slashes, and what is in it.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Source {
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }
}

pub(crate) fn opening(file: &Source) -> Option<String> {
    let mut lines = file.text.lines();
    let first = lines.next().unwrap_or_default();
    let sentence = first
        .strip_prefix("//! ")
        .filter(|sentence| sentence.ends_with('.'));
    let Some(sentence) = sentence else {
        return Some(format!(
            "{}: the first line is no `//! … .` sentence",
            file.path
        ));
    };
    let another = sentence
        .split(". ")
        .skip(1)
        .any(|rest| rest.starts_with(char::is_uppercase));
    // The library goes on: its documentation is the map of the house.
    let goes_on =
        file.path != "src/lib.rs" && lines.next().is_some_and(|line| line.starts_with("//!"));
    (another || goes_on).then(|| format!("{}: opens with more than one sentence", file.path))
}

pub(crate) fn shape(file: &Source) -> Vec<String> {
    let path = &file.path;
    let mut found = Vec::new();
    let lines = file.text.lines().count();
    if lines > LINES {
        found.push(format!(
            "{path}: {lines} lines, more than {LINES}: this is two files"
        ));
    }
    for part in path.trim_end_matches(".rs").split('/') {
        if EMPTY_NAMES.contains(&part) {
            found.push(format!("{path}: `{part}` says nothing of what is inside"));
        }
    }
    let code = code_only(&file.text);
    if tokens(&code).iter().any(|token| token.text == "unsafe") && !UNSAFE.contains(&path.as_str())
    {
        found.push(format!("{path}: says `unsafe`"));
    }
    found
}

pub(crate) fn script(path: &str) -> Result<(), String> {
    let file = root().join(path);
    let mode = fs::metadata(&file)
        .map_err(|error| format!("{path}: {error}"))?
        .permissions()
        .mode();
    if mode & 0o111 != 0o111 {
        return Err(format!("{path}: not executable"));
    }
    let text = fs::read_to_string(&file).map_err(|error| format!("{path}: {error}"))?;
    let parse: &[&str] = match text.lines().next() {
        Some("#!/usr/bin/env bash") => &["bash", "-n"],
        Some("#!/usr/bin/env python3") => &[
            "python3",
            "-c",
            "import ast, sys; ast.parse(open(sys.argv[1]).read())",
        ],
        _ => {
            return Err(format!(
                "{path}: the first line is neither bash's nor python3's `#!/usr/bin/env …`"
            ));
        }
    };
    let parsed = Command::new(parse[0])
        .args(&parse[1..])
        .arg(&file)
        .output()
        .map_err(|error| error.to_string())?;
    match parsed.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{path}: {}",
            String::from_utf8_lossy(&parsed.stderr)
        )),
    }
}

/// The relative targets of Markdown links, without their anchors; what stands in code is none.
pub(crate) fn links(markdown: &str) -> Vec<String> {
    let mut prose = String::new();
    let mut fenced = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            prose.extend(line.split('`').step_by(2));
            prose.push('\n');
        }
    }
    let inline = prose
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', ' ', '\n']).next());
    let images = prose
        .split("src=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next());
    let named = prose.lines().filter_map(|line| {
        line.strip_prefix('[')?
            .split_once("]: ")
            .map(|(_, target)| target.trim())
    });
    let targets = inline
        .chain(images)
        .chain(named)
        .map(|target| target.split('#').next().unwrap());
    targets
        .filter(|target| !target.is_empty() && !target.contains(':'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn an_opening_is_one_sentence() {
    let found = |path: &str, text: &str| opening(&Source::new(path, text)).is_some();
    assert!(!found(
        "src/name.rs",
        "//! Names, e.g. of hosts.\n\nuse std::io;\n"
    ));
    assert!(found("src/name.rs", ""));
    assert!(found("src/name.rs", "use std::io;\n"));
    assert!(found("src/name.rs", "//! Names\n"));
    assert!(found("src/name.rs", "//! Names. They are parsed.\n"));
    assert!(found("src/name.rs", "//! Names.\n//!\n//! More.\n"));
    assert!(!found("src/lib.rs", "//! The library.\n//!\n//! A map.\n"));
}

#[test]
fn a_long_an_unsafe_and_an_emptily_named_file_are_found() {
    let found = |path: &str, text: &str| shape(&Source::new(path, text)).len();
    assert_eq!(found("src/name.rs", &"\n".repeat(LINES)), 0);
    assert_eq!(found("src/name.rs", &"\n".repeat(LINES + 1)), 1);
    assert_eq!(
        found("src/net/utils.rs", "fn f() { unsafe { g() } } // unsafe"),
        2
    );
    assert_eq!(found("src/common/mod.rs", "// unsafe"), 1);
}

#[test]
fn links_are_relative_and_outside_of_code() {
    let markdown = "[a](docs/a.md#b) [`b`](b.md \"B\") `[c](c.md)` [d](https://d.example/) [e](#e)\n\
                    ```\n[f](f.md)\n```\n<img src=\"g.svg\">\n[h]: h.md\n";
    assert_eq!(links(markdown), ["docs/a.md", "b.md", "g.svg", "h.md"]);
}
