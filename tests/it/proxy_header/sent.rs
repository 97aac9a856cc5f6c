//! PROXY headers that go up: what an upstream is told, where, and that the client's bytes stay the client's.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis::net::proxy_header::{Header, SPIFFE};
use rcgen::{CertificateParams, DnType, SanType};
use rustls::version::{TLS12, TLS13};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{REQUIRED, V1};
use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::hello_bytes::{self as hello, framed};
use crate::policy::showing;
use crate::scene::finish;
use crate::upstream::Upstream;

pub(super) const NAME: &str = "sent.example.test";
const ALL: &str = r#"["alpn", "authority", "ssl", "cert-cn", "unique-id", "spiffe", "crc32c"]"#;

/// What an upstream has heard: its first read, and all.
struct Heard {
    first: Vec<u8>,
    all: Vec<u8>,
}

/// Listens to its end, then says a word and ends.
async fn listen<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, told: UnboundedSender<Heard>) {
    let mut chunk = vec![0; 64 * 1024];
    let count = stream.read(&mut chunk).await.unwrap_or(0);
    let first = chunk[..count].to_vec();
    let mut all = first.clone();
    let _ = stream.read_to_end(&mut all).await;
    let _ = stream.write_all(b"bye").await;
    let _ = stream.shutdown().await;
    let _ = told.send(Heard { first, all });
}

async fn plain() -> (Upstream, UnboundedReceiver<Heard>) {
    let (told, heard) = unbounded_channel();
    let upstream = Upstream::tcp(move |tcp| listen(tcp, told.clone())).await;
    (upstream, heard)
}

pub(super) async fn gateway(
    authority: &Authority,
    keys: &str,
    route: &str,
    upstream: &str,
) -> Gateway {
    let tables = format!(
        "{keys}\n[[certificates]]\nchain = \"edge.pem\"\nkey = \"edge.key\"\n\
         [tls.options.asking]\nclient_auth = \"optional\"\nclient_ca = [\"ca.pem\"]\n\
         [routes.sent]\nhost = \"{NAME}\"\nupstream = \"up\"\n{route}\n[upstreams.up]\n{upstream}\n"
    );
    Gateway::start(authority, &tables).await
}

/// The TLVs of a header of version 2 over IPv4.
fn tlvs(mut rest: &[u8]) -> BTreeMap<u8, Vec<u8>> {
    let mut found = BTreeMap::new();
    while let [kind, high, low, value @ ..] = rest {
        let (value, behind) = value.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        assert!(found.insert(*kind, value.to_vec()).is_none());
        rest = behind;
    }
    assert!(rest.is_empty());
    found
}

/// A client says a word to a gateway that ends its TLS; what it has heard, its own address, and the record.
pub(super) async fn say(
    gateway: &mut Gateway,
    config: Arc<rustls::ClientConfig>,
    begin: &[u8],
) -> (String, Value) {
    let (mut tls, message) = hello::client(&config, NAME);
    let mut tcp = gateway.connect().await;
    let client = tcp.local_addr().unwrap().to_string();
    let hello = [begin, &framed(&message, &[])].concat();
    tcp.write_all(&hello).await.unwrap();
    let heard = finish(&mut tcp, &mut tls, b"word").await.unwrap();
    assert_eq!(heard, b"bye", "the end of a direction is passed on as ever");
    let record = gateway.ended().await;
    assert_eq!(record["reason"], "closed", "{record}");
    // What the gateway says of itself is nobody's byte.
    assert_eq!(
        (&record["bytes_up"], &record["bytes_down"]),
        (&4.into(), &3.into())
    );
    (client, record)
}

#[tokio::test]
async fn a_plain_upstream_hears_the_line_first() {
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let (upstream, mut heard) = plain().await;
    let keys = format!(
        "address = \"{}\"\nproxy_protocol = \"v1\"",
        upstream.address
    );
    let mut gateway = gateway(&authority, "", "", &keys).await;
    let client = Arc::new(authority.client(&[&TLS13]));
    let (client, record) = say(&mut gateway, client, b"").await;
    let (host, port) = client.split_once(':').unwrap();
    let line = format!(
        "PROXY TCP4 {host} 127.0.0.1 {port} {}\r\n",
        gateway.address.port()
    );
    let heard = heard.recv().await.unwrap().all;
    assert_eq!(String::from_utf8_lossy(&heard), format!("{line}word"));
    assert_eq!(record.get("unique_id"), None);
}

