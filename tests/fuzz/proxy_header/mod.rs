//! What PROXY headers promise: of those that come, whatever comes, and of those that we write.

use std::net::{IpAddr, SocketAddr};

use portcullis::net::canonical;
use portcullis::net::proxy_header::{Addresses, Header, HeaderError, LONGEST, SPIFFE, Tls, Tlvs};

/// The types of TLVs (§2.2) that are written.
const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;

/// Reads the input as a header, then writes what it says when it is taken for a [`Wish`], and panics where a promise is
/// not kept:
///
/// - what has come is judged alike in one piece and in many: what is refused stays refused, for the same reason, and what is
///   taken ends in one place, with nothing taken before;
/// - a reason can be shown;
/// - what was read is read again from what is written of it, in both versions;
/// - what is written is no longer than what is taken, and all of it is read, with every TLV that there is room for.
pub(crate) fn run(input: &[u8]) {
    let judged = Header::parse(input);
    let mut wish = Wish::parse(input);
    if std::env::var_os("PORTCULLIS_TELL").is_some() {
        eprintln!("{judged:?}\n{wish:?}");
    }
    is_steady(input, &judged);
    if let Ok(Some((header, _))) = judged
        && let Some(addresses) = header.addresses
    {
        wish.is_written(addresses, header.unique_id.as_deref());
        wish.is_written(addresses, None);
    }
    let (addresses, id) = (wish.addresses, wish.rest.bytes(256));
    wish.is_written(addresses, Some(id));
}

/// Whether each beginning of the input is judged as the whole is, as far as it can be told.
fn is_steady(input: &[u8], judged: &Result<Option<(Header, usize)>, HeaderError>) {
    let mut decided = false;
    // Longer beginnings are all the same.
    let most = input.len().min(LONGEST + 1);
    for end in 0..=most {
        let begin = Header::parse(&input[..end]);
        match &begin {
            Ok(None) => assert!(!decided, "{end} bytes wait for more, and fewer did not"),
            Ok(Some((_, length))) => assert!(*length <= end && (decided || *length == end)),
            Err(error) => assert!(!error.to_string().contains(char::is_control), "{error}"),
        }
        decided = !matches!(begin, Ok(None));
        assert!(
            !decided || begin == *judged,
            "{end} bytes: {begin:?}, all: {judged:?}"
        );
    }
    assert!(
        decided || judged == &Ok(None),
        "{most} bytes and no end of it: {judged:?}"
    );
    assert!(
        decided || input.len() < LONGEST,
        "{} bytes wait for more",
        input.len()
    );
}

/// What is to be written: two addresses, and TLVs.
#[derive(Debug)]
struct Wish<'a> {
    addresses: Addresses,
    alpn: Option<&'a [u8]>,
    name: Option<String>,
    spiffe: Option<String>,
    common_name: Option<String>,
    /// Bits: whether TLS is told, its version, a certificate, a checksum.
    flags: u8,
    rest: Rest<'a>,
}

impl<'a> Wish<'a> {
    /// Every input means one.
    fn parse(input: &'a [u8]) -> Self {
        let mut rest = Rest(input);
        let flags = rest.byte();
        let addresses = Addresses {
            source: rest.address(flags & 1 > 0),
            destination: rest.address(flags & 2 > 0),
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            addresses,
            alpn: (flags & 4 > 0).then(|| rest.bytes(256)),
            // Beyond what a header may have, if there is enough of it.
            name: (flags & 8 > 0).then(|| rest.repeated()),
            spiffe: (flags & 16 > 0).then(|| text(rest.bytes(2048))),
            common_name: (flags & 32 > 0).then(|| rest.repeated()),
            flags,
            rest,
        }
    }

