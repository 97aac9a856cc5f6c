//! The gallery of broken configurations in `tests/corpus/config`: each with the report that a person gets of it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use portcullis::config::{Diagnostic, Diagnostics};
use tempfile::TempDir;

use super::{folder, line_and_column, parse, shown};

/// Set, it has the reports written anew: what has changed is then for `git diff` to show.
const REWRITE: &str = "PORTCULLIS_REWRITE";

#[test]
fn every_broken_configuration_of_the_gallery_gets_the_report_beside_it() {
    let mut wrong = Vec::new();
    for file in gallery() {
        let folder = folder();
        let report = shown(&folder, &read(&folder, &file));
        let beside = file.with_extension("expected");
        if env::var_os(REWRITE).is_some() {
            fs::write(&beside, report).unwrap();
            continue;
        }
        let expected = fs::read_to_string(&beside).unwrap_or_default();
        if report != expected {
            let name = file.file_name().unwrap().display();
            wrong.push(format!("== {name}\n{report}-- was\n{expected}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "\n{}\n{} of the reports have changed; where that is right: {REWRITE}=1 cargo test --test it gallery",
        wrong.join("\n"),
        wrong.len()
    );
}

#[test]
fn every_message_of_the_gallery_names_the_key_the_place_and_the_remedy() {
    let mut files = 0;
    for file in gallery() {
        let folder = folder();
        let diagnostics = read(&folder, &file);
        let report = shown(&folder, &diagnostics);
        assert!(!diagnostics.list.is_empty(), "nothing is wrong in {file:?}");
        for one in &diagnostics.list {
            names_key_and_remedy(one, &diagnostics.text, &report);
            names_the_place(one, &diagnostics.text, &report);
        }
        files += 1;
    }
    assert!(files >= 60, "{files}");
}

/// A report whose file is gone would be looked at by nobody.
#[test]
fn every_report_of_the_gallery_is_of_a_file() {
    for entry in fs::read_dir(place()).unwrap() {
        let path = entry.unwrap().path();
        assert!(path.with_extension("toml").exists(), "{path:?}");
    }
}

fn names_key_and_remedy(one: &Diagnostic, text: &str, report: &str) {
    let mut quoted = one.message.split('`').skip(1).step_by(2);
    // `certificates[0].key` is missing where `[[certificates]]` stands: some part of it is in the file.
    let is_there = |key: &str| {
        let mut parts = key.split(['.', '[', ' ']);
        parts.any(|part| !part.is_empty() && text.contains(part.trim_matches('"')))
    };
    assert!(quoted.any(is_there), "no key is named in\n{report}");
    let remedy = one.help.as_deref().unwrap_or_default();
    assert!(!remedy.is_empty(), "no remedy in\n{report}");
    assert!(report.contains("= help: "), "no remedy in\n{report}");
}

/// The line and the column, the line itself, and a caret under it, or the border of several lines.
fn names_the_place(one: &Diagnostic, text: &str, report: &str) {
    let Some(span) = one.span.clone() else {
        // Something that is nowhere in the file.
        assert!(report.contains("--> portcullis.toml\n"), "{report}");
        return;
    };
    assert!(text.get(span.clone()).is_some(), "{one:?} is not in {text}");
    let place = line_and_column(text, span.start);
    let arrow = format!("--> portcullis.toml:{place}\n");
    let (_, drawn) = report
        .split_once(&arrow)
        .unwrap_or_else(|| panic!("{place} is not in\n{report}"));
    let drawn = drawn.split("\n\n").next().unwrap();
    let line = text[..span.start].matches('\n').count();
    assert!(
        drawn.contains(text.lines().nth(line).unwrap_or_default()),
        "line {place} is not shown in\n{report}"
    );
    assert!(drawn.contains('^'), "no caret in\n{report}");
}

fn read(folder: &TempDir, file: &Path) -> Diagnostics {
    let text = fs::read_to_string(file).unwrap();
    match parse(folder, &text) {
        Ok(checked) => checked.warnings,
        Err(diagnostics) => diagnostics,
    }
}

/// The files, in order.
fn gallery() -> Vec<PathBuf> {
    let files = fs::read_dir(place()).unwrap();
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|kind| kind == "toml"));
    files.sort();
    files
}

fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/config")
}
