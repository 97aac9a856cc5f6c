//! `portcullis tunnel` as a program: its flags, its mistakes, systemd's sockets, its end.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{NAME, Pair, VERIFIED, master, worker};
use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::peers;
use crate::support::{Child, run};
use crate::upstream::Upstream;

/// A master, and the flags of a tunnel to it but for where it listens.
pub(super) struct Scene {
    pub(super) authority: Authority,
    pub(super) master: Gateway,
    _upstream: Upstream,
}

impl Scene {
    pub(super) async fn new() -> Self {
        let (authority, upstream) = (Authority::new(), Upstream::echo().await);
        authority.issue_files("worker", &["worker.example.test"]);
        Self {
            master: Gateway::start(&authority, &master(&authority, &upstream)).await,
            authority,
            _upstream: upstream,
        }
    }

    pub(super) fn command(&self, more: &[&str]) -> Command {
        let mut command = tunnel(&[]);
        for (flag, file) in [
            ("--ca", "ca.pem"),
            ("--cert", "worker.pem"),
            ("--key", "worker.key"),
        ] {
            command.arg(flag).arg(self.authority.folder().join(file));
        }
        command.args([
            "--to",
            &self.master.address.to_string(),
            "--server-name",
            NAME,
        ]);
        command.args(more);
        command
    }
}

pub(super) fn tunnel(arguments: &[&str]) -> Command {
    let mut command = portcullis("tunnel");
    command.args(arguments);
    command
}

pub(super) fn portcullis(subcommand: &str) -> Command {
    let mut command = peers::unconfigured(Path::new(env!("CARGO_BIN_EXE_portcullis")), "CONSUL_");
    command.arg(subcommand);
    command
}

/// Where it listens, as it says.
fn listens(child: &Child) -> SocketAddr {
    child.wait_for("where it listens", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let said = line["message"] == "listening for a tunnel";
        line["address"].as_str().filter(|_| said)?.parse().ok()
    })
}

fn said_and_heard(mut stream: impl Read + Write, end: impl Fn()) -> Vec<u8> {
    stream.write_all(b"word").unwrap();
    end();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    heard
}

pub(super) fn through(address: SocketAddr) -> Vec<u8> {
    let tcp = TcpStream::connect(address).unwrap();
    let end = tcp.try_clone().unwrap();
    said_and_heard(tcp, || end.shutdown(Shutdown::Write).unwrap())
}

pub(super) fn through_socket(path: &Path) -> Vec<u8> {
    let unix = UnixStream::connect(path).unwrap();
    let end = unix.try_clone().unwrap();
    said_and_heard(unix, || end.shutdown(Shutdown::Write).unwrap())
}

