//! Crowds that say nothing: others are served beside them, and after them when they have spent every file descriptor.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::authority::Authority;
use crate::gateway::answer;
use crate::hello_bytes::{framed, named};
use crate::scene::Scene;
use crate::support::{Child, PATIENCE, run, wait_until};

/// Enough for the gateway itself and some clients, and soon spent.
pub(crate) const DESCRIPTORS: usize = 64;

#[tokio::test]
async fn clients_that_say_nothing_do_not_keep_others_from_being_served() {
    let mut scene = Scene::with("").await;
    let half = framed(&named("open.example.test"), &[])[..50].to_vec();
    let mut crowd = Vec::new();
    for number in 0..300 {
        let mut tcp = scene.gateway.connect().await;
        if number % 2 == 1 {
            tcp.write_all(&half).await.unwrap();
        }
        crowd.push(tcp);
    }
    let bytes = framed(&named("pass.example.test"), &[]);
    let told = scene.tell_all(&bytes).await;
    assert!(told.answer == bytes);
    assert_eq!(told.record["reason"], "closed");
    drop(crowd);
    // Of so many refusals some are only counted: the lines of others tell how many.
    let mut gone = 0;
    while gone < 300 {
        let (answer, _) = {
            let mut tcp = scene.gateway.connect().await;
            tcp.write_all(&bytes).await.unwrap();
            tcp.shutdown().await.unwrap();
            answer(&mut tcp).await
        };
        assert!(answer == bytes);
        loop {
            let record = scene.gateway.ended().await;
            gone += record["suppressed"].as_u64().unwrap();
            if record["route"] == "pass" {
                break;
            }
            assert_eq!(record["reason"], "client_gone");
            gone += 1;
        }
    }
    assert_eq!(gone, 300);
}

#[test]
fn a_gateway_takes_as_many_file_descriptors_as_the_system_allows() {
    let (gateway, address) = limited(&format!("{DESCRIPTORS}:4096"), "", echo());
    let crowd: Vec<TcpStream> = (0..2 * DESCRIPTORS).map(|_| connect(address)).collect();
    let mut late = connect(address);
    let hello = framed(&named("echo.example.test"), &[]);
    assert_eq!(said_and_echoed(&mut late, &hello), hello);
    assert!(
        !gateway.all().contains("cannot accept"),
        "{}",
        gateway.all()
    );
    drop(crowd);
}

#[test]
fn a_gateway_out_of_file_descriptors_backs_off_and_serves_again() {
    let limits = format!("{DESCRIPTORS}:{DESCRIPTORS}");
    // Else nobody would be let in for whom there are none.
    let keys = "limits.connections.enforce = \"dry-run\"\nlimits.handshakes = \"off\"\n";
    let (gateway, address) = limited(&limits, keys, echo());
    let mut early = connect(address);
    let hello = framed(&named("echo.example.test"), &[]);
    assert_eq!(said_and_echoed(&mut early, &hello), hello);

    let start = Instant::now();
    let crowd: Vec<TcpStream> = (0..2 * DESCRIPTORS).map(|_| connect(address)).collect();
    let failures = RefCell::new(BTreeSet::new());
    gateway.wait_for("that it cannot accept, again and again", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let mut failures = failures.borrow_mut();
        if line["message"] == "cannot accept" {
            failures.insert(line["timestamp"].to_string());
        }
        (failures.len() >= 7).then_some(())
    });
    // Six pauses lie between, of 5 ms and each twice as long as the one before: one that spun would not take its time.
    assert!(start.elapsed() >= Duration::from_millis(5 + 10 + 20 + 40 + 80 + 160));
    assert_eq!(said_and_echoed(&mut early, b"still here"), b"still here");

    drop(crowd);
    let mut late = connect(address);
    assert_eq!(said_and_echoed(&mut late, &hello), hello);
    for client in [early, late] {
        let own = client.local_addr().unwrap().to_string();
        client.shutdown(Shutdown::Write).unwrap();
        let reason = gateway.wait_for("how the client ended", |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["client"] == own.as_str()).then(|| line["reason"].to_string())
        });
        assert_eq!(reason, "\"closed\"");
    }
}

