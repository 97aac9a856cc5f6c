//! A gateway's admin interface, asked over HTTP as an operator does.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::config::ListenAddress;

/// The largest answer, in bytes. 512 MiB: 100,000 routes, each with its rule and some endpoints, are a fifth of that.
const LARGEST: usize = 512 * 1024 * 1024;

/// Where a gateway's operators ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operators {
    /// `HOST:PORT`; HTTP without TLS.
    Tcp(String),
    /// The path of a UNIX socket.
    Unix(PathBuf),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("cannot be reached: {0}")]
    Unreachable(io::Error),
    #[error("does not answer as a gateway: {0}")]
    Http(#[from] hyper::Error),
    #[error("answers with the status {0}")]
    Status(hyper::StatusCode),
    #[error("does not answer as a gateway: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("does not answer within {0:?}")]
    Timeout(Duration),
}

impl AskError {
    /// Whether nobody listens there.
    pub(super) fn is_nobody(&self) -> bool {
        let none = [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotFound];
        matches!(self, Self::Unreachable(error) if none.contains(&error.kind()))
    }
}

impl From<&ListenAddress> for Operators {
    fn from(address: &ListenAddress) -> Self {
        match address {
            ListenAddress::Tcp(address) => Self::Tcp(address.to_string()),
            ListenAddress::Unix(path) => Self::Unix(path.clone()),
        }
    }
}

/// As in the configuration, or as a browser has it.
impl FromStr for Operators {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path.is_empty() {
                true => {
                    Err("the path of the socket is missing, as in unix:/run/portcullis/admin.sock")
                }
                false => Ok(Self::Unix(path.into())),
            };
        }
        let host = text.strip_prefix("http://").unwrap_or(text);
        let host = host.strip_suffix('/').unwrap_or(host);
        let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
        match host.rsplit_once(':') {
            Some((name, port)) if !name.is_empty() && is_port(port) && !host.contains('/') => {
                Ok(Self::Tcp(host.to_owned()))
            }
            _ => Err("write unix:/PATH or http://HOST:PORT, such as http://127.0.0.1:9443"),
        }
    }
}

impl fmt::Display for Operators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host) => f.write_str(host),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Operators {
    /// What a GET answers; of `/readyz` whatever its status is.
    pub(super) async fn get(&self, path: &str, patience: Duration) -> Result<Vec<u8>, AskError> {
        let asked = async {
            match self {
                Self::Tcp(host) => {
                    let tcp = TcpStream::connect(host).await;
                    exchange(tcp.map_err(AskError::Unreachable)?, host, path).await
                }
                Self::Unix(socket) => {
                    let unix = UnixStream::connect(socket).await;
                    exchange(unix.map_err(AskError::Unreachable)?, "localhost", path).await
                }
            }
        };
        let late = |_| AskError::Timeout(patience);
        timeout(patience, asked).await.map_err(late)?
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
    path: &str,
) -> Result<Vec<u8>, AskError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let request = request.map_err(|error| AskError::Body(error.into()))?;
    let answer = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        if !status.is_success() && path != "/readyz" {
            return Err(AskError::Status(status));
        }
        let body = Limited::new(answer.into_body(), LARGEST).collect().await;
        Ok(body.map_err(AskError::Body)?.to_bytes().to_vec())
    };
    // The connection carries the answer; by itself it ends after it.
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => {
            ended?;
            answer.await
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_in_the_configuration_or_as_a_url() {
        for (text, shown) in [
            ("127.0.0.1:9443", "127.0.0.1:9443"),
            ("http://127.0.0.1:9443/", "127.0.0.1:9443"),
            ("http://[::1]:9443", "[::1]:9443"),
            ("localhost:80", "localhost:80"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("unix:///run/a.sock", "unix:/run/a.sock"),
        ] {
            let address: Operators = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
        }
        for wrong in [
            "",
            "unix:",
            "127.0.0.1",
            "https://127.0.0.1:9443",
            "127.0.0.1:0",
            ":9443",
            "http://127.0.0.1:9443/v1/routes",
        ] {
            assert!(wrong.parse::<Operators>().is_err(), "{wrong}");
        }
    }
}
