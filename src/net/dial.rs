//! Dialling one endpoint: TCP, then TLS where the upstream asks for it, under one deadline.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::SendFlags;
use rustls::{AlertDescription, ClientConfig};
use rustls_pki_types::ServerName;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};

use super::promised::{self, Promised};
use super::{Stream, set_options};
use crate::config::{self, Keepalive};
use crate::tls::options::PORTCULLIS;
use crate::tls::{self, HandshakeError};

/// How to dial.
#[derive(Clone, Debug)]
pub struct Dial {
    /// TLS after TCP: what verifies the upstream, and the name it must prove.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// For all of it together; [`config::Timing::ENDLESS`] is no limit.
    pub timeout: Duration,
    /// For the new socket.
    pub keepalive: Keepalive,
    /// Whether bytes are there that go up at once. TLS has some always.
    pub sends_first: bool,
    /// What goes before everything else.
    pub proxy_header: Option<ProxyHeader>,
}

/// A header of the PROXY protocol, and its place.
#[derive(Clone, Debug)]
pub struct ProxyHeader {
    /// The header.
    pub bytes: Vec<u8>,
    /// Whether it is the first thing inside TLS, where there is TLS.
    pub inside_tls: bool,
}

/// Why an endpoint could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// TCP was refused, or no way leads there.
    #[error("{0}")]
    Tcp(io::Error),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// TCP, but no TLS in time.
    #[error("it took the connection, but no TLS handshake within {0:?}")]
    HandshakeTimeout(Duration),
    /// TLS failed, or the upstream did not prove who it is.
    #[error("tls: {0}")]
    Tls(HandshakeError),
}

impl Dial {
    /// Dials one endpoint.
    pub async fn connect(&self, address: SocketAddr) -> Result<Stream, DialError> {
        let deadline = Instant::now() + self.timeout;
        match (self.once(address, deadline).await, self.without_status()) {
            (Err(error), Some(plain)) if is_no_protocol(&error) => {
                plain.once(address, deadline).await
            }
            (dialled, _) => dialled,
        }
    }

    /// The same for who does not know the status of our gateways, and no other protocol is asked for: whoever goes by ALPN strictly
    /// refuses one that he does not know.
    fn without_status(&self) -> Option<Self> {
        let (config, name) = self.tls.as_ref()?;
        if config.alpn_protocols != [PORTCULLIS] {
            return None;
        }
        let mut config = ClientConfig::clone(config);
        config.alpn_protocols.clear();
        Some(Self {
            tls: Some((Arc::new(config), name.clone())),
            ..self.clone()
        })
    }

    async fn once(&self, address: SocketAddr, deadline: Instant) -> Result<Stream, DialError> {
        let opened = timeout_at(deadline, self.open(address)).await;
        let opened = opened.map_err(|_| DialError::Timeout(self.timeout))?;
        let tcp = opened.map_err(DialError::Tcp)?;
        let begun = timeout_at(deadline, self.begin(tcp)).await;
        begun.map_err(|_| match self.tls {
            Some(_) => DialError::HandshakeTimeout(self.timeout),
            None => DialError::Timeout(self.timeout),
        })?
    }

    /// What is said before the first byte that is relayed.
    async fn begin(&self, tcp: TcpStream) -> Result<Stream, DialError> {
        let is_inside = |header: &&ProxyHeader| header.inside_tls && self.tls.is_some();
        let (inside, outside) = match self.proxy_header.as_ref() {
            Some(header) if is_inside(&header) => (Some(header), None),
            header => (None, header),
        };
        if let Some(header) = outside {
            let more = self.sends_first || self.tls.is_some();
            let sent = send(&tcp, &header.bytes, more).await;
            sent.map_err(DialError::Tcp)?;
        }
        let Some((config, name)) = &self.tls else {
            return Ok(Stream::Tcp(tcp));
        };
        let stream = tls::Stream::connect(tcp, Arc::clone(config), name.clone()).await;
        let mut stream = stream.map_err(|failed| DialError::Tls(failed.error))?;
        if let Some(header) = inside {
            let sent = send_inside(&mut stream, &header.bytes).await;
            sent.map_err(|error| DialError::Tls(error.into()))?;
        }
        Ok(match stream.agreed().alpn_protocol() {
            Some(PORTCULLIS) => {
                let patience = self.timeout.max(promised::PATIENCE);
                Stream::Promised(Box::new(Promised::new(stream, patience)))
            }
            _ => Stream::Tls(stream),
        })
    }

