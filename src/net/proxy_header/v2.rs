//! Version 2: binary, with TLVs behind the addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use super::{Addresses, Header, HeaderError, LONGEST, SPIFFE, Tls, Tlvs};
use crate::net::canonical;

pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, version and command, family and protocol, and the length of what follows.
const FIXED: usize = 16;

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPEC: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const UNIX: [u8; 2] = [0x31, 0x32];

const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_CN: u8 = 0x22;

/// The bits of a client in the TLV of its TLS (§2.2.6): TLS, a certificate in this connection, and in this session.
const CLIENT_SSL: u8 = 0x01;
const CLIENT_CERT: u8 = 0x02 | 0x04;

/// The longest unique ID (§2.2.5).
const LONGEST_ID: usize = 128;

/// Each byte is judged as soon as it is there, and no TLV reaches beyond the length that the header has announced.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, HeaderError> {
    let command = match bytes.get(SIGNATURE.len()) {
        None => return Ok(None),
        Some(byte @ (&LOCAL | &PROXY)) => *byte,
        Some(byte) if byte >> 4 != 2 => return Err(HeaderError::Version(byte >> 4)),
        Some(byte) => return Err(HeaderError::Command(byte & 0xF)),
    };
    let Some(&family) = bytes.get(SIGNATURE.len() + 1) else {
        return Ok(None);
    };
    let room = match family {
        TCP4 => 12,
        TCP6 => 36,
        _ if UNIX.contains(&family) => 216,
        // With `LOCAL` the family means nothing.
        UNSPEC => 0,
        _ if command == LOCAL => 0,
        family => return Err(HeaderError::Family(family)),
    };
    let Some(length) = bytes.get(SIGNATURE.len() + 2..FIXED) else {
        return Ok(None);
    };
    let length = length
        .iter()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    if FIXED + length > LONGEST {
        return Err(HeaderError::TooLong(FIXED + length));
    }
    if length < room && command == PROXY {
        return Err(HeaderError::TooShort(FIXED + length));
    }
    let Some(header) = bytes.get(..FIXED + length) else {
        return Ok(None);
    };
    let found = match find(header, FIXED + room) {
        Err(_) if command == LOCAL => Found::default(),
        found => found?,
    };
    if found.checksum.is_some_and(|at| !is_right(header, at)) {
        return Err(HeaderError::Checksum);
    }
    let parsed = Header {
        addresses: addresses(header, family).filter(|_| command == PROXY),
        // An ID of no bytes tells nothing apart: there is none.
        unique_id: (found.unique_id).filter(|id| command == PROXY && !id.is_empty()),
    };
    Ok(Some((parsed, header.len())))
}

pub(super) fn encode(addresses: &Addresses, tlvs: &Tlvs<'_>) -> Vec<u8> {
    let mut out = SIGNATURE.to_vec();
    out.push(PROXY);
    match addresses.ips() {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            out.extend([TCP4, 0, 0]);
            out.extend(source.octets());
            out.extend(destination.octets());
        }
        (source, destination) => {
            out.extend([TCP6, 0, 0]);
            for ip in [source, destination] {
                if let IpAddr::V6(ip) = ip {
                    out.extend(ip.octets());
                }
            }
        }
    }
    out.extend(addresses.source.port().to_be_bytes());
    out.extend(addresses.destination.port().to_be_bytes());
    // The checksum comes last, and has its room whatever there is before it.
    let most = if tlvs.crc32c { LONGEST - 7 } else { LONGEST };
    let unique_id = tlvs.unique_id.filter(|id| id.len() <= LONGEST_ID);
    let texts = [
        (ALPN, tlvs.alpn),
        (AUTHORITY, tlvs.authority.map(str::as_bytes)),
        (UNIQUE_ID, unique_id),
        (SPIFFE, tlvs.spiffe.map(str::as_bytes)),
    ];
    for (kind, value) in texts {
        push(&mut out, most, kind, value);
    }
    let tls = tlvs.tls.as_ref().map(ssl);
    push(&mut out, most, SSL, tls.as_deref());
    push(&mut out, LONGEST, CRC32C, tlvs.crc32c.then_some(&[0; 4]));
    let length = u16::try_from(out.len() - FIXED).unwrap_or(u16::MAX);
    if let Some(place) = out.get_mut(FIXED - 2..FIXED) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    if tlvs.crc32c {
        let checksum = crc32c(out.iter().copied());
        let at = out.len() - 4;
        if let Some(place) = out.get_mut(at..) {
            place.copy_from_slice(&checksum.to_be_bytes());
        }
    }
    out
}

/// What is looked for among the TLVs.
#[derive(Default)]
struct Found {
    /// Where the checksum stands.
    checksum: Option<Range<usize>>,
    unique_id: Option<Vec<u8>>,
}

