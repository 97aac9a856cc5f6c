//! `portcullis tunnel` as a program: its flags, its mistakes, systemd's sockets, its end.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{NAME, Pair, VERIFIED, master, worker};
use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::peers;
use crate::program::handed;
use crate::support::{Child, run};
use crate::upstream::Upstream;

/// A master, and the flags of a tunnel to it but for where it listens.
struct Scene {
    authority: Authority,
    master: Gateway,
    _upstream: Upstream,
}

impl Scene {
    async fn new() -> Self {
        let (authority, upstream) = (Authority::new(), Upstream::echo().await);
        authority.issue_files("worker", &["worker.example.test"]);
        Self {
            master: Gateway::start(&authority, &master(&authority, &upstream)).await,
            authority,
            _upstream: upstream,
        }
    }

    fn command(&self, more: &[&str]) -> Command {
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

fn tunnel(arguments: &[&str]) -> Command {
    let mut command = peers::unconfigured(Path::new(env!("CARGO_BIN_EXE_portcullis")), "CONSUL_");
    command.arg("tunnel").args(arguments);
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

fn through(address: SocketAddr) -> Vec<u8> {
    let tcp = TcpStream::connect(address).unwrap();
    let end = tcp.try_clone().unwrap();
    said_and_heard(tcp, || end.shutdown(Shutdown::Write).unwrap())
}

fn through_socket(path: &Path) -> Vec<u8> {
    let unix = UnixStream::connect(path).unwrap();
    let end = unix.try_clone().unwrap();
    said_and_heard(unix, || end.shutdown(Shutdown::Write).unwrap())
}

/// Its records, and what it has said, after it was told to end.
fn ended(child: Child) -> (Vec<Value>, String) {
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
    ended(child);
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
    ] {
        let output = run(&tunnel(&[&to[..], arguments].concat()), b"");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(told), "{told} in {said}");
        assert!(said.contains("hint: "), "{said}");
        assert!(!said.contains("tunnels.tunnel"), "{said}");
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
async fn the_sockets_that_systemd_hands_over_are_listened_on_and_stay_when_it_ends() {
    let mut scene = Scene::new().await;
    let path = scene.authority.folder().join("s");
    let (tcp, unix) = (
        TcpListener::bind("127.0.0.1:0").unwrap(),
        UnixListener::bind(&path).unwrap(),
    );
    let address = tcp.local_addr().unwrap();
    for socket in [
        OwnedFd::from(tcp.try_clone().unwrap()),
        unix.try_clone().unwrap().into(),
    ] {
        let is_unix = socket2::SockRef::from(&socket).domain().unwrap() == socket2::Domain::UNIX;
        let visit = || match is_unix {
            true => through_socket(&path),
            false => through(address),
        };
        let command = scene.command(&["--systemd"]);
        let child = Child::spawn_with(&handed(&command, 1), socket);
        child.wait_for("that it listens", |line| {
            line.contains("listening for a tunnel").then_some(())
        });
        assert_eq!(visit(), b"word");
        assert_eq!(scene.master.ended().await["reason"], "closed");
        ended(child);
    }
    // Whoever holds them has them still.
    let _waits = TcpStream::connect(address).unwrap();
    let _waits = UnixStream::connect(&path).unwrap();
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
