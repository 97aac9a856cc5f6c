//! A stop in bad times: in the first moment of a process, and where the descriptors are spent.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::authority::Authority;
use crate::hello_bytes::{framed, named};
use crate::shortage::{DESCRIPTORS, connect, echo, said_and_echoed};
use crate::support::{Child, run, wait_until};

/// A gateway that is not ready yet, and hears signals. Before, it has not done anything.
fn begun(authority: &Authority) -> Child {
    let config = "listen = [\"127.0.0.1:0\"]\nadmin = false\nlog = { format = \"json\" }\n";
    let config = authority.write("portcullis.toml", config);
    hearing(&config.to_string_lossy())
}

fn hearing(config: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(["serve", "--config", config]);
    let gateway = Child::spawn(&command);
    wait_until("it hears signals", || {
        let status = fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
        let caught = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))
            .map_or(0, |mask| u64::from_str_radix(mask.trim(), 16).unwrap());
        // SIGHUP, SIGINT and SIGTERM (signal(7)).
        [1, 2, 15]
            .iter()
            .all(|signal| caught >> (signal - 1) & 1 == 1)
    });
    gateway
}

/// What a gateway is sent in its first milliseconds.
fn in_the_first_moments(check: impl Fn(Child)) {
    let authority = Authority::new();
    for delay in (0..=20).step_by(2) {
        let gateway = begun(&authority);
        // There is nothing to wait for: the moment is what is tried.
        thread::sleep(Duration::from_millis(delay));
        check(gateway);
    }
}

#[test]
fn a_gateway_that_is_told_to_stop_in_its_first_moments_exits_well() {
    for signal in ["TERM", "INT"] {
        in_the_first_moments(|gateway| {
            gateway.signal(signal);
            let ended = gateway.finish();
            assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        });
    }
}

#[test]
fn a_wish_for_a_reload_in_the_first_moments_ends_nothing_and_is_granted() {
    in_the_first_moments(|gateway| {
        gateway.signal("HUP");
        gateway.wait_for("that it has read its configuration again", |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "the new configuration serves").then_some(())
        });
        gateway.signal("TERM");
        let ended = gateway.finish();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    });
}

#[test]
fn a_gateway_that_waits_for_its_configuration_is_stopped_well() {
    let authority = Authority::new();
    let path = authority.folder().join("portcullis.toml");
    // Opened, it waits for somebody to write: as a disk that hangs.
    let made = run(Command::new("mkfifo").arg(&path), b"");
    assert!(made.status.success(), "{made:?}");
    let gateway = hearing(&path.to_string_lossy());
    gateway.signal("TERM");
    let ended = gateway.finish();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

/// How many wait at a gateway without descriptors.
const WAITING: usize = 5;

/// A gateway whose descriptors are spent by tunnels, and clients that wait to be accepted.
struct Spent {
    gateway: Child,
    /// Whose folder holds the configuration.
    _authority: Authority,
    hello: Vec<u8>,
    tunnels: Vec<TcpStream>,
    waiting: Vec<TcpStream>,
}

impl Spent {
    fn new(keys: &str) -> Self {
        let authority = Authority::new();
        let upstream = echo();
        let config = format!(
            "listen = [\"127.0.0.1:0\"]\nadmin = false\nlog.format = \"json\"\n\
             limits.connections.enforce = \"dry-run\"\nlimits.handshakes = \"off\"\n{keys}\
             [routes.echo]\nhost = \"echo.example.test\"\npassthrough = true\nupstream = \"{upstream}\"\n"
        );
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}"));
        command.args([env!("CARGO_BIN_EXE_portcullis"), "serve", "--config"]);
        command.arg(authority.write("portcullis.toml", &config));
        let gateway = Child::spawn(&command);
        let address = gateway.wait_for("where it listens", |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "listening").then(|| line["address"].as_str()?.parse().ok())?
        });
        let mut spent = Self {
            hello: framed(&named("echo.example.test"), &[]),
            gateway,
            _authority: authority,
            tunnels: Vec::new(),
            waiting: Vec::new(),
        };
        spent.fill(address);
        spent
    }

    fn fill(&mut self, address: SocketAddr) {
        let folder = format!("/proc/{}/fd", self.gateway.id());
        let links = || -> Vec<String> {
            let links = fs::read_dir(&folder).unwrap().flatten();
            let links = links.flat_map(|link| fs::read_link(link.path()));
            links
                .map(|link| link.to_string_lossy().into_owned())
                .collect()
        };
        // The last that it opens for itself: what follows its files.
        wait_until("it has all of its own", || {
            links().iter().any(|link| link.contains("inotify"))
        });
        // Its stdout and stderr are pipes; other pipes are there only while bytes move.
        let open = || {
            2 + links()
                .iter()
                .filter(|link| !link.starts_with("pipe"))
                .count()
        };
        while open() + 2 <= DESCRIPTORS {
            let mut tunnel = connect(address);
            assert_eq!(said_and_echoed(&mut tunnel, &self.hello), self.hello);
            self.tunnels.push(tunnel);
        }
        if open() < DESCRIPTORS {
            // One that is silent takes one; it is the last to go.
            self.tunnels.insert(0, connect(address));
            wait_until("it has the last one", || open() == DESCRIPTORS);
        }
        assert!(self.tunnels.len() > WAITING + 1);
        for _ in 0..WAITING {
            let mut client = connect(address);
            client.write_all(&self.hello).unwrap();
            self.waiting.push(client);
        }
        self.fails("cannot accept", 1);
    }

    /// Until it has said so often that something fails.
    fn fails(&self, what: &str, times: usize) {
        let all = || self.gateway.all().matches(what).count();
        wait_until(what, || all() >= times);
    }

    /// Told to stop, and for long enough out of descriptors that it could lose heart.
    fn stopping(&self) {
        self.gateway.signal("TERM");
        self.gateway.wait_for("that it closes", |line| {
            line.contains("accepting nobody new").then_some(())
        });
        let begin = Instant::now();
        wait_until("it has tried for long", || {
            begin.elapsed() > Duration::from_secs(2)
        });
    }

    fn ended(self) -> (Vec<Value>, String) {
        let ended = self.gateway.finish();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let records = text(ended.stdout);
        let records = records.lines();
        let records = records.map(|line| serde_json::from_str(line).unwrap());
        (records.collect(), text(ended.stderr))
    }
}

