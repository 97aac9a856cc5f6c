//! What somebody does to what the peer says, before it is sealed or on its way.

use std::collections::VecDeque;
use std::io::Write;

use rustls::{Connection, ContentType};

use super::crypto::{self, Forgery};
use super::setting::Rest;

/// One such deed.
#[derive(Debug)]
pub(crate) enum Meddling {
    /// The peer seals a record that it should not.
    Forge(ContentType, Vec<u8>),
    /// One of the peer's next records is not what it should be.
    FlipInside { pass: usize, at: usize, bits: u8 },
    /// A byte is changed on its way.
    Flip { at: usize, bits: u8 },
    /// Bytes come from elsewhere.
    Insert(Vec<u8>),
}

impl Meddling {
    pub(crate) fn flip_inside(rest: &mut Rest<'_>) -> Self {
        Self::FlipInside {
            pass: (rest.byte() & 7).into(),
            at: rest.byte().into(),
            bits: rest.byte() | 1,
        }
    }

    pub(crate) fn flip(rest: &mut Rest<'_>) -> Self {
        Self::Flip {
            at: rest.short(),
            bits: rest.byte().max(1),
        }
    }

    pub(crate) fn insert(rest: &mut Rest<'_>) -> Self {
        let length = rest.byte();
        Self::Insert(rest.bytes(length))
    }

    /// Does it to the peer, or to what it has sent; tells whether that could be done.
    pub(crate) fn work(&self, peer: &mut Connection, sent: &mut VecDeque<u8>) -> bool {
        match *self {
            Self::Forge(typ, ref bytes) => {
                let is_possible = !peer.is_handshaking();
                if is_possible {
                    forge(peer, typ, bytes.clone());
                }
                is_possible
            }
            Self::FlipInside { pass, at, bits } => {
                // Where no record follows, nothing comes of it.
                crypto::plan(Some(Forgery::Flip { pass, at, bits }));
                true
            }
            Self::Flip { at, bits } => {
                let at = at % sent.len().max(1);
                let byte = sent.get_mut(at).map(|byte| *byte ^= bits);
                byte.is_some()
            }
            Self::Insert(ref bytes) => {
                sent.extend(bytes);
                true
            }
        }
    }
}

/// Has the peer seal this; tells whether it has.
pub(crate) fn forge(peer: &mut Connection, typ: ContentType, bytes: Vec<u8>) -> bool {
    crypto::plan(Some(Forgery::Instead(typ, bytes)));
    // In its place comes what was planned.
    let _ = peer.writer().write(b"a");
    !crypto::plan(None)
}
