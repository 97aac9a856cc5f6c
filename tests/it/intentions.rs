//! Mesh upstreams that are not who they should be, or will not have us: what the record says of each.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use portcullis::config::{self, LogFormat};
use portcullis::log::AccessLog;
use portcullis::metrics::Metrics;
use portcullis::name::{MeshService, SpiffeId};
use portcullis::net::raw::Accepted;
use portcullis::net::session::Sessions;
use portcullis::proxy::Proxy;
use portcullis::rule::Rule;
use portcullis::snapshot::certificates::Certificates;
use portcullis::snapshot::compile::{Inputs, compile, update};
use portcullis::snapshot::service::{
    Service, ServiceKey, ServiceRoute, ServiceTls, ServiceUpstream,
};
use portcullis::snapshot::upstream::Endpoint;
use portcullis::snapshot::{Listener, ListenerId, Source};
use portcullis::tls::mesh::Identity;
use portcullis::tls::options::Options;
use portcullis::tls::server::ServerPolicy;
use rcgen::{CertificateParams, SanType};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::server::TlsStream;

use crate::authority::{Authority, Issued};
use crate::upstream::{Upstream, echo};

const NAME: &str = "web.example.test";
const DOMAIN: &str = "11111111-2222-3333-4444-555555555555.consul";
const HINT: &str = "`consul intention check gate web`";

/// A mesh with its CA, and a gateway in it.
struct Mesh {
    ca: Authority,
}

impl Mesh {
    fn new() -> Self {
        Self {
            ca: Authority::new(),
        }
    }

    fn params(service: &str) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let id = format!("spiffe://{DOMAIN}/ns/default/dc/dc1/svc/{service}");
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params
    }

    /// What a sidecar of this service shows.
    fn leaf(&self, service: &str) -> Issued {
        self.ca.sign(Self::params(service))
    }

    fn identity(&self) -> Arc<Identity> {
        let leaf = self.leaf("gate");
        let key = PrivateKeyDer::try_from(leaf.key.serialize_der()).unwrap();
        let chain = vec![leaf.certificate.der().clone()];
        let provider = portcullis::tls::provider();
        let certificate = CertifiedKey::from_der(chain, key, &provider).unwrap();
        Arc::new(Identity {
            id: SpiffeId::parse(&format!("spiffe://{DOMAIN}/ns/default/dc/dc1/svc/gate")).unwrap(),
            certificate: Arc::new(certificate),
            roots: Arc::new(self.ca.roots()),
            not_after: SystemTime::now(),
            former: None,
        })
    }

    /// One client of the service whose sidecar listens there: what it read, and the record of its session.
    async fn visit(&self, sidecar: SocketAddr, client: Visit) -> (Vec<u8>, Value) {
        let edge = Authority::new();
        edge.issue_files("edge", &[NAME]);
        let text = "certificates = [{ chain = \"edge.pem\", key = \"edge.key\" }]\n\
                    [routes.other]\nhost = \"other.test\"\nupstream = \"10.0.0.1:1\"\n";
        let checked = config::load(&edge.write("portcullis.toml", text))
            .unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let certificates = Arc::new(Certificates::new(checked.certificates));
        let policy = ServerPolicy::new(&Options::default(), certificates.clone(), None).unwrap();
        let inputs = Inputs {
            config: checked.config,
            listeners: [(ListenerId(0), Listener::default())].into(),
            own: Arc::default(),
            certificates,
            policies: [(None, Ok(Arc::new(policy)))].into(),
            client_configs: BTreeMap::new(),
            transport_configs: BTreeMap::new(),
            addresses: BTreeMap::new(),
            restored: BTreeMap::new(),
            identity: Some(self.identity()),
            denied: Default::default(),
        };
        let metrics = Metrics::new();
        let first = compile(&inputs, None, &metrics);
        let snapshot = update(&inputs, &first, &web(sidecar), &metrics);

        let written = Written::default();
        let log = AccessLog::start(LogFormat::Json, Box::new(written.clone()));
        let sessions = Sessions::new(log.clone(), metrics);
        let cell = Arc::new(ArcSwap::from_pointee(snapshot));
        let proxy = Proxy::new(Arc::clone(&cell), sessions);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let (tcp, from) = listener.accept().await.unwrap();
            let accepted = Accepted::Tcp(tcp, from);
            let at = (ListenerId(0), address.into());
            proxy.handle(accepted, at, proxy.snapshot()).await;
        });

        let tcp = TcpStream::connect(address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(edge.client(&[&TLS13])));
        let name = ServerName::try_from(NAME).unwrap();
        let mut stream = connector.connect(name, tcp).await.unwrap();
        let mut heard = vec![0; client.banner.len()];
        let _ = stream.read_exact(&mut heard).await;
        // It may be over already.
        let _ = stream.write_all(client.says).await;
        let _ = stream.flush().await;
        if client.ends {
            let _ = stream.shutdown().await;
        }
        let _ = stream.read_to_end(&mut heard).await;
        drop(stream);
        serving.await.unwrap();
        log.flush();
        let mut record: Value = serde_json::from_slice(&written.0.lock().unwrap()).unwrap();
        // What the next connection would find.
        let snapshot = cell.load();
        let upstream = snapshot.upstream("web@consul").unwrap();
        let mut states = upstream.states();
        record["is_passed_over"] = states
            .any(|(_, state)| state.out(Instant::now()).is_some())
            .into();
        (heard, record)
    }
}

