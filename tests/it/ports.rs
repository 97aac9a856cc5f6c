//! Ports for programs that must be told one and cannot say which they have got.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;
use std::process;
use std::sync::Mutex;

/// All lie below those that Linux hands out of itself (32768 and up), to connections and to whoever asks for port 0: no
/// other test is given one of them while its program restarts.
const PORTS: Range<u16> = 10_000..32_000;

/// How many ports a test process claims at once.
const BLOCK: u16 = 100;

/// A port of 127.0.0.1 that was free a moment ago, for TCP and UDP; no test is given it again while this process lives.
///
/// A program that is no test may take it all the same: then ours ends, and is started again with another.
pub(crate) fn free() -> u16 {
    static CLAIMED: Mutex<Vec<Block>> = Mutex::new(Vec::new());
    let mut claimed = CLAIMED.lock().unwrap();
    loop {
        // Every other one: OpenBao takes the port next to its own as well.
        match claimed.last_mut().and_then(|block| block.left.nth(1)) {
            Some(port) if is_free(port) => return port,
            Some(_) => {}
            None => claimed.push(Block::claim()),
        }
    }
}

/// Ports that belong to this process as long as it holds the first of them.
struct Block {
    _first: TcpListener,
    left: Range<u16>,
}

impl Block {
    fn claim() -> Self {
        let blocks = PORTS.len() as u32 / u32::from(BLOCK);
        for turn in 0..blocks {
            // Each process begins elsewhere.
            let block = (process::id().wrapping_add(turn) % blocks) as u16;
            let first = PORTS.start + block * BLOCK;
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, first)) {
                return Self {
                    _first: listener,
                    left: first + 1..first + BLOCK,
                };
            }
        }
        panic!("every block of ports is claimed");
    }
}

fn is_free(port: u16) -> bool {
    let address = (Ipv4Addr::LOCALHOST, port);
    TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
}

#[test]
fn no_port_is_given_twice_and_none_in_use_at_all() {
    let mut ports: Vec<u16> = (0..100).map(|_| free()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 100);
    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, ports[0])).unwrap();
    assert!(!is_free(ports[0]));
    drop(held);
    assert!(is_free(ports[0]));
}

#[test]
fn a_block_belongs_to_one_process() {
    let [one, other] = [(); 2].map(|()| Block::claim());
    assert_ne!(one.left, other.left);
}
