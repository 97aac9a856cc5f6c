//! Upstreams that prove who they are, as the file asks for it, and those that do not.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, SanType};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::authority::{Authority, Issued};
use crate::gateway::Gateway;
use crate::support::PATIENCE;
use crate::upstream::{Upstream, echo};

const NAME: &str = "edge.example.test";
const WEB: &str = "spiffe://one.test/ns/default/dc/dc1/svc/web";
const API: &str = "spiffe://one.test/ns/default/dc/dc1/svc/api";
const FOREIGN: &str = "spiffe://two.test/ns/default/dc/dc1/svc/web";
/// What the client says.
const WORDS: &str = "words of the client";

/// A gateway whose one route ends TLS and goes to this upstream, over TLS with these keys.
async fn gateway(authority: &Authority, address: SocketAddr, keys: &str) -> Gateway {
    authority.issue_files("edge", &[NAME]);
    let tables = format!(
        "admin = \"127.0.0.1:0\"\n\
         certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
         [routes.edge]\nhost = \"{NAME}\"\nupstream = \"u\"\n\
         [upstreams.u]\naddress = \"{address}\"\n\
         [upstreams.u.tls]\nroots = [\"ca.pem\"]\n{keys}\n"
    );
    Gateway::start(authority, &tables).await
}

fn spiffe() -> String {
    format!("spiffe = \"{WEB}\"")
}

/// A client's one try, and what it gets; none if the gateway closed without a clean end.
async fn ask(authority: &Authority, gateway: &Gateway) -> Option<String> {
    let config: Arc<ClientConfig> = Arc::new(authority.client(&[&TLS13]));
    let mut stream = gateway.connect_tls(&config, NAME).await.unwrap();
    // The gateway may have given up already.
    let _ = stream.write_all(WORDS.as_bytes()).await;
    let _ = stream.shutdown().await;
    let mut answer = String::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
    read.expect("the gateway does not close").ok()?;
    Some(answer)
}

fn params(names: &[&str], uris: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    let uris = uris
        .iter()
        .map(|&uri| SanType::URI(uri.try_into().unwrap()));
    params.subject_alt_names.extend(uris);
    params
}

/// Whether the words came back from an upstream with this certificate, over both versions of TLS.
async fn is_taken(authority: &Authority, issued: &Issued, keys: &str) {
    for version in [&TLS12, &TLS13] {
        let upstream = Upstream::tls(issued.server(&[version]), echo).await;
        let mut gateway = gateway(authority, upstream.address, keys).await;
        assert_eq!(ask(authority, &gateway).await.as_deref(), Some(WORDS));
        assert_eq!(gateway.ended().await["reason"], "closed");
    }
}

/// An upstream with this certificate is refused for it before it gets a byte; gives the record's detail.
async fn is_refused(authority: &Authority, issued: &Issued, keys: &str) -> String {
    let mut details = Vec::new();
    for version in [&TLS12, &TLS13] {
        let served = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&served);
        let upstream = Upstream::tls(issued.server(&[version]), move |stream| {
            count.fetch_add(1, Ordering::SeqCst);
            echo(stream)
        })
        .await;
        let gateway = gateway(authority, upstream.address, keys).await;
        let record = refusal(authority, gateway, "upstream_identity").await;
        assert_eq!(served.load(Ordering::SeqCst), 0, "{record}");
        details.push(record["detail"].as_str().unwrap().to_owned());
    }
    details.swap_remove(0)
}

/// The record of a try that the gateway ends for this reason, counted among the metrics.
async fn refusal(authority: &Authority, mut gateway: Gateway, reason: &str) -> Value {
    assert_eq!(ask(authority, &gateway).await, None);
    let record = gateway.ended().await;
    assert_eq!(record["reason"], reason, "{record}");
    assert_eq!(record["fault"], "upstream", "{record}");
    assert_eq!(record["bytes_up"], 0, "{record}");
    assert!(gateway.has_no_more_records());
    let (_, metrics) = gateway.ask_admin("/metrics").await;
    let labels = format!("route=\"edge\",reason=\"{reason}\",fault=\"upstream\"");
    let counted = format!("portcullis_connections_ended_total{{{labels}}} 1");
    assert!(metrics.contains(&counted), "{metrics}");
    record
}

/// Who is told of the endpoint that is only down would look for the mistake there.
#[tokio::test]
async fn of_two_endpoints_that_fail_the_one_that_does_not_prove_who_it_is_is_told() {
    let authority = Authority::new();
    let api = authority.sign(params(&[], &[API]));
    let upstream = Upstream::tls(api.server(&[&TLS13]), echo).await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = gone.local_addr().unwrap();
    drop(gone);
    let address = upstream.address;
    authority.issue_files("edge", &[NAME]);
    let tables = format!(
        "certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
         [routes.edge]\nhost = \"{NAME}\"\nupstream = \"u\"\n\
         [upstreams.u]\nendpoints = [\"{address}\", \"{closed}\"]\n\
         [upstreams.u.tls]\nroots = [\"ca.pem\"]\n{}\n",
        spiffe()
    );
    let mut gateway = Gateway::start(&authority, &tables).await;
    // Both are tried each time, now the one last and now the other.
    for _ in 0..4 {
        assert_eq!(ask(&authority, &gateway).await, None);
        let record = gateway.ended().await;
        assert_eq!(record["reason"], "upstream_identity", "{record}");
        assert_eq!(record["endpoint"], address.to_string(), "{record}");
    }
}

