//! What systemd is told (sd_notify(3)), and what it hands over (sd_listen_fds(3)).

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::time::{ClockId, clock_gettime};
use rustls::version::TLS13;
use socket2::{Domain, Socket, Type};
use tokio::task::spawn_blocking;

use crate::authority::Authority;
use crate::drain::load::Client;
use crate::drain::{NAME, tables};
use crate::program::{self, Program};
use crate::support::{Child, PATIENCE, wait_until};
use crate::upstream::Upstream;

/// A service manager that listens.
struct Manager(UnixDatagram);

impl Manager {
    fn new(authority: &Authority) -> (Self, String) {
        let path = authority.folder().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        (Self(socket), path.to_str().unwrap().to_owned())
    }

    fn hears(&self) -> String {
        let mut words = [0; 1024];
        let length = self.0.recv(&mut words).expect("nothing is told");
        String::from_utf8(words[..length].to_vec()).unwrap()
    }

    /// What is told next, but for signs of life.
    fn hears_news(&self) -> String {
        loop {
            let words = self.hears();
            if words != "WATCHDOG=1" {
                return words;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_is_told_the_life_of_a_gateway_in_order() {
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let upstream = Upstream::echo().await;
    let (manager, path) = Manager::new(&authority);
    let variables = [
        ("NOTIFY_SOCKET", path),
        ("WATCHDOG_USEC", "100000".to_owned()),
    ];
    let tables = tables(upstream.address, "5m\"\ndrain_delay = \"7s");
    let program = Program::start_with(&authority, &tables, &variables);
    assert_eq!(manager.hears_news(), "READY=1\nSTATUS=serving");
    let config = Arc::new(authority.client(&[&TLS13]));
    let client = Client::connect(&config, program.listener, true).unwrap();
    assert_eq!(manager.hears(), "WATCHDOG=1");

    let now = clock_gettime(ClockId::Monotonic);
    let before = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
    program.child.signal("HUP");
    let reloading = manager.hears_news();
    let usec = reloading
        .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
        .unwrap();
    assert!(usec.parse::<i64>().unwrap() >= before, "{reloading}");
    assert_eq!(manager.hears_news(), "READY=1\nSTATUS=serving");

    authority.write("portcullis.toml", "listen = 7");
    assert!(manager.hears_news().starts_with("RELOADING=1\n"));
    let refused = manager.hears_news();
    assert!(refused.starts_with("READY=1\nSTATUS="), "{refused}");
    assert!(refused.contains("refused"), "{refused}");

    program.child.signal("TERM");
    let stopping = manager.hears_news();
    let lines: Vec<&str> = stopping.lines().collect();
    assert_eq!(lines[0], "STOPPING=1");
    assert!(lines[1].starts_with("STATUS=draining"), "{stopping}");
    // 7 s and 5 min, and what a manager is to wait beyond.
    assert_eq!(lines[2], "EXTEND_TIMEOUT_USEC=317000000");
    assert_eq!(lines.len(), 3);
    assert_eq!(manager.hears(), "WATCHDOG=1", "a drain is no death");
    client.exchange(|| false).unwrap();
    program.child.signal("TERM");
    assert_eq!(program.records()[0]["reason"], "closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_at_a_socket_that_was_handed_over_survives_a_restart() {
    const WAITING: usize = 60;
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let upstream = Upstream::echo().await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let config = Arc::new(authority.client(&[&TLS13]));
    let waiting = || {
        let connect = |_| Client::connect(&config, address, true).unwrap();
        (0..WAITING).map(connect).collect::<Vec<Client>>()
    };
    let mut clients = waiting();
    for _ in 0..2 {
        let program = Program::start_on(&authority, &tables(upstream.address, "5m"), &socket);
        assert_eq!(program.listener, address);
        let descriptor = fs::read_to_string(format!("/proc/{}/fdinfo/3", program.child.id()));
        let descriptor = descriptor.unwrap();
        let flags = descriptor
            .lines()
            .find_map(|line| line.strip_prefix("flags:"));
        let flags = u32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
        // O_CLOEXEC (proc(5)).
        assert_ne!(flags & 0o2_000_000, 0, "a child would get the socket");
        for client in clients {
            let served = spawn_blocking(move || client.exchange(|| false));
            served.await.unwrap().unwrap();
        }
        program.child.signal("TERM");
        let records = program.records();
        assert_eq!(records.len(), WAITING);
        assert!(
            records.iter().all(|record| record["reason"] == "closed"),
            "{records:?}"
        );
        clients = waiting();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_no_connection_is_lost_by_restarts_on_the_same_socket() {
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let upstream = Upstream::echo().await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let config = Arc::new(authority.client(&[&TLS13]));
    let start = || Program::start_on(&authority, &tables(upstream.address, "5m"), &socket);
    let mut program = start();
    let (goes_on, served) = (
        Arc::new(AtomicBool::new(true)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (config, goes_on, served) = (config.clone(), goes_on.clone(), served.clone());
        load.spawn_blocking(move || {
            while goes_on.load(Ordering::Relaxed) {
                Client::connect(&config, address, true)?.exchange(|| false)?;
                served.fetch_add(1, Ordering::Relaxed);
            }
            io::Result::Ok(())
        });
    }
    for _ in 0..4 {
        let so_far = served.load(Ordering::Relaxed);
        wait_until("clients are served", || {
            load.len() < 8 || served.load(Ordering::Relaxed) > so_far + 20
        });
        program.child.signal("TERM");
        let records = program.records();
        assert!(
            records.iter().all(|record| record["reason"] == "closed"),
            "{records:?}"
        );
        program = start();
    }
    goes_on.store(false, Ordering::Relaxed);
    for lost in load.join_all().await {
        lost.unwrap();
    }
}

/// What a gateway says that does not start.
fn refusal(authority: &Authority, handed_over: OwnedFd, times: usize) -> String {
    let tables = "admin = false\nlog = { format = \"json\" }\n";
    let command = program::command(authority, "127.0.0.1:0".parse().unwrap(), tables, &[]);
    let ended = Child::spawn_with(&program::handed(&command, times), handed_over).finish();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    String::from_utf8(ended.stderr).unwrap()
}

#[test]
fn a_socket_that_fits_no_listener_keeps_the_gateway_from_starting() {
    let authority = Authority::new();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let said = refusal(&authority, socket.into(), 1);
    let named = format!("a socket on {address}, which is no address of `listen` (127.0.0.1:0)");
    assert!(said.contains(&named), "{said}");
}

#[test]
fn what_cannot_be_listened_on_keeps_the_gateway_from_starting() {
    let authority = Authority::new();
    let file = File::open("/dev/null").unwrap();
    let said = refusal(&authority, file.into(), 1);
    assert!(
        said.contains("no UNIX socket with a path: fd 3 is not a socket (descriptor 3)"),
        "{said}"
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let said = refusal(&authority, connected.into(), 1);
    assert!(said.contains("does not listen (descriptor 3)"), "{said}");
    let said = refusal(&authority, listener.into(), 2);
    assert!(
        said.contains("two sockets that listen on 127.0.0.1:"),
        "{said}"
    );
}

#[test]
fn what_hands_over_no_socket_that_is_there_keeps_the_gateway_from_starting() {
    let authority = Authority::new();
    let listen = "127.0.0.1:0".parse().unwrap();
    let command = program::command(&authority, listen, "admin = false\n", &[]);
    // Two are promised, and one is handed over.
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let script = "exec 3<&0 </dev/null; export LISTEN_FDS=2 LISTEN_PID=$$; exec \"$0\" \"$@\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(command.get_program());
    let ended = Child::spawn_with(shell.args(command.get_args()), socket.into()).finish();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(said.contains("fd 4 is not a socket"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_as_a_handover_is_told_in_one_line_and_hands_over_nothing() {
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let tables = tables("127.0.0.1:1".parse().unwrap(), "5m");
    for (name, value, told) in [
        ("LISTEN_FDS", "two", "LISTEN_FDS=\"two\" is no number"),
        ("LISTEN_PID", "me", "LISTEN_PID=\"me\" is no process"),
        // Of another process: that makes sense.
        ("LISTEN_PID", "1", ""),
    ] {
        let mut variables = vec![(name, value.to_owned())];
        if name != "LISTEN_FDS" {
            variables.push(("LISTEN_FDS", "1".to_owned()));
        }
        let program = Program::start_with(&authority, &tables, &variables);
        program.child.signal("TERM");
        let ended = program.child.finish();
        assert!(ended.status.success(), "{ended:?}");
        let said = String::from_utf8(ended.stderr).unwrap();
        let said = said.replace("\\\"", "\"");
        let lines = said.lines().filter(|line| line.contains("LISTEN_"));
        assert_eq!(lines.count(), usize::from(!told.is_empty()), "{said}");
        assert!(said.contains(told), "{said}");
    }
}

#[test]
fn an_address_for_which_no_socket_was_handed_over_is_bound_and_named() {
    let authority = Authority::new();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let listen = format!("{address}\", \"127.0.0.2:0");
    let text = format!("listen = [\"{listen}\"]\nadmin = false\nlog = {{ format = \"json\" }}\n");
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(["serve", "--config"]);
    command.arg(authority.write("portcullis.toml", &text));
    let gateway = Child::spawn_with(&program::handed(&command, 1), socket.into());
    let told = gateway.wait_for("which one it binds itself", |line| {
        line.contains("handed over no socket")
            .then(|| line.to_owned())
    });
    assert!(told.contains("\"address\":\"127.0.0.2:0\""), "{told}");
    gateway.signal("TERM");
    assert!(gateway.finish().status.success());
}

#[test]
fn a_socket_of_all_addresses_that_takes_no_ipv4_clients_is_warned_of() {
    for is_only_v6 in [true, false] {
        let authority = Authority::new();
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        socket.set_only_v6(is_only_v6).unwrap();
        let all: SocketAddr = "[::]:0".parse().unwrap();
        if socket.bind(&all.into()).is_err() {
            // No IPv6 on this machine.
            return;
        }
        socket.listen(16).unwrap();
        let socket = TcpListener::from(socket);
        let address = socket.local_addr().unwrap();
        let tables = "admin = false\nlog = { format = \"json\" }\n";
        let command = program::command(&authority, address, tables, &[]);
        let gateway = Child::spawn_with(&program::handed(&command, 1), socket.into());
        gateway.wait_for("it listens", |line| {
            line.contains("\"listening\"").then_some(())
        });
        gateway.signal("TERM");
        let ended = gateway.finish();
        assert!(ended.status.success(), "{ended:?}");
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(said.contains("BindIPv6Only=both"), is_only_v6, "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_comes_back_is_on_the_socket_that_was_handed_over() {
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let upstream = Upstream::echo().await;
    let tables = tables(upstream.address, "5m");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let program = Program::start_on(&authority, &tables, &socket);
    program::command(&authority, "127.0.0.1:0".parse().unwrap(), &tables, &[]);
    let warned = |line: &str| {
        line.contains("the service manager holds this socket")
            .then_some(())
    };
    program.child.wait_for("that clients wait there", warned);
    let config = Arc::new(authority.client(&[&TLS13]));
    let waits = Client::connect(&config, address, true).unwrap();
    program::command(&authority, address, &tables, &[]);
    let served = spawn_blocking(move || waits.exchange(|| false));
    served.await.unwrap().unwrap();
    program.child.signal("TERM");
    assert_eq!(program.records().len(), 1);
}
