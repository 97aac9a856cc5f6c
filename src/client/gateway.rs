//! Where the gateway is: its address as it is typed, and the way to the first of its addresses that answers.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::config::Keepalive;
use crate::name::HostName;
use crate::net::dial::{Dial, DialError};
use crate::net::relay::Socket;

/// The port of a gateway that is named without one.
const DEFAULT_PORT: u16 = 8443;

/// How long one address has before the next is tried beside it (RFC 8305 §5, Connection Attempt Delay).
const HEAD_START: Duration = Duration::from_millis(250);

/// A gateway's host and port, as in `gate.example.com`, `gate:443` or `[2001:db8::1]:8443`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// A name, or an address without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

/// Why a text does not name a gateway.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; write HOST, HOST:PORT or [IPV6]:PORT")]
pub struct GatewayError(String);

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

impl FromStr for Gateway {
    type Err = GatewayError;

    fn from_str(text: &str) -> Result<Self, GatewayError> {
        let (host, port) = split(text)?;
        if !is_address(host) {
            HostName::parse(host).map_err(|error| GatewayError(error.to_string()))?;
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| GatewayError(format!("{digits:?} is no port")))?,
        };
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
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

async fn attempt(address: SocketAddr) -> Result<TcpStream, Unreachable> {
    let dial = Dial {
        tls: None,
        timeout: Duration::MAX,
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

/// Host and port, if there is one. An address of IPv6 needs brackets only before a port.
fn split(text: &str) -> Result<(&str, Option<&str>), GatewayError> {
    let Some(rest) = text.strip_prefix('[') else {
        return Ok(match text.rsplit_once(':') {
            Some(_) if is_address(text) => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        });
    };
    let no_address = || GatewayError(format!("{text:?} has no IPv6 address in its brackets"));
    let (host, after) = rest.split_once(']').ok_or_else(no_address)?;
    if !host.contains(':') || !is_address(host) {
        return Err(no_address());
    }
    match (after, after.strip_prefix(':')) {
        ("", _) => Ok((host, None)),
        (_, Some(port)) => Ok((host, Some(port))),
        (_, None) => Err(GatewayError(format!("{after:?} follows the address"))),
    }
}

/// An IP address; one of IPv6 may name its zone, as in `fe80::1%eth0` (RFC 4007 §11).
fn is_address(text: &str) -> bool {
    let address = match text.split_once('%') {
        Some((address, zone)) if !zone.is_empty() => address,
        _ => return text.parse::<Ipv4Addr>().is_ok() || text.parse::<Ipv6Addr>().is_ok(),
    };
    address.parse::<Ipv6Addr>().is_ok()
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
    fn a_gateway_is_a_host_with_or_without_a_port() {
        for (text, host, port, shown) in [
            ("gate", "gate", 8443, "gate:8443"),
            (
                "gate.example.com:443",
                "gate.example.com",
                443,
                "gate.example.com:443",
            ),
            ("10.0.0.1", "10.0.0.1", 8443, "10.0.0.1:8443"),
            ("10.0.0.1:1", "10.0.0.1", 1, "10.0.0.1:1"),
            ("::1", "::1", 8443, "[::1]:8443"),
            ("[::1]", "::1", 8443, "[::1]:8443"),
            (
                "[2001:db8::1]:65535",
                "2001:db8::1",
                65535,
                "[2001:db8::1]:65535",
            ),
            (
                "[fe80::1%eth0]:8443",
                "fe80::1%eth0",
                8443,
                "[fe80::1%eth0]:8443",
            ),
        ] {
            let gateway: Gateway = text.parse().unwrap();
            assert_eq!(
                (gateway.host.as_str(), gateway.port),
                (host, port),
                "{text}"
            );
            assert_eq!(gateway.to_string(), shown);
        }
    }

    #[test]
    fn what_names_no_gateway_is_refused_with_its_reason() {
        for (text, says) in [
            ("", "empty"),
            ("gate:", "is no port"),
            ("gate:0", "is no port"),
            ("gate:65536", "is no port"),
            ("gate:ssh", "is no port"),
            ("https://gate", "is no port"),
            ("-oProxyCommand=x", "cannot hold"),
            ("-gate", "starts or ends with `-`"),
            ("[::1", "brackets"),
            ("[gate]:8443", "brackets"),
            ("[::1]8443", "follows"),
            ("a b:1", "cannot hold"),
        ] {
            let error = text.parse::<Gateway>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

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
