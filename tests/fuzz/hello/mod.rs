//! What the hello path promises, whatever a client sends and in whatever pieces.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use portcullis::name::HostName;
use portcullis::proxy::hello::{Hello, HelloError};
use portcullis::tls;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection};
use tokio::net::TcpStream;
use tokio::runtime::{self, Runtime};

/// How large a hello may be, by two bits of the first byte.
const LIMITS: [usize; 4] = [64 << 10, 4096, 300, 1];

thread_local! {
    static RUNTIME: Runtime = runtime::Builder::new_current_thread().enable_io().build().unwrap();
}

/// Sends the input, and panics where a promise is not kept. Of its first byte two bits say how large a hello may be, the
/// others how long each piece is; the rest is what the client says, before it ends its side.
///
/// - the name that the gateway routes by is the one that rustls, which ends TLS, sees in the same bytes;
/// - the bytes that are kept are the first that were sent, and no more than the limit;
/// - the pieces make no other name of it;
/// - what is refused has a reason that can be shown.
pub(crate) fn run(input: &[u8]) {
    let Some((&first, sent)) = input.split_first() else {
        return;
    };
    let limit = LIMITS[usize::from(first >> 6)];
    let piece = 1 + usize::from(first & 63);
    let pieces = said(sent, piece, limit);
    let whole = said(sent, sent.len().max(1), limit);
    if std::env::var_os("PORTCULLIS_TELL").is_some() {
        let told = |said: &Result<Hello, HelloError>| match said {
            Ok(hello) => format!("{:?} {:?}", hello.sni, hello.alpn),
            Err(error) => error.to_string(),
        };
        eprintln!(
            "pieces of {piece}: {}; in one: {}",
            told(&pieces),
            told(&whole)
        );
    }
    if let (Ok(one), Ok(other)) = (&pieces, &whole) {
        assert_eq!(
            (&one.sni, &one.alpn),
            (&other.sni, &other.alpn),
            "in pieces of {piece}"
        );
    }
    for hello in [pieces, whole] {
        match hello {
            Ok(hello) => is_kept(hello, sent, limit),
            Err(error) => assert!(!error.to_string().contains(char::is_control), "{error}"),
        }
    }
}

fn is_kept(hello: Hello, sent: &[u8], limit: usize) {
    let (sni, name) = (hello.sni.clone(), hello.name.clone());
    let bytes = hello.into_bytes();
    assert!(
        bytes.len() <= limit,
        "{} bytes kept of {limit}",
        bytes.len()
    );
    assert!(
        sent.starts_with(&bytes),
        "other bytes are kept than were sent"
    );
    let Some(seen) = ended_with(&bytes) else {
        return;
    };
    assert_eq!(seen, sni, "routed by another name");
    let parsed = seen.as_deref().map(|name| HostName::parse(name).unwrap());
    assert_eq!(parsed, name, "{seen:?} is looked up as another name");
}

/// What the gateway makes of these bytes, in pieces of this length.
fn said(bytes: &[u8], piece: usize, limit: usize) -> Result<Hello, HelloError> {
    // Unlike TCP's, its bytes are there at once; to read it is no different.
    let (near, mut far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
    let near = std::net::TcpStream::from(OwnedFd::from(near));
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let mut near = TcpStream::from_std(near).unwrap();
            let sending = async {
                for piece in bytes.chunks(piece) {
                    // It may be refused, or have no room, long before the end.
                    if !matches!(far.write(piece), Ok(written) if written == piece.len()) {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                drop(far);
            };
            let (said, ()) = tokio::join!(Hello::read(&mut near, Vec::new(), limit), sending);
            said
        })
    })
}

/// The name by which rustls chooses a certificate when it is given these bytes; none if it does not get that far.
fn ended_with(bytes: &[u8]) -> Option<Option<String>> {
    let seen = Arc::new(Seen::default());
    let config = ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(seen.clone());
    let mut server = ServerConnection::new(Arc::new(config)).unwrap();
    let mut rest = bytes;
    while !rest.is_empty() && server.read_tls(&mut rest).is_ok_and(|n| n > 0) {
        if server.process_new_packets().is_err() {
            break;
        }
    }
    seen.0.lock().unwrap().take()
}

/// Has no certificate, and remembers for which name it was asked for one.
#[derive(Debug, Default)]
struct Seen(Mutex<Option<Option<String>>>);

impl ResolvesServerCert for Seen {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_owned);
        self.0.lock().unwrap().get_or_insert(name);
        None
    }
}
