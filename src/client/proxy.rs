//! The way through an HTTP proxy: one request for a tunnel to the gateway, and its answer.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::connect::Connect;
use super::exit::Exit;
use super::gateway::{self, Gateway, Unreachable};
use super::report::Report;
use crate::config::HttpProxy;
use crate::name::quoted;

/// The longest head of an answer, in bytes.
///
/// 8 KiB: what servers take of a request's; an answer to CONNECT has a few hundred.
const LONGEST_ANSWER: usize = 8 * 1024;

/// How many interim answers may come before the one that counts (RFC 9110 §15.2).
///
/// 16: more than one is rare.
const INTERIM_ANSWERS: usize = 16;

/// Why the proxy opened no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Its name has no address.
    #[error("its address cannot be found: {0}")]
    Resolve(io::Error),
    /// None of its addresses takes connections.
    #[error("{0}")]
    Unreachable(Unreachable),
    /// The connection to it broke.
    #[error("the connection broke: {0}")]
    Broke(io::Error),
    /// It closed the connection in place of an answer, or in the middle of it.
    #[error("it closed the connection without an answer")]
    Closed,
    /// What came is not HTTP.
    #[error("it does not speak HTTP")]
    NotHttp,
    /// The head of its answer does not end.
    #[error("its answer is longer than {LONGEST_ANSWER} bytes")]
    Endless,
    /// None of its answers is the last one.
    #[error("it sent more than {INTERIM_ANSWERS} interim answers")]
    Unfinished,
    /// It answered with this status and these words.
    #[error("it answered {0} {1}")]
    Refused(u16, String),
}

/// Has the proxy connect to the gateway (CONNECT, RFC 9110 §9.3.6). Its name is left to the proxy to resolve.
///
/// What the gateway says first stays in the socket. For ever, if the proxy stays silent: the caller sets the deadline.
pub async fn through(proxy: &HttpProxy, gateway: &Gateway) -> Result<TcpStream, ProxyError> {
    let addresses = proxy.address.resolve().await.map_err(ProxyError::Resolve)?;
    let raced = gateway::race(addresses).await;
    let mut tcp = raced.map_err(ProxyError::Unreachable)?;
    let request = request(proxy, gateway);
    let written = tcp.write_all(request.as_bytes()).await;
    written.map_err(ProxyError::Broke)?;
    for _ in 0..=INTERIM_ANSWERS {
        let head = answer(&mut tcp).await?;
        match status(&head).ok_or(ProxyError::NotHttp)? {
            // Of another protocol (101) nobody has spoken.
            (100 | 102..=199, _) => {}
            (200..=299, _) => return Ok(tcp),
            (status, words) => return Err(ProxyError::Refused(status, words)),
        }
    }
    Err(ProxyError::Unfinished)
}

fn request(proxy: &HttpProxy, gateway: &Gateway) -> String {
    let login = proxy.login.as_ref().map_or_else(String::new, |login| {
        format!("Proxy-Authorization: Basic {}\r\n", login.reveal())
    });
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "CONNECT {gateway} HTTP/1.1\r\nHost: {gateway}\r\n{login}User-Agent: portcullis/{version}\r\n\r\n"
    )
}

/// Reads the head of an answer and not one byte more: what is behind it is the gateway's.
async fn answer(tcp: &mut TcpStream) -> Result<Vec<u8>, ProxyError> {
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let seen = match tcp.peek(&mut chunk).await.map_err(ProxyError::Broke)? {
            0 => return Err(ProxyError::Closed),
            seen => chunk.get(..seen).unwrap_or_default(),
        };
        let before = head.len();
        head.extend_from_slice(seen);
        let end = end_of_head(&head);
        head.truncate(end.unwrap_or(head.len()));
        let mut taken = vec![0; head.len() - before];
        let read = tcp.read_exact(&mut taken).await;
        read.map_err(ProxyError::Broke)?;
        match end {
            Some(_) => return Ok(head),
            None if head.len() > LONGEST_ANSWER => return Err(ProxyError::Endless),
            // Whoever does not begin as HTTP does need not be waited for.
            None if !b"HTTP/1.".starts_with(head.get(..7).unwrap_or(&head)) => {
                return Err(ProxyError::NotHttp);
            }
            None => {}
        }
    }
}

/// Where the empty line ends; a line may end without a CR, too (RFC 9112 §2.2).
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let ends = [b"\r\n\r\n".as_slice(), b"\n\n", b"\n\r\n"].map(|end| {
        let at = bytes.windows(end.len()).position(|window| window == end);
        at.map(|at| at + end.len())
    });
    ends.into_iter().flatten().min()
}

/// The status of an answer, and its words for a person (RFC 9112 §4).
fn status(head: &[u8]) -> Option<(u16, String)> {
    let line = head.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
    let rest = line.strip_prefix("HTTP/1.")?;
    let mut parts = rest.splitn(3, ' ').skip(1);
    let status = parts.next().filter(|digits| digits.len() == 3)?;
    let words = parts.next().unwrap_or_default();
    Some((status.parse().ok()?, quoted(words)))
}

