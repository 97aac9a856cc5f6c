//! Ports for programs that must be told one and cannot say which they have got.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

/// The first port, and how many there are: all lie below those that Linux hands out of itself (32768 and up), to
/// connections and to whoever asks for port 0, so that no other test takes one while its program restarts.
const PORTS: (u16, u16) = (10_000, 22_000);

/// A port of 127.0.0.1 that was free a moment ago, for TCP and UDP; no test of this process is given it again soon.
///
/// Another process may take it before the program does: then the program ends, and is started again with another.
pub(crate) fn free() -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let (first, count) = PORTS;
    // Each test process begins elsewhere.
    let start = (process::id() % u32::from(count)) as u16 * 2;
    loop {
        // Every other one: OpenBao takes the port next to its own as well.
        let step = GIVEN.fetch_add(2, Ordering::Relaxed);
        let port = first + start.wrapping_add(step) % count;
        let address = (Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return port;
        }
    }
}

#[test]
fn no_port_is_given_twice_and_none_in_use_at_all() {
    let taken = free();
    let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, taken)).unwrap();
    let mut ports: Vec<u16> = (0..100).map(|_| free()).collect();
    assert!(!ports.contains(&taken));
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 100);
}