/// Its records, and what it has said, after it was told to end.
pub(super) fn ended(child: Child) -> (Vec<Value>, String) {
    child.signal("TERM");
    let output = child.finish();
    assert!(output.status.success(), "{output:?}");
    let records = String::from_utf8(output.stdout).unwrap();
    let records = records
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    (records.collect(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flags_are_enough_and_files_that_change_are_shown_from_then_on() {
    let mut scene = Scene::new().await;
    let socket = scene.authority.folder().join("s");
    let listen = format!("unix:{}", socket.display());
    let flags = [
        "--listen",
        "127.0.0.1:0",
        "--listen",
        &listen,
        "--mode",
        "0660",
    ];
    let command = scene.command(&[&flags[..], &["--alpn", "h2"]].concat());
    let child = Child::spawn(&command);
    assert_eq!(through(listens(&child)), b"word");
    assert_eq!(scene.master.ended().await["alpn"], "h2");
    assert_eq!(through_socket(&socket), b"word");
    assert_eq!(scene.master.ended().await["reason"], "closed");

    let stranger = Authority::new();
    stranger.issue_files("worker", &["worker.example.test"]);
    for name in ["worker.key", "worker.pem"] {
        let text = std::fs::read_to_string(stranger.folder().join(name)).unwrap();
        scene.authority.write(name, &text);
    }
    child.wait_for("that it has read them", |line| {
        line.contains("the new configuration serves").then_some(())
    });
    let mut refused = TcpStream::connect(listens(&child)).unwrap();
    let _ = refused.read_to_end(&mut Vec::new());
    assert_eq!(scene.master.ended().await["reason"], "client_certificate");
    let (records, said) = ended(child);
    assert!(!socket.exists());
    let reasons: Vec<_> = records.iter().map(|record| &record["reason"]).collect();
    assert_eq!(reasons, ["closed", "closed", "upstream_tls"], "{said}");
    assert!(said.contains("the command line"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_behind_a_gateway_is_reached_as_connect_reaches_it() {
    let mut scene = Scene::new().await;
    let gateway = scene.master.address.to_string();
    let mut command = tunnel(&["--listen", "127.0.0.1:0", "--gateway", &gateway, NAME]);
    command.current_dir(scene.authority.folder());
    command.args([
        "--ca",
        "ca.pem",
        "--cert",
        "worker.pem",
        "--key",
        "worker.key",
    ]);
    let child = Child::spawn(&command);
    assert_eq!(through(listens(&child)), b"word");
    assert_eq!(scene.master.ended().await["sni"], NAME);
    ended(child);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_with_tunnels_serves_and_one_without_is_told_so() {
    let pair = Pair::start().await;
    let tables = worker(
        &pair.authority,
        &pair.master,
        "listen = \"127.0.0.1:0\"\n",
        VERIFIED,
    );
    let path = pair.folder.write("tunnel.toml", &tables);
    let path = path.to_str().unwrap();
    let child = Child::spawn(&tunnel(&[
        "--config",
        path,
        "--passphrase-file",
        "/nowhere",
    ]));
    assert_eq!(through(listens(&child)), b"word");
    // What is refused at the start is refused later too: here an editor's first half of a change.
    pair.folder.write("tunnel.toml", "");
    child.wait_for("that it is refused", |line| {
        let is_refused = line.contains("the new configuration is refused");
        (is_refused && line.contains("there are no `tunnels`")).then_some(())
    });
    assert_eq!(through(listens(&child)), b"word");
    ended(child);
    let nowhere = worker(
        &pair.authority,
        &pair.master,
        "listen = \"unix:nowhere/s.sock\"\n",
        VERIFIED,
    );
    let nowhere = pair.folder.write("nowhere.toml", &nowhere);
    let output = run(&tunnel(&["--config", nowhere.to_str().unwrap()]), b"");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("error: `tunnels.clusterd.listen`: unix:"),
        "{said}"
    );
    assert!(said.contains("nowhere is not there"), "{said}");
    let empty = pair.folder.write("empty.toml", "admin = false\n");
    let output = run(&tunnel(&["--config", empty.to_str().unwrap()]), b"");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("there are no `tunnels`"), "{said}");
}

#[test]
fn mistakes_are_told_by_the_flags_that_hold_them() {
    let to = ["--to", "127.0.0.1:1"];
    for (arguments, told) in [
        (
            &["--listen", "0.0.0.0:0"][..],
            "portcullis: `--listen`: 0.0.0.0:0 is not a loopback",
        ),
        (
            &["--listen", "0.0.0.0:0"],
            "or add `--insecure-listen` if the network is trusted",
        ),
        (
            &["--listen", "127.0.0.1:0", "--ca", "/nonexistent"],
            "portcullis: `--ca`: /nonexistent",
        ),
        (
            &["--listen", "127.0.0.1:0", "--allow-uid", "7"],
            "portcullis: `--allow-uid` without a UNIX socket",
        ),
        (&[], "portcullis: `--listen` is missing"),
        (
            &["--systemd"],
            "portcullis: `--systemd`: no socket was handed over",
        ),
        (
            &["--listen", "127.0.0.1:0", "--timeout", "x"],
            "portcullis: `--timeout`",
        ),
        (
            &[
                "--listen",
                "127.0.0.1:0",
                "--listen",
                "unix:/tmp/s",
                "--allow-uid",
                "7",
            ],
            "portcullis: `--allow-uid` beside 127.0.0.1:0: over TCP nobody tells",
        ),
        (
            &["--listen", "unix:@abstract"],
            "portcullis: `--listen`: \"unix:@abstract\" is a socket of the abstract namespace",
        ),
        (
            &["--listen", "127.0.0.1:0", "--allow-uid", "7"],
            "hint: listen on a socket, as in `--listen unix:/run/portcullis/clusterd.sock`, or remove it\n",
        ),
        (
            &["--listen", "127.0.0.1:0", "--alpn", ""],
            "hint: write 1 to 255 bytes, such as \"h2\", or leave it out\n",
        ),
        (
            &["--listen", "127.0.0.1:0", "--alpn", "portcullis/1"],
            "is reserved: a gateway's clients, `portcullis connect` and tunnels by `gateway`, offer it of themselves\n",
        ),
        (
            &["--listen", "unix:/nonexistent/deep/s.sock"],
            "portcullis: `--listen`: unix:/nonexistent/deep/s.sock: its folder /nonexistent/deep is not there\n\
             hint: make it for the user that serves",
        ),
        (
            &["--listen", "unix:/etc/passwd/s.sock"],
            "portcullis: `--listen`: unix:/etc/passwd/s.sock: /etc/passwd is no folder\n",
        ),
        (
            &["--listen", "unix:/etc/passwd"],
            "portcullis: `--listen`: \"unix:/etc/passwd\" is a file, and no socket\n",
        ),
        (
            &["--listen", "foo"],
            "hint: write an IP address and a port, such as \"127.0.0.1:8899\", or a socket",
        ),
        (&["--listen", "8899"], "hint: write \"127.0.0.1:8899\"\n"),
    ] {
        let output = run(&tunnel(&[&to[..], arguments].concat()), b"");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(told), "{told} in {said}");
        assert!(said.contains("hint: "), "{said}");
        assert!(!said.contains("sandbox"), "{said}");
        assert!(!said.contains("tunnels.tunnel"), "{said}");
    }
    let listen = ["--listen", "127.0.0.1:0"];
    for (arguments, told) in [
        (
            &["--to", "https://a.example.test:8443/x"][..],
            "portcullis: `--to`: \"https://a.example.test:8443/x\" is no host with a port: \"https\" is a scheme\n\
             hint: leave it out, as in \"a.example.test:8443\": a tunnel always speaks TLS\n",
        ),
        (
            &["--to", "a.example.test"],
            "portcullis: `--to`: \"a.example.test\" is no host with a port: it has none\n\
             hint: add it, as in \"a.example.test:8443\"\n",
        ),
        (&["--to", "::1"], "hint: add it, as in \"[::1]:8443\"\n"),
        (
            &["--gateway", "https://gate.example.test", "n.test"],
            "portcullis: `--gateway`: \"https://gate.example.test\" is no host with a port: \"https\" is a scheme\n\
             hint: leave it out, as in \"gate.example.test\"",
        ),
        (
            &["--gateway", "gate.example.test:0", "n.test"],
            "portcullis: `--gateway`: \"gate.example.test:0\" is no host with a port: \"0\" is no port\n",
        ),
        (
            &["--gateway", "gate.example.test", "https://n.test"],
            "portcullis: `NAME`: \"https://n.test\" is no host name",
        ),
    ] {
        let output = run(&tunnel(&[&listen[..], arguments].concat()), b"");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(told), "{told} in {said}");
    }
    for arguments in [
        &["--listen", "127.0.0.1:0"][..],
        &["--gateway", "g.test"],
        &["--to", "a:1", "--cert", "x"],
    ] {
        let output = run(&tunnel(arguments), b"");
        assert_eq!(output.status.code(), Some(2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_worker_does_not_take_a_socket_from_one_that_lives_and_does_from_one_that_was_killed()
 {
    let scene = Scene::new().await;
    let path = scene.authority.folder().join("s");
    let listen = format!("unix:{}", path.display());
    let command = scene.command(&["--listen", &listen]);
    let waits = |child: &Child| {
        child.wait_for("that it listens", |line| {
            line.contains("listening for a tunnel").then_some(())
        });
    };
    let first = Child::spawn(&command);
    waits(&first);
    let second = run(&command, b"");
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("another process does already"), "{said}");
    assert_eq!(through_socket(&path), b"word");
    first.signal("KILL");
    first.finish();
    assert!(path.exists());
    let third = Child::spawn(&command);
    waits(&third);
    assert_eq!(through_socket(&path), b"word");
    ended(third);
}
