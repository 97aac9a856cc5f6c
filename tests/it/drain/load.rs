//! SIGTERM under load: who was accepted, and who waited to be, is served to the end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tokio::task::{JoinSet, spawn_blocking};

use super::{NAME, tables};
use crate::authority::Authority;
use crate::gateway::ask;
use crate::program::Program;
use crate::support::{PATIENCE, wait_until};
use crate::upstream::Upstream;

/// A client that has said a part of its hello.
pub(crate) struct Client {
    tls: ClientConnection,
    tcp: TcpStream,
    unsaid: Vec<u8>,
}

impl Client {
    /// Connects, and says all of the hello or only its first half.
    pub(crate) fn connect(
        config: &Arc<ClientConfig>,
        address: SocketAddr,
        is_whole: bool,
    ) -> std::io::Result<Self> {
        let name = ServerName::try_from(NAME).unwrap();
        let mut tls = ClientConnection::new(Arc::clone(config), name).unwrap();
        let mut hello = Vec::new();
        tls.write_tls(&mut hello)?;
        let unsaid = match is_whole {
            true => Vec::new(),
            false => hello.split_off(hello.len() / 2),
        };
        let mut tcp = TcpStream::connect(address)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.write_all(&hello)?;
        Ok(Self { tls, tcp, unsaid })
    }

    /// Finishes the hello, and sends and reads a chunk for as long as it is to; then both sides end in good order.
    pub(crate) fn exchange(mut self, goes_on: impl Fn() -> bool) -> std::io::Result<()> {
        self.tcp.write_all(&self.unsaid)?;
        let mut stream = StreamOwned::new(self.tls, self.tcp);
        let mut chunk = [7; 8 * 1024];
        loop {
            stream.write_all(&chunk)?;
            stream.flush()?;
            chunk.fill(0);
            stream.read_exact(&mut chunk)?;
            assert_eq!(chunk, [7; 8 * 1024]);
            if !goes_on() {
                break;
            }
        }
        stream.conn.send_close_notify();
        stream.flush()?;
        // The end of a stream without a close_notify is an error here.
        assert_eq!(stream.read(&mut chunk)?, 0);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_cuts_nobody_who_was_accepted_or_in_the_queue() {
    const BUSY: usize = 40;
    const MID_HANDSHAKE: usize = 40;
    // More than a runtime lets one task take in a turn, so that some wait when the drain begins.
    const QUEUED: usize = 300;
    // Of them; the others wait with their hello said. A test has a thousand descriptors.
    const AT_ONCE: usize = 64;
    const PATIENT: &str = "5m\"\nhandshake_timeout = \"1m";
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let upstream = Upstream::echo().await;
    let program = Program::start(&authority, &tables(upstream.address, PATIENT));
    let address = program.listener;
    let config = Arc::new(authority.client(&[&rustls::version::TLS12, &rustls::version::TLS13]));
    let connect = |is_whole| Client::connect(&config, address, is_whole).unwrap();

    let goes_on = Arc::new(AtomicBool::new(true));
    let mut clients = JoinSet::new();
    for _ in 0..BUSY {
        let (client, goes_on) = (connect(true), Arc::clone(&goes_on));
        clients.spawn(spawn_blocking(move || {
            client.exchange(|| goes_on.load(Ordering::Relaxed))
        }));
    }
    let halves: Vec<Client> = (0..MID_HANDSHAKE).map(|_| connect(false)).collect();
    let accepted = format!(
        "portcullis_connections_accepted_total{{listener=\"{address}\"}} {}",
        BUSY + MID_HANDSHAKE
    );
    let active = format!("portcullis_connections_active{{route=\"drain\"}} {BUSY}");
    let told = async || ask(program.admin, "/metrics").await.1;
    while !told().await.contains(&accepted) || !told().await.contains(&active) {
        tokio::task::yield_now().await;
    }

    program.child.signal("STOP");
    wait_until("the gateway stands still", || program.child.is_stopped());
    // The kernel answers for it.
    let queued: Vec<Client> = (0..QUEUED).map(|_| connect(true)).collect();
    program.child.signal("TERM");
    program.child.signal("CONT");
    let closed = |line: &str| line.contains("accepting nobody new").then_some(());
    program.child.wait_for("that it is closed", closed);
    let mut waiting: Vec<Client> = queued.into_iter().chain(halves).collect();
    while !waiting.is_empty() {
        let next = waiting.split_off(waiting.len().saturating_sub(AT_ONCE));
        let next = (next.into_iter()).map(|client| spawn_blocking(|| client.exchange(|| false)));
        for served in next.collect::<JoinSet<_>>().join_all().await {
            served.unwrap().unwrap();
        }
    }
    goes_on.store(false, Ordering::Relaxed);
    while let Some(served) = clients.join_next().await {
        served.unwrap().unwrap().unwrap();
    }
    let records = program.records();
    let closed = |record: &&serde_json::Value| record["reason"] == "closed";
    let count = records.iter().filter(closed).count();
    assert_eq!(count, BUSY + MID_HANDSHAKE + QUEUED, "{records:?}");
    assert_eq!(records.len(), count, "{records:?}");
}
