//! What the bytes of an input mean: how two sides are set up, and what happens between them step by step.

use rustls::ContentType;

use super::meddling::Meddling;
use super::setting::{Rest, Setting};

/// More steps than this show nothing new.
const STEPS: usize = 400;

/// A run.
#[derive(Debug)]
pub(crate) struct Schedule {
    pub(crate) setting: Setting,
    pub(crate) steps: Vec<Step>,
}

/// What happens. Steps that cannot be are passed over.
#[derive(Debug)]
pub(crate) enum Step {
    /// The peer says so many bytes.
    Say(usize),
    /// The peer changes its keys.
    Rekey,
    /// The peer says that it is done.
    PeerCloses,
    /// So many bytes of what the peer has sent arrive, in one read or in several.
    Deliver { bytes: usize, reads_of: usize },
    /// All that the peer has sent arrives.
    DeliverAll,
    /// The records are opened with nothing new.
    OpenNothing,
    /// So many bytes are sealed. So many of what came of them are sent, the rest is owed.
    Seal { bytes: usize, sent: usize },
    /// The records are closed.
    Close,
    /// So many bytes of what is owed are sent.
    Pay(usize),
    /// The peer reads what was sent.
    Hear,
    /// The peer seals one record with so many bytes of what it has to say, too many perhaps, and so much padding (TLS 1.3).
    ForgeWords { bytes: usize, padding: usize },
    /// Somebody meddles with what the peer says.
    Meddle(Meddling),
    /// The last so many bytes come twice.
    Repeat(usize),
    /// The last so many bytes are lost.
    Lose(usize),
}

impl Schedule {
    /// Every input means something.
    pub(crate) fn parse(input: &[u8]) -> Self {
        let mut rest = Rest::new(input);
        let setting = Setting::parse(&mut rest);
        let mut steps = Vec::new();
        while !rest.is_empty() && steps.len() < STEPS {
            let step = Step::parse(&mut rest);
            if !(setting.honest && step.is_hostile()) {
                steps.push(step);
            }
        }
        Self { setting, steps }
    }

    /// On stderr, for a person.
    pub(crate) fn tell(&self) {
        eprintln!("{:#?}", self.setting);
        for step in &self.steps {
            eprintln!("{step:?}");
        }
    }
}

impl Step {
    fn parse(rest: &mut Rest<'_>) -> Self {
        match rest.byte() % 24 {
            0 => Self::Say(rest.short()),
            1 | 2 => Self::Say(rest.byte().into()),
            3 => Self::Rekey,
            4 => Self::PeerCloses,
            5 => Self::Deliver {
                bytes: rest.byte().into(),
                reads_of: 1,
            },
            6 | 7 => Self::Deliver {
                bytes: rest.short(),
                reads_of: usize::MAX,
            },
            8 => Self::Deliver {
                bytes: rest.short(),
                reads_of: 1 + usize::from(rest.byte()) * 16,
            },
            9 | 10 => Self::DeliverAll,
            11 => Self::OpenNothing,
            12 => Self::Seal {
                bytes: rest.short() * 2,
                sent: rest.short(),
            },
            13 | 14 => Self::Seal {
                bytes: rest.byte().into(),
                sent: usize::MAX,
            },
            15 => Self::Close,
            16 => Self::Pay(rest.short()),
            17 => Self::Hear,
            18 => Self::forged(rest),
            19 => Self::ForgeWords {
                bytes: rest.short(),
                padding: 0,
            },
            20 => Self::Meddle(Meddling::flip_inside(rest)),
            21 => Self::Meddle(Meddling::flip(rest)),
            22 => Self::Meddle(Meddling::insert(rest)),
            _ => match rest.byte() {
                length if length < 128 => Self::Repeat(usize::from(length) * 4),
                length => Self::Lose(1 + usize::from(length & 127) * 4),
            },
        }
    }

    /// Messages that a peer could send (RFC 8446 §4, RFC 5246 §7), in halves and wholes, and whatever the input says.
    fn forged(rest: &mut Rest<'_>) -> Self {
        let (typ, bytes) = match rest.byte() % 14 {
            0 => (ContentType::Handshake, vec![24, 0, 0, 1, 0]),
            1 => (ContentType::Handshake, vec![24, 0, 0, 1, 1]),
            2 => (ContentType::Handshake, [24, 0, 0, 1, 1].repeat(20)),
            3 => (ContentType::Handshake, vec![24, 0]),
            // The header of a ticket or of a certificate, and some of it.
            4 => (ContentType::Handshake, vec![4, 0, 0xff, rest.byte(), 0, 0]),
            5 => (ContentType::Handshake, vec![11, 0, 1, rest.byte(), 0, 0]),
            6 => (
                ContentType::Handshake,
                vec![0; usize::from(rest.byte()) * 64],
            ),
            // A request to begin anew, and a hello that does.
            7 => (ContentType::Handshake, vec![0, 0, 0, 0]),
            8 => (ContentType::Handshake, vec![1, 0, 0, 2, 3, 3]),
            9 => (ContentType::Alert, vec![1, rest.byte() % 113]),
            10 => (ContentType::Alert, vec![2, rest.byte() % 113]),
            11 => (ContentType::ChangeCipherSpec, vec![1]),
            12 => (ContentType::ApplicationData, Vec::new()),
            _ => {
                let typ = ContentType::from(rest.byte() % 32);
                let length = rest.byte() % 64;
                // Those of no type are padding (RFC 8446 §5.4).
                let padding = match typ {
                    ContentType::Unknown(0) => 1 + rest.short(),
                    _ => 0,
                };
                if padding > 0 || typ == ContentType::ApplicationData {
                    let bytes = length.into();
                    return Self::ForgeWords { bytes, padding };
                }
                (typ, rest.bytes(length))
            }
        };
        Self::Meddle(Meddling::Forge(typ, bytes))
    }

    fn is_hostile(&self) -> bool {
        match self {
            Self::Meddle(_) | Self::ForgeWords { .. } | Self::Repeat(_) | Self::Lose(_) => true,
            Self::Say(_)
            | Self::Rekey
            | Self::PeerCloses
            | Self::Deliver { .. }
            | Self::DeliverAll
            | Self::OpenNothing
            | Self::Seal { .. }
            | Self::Close
            | Self::Pay(_)
            | Self::Hear => false,
        }
    }
}
