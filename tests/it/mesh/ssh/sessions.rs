//! Many sessions at once, and sessions that lead further: `ssh -W`, and one machine behind another.

use std::io::Write;
use std::process::Command;
use std::thread;
use std::time::Instant;

use super::super::{tagged, tags};
use super::{NAME, Proxy, Scene};
use crate::authority::Authority;
use crate::consul::{Sidecar, meshed};
use crate::support::Child;
use crate::upstream::Upstream;
use crate::vm::{Vm, end};
use crate::{peers, ports};

/// A machine that is reached through the other one.
const TARGET: &str = "target.example.test";

/// How many sessions begin at a time: ssh and sshd spend their processor time then.
const BATCH: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn twenty_sessions_at_once_have_each_its_own_data() {
    sessions_at_once(Proxy::BuiltIn, 20).await;
    sessions_at_once(Proxy::Envoy, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_sessions_at_once_have_each_its_own_data() {
    if !peers::long() {
        return;
    }
    sessions_at_once(Proxy::BuiltIn, 200).await;
    sessions_at_once(Proxy::Envoy, 200).await;
}

async fn sessions_at_once(proxy: Proxy, number: usize) {
    let Some(mut scene) = Scene::start(proxy, &[]).await else {
        return;
    };
    let start = Instant::now();
    let mut sessions = Vec::new();
    while sessions.len() < number {
        let begun = sessions.len();
        let ssh = scene.ssh("echo ready; exec cat");
        sessions.extend((0..BATCH).map(|_| Child::spawn_with_stdin(&ssh)));
        for (session, _) in &sessions[begun..] {
            session.wait_for("ready", |line| (line == "ready").then_some(()));
        }
    }
    let began = start.elapsed();
    assert_eq!(scene.helpers().len(), number);
    assert!(scene.mesh.gateway.has_no_more_records());

    let data = |session: usize| {
        let numbers = (0..32 * 1024).map(|line| format!("{session}: {line}\n"));
        numbers.collect::<String>()
    };
    let sessions: Vec<Child> = sessions
        .into_iter()
        .enumerate()
        .map(|(session, (child, mut stdin))| {
            // It waits where the other end does not read, as it would not if it had to wait for its turn.
            thread::spawn(move || stdin.write_all(data(session).as_bytes()).unwrap());
            child
        })
        .collect();
    for (session, child) in sessions.into_iter().enumerate() {
        let done = child.finish();
        assert!(done.status.success(), "{session}: {:?}", done.stderr);
        assert!(done.stderr.is_empty(), "{session}: {:?}", done.stderr);
        let came = String::from_utf8(done.stdout).unwrap();
        assert!(came == format!("ready\n{}", data(session)), "{session}");
    }
    let took = start.elapsed();
    println!("{number} sessions began in {began:.1?}, and had ended after {took:.1?}");
    for _ in 0..number {
        scene.closed().await;
    }
    assert!(scene.mesh.gateway.has_no_more_records());
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_w_leads_to_a_port_behind_the_machine_and_keeps_its_end() {
    for proxy in [Proxy::BuiltIn, Proxy::Envoy] {
        let Some(mut scene) = Scene::start(proxy, &[]).await else {
            return;
        };
        // An echo ends only when its client has.
        let echo = Upstream::echo().await;
        let mut ssh = scene.command("ssh");
        ssh.args(["-W", &echo.address.to_string(), NAME]);
        let input: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
        let done = end(ssh, &input).await;
        assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
        assert!(done.stdout == input, "{} bytes came", done.stdout.len());
        scene.closed().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_jump_leads_over_one_machine_to_another() {
    let Some((mut scene, target)) = two_machines().await else {
        return;
    };
    // Behind the first machine the second one has an address.
    let address = target.vm.address;
    let mut ssh = scene.command("ssh");
    ssh.args(["-J", NAME, "-o", "HostName=127.0.0.1", "-o"]);
    ssh.arg(format!("HostKeyAlias={TARGET}"));
    ssh.args(["-p", &address.port().to_string(), TARGET]);
    works(ssh).await;
    scene.closed().await;
    assert!(scene.mesh.gateway.has_no_more_records());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_behind_the_gateway_is_a_way_to_the_gateway_too() {
    let Some((mut scene, _target)) = two_machines().await else {
        return;
    };
    // `connect` runs over there, where sshd is what ssh is to it here.
    let connect = format!(
        "{} connect --gateway {} --ca {} -- %h",
        env!("CARGO_BIN_EXE_portcullis"),
        scene.mesh.gateway.address,
        scene.path("ca.pem").display()
    );
    let first = format!("ssh -F {} {NAME} {connect}", scene.config.display());
    let mut ssh = scene.command("ssh");
    ssh.args(["-o", &format!("ProxyCommand={first}"), TARGET]);
    works(ssh).await;
    let mut names = Vec::new();
    for _ in 0..2 {
        let record = scene.mesh.gateway.ended().await;
        assert_eq!(record["reason"], "closed", "{record}");
        names.push(record["sni"].as_str().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(names, [NAME, TARGET]);
}

/// A command over there reads its stdin, writes to both streams and fails: all of that must come back.
async fn works(mut ssh: Command) {
    ssh.arg("cat; echo done >&2; exit 3");
    let done = end(ssh, b"one\ntwo").await;
    assert_eq!(done.status.code(), Some(3), "{done:?}");
    assert_eq!(done.stdout, b"one\ntwo", "{done:?}");
    assert_eq!(done.stderr, b"done\n", "{done:?}");
}

/// The second machine, which has keys of its own.
struct Second {
    vm: Vm,
    _authority: Authority,
    _sidecar: Sidecar,
}

/// Two machines behind sidecars of their own, both of which ssh knows the way to.
async fn two_machines() -> Option<(Scene, Second)> {
    let scene = Scene::start(Proxy::BuiltIn, &[]).await?;
    let authority = Authority::new();
    let vm = Vm::start(TARGET, &authority).await?;
    let tags = tags("target", TARGET);
    let service = tagged("target", vm.address, &tags);
    let consul = &scene.mesh.consul;
    consul.register(&meshed(service, ports::free()));
    let sidecar = consul.builtin_sidecar("target");
    scene.mesh.route("target@consul").await;
    let mut config = std::fs::read_to_string(&scene.config).unwrap();
    config.push_str(&vm.block());
    std::fs::write(&scene.config, config).unwrap();
    scene.install(TARGET, &[]);
    let second = Second {
        vm,
        _authority: authority,
        _sidecar: sidecar,
    };
    Some((scene, second))
}
