//! Encrypted keys when a gateway reads its configuration again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use super::{FROM_FILE, NAME, PASSPHRASE, Scene};
use crate::gateway::Gateway;
use crate::program::{self, Program};
use crate::support::Child;
use crate::upstream::Upstream;

fn tables(upstream: &Upstream, key: &str) -> String {
    format!(
        "[[certificates]]\nchain = \"edge.pem\"\nkey = \"edge.key\"\n{key}\n\
         [routes.vm]\nhost = \"{NAME}\"\nupstream = \"{}\"\n",
        upstream.address
    )
}

#[tokio::test]
async fn a_reload_reads_the_passphrase_again_and_one_that_does_not_open_the_key_leaves_the_old() {
    let Some(scene) = Scene::new() else { return };
    scene.encrypt("edge.key", "");
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&scene.authority, &tables(&upstream, FROM_FILE)).await;
    let client = std::sync::Arc::new(scene.authority.client(&[&rustls::version::TLS13]));
    let shown = async || {
        let tls = gateway.connect_tls(&client, NAME).await.unwrap();
        tls.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let before = shown().await;

    // A new certificate, whose key has another passphrase.
    let issued = scene.authority.issue(&[NAME]);
    scene.authority.write("edge.pem", &issued.certificate.pem());
    scene
        .authority
        .write("plain.key", &issued.key.serialize_pem());
    scene.passphrase("passphrase", "another one");
    scene.encrypt("edge.key", "");
    scene.passphrase("passphrase", "a wrong one");
    let refused = gateway.reload.done("a test").await.unwrap_err();
    assert!(
        refused.contains("the passphrase does not open the key"),
        "{refused}"
    );
    assert_eq!(shown().await, before);

    scene.passphrase("passphrase", "another one");
    gateway.reload.done("a test").await.unwrap();
    assert_eq!(shown().await, *issued.certificate.der());
}

#[tokio::test]
async fn a_key_that_becomes_readable_by_all_is_refused_and_the_old_serves_on() {
    let Some(scene) = Scene::new() else { return };
    fs::copy(scene.path("plain.key"), scene.path("edge.key")).unwrap();
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&scene.authority, &tables(&upstream, "")).await;
    let set = |mode| {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(scene.path("edge.key"), mode).unwrap();
    };
    set(0o644);
    let refused = gateway.reload.done("a test").await.unwrap_err();
    assert!(refused.contains("run: chmod 600 "), "{refused}");
    let client = std::sync::Arc::new(scene.authority.client(&[&rustls::version::TLS13]));
    gateway.connect_tls(&client, NAME).await.unwrap();
    set(0o640);
    gateway.reload.done("a test").await.unwrap();
}

fn message(line: &str, says: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    let message = line["message"].as_str()?;
    message.contains(says).then(|| message.to_owned())
}

/// Reloads it, and waits for how that went.
fn reload(child: &Child, says: &str) -> String {
    child.signal("HUP");
    child.wait_for("how the reload went", |line| message(line, says))
}

/// In the sandbox, where nothing else is executed.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_in_the_sandbox_runs_the_program_that_was_configured_and_no_other() {
    let Some(scene) = Scene::new() else { return };
    scene.encrypt("edge.key", "");
    let upstream = Upstream::echo().await;
    let script = |name: &str, text: &str| {
        let path = scene.authority.write(name, &format!("#!/bin/sh\n{text}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        format!("key_passphrase_command = [{path:?}]")
    };
    let runs = scene.path("passphrase");
    let own = script(
        "own",
        &format!("read line < {}; echo \"$line\"", runs.display()),
    );
    let head = "admin = \"127.0.0.1:0\"\nlog = { format = \"json\" }\n";
    let program = Program::start(
        &scene.authority,
        &format!("{head}{}", tables(&upstream, &own)),
    );
    assert!(reload(&program.child, "new configuration").ends_with("serves"));

    // It is run again: what it says now does not open the key.
    scene.passphrase("passphrase", "a wrong one");
    let refused = reload(&program.child, "is refused");
    assert!(
        refused.contains("the passphrase does not open the key"),
        "{refused}"
    );
    scene.passphrase("passphrase", PASSPHRASE);

    let other = script("other", &format!("echo {PASSPHRASE}"));
    let text = format!(
        "listen = [\"127.0.0.1:0\"]\n{head}{}",
        tables(&upstream, &other)
    );
    scene.authority.write("portcullis.toml", &text);
    let refused = reload(&program.child, "cannot be run");
    assert!(
        refused.contains("executes only the programs that were configured when it was started"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_from_a_descriptor_opens_the_key_of_a_reload_too() {
    let Some(scene) = Scene::new() else { return };
    scene.encrypt("edge.key", "");
    let upstream = Upstream::echo().await;
    let head = "admin = \"127.0.0.1:0\"\nlog = { format = \"json\" }\n";
    let text = format!("{head}{}", tables(&upstream, ""));
    let address = "127.0.0.1:0".parse().unwrap();
    let inner = program::command(&scene.authority, address, &text, &[]);
    // A pipe: what has been read from it is gone.
    let mut shell = Command::new("sh");
    let file = scene.path("passphrase");
    shell.args([
        "-c",
        "mkfifo \"$FILE.fifo\"; cat \"$FILE\" >\"$FILE.fifo\" & exec 5<\"$FILE.fifo\"; exec \"$0\" \"$@\" --passphrase-fd 5",
    ]);
    shell
        .env("FILE", &file)
        .arg(inner.get_program())
        .args(inner.get_args());
    let child = Child::spawn(&shell);
    child.wait_for("that it listens", |line| message(line, "admin interface"));
    assert!(reload(&child, "new configuration").ends_with("serves"));
}
