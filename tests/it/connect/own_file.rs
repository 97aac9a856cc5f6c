//! What a person has written for `portcullis connect`: no gateway, a file with mistakes, a home that is none.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use serde_json::Value;

use super::way::file;
use super::{TARGET, bare, brought, connect, failed, gate, to};
use crate::authority::Authority;
use crate::peers;
use crate::ssh_config::program;
use crate::support::run;
use crate::upstream::echo;

/// The one object that a command has told on stderr.
#[track_caller]
fn object(done: &Output) -> Value {
    let told = String::from_utf8_lossy(&done.stderr);
    serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"))
}

#[test]
fn without_a_gateway_it_is_said_where_one_may_be_named() {
    let authority = Authority::new();
    let hints = format!(
        "PORTCULLIS_GATEWAY, or in {}/portcullis/client.toml under [domains.\"{TARGET}\"]",
        authority.folder().display()
    );
    let says = "no gateway is named for vm.example.test";
    failed(&run(&to(bare(&authority), &[TARGET]), b""), 2, says, &hints);
    let mut homeless = to(bare(&authority), &[TARGET]);
    homeless.env_remove("XDG_CONFIG_HOME").env("HOME", ".");
    failed(
        &run(&homeless, b""),
        2,
        says,
        "client.toml (set HOME for it)",
    );
    // With a gateway nobody asks for a home.
    homeless.args(["--gateway", "gate.invalid"]);
    failed(&run(&homeless, b""), 20, "gate.invalid", "--gateway");
}

#[test]
fn a_mistake_in_the_file_is_one_line_with_its_place_and_nothing_is_tried() {
    let authority = Authority::new();
    file(
        &authority,
        "[domains.\"*\"]\ngatway = \"gate\"\ntimeout = 10\nproxy = \"http://me:secret@p:x\"\n",
    );
    let path = authority.folder().join("portcullis/client.toml");
    let command = to(bare(&authority), &["--gateway", "gate.invalid", TARGET]);
    let done = run(&command, b"");
    let says = format!("portcullis: {}:2:1: ", path.display());
    failed(&done, 2, &says, "did you mean `gateway`?");
    failed(&done, 2, " (and 2 more)", "");
    let told = String::from_utf8(done.stderr).unwrap();
    assert!(
        !told.contains("secret") && !told.contains('\u{1b}'),
        "{told}"
    );

    let told = object(&run(&to(command, &["--json"]), b""));
    assert_eq!(
        (&told["code"], &told["reason"]),
        (&2.into(), &"usage".into())
    );
    let says = format!("{}:2:1: ", path.display());
    assert!(told["error"].as_str().unwrap().starts_with(&says), "{told}");

    // A line break in what is wrong begins no line.
    file(
        &authority,
        "[domains.\"*\"]\n\"ga\\nte\" = 1\ngateway = \"gate\"\n",
    );
    failed(&run(&to(bare(&authority), &[TARGET]), b""), 2, ":2:1: ", "");
}

#[test]
fn a_file_that_others_can_write_is_refused_with_the_chmod() {
    let authority = Authority::new();
    file(&authority, "[domains.\"*\"]\ngateway = \"gate.invalid\"\n");
    let path = authority.folder().join("portcullis/client.toml");
    for mode in [0o620, 0o602] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        failed(
            &run(&to(bare(&authority), &[TARGET]), b""),
            2,
            "others may write it, and it says whom to trust",
            &format!("chmod go-w {}", path.display()),
        );
    }
    let mend = Command::new("chmod").arg("go-w").arg(&path).status();
    assert!(mend.unwrap().success());
    let done = run(&to(bare(&authority), &[TARGET]), b"");
    failed(&done, 20, "gate.invalid", "--gateway");
}

#[test]
fn every_mistake_is_one_object_where_failures_are() {
    let authority = Authority::new();
    let typed = ["--gateway", "gate.invalid", TARGET];
    for (arguments, says) in [
        (&[TARGET][..], "no gateway is named for"),
        (
            &[TARGET, "--client-config", "/nowhere"],
            "/nowhere: it cannot be read",
        ),
        (
            &[&typed[..], &["--proxy", "socks5://p"]].concat(),
            "--proxy: ",
        ),
        (
            &[&typed[..], &["--passphrase-fd", "0"]].concat(),
            "--passphrase-fd 0: ",
        ),
    ] {
        let told = object(&run(&to(to(bare(&authority), &["--json"]), arguments), b""));
        assert_eq!(
            (&told["code"], &told["reason"]),
            (&2.into(), &"usage".into())
        );
        assert!(told["error"].as_str().unwrap().contains(says), "{told}");
        assert_ne!(told["hint"], "", "{told}");
    }
    let mut set = to(bare(&authority), &["--json", TARGET]);
    let told = object(&run(set.env("PORTCULLIS_GATEWAY", "gate:x"), b""));
    let error = told["error"].as_str().unwrap();
    assert!(error.starts_with("PORTCULLIS_GATEWAY: "), "{told}");

    // The warning is an object, too, and no letter turns the line around for whoever reads it.
    let insecure = ["--json", "--insecure", "--gateway", "gate.invalid", TARGET];
    let done = run(&to(bare(&authority), &insecure), b"");
    let told = String::from_utf8(done.stderr).unwrap();
    let lines: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        lines[0]["warning"]
            .as_str()
            .unwrap()
            .starts_with("insecure: "),
        "{told}"
    );
    assert_eq!((lines.len(), &lines[1]["code"]), (2, &20.into()), "{told}");
    let done = run(&to(bare(&authority), &["--json", "v\u{202e}m"]), b"");
    assert!(!String::from_utf8_lossy(&done.stderr).contains('\u{202e}'));
    object(&done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_is_no_folder_has_no_file_and_one_that_is_closed_is_named() {
    let authority = Authority::new();
    let gate = gate(&authority, echo).await;
    for home in ["/dev/null", "/nowhere", "/dev/null/below"] {
        let mut command = connect(&authority, gate.address);
        command.env_remove("XDG_CONFIG_HOME").env("HOME", home);
        brought(&run(&to(command, &[TARGET]), b"hello"), b"hello");
    }
    if !rustix::process::geteuid().is_root() {
        return peers::skip("only root can be another user");
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(at("home")).unwrap();
    fs::set_permissions(at("home"), Permissions::from_mode(0o700)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    command.arg(program(&at("portcullis")));
    command.args(["connect", "--gateway", "gate.invalid", TARGET]);
    command
        .env_remove("XDG_CONFIG_HOME")
        .env("HOME", at("home"));
    let says = format!(
        "{}/.config/portcullis/client.toml: Permission denied",
        at("home").display()
    );
    failed(
        &run(&command, b""),
        2,
        &says,
        "is HOME (or XDG_CONFIG_HOME) this user's own?",
    );
}