impl Connect {
    /// What to tell of a proxy that opened no tunnel.
    pub(super) fn proxy_failed(&self, error: &ProxyError) -> Report {
        let Some(proxy) = &self.proxy else {
            return Report::new(Exit::Proxy, error.to_string(), "");
        };
        let gateway = &self.gateway;
        let (message, hint) = match error {
            // 401 is what tinyproxy says of a wrong password.
            ProxyError::Refused(407 | 401, _) if proxy.login.is_some() => (
                format!("the proxy {proxy} does not accept the user and password for it"),
                "write those that it knows in HTTPS_PROXY or client.toml: http://USER:PASSWORD@HOST:PORT".to_owned(),
            ),
            ProxyError::Refused(407, _) => (
                format!("the proxy {proxy} asks for a user and a password"),
                "write them in HTTPS_PROXY or client.toml: http://USER:PASSWORD@HOST:PORT; of other ways to log in there are none here".to_owned(),
            ),
            ProxyError::Refused(status, words) => (
                format!("the proxy {proxy} does not connect to the gateway {gateway}: {status} {words}"),
                format!(
                    "it may allow other ports only (often 443), or not reach {}; --proxy none goes without it",
                    gateway.host
                ),
            ),
            ProxyError::NotHttp | ProxyError::Endless | ProxyError::Unfinished => (
                format!("{proxy} is no HTTP proxy: {error}"),
                format!("check that {} is its port; --proxy none goes without it", proxy.address.port),
            ),
            error => (
                format!("no connection by the proxy {proxy}: {error}"),
                "check --proxy, or HTTPS_PROXY in the environment; --proxy none goes without it".to_owned(),
            ),
        };
        Report::new(Exit::Proxy, message, hint)
    }

    /// Neither the gateway nor, if there is one, the proxy answered in time.
    pub(super) fn no_answer(&self, within: Duration) -> Report {
        let gateway = &self.gateway;
        let message = match &self.proxy {
            None => format!("the gateway {gateway} did not answer within {within:?}"),
            Some(proxy) => format!(
                "the proxy {proxy} brought no connection to the gateway {gateway} within {within:?}"
            ),
        };
        Report::new(
            Exit::NoAnswer,
            message,
            "a firewall may be in the way; check host and port, or wait longer with --timeout",
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// What comes of a proxy that answers so, in these pieces.
    async fn answered(pieces: &'static [&'static [u8]]) -> (Result<TcpStream, ProxyError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxy: HttpProxy = format!("http://me:secret@{address}").parse().unwrap();
        let served = tokio::spawn(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            tcp.set_nodelay(true).unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                assert_ne!(tcp.read_buf(&mut request).await.unwrap(), 0);
            }
            for piece in pieces {
                // One that has heard enough hangs up.
                let _ = tcp.write_all(piece).await;
                tokio::task::yield_now().await;
            }
            String::from_utf8(request).unwrap()
        });
        let through = through(&proxy, &"gate.example.com:443".parse().unwrap()).await;
        (through, served.await.unwrap())
    }

    #[tokio::test]
    async fn what_the_gateway_says_behind_the_answer_is_not_lost() {
        for pieces in [
            [b"HTTP/1.1 200 OK\r\n\r\nfirst words".as_slice(), b""].as_slice(),
            &[b"HTTP/1.0 299\nA: b\n\nfir", b"st words"],
            &[
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r",
                b"\nHTTP/1.1 200 OK\r\n\r\nfirst words",
            ],
            &[
                b"HT",
                b"TP/1.1 200 Connection established\r",
                b"\n\r",
                b"\nfirst",
                b" words",
            ],
        ] {
            let pieces: &'static [&'static [u8]] = pieces.to_vec().leak();
            let (through, request) = answered(pieces).await;
            let mut words = String::new();
            through.unwrap().read_to_string(&mut words).await.unwrap();
            assert_eq!(words, "first words");
            let login = data_encoding::BASE64.encode(b"me:secret");
            assert!(
                request.starts_with(
                    "CONNECT gate.example.com:443 HTTP/1.1\r\nHost: gate.example.com:443\r\n"
                ),
                "{request}"
            );
            assert!(
                request.contains(&format!("\r\nProxy-Authorization: Basic {login}\r\n")),
                "{request}"
            );
        }
    }

    #[tokio::test]
    async fn whatever_else_a_proxy_answers_is_told_for_what_it_is() {
        let endless = [b"HTTP/1.1 200 OK\r\nA: ".as_slice(), &[b'a'; 9000]].concat();
        let endless: &'static [&'static [u8]] = vec![&*endless.leak()].leak();
        static INTERIM: [&[u8]; 17] = [b"HTTP/1.1 100 Continue\r\n\r\n"; 17];
        let cases: [(&'static [&'static [u8]], &str); 10] = [
            (&[b"HTTP/1.1 407 Who?\r\n\r\n"], "it answered 407 \"Who?\""),
            (
                &[b"HTTP/1.1 503 \x1b[2J\r\n\r\n"],
                "it answered 503 \"\\u{1b}[2J\"",
            ),
            (&[b"HTTP/1.1 101 Yes\r\n\r\n"], "it answered 101"),
            (&[b"HTTP/1.1 100 Continue\r\n\r\n"], "without an answer"),
            (&INTERIM, "more than 16 interim answers"),
            (&[b"HTTP/1.1 20x\r\n\r\n"], "does not speak HTTP"),
            (&[b"SSH-2.0-OpenSSH_9.2\r\n"], "does not speak HTTP"),
            (&[b"HTTP/1.1 200 OK\r\n"], "without an answer"),
            (&[], "without an answer"),
            (endless, "longer than 8192 bytes"),
        ];
        for (pieces, says) in cases {
            let (through, _) = answered(pieces).await;
            let error = through.unwrap_err().to_string();
            assert!(error.contains(says), "{says}: {error}");
        }
    }
}
