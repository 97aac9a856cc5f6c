//! The programs that the tests talk to: found, or missed aloud.

use std::env;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Finds a program; `peer` is what `tools/peers` calls it.
///
/// Without it the test has nothing to say: it tells so and returns, or fails where the peers are required.
///
/// `let Some(sshd) = peers::require("sshd", "sshd") else { return };`
pub(crate) fn require(program: &str, peer: &str) -> Option<PathBuf> {
    let found = find(program, &places());
    if found.is_none() {
        skip_or_fail(&format!(
            "no `{program}` here (get it with: tools/peers {peer})"
        ));
    }
    found
}

/// Whether a long test is to run; tells so where it is not.
pub(crate) fn long() -> bool {
    let wanted = env::var_os("PORTCULLIS_FULL").is_some();
    if !wanted {
        skip("a long test (run it with: tools/test --full)");
    }
    wanted
}

fn places() -> Vec<PathBuf> {
    // What this repository builds comes first: it is pinned. Debian keeps its programs for root outside a person's PATH.
    let mut places = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/bin")];
    places.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    places.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    places
}

fn find(program: &str, places: &[PathBuf]) -> Option<PathBuf> {
    let files = places.iter().map(|place| place.join(program));
    files.into_iter().find(|file| {
        file.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

fn skip_or_fail(why: &str) {
    let required = env::var_os("PORTCULLIS_PEERS").is_some_and(|wish| wish == "required");
    assert!(!required, "{why}");
    skip(why);
}

/// Written to stderr itself: what a test says through `eprintln!`, libtest shows only if the test fails.
fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("skipped: {test}: {why}\n");
    std::io::stderr().lock().write_all(line.as_bytes()).unwrap();
}

#[test]
fn a_missing_peer_is_a_visible_skip_and_where_peers_are_required_a_failure() {
    if env::var_os("PORTCULLIS_TEST_OF_SKIPS").is_some() {
        assert!(require("no-such-program", "nobody").is_none());
        assert!(!long());
        return;
    }
    let again = |peers: &str| {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args([
            "--exact",
            "peers::a_missing_peer_is_a_visible_skip_and_where_peers_are_required_a_failure",
        ]);
        command
            .env("PORTCULLIS_TEST_OF_SKIPS", "1")
            .env("PORTCULLIS_PEERS", peers);
        let done = command.env_remove("PORTCULLIS_FULL").output().unwrap();
        let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
        (done.status.success(), said)
    };
    let (passed, said) = again("");
    assert!(passed, "{said}");
    assert!(
        said.contains("no `no-such-program` here (get it with: tools/peers nobody)"),
        "{said}"
    );
    assert!(
        said.contains("a long test (run it with: tools/test --full)"),
        "{said}"
    );
    let (passed, said) = again("required");
    assert!(!passed, "{said}");
    assert!(said.contains("get it with: tools/peers nobody"), "{said}");
}

#[test]
fn a_program_of_this_repository_comes_before_the_machines_own() {
    let ours = tempfile::tempdir().unwrap();
    let theirs = tempfile::tempdir().unwrap();
    let both = [ours.path().to_owned(), theirs.path().to_owned()];
    assert_eq!(find("peer", &both), None);
    program(&theirs.path().join("peer"), 0o755);
    assert_eq!(find("peer", &both), Some(theirs.path().join("peer")));
    program(&ours.path().join("peer"), 0o755);
    assert_eq!(find("peer", &both), Some(ours.path().join("peer")));
}

#[test]
fn what_cannot_be_executed_is_no_program() {
    let folder = tempfile::tempdir().unwrap();
    program(&folder.path().join("text"), 0o644);
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    let places = [folder.path().to_owned()];
    assert_eq!(find("text", &places), None);
    assert_eq!(find("folder", &places), None);
}

fn program(path: &Path, mode: u32) {
    std::fs::write(path, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}
