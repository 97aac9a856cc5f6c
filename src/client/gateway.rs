//! Where the gateway is: its addresses, and the way to the first of them that answers.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::config::{Keepalive, Timing};
use crate::net::dial::{Dial, DialError};
use crate::net::relay::Socket;

pub use crate::config::{Gateway, GatewayError};

/// How long one address has before the next is tried beside it (RFC 8305 §5, Connection Attempt Delay).
const HEAD_START: Duration = Duration::from_millis(250);

/// An address that could not be connected to.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {error}")]
pub struct Unreachable {
    /// The one that was tried first.
    pub address: SocketAddr,
    /// What it said.
    pub error: DialError,
}

impl Gateway {
    /// Asks the system's resolver, which knows this machine's hosts file, search domains and VPNs.
    /// At least one address; the families alternate (RFC 8305 §4).
    pub async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let found: Vec<_> = tokio::net::lookup_host((self.host.as_str(), self.port))
            .await?
            .collect();
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
        }
        Ok(alternate(found))
    }
}

/// Connects to the first address that answers: each has a head start over the next, one that fails none.
///
/// For ever, if the addresses stay silent: the caller sets the deadline.
pub async fn race(addresses: Vec<SocketAddr>) -> Result<TcpStream, Unreachable> {
    let mut waiting = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut first_failure = None;
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(attempt(address));
        }
        let more = waiting.len() > 0;
        tokio::select! {
            ended = attempts.join_next() => match ended {
                Some(Ok(Ok(tcp))) => return Ok(tcp),
                Some(Ok(Err(failure))) => {
                    first_failure.get_or_insert(failure);
                }
                // A task that ended without a result has nothing to add.
                Some(Err(_)) => {}
                None => return Err(first_failure.unwrap_or_else(no_address)),
            },
            () = tokio::time::sleep(HEAD_START), if more => {}
        }
    }
}

/// Connects to one address; for ever, if it stays silent.
pub(super) async fn attempt(address: SocketAddr) -> Result<TcpStream, Unreachable> {
    let dial = Dial {
        tls: None,
        timeout: Timing::ENDLESS,
        sends_first: false,
        proxy_header: None,
        keepalive: Keepalive::default(),
    };
    match dial.connect(address).await {
        Ok(stream) => Ok(stream.into_tcp()),
        Err(error) => Err(Unreachable { address, error }),
    }
}

fn no_address() -> Unreachable {
    Unreachable {
        address: (Ipv4Addr::UNSPECIFIED, 0).into(),
        error: DialError::Tcp(io::ErrorKind::AddrNotAvailable.into()),
    }
}

/// The resolver's order, with one of the other family after each (RFC 8305 §4), so that a broken one costs one delay.
fn alternate(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut order = Vec::new();
    loop {
        match (first.next(), second.next()) {
            (None, None) => return order,
            pair => order.extend(pair.0.into_iter().chain(pair.1)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn families_alternate_in_the_resolvers_order() {
        let addresses = |list: &[&str]| -> Vec<SocketAddr> {
            list.iter().map(|text| text.parse().unwrap()).collect()
        };
        assert_eq!(
            alternate(addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"])),
            addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"])
        );
        assert_eq!(
            alternate(addresses(&["1.1.1.1:1", "2.2.2.2:1", "[::1]:1"])),
            addresses(&["1.1.1.1:1", "[::1]:1", "2.2.2.2:1"])
        );
    }

    #[tokio::test]
    async fn an_address_that_is_silent_keeps_a_person_a_quarter_of_a_second_and_no_longer() {
        // A listener whose queue is full answers no SYN.
        let full =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        full.bind(&any.into()).unwrap();
        full.listen(0).unwrap();
        let silent = full.local_addr().unwrap().as_socket().unwrap();
        let _taken = std::net::TcpStream::connect(silent).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();

        let began = std::time::Instant::now();
        let tcp = race(vec![silent, silent, open]).await.unwrap();
        let took = began.elapsed();
        assert_eq!(tcp.peer_addr().unwrap(), open);
        assert!(took >= 2 * HEAD_START, "{took:?}");
        // The first SYN is sent again after a second, and in vain.
        assert!(took < 8 * HEAD_START, "{took:?}");
        let socket = socket2::SockRef::from(&tcp);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
    }

    #[tokio::test]
    async fn an_address_that_refuses_gives_way_to_the_next() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let closed = {
            let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            gone.local_addr().unwrap()
        };
        let tcp = race(vec![closed, open]).await.unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), open);
        assert_eq!(race(vec![closed]).await.unwrap_err().address, closed);
    }
}
