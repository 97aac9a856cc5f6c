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

/// Finds a program that `tools/peers` builds or unpacks; no other build of it will do.
pub(crate) fn pinned(program: &str) -> Option<PathBuf> {
    let found = find(program, &[ours()]);
    if found.is_none() {
        skip_or_fail(&format!(
            "no `{program}` in target/peers/bin (get it with: tools/peers {program})"
        ));
    }
    found
}

/// A program without what the user of this machine has told it by variables that begin with `prefix`.
pub(crate) fn unconfigured(program: &Path, prefix: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with(prefix) {
            command.env_remove(name);
        }
    }
    command
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
    let path = env::var_os("PATH").unwrap_or_default();
    // Debian keeps its programs for root outside a person's PATH.
    let roots = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(roots).collect()
}

/// Where `tools/peers` puts what it pins.
fn ours() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/bin")
}

fn find(program: &str, places: &[PathBuf]) -> Option<PathBuf> {
    let files = places.iter().map(|place| place.join(program));
    files.into_iter().find(|file| {
        file.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

pub(crate) fn skip_or_fail(why: &str) {
    let required = env::var_os("PORTCULLIS_PEERS").is_some_and(|wish| wish == "required");
    assert!(!required, "{why}");
    skip(why);
}

/// Written to stderr itself: what a test says through `eprintln!`, libtest shows only if the test fails.
pub(crate) fn skip(why: &str) {
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
fn the_first_place_that_has_a_program_is_taken() {
    let first = tempfile::tempdir().unwrap();
    let second = tempfile::tempdir().unwrap();
    let both = [first.path().to_owned(), second.path().to_owned()];
    assert_eq!(find("peer", &both), None);
    program(&second.path().join("peer"), 0o755);
    assert_eq!(find("peer", &both), Some(second.path().join("peer")));
    program(&first.path().join("peer"), 0o755);
    assert_eq!(find("peer", &both), Some(first.path().join("peer")));
}

#[test]
fn a_pinned_program_is_not_taken_from_the_path() {
    assert!(require("sh", "sh").is_some());
    assert_eq!(find("sh", &[ours()]), None);
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

#[test]
fn what_only_the_bench_needs_is_fetched_only_when_it_is_asked_for() {
    let tree = tempfile::tempdir().unwrap();
    copy(Path::new(env!("CARGO_MANIFEST_DIR")), tree.path(), "tools");
    // These two would come from afar: as if no test needed them.
    let script = tree.path().join("tools/peers");
    let text = std::fs::read_to_string(&script).unwrap();
    let text = text.replace("/bin/haproxy\n", "/bin/haproxy bench\n");
    let text = text.replace("/linux-*/nginx\n", "/linux-*/nginx bench\n");
    std::fs::write(&script, text).unwrap();
    let stand_ins = tree.path().join("stand-ins");
    std::fs::create_dir(&stand_ins).unwrap();
    let tools_peers = |arguments: &[&str]| {
        let mut path = stand_ins.clone().into_os_string();
        path.push(":");
        path.push(env::var_os("PATH").unwrap_or_default());
        let mut command = Command::new(tree.path().join("tools/peers"));
        command.args(arguments).env("PATH", path).output().unwrap()
    };
    // What Debian has is there already; what would fetch the rest only notes what it was to fetch, and where it was.
    let listed = String::from_utf8(tools_peers(&["--list"]).stdout).unwrap();
    for line in listed.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words[1] == "debian" {
            program(&stand_ins.join(words[0]), 0o755);
        }
    }
    let notes = tree.path().join("notes");
    let note = format!(
        "#!/bin/sh\necho \"$PWD $*\" >>{}\necho go99\n",
        notes.display()
    );
    for fetcher in ["go", "python3"] {
        program(&stand_ins.join(fetcher), 0o755);
        std::fs::write(stand_ins.join(fetcher), &note).unwrap();
    }

    assert!(!tools_peers(&[]).status.success());
    let fetched = std::fs::read_to_string(&notes).unwrap();
    for wanted in ["peers.d/consul", "peers.d/envoy", "peers.d/bao"] {
        assert!(fetched.contains(wanted), "{fetched}");
    }
    for unwanted in ["peers.d/haproxy", "peers.d/nginx"] {
        assert!(!fetched.contains(unwanted), "{fetched}");
    }
    assert!(!tools_peers(&["nginx"]).status.success());
    let fetched = std::fs::read_to_string(&notes).unwrap();
    assert!(fetched.contains("peers.d/nginx"), "{fetched}");
    assert!(!fetched.contains("peers.d/haproxy"), "{fetched}");
}

fn program(path: &Path, mode: u32) {
    std::fs::write(path, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn copy(from: &Path, to: &Path, name: &str) {
    let (from, to) = (from.join(name), to.join(name));
    if from.is_dir() {
        std::fs::create_dir(&to).unwrap();
        for entry in std::fs::read_dir(&from).unwrap() {
            copy(&from, &to, entry.unwrap().file_name().to_str().unwrap());
        }
    } else {
        std::fs::copy(&from, &to).unwrap();
    }
}
