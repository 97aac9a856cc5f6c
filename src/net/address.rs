//! Addresses in the form in which they are compared.

use std::net::SocketAddr;

/// An address in the one form in which addresses are compared: IPv4-mapped IPv6 (RFC 4291 §2.5.5.2) becomes IPv4.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
