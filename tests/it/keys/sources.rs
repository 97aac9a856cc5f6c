//! Where a passphrase comes from, for the program itself: files, descriptors and programs.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use super::{FROM_FILE, NAME, PASSPHRASE, Scene, connecting, portcullis};
use crate::gateway::Gateway;
use crate::support::{run, wait_until};
use crate::upstream::Upstream;

/// A gateway that lets nobody in without a certificate, and echoes.
pub(super) async fn strict(scene: &Scene, upstream: &Upstream) -> Gateway {
    let tables = format!(
        "certificates = [{{ chain = \"edge.pem\", key = \"plain.key\" }}]\n\
         [tls.options.default]\nclient_auth = \"required\"\nclient_ca = [\"ca.pem\"]\n\
         [routes.vm]\nhost = \"{NAME}\"\nupstream = \"{}\"\n",
        upstream.address
    );
    Gateway::start(&scene.authority, &tables).await
}

#[track_caller]
pub(super) fn echoed(done: &Output) {
    assert_eq!(String::from_utf8_lossy(&done.stderr), "");
    assert_eq!(done.stdout, b"hello\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_shows_a_certificate_whose_key_a_flag_opens() {
    let Some(scene) = Scene::new() else { return };
    scene.encrypt("client.key", "");
    let upstream = Upstream::echo().await;
    let gateway = strict(&scene, &upstream).await;
    let own = connecting(&scene, gateway.address, &scene.path("client.key"));
    let with = |arguments: &[&str]| {
        let own: Vec<_> = own.iter().map(String::as_str).collect();
        portcullis(&[&own, arguments, &[NAME]].concat())
    };
    let passphrase = scene.path("passphrase").display().to_string();
    echoed(&run(&with(&["--passphrase-file", &passphrase]), b"hello\n"));
    let cat = format!("cat {passphrase}");
    echoed(&run(&with(&["--passphrase-command", &cat]), b"hello\n"));

    let mut shell = Command::new("sh");
    let inner = with(&["--passphrase-fd", "3"]);
    let script = "printf '%s\\n' \"$PASSPHRASE\" | { exec 3<&0 0<&4 4<&-; exec \"$0\" \"$@\"; }";
    shell.args(["-c", &format!("exec 4<&0; {script}")]);
    shell.env("PASSPHRASE", PASSPHRASE);
    shell.arg(inner.get_program()).args(inner.get_args());
    echoed(&run(&shell, b"hello\n"));

    let fail = |arguments: &[&str], says: &str| {
        let done = run(&with(arguments), b"");
        let told = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{told}");
        assert!(told.contains(says), "{told}");
        assert!(!told.contains(PASSPHRASE), "{told}");
    };
    fail(&["--passphrase-fd", "0"], "stdin carries the tunnel");
    fail(
        &["--passphrase-fd", "9"],
        "--passphrase-fd 9: cannot be read",
    );
    fail(&["--passphrase-file", "/none"], "/none: does not exist");
    fail(
        &["--passphrase-command", "false"],
        "has failed: exit status: 1",
    );
    fail(
        &["--passphrase-command", "echo wrong"],
        "client.key: the passphrase does not open the key",
    );
    fail(
        &["--passphrase-fd", "3", "--passphrase-file", "/none"],
        "cannot be used with",
    );
}

#[test]
fn check_asks_nobody_and_takes_what_a_flag_gives() {
    let Some(scene) = Scene::new() else { return };
    scene.encrypt("edge.key", "");
    let route = format!("[routes.vm]\nhost = \"{NAME}\"\nupstream = \"127.0.0.1:1\"");
    let _ = scene.load("edge.key", &route);
    let config = scene.path("portcullis.toml").display().to_string();
    let check = ["check", "--config", &config];
    let done = run(&portcullis(&check), b"");
    let told = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(2), "{told}");
    assert!(
        told.contains("the key is encrypted, and there is no passphrase for it"),
        "{told}"
    );
    assert!(told.contains("--passphrase-file"), "{told}");
    assert!(!told.contains("no `certificates`"), "{told}");
    let passphrase = scene.path("passphrase").display().to_string();
    let with = [&check[..], &["--passphrase-file", &passphrase]].concat();
    let done = run(&portcullis(&with), b"");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let _ = scene.load("edge.key", FROM_FILE);
    assert!(run(&portcullis(&check), b"").status.success());
}

#[test]
fn a_program_that_hangs_is_killed_with_all_that_it_has_started() {
    let Some(scene) = Scene::new() else { return };
    scene.encrypt("edge.key", "");
    let numbers = scene.path("numbers").display().to_string();
    let script = format!("sleep 600 & echo $$ $! > {numbers}; wait");
    let more = format!("key_passphrase_command = [\"/bin/sh\", \"-c\", \"{script}\"]");
    let start = Instant::now();
    let told = scene.refused("edge.key", &more);
    assert!(start.elapsed() < Duration::from_secs(20));
    assert!(
        told.contains("has not written the passphrase within 10s"),
        "{told}"
    );
    let numbers = std::fs::read_to_string(numbers).unwrap();
    assert_eq!(numbers.split_whitespace().count(), 2);
    for number in numbers.split_whitespace() {
        wait_until("it is gone", || {
            let stat = std::fs::read_to_string(format!("/proc/{number}/stat"));
            stat.map_or(true, |stat| stat.contains(") Z ") || stat.contains(") X "))
        });
    }
}

#[test]
fn a_program_writes_what_it_likes_and_is_believed_when_it_succeeds() {
    let Some(scene) = Scene::new() else { return };
    scene.encrypt("edge.key", "");
    let with = |script: &str| {
        let more = format!("key_passphrase_command = [\"/bin/sh\", \"-c\", \"{script}\"]");
        scene
            .load("edge.key", &more)
            .map(drop)
            .map_err(|told| told.to_string())
    };
    let say = format!("echo {PASSPHRASE}");
    assert_eq!(with(&say), Ok(()));
    assert_eq!(
        with(&format!("echo a warning >&2; {say}; echo more")),
        Ok(())
    );
    for (script, says) in [
        ("exit 0", "its first line is empty"),
        (&format!("{say}; exit 1"), "has failed: exit status: 1"),
        ("echo no token >&2; exit 1", "it says: no token"),
        ("kill -9 $$", "has failed: signal: 9"),
        ("yes wrong | head -c 1000000", "longer than 4 KiB"),
    ] {
        let told = with(script).unwrap_err();
        assert!(told.contains(says), "{told}");
    }
}
