//! Sidecars that do not prove who they should be: they get no byte of a client, and the gateway says why.

use std::sync::{Arc, Mutex};

use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use rustls::{ServerConfig, ServerConnection};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{HOST, NAME, ROUTE, Scene, register};
use crate::consul::{Consul, certificate, self_signed};
use crate::support::PATIENCE;
use crate::upstream::Upstream;

/// What a client says, and no impostor may hear.
const SECRET: &[u8] = b"the secret of a client";

/// A sidecar that is none, and what it has heard.
struct Impostor {
    upstream: Upstream,
    heard: Arc<Mutex<Vec<Heard>>>,
}

/// What came over one connection.
#[derive(Default)]
struct Heard {
    /// As it came.
    bytes: Vec<u8>,
    /// What was in its TLS.
    plain: Vec<u8>,
    /// Whether the gateway has taken it for who it should be.
    believed: bool,
}

impl Impostor {
    /// One that speaks this TLS, or none at all: then it says a banner.
    async fn start(config: Option<Arc<ServerConfig>>) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&heard);
        let upstream = Upstream::tcp(move |tcp| {
            let (config, all) = (config.clone(), Arc::clone(&all));
            async move {
                let mut heard = Heard::default();
                match config {
                    Some(config) => heard.over_tls(tcp, config).await,
                    None => heard.over_tcp(tcp).await,
                }
                all.lock().unwrap().push(heard);
            }
        })
        .await;
        Self { upstream, heard }
    }
}

impl Heard {
    async fn over_tcp(&mut self, mut tcp: TcpStream) {
        let _ = tcp.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
        let _ = tcp.read_to_end(&mut self.bytes).await;
    }

    async fn over_tls(&mut self, mut tcp: TcpStream, config: Arc<ServerConfig>) {
        let mut tls = ServerConnection::new(config).unwrap();
        let mut chunk = vec![0; 16 * 1024];
        loop {
            let mut answer = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut answer).unwrap();
            }
            let _ = tcp.write_all(&answer).await;
            let count = tcp.read(&mut chunk).await.unwrap_or(0);
            self.bytes.extend_from_slice(&chunk[..count]);
            if count == 0 || tls.read_tls(&mut &chunk[..count]).is_err() {
                return;
            }
            let Ok(state) = tls.process_new_packets() else {
                return;
            };
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            std::io::Read::read_exact(&mut tls.reader(), &mut plain).unwrap();
            self.plain.extend(plain);
            self.believed |= !tls.is_handshaking();
        }
    }
}

