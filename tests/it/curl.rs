//! curl through the gateway, to an upstream that speaks HTTP, and at the admin interface.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};

use portcullis::config::ListenAddress;
use rustls::version::{TLS12, TLS13};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::spawn_blocking;

use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::peers;
use crate::support::run;
use crate::upstream::Upstream;

const BODY: &str = "hello from behind the gate\n";

#[tokio::test]
async fn https_is_terminated_in_front_of_a_plain_upstream() {
    let Some(mut site) = Site::terminated("").await else {
        return;
    };
    let page = site.get(&["--http1.1"]).await;
    assert_eq!(page, format!("{BODY}1.1 200"));
    let record = site.gateway.ended().await;
    assert_eq!(record["reason"], "closed", "{record}");
    assert_eq!(record["alpn"], "http/1.1");
}

#[tokio::test]
async fn http_2_reaches_an_upstream_that_speaks_it() {
    let Some(mut site) = Site::terminated("").await else {
        return;
    };
    let page = site.get(&["--http2"]).await;
    assert_eq!(page, "2 200");
    assert_eq!(site.gateway.ended().await["alpn"], "h2");
}

#[tokio::test]
async fn a_client_without_alpn_is_served() {
    let Some(mut site) = Site::terminated("").await else {
        return;
    };
    let page = site.get(&["--http1.1", "--no-alpn"]).await;
    assert_eq!(page, format!("{BODY}1.1 200"));
    assert_eq!(site.gateway.ended().await["alpn"], Value::Null);
}

#[tokio::test]
async fn a_list_of_protocols_keeps_http_2_away_from_an_upstream_that_does_not_speak_it() {
    let options = "tls_options = \"old\"\n[tls.options.old]\nalpn = [\"http/1.1\"]";
    let Some(mut site) = Site::terminated(options).await else {
        return;
    };
    let page = site.get(&["--http2"]).await;
    assert_eq!(page, format!("{BODY}1.1 200"));
    assert_eq!(site.gateway.ended().await["alpn"], "http/1.1");
}

#[tokio::test]
async fn https_is_passed_through_to_an_upstream_that_ends_tls() {
    let Some(mut site) = Site::passed().await else {
        return;
    };
    for version in [["--tls-max", "1.2"], ["--tls-max", "1.3"]] {
        let page = site.get(&version).await;
        assert_eq!(page, format!("{BODY}1.1 200"));
        let record = site.gateway.ended().await;
        assert_eq!(record["reason"], "closed", "{record}");
        assert_eq!(record["tls"], Value::Null, "{record}");
    }
}

#[tokio::test]
async fn a_curl_that_trusts_another_ca_breaks_off_and_the_record_says_so() {
    let Some(mut site) = Site::terminated("").await else {
        return;
    };
    site.authority = Authority::new();
    let done = site.curl(&[]).await;
    assert!(!done.status.success(), "{done:?}");
    assert_eq!(String::from_utf8_lossy(&done.stdout), "0 000");
    let record = site.gateway.ended().await;
    assert_eq!(record["reason"], "handshake_failed", "{record}");
    assert_eq!(record["fault"], "client", "{record}");
}