    async fn open(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        set_options(SockRef::from(&socket), &self.keepalive)?;
        // The first bytes carry the last acknowledgement of TCP's handshake (RFC 9293 §3.5): one segment less.
        #[cfg(target_os = "linux")]
        if self.sends_first || self.tls.is_some() || self.proxy_header.is_some() {
            SockRef::from(&socket).set_tcp_quickack(false)?;
        }
        socket.connect(address).await
    }
}

/// RFC 7301 §3.2.
fn is_no_protocol(error: &DialError) -> bool {
    let alert = rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
    matches!(error, DialError::Tls(HandshakeError::Tls(error)) if *error == alert)
}

/// Sends bytes; the kernel lets them wait for those that follow at once, if there are `more`, so that all go in one segment.
async fn send(tcp: &TcpStream, mut bytes: &[u8], more: bool) -> io::Result<()> {
    let mut flags = SendFlags::NOSIGNAL;
    #[cfg(target_os = "linux")]
    flags.set(SendFlags::MORE, more);
    #[cfg(not(target_os = "linux"))]
    let _ = more;
    while !bytes.is_empty() {
        let write = || Ok(rustix::net::send(tcp, bytes, flags)?);
        let sent = tcp.async_io(Interest::WRITABLE, write).await?;
        bytes = bytes.get(sent..).unwrap_or_default();
    }
    Ok(())
}

/// The first bytes inside TLS; they go in one segment with the last of the handshake.
async fn send_inside(stream: &mut tls::Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let taken = poll_fn(|cx| stream.poll_write(cx, bytes)).await?;
        bytes = bytes.get(taken..).unwrap_or_default();
    }
    poll_fn(|cx| stream.poll_flush(cx)).await
}

/// Whether dialling an address would end at this one of ours: every connection there would come back, and dial again.
///
/// To be asked at each dial: names move, and so do a machine's addresses.
pub fn reaches(dialled: SocketAddr, ours: SocketAddr) -> bool {
    let all = ours.ip().to_canonical();
    let same_family = all.is_ipv6() || dialled.ip().to_canonical().is_ipv4();
    config::reaches(dialled, ours)
        || (all.is_unspecified() && same_family && dialled.port() == ours.port())
            && is_of_this_machine(dialled)
}

/// Whether an address is one of this machine's: to its own it goes from that address. A datagram socket tells where it would go from, and sends
/// nothing.
pub fn is_of_this_machine(address: SocketAddr) -> bool {
    let any = match address {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let from = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(address)?;
        socket.local_addr()
    });
    from.is_ok_and(|from| from.ip() == address.ip())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_on_every_address_is_reached_by_each_of_this_machine_and_by_no_other() {
        let elsewhere: SocketAddr = "192.0.2.1:8443".parse().unwrap();
        let own = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
            socket.connect(elsewhere)?;
            Ok(SocketAddr::new(socket.local_addr()?.ip(), 8443))
        });
        for all in ["0.0.0.0:8443", "[::]:8443"] {
            let all = all.parse().unwrap();
            assert!(reaches("127.0.0.1:8443".parse().unwrap(), all));
            // Without a network there is none.
            if let Ok(own) = own {
                assert!(reaches(own, all), "{own}");
                assert!(!reaches(SocketAddr::new(own.ip(), 8444), all), "{own}");
                assert!(!reaches(own, "127.0.0.1:8443".parse().unwrap()), "{own}");
            }
            assert!(!reaches("192.0.2.77:8443".parse().unwrap(), all));
        }
    }

    #[tokio::test]
    async fn a_dialled_socket_does_not_delay_small_writes_and_notices_a_peer_that_vanished() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dial = Dial {
            tls: None,
            timeout: Duration::from_secs(30),
            sends_first: false,
            proxy_header: None,
            keepalive: Keepalive {
                idle: Duration::from_secs(77),
                interval: Duration::from_secs(7),
                count: 3,
            },
        };
        let upstream = dial.connect(listener.local_addr().unwrap()).await.unwrap();
        let tcp = crate::net::relay::Socket::into_tcp(upstream);
        let socket = SockRef::from(&tcp);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(
            socket.tcp_keepalive_time().unwrap(),
            Duration::from_secs(77)
        );
        assert_eq!(
            socket.tcp_keepalive_interval().unwrap(),
            Duration::from_secs(7)
        );
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
    }
}