#[tokio::test]
async fn an_upstream_with_the_id_that_is_asked_for_is_used() {
    let authority = Authority::new();
    let web = authority.sign(params(&[], &[WEB]));
    is_taken(&authority, &web, &spiffe()).await;
    // What the hello says is another matter.
    let named = format!("{}\nserver_name = \"somebody.test\"", spiffe());
    is_taken(&authority, &web, &named).await;
}

#[tokio::test]
async fn an_upstream_that_is_somebody_else_in_the_mesh_gets_nothing() {
    let authority = Authority::new();
    for (names, uris, told) in [
        (&[][..], &[API][..], format!("not {WEB}, but {API}")),
        (
            &[],
            &[FOREIGN],
            format!("of another trust domain: {FOREIGN}"),
        ),
        (&[], &[WEB, API], "holds 2 URIs".to_owned()),
        (&["web.test"], &[], "holds no URI, but web.test".to_owned()),
    ] {
        let issued = authority.sign(params(names, uris));
        let detail = is_refused(&authority, &issued, &spiffe()).await;
        assert!(detail.contains(&told), "{detail}");
    }
}

#[tokio::test]
async fn an_upstream_whose_certificate_nobody_vouches_for_gets_nothing() {
    let authority = Authority::new();
    let mut old = params(&[], &[WEB]);
    old.not_before = rcgen::date_time_ymd(2020, 1, 1);
    old.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let detail = is_refused(&authority, &authority.sign(old), &spiffe()).await;
    assert!(detail.contains("expired at 2021-01-01"), "{detail}");
    let stranger = Authority::new().sign(params(&[], &[WEB]));
    let detail = is_refused(&authority, &stranger, &spiffe()).await;
    assert!(detail.contains("from another CA"), "{detail}");
}

#[tokio::test]
async fn an_upstream_that_speaks_plainly_where_an_id_is_due_gets_no_byte_of_the_client() {
    let authority = Authority::new();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    let upstream = Upstream::tcp(move |mut tcp| {
        let hears = Arc::clone(&hears);
        async move {
            let _ = tcp.write_all(b"220 mail.example.test ready\r\n").await;
            let mut bytes = Vec::new();
            let _ = tcp.read_to_end(&mut bytes).await;
            hears.lock().unwrap().extend(bytes);
        }
    })
    .await;
    let gateway = gateway(&authority, upstream.address, &spiffe()).await;
    refusal(&authority, gateway, "upstream_tls").await;
    let heard = heard.lock().unwrap();
    let words = WORDS.as_bytes();
    assert!(!heard.windows(words.len()).any(|window| window == words));
}

#[tokio::test]
async fn an_upstream_may_prove_one_name_of_a_list() {
    let authority = Authority::new();
    let keys = format!("sans = [\"db.prod.test\", \"10.0.0.5\", \"{WEB}\"]");
    for (names, uris) in [
        (&["db.prod.test", "other.test"][..], &[][..]),
        (&["*.prod.test"], &[]),
        (&["10.0.0.5"], &[]),
        (&["other.test"], &[API, WEB]),
    ] {
        is_taken(&authority, &authority.sign(params(names, uris)), &keys).await;
    }
    let issued = authority.sign(params(&["other.test", "10.0.0.6"], &[API]));
    let detail = is_refused(&authority, &issued, &keys).await;
    let told =
        format!("not for db.prod.test or 10.0.0.5 or {WEB}, but for {API}, other.test, 10.0.0.6");
    assert!(detail.contains(&told), "{detail}");
}

/// A server with a certificate for `WEB` that takes clients of this authority only.
fn exclusive(
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
) -> Arc<ServerConfig> {
    let issued = authority.sign(params(&[], &[WEB]));
    let provider = portcullis::tls::provider();
    let roots = Arc::new(authority.roots());
    let clients = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
    let key = PrivateKeyDer::try_from(issued.key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(vec![issued.certificate.der().clone()], key);
    Arc::new(config.unwrap())
}

#[tokio::test]
async fn the_gateway_shows_its_own_certificate_with_all_that_stands_above_it() {
    let authority = Authority::new();
    authority.issue_files_below(1, "gateway", &["gateway.test"]);
    let keys = format!(
        "{}\nchain = \"gateway.pem\"\nkey = \"gateway.key\"",
        spiffe()
    );
    for version in [&TLS12, &TLS13] {
        let upstream = Upstream::tls(exclusive(&authority, version), |mut stream| async move {
            let shown = stream.get_ref().1.peer_certificates().unwrap().len();
            let _ = stream.write_all(shown.to_string().as_bytes()).await;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let gateway = gateway(&authority, upstream.address, &keys).await;
        assert_eq!(ask(&authority, &gateway).await.as_deref(), Some("2"));
    }
}

#[tokio::test]
async fn an_upstream_that_requires_a_certificate_where_none_is_configured_says_so_in_the_record() {
    let authority = Authority::new();
    for version in [&TLS12, &TLS13] {
        let upstream = Upstream::tls(exclusive(&authority, version), echo).await;
        let mut gateway = gateway(&authority, upstream.address, &spiffe()).await;
        assert_eq!(ask(&authority, &gateway).await, None);
        let record = gateway.ended().await;
        assert_eq!(record["reason"], "upstream_tls", "{record}");
        let detail = record["detail"].as_str().unwrap();
        assert!(detail.contains("requires a certificate"), "{record}");
    }
}
