//! Headers of the PROXY protocol: what a proxy in front says of a connection, before the connection's own first byte.

use std::net::{IpAddr, SocketAddr};

mod v1;
mod v2;

use crate::config::ProxyVersion;

/// The longest header that is taken, in bytes.
///
/// 4 KiB: the addresses, a name, an ID and a client's certificate fit; version 2 could announce 64 KiB. A longer one is
/// refused as soon as it announces its length.
pub const LONGEST: usize = 4096;

/// The type of the TLV that holds the client's SPIFFE ID, as text: of those left to applications (§2.2.7), one that neither
/// AWS (0xEA), Azure (0xEE) nor Google (0xE0) uses.
pub const SPIFFE: u8 = 0xE5;

/// What a header says (`proxy-protocol.txt` of HAProxy: §2.1 for version 1, §2.2 for version 2), as far as it is of use here: nothing else in it is believed, or kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The ends of the connection that the sender accepted. `None` is a connection of its own (`LOCAL`), or one that it
    /// cannot tell of (`UNKNOWN`, a UNIX socket): the addresses of the socket count.
    pub addresses: Option<Addresses>,
    /// What the sender calls the connection, 1 to 128 bytes; an empty ID is none.
    pub unique_id: Option<Vec<u8>>,
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Who has connected.
    pub source: SocketAddr,
    /// Where to.
    pub destination: SocketAddr,
}

/// What a header of version 2 tells beside the addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tlvs<'a> {
    /// The protocol agreed with the client (0x01).
    pub alpn: Option<&'a [u8]>,
    /// The name that the client asked for (0x02).
    pub authority: Option<&'a str>,
    /// What to call the connection (0x05), at most 128 bytes.
    pub unique_id: Option<&'a [u8]>,
    /// The client's TLS, where it has been ended (0x20).
    pub tls: Option<Tls<'a>>,
    /// Who the client has proven to be ([`SPIFFE`]).
    pub spiffe: Option<&'a str>,
    /// Whether a checksum of the whole header is added (0x03).
    pub crc32c: bool,
}

/// A client's TLS, as a header tells it (§2.2.6).
#[derive(Clone, Copy, Debug, Default)]
pub struct Tls<'a> {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: Option<&'a str>,
    /// Whether the client has shown a certificate, and it was found good.
    pub has_certificate: bool,
    /// The common name in that certificate.
    pub common_name: Option<&'a str>,
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// They do not begin as one does.
    #[error("no PROXY header came first")]
    Absent,
    /// Version 1 without its end within 107 bytes.
    #[error("the PROXY line does not end within {} bytes", v1::LONGEST_LINE)]
    LineTooLong,
    /// Version 1 with CR or LF alone.
    #[error("the PROXY line does not end in CR LF")]
    LineEnd,
    /// Version 1 with something else than its grammar has.
    #[error("the PROXY line is malformed: {0}")]
    Line(&'static str),
    /// The signature of version 2 with another version.
    #[error("a PROXY header of version {0} is not known")]
    Version(u8),
    /// Neither `LOCAL` nor `PROXY`.
    #[error("a PROXY header of command {0} is not known")]
    Command(u8),
    /// Not of a stream, or of a family that is not known.
    #[error("a PROXY header of family and protocol {0:#04x} is not taken")]
    Family(u8),
    /// More than [`LONGEST`].
    #[error("a PROXY header of {0} bytes is too long: at most {LONGEST}")]
    TooLong(usize),
    /// No room for the addresses of its family.
    #[error("a PROXY header with {0} bytes has no room for its addresses")]
    TooShort(usize),
    /// A TLV that reaches beyond the header, or is not as long as its type is.
    #[error("the TLV {0:#04x} of a PROXY header does not fit")]
    Tlv(u8),
    /// A TLV that may be there once.
    #[error("the TLV {0:#04x} of a PROXY header is there twice")]
    Twice(u8),
    /// The checksum is not that of the header.
    #[error("the checksum of a PROXY header is wrong")]
    Checksum,
}

impl Header {
    /// Reads the header at the start of `bytes`: with its length, or `None` while there is only the beginning of one.
    ///
    /// What cannot become a header is refused at its first wrong byte, as far as that byte can be told.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, HeaderError> {
        if agrees(bytes, v1::SIGNATURE) {
            v1::parse(bytes)
        } else if agrees(bytes, v2::SIGNATURE) {
            v2::parse(bytes)
        } else {
            Err(HeaderError::Absent)
        }
    }
}

impl Addresses {
    /// A header of version 1.
    pub fn to_v1(&self) -> Vec<u8> {
        v1::encode(self)
    }

    /// A header of version 2. A TLV that is too long for one is left out, and so is an empty one.
    pub fn to_v2(&self, tlvs: &Tlvs<'_>) -> Vec<u8> {
        v2::encode(self, tlvs)
    }

    /// Both in one family, as a header has them: IPv4 if both are, else IPv6 (RFC 4291 §2.5.5.2).
    fn ips(&self) -> (IpAddr, IpAddr) {
        let mapped = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => IpAddr::V6(ip.to_ipv6_mapped()),
            ip => ip,
        };
        let ips = [self.source, self.destination].map(|end| end.ip().to_canonical());
        let [source, destination] = match ips.iter().all(IpAddr::is_ipv4) {
            true => ips,
            false => ips.map(mapped),
        };
        (source, destination)
    }
}

/// Whether these bytes and the signature are the same, as far as both go.
fn agrees(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(one, other)| one == other)
}

/// The header of a connection that is the gateway's own, and nobody's behind it: `LOCAL`, or `UNKNOWN` in version 1.
///
/// The specification names checks as what that is for (HAProxy's `proxy-protocol.txt` §2.1, §2.2).
pub fn of_its_own(version: ProxyVersion) -> Vec<u8> {
    match version {
        ProxyVersion::V1 => b"PROXY UNKNOWN\r\n".to_vec(),
        ProxyVersion::V2(_) => v2::of_its_own(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
