//! Every header there can be, and what nobody should send.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use proptest::prelude::*;

use super::*;

fn parsed(bytes: &[u8]) -> (Header, usize) {
    Header::parse(bytes).unwrap().unwrap()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A header of version 2 of this command and family, with this length announced and these bytes behind it.
fn v2(command: u8, family: u8, length: u16, block: &[u8]) -> Vec<u8> {
    let start = [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..]].concat();
    [&start, &length.to_be_bytes()[..], block].concat()
}

/// One of TCP over IPv4 with these TLVs.
fn with_tlvs(tlvs: &[u8]) -> Vec<u8> {
    let block = [&[192, 0, 2, 1, 192, 0, 2, 2, 0x12, 0x67, 1, 0xbb], tlvs].concat();
    v2(0x21, 0x11, block.len() as u16, &block)
}

#[test]
fn the_lines_of_version_1_are_read_as_they_are_written_down() {
    for (line, source, destination) in [
        (
            "PROXY TCP4 192.0.2.1 192.0.2.2 4711 443\r\n",
            "192.0.2.1:4711",
            "192.0.2.2:443",
        ),
        (
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            "255.255.255.255:65535",
            "255.255.255.255:65535",
        ),
        (
            "PROXY TCP6 2001:db8::1 ::1 0 443\r\n",
            "[2001:db8::1]:0",
            "[::1]:443",
        ),
        (
            "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n",
            "192.0.2.1:1",
            "[2001:db8::2]:2",
        ),
    ] {
        let (header, length) = parsed(&[line, "more"].concat().into_bytes());
        let addresses = header.addresses.unwrap();
        assert_eq!(addresses.source, address(source), "{line}");
        assert_eq!(addresses.destination, address(destination), "{line}");
        assert_eq!(length, line.len());
    }
    let longest = "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
                   ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    assert_eq!(longest.len(), 107);
    for line in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN what ever\r\n", longest] {
        assert_eq!(parsed(line.as_bytes()), (Header::default(), line.len()));
    }
}

#[test]
fn a_line_that_strays_from_the_grammar_is_refused() {
    use HeaderError::{Absent, Line, LineEnd, LineTooLong};
    let line = |text: &str| Header::parse(text.as_bytes()).unwrap_err();
    for text in [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY UNIX /a /b\r\n",
        "PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
        "PROXY TCP4\t192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n",
        "PROXY TCP4 ::1 ::2 1 2\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n",
        "PROXY TCP6 [::1] ::2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 -2\r\n",
        "PROXY UNKNOWN \u{1b}[2J\r\n",
        "PROXY UNKNOWN \0\r\n",
    ] {
        assert!(matches!(line(text), Line(_)), "{text:?}: {}", line(text));
    }
    for text in [
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rX",
        "PROXY \n",
        "PROXY UNKNOWN a\nb\r\n",
    ] {
        assert_eq!(line(text), LineEnd, "{text:?}");
    }
    let endless = ["PROXY UNKNOWN ", &"a".repeat(200)].concat();
    assert_eq!(Header::parse(&endless.as_bytes()[..106]), Ok(None));
    assert_eq!(line(&endless), LineTooLong);
    let late = [&endless[..106], "\r\n"].concat();
    assert_eq!(line(&late), LineTooLong);
    for text in [
        "proxy TCP4",
        "PROXYTCP4",
        "PROXY\r\n",
        " PROXY",
        "GET /",
        "\r\n\r\n\r",
    ] {
        assert_eq!(line(text), Absent, "{text:?}");
    }
}

#[test]
fn version_2_tells_of_tcp_and_of_nothing_else() {
    let (header, length) = parsed(&[&with_tlvs(&[])[..], b"more"].concat());
    let addresses = header.addresses.unwrap();
    assert_eq!(addresses.source, address("192.0.2.1:4711"));
    assert_eq!(addresses.destination, address("192.0.2.2:443"));
    assert_eq!(length, 28);
    // Its own connections, an unknown family, and UNIX sockets: the socket's addresses count.
    for (command, family, block) in [
        (0x20, 0x00, &[][..]),
        (0x20, 0x11, &[]),
        (0x20, 0x11, &[7; 12]),
        (0x20, 0x7f, &[1, 2, 3]),
        (0x21, 0x00, &[]),
        (0x21, 0x31, &[b'/'; 216]),
        (0x21, 0x32, &[0; 216]),
    ] {
        let bytes = v2(command, family, block.len() as u16, block);
        assert_eq!(
            parsed(&bytes),
            (Header::default(), bytes.len()),
            "{bytes:?}"
        );
    }
    for (command, family, wrong) in [
        (0x11, 0x11, HeaderError::Version(1)),
        (0x31, 0x11, HeaderError::Version(3)),
        (0x22, 0x11, HeaderError::Command(2)),
        (0x2f, 0x11, HeaderError::Command(15)),
        (0x21, 0x12, HeaderError::Family(0x12)),
        (0x21, 0x22, HeaderError::Family(0x22)),
        (0x21, 0x10, HeaderError::Family(0x10)),
        (0x21, 0x41, HeaderError::Family(0x41)),
    ] {
        let bytes = v2(command, family, 216, &[]);
        assert_eq!(Header::parse(&bytes), Err(wrong));
    }
}

