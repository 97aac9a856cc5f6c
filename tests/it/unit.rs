//! The unit of `deploy/systemd`: as tight as it says, and no tighter than a gateway can live with.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use portcullis::config::Limits;
use serde_json::Value;

use crate::hello_bytes::{framed, named};
use crate::peers;
use crate::shortage::started_by;
use crate::support::{PATIENCE, run};

const UNIT: &str = "deploy/systemd/portcullis.service";

fn unit() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(UNIT)).unwrap()
}

/// The values that stand behind a key, in their order.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let lines = unit.lines();
    let values = lines.filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    values.collect()
}

/// What `systemd-analyze` writes; nothing where there is none, which is told.
fn analyze(arguments: &[&str]) -> Option<String> {
    let program = peers::require("systemd-analyze", "systemd-analyze")?;
    let done = run(
        Command::new(program)
            .args(arguments)
            .env("SYSTEMD_COLORS", "0")
            .current_dir(env!("CARGO_MANIFEST_DIR")),
        b"",
    );
    Some(String::from_utf8(done.stdout).unwrap())
}

#[test]
fn the_exposure_of_the_unit_is_no_worse_than_its_comment_says() {
    let number = |text: &str, before: &str| -> f64 {
        let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{text}"));
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    let Some(found) = analyze(&["security", "--offline=true", "--no-pager", UNIT]) else {
        return;
    };
    let measured = number(&found, "Overall exposure level for portcullis.service: ");
    let said = number(&unit(), "rates its exposure ");
    assert!(measured <= said, "it says {said}\n{found}");
}

#[test]
fn the_service_is_well_formed_with_its_socket_and_without() {
    let folder = tempfile::tempdir().unwrap();
    let deployed = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd");
    let [service, socket] = ["portcullis.service", "portcullis.socket"].map(|name| {
        let text = fs::read_to_string(deployed.join(name)).unwrap();
        let path = folder.path().join(name);
        // It is not installed here.
        let program = env!("CARGO_BIN_EXE_portcullis");
        let text = text.replace("/usr/local/bin/portcullis", program);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    });
    let verify = |units: &[&str]| {
        let program = peers::require("systemd-analyze", "systemd-analyze")?;
        let mut command = Command::new(program);
        let done = run(command.args(["verify", "--man=no"]).args(units), b"");
        let said = String::from_utf8(done.stderr).unwrap();
        // The service says what to write there before systemd 253.
        let mut others = said.lines().filter(|line| !line.contains("notify-reload"));
        assert_eq!(others.next(), None, "{said}");
        assert!(done.status.success(), "{said}");
        Some(())
    };
    if verify(&[&service]).is_some() {
        verify(&[&socket, &service]);
    }
}

#[test]
fn the_socket_listens_where_the_program_does_by_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd/portcullis.socket");
    let socket = fs::read_to_string(path).unwrap();
    let addresses: Vec<SocketAddr> = values(&socket, "ListenStream")
        .iter()
        .map(|address| address.parse().unwrap())
        .collect();
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/full.toml"));
    for address in addresses {
        assert!(text.as_ref().unwrap().contains(&address.to_string()));
    }
}

#[test]
fn the_unit_waits_for_a_drain_and_does_not_repeat_a_wrong_configuration() {
    let unit = unit();
    let [stop] = values(&unit, "TimeoutStopSec")[..] else {
        panic!("{unit}")
    };
    let seconds: u64 = stop.trim_end_matches('s').parse().unwrap();
    // A stop is over 5 s after its deadline.
    assert!(Limits::default().drain + Duration::from_secs(5) < Duration::from_secs(seconds));
    assert_eq!(values(&unit, "RestartPreventExitStatus"), ["2"]);
}

/// The system calls that the unit lets pass, by the sets of the systemd that is here.
fn permitted() -> Option<BTreeSet<String>> {
    let unit = unit();
    // Always permitted; a list that begins with `~` takes away.
    let mut calls = expand("@default")?;
    for list in values(&unit, "SystemCallFilter") {
        let (taken, names) = match list.strip_prefix('~') {
            Some(names) => (true, names),
            None => (false, list),
        };
        for name in names.split(' ') {
            let named = expand(name)?;
            if taken {
                calls = &calls - &named;
            } else {
                calls.extend(named);
            }
        }
    }
    calls.extend(expand("@default")?);
    Some(calls)
}

/// A call is itself, a set what is in it.
fn expand(name: &str) -> Option<BTreeSet<String>> {
    if !name.starts_with('@') {
        return Some(BTreeSet::from([name.to_owned()]));
    }
    let listed = analyze(&["syscall-filter", name])?;
    let mut calls = BTreeSet::new();
    for line in listed.lines().skip(1).map(str::trim) {
        if !line.is_empty() && !line.starts_with('#') {
            calls.extend(expand(line)?);
        }
    }
    Some(calls)
}

/// Becomes a program that may make these system calls only, and make no memory executable, as systemd has it by
/// SystemCallFilter= and MemoryDenyWriteExecute=.
const FILTER: &str = r#"
import ctypes, os, sys
permitted, program = sys.argv[1].split(","), sys.argv[2:]
seccomp = ctypes.CDLL("libseccomp.so.2")
seccomp.seccomp_init.restype = ctypes.c_void_p
filter = ctypes.c_void_p(seccomp.seccomp_init(0x00050001))    # SCMP_ACT_ERRNO(EPERM)
for name in permitted:
    number = seccomp.seccomp_syscall_resolve_name(name.encode())
    if number >= 0 and seccomp.seccomp_rule_add(filter, ctypes.c_uint32(0x7fff0000), number, 0):
        sys.exit("no rule for " + name)
number = ctypes.c_ulong
ctypes.CDLL(None).prctl(65, number(1), number(0), number(0), number(0))   # PR_SET_MDWE, from Linux 6.3 on
if seccomp.seccomp_load(filter):
    sys.exit("no filter")
os.execvp(program[0], program)
"#;

#[test]
fn a_gateway_serves_and_drains_under_the_units_filter_of_system_calls() {
    let Some(calls) = permitted() else { return };
    assert!(!calls.contains("capset") && !calls.contains("chown") && calls.contains("splice"));
    let calls: Vec<String> = calls.into_iter().collect();
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = upstream.local_addr().unwrap();
    let echo = thread::spawn(move || {
        let (mut tcp, _) = upstream.accept().unwrap();
        let mut came = Vec::new();
        tcp.read_to_end(&mut came).unwrap();
        tcp.write_all(&came).unwrap();
    });
    // The unit's user has no capabilities, and no way to drop them.
    let mut starter = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        starter.args(["--inh-caps=-all", "--bounding-set=-all"]);
    }
    starter.args(["--no-new-privs", "--", "python3", "-c", FILTER]);
    starter.arg(calls.join(","));
    let (gateway, listener) = started_by(starter, address);
    let message = |line: &str| -> Option<String> {
        let line: Value = serde_json::from_str(line).ok()?;
        Some(line["message"].as_str()?.to_owned())
    };
    gateway.wait_for("a whole sandbox", |line| {
        (message(line)?.starts_with("the sandbox is whole")).then_some(())
    });

    let bytes = framed(&named("echo.example.test"), &[]);
    let mut client = TcpStream::connect(listener).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(&bytes).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut came = Vec::new();
    client.read_to_end(&mut came).unwrap();
    assert!(came == bytes);
    echo.join().unwrap();

    gateway.signal("TERM");
    let done = gateway.finish();
    assert!(done.status.success(), "{done:?}");
}