fn with_reason(records: &[Value], reason: &str) -> usize {
    let these = records.iter().filter(|record| record["reason"] == reason);
    these.count()
}

#[test]
fn who_waits_while_descriptors_are_short_is_served_by_a_stop_as_tunnels_end() {
    let mut spent = Spent::new("");
    spent.stopping();
    let mut served = Vec::new();
    for mut client in std::mem::take(&mut spent.waiting) {
        // As soon as one has gone, the next is served, and there are none left again.
        let gone = spent.tunnels.pop().unwrap();
        gone.shutdown(Shutdown::Both).unwrap();
        let mut echoed = vec![0; spent.hello.len()];
        client.read_exact(&mut echoed).unwrap();
        assert!(echoed == spent.hello);
        served.push(client);
    }
    for client in served.iter().chain(&spent.tunnels) {
        client.shutdown(Shutdown::Write).unwrap();
    }
    let (records, said) = spent.ended();
    assert_eq!(with_reason(&records, "shortage"), 0, "{records:?}");
    assert_eq!(with_reason(&records, "drained"), 0, "{records:?}");
    assert!(!said.contains("could not be accepted"), "{said}");
}

#[test]
fn who_still_waits_at_the_deadline_is_taken_and_has_a_record() {
    let mut spent = Spent::new("limits.drain_timeout = \"1s\"\nlimits.drain_spread = \"0s\"\n");
    let all = spent.tunnels.len() + spent.waiting.len();
    spent.gateway.signal("TERM");
    let (tunnels, waiting) = (
        std::mem::take(&mut spent.tunnels),
        std::mem::take(&mut spent.waiting),
    );
    let (records, said) = spent.ended();
    assert_eq!(with_reason(&records, "drained"), all, "{records:?}");
    assert!(!said.contains("could not be accepted"), "{said}");
    drop((tunnels, waiting));
}

#[test]
fn who_could_not_be_accepted_to_the_end_is_told_of() {
    let spent = Spent::new("limits.drain_timeout = \"1s\"\nlimits.drain_spread = \"0s\"\n");
    // What ends gives nothing back.
    let mut none = Command::new("prlimit");
    none.arg(format!("--pid={}", spent.gateway.id()));
    let done = run(none.arg("--nofile=3:3"), b"");
    assert!(done.status.success(), "{done:?}");
    let begin = Instant::now();
    spent.gateway.signal("TERM");
    let told = spent.gateway.wait_for("that somebody was lost", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let message = line["message"].as_str()?;
        (message.contains("could not be accepted")).then(|| line.clone())
    });
    assert_eq!(told["level"], "ERROR", "{told}");
    let gateway = spent.gateway;
    assert_eq!(gateway.finish().status.code(), Some(0));
    assert!(begin.elapsed() <= Duration::from_secs(1 + 5));
    drop((spent.tunnels, spent.waiting));
}

#[test]
fn a_reload_without_descriptors_is_refused_with_that_reason_and_taken_when_there_are_some() {
    let mut spent = Spent::new("");
    spent.gateway.signal("HUP");
    let why = spent.gateway.wait_for("that it refuses", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let message = line["message"].as_str()?;
        message.contains("is refused").then(|| message.to_owned())
    });
    assert!(why.contains("Too many open files"), "{why}");
    for tunnel in &mut spent.tunnels[1..] {
        assert_eq!(said_and_echoed(tunnel, b"still here"), b"still here");
    }
    spent.tunnels.truncate(1);
    spent.waiting.clear();
    wait_until("it has some again", || {
        spent.gateway.signal("HUP");
        spent.gateway.all().contains("the new configuration serves")
    });
}
