//! PROXY headers that come in: whose are believed, what must come, and what nobody should send.

mod peers;
mod segments;
mod sent;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use portcullis::net::proxy_header::{Addresses, Tlvs};
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::gateway::answer;
use crate::hello_bytes::{self as hello, DECODE_ERROR, framed};
use crate::scene::{Scene, Told, finish};

/// The test's own address is a proxy in front.
const REQUIRED: &str =
    r#"listen = [{ address = "127.0.0.1:0", proxy_protocol = { from = ["127.0.0.1"] } }]"#;
const OPTIONAL: &str = r#"listen = [{ address = "127.0.0.1:0", proxy_protocol = { from = ["127.0.0.1/32"], mode = "optional" } }]"#;

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\n";

/// What a proxy in front says.
fn addresses() -> Addresses {
    Addresses {
        source: "[2001:db8::7]:4711".parse().unwrap(),
        destination: "[2001:db8::8]:443".parse().unwrap(),
    }
}

fn v2(tlvs: &Tlvs<'_>) -> Vec<u8> {
    addresses().to_v2(tlvs)
}

/// Somebody of this machine who is not listed.
async fn unlisted(gateway: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let other = Ipv4Addr::new(127, 0, 0, 2);
    socket.bind((other, 0).into()).unwrap();
    socket.connect(gateway).await.unwrap()
}

/// A whole connection to `open` that begins with these bytes, in as many pieces as `pieces` says; its record.
async fn connection(scene: &mut Scene, mut tcp: TcpStream, begin: &[u8], bytewise: bool) -> Value {
    let (mut tls, message) = hello::client(&scene.client(&[&TLS13]), "open.example.test");
    let mut all = [begin, &framed(&message, &[])].concat();
    if bytewise {
        for byte in all.drain(..begin.len() + 10) {
            tcp.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    }
    tcp.write_all(&all).await.unwrap();
    let heard = finish(&mut tcp, &mut tls, b"word").await;
    let record = scene.gateway.ended().await;
    assert_eq!(heard.unwrap(), b"word", "{record}");
    assert_eq!(record["reason"], "closed", "{record}");
    assert_eq!(record["bytes_up"], 4, "{record}");
    record
}

/// A client that says this to `scene`, and is refused without a word.
async fn refused(scene: &mut Scene, what: &str, bytes: &[u8], reason: &str) -> Told {
    let told = scene.tell(bytes).await;
    assert_eq!(told.record["reason"], reason, "{what}: {}", told.record);
    assert_eq!(told.answer, b"", "{what}");
    assert!(!told.reset, "{what}");
    assert_eq!(scene.dials(), 0, "{what}");
    told
}

#[tokio::test]
async fn the_record_has_the_client_of_the_header_and_the_peer_that_sent_it() {
    for keys in [REQUIRED, OPTIONAL] {
        let mut scene = Scene::with(keys).await;
        let tlvs = Tlvs {
            unique_id: Some(b"req-7"),
            crc32c: true,
            ..Tlvs::default()
        };
        let headers = [
            (V1.to_vec(), "192.0.2.1:4711", Value::Null),
            (v2(&tlvs), "[2001:db8::7]:4711", "req-7".into()),
        ];
        for (header, client, id) in headers {
            for bytewise in [false, true] {
                let tcp = scene.gateway.connect().await;
                let peer = tcp.local_addr().unwrap().to_string();
                let record = connection(&mut scene, tcp, &header, bytewise).await;
                assert_eq!(record["client"], client);
                assert_eq!(record["peer"], peer);
                assert_eq!(record["unique_id"], id);
            }
        }
    }
}

#[tokio::test]
async fn who_is_behind_a_header_is_who_rules_see() {
    let route = |network: &str| {
        format!(
            "{REQUIRED}\n[routes.rule]\nrule = 'HostSNI(`open.example.test`) && ClientIP(`{network}`)'\nupstream = \"echo\""
        )
    };
    for (network, expected) in [("192.0.2.0/24", "rule"), ("127.0.0.0/8", "open")] {
        let mut scene = Scene::with(&route(network)).await;
        let tcp = scene.gateway.connect().await;
        let record = connection(&mut scene, tcp, V1, false).await;
        assert_eq!(record["route"], expected, "{network}");
    }
}

#[tokio::test]
async fn a_limit_of_a_source_counts_who_is_behind_the_proxy() {
    let mut scene = Scene::with(&format!("{REQUIRED}\nlimits = {{ per_source = 1 }}")).await;
    let mut tcp = scene.gateway.connect().await;
    tcp.write_all(V1).await.unwrap();
    let connector = TlsConnector::from(scene.client(&[&TLS13]));
    let name = ServerName::try_from("open.example.test").unwrap();
    let first = connector.connect(name, tcp).await.unwrap();

    let hello = framed(&hello::named("open.example.test"), &[]);
    let mut second = scene.gateway.connect().await;
    second.write_all(&[V1, &hello].concat()).await.unwrap();
    let record = scene.gateway.ended().await;
    assert_eq!(record["reason"], "source_limit", "{record}");
    assert_eq!(record["client"], "192.0.2.1:4711");

    let tcp = scene.gateway.connect().await;
    let record = connection(&mut scene, tcp, &v2(&Tlvs::default()), false).await;
    assert_eq!(record["client"], "[2001:db8::7]:4711");
    drop(first);
}

#[tokio::test]
async fn a_header_that_tells_of_nobody_leaves_the_client_as_it_is() {
    let mut scene = Scene::with(REQUIRED).await;
    let signature = &b"\r\n\r\n\0\r\nQUIT\n"[..];
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(),
        [signature, &[0x20, 0, 0, 0][..]].concat(),
        [signature, &[0x21, 0, 0, 0][..]].concat(),
        [signature, &[0x21, 0x31, 0, 216], &[b'/'; 216][..]].concat(),
    ] {
        let tcp = scene.gateway.connect().await;
        let client = tcp.local_addr().unwrap().to_string();
        let record = connection(&mut scene, tcp, &header, false).await;
        assert_eq!(record["client"], client);
        assert_eq!(record.get("peer"), None, "{record}");
    }
}

