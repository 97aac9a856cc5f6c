//! `portcullis connect` as ssh runs it: the program itself, its two pipes, its words and its exit code.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::unbounded_channel;
use tokio_rustls::server::TlsStream;

use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::support::{Child, run};
use crate::upstream::Upstream;

mod asked;
mod ends;
mod failures;
mod foreign;
mod own_file;
mod proxies;
mod shortage;
mod stalls;
mod status;
mod tinyproxy;
mod told;
mod way;

/// Whom every test wants to reach.
const TARGET: &str = "vm.example.test";

/// `portcullis connect` to this gateway, trusting this CA.
fn connect(authority: &Authority, gateway: impl ToString) -> Command {
    let mut command = bare(authority);
    command.args(["--gateway", &gateway.to_string(), "--ca"]);
    command.arg(authority.folder().join("ca.pem"));
    command
}

/// `portcullis connect` of a person who has said nothing yet, and has no file of his own.
fn bare(authority: &Authority) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.arg("connect");
    command.env("XDG_CONFIG_HOME", authority.folder());
    for name in ["PORTCULLIS_GATEWAY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command
}

/// The command with its last arguments.
fn to(mut command: Command, arguments: &[&str]) -> Command {
    command.args(arguments);
    command
}

/// A gateway that ends TLS for the target and serves every connection with `serve`.
async fn gate<F>(
    authority: &Authority,
    serve: impl Fn(TlsStream<TcpStream>) -> F + Clone + Send + Sync + 'static,
) -> Upstream
where
    F: Future<Output = ()> + Send + 'static,
{
    let config = authority.issue(&[TARGET]).server(&[&TLS12, &TLS13]);
    Upstream::tls(config, serve).await
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// Checks that the command failed with this code, nothing on stdout, and two lines: what happened and a hint.
#[track_caller]
fn failed(done: &Output, code: i32, says: &str, hints: &str) {
    let told = String::from_utf8(done.stderr.clone()).unwrap();
    assert_eq!(done.status.code(), Some(code), "{told}");
    let lines: Vec<_> = told.lines().collect();
    let [message, hint] = lines[..] else {
        panic!("not two lines: {told}");
    };
    assert!(
        message.starts_with("portcullis: ") && message.contains(says),
        "{told}"
    );
    assert!(hint.starts_with("hint: ") && hint.contains(hints), "{told}");
}

/// Checks that the command succeeded, said nothing and brought these bytes.
#[track_caller]
fn brought(done: &Output, bytes: &[u8]) {
    assert_eq!(String::from_utf8_lossy(&done.stderr), "");
    assert_eq!(done.status.code(), Some(0));
    assert!(done.stdout == bytes, "{} bytes came", done.stdout.len());
}

/// Bytes that repeat at no power of two.
fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed;
    let step = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(step).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_in_comes_back_and_the_end_of_the_input_is_passed_on() {
    let authority = Authority::new();
    authority.issue_files("edge", &[TARGET]);
    // An echo ends only when its client has.
    let upstream = Upstream::echo().await;
    let mut gateway = Gateway::start(
        &authority,
        &format!(
            "certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]
            [routes.vm]\nhost = \"{TARGET}\"\nupstream = \"{}\"",
            upstream.address
        ),
    )
    .await;
    for arguments in [vec![TARGET], vec!["--", "VM.Example.Test.", "22"]] {
        let command = to(connect(&authority, gateway.address), &arguments);
        brought(&run(&command, b"hello\nQ\n"), b"hello\nQ\n");
        let record = gateway.ended().await;
        assert_eq!(
            (&record["reason"], &record["sni"]),
            (&"closed".into(), &TARGET.into()),
            "{record}"
        );
    }
    let command = to(
        connect(&authority, gateway.address),
        &["other.example.test"],
    );
    failed(
        &run(&command, b""),
        13,
        "has no route for other.example.test",
        "/v1/routes",
    );
    drop(upstream);
    let command = to(connect(&authority, gateway.address), &[TARGET]);
    failed(
        &run(&command, b""),
        15,
        "no way to vm.example.test: what stands behind it takes no connections",
        "is it up?",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_ends_first_still_gets_all_of_the_answer() {
    let authority = Authority::new();
    let (up, down) = (noise(1, 16 << 20), Arc::new(noise(2, 16 << 20)));
    let (send, mut received) = unbounded_channel();
    let gate = gate(&authority, {
        let down = Arc::clone(&down);
        move |mut stream| {
            let (down, send) = (Arc::clone(&down), send.clone());
            async move {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                stream.write_all(&down).await.unwrap();
                stream.shutdown().await.unwrap();
                send.send(all).unwrap();
            }
        }
    })
    .await;
    let done = run(&to(connect(&authority, gate.address), &[TARGET]), &up);
    brought(&done, &down);
    assert!(received.recv().await.unwrap() == up);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_ends_first_still_gets_all_of_the_input() {
    let authority = Authority::new();
    let (up, down) = (noise(3, 16 << 20), Arc::new(noise(4, 16 << 20)));
    let (send, mut received) = unbounded_channel();
    let gate = gate(&authority, {
        let down = Arc::clone(&down);
        move |mut stream| {
            let (down, send) = (Arc::clone(&down), send.clone());
            async move {
                stream.write_all(&down).await.unwrap();
                stream.shutdown().await.unwrap();
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                send.send(all).unwrap();
            }
        }
    })
    .await;
    let command = to(connect(&authority, gate.address), &[TARGET]);
    let output = authority.folder().join("output");
    let (child, mut stdin) = Child::spawn_with_stdin(&piped(
        &command,
        "{ cat > $OUTPUT; echo stdout ended; }",
        &output,
    ));
    // Nothing has gone up when stdout ends.
    child.wait_for("the end of stdout", |line| {
        (line == "stdout ended").then_some(())
    });
    std::io::Write::write_all(&mut stdin, &up).unwrap();
    drop(stdin);
    brought(&child.finish(), b"stdout ended\n");
    assert!(std::fs::read(&output).unwrap() == *down);
    assert!(received.recv().await.unwrap() == up);
}

/// The command with its stdout in a pipe to this script; its exit code is the script's to ignore.
fn piped(command: &Command, script: &str, output: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("\"$@\" | {script}"), "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.env("OUTPUT", output);
    shell
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_ends_the_command_quietly() {
    let authority = Authority::new();
    let gate = gate(&authority, |mut stream| async move {
        while stream.write_all(b"0123456789").await.is_ok() {}
    })
    .await;
    let command = to(connect(&authority, gate.address), &[TARGET]);
    // Its stdin stays open: only stdout can tell it.
    let (child, _stdin) = Child::spawn_with_stdin(&piped(&command, "head -c 4", Path::new("")));
    brought(&child.finish(), b"0123");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_of_ssh_ends_it_quietly_and_ctrl_c_does_not_while_it_is_in_use() {
    let authority = Authority::new();
    let (send, mut ended) = unbounded_channel();
    let gate = gate(&authority, move |mut stream| {
        let send = send.clone();
        async move {
            stream.write_all(b"ready\n").await.unwrap();
            let mut buffer = [0; 64];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                stream.write_all(&buffer[..count]).await.unwrap();
            }
            let _ = send.send(());
            // Never answers the end of its client.
            std::future::pending::<()>().await;
        }
    })
    .await;
    let start = || {
        let tunnel = Child::spawn_with_stdin(&to(connect(&authority, gate.address), &[TARGET]));
        tunnel
            .0
            .wait_for("a greeting", |line| (line == "ready").then_some(()));
        tunnel
    };
    // Right after its SIGHUP ssh closes its pipes.
    for (signal, open) in [("HUP", false), ("TERM", true)] {
        let (child, stdin) = start();
        child.signal(signal);
        let stdin = open.then_some(stdin);
        brought(&child.finish(), b"ready\n");
        ended.recv().await.unwrap();
        drop(stdin);
    }
    let (child, mut stdin) = start();
    for signal in ["INT", "QUIT", "TSTP", "HUP"] {
        child.signal(signal);
    }
    std::io::Write::write_all(&mut stdin, b"still there\n").unwrap();
    child.wait_for("an echo", |line| (line == "still there").then_some(()));
    // After a SIGHUP the end of its input is its own.
    drop(stdin);
    ended.recv().await.unwrap();
    brought(&child.finish(), b"ready\nstill there\n");

    // Without an input nobody shares it.
    let (child, stdin) = start();
    drop(stdin);
    ended.recv().await.unwrap();
    child.signal("INT");
    let done = child.finish();
    assert_eq!((done.status.code(), done.stderr.len()), (Some(130), 0));
}
