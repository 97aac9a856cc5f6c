//! Hellos made by hand, byte by byte (RFC 8446 §4.1.2), and the ways to cut them into records.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

/// The type of a TLS record that carries a handshake (RFC 8446 §5.1).
pub(crate) const HANDSHAKE: u8 = 22;

/// An alert of the gateway before any handshake (RFC 8446 §6).
pub(crate) const fn alert(description: u8) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, description]
}

pub(crate) const UNEXPECTED_MESSAGE: [u8; 7] = alert(10);
pub(crate) const ILLEGAL_PARAMETER: [u8; 7] = alert(47);
pub(crate) const ACCESS_DENIED: [u8; 7] = alert(49);
pub(crate) const DECODE_ERROR: [u8; 7] = alert(50);
pub(crate) const PROTOCOL_VERSION: [u8; 7] = alert(70);
pub(crate) const INTERNAL_ERROR: [u8; 7] = alert(80);
pub(crate) const UNRECOGNIZED_NAME: [u8; 7] = alert(112);
pub(crate) const NO_APPLICATION_PROTOCOL: [u8; 7] = alert(120);

/// An extension: its type and its data (RFC 8446 §4.2).
#[derive(Clone, Debug)]
pub(crate) struct Extension(pub(crate) u16, pub(crate) Vec<u8>);

/// The handshake message of a hello with this version in it and these extensions.
pub(crate) fn message(version: u16, extensions: &[Extension]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    body.extend([7; 32]);
    body.extend([0; 1]);
    // One suite of TLS 1.3, two of TLS 1.2, and one that every TLS 1.0 server had.
    body.extend(sized16(&[0x13, 0x01, 0xc0, 0x2b, 0xc0, 0x2f, 0x00, 0x2f]));
    body.extend([1, 0]);
    if !extensions.is_empty() {
        let all = extensions.iter().flat_map(|Extension(kind, data)| {
            [kind.to_be_bytes().to_vec(), sized16(data)].concat()
        });
        body.extend(sized16(&all.collect::<Vec<_>>()));
    }
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1], &length[1..], &body].concat()
}

/// A hello of TLS 1.3 that asks for one name.
pub(crate) fn named(name: impl AsRef<[u8]>) -> Vec<u8> {
    let mut extensions = tls13();
    extensions.push(server_name(&[(0, name.as_ref())]));
    message(0x0303, &extensions)
}

/// What a hello of TLS 1.3 needs, but for its name.
pub(crate) fn tls13() -> Vec<Extension> {
    let share = [&[0, 29][..], &sized16(&[9; 32])].concat();
    let mut extensions = tls12();
    extensions.push(Extension(43, vec![4, 3, 4, 3, 3]));
    extensions.push(Extension(51, sized16(&share)));
    extensions
}

/// What a hello of TLS 1.2 needs, but for its name.
pub(crate) fn tls12() -> Vec<Extension> {
    vec![
        Extension(10, sized16(&[0, 29])),
        Extension(11, vec![1, 0]),
        Extension(13, sized16(&[4, 3, 8, 4, 4, 1])),
        Extension(23, vec![]),
        Extension(0xff01, vec![0]),
    ]
}

/// The extension with these names, each with its type (RFC 6066 §3).
pub(crate) fn server_name(names: &[(u8, &[u8])]) -> Extension {
    let names = names
        .iter()
        .flat_map(|(kind, name)| [vec![*kind], sized16(name)].concat());
    Extension(0, sized16(&names.collect::<Vec<_>>()))
}

/// The extension that offers these protocols (RFC 7301 §3.1).
pub(crate) fn alpn<P: AsRef<[u8]>>(protocols: &[P]) -> Extension {
    let all = protocols.iter().flat_map(|protocol| {
        let protocol = protocol.as_ref();
        [&[u8::try_from(protocol.len()).unwrap()], protocol].concat()
    });
    Extension(16, sized16(&all.collect::<Vec<_>>()))
}

/// An extension of zeros that makes a hello longer (RFC 7685).
pub(crate) fn padding(length: usize) -> Extension {
    Extension(21, vec![0; length])
}

/// One record.
pub(crate) fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1][..], &sized16(payload)].concat()
}

/// A handshake message in records of these sizes; what is left goes into the last, as far as it fits into one.
pub(crate) fn framed(message: &[u8], sizes: &[usize]) -> Vec<u8> {
    let (mut rest, mut bytes) = (message, Vec::new());
    for &size in sizes {
        let (now, later) = rest.split_at(size.min(rest.len()));
        bytes.extend(record(HANDSHAKE, now));
        rest = later;
    }
    for payload in rest.chunks(1 << 14) {
        bytes.extend(record(HANDSHAKE, payload));
    }
    bytes
}

/// A message in records of one byte each.
pub(crate) fn crumbs(message: &[u8]) -> Vec<u8> {
    framed(message, &vec![1; message.len()])
}

/// A client's side of TLS, and the message of its hello, which is still to be sent.
pub(crate) fn client(config: &Arc<ClientConfig>, name: &str) -> (ClientConnection, Vec<u8>) {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut tls = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut bytes = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut bytes).unwrap();
    }
    let mut message = Vec::new();
    let mut rest = bytes.as_slice();
    while let [HANDSHAKE, 3, _, high, low, payload @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        message.extend(&payload[..length]);
        rest = &payload[length..];
    }
    assert!(rest.is_empty(), "a client says its hello first");
    (tls, message)
}

/// The kinds of the handshake messages that a server of TLS 1.2 has sent in the clear (RFC 5246 §7.4), and the certificate
/// it has shown.
pub(crate) fn flight(answer: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut joined = Vec::new();
    let mut rest = answer;
    while let [HANDSHAKE, 3, 3, high, low, payload @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        joined.extend(&payload[..length]);
        rest = &payload[length..];
    }
    let (mut kinds, mut certificate) = (Vec::new(), Vec::new());
    let mut rest = joined.as_slice();
    while let [kind, a, b, c, body @ ..] = rest {
        let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).unwrap();
        if *kind == 11 {
            // The list's length, the first certificate's, and the certificate.
            let first = u32::from_be_bytes([0, body[3], body[4], body[5]]);
            certificate = body[6..6 + usize::try_from(first).unwrap()].to_vec();
        }
        kinds.push(*kind);
        rest = &body[length..];
    }
    (kinds, certificate)
}

/// Bytes after their length in two bytes.
fn sized16(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes()[..], bytes].concat()
}
