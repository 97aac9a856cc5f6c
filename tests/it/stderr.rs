//! A gateway whose diagnostics nobody reads: it serves and ends as any other.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::authority::Authority;
use crate::support::{Child, run, wait_until};
use crate::upstream::Upstream;

const NAME: &str = "stderr.example.test";

/// Linux: O_NONBLOCK.
const NONBLOCK: i32 = 0o4000;

/// A pipe with a name, kept open for reading.
fn pipe(authority: &Authority) -> File {
    let path = authority.folder().join("stderr");
    let made = run(Command::new("mkfifo").arg(&path), b"");
    assert!(made.status.success(), "{made:?}");
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(NONBLOCK);
    options.open(path).unwrap()
}

/// A gateway that writes to the pipe what `to_pipe` says, in the shell's words.
fn start(authority: &Authority, upstream: SocketAddr, to_pipe: &str) -> Child {
    let config = format!(
        "listen = [\"127.0.0.1:0\"]\nadmin = \"unix:admin.sock\"\nlog = {{ format = \"json\" }}\n\
         certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
         [limits]\ndrain_timeout = \"0s\"\n[routes.echo]\nhost = \"{NAME}\"\nupstream = \"{upstream}\"\n"
    );
    let config = authority.write("portcullis.toml", &config);
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!(r#"exec "$0" serve --config "$1" {to_pipe}"#)])
        .arg(env!("CARGO_BIN_EXE_portcullis"))
        .arg(config)
        .current_dir(authority.folder());
    Child::spawn(&command)
}

/// The listener, as the metrics name it once it accepts: the log cannot tell.
fn listener(socket: &Path) -> Option<SocketAddr> {
    let mut admin = UnixStream::connect(socket).ok()?;
    admin.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    admin.read_to_string(&mut text).ok()?;
    let (_, rest) = text.split_once("accepted_total{listener=\"")?;
    rest.split_once('"')?.0.parse().ok()
}

/// A client is served, then the gateway ends well when it is told to.
async fn serves_and_ends(authority: &Authority, gateway: Child) {
    let socket = authority.folder().join("admin.sock");
    wait_until("the gateway accepts", || listener(&socket).is_some());
    let tcp = TcpStream::connect(listener(&socket).unwrap())
        .await
        .unwrap();
    let config = TlsConnector::from(Arc::new(authority.client(&[&TLS13])));
    let name = ServerName::try_from(NAME).unwrap();
    let mut client = config.connect(name, tcp).await.unwrap();
    client.write_all(b"hello").await.unwrap();
    client.read_exact(&mut [0; 5]).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    gateway.signal("TERM");
    let output = gateway.finish();
    assert!(output.status.success(), "{output:?}");
    let records = String::from_utf8(output.stdout).unwrap();
    assert!(records.contains(r#""reason":"closed""#), "{records}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_the_diagnostics_that_stopped_holds_up_neither_a_connection_nor_the_end() {
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let upstream = Upstream::echo().await;
    let mut pipe = pipe(&authority);
    fill(&mut pipe);
    let gateway = start(&authority, upstream.address, "2>stderr");
    serves_and_ends(&authority, gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_whose_last_words_nobody_reads_keeps_its_bound() {
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let mut pipe = pipe(&authority);
    fill(&mut pipe);
    let nobody = "127.0.0.1:1".parse().unwrap();
    let gateway = start(&authority, nobody, ">stderr 2>&1");
    let socket = authority.folder().join("admin.sock");
    wait_until("the gateway accepts", || listener(&socket).is_some());
    // It is cut, and nobody reads its record.
    let _client = TcpStream::connect(listener(&socket).unwrap())
        .await
        .unwrap();
    let begin = Instant::now();
    gateway.signal("TERM");
    let output = gateway.finish();
    let time = begin.elapsed();
    assert!(output.status.success(), "{output:?}");
    assert!(time <= Duration::from_secs(5), "{time:?}");
}

/// Leaves no room in it.
fn fill(pipe: &mut File) {
    // Byte by byte at the end: not even a short message finds room.
    for size in [4096, 1] {
        let full = loop {
            if let Err(error) = pipe.write(&vec![b'.'; size]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_the_diagnostics_that_is_gone_keeps_the_gateway_neither_from_serving_nor_from_its_end()
 {
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let upstream = Upstream::echo().await;
    let pipe = pipe(&authority);
    let gateway = start(&authority, upstream.address, "2>stderr");
    let socket = authority.folder().join("admin.sock");
    wait_until("the gateway has opened its stderr", || {
        listener(&socket).is_some()
    });
    drop(pipe);
    serves_and_ends(&authority, gateway).await;
}
