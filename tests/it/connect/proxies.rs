//! `portcullis connect` through an HTTP proxy, and past it.

use std::net::SocketAddr;
use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{TARGET, bare, brought, failed, gate, to};
use crate::authority::Authority;
use crate::support::run;
use crate::upstream::{Upstream, echo};

/// The gateway's name, which only the proxy can resolve.
const GATE: &str = "gate.invalid:443";

/// A proxy that leads everybody to this address; the heads of what it was asked come along.
async fn proxy(to: SocketAddr) -> (Upstream, UnboundedReceiver<String>) {
    let (send, asked) = unbounded_channel();
    let proxy = Upstream::tcp(move |mut tcp| {
        let send = send.clone();
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                if tcp.read_buf(&mut head).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            send.send(String::from_utf8(head).unwrap()).unwrap();
            let mut onward = TcpStream::connect(to).await.unwrap();
            tcp.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                .await
                .unwrap();
            let _ = copy_bidirectional(&mut tcp, &mut onward).await;
        }
    })
    .await;
    (proxy, asked)
}

/// A proxy that gives every request this answer.
pub(super) async fn answering(answer: &'static [u8]) -> Upstream {
    Upstream::tcp(move |mut tcp| async move {
        tcp.readable().await.unwrap();
        let _ = tcp.write_all(answer).await;
        let _ = tcp.shutdown().await;
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    })
    .await
}

fn through(authority: &Authority) -> Command {
    let mut command = bare(authority);
    command.args(["--gateway", GATE, "--ca"]);
    command.arg(authority.folder().join("ca.pem"));
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_taken_from_the_flag_the_file_or_the_environment() {
    let authority = Authority::new();
    let gate = gate(&authority, echo).await;
    let (proxy, mut asked) = proxy(gate.address).await;
    let url = format!("http://me:pa%20ss@{}", proxy.address);

    let typed = to(through(&authority), &["--proxy", &url, TARGET]);
    brought(&run(&typed, b"hello"), b"hello");
    let request = asked.recv().await.unwrap();
    let login = data_encoding::BASE64.encode(b"me:pa ss");
    assert!(
        request.starts_with("CONNECT gate.invalid:443 HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(request.contains(&format!("Basic {login}\r\n")), "{request}");

    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"] {
        let mut command = to(through(&authority), &[TARGET]);
        brought(&run(command.env(name, &url), b"hello"), b"hello");
        asked.recv().await.unwrap();
    }

    std::fs::create_dir(authority.folder().join("portcullis")).unwrap();
    authority.write(
        "portcullis/client.toml",
        &format!("[domains.\"*\"]\ngateway = \"other.invalid\"\nproxy = \"{url}\"\n"),
    );
    let mut command = to(through(&authority), &[TARGET]);
    brought(
        &run(command.env("HTTPS_PROXY", "http://127.0.0.1:1"), b"hello"),
        b"hello",
    );
    asked.recv().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_where_no_proxy_is_wanted() {
    let authority = Authority::new();
    let gate = gate(&authority, echo).await;
    let (proxy, mut asked) = proxy(gate.address).await;
    let url = format!("http://{}", proxy.address);
    let mut command = to(through(&authority), &[TARGET]);
    command
        .env("HTTPS_PROXY", &url)
        .env("NO_PROXY", "10.0.0.0/8, .invalid");
    failed(
        &run(&command, b""),
        20,
        "address of the gateway gate.invalid",
        "--gateway",
    );
    let mut command = to(through(&authority), &["--proxy", "none", TARGET]);
    command.env("HTTPS_PROXY", &url);
    failed(
        &run(&command, b""),
        20,
        "address of the gateway gate.invalid",
        "--gateway",
    );
    assert!(asked.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_proxy_refuses_is_told_in_two_lines_without_its_password() {
    let authority = Authority::new();
    for (answer, login, says, hints) in [
        (
            b"HTTP/1.1 407 Who are you?\r\n\r\n".as_slice(),
            "",
            "asks for a user and a password",
            "HTTPS_PROXY",
        ),
        (
            b"HTTP/1.1 407 No\r\n\r\n",
            "me:secret@",
            "does not accept the user and password",
            "HTTPS_PROXY or client.toml",
        ),
        (
            b"HTTP/1.1 403 Not this port\r\n\r\n",
            "me:secret@",
            "gateway gate.invalid:443: 403 \"Not this port\"",
            "often 443",
        ),
        (
            b"SSH-2.0-x\r\n",
            "me:secret@",
            "is no HTTP proxy",
            "is its port",
        ),
        (
            b"",
            "me:secret@",
            "closed the connection without an answer",
            "--proxy none",
        ),
    ] {
        let proxy = answering(answer).await;
        let url = format!("http://{login}{}", proxy.address);
        let done = run(&to(through(&authority), &["--proxy", &url, TARGET]), b"");
        failed(&done, 36, says, hints);
        let told = String::from_utf8(done.stderr).unwrap();
        assert!(!told.contains("secret"), "{told}");
    }
    let silent = Upstream::tcp(|tcp| async move {
        std::future::pending::<()>().await;
        drop(tcp);
    })
    .await;
    let url = format!("http://{}", silent.address);
    let command = to(
        through(&authority),
        &["--proxy", &url, "--timeout", "200ms", TARGET],
    );
    failed(
        &run(&command, b""),
        22,
        "brought no connection to the gateway gate.invalid:443 within 200ms",
        "--timeout",
    );
}

#[test]
fn a_proxy_that_cannot_be_used_is_not_passed_by() {
    let authority = Authority::new();
    for (value, says) in [
        (
            "https://me:secret@proxy:1",
            "HTTPS_PROXY in the environment: a proxy that is spoken to over TLS",
        ),
        (
            "socks5://me:secret@proxy:1",
            "a SOCKS proxy is not supported",
        ),
    ] {
        let mut command = to(through(&authority), &[TARGET]);
        let done = run(command.env("HTTPS_PROXY", value), b"");
        failed(&done, 2, says, "--proxy none");
        let told = String::from_utf8(done.stderr).unwrap();
        assert!(!told.contains("secret"), "{told}");

        let command = to(through(&authority), &["--proxy", value, TARGET]);
        let done = run(&command, b"");
        let (_, why) = says.rsplit_once(": ").unwrap_or(("", says));
        failed(&done, 2, &format!("--proxy: {why}"), "--proxy none");
        let told = String::from_utf8(done.stderr).unwrap();
        assert!(!told.contains("secret"), "{told}");
    }
}
