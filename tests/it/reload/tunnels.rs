//! Tunnels through many reloads, idle and busy, ended here and passed through: every byte arrives, and nothing is left behind.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{EDGE, echoes, eventually};
use crate::authority::Authority;
use crate::network;
use crate::peers;
use crate::program::Program;
use crate::soak::raise_file_limit;
use crate::soak::watch::{descriptors, memory};
use crate::support::PATIENCE;
use crate::upstream::{Upstream, echo};

/// Who is there, and how often the configuration changes meanwhile.
struct Crowd {
    idle: usize,
    busy: usize,
    reloads: usize,
}

#[test]
fn tunnels_notice_nothing_of_twenty_reloads() {
    let crowd = Crowd {
        idle: 200,
        busy: 20,
        reloads: 20,
    };
    network::of_its_own(
        "reload::tunnels::tunnels_notice_nothing_of_twenty_reloads",
        crowd.lives_through_them(),
    );
}

#[test]
fn thousands_of_tunnels_notice_nothing_of_a_hundred_reloads() {
    if !peers::long() {
        return;
    }
    let crowd = Crowd {
        idle: 2000,
        busy: 200,
        reloads: 100,
    };
    network::of_its_own(
        "reload::tunnels::thousands_of_tunnels_notice_nothing_of_a_hundred_reloads",
        crowd.lives_through_them(),
    );
}

impl Crowd {
    async fn lives_through_them(self) {
        raise_file_limit(5 * (self.idle + self.busy) as u64);
        let authority = Authority::new();
        authority.issue_files("edge", &["open.example.test"]);
        authority.write("token", "of-this-test\n");
        let pass = authority.issue(&["pass.example.test"]);
        let pass = Upstream::tls(pass.server(&[&TLS12, &TLS13]), echo).await;
        let open = Upstream::echo().await;
        let tables = |n: usize| tables(n, open.address, pass.address);
        let program = Program::start(&authority, &tables(0));
        let process = program.child.id();

        let client = Arc::new(authority.client(&[&TLS13]));
        let mut idle = Vec::new();
        for n in 0..self.idle {
            let mut tunnel = dial(program.listener, &client, n).await;
            echoes(&mut tunnel).await;
            idle.push(tunnel);
        }
        let (stop, bytes) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let mut busy = JoinSet::new();
        for n in 0..self.busy {
            let tunnel = dial(program.listener, &client, n).await;
            busy.spawn(talk(
                tunnel,
                n as u64,
                Arc::clone(&stop),
                Arc::clone(&bytes),
            ));
        }

        // The first ones make what stays: threads, spare pipes, the allocator's arenas.
        let warm = self.reloads / 4;
        let mut early = None;
        let sockets = || descriptors(process).remove("socket");
        for n in 1..=self.reloads {
            if n % 3 == 0 {
                authority.issue_files("edge", &["open.example.test"]);
            }
            let text = format!("listen = [\"127.0.0.1:0\"]\n{}", tables(n));
            authority.write("portcullis.toml", &text);
            assert_eq!(reload(program.admin).await, 200, "reload {n}");
            echoes(&mut dial(program.listener, &client, n).await).await;
            if n == warm {
                early = Some((memory(process), sockets()));
            }
        }
        let (early, before) = early.unwrap();
        let late = memory(process);
        eventually("no socket is left of the reloads", async || {
            descriptors(process).remove("socket") <= before
        })
        .await;

        stop.store(true, Relaxed);
        while let Some(ended) = timeout(PATIENCE, busy.join_next()).await.unwrap() {
            ended.unwrap();
        }
        for tunnel in &mut idle {
            echoes(tunnel).await;
        }
        eprintln!(
            "{} idle and {} busy tunnels, {} reloads: {} bytes each way, none wrong, no reset; resident {early} KiB after {warm} reloads, \
             {late} KiB after all; sockets {before:?}, then {:?}",
            self.idle,
            self.busy,
            self.reloads,
            bytes.load(Relaxed),
            descriptors(process).remove("socket"),
        );
        assert!(bytes.load(Relaxed) > 0);
        // A snapshot, its certificates and its policies are far less than a hundredth of it.
        assert!(late <= early + early / 5, "{early} KiB became {late} KiB");
    }
}

/// The configuration of the `n`th reload: something else differs each time, and the two routes stay.
fn tables(n: usize, open: SocketAddr, pass: SocketAddr) -> String {
    let alpn = ["\"a\"", "\"b\"", "\"a\", \"b\""][n % 3];
    let mut text = format!(
        "admin = \"127.0.0.1:0\"\nadmin_token_file = \"token\"\nlog = {{ format = \"json\" }}\n{EDGE}\
         [limits]\nper_source = \"off\"\naccept_rate = \"off\"\ndial_timeout = \"{}s\"\n[tls.options.other]\nalpn = [{alpn}]\n\
         [routes.open]\nhost = \"open.example.test\"\nupstream = \"{open}\"\n\
         [routes.pass]\nhost = \"pass.example.test\"\npassthrough = true\nupstream = \"{pass}\"\n",
        5 + n % 7
    );
    for more in 0..n % 5 {
        let options = ["", "tls_options = \"other\"\n"][n % 2];
        text += &format!(
            "[routes.more{more}]\nrule = 'HostSNI(`more{more}.example.test`) && ALPN(`a`)'\nupstream = \"{open}\"\n{options}"
        );
    }
    text
}

/// Every other one is passed through.
async fn dial(gateway: SocketAddr, client: &Arc<ClientConfig>, n: usize) -> TlsStream<TcpStream> {
    let tcp = TcpStream::connect(gateway).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let name = ServerName::try_from(["open.example.test", "pass.example.test"][n % 2]).unwrap();
    let connecting = TlsConnector::from(Arc::clone(client)).connect(name, tcp);
    timeout(PATIENCE, connecting).await.unwrap().unwrap()
}

/// Sends, and hears the same, until it is to stop; then both sides end cleanly.
async fn talk(
    tunnel: TlsStream<TcpStream>,
    seed: u64,
    stop: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
) {
    let (mut read, mut write) = split(tunnel);
    let sending = async move {
        let mut sent = 0;
        while !stop.load(Relaxed) {
            let chunk: Vec<u8> = (sent..sent + 4096).map(|place| word(seed, place)).collect();
            write.write_all(&chunk).await.unwrap();
            write.flush().await.unwrap();
            sent += 4096;
            sleep(Duration::from_millis(50)).await;
        }
        write.shutdown().await.unwrap();
        sent
    };
    let hearing = async move {
        let (mut heard, mut buffer) = (0, vec![0; 16 * 1024]);
        loop {
            let count = read.read(&mut buffer).await.unwrap();
            if count == 0 {
                return heard;
            }
            for byte in &buffer[..count] {
                assert_eq!(*byte, word(seed, heard), "byte {heard} of {seed}");
                heard += 1;
            }
        }
    };
    let (sent, heard) = tokio::join!(sending, hearing);
    assert_eq!(sent, heard);
    bytes.fetch_add(sent, Relaxed);
}

/// The byte at a place of the stream with this number: no two places of a stream, nor two streams, are alike for long.
fn word(seed: u64, place: u64) -> u8 {
    let mixed = (place ^ (seed << 40)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 56) as u8
}

/// What `POST /v1/reload` answers.
async fn reload(admin: SocketAddr) -> u16 {
    let mut tcp = TcpStream::connect(admin).await.unwrap();
    let request = format!(
        "POST /v1/reload HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer of-this-test\r\n\
         Content-Length: 0\r\nConnection: close\r\n\r\n"
    );
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}
