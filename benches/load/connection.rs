//! How the client opens a connection, speaks on it and ends it.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::server::ECHO;
use crate::tls::{self, Exchange, MESHED, PASSED, Proof, TERMINATED};

/// Longer than anything takes that works.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How many connections are opened at once, where that is not what is measured.
pub(crate) const AT_ONCE: usize = 64;

/// Whom to connect to, and how.
#[derive(Clone, clap::Args)]
pub(crate) struct To {
    /// Where to connect
    #[arg(long)]
    address: SocketAddr,
    /// How to speak there
    #[arg(long)]
    speak: Speak,
    /// The key exchange of the hello
    #[arg(long, default_value = "x25519")]
    exchange: Exchange,
    /// The folder with edge.pem
    #[arg(long)]
    certificate: PathBuf,
}

/// How a connection begins.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Speak {
    /// With a TLS handshake.
    Tls,
    /// With a TLS handshake, for the route whose upstream is a service of a mesh.
    Mesh,
    /// With the bytes of a hello, and in clear from then on: a relay that passes TLS through sees no difference.
    Raw,
}

/// How to open connections.
pub(crate) struct Load {
    address: SocketAddr,
    speak: Speak,
    config: Arc<ClientConfig>,
    hello: Vec<u8>,
}

impl Load {
    pub(crate) fn new(to: &To, proof: Proof) -> anyhow::Result<Rc<Self>> {
        let config = tls::client(&to.certificate, to.exchange, proof)?;
        Ok(Rc::new(Self {
            address: to.address,
            speak: to.speak,
            hello: tls::hello(&config, PASSED)?,
            config,
        }))
    }

    /// A connection on which the first bytes have been sent.
    pub(crate) async fn open(&self, first: &[u8]) -> anyhow::Result<Connection> {
        let mut tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        match self.speak {
            Speak::Raw => {
                tcp.write_all(&[&self.hello, first].concat()).await?;
                Ok(Connection::Raw(tcp))
            }
            Speak::Tls | Speak::Mesh => {
                let connector = TlsConnector::from(Arc::clone(&self.config));
                let name = match self.speak {
                    Speak::Mesh => MESHED,
                    _ => TERMINATED,
                };
                let name = ServerName::try_from(name)?;
                let mut stream = connector.connect(name, tcp).await?;
                stream.write_all(first).await?;
                stream.flush().await?;
                Ok(Connection::Tls(Box::new(stream)))
            }
        }
    }

    /// Where it connects.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The bytes of a hello.
    pub(crate) fn hello(&self) -> &[u8] {
        &self.hello
    }

    /// A connection from its beginning to its end.
    pub(crate) async fn once(&self) -> anyhow::Result<()> {
        let mut connection = self.open(&[ECHO, b'.']).await?;
        connection.hear().await?;
        // And is gone, as clients are who have what they came for.
        connection.end().await?;
        Ok(())
    }

    /// This many, on each of which a byte has come back.
    pub(crate) async fn open_many(
        self: &Rc<Self>,
        count: usize,
    ) -> anyhow::Result<Vec<Connection>> {
        let opened = Rc::new(RefCell::new(Vec::with_capacity(count)));
        let left = Rc::new(Cell::new(count));
        let openers = (0..AT_ONCE).map(|_| {
            let (load, opened, left) = (Rc::clone(self), Rc::clone(&opened), Rc::clone(&left));
            spawn_local(async move {
                while left.get() > 0 {
                    left.set(left.get() - 1);
                    let mut connection = timeout(PATIENCE, load.open(&[ECHO, b'.'])).await??;
                    timeout(PATIENCE, connection.hear()).await??;
                    opened.borrow_mut().push(connection);
                }
                anyhow::Ok(())
            })
        });
        for opener in openers.collect::<Vec<_>>() {
            opener.await??;
        }
        Ok(opened.take())
    }
}

pub(crate) enum Connection {
    Raw(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// Sends one byte and waits for it.
    pub(crate) async fn ask(&mut self) -> io::Result<()> {
        self.send(b".").await?;
        self.hear().await
    }

    /// Waits for the byte that was sent.
    pub(crate) async fn hear(&mut self) -> io::Result<()> {
        let mut byte = [0];
        self.receive(&mut byte).await?;
        if byte == *b"." {
            Ok(())
        } else {
            Err(io::Error::other("another byte came back"))
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Raw(tcp) => tcp.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    /// Fills the buffer.
    pub(crate) async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Raw(tcp) => tcp.read_exact(buffer).await?,
            Self::Tls(stream) => stream.read_exact(buffer).await?,
        };
        Ok(())
    }

    /// Sends what fits, and tells how much that was.
    pub(crate) async fn send_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Raw(tcp) => tcp.write(bytes).await,
            Self::Tls(stream) => stream.write(bytes).await,
        }
    }

    /// All that comes until the other side ends.
    pub(crate) async fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        let ended = match self {
            Self::Raw(tcp) => tcp.read_to_end(&mut rest).await,
            Self::Tls(stream) => stream.read_to_end(&mut rest).await,
        };
        match ended {
            // Not every peer says by close_notify that it ends.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(rest),
            ended => ended.map(|_| rest),
        }
    }

    /// Ends this side, and hears the other out.
    pub(crate) async fn close(mut self) -> io::Result<Vec<u8>> {
        self.end().await?;
        self.rest().await
    }

    async fn end(&mut self) -> io::Result<()> {
        match self {
            Self::Raw(tcp) => tcp.shutdown().await,
            Self::Tls(stream) => stream.shutdown().await,
        }
    }

    pub(crate) fn into_tcp(self) -> TcpStream {
        match self {
            Self::Raw(tcp) => tcp,
            Self::Tls(stream) => stream.into_inner().0,
        }
    }
}