/// Goes through the TLVs of a whole header, which begin at `at` and must end where it does.
fn find(header: &[u8], mut at: usize) -> Result<Found, HeaderError> {
    let mut found = Found::default();
    while let Some(rest) = header.get(at..).filter(|rest| !rest.is_empty()) {
        let (kind, length) = match rest {
            [kind, high, low, ..] => (*kind, usize::from(u16::from_be_bytes([*high, *low]))),
            [kind, ..] => return Err(HeaderError::Tlv(*kind)),
            [] => break,
        };
        let place = at + 3..at + 3 + length;
        let value = header.get(place.clone()).ok_or(HeaderError::Tlv(kind))?;
        at = place.end;
        match kind {
            CRC32C if value.len() != 4 => return Err(HeaderError::Tlv(kind)),
            CRC32C if found.checksum.is_some() => return Err(HeaderError::Twice(kind)),
            CRC32C => found.checksum = Some(place),
            UNIQUE_ID if value.len() > LONGEST_ID => return Err(HeaderError::Tlv(kind)),
            UNIQUE_ID if found.unique_id.is_some() => return Err(HeaderError::Twice(kind)),
            UNIQUE_ID => found.unique_id = Some(value.to_vec()),
            _ => {}
        }
    }
    Ok(found)
}

/// The addresses of TCP over IPv4 and IPv6; nothing is known of others.
fn addresses(header: &[u8], family: u8) -> Option<Addresses> {
    let block = header.get(FIXED..)?;
    let (source, destination, ports) = match family {
        TCP4 => {
            let (source, rest) = block.split_first_chunk::<4>()?;
            let (destination, ports) = rest.split_first_chunk::<4>()?;
            let ip = |octets: &[u8; 4]| IpAddr::from(Ipv4Addr::from(*octets));
            (ip(source), ip(destination), ports)
        }
        TCP6 => {
            let (source, rest) = block.split_first_chunk::<16>()?;
            let (destination, ports) = rest.split_first_chunk::<16>()?;
            let ip = |octets: &[u8; 16]| IpAddr::from(Ipv6Addr::from(*octets));
            (ip(source), ip(destination), ports)
        }
        _ => return None,
    };
    let (from, rest) = ports.split_first_chunk::<2>()?;
    let (to, _) = rest.split_first_chunk::<2>()?;
    let end = |ip, port: &[u8; 2]| canonical(SocketAddr::new(ip, u16::from_be_bytes(*port)));
    Some(Addresses {
        source: end(source, from),
        destination: end(destination, to),
    })
}

/// The value of the TLV of a client's TLS: its bits, whether its certificate was verified (0 is yes), and more TLVs.
fn ssl(tls: &Tls<'_>) -> Vec<u8> {
    let (bits, verified) = match tls.has_certificate {
        true => (CLIENT_SSL | CLIENT_CERT, 0_u32),
        false => (CLIENT_SSL, 1),
    };
    let mut value = vec![bits];
    value.extend(verified.to_be_bytes());
    push(
        &mut value,
        LONGEST,
        SSL_VERSION,
        tls.version.map(str::as_bytes),
    );
    push(
        &mut value,
        LONGEST,
        SSL_CN,
        tls.common_name.map(str::as_bytes),
    );
    value
}

/// Adds a TLV, unless it is empty, and so says nothing, or there would be more than `most` bytes.
fn push(out: &mut Vec<u8>, most: usize, kind: u8, value: Option<&[u8]>) {
    let fits = |value: &&[u8]| !value.is_empty() && out.len() + 3 + value.len() <= most;
    let Some(value) = value.filter(fits) else {
        return;
    };
    // What fits into a header fits into sixteen bits.
    let length = u16::try_from(value.len()).unwrap_or_default();
    out.push(kind);
    out.extend(length.to_be_bytes());
    out.extend(value);
}

/// Whether the checksum that stands there is that of the header with zeros in its place (§2.2.3).
fn is_right(header: &[u8], at: Range<usize>) -> bool {
    let bytes = header.iter().enumerate();
    let sum = crc32c(bytes.map(|(place, byte)| if at.contains(&place) { 0 } else { *byte }));
    header.get(at) == Some(&sum.to_be_bytes())
}

/// CRC32c (RFC 9260 appendix A), bit by bit: a header is short, and comes once.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    const POLYNOMIAL: u32 = 0x82F6_3B78;
    !bytes.fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum: u32, _| {
            (sum >> 1) ^ (POLYNOMIAL & (sum & 1).wrapping_neg())
        })
    })
}

/// A header that tells of nobody: no family, and nothing after it.
pub(super) fn of_its_own() -> Vec<u8> {
    [SIGNATURE, &[LOCAL, 0, 0, 0]].concat()
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn the_checksum_is_that_of_rfc_3720() {
        // Appendix B.4, and the check value of every catalogue of CRCs.
        assert_eq!(crc32c([0; 32].into_iter()), 0x8A91_36AA);
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xE306_9283);
    }
}
