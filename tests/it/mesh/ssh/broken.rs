//! What is killed or suspended: the rest ends by itself and soon, or goes on where it was.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{self, ChildStdin, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use super::{NAME, Proxy, SOON, Scene, peak};
use crate::again;
use crate::soak::watch::memory;
use crate::support::{Child, run, wait_until};
use crate::vm::{FILE, assert_same};

/// How long nothing must have moved to be taken for standing still.
const STILL: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread")]
async fn an_ssh_that_is_killed_leaves_no_helper_and_no_session() {
    for proxy in [Proxy::BuiltIn, Proxy::Envoy] {
        let Some(mut scene) = Scene::start(proxy, &[]).await else {
            return;
        };
        // One waits for input, the other one's output waits for ssh.
        for (remote, suspended) in [
            ("echo ready; cat", false),
            ("echo ready; cat /dev/zero", true),
        ] {
            let session = Session::begin(&scene, remote);
            if suspended {
                session.ssh.signal("STOP");
                stands_still(&scene).await;
            }
            let killed = Instant::now();
            session.ssh.signal("KILL");
            wait_until("the helper has ended", || scene.helpers().is_empty());
            scene.closed().await;
            assert!(killed.elapsed() < SOON, "{:?}", killed.elapsed());
            let done = session.ssh.finish();
            assert!(done.stderr.is_empty(), "{done:?}");
        }
        scene.nothing_is_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_helper_that_is_killed_ends_ssh_and_the_session() {
    for proxy in [Proxy::BuiltIn, Proxy::Envoy] {
        let Some(mut scene) = Scene::start(proxy, &[]).await else {
            return;
        };
        let session = Session::begin(&scene, "echo ready; cat");
        let killed = Instant::now();
        let helper = Pid::from_raw(scene.helpers()[0] as i32).unwrap();
        kill_process(helper, Signal::KILL).unwrap();
        let done = session.ssh.finish();
        assert_eq!(done.status.code(), Some(255), "{done:?}");
        // It says so in one of two ways, as it was about to write or to read.
        let told = String::from_utf8(done.stderr).unwrap();
        let is_told = |words| told.contains(words) && told.lines().count() == 1;
        assert!(
            is_told("Broken pipe") || is_told("closed by remote host"),
            "{told}"
        );
        scene.closed().await;
        assert!(killed.elapsed() < SOON, "{:?}", killed.elapsed());
        scene.nothing_is_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_ends_the_session_and_ssh_says_so() {
    for proxy in [Proxy::BuiltIn, Proxy::Envoy] {
        let Some(mut scene) = Scene::start(proxy, &[]).await else {
            return;
        };
        // Who runs the command is who holds the connection.
        let command = scene.ssh("echo ready; read line; kill -KILL $PPID");
        let (ssh, mut stdin) = Child::spawn_with_stdin(&command);
        ssh.wait_for("ready", |line| (line == "ready").then_some(()));
        stdin.write_all(b"now\n").unwrap();
        let done = ssh.finish();
        assert_eq!(done.status.code(), Some(255), "{done:?}");
        assert_eq!(done.stdout, b"ready\n", "{done:?}");
        let told = format!("Connection to {NAME} closed by remote host.\r\n");
        assert_eq!(done.stderr, told.as_bytes(), "{done:?}");
        scene.closed().await;
        scene.nothing_is_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_is_killed_is_told_with_what_to_do() {
    for proxy in [Proxy::BuiltIn, Proxy::Envoy] {
        let Some(mut scene) = Scene::start(proxy, &[]).await else {
            return;
        };
        let session = Session::begin(&scene, "echo ready; cat");
        scene.sidecar.child.signal("KILL");
        let done = session.ssh.finish();
        assert_eq!(done.status.code(), Some(255), "{done:?}");
        let told = String::from_utf8(done.stderr).unwrap();
        let ours: Vec<&str> = told.lines().filter(|line| is_ours(line)).collect();
        assert_eq!(ours.len(), 2, "{told}");
        assert!(ours[0].contains("was cut off"), "{told}");
        // Who has seen it first is not who is to blame.
        let record = scene.mesh.gateway.ended().await;
        assert_eq!(record["reason"], "upstream_reset", "{record}");
        scene.nothing_is_left();
    }
}

const SUSPENDED: &str = "PORTCULLIS_TEST_OF_A_SUSPENDED_READER";

/// In a process of its own: the gateway's memory is its memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_reader_costs_no_memory_and_loses_nothing() {
    if !again::is_inside(SUSPENDED) {
        let test = "mesh::ssh::broken::a_suspended_reader_costs_no_memory_and_loses_nothing";
        return again::inside(&Command::new("env"), test, SUSPENDED);
    }
    for proxy in [Proxy::BuiltIn, Proxy::Envoy] {
        reads_after_a_while(proxy).await;
    }
}

async fn reads_after_a_while(proxy: Proxy) {
    let Some(mut scene) = Scene::start(proxy, &[]).await else {
        return;
    };
    let [here, _, back] = scene.vm.files(FILE);
    let before = memory(process::id());
    let ssh = scene.ssh(&format!("cat {}", here.display()));
    let ssh = Child::spawn(&into(&ssh, &back));
    wait_until("some of it came", || length(&back) > 0);
    ssh.signal("STOP");
    wait_until("it is suspended", || ssh.is_stopped());
    let came = length(&back);
    assert!(came < FILE, "all of it came before");

    let moved = stands_still(&scene).await;
    let more = memory(process::id()).saturating_sub(before);
    let helper = peak(scene.helpers()[0]).unwrap();
    println!(
        "{came} bytes written, {moved} moved: the gateway has {more} KiB more, connect {helper} KiB"
    );
    assert!(more < 16 * 1024, "{more} KiB more");
    assert!(helper < 48 * 1024, "{helper} KiB");

    ssh.signal("CONT");
    let done = ssh.finish();
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    assert_same(&here, &back);
    scene.closed().await;
}

/// An ssh whose output nobody reads any more, once it has said that it is there; its input stays open.
struct Session {
    ssh: Child,
    _stdin: ChildStdin,
    _output: File,
}

impl Session {
    fn begin(scene: &Scene, remote: &str) -> Self {
        let output = tempfile::tempdir_in(scene.mesh.authority.folder()).unwrap();
        let output = output.keep().join("output");
        let done = run(Command::new("mkfifo").arg(&output), b"");
        assert!(done.status.success(), "{done:?}");
        let (ssh, stdin) = Child::spawn_with_stdin(&into(&scene.ssh(remote), &output));
        let mut output = File::open(&output).unwrap();
        let mut ready = [0; 6];
        output.read_exact(&mut ready).unwrap();
        assert_eq!(&ready, b"ready\n");
        Self {
            ssh,
            _stdin: stdin,
            _output: output,
        }
    }
}

fn is_ours(line: &str) -> bool {
    line.starts_with("portcullis: ") || line.starts_with("hint: ")
}

/// The command with its output in this file.
fn into(command: &Command, output: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" >\"$OUTPUT\"", "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.env("OUTPUT", output);
    shell
}

/// Waits until nothing comes through the gateway any more; so much has come down.
async fn stands_still(scene: &Scene) -> u64 {
    let mut moved = scene.moved().await;
    loop {
        sleep(STILL).await;
        let now = scene.moved().await;
        if now == moved {
            return now[1];
        }
        moved = now;
    }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len())
}
