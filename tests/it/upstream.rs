//! Upstreams that do one thing, each on a port of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use portcullis::net::proxy_header::Header;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A server in the test's own process; dropped, it accepts no more.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Upstream {
    /// Serves every connection with `serve`.
    pub(crate) async fn tcp<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), serve)
    }

    /// Serves those who come to this listener.
    pub(crate) fn on<F>(
        listener: TcpListener,
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                tcp.set_nodelay(true).unwrap();
                tokio::spawn(serve(tcp));
            }
        });
        Self { address, accepting }
    }

    /// Serves every connection with `serve` after a TLS handshake; those whose handshake fails are dropped.
    pub(crate) async fn tls<F>(
        config: Arc<ServerConfig>,
        serve: impl Fn(tokio_rustls::server::TlsStream<TcpStream>) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let acceptor = TlsAcceptor::from(config);
        Self::tcp(move |tcp| {
            let (acceptor, serve) = (acceptor.clone(), serve.clone());
            async move {
                if let Ok(stream) = acceptor.accept(tcp).await {
                    serve(stream).await;
                }
            }
        })
        .await
    }

    /// Sends back what comes, and ends when the client has.
    pub(crate) async fn echo() -> Self {
        Self::tcp(echo).await
    }

    /// Says `name` and ends.
    pub(crate) async fn greeter(name: &'static str) -> Self {
        Self::tcp(move |mut tcp| async move {
            let _ = tcp.write_all(name.as_bytes()).await;
            let _ = tcp.shutdown().await;
            let _ = tcp.read_to_end(&mut Vec::new()).await;
        })
        .await
    }

    /// Says in a line which PROXY header came and of whom it tells (`v1 127.0.0.1:4711`, `nothing`) to a client that says
    /// `word`, and ends when the client has.
    pub(crate) async fn told() -> Self {
        Self::tcp(|mut tcp| async move {
            let mut all = Vec::new();
            while !all.ends_with(b"word") {
                // Consul looks whether somebody is there, and says nothing.
                if tcp.read_buf(&mut all).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let header = Header::parse(&all).unwrap_or(None);
            let source = header.and_then(|(header, _)| header.addresses);
            let said = match (source, all.starts_with(b"PROXY ")) {
                (None, _) => "nothing\n".to_owned(),
                (Some(told), true) => format!("v1 {}\n", told.source),
                (Some(told), false) => format!("v2 {}\n", told.source),
            };
            let _ = tcp.write_all(said.as_bytes()).await;
            let _ = tcp.read_to_end(&mut Vec::new()).await;
        })
        .await
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Sends back what comes, and ends when the other side has.
pub(crate) async fn echo<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(n) => {
                if stream.write_all(&buffer[..n]).await.is_err() || stream.flush().await.is_err() {
                    break;
                }
            }
        }
    }
    let _ = stream.shutdown().await;
}
