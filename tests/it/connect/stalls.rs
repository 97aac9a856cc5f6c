//! Gateways that stop in the middle of a handshake, and pipes that nobody reads or that are closed.

use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConnection, ServerConfig, ServerConnection, SupportedProtocolVersion};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::unbounded_channel;

use super::{TARGET, brought, connect, failed, gate, to};
use crate::authority::Authority;
use crate::edge::fill;
use crate::support::{Child, run};
use crate::upstream::{Upstream, echo};

/// What a gateway does when it has said enough.
#[derive(Clone, Copy, Debug)]
pub(super) enum Then {
    Silence,
    Close,
    Reset,
    Nonsense,
}

/// A gateway of which only so many records of its handshake come, and then this.
pub(super) async fn cut(
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
    records: usize,
    then: Then,
) -> Upstream {
    let config = authority.issue(&[TARGET]).server(&[version]);
    Upstream::tcp(move |tcp| speak(tcp, Arc::clone(&config), records, then)).await
}

async fn speak(mut tcp: TcpStream, config: Arc<ServerConfig>, mut records: usize, then: Then) {
    let mut tls = ServerConnection::new(config).unwrap();
    let mut chunk = vec![0; 16 * 1024];
    let mut has_heard = false;
    loop {
        let mut flight = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut flight).unwrap();
        }
        let lengths = lengths(&flight);
        let said: usize = lengths.iter().take(records).sum();
        records -= lengths.len().min(records);
        tcp.write_all(&flight[..said]).await.unwrap();
        if records == 0 && has_heard {
            break;
        }
        let Ok(count @ 1..) = tcp.read(&mut chunk).await else {
            return;
        };
        has_heard = true;
        let mut rest = &chunk[..count];
        while tls.read_tls(&mut rest).unwrap_or(0) > 0 {
            tls.process_new_packets().unwrap();
        }
        if tls.wants_write() && records == 0 {
            break;
        }
    }
    match then {
        Then::Silence => {}
        Then::Nonsense => tcp.write_all(&[b'?'; 100]).await.unwrap(),
        Then::Close => tcp.shutdown().await.unwrap(),
        Then::Reset => {
            return SockRef::from(&tcp)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
    }
    let _ = tcp.read_to_end(&mut Vec::new()).await;
}

/// How long each record is, with its header.
fn lengths(mut flight: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while let [_, _, _, high, low, ..] = *flight {
        let length = 5 + usize::from(u16::from_be_bytes([high, low]));
        lengths.push(length);
        flight = &flight[length..];
    }
    lengths
}

/// How many records of such a gateway a client needs to finish its handshake.
fn needed(authority: &Authority, version: &'static SupportedProtocolVersion) -> usize {
    let mut server = ServerConnection::new(authority.issue(&[TARGET]).server(&[version])).unwrap();
    let name = ServerName::try_from(TARGET).unwrap();
    let mut client = ClientConnection::new(Arc::new(authority.client(&[version])), name).unwrap();
    let mut needed = 0;
    while client.is_handshaking() {
        let mut up = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut up).unwrap();
        }
        let mut rest = &up[..];
        while server.read_tls(&mut rest).unwrap() > 0 {
            server.process_new_packets().unwrap();
        }
        let mut down = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut down).unwrap();
        }
        let mut rest = &down[..];
        for length in lengths(&down) {
            if client.is_handshaking() {
                let (mut record, behind) = rest.split_at(length);
                client.read_tls(&mut record).unwrap();
                client.process_new_packets().unwrap();
                (rest, needed) = (behind, needed + 1);
            }
        }
    }
    needed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_stops_after_any_record_of_its_handshake_is_told_of_in_time() {
    let authority = Authority::new();
    for version in [&TLS12, &TLS13] {
        let needed = needed(&authority, version);
        assert!(needed >= 3, "{needed}");
        let mut waiting = Vec::new();
        for records in 0..needed {
            for (then, says) in [
                (Then::Close, "closed the connection in the TLS handshake"),
                (Then::Reset, "reset the connection in the TLS handshake"),
            ] {
                let gate = cut(&authority, version, records, then).await;
                let done = run(&to(connect(&authority, gate.address), &[TARGET]), b"hello");
                failed(&done, 24, says, "is the gateway's port");
                assert!(done.stdout.is_empty(), "{records} {then:?}");
            }
            let gate = cut(&authority, version, records, Then::Silence).await;
            let patience = ["--timeout", "2s", TARGET];
            let command = to(connect(&authority, gate.address), &patience);
            waiting.push((gate, Child::spawn_with_stdin(&command)));
        }
        for (_gate, (child, _stdin)) in waiting {
            let says = "no TLS handshake within 2s";
            failed(&child.finish(), 24, says, "is the gateway's port");
        }
        // With one more it is a gateway.
        let gate = cut(&authority, version, needed, Then::Close).await;
        let done = run(&to(connect(&authority, gate.address), &[TARGET]), b"hello");
        failed(&done, 15, "before a byte came back", "probably down");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_that_nobody_reads_holds_the_tunnel_up_until_its_user_hangs_up() {
    let authority = Authority::new();
    let (send, mut full) = unbounded_channel();
    let gate = gate(&authority, move |mut stream| {
        let send = send.clone();
        async move {
            let taken = AtomicU64::new(0);
            fill(&mut stream, &taken).await;
            let _ = send.send(taken.load(Ordering::Relaxed));
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let unread = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (pipe, _) = listener.accept().unwrap();
    let child = Child::spawn_on_socket(&to(connect(&authority, gate.address), &[TARGET]), pipe);
    assert!(full.recv().await.unwrap() > 64 * 1024);
    assert!(!child.has_ended());
    child.signal("HUP");
    brought(&child.finish(), b"");
    drop(unread);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_stdin_is_an_input_at_its_end_and_a_closed_stdout_one_that_nobody_wants() {
    let authority = Authority::new();
    let gate = gate(&authority, echo).await;
    for closed in ["<&-", ">&-", "<&- >&-", "<&- >&- 2>&-"] {
        let command = to(connect(&authority, gate.address), &[TARGET]);
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec \"$@\" {closed}"), "sh"]);
        shell.arg(command.get_program()).args(command.get_args());
        brought(&run(&shell, b""), b"");
    }
}
