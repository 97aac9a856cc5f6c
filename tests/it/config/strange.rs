//! Files that are no configuration at all, and damaged ones: nothing panics, every place is in the text.

use std::fs;
use std::path::Path;

use portcullis::config;
use proptest::prelude::*;

use super::{folder, parse, shown};

#[test]
fn a_file_that_is_not_text_is_refused_with_the_line() {
    let folder = folder();
    let path = folder.path().join("portcullis.toml");
    fs::write(&path, b"# ok\nadmin = \"\xff\"\n").unwrap();
    let report = shown(&folder, &config::load(&path).unwrap_err());
    assert!(report.contains("not UTF-8"), "{report}");
    assert!(report.contains("line 2"), "{report}");
    assert!(report.contains("help: save it as UTF-8"), "{report}");
}

#[test]
fn a_folder_in_place_of_the_file_is_refused_with_the_reason() {
    let folder = folder();
    let report = shown(&folder, &config::load(folder.path()).unwrap_err());
    assert!(report.contains("directory"), "{report}");
    assert!(report.contains("help:"), "{report}");
}

/// Whatever was found can be shown, and stands in the text.
fn check_reports(text: &str) {
    let found = config::parse(text, Path::new("/nonexistent/portcullis.toml"));
    let diagnostics = match found {
        Ok(checked) => checked.warnings,
        Err(diagnostics) => {
            assert!(diagnostics.errors() > 0);
            diagnostics
        }
    };
    for one in &diagnostics.list {
        if let Some(span) = &one.span {
            assert!(
                text.get(span.clone()).is_some(),
                "{one:?} is not in {text:?}"
            );
        }
        assert!(one.help.is_some() && !one.message.is_empty(), "{one:?}");
    }
    assert_eq!(
        diagnostics.render(true).is_empty(),
        diagnostics.list.is_empty()
    );
    assert_eq!(
        diagnostics.render(false).is_empty(),
        diagnostics.list.is_empty()
    );
}

/// An example with some of its bytes left out, doubled or replaced.
fn mutated() -> impl Strategy<Value = String> {
    let examples = ["minimal.toml", "full.toml", "ssh.toml", "consul.toml"].map(|name| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("config")
            .join(name);
        // Comments only take place where a mutation does nothing.
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        lines.join("\n")
    });
    let edit = (
        any::<prop::sample::Index>(),
        0usize..40,
        "[a-z0-9\"'\\[\\]{}=.,#`\\\\ \n\r😀\u{0}-]{0,3}",
    );
    (
        prop::sample::select(examples.to_vec()),
        prop::collection::vec(edit, 1..4),
    )
        .prop_map(|(text, edits)| {
            let mut characters: Vec<char> = text.chars().collect();
            for (index, length, new) in edits {
                let start = index.index(characters.len() + 1);
                let end = (start + length).min(characters.len());
                characters.splice(start..end, new.chars());
            }
            characters.into_iter().collect()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_is_too_strange(text in any::<String>()) {
        check_reports(&text);
    }

    #[test]
    fn no_text_like_toml_is_too_strange(text in "([a-z.]{1,3}|[\"'=\\[\\]{},#\\\\\n\r \u{feff}ä]|\"\"\"|listen|routes|= ){0,30}") {
        check_reports(&text);
    }

    #[test]
    fn no_damage_to_an_example_is_too_strange(text in mutated()) {
        check_reports(&text);
    }
}

#[test]
fn one_socket_by_two_paths_is_told_before_a_start() {
    let folder = folder();
    std::os::unix::fs::symlink(folder.path(), folder.path().join("link")).unwrap();
    let tunnel = |name: &str, path: &str| {
        format!("[tunnels.{name}]\nlisten = \"unix:{path}\"\nto = \"master.example.com:8443\"\n")
    };
    let text = tunnel("one", "x.sock") + &tunnel("other", "link/x.sock");
    let told = parse(&folder, &text).unwrap_err().to_string();
    assert!(
        told.contains("is already taken by `tunnels.one.listen`"),
        "{told}"
    );
    // Of another name beside it nothing is said, and neither where the folders are not made yet.
    for other in ["link/y.sock", "later/x.sock"] {
        parse(
            &folder,
            &(tunnel("one", "x.sock") + &tunnel("other", other)),
        )
        .unwrap();
    }
    // As it is when a gateway runs: a socket is no mistake, and a folder is.
    let socket = folder.path().join("x.sock");
    let _bound = std::os::unix::net::UnixListener::bind(socket).unwrap();
    parse(&folder, &tunnel("one", "x.sock")).unwrap();
    for (path, what) in [
        ("link", "a link"),
        ("empty", "a folder"),
        ("note.txt", "a file"),
    ] {
        let told = parse(&folder, &tunnel("one", path))
            .unwrap_err()
            .to_string();
        assert!(
            told.contains(&format!("is {what}, and no socket")),
            "{told}"
        );
    }
}
