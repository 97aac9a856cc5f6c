//! `portcullis connect` through a real HTTP proxy: let through, refused for its port or its host, and asked who it is.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{TARGET, brought, connect, failed, gate, to};
use crate::authority::Authority;
use crate::peers;
use crate::ports;
use crate::support::{Child, wait_until};

/// What a client says last.
const END: &[u8] = b"\nthe end\n";

/// Starts the proxy with these lines; its port.
fn start(program: &Path, authority: &Authority, lines: &str) -> (Child, u16) {
    loop {
        let port = ports::free();
        let text = format!("Port {port}\nListen 127.0.0.1\nTimeout 60\nLogLevel Info\n{lines}\n");
        let config = authority.write("tinyproxy.conf", &text);
        let mut command = Command::new(program);
        let child = Child::spawn(command.arg("-d").arg("-c").arg(config));
        let says = |line: &str| match () {
            () if line.contains("Accepting connections") => Some(true),
            // Somebody else was faster.
            () if line.contains("Could not create listening") => Some(false),
            () => None,
        };
        if child.wait_for("that it listens", says) {
            return (child, port);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_proxy_lets_through_what_it_allows_and_what_it_refuses_is_told() {
    let Some(program) = peers::require("tinyproxy", "tinyproxy") else {
        return;
    };
    let authority = Authority::new();
    // It answers before its client ends: this proxy ends both directions with the first.
    let gate = gate(&authority, |mut stream| async move {
        let mut all = Vec::new();
        while !all.ends_with(END) {
            if stream.read_buf(&mut all).await.unwrap_or(0) == 0 {
                return;
            }
        }
        stream.write_all(&all).await.unwrap();
        stream.shutdown().await.unwrap();
    })
    .await;
    let through = |lines: &str, login: &str, bytes: &[u8]| -> Output {
        let (_proxy, port) = start(&program, &authority, lines);
        let url = format!("http://{login}127.0.0.1:{port}");
        let command = to(
            connect(&authority, gate.address),
            &["--proxy", &url, TARGET],
        );
        let (child, mut stdin) = Child::spawn_with_stdin(&command);
        // What is refused is not read.
        let _ = stdin.write_all(bytes);
        wait_until("it has come back, or failed", || {
            child.has_written(bytes) || child.has_ended()
        });
        drop(stdin);
        child.finish()
    };
    let much = [super::noise(7, 1 << 20), END.to_vec()].concat();
    let hello = [b"hello".as_slice(), END].concat();
    brought(&through("", "", &much), &much);
    let port = format!("ConnectPort {}", gate.address.port());
    brought(&through(&port, "", &hello), &hello);

    let hints = "it may allow other ports only (often 443), or not reach 127.0.0.1";
    failed(
        &through("ConnectPort 443", "", b""),
        36,
        "403 \"Access violation\"",
        hints,
    );
    let filter = authority.write("filter", "127\\.0\\.0\\.1\n");
    let filter = format!("Filter \"{}\"", filter.display());
    failed(&through(&filter, "", b""), 36, "403 \"Filtered\"", hints);

    let auth = "BasicAuth me secret";
    brought(&through(auth, "me:secret@", &hello), &hello);
    failed(
        &through(auth, "", b""),
        36,
        "asks for a user and a password",
        "http://USER:PASSWORD@HOST:PORT",
    );
    failed(
        &through(auth, "me:wrong@", b""),
        36,
        "does not accept the user and password for it",
        "write those that it knows",
    );
}
