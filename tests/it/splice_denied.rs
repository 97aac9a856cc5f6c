//! A kernel that refuses splice(2), as one that emulates Linux or a filter of system calls may: bytes are copied instead.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use serde_json::Value;

use crate::hello_bytes::{framed, named};
use crate::shortage::started_by;
use crate::support::PATIENCE;

/// Many times what the sockets between have room for.
const SIZE: usize = 8 << 20;

/// Installs a filter that answers a system call with an error, and becomes another program (seccomp(2)).
pub(crate) const DENY: &str = r#"
import ctypes, os, platform, struct, sys
call, error, program = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
denied = {"splice": {"x86_64": 275, "aarch64": 76}, "landlock_create_ruleset": {"x86_64": 444, "aarch64": 444}}[call]
step = lambda *fields: struct.pack("=HBBI", *fields)
code = ctypes.create_string_buffer(
    step(0x20, 0, 0, 0)                      # the number of the call
    + step(0x15, 0, 1, denied[platform.machine()])
    + step(0x06, 0, 0, 0x00050000 | error)   # SECCOMP_RET_ERRNO
    + step(0x06, 0, 0, 0x7fff0000)           # SECCOMP_RET_ALLOW
)
filter = ctypes.create_string_buffer(struct.pack("@HP", 4, ctypes.addressof(code)))
prctl = ctypes.CDLL(None, use_errno=True).prctl
number = ctypes.c_ulong
for call in (38, number(1), number(0)), (22, number(2), filter):   # PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP
    if prctl(*call, number(0), number(0)):
        sys.exit("prctl: " + os.strerror(ctypes.get_errno()))
os.execvp(program[0], program)
"#;

#[test]
fn bytes_are_copied_where_the_kernel_cannot_take_them_out_of_a_socket() {
    copied_in_spite_of(rustix::io::Errno::INVAL);
}

#[test]
fn bytes_are_copied_where_the_kernel_has_no_splice() {
    copied_in_spite_of(rustix::io::Errno::NOSYS);
}

#[test]
fn bytes_are_copied_where_splice_is_not_permitted() {
    copied_in_spite_of(rustix::io::Errno::PERM);
}

/// As much up as down, each direction with its own end.
fn copied_in_spite_of(error: rustix::io::Errno) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut python = Command::new("python3");
    python.args(["-c", DENY, "splice", &error.raw_os_error().to_string()]);
    let (gateway, address) = started_by(python, listener.local_addr().unwrap());
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
    assert!(status.contains("Seccomp:\t2\n"), "no filter: {status}");

    let hello = framed(&named("echo.example.test"), &[]);
    let up = [hello, bulk(3)].concat();
    let (expected, down) = (up.clone(), bulk(5));
    let answer = down.clone();
    let upstream = thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut came = Vec::new();
        tcp.read_to_end(&mut came).unwrap();
        assert!(came == expected, "{} bytes went up", came.len());
        tcp.write_all(&answer).unwrap();
        tcp.shutdown(Shutdown::Write).unwrap();
    });
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(&up).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut came = Vec::new();
    client.read_to_end(&mut came).unwrap();
    assert!(came == down, "{} bytes came down", came.len());
    upstream.join().unwrap();

    let record = gateway.wait_for("a record", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        line["reason"].is_string().then_some(line)
    });
    assert_eq!(record["reason"], "closed", "{record}");
    assert_eq!(record["bytes_up"], up.len(), "{record}");
    assert_eq!(record["bytes_down"], down.len(), "{record}");
}

/// Bytes that are nowhere the same soon again.
fn bulk(factor: u64) -> Vec<u8> {
    let numbers = 0..(SIZE / 8) as u64;
    let scattered = numbers.map(|n| (n * factor).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    scattered.flat_map(u64::to_le_bytes).collect()
}
