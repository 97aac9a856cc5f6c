//! Resets at every step where the gateway speaks TLS with the upstream: one record each, and nothing left behind.

use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;

use super::breaks::reset;
use crate::authority::Authority;
use crate::differential::forge::{self, Handshake};
use crate::gateway::{Gateway, answer};
use crate::support::PATIENCE;
use crate::upstream::Upstream;

const NAME: &str = "edge.example.test";

/// A gateway that ends a client's TLS, and opens its own to this upstream.
async fn gateway(authority: &Authority, upstream: &Upstream, limits: &str) -> Gateway {
    let tables = format!(
        "admin = \"127.0.0.1:0\"\ncertificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
         [limits]\ndial_attempts = 1\n{limits}\n\
         [routes.edge]\nhost = \"{NAME}\"\nupstream = \"u\"\n\
         [upstreams.u]\naddress = \"{}\"\n[upstreams.u.tls]\nroots = [\"ca.pem\"]\nserver_name = \"{NAME}\"\n",
        upstream.address
    );
    Gateway::start(authority, &tables).await
}

/// Waits until nobody is in any more.
async fn is_empty(gateway: &mut Gateway) {
    let late = Instant::now() + PATIENCE;
    let nobody = [
        "portcullis_limit_current{limit=\"connections\"} 0\n",
        "portcullis_limit_current{limit=\"handshakes\"} 0\n",
        "portcullis_limit_current{limit=\"per_source\"} 0\n",
        "portcullis_connections_active{route=\"edge\"} 0\n",
    ];
    loop {
        let (_, metrics) = gateway.ask_admin("/metrics").await;
        if nobody.iter().all(|sample| metrics.contains(sample)) {
            break;
        }
        assert!(Instant::now() < late, "{metrics}");
        sleep(std::time::Duration::from_millis(2)).await;
    }
    assert!(gateway.has_no_more_records(), "one record, not two");
}

/// How far the upstream gets before it breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Accepted,
    HalfAHello,
    AHello,
    HalfAnAnswer,
    Answered,
    /// Its side of the handshake is made.
    Finished,
    HalfARecord,
    ARecord,
}

const STEPS: [Step; 8] = [
    Step::Accepted,
    Step::HalfAHello,
    Step::AHello,
    Step::HalfAnAnswer,
    Step::Answered,
    Step::Finished,
    Step::HalfARecord,
    Step::ARecord,
];

/// Goes as far as this with whoever has come.
async fn go(tcp: &mut TcpStream, config: &Arc<ServerConfig>, last: Step) {
    let mut received = vec![0; 1 << 16];
    match last {
        Step::Accepted => return,
        Step::HalfAHello => {
            tcp.read_exact(&mut received[..50]).await.unwrap();
            return;
        }
        _ => {}
    }
    let mut handshake = Handshake::server(config);
    loop {
        let count = tcp.read(&mut received).await.unwrap();
        if last == Step::AHello {
            return;
        }
        let (said, through) = handshake.step(&received[..count]);
        if last == Step::HalfAnAnswer && !said.is_empty() {
            return tcp.write_all(&said[..said.len() / 2]).await.unwrap();
        }
        tcp.write_all(&said).await.unwrap();
        if last == Step::Answered && !said.is_empty() {
            return;
        }
        if through {
            break;
        }
    }
    let record = handshake.forge().data(&[7; 1000]);
    match last {
        Step::HalfARecord => tcp.write_all(&record[..500]).await.unwrap(),
        Step::ARecord => tcp.write_all(&record).await.unwrap(),
        _ => {}
    }
}

/// What the upstream of these tests shows, with the keys of its connections let out.
fn server(authority: &Authority, version: &'static SupportedProtocolVersion) -> Arc<ServerConfig> {
    let issued = authority.issue_files("edge", &[NAME]);
    let mut config = issued.server_by(forge::provider(), &[version]);
    config.enable_secret_extraction = true;
    Arc::new(config)
}

#[tokio::test]
async fn an_upstream_that_resets_its_tls_at_any_step_leaves_one_record_of_its_own_fault() {
    let authority = Authority::new();
    for version in [&TLS12, &TLS13] {
        let config = server(&authority, version);
        for step in STEPS {
            let config = Arc::clone(&config);
            let upstream = Upstream::tcp(move |mut tcp| {
                let config = Arc::clone(&config);
                async move {
                    go(&mut tcp, &config, step).await;
                    reset(tcp);
                }
            })
            .await;
            let mut gateway = gateway(&authority, &upstream, "").await;
            let client = Arc::new(authority.client(&[&TLS13]));
            let mut client = gateway.connect_tls(&client, NAME).await.unwrap();
            if !matches!(step, Step::Finished | Step::HalfARecord | Step::ARecord) {
                // It may be over by now.
                let _ = client.write_all(b"word").await;
            }
            let (mut tcp, _) = client.into_inner();
            answer(&mut tcp).await;
            drop(tcp);
            let record = gateway.ended().await;
            let reason = record["reason"].as_str().unwrap();
            let expected: &[&str] = match step {
                // As much was seen of it as had come when the reset did.
                Step::Accepted => &["dial_failed", "upstream_tls"],
                Step::HalfAHello | Step::AHello | Step::HalfAnAnswer => &["upstream_tls"],
                Step::Answered | Step::Finished => &["upstream_tls", "upstream_reset"],
                Step::HalfARecord | Step::ARecord => &["upstream_reset"],
            };
            assert!(
                expected.contains(&reason),
                "{step:?}, {version:?}: {record}"
            );
            assert_eq!(record["fault"], "upstream", "{step:?}: {record}");
            is_empty(&mut gateway).await;
        }
    }
}

