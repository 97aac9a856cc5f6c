//! Which route a client gets through a real gateway: by name, address and protocol, and by priority.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, Error};
use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::upstream::Upstream;

/// Each route goes to an upstream that says the route's name.
const ROUTES: [(&str, &str); 8] = [
    ("exact", "rule = 'HostSNI(`a.example.test`)'"),
    (
        "wildcard",
        "rule = 'HostSNI(`*.example.test`)'\npriority = 1",
    ),
    (
        "office",
        "rule = 'HostSNI(`a.example.test`) && ClientIP(`127.0.0.2`)'",
    ),
    (
        "protocol",
        "rule = 'HostSNI(`a.example.test`) && ALPN(`own/1`)'",
    ),
    (
        "regexp",
        "rule = 'HostSNIRegexp(`^r[0-9]+\\.example\\.test$`)'",
    ),
    ("narrow", "rule = 'HostSNI(`b.deep.example.test`)'"),
    (
        "preferred",
        "rule = 'HostSNI(`*.deep.example.test`)'\npriority = 1000",
    ),
    (
        "both",
        "host = [\"one.example.test\", \"two.example.test\"]",
    ),
];

/// A gateway with all the routes, and their upstreams.
async fn start(authority: &Authority) -> (Gateway, Vec<Upstream>) {
    authority.issue_files("edge", &["*.example.test", "*.deep.example.test"]);
    let mut tables = "certificates = [{ chain = \"edge.pem\", key = \"edge.key\" }]\n".to_owned();
    let mut upstreams = Vec::new();
    for (name, rule) in ROUTES {
        let upstream = Upstream::greeter(name).await;
        let address = upstream.address;
        tables += &format!("[routes.{name}]\n{rule}\nupstream = \"{address}\"\n");
        upstreams.push(upstream);
    }
    (Gateway::start(authority, &tables).await, upstreams)
}

/// What a client gets to read, or the TLS error it gets.
async fn ask(
    gateway: &Gateway,
    authority: &Authority,
    name: &str,
    from: &str,
    alpn: &[&str],
) -> Result<String, Error> {
    let mut config = authority.client(&[&TLS12, &TLS13]);
    config.alpn_protocols = alpn
        .iter()
        .map(|protocol| protocol.as_bytes().to_vec())
        .collect();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    let tcp = socket.connect(gateway.address).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connected = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await;
    let mut stream = connected.map_err(|e| e.downcast::<Error>().unwrap())?;
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    Ok(said)
}

#[tokio::test]
async fn each_client_gets_the_route_that_precedes_all_others_that_match() {
    let authority = Authority::new();
    let (mut gateway, _upstreams) = start(&authority).await;
    for (name, from, alpn, expected) in [
        ("a.example.test", "127.0.0.1", &[][..], "exact"),
        ("A.Example.TEST", "127.0.0.1", &[], "exact"),
        ("a.example.test", "127.0.0.2", &[], "office"),
        ("a.example.test", "127.0.0.3", &["h2", "own/1"], "protocol"),
        // The longer rule.
        ("a.example.test", "127.0.0.2", &["own/1"], "office"),
        ("x.example.test", "127.0.0.1", &[], "wildcard"),
        ("x.example.test", "127.0.0.2", &["own/1"], "wildcard"),
        ("r17.example.test", "127.0.0.1", &[], "regexp"),
        ("rx.example.test", "127.0.0.1", &[], "wildcard"),
        ("b.deep.example.test", "127.0.0.1", &[], "preferred"),
        ("one.example.test", "127.0.0.1", &[], "both"),
        ("two.example.test", "127.0.0.1", &[], "both"),
    ] {
        let said = ask(&gateway, &authority, name, from, alpn).await;
        assert_eq!(
            said.as_deref(),
            Ok(expected),
            "{name} from {from} with {alpn:?}"
        );
        let record = gateway.ended().await;
        assert_eq!(record["route"], expected, "{record}");
    }
}

#[tokio::test]
async fn a_client_that_no_route_takes_is_told_that_its_name_is_unknown() {
    let authority = Authority::new();
    let (mut gateway, _upstreams) = start(&authority).await;
    for name in ["example.test", "c.b.example.test", "other.test"] {
        let refused = ask(&gateway, &authority, name, "127.0.0.1", &[]).await;
        let alert = Error::AlertReceived(AlertDescription::UnrecognisedName);
        assert_eq!(refused, Err(alert), "{name}");
        assert_eq!(gateway.ended().await["reason"], "unknown_name");
    }
}
