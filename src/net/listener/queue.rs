//! What the kernel knows of a listener's queue, and the filter that lets nobody new into it.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockFilter, SockRef};

/// The kernel's tables of TCP sockets (proc_pid_net(5)).
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];

/// States in those tables (`TCP_SYN_RECV` and `TCP_LISTEN` of the kernel's tcp_states.h).
const ARRIVING: &str = "03";
const LISTENING: &str = "0A";

/// Drops a segment that begins a connection, and lets all others pass: with SYN and without ACK (RFC 9293 §3.1, octet
/// 13 of the header, where a filter of a TCP socket begins to read). bpf(4) has the instructions.
const NO_SYN: [SockFilter; 5] = [
    // ldb [13]; and #SYN|ACK; jeq #SYN; ret #0; ret #all
    SockFilter::new(0x30, 0, 0, 13),
    SockFilter::new(0x54, 0, 0, 0x12),
    SockFilter::new(0x15, 0, 1, 0x02),
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
];

/// Lets nobody new in. Who has begun a handshake can finish it; whoever begins one hears nothing, and asks again after
/// 1 s (RFC 6298 §2): then somebody else listens there, or he is refused. A connection that is made has the filter too.
pub(super) fn shut(queue: &TcpListener) -> io::Result<()> {
    SockRef::from(queue).attach_filter(&NO_SYN)
}

/// Whether somebody waits to be accepted. It takes no descriptor, and accept(2) fails for want of one before it looks.
pub(super) fn is_waiting(queue: &impl AsFd) -> bool {
    let mut polled = [PollFd::new(queue, PollFlags::IN)];
    // What cannot be asked is tried.
    poll(&mut polled, Some(&Timespec::default())).map_or(true, |ready| ready > 0)
}

/// The socket's number in the kernel's tables.
pub(super) fn number(queue: &TcpListener) -> io::Result<u64> {
    // Only looked at: to open it would take a descriptor.
    let link = format!("/proc/self/fd/{}", queue.as_raw_fd());
    Ok(fs::metadata(link)?.ino())
}

/// How many handshakes with this port have begun and are not finished. Reads a table of all sockets.
pub(super) fn arriving(port: u16) -> io::Result<usize> {
    let is_one = |row: &Row| row.state == ARRIVING && row.port == Some(port);
    let mut count = 0;
    for table in tables()? {
        count += table.lines().filter_map(Row::read).filter(is_one).count();
    }
    Ok(count)
}

/// How many wait to be accepted from the socket of this number. Reads a table of all sockets.
pub(super) fn waiting(number: u64) -> io::Result<usize> {
    let number = number.to_string();
    for table in tables()? {
        let mut rows = table.lines().filter_map(Row::read);
        let own = rows.find(|row| row.state == LISTENING && row.inode == number);
        if let Some(count) = own.and_then(|row| row.waiting) {
            return Ok(count);
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

fn tables() -> io::Result<Vec<String>> {
    // A kernel without IPv6 has only the first.
    let [first, second] = TABLES;
    let first = fs::read_to_string(first)?;
    Ok([first]
        .into_iter()
        .chain(fs::read_to_string(second))
        .collect())
}

/// What is read of one line.
struct Row<'a> {
    port: Option<u16>,
    state: &'a str,
    /// Of a socket that listens: how many have not been accepted yet.
    waiting: Option<usize>,
    inode: &'a str,
}

impl<'a> Row<'a> {
    /// `0: 0100007F:1F90 00000000:0000 0A 00000000:00000005 00:00000000 00000000 0 0 4711 ...`
    fn read(line: &'a str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (_, port) = fields.next()?.split_once(':')?;
        let state = fields.nth(1)?;
        let (_, waiting) = fields.next()?.split_once(':')?;
        Some(Self {
            port: u16::from_str_radix(port, 16).ok(),
            state,
            waiting: usize::from_str_radix(waiting, 16).ok(),
            inode: fields.nth(4)?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn the_kernel_tells_how_many_wait() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(queue) = TcpListener::bind(address) else {
                // No IPv6 on this machine.
                continue;
            };
            let address = queue.local_addr().unwrap();
            assert!(!is_waiting(&queue));
            let clients = [(); 3].map(|()| TcpStream::connect(address).unwrap());
            assert!(is_waiting(&queue));
            assert_eq!(waiting(number(&queue).unwrap()).unwrap(), clients.len());
            assert_eq!(arriving(address.port()).unwrap(), 0);
        }
        assert!(waiting(u64::MAX).is_err());
    }
}