#[tokio::test]
async fn the_admin_interface_answers_curl() {
    let Some(mut site) = Site::terminated("").await else {
        return;
    };
    site.get(&["--http1.1"]).await;
    site.gateway.ended().await;
    let Some(ListenAddress::Tcp(admin)) = site.gateway.admin else {
        panic!("the admin interface has no address");
    };
    let page = async |path: &str| {
        let mut curl = plain_curl(&site.curl);
        curl.arg(format!("http://{admin}{path}"));
        let done = end(curl).await;
        assert!(done.status.success(), "{path}: {done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    assert_eq!(page("/livez").await, "ok\n");
    assert!(page("/readyz").await.contains("listeners ready\n"));
    let metrics = page("/metrics").await;
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    let counted = |line: &str| line.contains("route=\"site\"") && line.contains("closed");
    assert!(metrics.lines().any(counted), "{metrics}");
    let routes: Value = serde_json::from_str(&page("/v1/routes").await).unwrap();
    let route = &routes["routes"][0];
    assert_eq!(route["name"], "site", "{routes}");
    assert_eq!(route["rule"], "HostSNI(`site.example.test`)", "{routes}");
}

/// A gateway in front of a web server, and curl.
struct Site {
    curl: PathBuf,
    authority: Authority,
    gateway: Gateway,
    _upstream: Upstream,
}

impl Site {
    /// The gateway ends TLS; `options` are further lines of the route.
    async fn terminated(options: &str) -> Option<Self> {
        let upstream = Upstream::tcp(web_server);
        let authority = Authority::new();
        authority.issue_files("edge", &["site.example.test"]);
        Self::start(authority, upstream.await, options).await
    }

    /// The upstream ends it.
    async fn passed() -> Option<Self> {
        let authority = Authority::new();
        let issued = authority.issue_files("edge", &["site.example.test"]);
        let upstream = Upstream::tls(issued.server(&[&TLS12, &TLS13]), web_server);
        Self::start(authority, upstream.await, "passthrough = true").await
    }

    async fn start(authority: Authority, upstream: Upstream, options: &str) -> Option<Self> {
        let curl = peers::require("curl", "curl")?;
        let gateway = Gateway::start(
            &authority,
            &format!(
                r#"
                admin = "127.0.0.1:0"
                certificates = [{{ chain = "edge.pem", key = "edge.key" }}]
                [routes.site]
                host = "site.example.test"
                upstream = "{}"
                {options}
                "#,
                upstream.address
            ),
        )
        .await;
        Some(Self {
            curl,
            authority,
            gateway,
            _upstream: upstream,
        })
    }

    /// The page, and behind it the version of HTTP and the status.
    async fn get(&self, arguments: &[&str]) -> String {
        let done = self.curl(arguments).await;
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    }

    async fn curl(&self, arguments: &[&str]) -> Output {
        let SocketAddr::V4(address) = self.gateway.address else {
            panic!("the gateway listens on 127.0.0.1");
        };
        let (name, port) = ("site.example.test", address.port());
        let mut curl = plain_curl(&self.curl);
        curl.args(arguments)
            .arg("--cacert")
            .arg(self.authority.folder().join("ca.pem"))
            .args(["--write-out", "%{http_version} %{http_code}"])
            .args(["--resolve", &format!("{name}:{port}:{}", address.ip())])
            .arg(format!("https://{name}:{port}/"));
        end(curl).await
    }
}

/// curl without what the user of this machine has told it.
fn plain_curl(curl: &PathBuf) -> Command {
    let mut command = Command::new(curl);
    command.args(["--disable", "--silent", "--show-error", "--noproxy", "*"]);
    command
}

/// Runs a program to its end while the gateway runs beside it.
async fn end(command: Command) -> Output {
    spawn_blocking(move || run(&command, b"")).await.unwrap()
}

/// What an HTTP/2 client says first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Three frames (RFC 9113 §4.1): our settings, none; theirs, accepted; on stream 1 the headers, `:status: 200` (RFC 7541
/// appendix A), and no body.
const HTTP_2_ANSWER: [&[u8]; 3] = [
    &[0, 0, 0, 4, 0, 0, 0, 0, 0],
    &[0, 0, 0, 4, 1, 0, 0, 0, 0],
    &[0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88],
];

/// Answers one request, of either version.
async fn web_server<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let mut request = Vec::new();
    let is_http_2 = loop {
        if request.starts_with(PREFACE) {
            break true;
        }
        if request.ends_with(b"\r\n\r\n") && !PREFACE.starts_with(&request) {
            break false;
        }
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let answer = if is_http_2 {
        HTTP_2_ANSWER.concat()
    } else {
        let length = BODY.len();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        (head + BODY).into_bytes()
    };
    let _ = stream.write_all(&answer).await;
    if is_http_2 {
        // The client ends it when it has its answer.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    let _ = stream.shutdown().await;
}
