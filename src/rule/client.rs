//! `ClientIP`: addresses and networks as Go's `net.ParseIP` and `net.ParseCIDR` read them.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Reads an address, or a network whose host bits may be set; says what is wrong in lower case.
///
/// An IPv4-mapped IPv6 address or network is the IPv4 one, and no other IPv6 network covers IPv4.
pub(crate) fn network(text: &str) -> Result<IpNet, String> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return Err(fault(address));
    };
    let Some(length) = length else {
        return Ok(address.to_canonical().into());
    };
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
    let length = length
        .parse::<u8>()
        .ok()
        .filter(|&length| digits && length <= whole);
    let Some(length) = length else {
        return Err(format!(
            "the prefix length of {text:?} is not a number from 0 to {whole}"
        ));
    };
    let net = IpNet::new(address, length)
        .map_err(|error| error.to_string())?
        .trunc();
    Ok(canonical(net))
}

/// Whether a client's address lies in a network that [`network`] gave.
pub(crate) fn covers(net: &IpNet, client: IpAddr) -> bool {
    net.contains(&client.to_canonical())
}

/// The IPv4 network that a network of IPv4-mapped addresses means.
fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    mapped(v6).map_or(net, IpNet::V4)
}

fn mapped(net: Ipv6Net) -> Option<Ipv4Net> {
    let length = net.prefix_len().checked_sub(96)?;
    Ipv4Net::new(net.network().to_ipv4_mapped()?, length).ok()
}

/// Says what keeps a text from being an address.
fn fault(text: &str) -> String {
    let zone = text
        .split_once('%')
        .is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok());
    let zeros = text.split('.').count() == 4
        && text
            .split('.')
            .any(|part| part.len() > 1 && part.starts_with('0'));
    if zone {
        format!("{text:?} has a zone, and a client's address is compared without one")
    } else if zeros {
        format!("{text:?} has a number with leading zeros, which some read as octal")
    } else {
        format!("{text:?} is not an IP address")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn holds(net: &str, client: &str) -> bool {
        covers(&network(net).unwrap(), client.parse().unwrap())
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_address_on_both_sides() {
        assert!(holds("10.0.0.1", "::ffff:10.0.0.1"));
        assert!(holds("::ffff:10.0.0.1", "10.0.0.1"));
        assert!(holds("::ffff:10.0.0.0/104", "10.9.9.9"));
        assert!(holds("::ffff:0:0/96", "192.0.2.1"));
        assert!(!holds("::ffff:10.0.0.0/104", "11.0.0.0"));
    }

    #[test]
    fn a_family_does_not_cover_the_other() {
        assert!(holds("::/0", "2001:db8::1"));
        assert!(!holds("::/0", "192.0.2.1"));
        assert!(!holds("::/0", "::ffff:192.0.2.1"));
        assert!(!holds("::ffff:0:0/95", "192.0.2.1"));
        assert!(holds("0.0.0.0/0", "192.0.2.1"));
        assert!(!holds("0.0.0.0/0", "2001:db8::1"));
        assert!(!holds("0.0.0.0/0", "::"));
    }

    #[test]
    fn host_bits_may_be_set() {
        assert!(holds("10.1.2.3/8", "10.200.0.1"));
        assert!(holds("2001:db8::77/32", "2001:db8:1::"));
        assert!(
            holds("10.0.0.0/008", "10.0.0.1"),
            "Go takes leading zeros in a prefix length"
        );
    }

    #[test]
    fn what_go_refuses_is_refused_with_its_reason() {
        for (text, says) in [
            ("", "not an IP address"),
            ("localhost", "not an IP address"),
            ("10.0.0", "not an IP address"),
            ("10.0.0.256", "not an IP address"),
            ("010.0.0.1", "leading zeros"),
            ("fe80::1%eth0", "zone"),
            ("10.0.0.0/33", "from 0 to 32"),
            ("10.0.0.0/", "from 0 to 32"),
            ("10.0.0.0/+8", "from 0 to 32"),
            ("10.0.0.0/-1", "from 0 to 32"),
            ("10.0.0.0/255.0.0.0", "from 0 to 32"),
            ("10.0.0.0/8/8", "from 0 to 32"),
            ("::/129", "from 0 to 128"),
            ("::/256", "from 0 to 128"),
            (" 10.0.0.1", "not an IP address"),
            ("[::1]", "not an IP address"),
            ("1:2:3:4::5:6:7:8", "not an IP address"),
        ] {
            let error = network(text).unwrap_err();
            assert!(error.contains(says), "{text:?} says {error:?}");
        }
    }
}