/// What there is of an upstream's connection when its client breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// The upstream has a hello, and has not answered.
    Greeted,
    /// Its handshake is made, and it has said a word.
    Made,
    /// A word has gone up and come back.
    Answered,
    /// The same, and half a record has come from the client.
    HalfARecord,
}

#[tokio::test]
async fn a_client_that_resets_at_any_step_of_the_upstreams_tls_is_recorded_and_passed_on() {
    let authority = Authority::new();
    for version in [&TLS12, &TLS13] {
        let config = server(&authority, version);
        for when in [When::Greeted, When::Made, When::Answered, When::HalfARecord] {
            let (told, mut heard) = unbounded_channel();
            let (greeted, mut is_greeted) = unbounded_channel();
            let (gate, acceptor) = (
                Arc::new(Semaphore::new(0)),
                TlsAcceptor::from(config.clone()),
            );
            let opened = Arc::clone(&gate);
            let upstream = Upstream::tcp(move |tcp| {
                let (told, greeted) = (told.clone(), greeted.clone());
                let (gate, acceptor) = (Arc::clone(&opened), acceptor.clone());
                async move {
                    tcp.peek(&mut [0; 5]).await.unwrap();
                    let _ = greeted.send(());
                    gate.acquire().await.unwrap().forget();
                    let whole = async {
                        let mut tls = acceptor.accept(tcp).await?;
                        tls.write_all(b"hi").await?;
                        tls.flush().await?;
                        let mut word = [0; 4];
                        tls.read_exact(&mut word).await?;
                        tls.write_all(&word).await?;
                        tls.flush().await?;
                        tls.read_to_end(&mut Vec::new()).await
                    };
                    let _ = told.send(whole.await);
                }
            })
            .await;
            let mut gateway = gateway(&authority, &upstream, "").await;
            let client = Arc::new(authority.client(&[&TLS13]));
            let mut client = gateway.connect_tls(&client, NAME).await.unwrap();
            is_greeted.recv().await.unwrap();
            if when != When::Greeted {
                gate.add_permits(1);
                let mut word = [0; 2];
                client.read_exact(&mut word).await.unwrap();
            }
            if matches!(when, When::Answered | When::HalfARecord) {
                client.write_all(b"word").await.unwrap();
                let mut word = [0; 4];
                client.read_exact(&mut word).await.unwrap();
            }
            let (mut tcp, _) = client.into_inner();
            if when == When::HalfARecord {
                tcp.write_all(&[23, 3, 3, 1, 0, 7, 7, 7]).await.unwrap();
            }
            reset(tcp);
            gate.add_permits(1);
            let record = gateway.ended().await;
            assert_eq!(record["reason"], "client_reset", "{when:?}: {record}");
            assert_eq!(record["fault"], "client", "{when:?}: {record}");
            let heard = heard.recv().await.unwrap();
            assert!(heard.is_err(), "{when:?}: taken for a whole conversation");
            is_empty(&mut gateway).await;
        }
    }
}

/// Nothing of the client is read while its upstream is reached: that has a deadline of its own.
#[tokio::test]
async fn a_client_that_is_gone_before_an_upstream_that_never_answers_is_held_no_longer_than_a_dial()
{
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let (greeted, mut is_greeted) = unbounded_channel();
    let (told, mut heard) = unbounded_channel();
    let upstream = Upstream::tcp(move |mut tcp| {
        let (greeted, told) = (greeted.clone(), told.clone());
        async move {
            tcp.peek(&mut [0; 5]).await.unwrap();
            let _ = greeted.send(());
            let _ = tcp.read_to_end(&mut Vec::new()).await;
            let _ = told.send(());
        }
    })
    .await;
    let mut gateway = gateway(&authority, &upstream, "dial_timeout = \"300ms\"").await;
    let client = Arc::new(authority.client(&[&TLS13]));
    let client = gateway.connect_tls(&client, NAME).await.unwrap();
    is_greeted.recv().await.unwrap();
    reset(client.into_inner().0);
    let record = gateway.ended().await;
    assert_eq!(record["reason"], "dial_timeout", "{record}");
    heard.recv().await.unwrap();
    is_empty(&mut gateway).await;
}
