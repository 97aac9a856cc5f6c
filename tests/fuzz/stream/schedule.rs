//! What the bytes of an input mean: two sides, the room between them, and who does what in which order.

use portcullis::tls::End;
use rustls::ContentType;

use super::meddling::Meddling;
use super::setting::{Rest, Setting};

/// More steps than this show nothing new.
const STEPS: usize = 200;

/// A run.
#[derive(Debug)]
pub(crate) struct Schedule {
    pub(crate) setting: Setting,
    pub(crate) room: Room,
    pub(crate) steps: Vec<Step>,
}

/// What the kernel takes of either side before the other has read it (socket(7): SO_SNDBUF), in bytes, if it is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) stream: Option<usize>,
    pub(crate) peer: Option<usize>,
    /// How much of the client's first flight is read before the stream gets the socket.
    pub(crate) received: usize,
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
    /// The peer's socket says so (FIN); what was not sent by now never is.
    PeerEnds,
    /// The peer's socket is closed, with whatever it has not read (a reset).
    PeerLeaves,
    /// The peer sends so much of what it has to.
    Send(usize),
    /// The peer reads so much.
    Hear(usize),
    /// The stream is asked for what has come, woken or not.
    Receive,
    /// The stream is given so many bytes.
    Write(usize),
    /// The stream is flushed.
    Flush,
    /// This side's direction ends.
    Shutdown(End),
    /// The task runs if it was woken.
    Attend,
    /// Somebody meddles with what the peer says.
    Meddle(Meddling),
}

impl Schedule {
    /// Every input means something.
    pub(crate) fn parse(input: &[u8]) -> Self {
        let mut rest = Rest::new(input);
        let setting = Setting::parse(&mut rest);
        let room = Room::parse(&mut rest);
        let mut steps = Vec::new();
        while !rest.is_empty() && steps.len() < STEPS {
            let step = Step::parse(&mut rest);
            if !(setting.honest && step.is_hostile()) {
                steps.push(step);
            }
        }
        Self {
            setting,
            room,
            steps,
        }
    }

    /// On stderr, for a person.
    pub(crate) fn tell(&self) {
        eprintln!("{:#?}\n{:?}", self.setting, self.room);
        for step in &self.steps {
            eprintln!("{step:?}");
        }
    }
}

impl Room {
    fn parse(rest: &mut Rest<'_>) -> Self {
        let sizes = rest.byte();
        let size = |bits: u8| match bits & 3 {
            // The least that Linux allows.
            0 => Some(2304),
            1 => Some(8 << 10),
            2 => Some(32 << 10),
            _ => None,
        };
        Self {
            stream: size(sizes),
            peer: size(sizes >> 2),
            received: match sizes >> 4 {
                15 => usize::MAX,
                sixteenths => usize::from(sizes >> 4) * usize::from(sixteenths) * 4,
            },
        }
    }
}

impl Step {
    fn parse(rest: &mut Rest<'_>) -> Self {
        match rest.byte() % 28 {
            0 => Self::Say(rest.short()),
            1 | 2 => Self::Say(rest.byte().into()),
            3 => Self::Rekey,
            4 => Self::PeerCloses,
            5 => Self::PeerEnds,
            6 => match rest.byte() & 3 {
                0 => Self::PeerLeaves,
                _ => Self::Send(usize::MAX),
            },
            7 | 8 => Self::Send(rest.short()),
            9 => Self::Send(rest.byte().into()),
            10 | 11 => Self::Send(usize::MAX),
            12 => Self::Hear(rest.short()),
            13 => Self::Hear(usize::MAX),
            14 | 15 => Self::Receive,
            16 => Self::Write(usize::from(rest.byte()) * 1024),
            17 => Self::Write(rest.short()),
            18 => Self::Write(rest.byte().into()),
            19 => Self::Flush,
            20 => Self::Shutdown(End::Clean),
            21 => match rest.byte() & 1 {
                0 => Self::Shutdown(End::Truncated),
                _ => Self::Flush,
            },
            22 | 23 => Self::Attend,
            24 => Self::forged(rest),
            25 => Self::Meddle(Meddling::flip_inside(rest)),
            26 => Self::Meddle(Meddling::flip(rest)),
            _ => Self::Meddle(Meddling::insert(rest)),
        }
    }

    /// Records that a peer could send, and that ask something of the stream: an answer, an end, patience, an alert.
    fn forged(rest: &mut Rest<'_>) -> Self {
        let (typ, bytes) = match rest.byte() & 7 {
            0 => (ContentType::Handshake, vec![24, 0, 0, 1, 1]),
            1 => (ContentType::Handshake, vec![24, 0]),
            2 => (ContentType::Handshake, vec![4, 0, 0xff, 0, 0, 0]),
            // A request to begin anew, which TLS 1.2 answers.
            3 => (ContentType::Handshake, vec![0, 0, 0, 0]),
            4 => (ContentType::Alert, vec![1, rest.byte() % 113]),
            5 => (ContentType::Alert, vec![2, rest.byte() % 113]),
            6 => (ContentType::ApplicationData, Vec::new()),
            _ => {
                let length = rest.byte() % 64;
                // Words would be somebody else's.
                let typ = [20, 21, 22, 24][usize::from(length & 3)];
                (ContentType::from(typ), rest.bytes(length))
            }
        };
        Self::Meddle(Meddling::Forge(typ, bytes))
    }

    fn is_hostile(&self) -> bool {
        match self {
            Self::Meddle(_) => true,
            Self::Say(_)
            | Self::Rekey
            | Self::PeerCloses
            | Self::PeerEnds
            | Self::PeerLeaves
            | Self::Send(_)
            | Self::Hear(_)
            | Self::Receive
            | Self::Write(_)
            | Self::Flush
            | Self::Shutdown(_)
            | Self::Attend => false,
        }
    }
}
