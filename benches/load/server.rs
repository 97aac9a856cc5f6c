//! What answers the client: an upstream, and the plainest relays to it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::tls;

/// The client's first byte: send back all that follows.
pub(crate) const ECHO: u8 = b'e';
/// The client's first byte: send until the connection breaks.
pub(crate) const SOURCE: u8 = b's';
/// The client's first byte: take all that follows and throw it away.
pub(crate) const SINK: u8 = b'k';
/// The client's first byte: say which of the listeners has it, and end.
pub(crate) const NAME: u8 = b'n';

/// Listens four times: `plain` for the client's bytes, `tls` for the same under TLS, `raw` for a hello as mere bytes in front,
/// `mesh` for a gateway that shows who it is.
#[derive(clap::Args)]
pub(crate) struct Serve {
    /// The folder with the certificates
    #[arg(long)]
    certificate: PathBuf,
}

impl Serve {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let acceptor = TlsAcceptor::from(tls::server(&self.certificate)?);
        listen("plain", async |tcp| serve(tcp, "plain").await).await?;
        listen("tls", move |tcp| {
            let acceptor = acceptor.clone();
            async move { serve(acceptor.accept(tcp).await?, "tls").await }
        })
        .await?;
        listen("raw", async |mut tcp| {
            skip_hello(&mut tcp).await?;
            serve(tcp, "raw").await
        })
        .await?;
        let acceptor = TlsAcceptor::from(tls::service(&self.certificate)?);
        listen("mesh", move |tcp| {
            let acceptor = acceptor.clone();
            async move { serve(acceptor.accept(tcp).await?, "mesh").await }
        })
        .await?;
        std::future::pending().await
    }
}

/// Listens three times: `raw` moves bytes to an upstream, `tls` ends TLS first, `mesh` opens mutual TLS besides. Nothing else
/// is checked, and nothing counted or limited.
#[derive(clap::Args)]
pub(crate) struct Relay {
    /// The folder with the certificates
    #[arg(long)]
    certificate: PathBuf,
    /// Where `raw` goes
    #[arg(long)]
    raw: SocketAddr,
    /// Where `tls` goes
    #[arg(long)]
    plain: SocketAddr,
    /// Where `mesh` goes
    #[arg(long)]
    mesh: SocketAddr,
}

impl Relay {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let acceptor = TlsAcceptor::from(tls::server(&self.certificate)?);
        let (raw, plain, mesh) = (self.raw, self.plain, self.mesh);
        listen("raw", move |tcp| async move {
            relay(tcp, dial(raw).await?).await
        })
        .await?;
        let ends = acceptor.clone();
        listen("tls", move |tcp| {
            let acceptor = ends.clone();
            async move { relay(acceptor.accept(tcp).await?, dial(plain).await?).await }
        })
        .await?;
        let (config, name) = tls::mesh(&self.certificate)?;
        let connector = TlsConnector::from(config);
        listen("mesh", move |tcp| {
            let (acceptor, connector, name) = (acceptor.clone(), connector.clone(), name.clone());
            async move {
                let client = acceptor.accept(tcp).await?;
                relay(client, connector.connect(name, dial(mesh).await?).await?).await
            }
        })
        .await?;
        std::future::pending().await
    }
}

async fn dial(upstream: SocketAddr) -> io::Result<TcpStream> {
    let upstream = TcpStream::connect(upstream).await?;
    upstream.set_nodelay(true)?;
    Ok(upstream)
}

async fn relay<C, U>(mut client: C, mut upstream: U) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    copy_bidirectional(&mut client, &mut upstream).await?;
    Ok(())
}

/// Serves on a port of its own, and says which.
async fn listen<F>(what: &str, serve: impl Fn(TcpStream) -> F + 'static) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{what} {}", listener.local_addr()?);
    tokio::task::spawn_local(async move {
        loop {
            let Ok((tcp, _)) = listener.accept().await else {
                continue;
            };
            let _ = tcp.set_nodelay(true);
            // A client that breaks off is how a measurement ends.
            tokio::task::spawn_local(serve(tcp));
        }
    });
    Ok(())
}

async fn serve<S>(mut stream: S, name: &str) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match stream.read_u8().await? {
        ECHO => {
            // An idle connection holds a small buffer only: the memory of a bare server is measured too.
            let mut buffer = [0; 64];
            loop {
                let n = stream.read(&mut buffer).await?;
                let Some(bytes) = buffer.get(..n).filter(|bytes| !bytes.is_empty()) else {
                    return stream.shutdown().await;
                };
                stream.write_all(bytes).await?;
                stream.flush().await?;
            }
        }
        SOURCE => {
            static BYTES: [u8; 256 * 1024] = [b'.'; 256 * 1024];
            loop {
                stream.write_all(&BYTES).await?;
            }
        }
        SINK => {
            let mut buffer = vec![0; 256 * 1024];
            while stream.read(&mut buffer).await? > 0 {}
            stream.shutdown().await
        }
        NAME => {
            stream.write_all(name.as_bytes()).await?;
            stream.shutdown().await
        }
        other => Err(io::Error::other(format!("{other} is no command"))),
    }
}

/// A hello is one TLS record here: five bytes, of which the last two tell its length (RFC 8446 §5.1).
async fn skip_hello(tcp: &mut TcpStream) -> io::Result<()> {
    let mut head = [0; 5];
    tcp.read_exact(&mut head).await?;
    let mut hello = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    tcp.read_exact(&mut hello).await?;
    Ok(())
}