/// HAProxy's fault of this kind (488ee7fb): TLVs were read beyond the header, in what the client sends.
#[test]
fn no_tlv_reaches_into_the_bytes_behind_the_header() {
    for tlvs in [
        &[0x05][..],
        &[0x05, 0],
        &[0x05, 0, 1],
        &[0x05, 0, 4, b'a', b'b', b'c'],
        &[0x04, 0xff, 0xff, 0],
        &[0x04, 0, 0, 0x05, 0, 9],
        &[0x03, 0, 3, 1, 2, 3],
    ] {
        let bytes = [&with_tlvs(tlvs)[..], &[b'x'; 100]].concat();
        let refused = Header::parse(&bytes);
        assert!(matches!(refused, Err(HeaderError::Tlv(_))), "{tlvs:?}");
    }
    for (kind, length) in [(0x05, 1), (0x03, 4)] {
        let one = [&[kind, 0, length][..], &vec![b'x'; length as usize]].concat();
        let bytes = with_tlvs(&[&one[..], &one].concat());
        assert_eq!(Header::parse(&bytes), Err(HeaderError::Twice(kind)));
    }
    let id = |length: u8| [&[0x05, 0, length][..], &vec![b'x'; length as usize]].concat();
    let (header, _) = parsed(&with_tlvs(&id(128)));
    assert_eq!(header.unique_id, Some(vec![b'x'; 128]));
    let too_long = Header::parse(&with_tlvs(&id(129)));
    assert_eq!(too_long, Err(HeaderError::Tlv(0x05)));
    // An empty one tells nothing apart, and may be there once as any other.
    let (header, _) = parsed(&with_tlvs(&id(0)));
    assert_eq!(header.unique_id, None);
    let twice = Header::parse(&with_tlvs(&[id(0), id(3)].concat()));
    assert_eq!(twice, Err(HeaderError::Twice(0x05)));
}

#[test]
fn every_length_from_0_to_65535_is_judged_at_once() {
    let begin = Instant::now();
    let most = vec![0; 0x1_0000];
    for length in 0..=u16::MAX {
        let total = 16 + usize::from(length);
        let start = Header::parse(&v2(0x21, 0x11, length, &[]));
        let expected = match length {
            0..12 => Err(HeaderError::TooShort(total)),
            _ if total > LONGEST => Err(HeaderError::TooLong(total)),
            _ => Ok(None),
        };
        assert_eq!(start, expected, "{length}");
        if start == Ok(None) {
            // Zeros are TLVs of type 0 and length 0: three bytes each.
            let whole = Header::parse(&v2(0x21, 0x11, length, &most[..usize::from(length)]));
            assert_eq!(whole.is_ok(), (length - 12) % 3 == 0, "{length}");
        }
    }
    assert!(begin.elapsed().as_secs() < 20);
}

#[test]
fn a_checksum_that_is_there_must_be_right() {
    let addresses = Addresses {
        source: address("192.0.2.1:4711"),
        destination: address("[2001:db8::2]:443"),
    };
    let tlvs = Tlvs {
        authority: Some("a.example"),
        crc32c: true,
        ..Tlvs::default()
    };
    let right = addresses.to_v2(&tlvs);
    assert_eq!(parsed(&right).0.addresses, Some(addresses));
    for place in right.len() - 4..right.len() {
        let mut wrong = right.clone();
        wrong[place] ^= 1;
        assert_eq!(Header::parse(&wrong), Err(HeaderError::Checksum));
    }
}

#[test]
fn the_tls_of_a_client_is_told_as_haproxy_tells_it() {
    let addresses = Addresses {
        source: address("192.0.2.1:4711"),
        destination: address("192.0.2.2:443"),
    };
    let tls = |has_certificate, common_name| {
        let tls = Tls {
            version: Some("TLSv1.3"),
            has_certificate,
            common_name,
        };
        let tlvs = Tlvs {
            tls: Some(tls),
            ..Tlvs::default()
        };
        addresses.to_v2(&tlvs)[28..].to_vec()
    };
    let none = tls(false, None);
    assert_eq!(none, b"\x20\0\x0f\x01\0\0\0\x01\x21\0\x07TLSv1.3");
    let some = tls(true, Some("ann"));
    assert_eq!(
        some,
        b"\x20\0\x15\x07\0\0\0\0\x21\0\x07TLSv1.3\x22\0\x03ann"
    );
}