#[tokio::test]
async fn what_a_proxy_in_front_has_said_goes_on() {
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let (upstream, mut heard) = plain().await;
    let keys = format!(
        "address = \"{}\"\nproxy_protocol = \"v1\"",
        upstream.address
    );
    let mut gateway = gateway(&authority, REQUIRED, "", &keys).await;
    let client = Arc::new(authority.client(&[&TLS13]));
    say(&mut gateway, client, V1).await;
    assert_eq!(heard.recv().await.unwrap().all, [V1, b"word"].concat());
}

#[tokio::test]
async fn what_was_agreed_and_proven_is_told_where_it_is_asked_for() {
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let (upstream, mut heard) = plain().await;
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "ann");
    let id = "spiffe://mesh.example.test/ns/default/dc/dc1/svc/ann";
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    let issued = authority.sign(params);
    let upstream = format!(
        "address = \"{}\"\nproxy_protocol = {{ version = \"v2\", tlvs = {ALL} }}",
        upstream.address
    );
    let mut gateway = gateway(&authority, "", "tls_options = \"asking\"", &upstream).await;
    for (version, name) in [(&TLS12, "TLSv1.2"), (&TLS13, "TLSv1.3")] {
        for shows in [true, false] {
            let mut config = match shows {
                true => (*showing(&authority, &issued, version)).clone(),
                false => authority.client(&[version]),
            };
            config.alpn_protocols = vec![b"h2".to_vec()];
            let (client, record) = say(&mut gateway, Arc::new(config), b"").await;
            let heard = heard.recv().await.unwrap().all;
            let (header, length) = Header::parse(&heard).unwrap().unwrap();
            assert_eq!(&heard[length..], b"word");
            let addresses = header.addresses.unwrap();
            assert_eq!(addresses.source.to_string(), client);
            assert_eq!(addresses.destination, gateway.address);
            let told = tlvs(&heard[28..length]);
            assert_eq!(told[&0x01], b"h2");
            assert_eq!(told[&0x02], NAME.as_bytes());
            assert_eq!(told[&0x03].len(), 4);
            let id_of_it = &told[&0x05];
            assert_eq!(id_of_it.len(), 16);
            let digits: String = id_of_it.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(record["unique_id"], digits);
            let bits = if shows {
                [7, 0, 0, 0, 0]
            } else {
                [1, 0, 0, 0, 1]
            };
            assert_eq!(told[&0x20][..5], bits);
            let inner = tlvs(&told[&0x20][5..]);
            assert_eq!(inner[&0x21], name.as_bytes());
            let cn = inner.get(&0x22).map(Vec::as_slice);
            assert_eq!(cn, shows.then_some(&b"ann"[..]));
            let spiffe = told.get(&SPIFFE).map(Vec::as_slice);
            assert_eq!(spiffe, shows.then_some(id.as_bytes()));
        }
    }
}

#[tokio::test]
async fn of_tls_that_is_passed_through_only_the_name_is_told_and_all_goes_in_one_segment() {
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let (upstream, mut heard) = plain().await;
    let upstream = format!(
        "address = \"{}\"\nproxy_protocol = {{ version = \"v2\", tlvs = {ALL} }}",
        upstream.address
    );
    let mut gateway = gateway(&authority, "", "passthrough = true", &upstream).await;
    let mut tcp = gateway.connect().await;
    let mut extensions = hello::tls13();
    extensions.push(hello::alpn(&["h2"]));
    extensions.push(hello::server_name(&[(0, NAME.as_bytes())]));
    let hello = framed(&hello::message(0x0303, &extensions), &[]);
    tcp.write_all(&hello).await.unwrap();
    tcp.shutdown().await.unwrap();
    let mut down = Vec::new();
    tcp.read_to_end(&mut down).await.unwrap();
    assert_eq!(down, b"bye");
    let Heard { first, all } = heard.recv().await.unwrap();
    let (_, length) = Header::parse(&all).unwrap().unwrap();
    assert_eq!(all[length..], hello);
    assert_eq!(first, all, "header and hello in one segment");
    let told = tlvs(&all[28..length]);
    assert_eq!(told[&0x02], NAME.as_bytes());
    let kinds: Vec<u8> = told.keys().copied().collect();
    assert_eq!(kinds, [0x02, 0x03, 0x05]);
    let record = gateway.ended().await;
    assert_eq!(record["bytes_up"], hello.len());
    assert_eq!(record["bytes_down"], 3);
}

