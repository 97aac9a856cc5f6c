//! A host and a port that a person connects to, as they are typed.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::name::HostName;

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

impl GatewayError {
    /// Without what to write instead.
    pub(crate) fn why(&self) -> &str {
        &self.0
    }
}

impl FromStr for Gateway {
    type Err = GatewayError;

    fn from_str(text: &str) -> Result<Self, GatewayError> {
        Self::parse(text, Self::DEFAULT_PORT)
    }
}

impl Gateway {
    /// The port of a gateway that is named without one.
    pub const DEFAULT_PORT: u16 = 8443;

    /// The same with this port where none is written.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, GatewayError> {
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(GatewayError(format!(
                "{scheme:?} is a scheme, and no host has one"
            )));
        }
        let (host, port) = split(text)?;
        if !is_address(host) {
            HostName::parse(host).map_err(|error| GatewayError(error.to_string()))?;
        }
        let port = match port {
            None => default_port,
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

    /// Whether both name one and the same, in whatever case, and with a dot at the end or without.
    pub fn is(&self, other: &Self) -> bool {
        let host = |one: &Self| {
            let host = one.host.strip_suffix('.').unwrap_or(&one.host);
            host.to_ascii_lowercase()
        };
        self.port == other.port && host(self) == host(other)
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
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
            ("https://gate", "is a scheme"),
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
    fn one_gateway_is_the_same_in_any_case_and_with_a_dot_at_its_end() {
        let read = |text: &str| text.parse::<Gateway>().unwrap();
        let gate = read("gate.example.com");
        for same in [
            "gate.example.com:8443",
            "Gate.Example.COM",
            "gate.example.com.",
        ] {
            assert!(gate.is(&read(same)), "{same}");
        }
        for other in ["gate.example.com:443", "gate.example.net", "192.0.2.1"] {
            assert!(!gate.is(&read(other)), "{other}");
        }
    }
}
