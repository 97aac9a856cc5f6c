//! A passphrase from a descriptor: read itself, whatever it leads to and whoever has opened it, and not for ever.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use super::sources::{echoed, strict};
use super::{NAME, PASSPHRASE, Scene, by_nobody, connecting, portcullis};
use crate::support::{Child, run};
use crate::upstream::Upstream;

/// A shell that prepares the descriptor 3, in which `"$0" "$@"` is the program.
fn prepared(script: &str, program: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]);
    shell.arg(program.get_program()).args(program.get_args());
    shell
}

/// What is told of a connection that does not begin.
#[track_caller]
fn refused(child: Child, says: &str) {
    let done = child.finish();
    let told = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(2), "{told}");
    assert!(told.contains(says), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_descriptor_is_read_from_where_it_stands_be_it_a_file_or_a_socket() {
    let Some(scene) = Scene::new() else { return };
    scene.encrypt("client.key", "");
    let upstream = Upstream::echo().await;
    let gateway = strict(&scene, &upstream).await;
    let mut program = portcullis(&[]);
    program.args(connecting(
        &scene,
        gateway.address,
        &scene.path("client.key"),
    ));
    program.args(["--passphrase-fd", "3", NAME]);

    let second = format!("another line\n{PASSPHRASE}\nbehind it\n");
    let second = scene.authority.write("second", &second);
    let script =
        "{ read -r first <&3; \"$0\" \"$@\"; read -r rest <&3; echo \"$rest\"; } 3<\"$FILE\"";
    let mut from_file = prepared(script, &program);
    let done = run(from_file.env("FILE", second), b"hello\n");
    assert_eq!(String::from_utf8_lossy(&done.stderr), "");
    assert_eq!(done.stdout, b"hello\nbehind it\n");

    let (mut here, there) = UnixStream::pair().unwrap();
    here.write_all(format!("{PASSPHRASE}\nmore").as_bytes())
        .unwrap();
    let mut from_socket = prepared("exec \"$0\" \"$@\" 3<&0 0<\"$HELLO\"", &program);
    from_socket.env("HELLO", scene.authority.write("hello", "hello\n"));
    echoed(&Child::spawn_with(&from_socket, there.into()).finish());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_its_opener_alone_may_read_is_read() {
    let Some(scene) = Scene::new() else { return };
    scene.encrypt("client.key", "");
    let upstream = Upstream::echo().await;
    let gateway = strict(&scene, &upstream).await;
    let Some(mut program) = by_nobody(&scene) else {
        return;
    };
    let key = scene.path("client.key");
    program.args(connecting(&scene, gateway.address, &key));
    program.args(["--passphrase-fd", "3", NAME]);
    let roots = scene.authority.write("roots", PASSPHRASE);
    fs::set_permissions(&roots, Permissions::from_mode(0o600)).unwrap();
    let mut command = prepared("exec \"$0\" \"$@\" 3<\"$FILE\"", &program);
    echoed(&run(command.env("FILE", roots), b"hello\n"));
}

#[test]
fn what_brings_no_passphrase_is_waited_for_as_long_as_a_connection_and_no_longer() {
    let Some(scene) = Scene::new() else { return };
    scene.encrypt("client.key", "");
    let mut program = portcullis(&[]);
    program.args(connecting(&scene, "127.0.0.1:1", &scene.path("client.key")));
    program.args(["--passphrase-fd", "3", "--timeout"]);
    let began = Instant::now();
    let mut patient = program;
    patient.args(["300ms", NAME]);
    let silent = prepared("exec \"$0\" \"$@\" 3<&0 0</dev/null", &patient);
    let (child, mut stdin) = Child::spawn_with_stdin(&silent);
    // A line that does not end is none.
    stdin.write_all(b"half").unwrap();
    refused(
        child,
        "--passphrase-fd 3: no line has come from there within 300ms\nhint: write the passphrase there",
    );
    drop(stdin);
    for (script, says) in [
        ("3>/dev/null", "cannot be read: Bad file descriptor"),
        ("3>&-", "cannot be read: Bad file descriptor"),
        ("3</dev/null", "holds no passphrase"),
        ("3</", "cannot be read: Is a directory"),
    ] {
        let script = format!("exec \"$0\" \"$@\" {script}");
        refused(Child::spawn(&prepared(&script, &patient)), says);
    }
    assert!(began.elapsed() < Duration::from_secs(20));
    // The forgotten one, where nobody's patience ends it.
    let key = scene.path("client.key");
    let mut tunnel = portcullis(&["tunnel", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1"]);
    tunnel.arg("--ca").arg(scene.path("ca.pem"));
    tunnel.arg("--cert").arg(scene.path("edge.pem"));
    tunnel.arg("--key").arg(key).args(["--passphrase-fd", "3"]);
    let forgotten = prepared("exec \"$0\" \"$@\" 3>&-", &tunnel);
    refused(
        Child::spawn(&forgotten),
        "cannot be read: Bad file descriptor",
    );
}
