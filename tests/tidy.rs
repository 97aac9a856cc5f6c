//! What the compiler does not keep: the floors of the house, its files, its scripts and its links.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;

use file::{Source, links, opening, script, shape};
use floors::floors;
use paths::{code_only, tokens};

#[path = "tidy/file.rs"]
mod file;
#[path = "tidy/floors.rs"]
mod floors;
#[path = "tidy/paths.rs"]
mod paths;

#[test]
fn every_module_uses_lower_floors_only() {
    clean(floors(&sources("src")));
}

#[test]
fn every_file_opens_with_one_sentence() {
    clean(every_rust_file().iter().flat_map(opening).collect());
}

#[test]
fn no_file_is_long_or_named_after_nothing_or_unsafe() {
    clean(every_rust_file().iter().flat_map(shape).collect());
}

#[test]
fn no_test_is_ignored() {
    let mut found = Vec::new();
    for file in every_rust_file() {
        let code = code_only(&file.text);
        let attribute = tokens(&code)
            .windows(2)
            .any(|pair| pair[0].text == "[" && pair[1].text == "ignore");
        if attribute {
            found.push(format!(
                "{}: a test with #[ignore] proves nothing",
                file.path
            ));
        }
    }
    clean(found);
}

#[test]
fn every_script_starts() {
    let mut scripts = vec![".ci/run".to_owned()];
    // What lies deeper belongs to a script or a peer, and is no command.
    scripts.extend(
        files("tools")
            .into_iter()
            .filter(|path| path.matches('/').count() == 1),
    );
    clean(
        scripts
            .iter()
            .filter_map(|path| script(path).err())
            .collect(),
    );
}

#[test]
fn every_link_in_the_documents_leads_somewhere() {
    let mut documents: Vec<String> = ["docs", "config", "deploy"]
        .into_iter()
        .flat_map(files)
        .collect();
    documents.extend(["README.md", "CHANGELOG.md"].map(str::to_owned));
    documents.retain(|path| path.ends_with(".md") && root().join(path).exists());
    let mut dead = Vec::new();
    for path in documents {
        let folder = root().join(Path::new(&path).parent().unwrap());
        let text = fs::read_to_string(root().join(&path)).unwrap();
        let broken = links(&text)
            .into_iter()
            .filter(|target| !folder.join(target).exists());
        dead.extend(broken.map(|target| format!("{path}: the link to {target} is dead")));
    }
    clean(dead);
}

fn clean(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn every_rust_file() -> Vec<Source> {
    ["src", "tests", "benches"]
        .into_iter()
        .flat_map(sources)
        .collect()
}

fn sources(folder: &str) -> Vec<Source> {
    let paths = files(folder)
        .into_iter()
        .filter(|path| path.ends_with(".rs"));
    paths
        .map(|path| Source {
            text: fs::read_to_string(root().join(&path)).unwrap(),
            path,
        })
        .collect()
}

/// Every file under a folder of the repository, in order; none where there is no such folder.
fn files(folder: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root().join(folder)) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}
