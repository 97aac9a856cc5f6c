//! Ten thousand who hold half a hello, with silent ones and garbage among them: whoever is real is served beside them.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::authority::Authority;
use crate::gateway::ask;
use crate::hello_bytes::{framed, named};
use crate::network;
use crate::peers;
use crate::program::Program;
use crate::support::PATIENCE;
use crate::upstream::Upstream;

const HALF_HELLOS: usize = 10_000;
const SILENT: usize = 40;
const GARBAGE: usize = 20;

/// Real clients, so many at a time, each with as many words.
const REAL: usize = 100;
const AT_ONCE: usize = 10;
const WORDS: usize = 32;

/// What one of them may cost, with the hello that is there of it and what rustls keeps for it (measured: 7 KiB).
const MOST_EACH: usize = 16 << 10;

/// In a network of its own, for the ports that it takes.
#[test]
fn ten_thousand_half_hellos_keep_no_real_client_from_being_served() {
    network::of_its_own(
        "hostile::crowd::ten_thousand_half_hellos_keep_no_real_client_from_being_served",
        async {
            let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
            if files < (HALF_HELLOS + 1_000) as u64 {
                return peers::skip_or_fail("not enough open files (raise `ulimit -n` to 20000)");
            }
            serves_beside_a_crowd().await;
        },
    );
}

async fn serves_beside_a_crowd() {
    let authority = Authority::new();
    authority.issue_files("edge", &["open.example.test"]);
    let upstream = Upstream::echo().await;
    let tables = format!(
        "admin = \"127.0.0.1:0\"\nlog.format = \"json\"\nlimits = {{ handshake_timeout = \"60s\", connections = {{ enforce = \"dry-run\" }}, per_source = \"off\", handshakes = \"off\", accept_rate = {{ per_second = \"off\" }} }}\n\
         certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
         [routes.open]\nhost = \"open.example.test\"\nupstream = \"{}\"\n",
        upstream.address
    );
    let program = Program::start(&authority, &tables);
    let client = Arc::new(authority.client(&[&TLS13]));
    real(program.listener, &client).await;
    let before = memory(&program);

    let hello = framed(&named("open.example.test"), &[]);
    let mut crowd = Vec::new();
    for _ in 0..SILENT {
        crowd.push(TcpStream::connect(program.listener).await.unwrap());
    }
    for number in 0..HALF_HELLOS {
        let mut tcp = TcpStream::connect(program.listener).await.unwrap();
        tcp.write_all(&hello[..1 + number % (hello.len() - 1)])
            .await
            .unwrap();
        crowd.push(tcp);
    }
    let mut garbage = Vec::new();
    for number in 0..GARBAGE {
        let mut tcp = TcpStream::connect(program.listener).await.unwrap();
        tcp.write_all(&vec![number as u8; 600]).await.unwrap();
        garbage.push(tcp);
    }
    let served = accepted(&program).await;
    assert_eq!(
        served,
        REAL + SILENT + HALF_HELLOS + GARBAGE,
        "all of them are in"
    );

    real(program.listener, &client).await;
    let each = memory(&program).saturating_sub(before) / HALF_HELLOS;
    assert!(each < MOST_EACH, "{each} bytes for each of the crowd");

    // And each has its end, once.
    drop(crowd);
    drop(garbage);
    let ends = [
        ("closed", 2 * REAL),
        ("client_gone", SILENT + HALF_HELLOS),
        // One of them begins as TLS does.
        ("not_tls", GARBAGE),
    ];
    for (reason, count) in ends {
        until(&program, reason, count).await;
    }
    program.child.signal("TERM");
    let records = program.records();
    let counted: u64 = records
        .iter()
        .map(|record| 1 + record["suppressed"].as_u64().unwrap())
        .sum();
    let all = 2 * REAL + SILENT + HALF_HELLOS + GARBAGE;
    assert!(
        counted <= all as u64,
        "{counted} records of {all} connections"
    );
}

/// Real clients, each of whom makes a handshake and hears every word that it says.
async fn real(address: SocketAddr, config: &Arc<ClientConfig>) {
    for _ in 0..REAL / AT_ONCE {
        let mut clients = JoinSet::new();
        for _ in 0..AT_ONCE {
            let connector = TlsConnector::from(Arc::clone(config));
            clients.spawn(timeout(PATIENCE, async move {
                let tcp = TcpStream::connect(address).await.unwrap();
                tcp.set_nodelay(true).unwrap();
                let name = ServerName::try_from("open.example.test").unwrap();
                let mut tls = connector.connect(name, tcp).await.unwrap();
                for word in 0..WORDS {
                    let said = [word as u8; 64];
                    let mut heard = [0; 64];
                    tls.write_all(&said).await.unwrap();
                    tls.read_exact(&mut heard).await.unwrap();
                    assert_eq!(heard, said);
                }
                tls.shutdown().await.unwrap();
                tls.read_to_end(&mut Vec::new()).await.unwrap();
            }));
        }
        for served in clients.join_all().await {
            served.expect("a real client is not served");
        }
    }
}

/// The memory of the gateway's process, in bytes.
fn memory(program: &Program) -> usize {
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", program.child.id())).unwrap();
    let pss = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .unwrap();
    let kib: usize = pss.trim().trim_end_matches(" kB").parse().unwrap();
    kib << 10
}

/// How many connections have been accepted, once it does not change any more.
async fn accepted(program: &Program) -> usize {
    let mut last = 0;
    loop {
        let now = sum(program, "portcullis_connections_accepted_total").await;
        if now == last {
            return now;
        }
        last = now;
        sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until so many have ended for this reason, and makes sure that there are no more.
async fn until(program: &Program, reason: &str, count: usize) {
    let reason = format!("reason=\"{reason}\"");
    let wait = async {
        while sum(program, &reason).await < count {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = timeout(PATIENCE, wait).await;
    assert!(
        waited.is_ok() && sum(program, &reason).await == count,
        "{reason}: not {count}"
    );
}

/// The sum of the figures in whose lines this stands.
async fn sum(program: &Program, words: &str) -> usize {
    let (_, metrics) = ask(program.admin, "/metrics").await;
    let lines = metrics
        .lines()
        .filter(|line| !line.starts_with('#') && line.contains(words));
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap())
        .sum()
}
