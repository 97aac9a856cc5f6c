//! The end of a gateway: nothing new, what runs goes on to its end or its deadline, and nothing is lost.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::lifecycle::{Handed, Reload, Shutdown};
use portcullis::log::AccessLog;
use portcullis::serve;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::authority::Authority;
use crate::gateway::{self, Gateway, exchange};
use crate::program::Program;
use crate::support::{Child, PATIENCE};
use crate::upstream::Upstream;

pub(crate) mod load;

pub(crate) const NAME: &str = "drain.example.test";

pub(crate) fn tables(upstream: SocketAddr, drain: &str) -> String {
    format!(
        "admin = \"127.0.0.1:0\"\nlog = {{ format = \"json\" }}\n\
         certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
         [limits]\ndrain_timeout = \"{drain}\"\n\
         [routes.drain]\nhost = \"{NAME}\"\nupstream = \"{upstream}\"\n"
    )
}

async fn echoes(stream: &mut TlsStream<TcpStream>) {
    stream.write_all(b"hello").await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"hello");
}

async fn is_refused(address: SocketAddr) {
    let trying = async {
        // What came in a moment before the listener closed is reset, or served.
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, trying)
        .await
        .expect("new connections are still taken");
}

#[tokio::test]
async fn a_running_tunnel_goes_on_while_nothing_new_is_taken() {
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let upstream = Upstream::echo().await;
    let mut gateway = Gateway::start(&authority, &tables(upstream.address, "5m")).await;
    let config = Arc::new(authority.client(&[&TLS13]));
    let mut client = gateway.connect_tls(&config, NAME).await.unwrap();
    echoes(&mut client).await;
    gateway.shutdown.begin_drain();
    is_refused(gateway.address).await;
    let (status, text) = gateway.ask_admin("/readyz").await;
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("draining"), "{text}");
    assert_eq!(gateway.ask_admin("/livez").await.0, 200);
    echoes(&mut client).await;
    assert!(!gateway.finished.is_finished());
    client.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    let record = loop {
        // The attempts above may have come in just before the listener closed.
        let record = gateway.ended().await;
        if record["route"] == "drain" {
            break record;
        }
    };
    assert_eq!(record["reason"], "closed", "{record}");
    timeout(PATIENCE, &mut gateway.finished)
        .await
        .expect("the gateway does not end")
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn connections_that_were_queued_before_the_drain_are_all_served() {
    serves_queued(400, "").await;
}

#[tokio::test]
async fn connections_that_were_queued_before_the_drain_wait_where_the_limits_leave_no_room() {
    serves_queued(40, "handshakes.max = 4\n").await;
    serves_queued(40, "connections.max = 4\n").await;
}

async fn serves_queued(count: usize, limit: &str) {
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let upstream = Upstream::echo().await;
    let tables =
        tables(upstream.address, "5m").replace("[limits]\n", &format!("[limits]\n{limit}"));
    let gateway = Gateway::start(&authority, &tables).await;
    // Nothing else runs on this thread meanwhile: the gateway has not heard of any of them.
    let queued: Vec<_> = (0..count)
        .map(|_| std::net::TcpStream::connect(gateway.address).unwrap())
        .collect();
    gateway.shutdown.close();
    for tcp in queued {
        tcp.set_nonblocking(true).unwrap();
        let (answer, reset) =
            exchange(TcpStream::from_std(tcp).unwrap(), b"GET / HTTP/1.0\r\n\r\n").await;
        assert!(!reset, "a connection was thrown away");
        // An alert (RFC 8446 6).
        assert_eq!(answer.first(), Some(&21));
    }
    timeout(PATIENCE, gateway.finished)
        .await
        .expect("the gateway does not end")
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_hello_that_is_on_its_way_when_the_drain_begins_is_served() {
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&authority, &tables(upstream.address, "5m")).await;
    let tcp = gateway.connect().await;
    gateway.shutdown.begin_drain();
    is_refused(gateway.address).await;
    let mut client = handshake(&authority, tcp).await;
    echoes(&mut client).await;
}

#[tokio::test]
async fn at_the_deadline_what_still_runs_is_cut_and_a_plain_upstream_sees_no_end() {
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let upstream = Upstream::tcp(move |mut tcp| {
        let tell = tell.clone();
        async move {
            tell.send(tcp.read_to_end(&mut Vec::new()).await.map_err(|e| e.kind()))
                .unwrap();
        }
    })
    .await;
    let mut gateway = Gateway::start(&authority, &tables(upstream.address, "100ms")).await;
    let config = Arc::new(authority.client(&[&TLS13]));
    let mut client = gateway.connect_tls(&config, NAME).await.unwrap();
    client.write_all(b"half an upload").await.unwrap();
    client.flush().await.unwrap();
    let silent = gateway.connect().await;
    gateway.shutdown.begin_drain();
    timeout(PATIENCE, &mut gateway.finished)
        .await
        .expect("the gateway does not end")
        .unwrap()
        .unwrap();
    for _ in 0..2 {
        let record = gateway.ended().await;
        assert_eq!(record["reason"], "drained", "{record}");
    }
    let seen = told.recv().await.unwrap();
    assert_eq!(seen, Err(std::io::ErrorKind::ConnectionReset));
    let end = client.read(&mut [0]).await.unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::UnexpectedEof);
    let mut silent = silent;
    assert_eq!(gateway::answer(&mut silent).await.0, b"");
}