#[tokio::test]
async fn before_tls_the_header_goes_in_one_segment_with_the_hello() {
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let (upstream, mut heard) = plain().await;
    let upstream = format!(
        "address = \"{}\"\nproxy_protocol = \"v1\"\n[upstreams.up.tls]\nroots = [\"ca.pem\"]\nserver_name = \"{NAME}\"",
        upstream.address
    );
    let gateway = gateway(
        &authority,
        "limits.dial_attempts = 1\nlimits.dial_timeout = \"500ms\"",
        "",
        &upstream,
    )
    .await;
    let client = Arc::new(authority.client(&[&TLS13]));
    let client = gateway.connect_tls(&client, NAME).await.unwrap();
    // What it dials never answers.
    drop(client);
    drop(gateway);
    let Heard { first, .. } = heard.recv().await.unwrap();
    let (_, length) = Header::parse(&first).unwrap().unwrap();
    assert_eq!(first[length..][..2], [22, 3], "a hello follows at once");
}

#[tokio::test]
async fn inside_tls_the_header_is_the_first_that_the_upstream_decrypts() {
    let authority = Authority::new();
    let issued = authority.issue_files("edge", &[NAME]);
    for version in [&TLS12, &TLS13] {
        let (told, mut heard) = unbounded_channel();
        let server = issued.server(&[version]);
        let upstream = Upstream::tls(server, move |tls| listen(tls, told.clone())).await;
        let upstream = format!(
            "address = \"{}\"\nproxy_protocol = {{ version = \"v1\", inside_tls = true }}\n\
             [upstreams.up.tls]\nroots = [\"ca.pem\"]\nserver_name = \"{NAME}\"",
            upstream.address
        );
        let mut gateway = gateway(&authority, REQUIRED, "", &upstream).await;
        let client = Arc::new(authority.client(&[&TLS13]));
        say(&mut gateway, client, V1).await;
        assert_eq!(heard.recv().await.unwrap().all, [V1, b"word"].concat());
    }
}

/// A server that speaks first hears at once who is there, though the client says nothing.
#[tokio::test]
async fn an_upstream_that_speaks_first_does_not_wait_for_the_client() {
    let authority = Authority::new();
    let issued = authority.issue_files("edge", &[NAME]);
    let greet = |mut line: Vec<u8>| async move {
        line.truncate(V1.len());
        assert_eq!(line, V1);
        b"hello".to_vec()
    };
    let plain = Upstream::tcp(move |mut tcp| async move {
        let mut line = vec![0; V1.len()];
        tcp.read_exact(&mut line).await.unwrap();
        let _ = tcp.write_all(&greet(line).await).await;
    })
    .await;
    let tls = Upstream::tls(issued.server(&[&TLS13]), move |mut tls| async move {
        let mut line = vec![0; V1.len()];
        tls.read_exact(&mut line).await.unwrap();
        let _ = tls.write_all(&greet(line).await).await;
        let _ = tls.shutdown().await;
    })
    .await;
    let secured = format!("[upstreams.up.tls]\nroots = [\"ca.pem\"]\nserver_name = \"{NAME}\"");
    for (address, header, more) in [
        (plain.address, "\"v1\"", ""),
        (
            tls.address,
            "{ version = \"v1\", inside_tls = true }",
            &secured[..],
        ),
    ] {
        let upstream = format!("address = \"{address}\"\nproxy_protocol = {header}\n{more}");
        let gateway = gateway(&authority, REQUIRED, "", &upstream).await;
        let mut tcp = gateway.connect().await;
        tcp.write_all(V1).await.unwrap();
        let config = Arc::new(authority.client(&[&TLS13]));
        let connector = tokio_rustls::TlsConnector::from(config);
        let mut client = connector
            .connect(NAME.try_into().unwrap(), tcp)
            .await
            .unwrap();
        let mut greeting = [0; 5];
        client.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"hello");
    }
}
