//! Version 1: one line of text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Addresses, Header, HeaderError};
use crate::net::canonical;

pub(super) const SIGNATURE: &[u8] = b"PROXY ";

/// The longest line there can be, CR LF included (§2.1).
pub(super) const LONGEST_LINE: usize = 107;

pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, HeaderError> {
    let line = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
    let unfinished = match line.len() {
        LONGEST_LINE => Err(HeaderError::LineTooLong),
        _ => Ok(None),
    };
    let Some(end) = line.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return unfinished;
    };
    match (line.get(end), line.get(end + 1)) {
        (Some(b'\r'), None) => return unfinished,
        (Some(b'\r'), Some(b'\n')) => {}
        _ => return Err(HeaderError::LineEnd),
    }
    let text = line.get(SIGNATURE.len()..end).unwrap_or_default();
    if !text
        .iter()
        .all(|byte| byte.is_ascii_graphic() || *byte == b' ')
    {
        return Err(HeaderError::Line("it holds what is no visible ASCII"));
    }
    let text = std::str::from_utf8(text).unwrap_or_default();
    let header = Header {
        addresses: addresses(text)?,
        unique_id: None,
    };
    Ok(Some((header, end + 2)))
}

pub(super) fn encode(addresses: &Addresses) -> Vec<u8> {
    let (source, destination) = addresses.ips();
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (addresses.source.port(), addresses.destination.port());
    format!("PROXY {family} {source} {destination} {from} {to}\r\n").into_bytes()
}

fn addresses(text: &str) -> Result<Option<Addresses>, HeaderError> {
    let fields: Vec<&str> = text.split(' ').collect();
    let (parse, fields): (fn(&str) -> Option<IpAddr>, _) = match fields.as_slice() {
        // Whatever follows is to be ignored.
        ["UNKNOWN", ..] => return Ok(None),
        ["TCP4", fields @ ..] => (|ip| Some(ip.parse::<Ipv4Addr>().ok()?.into()), fields),
        ["TCP6", fields @ ..] => (|ip| Some(ip.parse::<Ipv6Addr>().ok()?.into()), fields),
        _ => return Err(HeaderError::Line("its protocol is not known")),
    };
    let [source, destination, from, to] = fields else {
        return Err(HeaderError::Line("it has not two addresses and two ports"));
    };
    let end = |ip: &str, end: &str| {
        let ip = parse(ip).ok_or(HeaderError::Line("an address is not one of its family"))?;
        let port = port(end).ok_or(HeaderError::Line("a port is no number from 0 to 65535"))?;
        Ok(canonical(SocketAddr::new(ip, port)))
    };
    Ok(Some(Addresses {
        source: end(source, from)?,
        destination: end(destination, to)?,
    }))
}

/// Digits without a sign and without zeros in front.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_short = text == "0" || !text.starts_with('0');
    (is_plain && is_short).then(|| text.parse().ok())?
}
