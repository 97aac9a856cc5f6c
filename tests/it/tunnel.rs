//! Tunnels: plain bytes on one machine, mutual TLS on the wire, plain bytes on the other.

use std::sync::Arc;

use portcullis::config::ListenAddress;
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::authority::Authority;
use crate::edge::{read_all, text};
use crate::gateway::Gateway;
use crate::support::PATIENCE;
use crate::upstream::{Upstream, echo};

mod alerts;
mod expiring;
mod handed;
mod lasting;
mod local;
mod program;
mod refusals;

/// The name in the master's certificate.
const NAME: &str = "master.example.test";

/// A tunnel to the master that shows a certificate. `MASTER` is its address, `CA` the folder of its files.
const VERIFIED: &str = "to = \"MASTER\"\nserver_name = \"master.example.test\"\n\
    tls = { roots = [\"CA/ca.pem\"], chain = \"CA/worker.pem\", key = \"CA/worker.key\" }\n";

/// A master, which ends mutual TLS in front of an upstream, and a worker with a tunnel to it.
struct Pair {
    /// The CA of both, whose folder is the master's.
    authority: Authority,
    /// What the worker's configuration stands in.
    folder: Authority,
    master: Gateway,
    worker: Gateway,
    _upstream: Upstream,
}

impl Pair {
    /// An echo behind the master, and a worker that is wholly configured.
    async fn start() -> Self {
        Self::with("listen = \"127.0.0.1:0\"\n", VERIFIED).await
    }

    /// The same with these keys in the worker's tunnel.
    async fn with(listen: &str, keys: &str) -> Self {
        Self::before(Upstream::echo().await, listen, keys).await
    }

    async fn before(upstream: Upstream, listen: &str, keys: &str) -> Self {
        let authority = Authority::new();
        authority.issue_files("worker", &["worker.example.test"]);
        let master = Gateway::start(&authority, &master(&authority, &upstream)).await;
        let folder = Authority::new();
        let tables = worker(&authority, &master, listen, keys);
        let worker = Gateway::start(&folder, &tables).await;
        Self {
            authority,
            folder,
            master,
            worker,
            _upstream: upstream,
        }
    }

    /// A program of the worker's machine.
    async fn connect(&self) -> TcpStream {
        self.worker.connect().await
    }

    /// Why the next connections of both ended: the worker's, and the master's.
    async fn reasons(&mut self) -> [String; 2] {
        let worker = self.worker.ended().await;
        let master = self.master.ended().await;
        [worker, master].map(|record| record["reason"].as_str().unwrap().to_owned())
    }
}

/// The configuration of a master, as it stands beside a process that listens there.
fn master(authority: &Authority, upstream: &Upstream) -> String {
    authority.issue_files("master", &[NAME]);
    format!(
        "certificates = [{{ chain = \"master.pem\", key = \"master.key\" }}]\n\
         [tls.options.mutual]\nclient_auth = \"required\"\nclient_ca = [\"ca.pem\"]\n\
         [routes.taskd]\nhost = \"{NAME}\"\ntls_options = \"mutual\"\nupstream = \"{}\"\n",
        upstream.address
    )
}

/// The configuration of a worker.
fn worker(authority: &Authority, master: &Gateway, listen: &str, keys: &str) -> String {
    let keys = keys
        .replace("MASTER", &master.address.to_string())
        .replace("CA/", &format!("{}/", authority.folder().display()));
    format!("admin = \"127.0.0.1:0\"\n[tunnels.clusterd]\n{listen}{keys}")
}