/// A gateway whose one sidecar is this: a client is closed, for this reason, and the impostor hears nothing of it.
async fn is_refused(consul: &Consul, config: Option<Arc<ServerConfig>>, reason: &str, why: &str) {
    let impostor = Impostor::start(config).await;
    let address = impostor.upstream.address;
    register(consul, NAME, address, address.port());
    let mut scene = Scene::start_unready(&consul.keys(), "").await;
    scene.is_ready().await;
    scene
        .until("it has the route", async || {
            !scene.route(ROUTE).await.is_null()
        })
        .await;

    let mut stream = scene.way.connect(HOST).await.unwrap();
    // The gateway may have closed before it is said.
    let _ = stream.write_all(SECRET).await;
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    ended.expect("the client is not closed").unwrap_err();
    assert!(answer.is_empty(), "{reason}: {answer:?}");

    let record = scene.gateway.ended().await;
    assert_eq!(record["reason"], reason, "{record}");
    assert_eq!(record["fault"], "upstream", "{record}");
    assert_eq!(record["route"], ROUTE, "{record}");
    assert_eq!(record["bytes_up"], 0, "{record}");
    let detail = record["detail"].as_str().unwrap_or_default();
    assert!(detail.contains(why), "{why:?} is not in {record}");
    assert_eq!(scene.ended_for(reason).await, 1);
    assert!(scene.gateway.has_no_more_records());

    // Its end is told a moment later.
    let ended = async || !impostor.heard.lock().unwrap().is_empty();
    scene.until("it has heard the end", ended).await;
    for heard in &*impostor.heard.lock().unwrap() {
        assert!(!heard.believed, "{reason}");
        assert!(heard.plain.is_empty(), "{reason}: {:?}", heard.plain);
        let told = heard.bytes.windows(SECRET.len()).any(|part| part == SECRET);
        assert!(!told, "{reason}: the secret was told in the clear");
        // A record of a handshake, to those too that speak no TLS.
        assert_eq!(heard.bytes.first(), Some(&22), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_with_the_identity_of_another_service_is_refused() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let other = consul.leaf("other");
    is_refused(
        &consul,
        Some(other.server()),
        "upstream_identity",
        "svc/other",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_of_another_mesh_is_refused() {
    let (Some(consul), Some(elsewhere)) = (Consul::strict(), Consul::strict()) else {
        return;
    };
    let mut foreign = elsewhere.leaf(NAME);
    // It accepts whoever comes: it is for the gateway to refuse.
    foreign.roots = consul.leaf("portcullis").roots;
    is_refused(&consul, Some(foreign.server()), "upstream_identity", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_says_other_than_its_name_in_a_certificate_of_the_right_ca_is_refused() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let ca = consul.use_own_ca();
    let id = consul.spiffe_id(NAME);
    let trust_domain = id.split('/').nth(2).unwrap();
    let path = id.split_once(trust_domain).unwrap().1;
    let foreign = format!("spiffe://11111111-2222-3333-4444-555555555555.consul{path}");
    let elsewhere = id.replace("/dc/dc1/", "/dc/dc2/");
    let longer = format!("{id}/more");
    for uris in [
        &[foreign.as_str()] as &[&str],
        &[&elsewhere],
        &[&longer],
        &[&id, &foreign],
        &[],
    ] {
        let mut params = certificate(uris);
        if uris.is_empty() {
            let name = rcgen::string::Ia5String::try_from("simple01").unwrap();
            params.subject_alt_names = vec![rcgen::SanType::DnsName(name)];
        }
        is_refused(
            &consul,
            Some(ca.server(&params)),
            "upstream_identity",
            "the peer is not",
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_whose_certificate_cannot_be_relied_on_is_refused() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let ca = consul.use_own_ca();
    let id = consul.spiffe_id(NAME);
    let valid = certificate(&[&id]);
    let mut expired = valid.clone();
    expired.not_before = date_time_ymd(2020, 1, 1);
    expired.not_after = date_time_ymd(2021, 1, 1);
    let mut early = valid.clone();
    early.not_before = date_time_ymd(2100, 1, 1);
    early.not_after = date_time_ymd(2101, 1, 1);
    let mut client = valid.clone();
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    for (sidecar, why) in [
        (ca.server(&expired), "expired at 2021"),
        (ca.server(&early), "2100"),
        (ca.server(&client), ""),
        (self_signed(&valid), ""),
    ] {
        is_refused(&consul, Some(sidecar), "upstream_identity", why).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_speaks_no_tls_is_refused_and_never_spoken_to_plainly() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    is_refused(&consul, None, "upstream_tls", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impostor_among_good_sidecars_is_told_of_and_passed_over() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let good = super::register_with_own_sidecar(&consul).await;
    let impostor = Impostor::start(Some(consul.leaf("other").server())).await;
    // A second sidecar of the same service.
    let mut second = crate::consul::sidecar(
        &crate::consul::service(NAME, good.address, &[]),
        impostor.upstream.address.port(),
    );
    second["ID"] = "second".into();
    second["Check"] = Value::Null;
    consul.put("/v1/agent/service/register", &second);
    let scene = Scene::start_unready(&consul.keys(), "").await;
    scene.is_ready().await;
    scene
        .until("it has both sidecars", async || {
            let route = scene.route(ROUTE).await;
            route["endpoints"]
                .as_array()
                .is_some_and(|all| all.len() == 2)
        })
        .await;
    for _ in 0..8 {
        assert_eq!(scene.way.echo(HOST).await, Ok(()));
    }
    for heard in &*impostor.heard.lock().unwrap() {
        assert!(!heard.believed && heard.plain.is_empty());
    }
}