async fn handshake(authority: &Authority, tcp: TcpStream) -> TlsStream<TcpStream> {
    let config: Arc<ClientConfig> = Arc::new(authority.client(&[&TLS12, &TLS13]));
    let name = ServerName::try_from(NAME).unwrap();
    TlsConnector::from(config).connect(name, tcp).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_drains_the_program_which_then_exits_well() {
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let upstream = Upstream::echo().await;
    let program = Program::start(&authority, &tables(upstream.address, "5m"));
    let tcp = TcpStream::connect(program.listener).await.unwrap();
    let mut client = handshake(&authority, tcp).await;
    echoes(&mut client).await;
    program.child.signal("TERM");
    is_refused(program.listener).await;
    let request = b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n";
    let (answer, _) = exchange(TcpStream::connect(program.admin).await.unwrap(), request).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 503"), "{answer}");
    echoes(&mut client).await;
    client.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    let records = program.records();
    assert_eq!(records.last().unwrap()["reason"], "closed", "{records:?}");
    assert_eq!(
        records
            .iter()
            .filter(|record| record["route"] == "drain")
            .count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_access_log_connections_are_counted_and_not_written() {
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let upstream = Upstream::echo().await;
    let quiet = tables(upstream.address, "5m").replace("\"json\" }", "\"json\", access = false }");
    let program = Program::start(&authority, &quiet);
    let tcp = TcpStream::connect(program.listener).await.unwrap();
    let mut client = handshake(&authority, tcp).await;
    echoes(&mut client).await;
    client.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    let request = b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n";
    let counted = || async {
        let admin = TcpStream::connect(program.admin).await.unwrap();
        let (answer, _) = exchange(admin, request).await;
        let answer = String::from_utf8(answer).unwrap();
        answer.contains("portcullis_connections_ended_total{route=\"drain\",reason=\"closed\"")
    };
    while !counted().await {
        tokio::task::yield_now().await;
    }
    program.child.signal("TERM");
    assert!(program.records().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_ends_no_tunnel_and_has_the_configuration_read_again() {
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let upstream = Upstream::echo().await;
    let program = Program::start(&authority, &tables(upstream.address, "5m"));
    let tcp = TcpStream::connect(program.listener).await.unwrap();
    let mut client = handshake(&authority, tcp).await;
    echoes(&mut client).await;
    program.child.signal("HUP");
    let told = |line: &str| line.contains("the new configuration serves").then_some(());
    program
        .child
        .wait_for("that it has read its configuration", told);
    echoes(&mut client).await;
    client.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    program.child.signal("TERM");
    assert_eq!(program.records().last().unwrap()["reason"], "closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_the_program_at_once_with_every_record_written() {
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let upstream = Upstream::echo().await;
    let program = Program::start(&authority, &tables(upstream.address, "1d"));
    let mut clients = Vec::new();
    for _ in 0..20 {
        let tcp = TcpStream::connect(program.listener).await.unwrap();
        let mut client = handshake(&authority, tcp).await;
        echoes(&mut client).await;
        clients.push(client);
    }
    program.child.signal("TERM");
    is_refused(program.listener).await;
    program.child.signal("INT");
    let records = program.records();
    let drained = records
        .iter()
        .filter(|record| record["reason"] == "drained")
        .count();
    assert!(drained >= clients.len(), "{records:?}");
}

#[tokio::test]
async fn during_the_delay_clients_are_accepted_while_readyz_says_no() {
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let upstream = Upstream::echo().await;
    let delayed = tables(upstream.address, "5m\"\ndrain_delay = \"10m");
    let gateway = Gateway::start(&authority, &delayed).await;
    assert_eq!(gateway.ask_admin("/readyz").await.0, 200);
    gateway.shutdown.begin_drain();
    let (status, text) = gateway.ask_admin("/readyz").await;
    assert_eq!(status, 503, "{text}");
    let config = Arc::new(authority.client(&[&TLS13]));
    let mut client = gateway.connect_tls(&config, NAME).await.unwrap();
    echoes(&mut client).await;
    gateway.shutdown.close();
    is_refused(gateway.address).await;
    echoes(&mut client).await;
}

#[tokio::test]
async fn near_the_deadline_tunnels_end_one_after_the_other() {
    const TUNNELS: usize = 8;
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let upstream = Upstream::echo().await;
    let spread = tables(upstream.address, "2s\"\ndrain_spread = \"1s");
    let gateway = Gateway::start(&authority, &spread).await;
    let config = Arc::new(authority.client(&[&TLS13]));
    let mut tunnels = tokio::task::JoinSet::new();
    for _ in 0..TUNNELS {
        let mut client = gateway.connect_tls(&config, NAME).await.unwrap();
        echoes(&mut client).await;
        tunnels.spawn(async move {
            client.read(&mut [0]).await.unwrap_err();
            Instant::now()
        });
    }
    let begin = Instant::now();
    gateway.shutdown.begin_drain();
    timeout(PATIENCE, gateway.finished)
        .await
        .expect("the gateway does not end")
        .unwrap()
        .unwrap();
    let mut ends = tunnels.join_all().await;
    ends.sort();
    let (first, last) = (ends[0], ends[TUNNELS - 1]);
    assert!(first - begin >= Duration::from_secs(1));
    // Seven eighths of a second, on a machine that does nothing else.
    assert!(last - first >= Duration::from_millis(400), "{ends:?}");
}

#[tokio::test]
async fn a_gateway_that_is_told_to_stop_while_it_starts_stops() {
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let checked = Gateway::load(&authority, &tables("127.0.0.1:1".parse().unwrap(), "5m"));
    let (shutdown, wishes) = (Shutdown::new(), Reload::new());
    shutdown.begin_drain();
    let gateway = serve::start(
        checked,
        AccessLog::off(),
        shutdown,
        wishes,
        Handed::default(),
    )
    .await
    .unwrap();
    timeout(PATIENCE, gateway.finished())
        .await
        .expect("the gateway does not end")
        .unwrap();
}

#[tokio::test]
async fn a_gateway_that_stops_reads_no_configuration_and_says_so() {
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    authority.write("token", "s3cret");
    let upstream = Upstream::echo().await;
    let text = format!(
        "admin_token_file = \"token\"\n{}",
        tables(upstream.address, "5m")
    );
    let gateway = Gateway::start(&authority, &text).await;
    let config = Arc::new(authority.client(&[&TLS13]));
    let mut client = gateway.connect_tls(&config, NAME).await.unwrap();
    gateway.shutdown.begin_drain();
    let refused = gateway.reload.done("a test").await.unwrap_err();
    assert!(refused.contains("the gateway is stopping"), "{refused}");
    let Some(portcullis::config::ListenAddress::Tcp(admin)) = gateway.admin else {
        panic!("no admin interface on TCP");
    };
    let request =
        b"POST /v1/reload HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer s3cret\r\n\r\n";
    let (answer, _) = exchange(TcpStream::connect(admin).await.unwrap(), request).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 503"), "{answer}");
    assert!(answer.contains("the gateway is stopping"), "{answer}");
    echoes(&mut client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_cuts_at_its_deadline_is_over_in_time_and_exits_well() {
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let upstream = Upstream::echo().await;
    let times = "400ms\"\ndrain_delay = \"300ms\"\ndrain_spread = \"0s";
    let program = Program::start(&authority, &tables(upstream.address, times));
    let tcp = TcpStream::connect(program.listener).await.unwrap();
    let mut client = handshake(&authority, tcp).await;
    echoes(&mut client).await;
    let begin = Instant::now();
    program.child.signal("TERM");
    let end = client.read(&mut [0]).await.unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::UnexpectedEof);
    let records = program.records();
    let time = begin.elapsed();
    assert!(time >= Duration::from_millis(700), "{time:?}");
    assert!(time < PATIENCE / 3, "{time:?}");
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0]["reason"], "drained", "{records:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_whose_tunnel_is_cut_sees_an_end_and_not_a_hang() {
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let upstream = Upstream::tcp(async |mut tcp| {
        tcp.write_all(b"SSH-2.0-test\r\n").await.unwrap();
        // Until it is reset.
        tcp.read_to_end(&mut Vec::new()).await.unwrap_err();
    })
    .await;
    let tables = tables(upstream.address, "0s");
    let gateway = Gateway::start(&authority, &tables).await;
    let mut connect = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    let address = gateway.address.to_string();
    connect.args(["connect", "--gateway", &address, NAME, "--ca"]);
    connect.arg(authority.folder().join("ca.pem"));
    // ssh keeps the pipe open for as long as it waits.
    let (connect, _stdin) = Child::spawn_with_stdin(&connect);
    let greeted = |line: &str| line.starts_with("SSH-").then_some(());
    connect.wait_for("what the upstream says", greeted);
    gateway.shutdown.begin_drain();
    let ended = tokio::task::spawn_blocking(|| connect.finish())
        .await
        .unwrap();
    assert_eq!(ended.status.code(), Some(32), "{ended:?}");
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(
        told.contains("cut off\nhint: probably the gateway was stopped"),
        "{told}"
    );
}
