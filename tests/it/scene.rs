//! A gateway with a route of each kind, and what becomes of a client that says something to it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::{ClientConfig, ClientConnection};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::authority::Authority;
use crate::gateway::{Gateway, answer, exchange};
use crate::upstream::{Upstream, echo};

/// The routes: `open`, `pass`, and behind a client certificate `mutual` and `wild`.
const ROUTES: &str = r#"
[[certificates]]
chain = "open.pem"
key = "open.key"
[[certificates]]
chain = "mutual.pem"
key = "mutual.key"
[[certificates]]
chain = "wild.pem"
key = "wild.key"
[tls.options.mutual]
client_auth = "required"
client_ca = ["ca.pem"]
[routes.open]
host = "open.example.test"
upstream = "echo"
[routes.mutual]
host = "mutual.example.test"
tls_options = "mutual"
upstream = "echo"
[routes.wild]
host = "*.wild.example.test"
tls_options = "mutual"
upstream = "echo"
[routes.pass]
host = "pass.example.test"
passthrough = true
upstream = "echo"
[upstreams.echo]
"#;

/// A gateway, its CA, and an upstream behind every route that echoes and counts.
pub(crate) struct Scene {
    pub(crate) authority: Authority,
    pub(crate) gateway: Gateway,
    /// The certificate of each route that ends TLS.
    pub(crate) certificates: [(&'static str, Vec<u8>); 3],
    dialled: Arc<AtomicUsize>,
    _upstream: Upstream,
}

/// What a client has got, and what was written of it.
pub(crate) struct Told {
    pub(crate) answer: Vec<u8>,
    pub(crate) reset: bool,
    pub(crate) record: Value,
}

impl Scene {
    /// With these keys of the configuration besides the routes.
    pub(crate) async fn with(keys: &str) -> Self {
        let authority = Authority::new();
        let certificates = [
            ("open", "open.example.test"),
            ("mutual", "mutual.example.test"),
            ("wild", "*.wild.example.test"),
        ]
        .map(|(route, name)| {
            let issued = authority.issue_files(route, &[name]);
            (route, issued.certificate.der().to_vec())
        });
        let dialled = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&dialled);
        let upstream = Upstream::tcp(move |tcp| {
            count.fetch_add(1, Ordering::SeqCst);
            echo(tcp)
        })
        .await;
        let endpoints = format!("endpoints = [\"{}\"]\n", upstream.address);
        let gateway = Gateway::start(&authority, &[keys, "\n", ROUTES, &endpoints].concat()).await;
        Self {
            authority,
            gateway,
            certificates,
            dialled,
            _upstream: upstream,
        }
    }

    /// How often the upstream was dialled.
    pub(crate) fn dials(&self) -> usize {
        self.dialled.load(Ordering::SeqCst)
    }

    /// A client says this, and waits for what comes.
    pub(crate) async fn tell(&mut self, bytes: &[u8]) -> Told {
        let tcp = self.gateway.connect().await;
        let (answer, reset) = exchange(tcp, bytes).await;
        self.told(answer, reset).await
    }

    /// A client says this and ends its side, and waits for what comes.
    pub(crate) async fn tell_all(&mut self, bytes: &[u8]) -> Told {
        let mut tcp = self.gateway.connect().await;
        // The gateway may have closed before all is sent.
        let _ = tcp.write_all(bytes).await;
        let _ = tcp.shutdown().await;
        let (answer, reset) = answer(&mut tcp).await;
        self.told(answer, reset).await
    }

    /// A client says this and waits, and is refused with these bytes before it has a route: the upstream hears nothing.
    pub(crate) async fn refuses(&mut self, what: &str, bytes: &[u8], alert: &[u8], reason: &str) {
        let dials = self.dials();
        let told = self.tell(bytes).await;
        assert_eq!(told.answer, alert, "{what}: {}", told.record);
        assert!(!told.reset, "{what}: the alert may be lost");
        assert_eq!(told.record["reason"], reason, "{what}: {}", told.record);
        assert_eq!(told.record["fault"], "client", "{what}");
        assert_eq!(told.record["route"], Value::Null, "{what}");
        assert_eq!(self.dials(), dials, "{what}");
    }

    async fn told(&mut self, answer: Vec<u8>, reset: bool) -> Told {
        let record = self.gateway.ended().await;
        assert!(self.gateway.has_no_more_records(), "one record, not two");
        Told {
            answer,
            reset,
            record,
        }
    }

    /// A client of TLS that shows no certificate.
    pub(crate) fn client(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        Arc::new(self.authority.client(versions))
    }
}

/// Finishes a client's handshake whose hello is sent, says a word, ends its side, and reads to the end.
pub(crate) async fn finish(
    tcp: &mut TcpStream,
    tls: &mut ClientConnection,
    word: &[u8],
) -> io::Result<Vec<u8>> {
    let mut ended = false;
    let mut heard = Vec::new();
    let mut chunk = vec![0; 16 * 1024];
    loop {
        if !tls.is_handshaking() && !ended {
            io::Write::write_all(&mut tls.writer(), word)?;
            tls.send_close_notify();
            ended = true;
        }
        let mut bytes = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut bytes)?;
        }
        tcp.write_all(&bytes).await?;
        let count = tcp.read(&mut chunk).await?;
        let mut rest = &chunk[..count];
        while tls.read_tls(&mut rest)? > 0 {
            let state = tls.process_new_packets().map_err(io::Error::other)?;
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            io::Read::read_exact(&mut tls.reader(), &mut plain)?;
            heard.extend(plain);
            if state.peer_has_closed() {
                return Ok(heard);
            }
        }
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