#[tokio::test]
async fn where_a_header_is_required_none_or_one_of_a_stranger_is_refused() {
    let mut scene = Scene::with(REQUIRED).await;
    let hello = framed(&hello::named("open.example.test"), &[]);
    for bytes in [
        &hello[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROXX",
        b"\r\n\r\n\0\r\nQUIT\r",
    ] {
        refused(&mut scene, "no header", bytes, "no_proxy_header").await;
    }
    // A stranger is not even waited for.
    for bytes in [&[V1, &hello[..]].concat()[..], &hello, b""] {
        let begin = Instant::now();
        let mut tcp = unlisted(scene.gateway.address).await;
        tcp.write_all(bytes).await.unwrap();
        let (heard, _) = answer(&mut tcp).await;
        assert_eq!(heard, b"");
        drop(tcp);
        let record = scene.gateway.ended().await;
        assert_eq!(record["reason"], "no_proxy_header");
        assert_eq!(record["fault"], "client");
        assert_eq!(record.get("peer"), None, "{record}");
        let detail = record["detail"].as_str().unwrap();
        assert!(detail.starts_with("127.0.0.2 is not in"), "{detail}");
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
    assert_eq!(scene.dials(), 0);
}

#[tokio::test]
async fn where_a_header_is_optional_who_sends_none_is_who_it_is() {
    let mut scene = Scene::with(OPTIONAL).await;
    for listed in [true, false] {
        let tcp = match listed {
            true => scene.gateway.connect().await,
            false => unlisted(scene.gateway.address).await,
        };
        let client = tcp.local_addr().unwrap().to_string();
        let record = connection(&mut scene, tcp, b"", false).await;
        assert_eq!(record["client"], client);
        assert_eq!(record.get("peer"), None, "{record}");
    }
    let dials = scene.dials();
    for header in [V1.to_vec(), v2(&Tlvs::default())] {
        let mut tcp = unlisted(scene.gateway.address).await;
        let client = tcp.local_addr().unwrap().to_string();
        let hello = framed(&hello::named("open.example.test"), &[]);
        tcp.write_all(&[header, hello].concat()).await.unwrap();
        let (heard, _) = answer(&mut tcp).await;
        assert_eq!(heard, DECODE_ERROR, "never believed");
        drop(tcp);
        let record = scene.gateway.ended().await;
        assert_eq!(record["reason"], "not_tls");
        assert_eq!(record["client"], client);
    }
    assert_eq!(scene.dials(), dials);
}

#[tokio::test]
async fn a_second_header_is_no_hello() {
    for keys in [REQUIRED, OPTIONAL] {
        let mut scene = Scene::with(keys).await;
        for second in [V1.to_vec(), v2(&Tlvs::default())] {
            let told = scene.tell(&[V1, &second].concat()).await;
            assert_eq!(told.record["reason"], "not_tls");
            assert_eq!(told.answer, DECODE_ERROR);
            assert_eq!(told.record["client"], "192.0.2.1:4711");
        }
        assert_eq!(scene.dials(), 0);
    }
}

#[tokio::test]
async fn a_header_inside_tls_is_the_clients_own_words() {
    let mut scene = Scene::with("").await;
    let (mut tls, message) = hello::client(&scene.client(&[&TLS13]), "open.example.test");
    let mut tcp = scene.gateway.connect().await;
    let client = tcp.local_addr().unwrap().to_string();
    tcp.write_all(&framed(&message, &[])).await.unwrap();
    let heard = finish(&mut tcp, &mut tls, V1).await.unwrap();
    assert_eq!(heard, V1);
    assert_eq!(scene.gateway.ended().await["client"], client);
}

#[tokio::test]
async fn a_malformed_header_is_refused_and_told_apart() {
    let mut wrong_sum = v2(&Tlvs {
        crc32c: true,
        ..Tlvs::default()
    });
    *wrong_sum.last_mut().unwrap() ^= 1;
    let signature = &b"\r\n\r\n\0\r\nQUIT\n"[..];
    let cases: [(&[u8], &str); 6] = [
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", "CR LF"),
        (
            &[b'P', b'R', b'O', b'X', b'Y', b' '].repeat(30),
            "107 bytes",
        ),
        (b"PROXY TCP9 \x1b[2J 1 2\r\n", "visible ASCII"),
        (&wrong_sum, "checksum"),
        (
            &[signature, &[0x21, 0x11, 0xff, 0xff][..]].concat(),
            "at most 4096",
        ),
        (&[signature, &[0x21, 0x11, 0, 3][..]].concat(), "no room"),
    ];
    for keys in [REQUIRED, OPTIONAL] {
        let mut scene = Scene::with(keys).await;
        for (bytes, why) in cases {
            // Then silence: nothing more is waited for.
            let told = refused(&mut scene, why, bytes, "bad_proxy_header").await;
            let detail = told.record["detail"].as_str().unwrap();
            assert!(detail.contains(why), "{detail}");
        }
    }
}

#[tokio::test]
async fn every_prefix_of_a_header_then_silence_ends_at_the_deadline_of_the_hello() {
    let scene = Scene::with(&format!("{REQUIRED}\nlimits.handshake_timeout = \"200ms\"")).await;
    let mut gateway = scene.gateway;
    let header = v2(&Tlvs {
        crc32c: true,
        ..Tlvs::default()
    });
    for header in [V1, &header] {
        // The whole header, too: then it is the hello that does not come.
        let mut silent = Vec::new();
        for end in 0..=header.len() {
            let mut tcp = gateway.connect().await;
            tcp.write_all(&header[..end]).await.unwrap();
            silent.push(tcp);
        }
        for mut tcp in silent {
            assert_eq!(answer(&mut tcp).await.0, b"");
            let record = gateway.ended().await;
            assert_eq!(record["reason"], "hello_timeout", "{record}");
        }
        for end in 0..=header.len() {
            let mut tcp = gateway.connect().await;
            tcp.write_all(&header[..end]).await.unwrap();
            tcp.shutdown().await.unwrap();
            assert_eq!(answer(&mut tcp).await.0, b"");
            let record = gateway.ended().await;
            assert_eq!(record["reason"], "client_gone", "{record}");
        }
    }
}

#[tokio::test]
async fn a_header_that_drips_in_leaves_the_hello_no_more_time() {
    let keys = format!("{REQUIRED}\nlimits.handshake_timeout = \"300ms\"");
    let mut scene = Scene::with(&keys).await;
    let id = [b'x'; 128];
    let header = v2(&Tlvs {
        unique_id: Some(&id),
        ..Tlvs::default()
    });
    let hello = framed(&hello::named("open.example.test"), &[]);
    let (mut reader, mut writer) = scene.gateway.connect().await.into_split();
    let drip = tokio::spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(5));
        for byte in [header, hello].concat() {
            pace.tick().await;
            if writer.write_all(&[byte]).await.is_err() {
                break;
            }
        }
    });
    let _ = reader.read_to_end(&mut Vec::new()).await;
    let record = scene.gateway.ended().await;
    assert_eq!(record["reason"], "hello_timeout", "{record}");
    drip.abort();
}

#[tokio::test]
async fn a_hello_behind_a_header_is_bounded_as_any_other() {
    let keys = format!("{REQUIRED}\nlimits.max_hello = \"4KiB\"");
    let mut scene = Scene::with(&keys).await;
    let mut extensions = hello::tls13();
    extensions.push(hello::padding(6000));
    let hello = framed(&hello::message(0x0303, &extensions), &[]);
    let told = scene.tell(&[V1, &hello].concat()).await;
    assert_eq!(told.record["reason"], "hello_too_large", "{}", told.record);
    let tcp = scene.gateway.connect().await;
    connection(&mut scene, tcp, V1, false).await;
}
