//! The status frame: who gets one, what it says, and what the client makes of gateways that break their promise.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use portcullis::net::frame::Frame;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::{TARGET, brought, connect, failed, to};
use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::hello_bytes::{self as hello, ACCESS_DENIED, framed};
use crate::support::{PATIENCE, run};
use crate::upstream::{Upstream, echo};

const PORTCULLIS: &[u8] = b"portcullis/1";

/// A gateway of the test's own that promises a status, and serves every connection with `serve`.
pub(super) async fn telling<F>(
    authority: &Authority,
    serve: impl Fn(TlsStream<TcpStream>) -> F + Clone + Send + Sync + 'static,
) -> Upstream
where
    F: Future<Output = ()> + Send + 'static,
{
    let provider = portcullis::tls::provider();
    let mut config = (authority.issue(&[TARGET])).server_by(provider, &[&TLS12, &TLS13]);
    config.alpn_protocols = vec![PORTCULLIS.to_vec()];
    Upstream::tls(Arc::new(config), serve).await
}

/// A gateway with routes that have no list of protocols, a strict one, and none at all.
async fn gateway(authority: &Authority, upstream: &str) -> Gateway {
    authority.issue_files("edge", &["*.example.test"]);
    let mut tables = String::from(
        "certificates = [{ chain = \"edge.pem\", key = \"edge.key\" }]
        [tls.options.free]\n[tls.options.strict]\nalpn = [\"h2\"]\n[tls.options.deaf]\nalpn = []
        [middlewares.none]\nin_flight_conn = 0
        [middlewares.one]\nip_allow_list = [\"192.0.2.1\"]\n",
    );
    for route in ["free", "strict", "deaf"] {
        tables += &format!(
            "[routes.{route}]\nhost = \"{route}.example.test\"\ntls_options = \"{route}\"\nupstream = \"u\"\n"
        );
    }
    for middleware in ["none", "one"] {
        tables += &format!(
            "[routes.{middleware}]\nhost = \"{middleware}.example.test\"\nmiddlewares = [\"{middleware}\"]\nupstream = \"u\"\n"
        );
    }
    Gateway::start(authority, &format!("{tables}[upstreams.u]\n{upstream}\n")).await
}

/// What a client that offers these protocols hears, how its connection ended, and what was agreed on.
async fn heard(
    authority: &Authority,
    gateway: &Gateway,
    name: &str,
    offered: &[&[u8]],
) -> (Vec<u8>, std::io::Result<()>, Option<Vec<u8>>) {
    // Either version: a server of 1.2 has no ticket for the frame to go with.
    let version = match offered.len() {
        1 => &TLS12,
        _ => &TLS13,
    };
    let mut config = authority.client(&[version]);
    config.alpn_protocols = offered.iter().map(|one| one.to_vec()).collect();
    let mut tls = gateway.connect_tls(&Arc::new(config), name).await.unwrap();
    let agreed = tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    let mut all = Vec::new();
    let read = timeout(PATIENCE, tls.read_to_end(&mut all)).await;
    let ended = read.expect("the gateway does not end it").map(drop);
    (all, ended, agreed)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_the_status_gets_it_before_the_first_byte_and_nobody_else_does() {
    let authority = Authority::new();
    let upstream = Upstream::greeter("hi").await;
    let mut gateway = gateway(&authority, &format!("address = \"{}\"", upstream.address)).await;
    let told: &[u8] = b"\x01\x00hi";
    for (route, offered, agreed, says) in [
        ("free", &[PORTCULLIS][..], Some(PORTCULLIS), told),
        ("free", &[PORTCULLIS, b"ssh"], Some(PORTCULLIS), told),
        ("free", &[b"h2", PORTCULLIS], Some(PORTCULLIS), told),
        ("strict", &[PORTCULLIS], Some(PORTCULLIS), told),
        ("strict", &[b"h2", PORTCULLIS], Some(PORTCULLIS), told),
        ("strict", &[b"h2"], Some(b"h2"), b"hi"),
        ("free", &[b"h2"], Some(b"h2"), b"hi"),
        ("free", &[], None, b"hi"),
        ("free", &[b"portcullis/2"], None, b"hi"),
        ("deaf", &[PORTCULLIS], None, b"hi"),
    ] {
        let name = format!("{route}.example.test");
        let (all, ended, got) = heard(&authority, &gateway, &name, offered).await;
        assert!(ended.is_ok(), "{route} {offered:?}: {ended:?}");
        assert_eq!(all, says, "{route} {offered:?}");
        assert_eq!(got.as_deref(), agreed, "{route} {offered:?}");
        let record = gateway.ended().await;
        // The frame is no byte of the upstream's.
        assert_eq!(record["bytes_down"], 2, "{record}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_dial_is_told_without_a_word_of_what_stands_behind_and_ends_as_tls_ends() {
    let authority = Authority::new();
    let closed = super::nobody();
    let mut gateway = gateway(&authority, &format!("address = \"{closed}\"")).await;
    let (all, ended, _) = heard(&authority, &gateway, "free.example.test", &[PORTCULLIS]).await;
    ended.unwrap();
    let text = "what stands behind it takes no connections";
    let expected = [
        b"\x01\x01\x0bdial_failed",
        &[text.len() as u8][..],
        text.as_bytes(),
    ];
    assert_eq!(all, expected.concat());
    assert_eq!(gateway.ended().await["reason"], "dial_failed");
    // Others get the end that they always got.
    for offered in [&[][..], &[&b"h2"[..]]] {
        let (all, ended, _) = heard(&authority, &gateway, "free.example.test", offered).await;
        assert_eq!(all, b"");
        assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
        assert_eq!(gateway.ended().await["reason"], "dial_failed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_connections_have_an_alert_of_their_own_for_who_asks_for_the_status() {
    let authority = Authority::new();
    let upstream = Upstream::echo().await;
    let mut gateway = gateway(&authority, &format!("address = \"{}\"", upstream.address)).await;
    let user_canceled = hello::alert(90);
    for (route, offered, alert) in [
        ("none", &[PORTCULLIS][..], user_canceled),
        ("none", &[], ACCESS_DENIED),
        ("one", &[PORTCULLIS], ACCESS_DENIED),
        ("one", &[], ACCESS_DENIED),
    ] {
        let name = format!("{route}.example.test");
        let mut extensions = hello::tls13();
        extensions.push(hello::server_name(&[(0, name.as_bytes())]));
        if !offered.is_empty() {
            extensions.push(hello::alpn(offered));
        }
        let bytes = framed(&hello::message(0x0303, &extensions), &[]);
        let (answer, _) = crate::gateway::exchange(gateway.connect().await, &bytes).await;
        assert_eq!(answer, alert, "{route} {offered:?}");
        gateway.ended().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_hears_nothing_of_the_protocol_between_the_gateway_and_its_client() {
    let authority = Authority::new();
    let (send, mut headers) = unbounded_channel();
    let upstream = Upstream::tcp(move |mut tcp| {
        let send = send.clone();
        async move {
            let mut all = Vec::new();
            let _ = tcp.read_to_end(&mut all).await;
            let _ = send.send(all);
        }
    })
    .await;
    let keys = format!(
        "address = \"{}\"\nproxy_protocol = {{ version = \"v2\", tlvs = [\"alpn\", \"authority\"] }}",
        upstream.address
    );
    let gateway = gateway(&authority, &keys).await;
    let has = |all: &[u8], what: &[u8]| all.windows(what.len()).any(|window| window == what);
    for (protocol, is_told) in [(PORTCULLIS, false), (b"h2", true)] {
        let mut config = authority.client(&[&TLS13]);
        config.alpn_protocols = vec![protocol.to_vec()];
        let config = Arc::new(config);
        let mut tls = gateway
            .connect_tls(&config, "free.example.test")
            .await
            .unwrap();
        tls.write_all(b"word").await.unwrap();
        tls.shutdown().await.unwrap();
        let all = headers.recv().await.unwrap();
        assert!(
            has(&all, b"free.example.test") && has(&all, b"word"),
            "{all:?}"
        );
        assert_eq!(has(&all, protocol), is_told, "{all:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_protocols_it_does_not_know_is_asked_once_more_without() {
    let authority = Authority::new();
    let provider = portcullis::tls::provider();
    let mut config = (authority.issue(&[TARGET])).server_by(provider, &[&TLS13]);
    config.alpn_protocols = vec![b"ssh".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let tried = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&tried);
    let gate = Upstream::tcp(move |tcp| {
        count.fetch_add(1, Ordering::SeqCst);
        let acceptor = acceptor.clone();
        async move {
            if let Ok(stream) = acceptor.accept(tcp).await {
                echo(stream).await;
            }
        }
    })
    .await;
    let done = run(&to(connect(&authority, gate.address), &[TARGET]), b"hello");
    brought(&done, b"hello");
    assert_eq!(tried.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_on_the_status_is_the_targets_however_the_bytes_are_cut() {
    let authority = Authority::new();
    let whole = [&Frame::Ok.encode()[..], b"\x01\x00hello"].concat();
    for size in [1, 2, 3, whole.len()] {
        let whole = whole.clone();
        let gate = telling(&authority, move |mut stream| {
            let whole = whole.clone();
            async move {
                for piece in whole.chunks(size) {
                    stream.write_all(piece).await.unwrap();
                    stream.flush().await.unwrap();
                }
                stream.shutdown().await.unwrap();
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        })
        .await;
        let done = run(&to(connect(&authority, gate.address), &[TARGET]), b"");
        brought(&done, b"\x01\x00hello");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_input_and_its_end_go_up_before_the_status_has_come() {
    let authority = Authority::new();
    let gate = telling(&authority, |mut stream| async move {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(&Frame::Ok.encode()).await.unwrap();
        stream.write_all(&all).await.unwrap();
        stream.shutdown().await.unwrap();
    })
    .await;
    let done = run(&to(connect(&authority, gate.address), &[TARGET]), b"hello");
    brought(&done, b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_one_object_of_json_where_a_program_reads_it() {
    let authority = Authority::new();
    let closed = super::nobody();
    let done = run(&to(connect(&authority, closed), &["--json", TARGET]), b"");
    let told: serde_json::Value = serde_json::from_slice(&done.stderr).unwrap();
    assert_eq!(
        (&told["code"], &told["reason"]),
        (&21.into(), &"refused".into())
    );
    assert_eq!(
        told["error"],
        format!("the gateway {closed} refuses connections")
    );
    assert_eq!(done.status.code(), Some(21));
    let done = run(&to(connect(&authority, closed), &[TARGET]), b"");
    failed(&done, 21, "refuses", "is it running");
}