#[test]
fn a_tlv_that_has_no_room_is_left_out() {
    let addresses = Addresses {
        source: address("192.0.2.1:4711"),
        destination: address("192.0.2.2:443"),
    };
    let long = "a".repeat(70_000);
    let tlvs = Tlvs {
        authority: Some(&long),
        unique_id: Some(b"id"),
        ..Tlvs::default()
    };
    let (header, length) = parsed(&addresses.to_v2(&tlvs));
    assert_eq!((header.unique_id, length), (Some(b"id".to_vec()), 33));
    // One that no reader would take, and one that says nothing.
    for id in [&[b'x'; 129][..], b""] {
        let tlvs = Tlvs {
            unique_id: Some(id),
            ..Tlvs::default()
        };
        assert_eq!(parsed(&addresses.to_v2(&tlvs)).1, 28);
    }
}

#[test]
fn a_checksum_has_its_room_whatever_there_is_before_it() {
    let addresses = Addresses {
        source: address("192.0.2.1:4711"),
        destination: address("192.0.2.2:443"),
    };
    for length in LONGEST - 50..LONGEST {
        let name = "a".repeat(length);
        let tlvs = Tlvs {
            authority: Some(&name),
            crc32c: true,
            ..Tlvs::default()
        };
        let bytes = addresses.to_v2(&tlvs);
        assert_eq!(parsed(&bytes).1, bytes.len(), "{length}");
        let checksum = bytes.len() - 7;
        assert_eq!(bytes[checksum..checksum + 3], [0x03, 0, 4], "{length}");
    }
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(|octets| IpAddr::from(Ipv4Addr::from(octets))),
        any::<[u8; 16]>().prop_map(|octets| IpAddr::from(Ipv6Addr::from(octets)).to_canonical()),
    ];
    (ip, any::<u16>()).prop_map(SocketAddr::from)
}

/// Headers of both versions, with what they say.
fn any_header() -> impl Strategy<Value = (Vec<u8>, Header)> {
    let id = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..=128));
    let tlvs = (id, "[a-z.]{0,40}", any::<bool>());
    (any_address(), any_address(), proptest::option::of(tlvs)).prop_map(
        |(source, destination, tlvs)| {
            let addresses = Addresses {
                source,
                destination,
            };
            let (bytes, unique_id) = match tlvs {
                None => (addresses.to_v1(), None),
                Some((id, name, crc32c)) => {
                    let tlvs = Tlvs {
                        alpn: Some(b"h2"),
                        authority: Some(&name),
                        unique_id: id.as_deref(),
                        tls: Some(Tls::default()),
                        spiffe: Some("spiffe://a/b"),
                        crc32c,
                    };
                    let id_of_it = id.as_ref().filter(|id| !id.is_empty());
                    (addresses.to_v2(&tlvs), id_of_it.cloned())
                }
            };
            let addresses = Some(addresses);
            (
                bytes,
                Header {
                    addresses,
                    unique_id,
                },
            )
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_again_whatever_follows(
        (bytes, header) in any_header(),
        behind in proptest::collection::vec(any::<u8>(), 0..50),
    ) {
        let length = bytes.len();
        prop_assert_eq!(parsed(&[bytes, behind].concat()), (header, length));
    }

    #[test]
    fn every_prefix_of_a_header_waits_for_more((bytes, _) in any_header()) {
        for end in 0..bytes.len() {
            prop_assert_eq!(Header::parse(&bytes[..end]), Ok(None));
        }
    }

    /// Without a checksum a damaged address is another address. With one it is an error; where command or family is hit
    /// nothing may be known, and where the checksum's own TLV is, the addresses are what they were.
    #[test]
    fn one_damaged_byte_never_names_another_client(
        source in any_address(),
        destination in any_address(),
        place in any::<prop::sample::Index>(),
        damage in 1..=u8::MAX,
    ) {
        let addresses = Addresses { source, destination };
        let tlvs = Tlvs { unique_id: Some(b"0123456789abcdef"), crc32c: true, ..Tlvs::default() };
        let mut bytes = addresses.to_v2(&tlvs);
        let place = place.index(bytes.len());
        bytes[place] ^= damage;
        if let Ok(Some((header, _))) = Header::parse(&bytes) {
            let known = header.addresses.is_some();
            prop_assert!(known != matches!(place, 12 | 13), "{}", place);
            prop_assert!(!known || header.addresses == Some(addresses));
        }
    }

    #[test]
    fn whatever_comes_is_judged_without_a_panic(
        begins in 0..3_usize,
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let begins = [&b""[..], b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"][begins];
        let bytes = [begins, &bytes].concat();
        if let Ok(Some((_, length))) = Header::parse(&bytes) {
            prop_assert!(length <= bytes.len().min(LONGEST));
        }
    }
}

#[test]
fn a_header_of_nobody_is_read_as_one() {
    for version in [
        ProxyVersion::V1,
        ProxyVersion::V2(crate::config::ProxyTlvs::default()),
    ] {
        let bytes = of_its_own(version);
        assert_eq!(parsed(&bytes), (Header::default(), bytes.len()));
    }
}
