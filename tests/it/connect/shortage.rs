//! A machine that gives too few descriptors or threads: all of the answer, or a clear word.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::{TARGET, brought, connect, failed, gate, to};
use crate::authority::Authority;
use crate::peers;
use crate::ssh_config::program;
use crate::support::{Child, run};
use crate::upstream::echo;

/// The command in a shell that lowers a limit first.
pub(super) fn under(limit: &str, shell: &[&str], command: &Command) -> Command {
    let words = [shell, &["bash", "-c", "ulimit $0 && exec \"$@\"", limit]].concat();
    let mut limited = Command::new(words[0]);
    limited.args(&words[1..]);
    limited.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited
}

#[tokio::test(flavor = "multi_thread")]
async fn of_few_descriptors_come_all_of_the_answer_or_two_lines() {
    let authority = Authority::new();
    let gate = gate(&authority, echo).await;
    let command = to(connect(&authority, gate.address), &[TARGET]);
    let mut codes = Vec::new();
    // With fewer the system does not even load the program.
    for limit in 4..=16 {
        let done = run(&under(&format!("-n {limit}"), &[], &command), b"hello");
        match done.stdout.is_empty() {
            true => failed(&done, done.status.code().unwrap(), "", ""),
            false => brought(&done, b"hello"),
        }
        codes.push(done.status.code().unwrap());
    }
    assert_eq!(codes.last(), Some(&0), "{codes:?}");
    assert!(codes.contains(&3) && !codes.contains(&101), "{codes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_another_thread_is_told_so() {
    if !rustix::process::geteuid().is_root() {
        return peers::skip("only root can be a user who runs nothing else");
    }
    let authority = Authority::new();
    let gate = gate(&authority, echo).await;
    let folder = authority.folder();
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(program(&folder.join("bin/portcullis")));
    let connect = connect(&authority, gate.address);
    command.args(connect.get_args()).env("HOME", "/nowhere");
    command.env_remove("XDG_CONFIG_HOME");
    let other = [
        "setpriv",
        "--reuid=64321",
        "--regid=64321",
        "--clear-groups",
        "--",
    ];
    // A file is read by a thread.
    fs::write(folder.join("input"), "hello").unwrap();
    let stdin = || File::open(folder.join("input")).unwrap();
    for (limit, json) in [("-u 1", false), ("-u 1", true), ("-u 64", false)] {
        let mut command = to(under(limit, &other, &command), &[TARGET]);
        if json {
            command.arg("--json");
        }
        let output = File::create(folder.join("output")).unwrap();
        let done = Child::spawn_between(&command, stdin().into(), output.into()).finish();
        match (limit, json) {
            ("-u 1", false) => failed(&done, 3, "gives no thread", "ulimit -u"),
            ("-u 1", true) => {
                let told: serde_json::Value = serde_json::from_slice(&done.stderr).unwrap();
                assert_eq!(told["reason"], "shortage", "{told}");
            }
            _ => brought(&done, b""),
        }
    }
    assert_eq!(fs::read(folder.join("output")).unwrap(), b"hello");
}
