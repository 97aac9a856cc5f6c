//! Every connection ends in exactly one record and one count, however it ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use portcullis::config::{self, LogFormat};
use portcullis::log::AccessLog;
use portcullis::metrics::Metrics;
use portcullis::net::raw::Accepted;
use portcullis::net::session::Sessions;
use portcullis::proxy::Proxy;
use portcullis::snapshot::compile::{Inputs, compile};
use portcullis::snapshot::{Listener, ListenerId, Snapshot};
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::authority::Authority;
use crate::gateway::{Gateway, exchange};
use crate::upstream::{Upstream, echo};

#[tokio::test]
async fn every_connection_is_recorded_and_counted_once() {
    const EACH: usize = 5;
    let authority = Authority::new();
    let names = ["echo.test", "dead.test"];
    authority.issue_files("edge", &names);
    let upstream = Upstream::echo().await;
    let mut gateway = Gateway::start(
        &authority,
        &format!(
            "admin = \"127.0.0.1:0\"\n\
             certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
             [routes.echo]\nhost = \"echo.test\"\nupstream = \"{}\"\n\
             [routes.bare]\nhost = \"bare.test\"\nupstream = \"{}\"\n\
             [routes.dead]\nhost = \"dead.test\"\nupstream = \"u\"\n\
             [upstreams.u]\naddress = \"no-such-host.invalid:1\"\n",
            upstream.address, upstream.address
        ),
    )
    .await;
    let config = Arc::new(authority.client(&[&TLS13]));
    for _ in 0..EACH {
        let mut closed = gateway.connect_tls(&config, "echo.test").await.unwrap();
        closed.write_all(b"hello").await.unwrap();
        closed.shutdown().await.unwrap();
        closed.read_to_end(&mut Vec::new()).await.unwrap();

        let mut reset = gateway.connect_tls(&config, "echo.test").await.unwrap();
        reset.write_all(b"hello").await.unwrap();
        reset.flush().await.unwrap();
        reset.read_exact(&mut [0; 5]).await.unwrap();
        SockRef::from(reset.get_ref().0)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(reset);

        let mut nowhere = gateway.connect_tls(&config, "dead.test").await.unwrap();
        nowhere.read_u8().await.unwrap_err();
        gateway.connect_tls(&config, "bare.test").await.unwrap_err();
        gateway
            .connect_tls(&config, "unknown.test")
            .await
            .unwrap_err();
        exchange(gateway.connect().await, b"not tls").await;
        drop(gateway.connect().await);
    }
    let mut reasons = BTreeMap::new();
    for _ in 0..EACH * 7 {
        let record = gateway.ended().await;
        *reasons
            .entry(record["reason"].as_str().unwrap().to_owned())
            .or_insert(0) += 1;
    }
    let expected = [
        "client_gone",
        "client_reset",
        "closed",
        "no_certificate",
        "no_healthy_upstream",
        "not_tls",
        "unknown_name",
    ];
    assert_eq!(
        reasons,
        expected.map(|reason| (reason.to_owned(), EACH)).into()
    );
    assert!(gateway.has_no_more_records());

    let (_, metrics) = gateway.ask_admin("/metrics").await;
    let sum = |name: &str| -> f64 {
        let lines = metrics.lines().filter(|line| line.starts_with(name));
        lines
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
            .sum()
    };
    let all = (EACH * 7) as f64;
    assert_eq!(
        sum("portcullis_connections_accepted_total"),
        all,
        "{metrics}"
    );
    assert_eq!(sum("portcullis_connections_ended_total"), all, "{metrics}");
    assert_eq!(sum("portcullis_connections_active"), 0.0, "{metrics}");
    let reset = "portcullis_connections_ended_total{route=\"echo\",reason=\"client_reset\"";
    assert_eq!(sum(reset), EACH as f64, "{metrics}");
    assert_eq!(
        sum("portcullis_bytes_total{route=\"echo\",direction=\"up\"}"),
        10.0 * EACH as f64
    );
}

#[tokio::test]
async fn the_bytes_of_a_running_tunnel_are_counted_as_they_move() {
    let authority = Authority::new();
    authority.issue_files("edge", &["echo.test"]);
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(
        &authority,
        &format!(
            "admin = \"127.0.0.1:0\"\n\
             certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
             [routes.echo]\nhost = \"echo.test\"\nupstream = \"{}\"\n",
            upstream.address
        ),
    )
    .await;
    let config = Arc::new(authority.client(&[&TLS13]));
    let mut client = gateway.connect_tls(&config, "echo.test").await.unwrap();
    client.write_all(b"hello").await.unwrap();
    client.flush().await.unwrap();
    client.read_exact(&mut [0; 5]).await.unwrap();
    let (_, metrics) = gateway.ask_admin("/metrics").await;
    for line in [
        "portcullis_connections_active{route=\"echo\"} 1",
        "portcullis_bytes_total{route=\"echo\",direction=\"up\"} 5",
        "portcullis_bytes_total{route=\"echo\",direction=\"down\"} 5",
    ] {
        assert!(
            metrics.lines().any(|other| other == line),
            "no {line} in {metrics}"
        );
    }
}

/// A proxy on a cell of the test's own, with one passed-through route.
#[tokio::test]
async fn a_running_tunnel_keeps_no_snapshot_from_going() {
    let authority = Authority::new();
    let issued = authority.issue(&["pass.test"]);
    let upstream = Upstream::tls(issued.server(&[&TLS13]), echo).await;
    let text = format!(
        "[routes.pass]\nhost = \"pass.test\"\npassthrough = true\nupstream = \"{}\"\n",
        upstream.address
    );
    let path = authority.write("portcullis.toml", &text);
    let config = config::load(&path)
        .unwrap_or_else(|mistakes| panic!("{mistakes}"))
        .config;
    let inputs = Inputs {
        config,
        listeners: [(ListenerId(0), Listener::default())].into(),
        own: Arc::default(),
        certificates: Arc::default(),
        policies: BTreeMap::new(),
        client_configs: BTreeMap::new(),
        transport_configs: BTreeMap::new(),
        addresses: BTreeMap::new(),
        restored: BTreeMap::new(),
        identity: None,
        denied: Default::default(),
    };
    let metrics = Metrics::new();
    let cell = Arc::new(ArcSwap::from_pointee(compile(&inputs, None, &metrics)));
    let sessions = Sessions::new(
        AccessLog::start(LogFormat::Json, Box::new(std::io::sink())),
        metrics,
    );
    let proxy = Proxy::new(Arc::clone(&cell), sessions);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (tcp, from) = listener.accept().await.unwrap();
        let accepted = Accepted::Tcp(tcp, from);
        let at = (ListenerId(0), address.into());
        proxy.handle(accepted, at, proxy.snapshot()).await;
    });
    let config = Arc::new(authority.client(&[&TLS13]));
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("pass.test").unwrap();
    let mut client = TlsConnector::from(config).connect(name, tcp).await.unwrap();

    let old: Weak<Snapshot> = Arc::downgrade(&cell.load_full());
    let route = cell
        .load()
        .table
        .routes()
        .first()
        .map(|route| Arc::downgrade(route))
        .unwrap();
    cell.store(Arc::default());
    assert!(old.upgrade().is_none(), "the tunnel keeps its snapshot");
    assert!(route.upgrade().is_none(), "the tunnel keeps its route");

    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"hello");
    serving.await.unwrap();
}