#[test]
fn a_gateway_lets_in_as_many_as_it_has_file_descriptors_for_and_refuses_the_others_at_once() {
    let limits = format!("{DESCRIPTORS}:{DESCRIPTORS}");
    let (gateway, address) = limited(&limits, "", echo());
    gateway.wait_for("how many have room", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["files"] == DESCRIPTORS && line["connections"] == 20).then_some(())
    });
    let hello = framed(&named("echo.example.test"), &[]);
    let mut crowd = Vec::new();
    for _ in 0..20 {
        let mut client = connect(address);
        assert_eq!(said_and_echoed(&mut client, &hello), hello);
        crowd.push(client);
    }
    for _ in 0..2 * DESCRIPTORS {
        // It may be reset before it is told that it stands.
        let ended = TcpStream::connect(address).and_then(|mut tcp| {
            tcp.set_read_timeout(Some(PATIENCE))?;
            tcp.read(&mut [0])
        });
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    for client in &mut crowd {
        assert_eq!(said_and_echoed(client, b"still here"), b"still here");
    }
    drop(crowd.pop());
    wait_until("the place of one is another's", || {
        let late = TcpStream::connect(address).and_then(|mut tcp| {
            tcp.set_read_timeout(Some(PATIENCE))?;
            tcp.write_all(&hello)?;
            tcp.read(&mut [0])
        });
        late.is_ok_and(|count| count == 1)
    });
    assert!(
        !gateway.all().contains("cannot accept"),
        "{}",
        gateway.all()
    );
}

#[test]
fn a_gateway_does_not_start_with_a_limit_that_the_open_files_have_no_room_for() {
    let authority = Authority::new();
    let config = authority.write(
        "portcullis.toml",
        "listen = [\"127.0.0.1:0\"]\nadmin = false\n[limits.connections]\nmax = 500\n",
    );
    for (command, code) in [("serve", 1), ("check", 0)] {
        let mut prlimit = Command::new("prlimit");
        prlimit
            .args(["--nofile=64:512", env!("CARGO_BIN_EXE_portcullis"), command])
            .arg("--config")
            .arg(&config);
        let done = run(&prlimit, b"");
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{command}: {said}");
        for word in [
            "limits.connections",
            "512 open files",
            "room for 224",
            "1143",
        ] {
            assert!(said.contains(word), "{command}: {word} in {said}");
        }
    }
}

/// A gateway with these limits of file descriptors, soft and hard, and these keys, and where it listens.
fn limited(limits: &str, keys: &str, upstream: SocketAddr) -> (Child, SocketAddr) {
    let mut prlimit = Command::new("prlimit");
    prlimit.arg(format!("--nofile={limits}"));
    started_with(prlimit, keys, upstream)
}

/// A gateway that this command starts, whose last arguments it and its own become, and where it listens.
pub(crate) fn started_by(command: Command, upstream: SocketAddr) -> (Child, SocketAddr) {
    started_with(command, "", upstream)
}

fn started_with(mut command: Command, keys: &str, upstream: SocketAddr) -> (Child, SocketAddr) {
    let authority = Authority::new();
    let config = authority.write(
        "portcullis.toml",
        &format!(
            "listen = [\"127.0.0.1:0\"]\nadmin = false\nlog.format = \"json\"\n{keys}\
             [routes.echo]\nhost = \"echo.example.test\"\npassthrough = true\nupstream = \"{upstream}\"\n"
        ),
    );
    command
        .args([env!("CARGO_BIN_EXE_portcullis"), "serve", "--config"])
        .arg(config);
    let gateway = Child::spawn(&command);
    let address = gateway.wait_for("where it listens", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["message"] == "listening").then(|| line["address"].as_str()?.parse().ok())?
    });
    (gateway, address)
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp
}

pub(crate) fn said_and_echoed(tcp: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
    tcp.write_all(bytes).unwrap();
    let mut echoed = vec![0; bytes.len()];
    tcp.read_exact(&mut echoed).unwrap();
    echoed
}

/// An upstream that sends back what comes.
pub(crate) fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for tcp in listener.incoming() {
            let mut tcp = tcp.unwrap();
            thread::spawn(move || {
                let mut back = tcp.try_clone().unwrap();
                // The gateway may be gone.
                let _ = std::io::copy(&mut tcp, &mut back);
                let _ = back.shutdown(Shutdown::Write);
            });
        }
    });
    address
}