/// Says these bytes, ends, and hears what comes back until the other end has ended.
async fn said_and_heard(mut tcp: TcpStream, bytes: &[u8]) -> Vec<u8> {
    let (mut read, mut write) = tcp.split();
    let sending = async {
        write.write_all(bytes).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let (heard, ()) = tokio::join!(read_all(&mut read), sending);
    assert_eq!(heard.1, None);
    heard.0
}

#[tokio::test]
async fn bytes_go_both_ways_through_mutual_tls_and_each_direction_ends_by_itself() {
    let mut pair = Pair::start().await;
    let text = text();
    assert_eq!(said_and_heard(pair.connect().await, &text).await, text);
    assert_eq!(pair.reasons().await, ["closed", "closed"]);

    // Of an upstream that ends first the rest of what is said arrives too.
    let (hand, mut handed) = tokio::sync::mpsc::unbounded_channel();
    let upstream = Upstream::tcp(move |mut tcp| {
        let hand = hand.clone();
        async move {
            tcp.write_all(b"hello").await.unwrap();
            tcp.shutdown().await.unwrap();
            let mut heard = Vec::new();
            tcp.read_to_end(&mut heard).await.unwrap();
            let _ = hand.send(heard);
        }
    });
    let mut pair = Pair::before(upstream.await, "listen = \"127.0.0.1:0\"\n", VERIFIED).await;
    let mut tcp = pair.connect().await;
    let (hello, error) = read_all(&mut tcp).await;
    assert_eq!((hello.as_slice(), error), (b"hello".as_slice(), None));
    tcp.write_all(&text).await.unwrap();
    tcp.shutdown().await.unwrap();
    let heard = timeout(PATIENCE, handed.recv()).await.unwrap().unwrap();
    assert_eq!(heard, text);
    assert_eq!(pair.reasons().await, ["closed", "closed"]);
}

#[tokio::test]
async fn a_tunnel_has_its_name_in_the_log_and_the_metrics_as_a_route_has() {
    let mut pair = Pair::start().await;
    said_and_heard(pair.connect().await, b"word").await;
    let record = pair.worker.ended().await;
    assert_eq!(record["route"], "clusterd", "{record}");
    assert_eq!(record["upstream"], "tunnels/clusterd");
    assert_eq!(record["endpoint"], pair.master.address.to_string());
    assert_eq!(record["listener"], pair.worker.address.to_string());
    assert!(record["client"].as_str().unwrap().starts_with("127.0.0.1:"));
    for unknown in ["sni", "alpn", "tls", "hello_ms", "handshake_ms"] {
        assert!(record[unknown].is_null(), "{unknown} in {record}");
    }
    assert_eq!(
        (&record["bytes_up"], &record["bytes_down"]),
        (&4.into(), &4.into())
    );
    let master = pair.master.ended().await;
    assert_eq!(
        (&master["sni"], &master["route"]),
        (&NAME.into(), &"taskd".into())
    );
    let closed =
        "portcullis_connections_ended_total{route=\"clusterd\",reason=\"closed\",fault=\"none\"}";
    assert_eq!(pair.worker.metric(closed).await, Some(1));
    let up = "portcullis_bytes_total{route=\"clusterd\",direction=\"up\"}";
    assert_eq!(pair.worker.metric(up).await, Some(4));
    let accepted = format!(
        "portcullis_connections_accepted_total{{listener=\"{}\"}}",
        pair.worker.address
    );
    assert_eq!(pair.worker.metric(&accepted).await, Some(1));
    let (_, routes) = pair.worker.ask_admin("/v1/routes").await;
    let routes: serde_json::Value = serde_json::from_str(&routes).unwrap();
    let tunnel = &routes["tunnels"][0];
    assert_eq!(tunnel["name"], "clusterd", "{routes}");
    assert_eq!(tunnel["upstream"]["server_name"], NAME);
    let listens = serde_json::json!([pair.worker.address.to_string()]);
    assert_eq!(tunnel["listen"], listens);
    assert_eq!(
        tunnel["endpoints"][0]["address"],
        pair.master.address.to_string()
    );
    assert!(tunnel["broken_reason"].is_null() && routes["routes"] == serde_json::json!([]));
    let (status, ready) = pair.worker.ask_admin("/readyz").await;
    assert_eq!(status, 200, "{ready}");
    assert!(!ready.contains("insecure"), "{ready}");
}

#[tokio::test]
async fn the_name_that_is_asked_for_is_the_one_written_or_that_behind_a_gateway() {
    let tls =
        "tls = { roots = [\"CA/ca.pem\"], chain = \"CA/worker.pem\", key = \"CA/worker.key\" }\n";
    for keys in [
        "to = \"MASTER\"\nserver_name = \"master.example.test\"\n",
        "gateway = \"MASTER\"\nname = \"master.example.test\"\n",
    ] {
        let keys = format!("{keys}{tls}");
        let mut pair = Pair::with("listen = \"127.0.0.1:0\"\n", &keys).await;
        assert_eq!(said_and_heard(pair.connect().await, b"word").await, b"word");
        assert_eq!(pair.master.ended().await["sni"], NAME, "{keys}");
    }
}

#[tokio::test]
async fn an_address_that_a_tunnel_leads_to_is_what_must_be_proven_unless_a_name_is_written() {
    let authority = Authority::new();
    for (proves, reason) in [("127.0.0.1", "closed"), ("127.0.0.2", "upstream_identity")] {
        let issued = authority.issue(&[proves]);
        let upstream = Upstream::tls(issued.server(&[&TLS13]), echo).await;
        let tables = format!(
            "[tunnels.t]\nlisten = \"127.0.0.1:0\"\nto = \"{}\"\ntls = {{ roots = [\"{}/ca.pem\"] }}\n",
            upstream.address,
            authority.folder().display()
        );
        let mut worker = Gateway::start(&Authority::new(), &tables).await;
        let mut tcp = worker.connect().await;
        let _ = tcp.shutdown().await;
        read_all(&mut tcp).await;
        let record = worker.ended().await;
        assert_eq!(record["reason"], reason, "{record}");
    }
}

#[tokio::test]
async fn protocols_are_offered_as_they_are_written_and_none_otherwise() {
    for (alpn, agreed) in [("", None), ("alpn = [\"h2\"]\n", Some("h2"))] {
        let keys = format!("{alpn}{VERIFIED}");
        let mut pair = Pair::with("listen = \"127.0.0.1:0\"\n", &keys).await;
        said_and_heard(pair.connect().await, b"word").await;
        assert_eq!(pair.master.ended().await["alpn"].as_str(), agreed);
    }
}

#[tokio::test]
async fn a_gateway_is_asked_for_its_status_where_no_other_protocol_is_written() {
    let tls =
        "tls = { roots = [\"CA/ca.pem\"], chain = \"CA/worker.pem\", key = \"CA/worker.key\" }\n";
    for (alpn, agreed) in [
        ("", Some("portcullis/1")),
        ("alpn = []\n", None),
        ("alpn = [\"h2\"]\n", Some("h2")),
    ] {
        let keys = format!("{alpn}gateway = \"MASTER\"\nname = \"{NAME}\"\n{tls}");
        let mut pair = Pair::with("listen = \"127.0.0.1:0\"\n", &keys).await;
        // Of the status no byte is taken for the master's, whichever comes first.
        let text = text();
        assert_eq!(said_and_heard(pair.connect().await, &text).await, text);
        assert_eq!(pair.worker.ended().await["reason"], "closed");
        assert_eq!(pair.master.ended().await["alpn"].as_str(), agreed, "{alpn}");
    }
}

#[tokio::test]
async fn a_tunnel_may_lead_to_a_named_upstream_which_says_how_it_is_dialled() {
    let echo = Upstream::echo().await;
    let folder = Authority::new();
    let tables = format!(
        "[tunnels.db]\nlisten = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\nupstream = \"all\"\n\
         [upstreams.all]\nweighted = [\"one\"]\n[upstreams.one]\naddress = \"{}\"\n",
        echo.address
    );
    let mut worker = Gateway::start(&folder, &tables).await;
    let addresses: Vec<_> = (worker.tunnels.iter())
        .filter_map(|(_, address)| address.tcp())
        .collect();
    assert_eq!(addresses.len(), 2);
    for _ in 0..2 {
        for address in &addresses {
            let tcp = TcpStream::connect(address).await.unwrap();
            assert_eq!(said_and_heard(tcp, b"word").await, b"word");
            assert_eq!(worker.ended().await["upstream"], "one");
        }
        // Each of them stays, though both are written alike.
        worker.reload.done("the test").await.unwrap();
    }
}

#[tokio::test]
async fn both_legs_stand_in_one_file() {
    let (echo, far) = (Upstream::echo().await, Upstream::greeter("far").await);
    let authority = Authority::new();
    authority.issue_files("far", &["far.example.test"]);
    let far_tables = format!(
        "certificates = [{{ chain = \"far.pem\", key = \"far.key\" }}]\n\
         [routes.far]\nhost = \"far.example.test\"\nupstream = \"{}\"\n",
        far.address
    );
    let far = Gateway::start(&authority, &far_tables).await;
    let folder = Authority::new();
    folder.issue_files("edge", &[NAME]);
    let tables = format!(
        "listen = [\"127.0.0.1:0\"]\n\
         certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
         [routes.taskd]\nhost = \"{NAME}\"\nupstream = \"{}\"\n\
         [tunnels.noded]\nlisten = \"127.0.0.1:0\"\nto = \"{}\"\nserver_name = \"far.example.test\"\n\
         tls = {{ roots = [\"{}/ca.pem\"] }}\n",
        echo.address,
        far.address,
        authority.folder().display()
    );
    let mut both = Gateway::start(&folder, &tables).await;
    let client = Arc::new(folder.client(&[&TLS13]));
    let mut tls = both.connect_tls(&client, NAME).await.unwrap();
    tls.write_all(b"word").await.unwrap();
    let mut heard = [0; 4];
    tls.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"word");
    drop(tls);
    assert_eq!(both.ended().await["route"], "taskd");
    let [(name, ListenAddress::Tcp(address))] = &both.tunnels[..] else {
        panic!("{:?}", both.tunnels);
    };
    assert_eq!(&**name, "noded");
    let tcp = TcpStream::connect(address).await.unwrap();
    assert_eq!(said_and_heard(tcp, b"").await, b"far");
    assert_eq!(both.ended().await["route"], "noded");
}