/// What a client does: it waits for the banner, speaks, and perhaps ends its side before it reads on.
#[derive(Clone, Copy, Default)]
struct Visit {
    banner: &'static [u8],
    says: &'static [u8],
    ends: bool,
}

const SPEAKS: Visit = Visit {
    banner: b"",
    says: b"hello",
    ends: false,
};

/// The service `web` of the mesh, whose one sidecar listens there.
fn web(sidecar: SocketAddr) -> BTreeMap<ServiceKey, Option<Arc<Service>>> {
    let key = ServiceKey {
        place: None,
        source: Source::Consul,
        name: "web".into(),
    };
    let service = Service {
        key: key.clone(),
        upstreams: vec![ServiceUpstream {
            dialling: Ok(Default::default()),
            name: "web@consul".into(),
            endpoints: vec![Endpoint {
                address: sidecar,
                configured: sidecar.to_string().into(),
                weight: 1,
            }],
            named: Vec::new(),
            mesh: Some(MeshService {
                partition: None,
                namespace: "default".into(),
                datacenter: "dc1".into(),
                service: "web".into(),
            }),
            empty: None,
            check: None,
        }],
        routes: vec![ServiceRoute {
            name: "web@consul".into(),
            rule: Rule::parse(&format!("HostSNI(`{NAME}`)")).unwrap(),
            priority: None,
            tls: ServiceTls::Terminate(None),
            upstream: "web@consul".into(),
            broken: None,
            middlewares: Vec::new(),
            mesh: false,
            warnings: Vec::new(),
        }],
        middlewares: BTreeMap::new(),
        skipped: Vec::new(),
        restored: None,
        notes: Vec::new(),
    };
    [(key, Some(Arc::new(service)))].into()
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// As Envoy does where an intention denies: the banner comes through, and the first byte is the end.
async fn deny(mut stream: TlsStream<TcpStream>, banner: &[u8]) {
    let _ = stream.write_all(banner).await;
    let _ = stream.flush().await;
    let _ = stream.read_u8().await;
    let _ = stream.shutdown().await;
}

#[tokio::test]
async fn a_sidecar_that_proves_who_it_is_is_used() {
    let mesh = Mesh::new();
    let sidecar = Upstream::tls(mesh.leaf("web").server(&[&TLS13]), echo).await;
    let client = Visit {
        ends: true,
        ..SPEAKS
    };
    let (heard, record) = mesh.visit(sidecar.address, client).await;
    assert_eq!(heard, b"hello");
    assert_eq!(record["reason"], "closed", "{record}");
    assert_eq!(record["is_passed_over"], false, "{record}");
}

#[tokio::test]
async fn a_sidecar_that_is_not_who_it_should_be_gets_no_byte_and_is_no_intention() {
    let mesh = Mesh::new();
    let mut expired = Mesh::params("web");
    expired.not_before = rcgen::date_time_ymd(2020, 1, 1);
    expired.not_after = rcgen::date_time_ymd(2021, 1, 1);
    for (leaf, what) in [
        (mesh.leaf("db"), "another service"),
        (mesh.ca.sign(expired), "one whose time is over"),
        (Mesh::new().leaf("web"), "one of another mesh"),
        (mesh.ca.issue(&["web"]), "one without an ID"),
    ] {
        let sidecar = Upstream::tls(leaf.server(&[&TLS13]), echo).await;
        let (heard, record) = mesh.visit(sidecar.address, SPEAKS).await;
        assert_eq!(record["reason"], "upstream_identity", "{what}: {record}");
        assert_eq!(record["fault"], "upstream");
        assert_eq!((heard.len(), &record["bytes_up"]), (0, &Value::from(0)));
        let detail = record["detail"].as_str().unwrap();
        assert!(!detail.contains("intention"), "{detail}");
    }
}

#[tokio::test]
async fn a_sidecar_that_speaks_plainly_is_a_failure_of_tls_and_no_intention() {
    let plain = Upstream::greeter("plain words").await;
    let (heard, record) = Mesh::new().visit(plain.address, SPEAKS).await;
    assert_eq!(record["reason"], "upstream_tls", "{record}");
    assert_eq!((heard.len(), &record["bytes_up"]), (0, &Value::from(0)));
    let detail = record["detail"].as_str().unwrap();
    assert!(!detail.contains("intention"), "{detail}");
}

#[tokio::test]
async fn a_sidecar_that_refuses_us_within_tls_is_a_failure_of_tls_with_a_hint() {
    let mesh = Mesh::new();
    for version in [&TLS12, &TLS13] {
        // It believes another CA, and says so by an alert: under TLS 1.3 after we have finished.
        let strangers = Arc::new(Authority::new().roots());
        let provider = portcullis::tls::provider();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(strangers, Arc::clone(&provider));
        let leaf = mesh.leaf("web");
        let key = PrivateKeyDer::try_from(leaf.key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![leaf.certificate.der().clone()], key);
        let sidecar = Upstream::tls(Arc::new(config.unwrap()), echo).await;
        // A client that says nothing: the alert comes before any byte goes up.
        let (_, record) = mesh.visit(sidecar.address, Visit::default()).await;
        assert_eq!(record["reason"], "upstream_tls", "{version:?}: {record}");
        assert_eq!(record["is_passed_over"], true, "{version:?}: {record}");
        let detail = record["detail"].as_str().unwrap();
        assert!(
            detail.contains("alert") && detail.contains(HINT),
            "{detail}"
        );
    }
    // One that closes in the middle of the handshake.
    let closes = Upstream::tcp(|mut tcp| async move {
        let _ = tcp.read(&mut [0; 4096]).await;
        let _ = tcp.shutdown().await;
    })
    .await;
    let (_, record) = mesh.visit(closes.address, SPEAKS).await;
    assert_eq!(record["reason"], "upstream_tls", "{record}");
    let detail = record["detail"].as_str().unwrap();
    assert!(detail.contains(HINT), "{detail}");
}

#[tokio::test]
async fn a_banner_and_an_end_at_the_first_byte_may_be_an_intention() {
    let mesh = Mesh::new();
    for banner in ["SSH-2.0-OpenSSH_9.6\r\n", ""] {
        let denying = Upstream::tls(mesh.leaf("web").server(&[&TLS13]), move |stream| {
            deny(stream, banner.as_bytes())
        })
        .await;
        let client = Visit {
            banner: banner.as_bytes(),
            ..SPEAKS
        };
        let (heard, record) = mesh.visit(denying.address, client).await;
        assert_eq!(heard, banner.as_bytes());
        assert_eq!(record["reason"], "possible_intention_denial", "{record}");
        assert_eq!(record["fault"], "upstream");
        let detail = record["detail"].as_str().unwrap();
        assert!(detail.contains(HINT), "{detail}");
    }
}

/// A client that speaks at once, as ssh does, may be heard before the banner has come through.
#[tokio::test]
async fn a_banner_that_passes_after_the_clients_first_byte_is_no_answer() {
    let mesh = Mesh::new();
    let late = Upstream::tls(
        mesh.leaf("web").server(&[&TLS13]),
        |mut stream| async move {
            let _ = stream.read_u8().await;
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n").await;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        },
    )
    .await;
    let (heard, record) = mesh.visit(late.address, SPEAKS).await;
    assert_eq!(heard, b"SSH-2.0-OpenSSH_9.6\r\n");
    assert_eq!(record["reason"], "possible_intention_denial", "{record}");

    // With the beginning of a key exchange it is one.
    let longer = Upstream::tls(
        mesh.leaf("web").server(&[&TLS13]),
        |mut stream| async move {
            let _ = stream.read_u8().await;
            let mut all = b"SSH-2.0-OpenSSH_9.6\r\n".to_vec();
            all.resize(1000, 0);
            let _ = stream.write_all(&all).await;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        },
    )
    .await;
    let (_, record) = mesh.visit(longer.address, SPEAKS).await;
    assert_eq!(record["reason"], "closed", "{record}");
}

#[tokio::test]
async fn an_upstream_that_answers_and_one_whose_client_ends_first_are_no_intention() {
    let mesh = Mesh::new();
    // It answers the first byte with one of its own, and ends.
    let answering = Upstream::tls(
        mesh.leaf("web").server(&[&TLS13]),
        |mut stream| async move {
            let _ = stream.read_u8().await;
            let _ = stream.write_all(b"!").await;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        },
    )
    .await;
    let (heard, record) = mesh.visit(answering.address, SPEAKS).await;
    assert_eq!(heard, b"!");
    assert_eq!(record["reason"], "closed", "{record}");

    // It takes all, says nothing, and ends when its client has.
    let silent = Upstream::tls(
        mesh.leaf("web").server(&[&TLS13]),
        |mut stream| async move {
            let _ = stream.read_to_end(&mut Vec::new()).await;
            let _ = stream.shutdown().await;
        },
    )
    .await;
    let client = Visit {
        ends: true,
        ..SPEAKS
    };
    let (_, record) = mesh.visit(silent.address, client).await;
    assert_eq!(record["reason"], "closed", "{record}");
}
