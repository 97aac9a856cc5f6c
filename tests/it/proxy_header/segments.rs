//! In how many segments a header and what follows it arrive, as the kernel of the upstream counts them (tcp(7): TCP_INFO).

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::sent::{NAME, gateway, say};
use super::{REQUIRED, V1};
use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::hello_bytes::{self as hello, framed};
use crate::peers;
use crate::upstream::Upstream;

/// Listens to the end, counts, says a word and ends.
async fn listen<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    tcp: impl Fn(&S) -> &TcpStream,
    ss: PathBuf,
    told: UnboundedSender<(Vec<u8>, usize)>,
) {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    let count = segments(&ss, tcp(&stream));
    stream.write_all(b"bye").await.unwrap();
    let _ = stream.shutdown().await;
    let _ = told.send((all, count));
}

/// How many segments with data have come.
fn segments(ss: &PathBuf, tcp: &TcpStream) -> usize {
    let [ours, theirs] = [tcp.local_addr(), tcp.peer_addr()].map(|end| end.unwrap().port());
    let mut command = Command::new(ss);
    command.args(["-tinHO", &format!("sport = :{ours} and dport = :{theirs}")]);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut fields = text.split(' ');
    let count = fields.find_map(|field| field.strip_prefix("data_segs_in:"));
    count.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

/// A gateway before a plain upstream that counts.
struct Counted {
    gateway: Gateway,
    authority: Authority,
    heard: UnboundedReceiver<(Vec<u8>, usize)>,
    _upstream: Upstream,
}

impl Counted {
    /// The upstream is sent this header; none where there is no `ss`.
    async fn start(header: &str, listen_key: &str, route: &str) -> Option<Self> {
        let ss = peers::require("ss", "ip")?;
        let authority = Authority::new();
        authority.issue_files("edge", &[NAME]);
        let (told, heard) = unbounded_channel();
        let listening = move |tcp| listen(tcp, |tcp| tcp, ss.clone(), told.clone());
        let upstream = Upstream::tcp(listening).await;
        let keys = format!(
            "address = \"{}\"\nproxy_protocol = \"{header}\"",
            upstream.address
        );
        Some(Self {
            gateway: gateway(&authority, listen_key, route, &keys).await,
            authority,
            heard,
            _upstream: upstream,
        })
    }
}

#[tokio::test]
async fn to_a_plain_upstream_the_header_goes_with_the_first_word_of_a_client_that_speaks_first() {
    let Some(mut counted) = Counted::start("v1", REQUIRED, "").await else {
        return;
    };
    // The word comes with the end of the handshake, as clients send it that have one.
    let client = Arc::new(counted.authority.client(&[&TLS13]));
    say(&mut counted.gateway, client, V1).await;
    let (all, count) = counted.heard.recv().await.unwrap();
    assert_eq!(all, [V1, b"word"].concat());
    assert_eq!(count, 1);
}

#[tokio::test]
async fn of_tls_that_is_passed_through_the_hello_goes_with_the_header() {
    let Some(mut counted) = Counted::start("v2", "", "passthrough = true").await else {
        return;
    };
    let mut tcp = counted.gateway.connect().await;
    let hello = framed(&hello::named(NAME), &[]);
    tcp.write_all(&hello).await.unwrap();
    tcp.shutdown().await.unwrap();
    tcp.read_to_end(&mut Vec::new()).await.unwrap();
    let (all, count) = counted.heard.recv().await.unwrap();
    assert!(all.ends_with(&hello) && all.len() > hello.len());
    assert_eq!(count, 1);
}

#[tokio::test]
async fn towards_tls_no_segment_goes_for_the_header_alone() {
    let Some(ss) = peers::require("ss", "ip") else {
        return;
    };
    let authority = Authority::new();
    let issued = authority.issue_files("edge", &[NAME]);
    // Before TLS it goes with the hello, then come Finished and the word, then the end. Inside it goes with Finished; the
    // word is a record that is sealed when the handshake is over, and is not waited for.
    for (header, inside, expected) in [
        ("\"v1\"", 0, 3),
        ("{ version = \"v1\", inside_tls = true }", V1.len(), 4),
    ] {
        let (told, mut heard) = unbounded_channel();
        let (config, ss) = (issued.server(&[&TLS13]), ss.clone());
        let upstream = Upstream::tcp(move |mut tcp| {
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&config));
            let (ss, told) = (ss.clone(), told.clone());
            async move {
                tcp.read_exact(&mut vec![0; V1.len() - inside])
                    .await
                    .unwrap();
                let tls = acceptor.accept(tcp).await.unwrap();
                listen(tls, |tls| tls.get_ref().0, ss, told).await;
            }
        })
        .await;
        let keys = format!(
            "address = \"{}\"\nproxy_protocol = {header}\n\
             [upstreams.up.tls]\nroots = [\"ca.pem\"]\nserver_name = \"{NAME}\"",
            upstream.address
        );
        let mut gateway = gateway(&authority, REQUIRED, "", &keys).await;
        let client = Arc::new(authority.client(&[&TLS13]));
        say(&mut gateway, client, V1).await;
        let (all, count) = heard.recv().await.unwrap();
        assert_eq!(all, [&V1[..inside], b"word"].concat());
        assert_eq!(count, expected, "{header}");
    }
}