    /// Whether both headers of these addresses, the second with this ID, are read as they were meant.
    fn is_written(&self, addresses: Addresses, unique_id: Option<&[u8]>) {
        let mean = Addresses {
            source: canonical(addresses.source),
            destination: canonical(addresses.destination),
        };
        let v1 = addresses.to_v1();
        let (header, length) = Header::parse(&v1).unwrap().unwrap();
        assert_eq!((header.addresses, length), (Some(mean), v1.len()));

        let tls = Tls {
            version: (self.flags & 128 > 0).then_some("TLSv1.3"),
            has_certificate: self.common_name.is_some(),
            common_name: self.common_name.as_deref(),
        };
        let tlvs = Tlvs {
            alpn: self.alpn,
            authority: self.name.as_deref(),
            unique_id,
            tls: (self.flags & (32 | 128) > 0).then_some(tls),
            spiffe: self.spiffe.as_deref(),
            crc32c: self.flags & 64 > 0,
        };
        let v2 = addresses.to_v2(&tlvs);
        let (header, length) = Header::parse(&v2).unwrap().unwrap();
        assert_eq!((header.addresses, length), (Some(mean), v2.len()));
        let kept = self.are_there(&tlvs, &v2);
        assert_eq!(header.unique_id.as_deref(), kept);
        // The checksum is of every byte, its own aside.
        if tlvs.crc32c {
            for at in [0, 12, 13, 15, 20, length - 1] {
                let mut wrong = v2.clone();
                wrong[at] ^= 1;
                assert_ne!(Header::parse(&wrong), Ok(Some((header.clone(), length))));
            }
        }
    }

    /// Every TLV that is wished for is there, once, or has no room; gives the ID.
    fn are_there<'b>(&self, tlvs: &Tlvs<'_>, v2: &'b [u8]) -> Option<&'b [u8]> {
        let mut rest = match v2[13] {
            0x11 => &v2[28..],
            _ => &v2[52..],
        };
        let mut found = Vec::new();
        while let [kind, high, low, behind @ ..] = rest {
            let (value, behind) = behind.split_at(usize::from(u16::from_be_bytes([*high, *low])));
            assert!(found.iter().all(|(other, _)| other != kind), "{kind} twice");
            found.push((*kind, value));
            rest = behind;
        }
        assert!(rest.is_empty());
        let found = |kind| {
            found
                .iter()
                .find(|(other, _)| *other == kind)
                .map(|(_, value)| *value)
        };
        for (kind, value, most) in [
            (ALPN, tlvs.alpn, LONGEST),
            (AUTHORITY, tlvs.authority.map(str::as_bytes), LONGEST),
            (UNIQUE_ID, tlvs.unique_id, 128),
            (SPIFFE, tlvs.spiffe.map(str::as_bytes), LONGEST),
        ] {
            let value = value.filter(|value| (1..=most).contains(&value.len()));
            let room = LONGEST - v2.len();
            match (value, found(kind)) {
                (Some(value), None) => assert!(value.len() + 3 > room, "{kind} is not there"),
                (value, there) => assert_eq!(value, there, "{kind}"),
            }
        }
        assert_eq!(found(CRC32C).is_some(), tlvs.crc32c);
        assert!(found(SSL).is_none() || tlvs.tls.is_some());
        found(UNIQUE_ID)
    }
}

/// What is left of an input.
#[derive(Clone, Copy, Debug)]
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// So many bytes as the next one says, below `most`.
    fn bytes(&mut self, most: usize) -> &'a [u8] {
        let length = usize::from(self.byte()) * most / 256;
        let (bytes, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// Up to 4,335 bytes, of two.
    fn repeated(&mut self) -> String {
        "a".repeat(usize::from(self.byte()) * 17 + usize::from(self.byte()))
    }

    fn address(&mut self, is_v6: bool) -> SocketAddr {
        let mut octets = [0; 16];
        let length = if is_v6 { 16 } else { 4 };
        for octet in octets.iter_mut().take(length) {
            *octet = self.byte();
        }
        let ip = match octets.first_chunk::<4>() {
            Some(octets) if !is_v6 => IpAddr::from(*octets),
            _ => IpAddr::from(octets),
        };
        SocketAddr::new(ip, u16::from_be_bytes([self.byte(), self.byte()]))
    }
}
