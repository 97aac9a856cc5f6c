//! The lives of connections: what both ends do in one follows from its number.

use std::time::Duration;

use crate::chance::Chance;

/// The gateway's routes, by the names that clients ask for.
pub(crate) const ROUTES: [&str; 3] = ["pass", "open", "mesh"];

/// One life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) number: u64,
    pub(crate) kind: Kind,
    /// One of [`ROUTES`].
    pub(crate) route: &'static str,
    /// The client speaks TLS 1.2, else 1.3.
    pub(crate) old: bool,
    pub(crate) up: Flow,
    pub(crate) down: Flow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A few words, and gone.
    Fleeting,
    /// Someone types, and sees the answers.
    Keys,
    Up,
    Down,
    Both,
    /// The client, or the upstream, takes its bytes by the spoonful.
    SlowClient,
    SlowUpstream,
    /// Long nothing, then a word.
    Idle,
    /// One ends its direction before the other begins.
    ClientFirst,
    UpstreamFirst,
    /// One breaks off in the middle.
    ClientBreaks,
    UpstreamBreaks,
}

/// One direction of a life, as its sender and its receiver keep to it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flow {
    pub(crate) bytes: u64,
    /// The most that is written at once.
    pub(crate) chunk: u64,
    /// Before each chunk, on average.
    pub(crate) pause: Duration,
    /// The sender waits for the end of the other direction.
    pub(crate) waits: bool,
    /// After so many bytes the sender breaks off.
    pub(crate) cut: Option<u64>,
    /// It does so with a reset, else with TCP's end and without that of TLS.
    pub(crate) resets: bool,
    /// After so many chunks the sender changes its keys, where it speaks TLS 1.3; 0 is never.
    pub(crate) rekey: u64,
    /// What the receiver takes between two pauses, and how long these are. Its socket holds little, too.
    pub(crate) sip: Option<(usize, Duration)>,
}

impl Plan {
    /// The life with this number; most are shorter than `longest`.
    pub(crate) fn new(number: u64, longest: Duration) -> Self {
        let mut chance = Chance::new(number);
        chance.next();
        let kind = Kind::by(&mut chance);
        let route = *chance.pick(&ROUTES);
        let old = chance.one_in(4);
        let time = longest.mul_f64(chance.between(25, 100) as f64 / 100.0);
        let (mut up, mut down) = (Flow::bulk(&mut chance, 0), Flow::bulk(&mut chance, 0));
        match kind {
            Kind::Fleeting => {
                up = Flow::bulk(&mut chance, 300);
                down = Flow::bulk(&mut chance, 3000);
            }
            Kind::Keys => {
                up = Flow::paced(&mut chance, time, 40);
                down = Flow::paced(&mut chance, time, 400);
            }
            Kind::Up => up = Flow::bulk(&mut chance, LOAD),
            Kind::Down => down = Flow::bulk(&mut chance, LOAD),
            Kind::Both => {
                up = Flow::bulk(&mut chance, LOAD);
                down = Flow::bulk(&mut chance, LOAD);
            }
            Kind::SlowClient => down = Flow::slow(&mut chance, time),
            Kind::SlowUpstream => up = Flow::slow(&mut chance, time),
            Kind::Idle => {
                up.bytes = 1;
                up.pause = time;
                down.pause = time;
            }
            Kind::ClientFirst => {
                up = Flow::bulk(&mut chance, 200_000);
                down = Flow::paced(&mut chance, time, 20_000);
                down.waits = true;
            }
            Kind::UpstreamFirst => {
                down = Flow::bulk(&mut chance, 200_000);
                up = Flow::paced(&mut chance, time, 20_000);
                up.waits = true;
            }
            Kind::ClientBreaks | Kind::UpstreamBreaks => {
                up = Flow::paced(&mut chance, time, 30_000);
                down = Flow::paced(&mut chance, time, 30_000);
                let flow = match kind {
                    Kind::ClientBreaks => &mut up,
                    _ => &mut down,
                };
                flow.cut = Some(chance.between(0, flow.bytes - 1));
                // To plain TCP any end is an end.
                flow.resets = route == "open" || chance.one_in(2);
            }
        }
        Self {
            number,
            kind,
            route,
            old,
            up,
            down,
        }
    }

    /// Somebody breaks off.
    pub(crate) fn is_cut(&self) -> bool {
        self.up.cut.or(self.down.cut).is_some()
    }
}

/// The most that a bulk brings.
const LOAD: u64 = 1024 * 1024;

impl Kind {
    /// Half of them short, so that many come and go beside those that stay.
    fn by(chance: &mut Chance) -> Self {
        match chance.below(100) {
            0..20 => Self::Fleeting,
            20..45 => Self::Keys,
            45..48 => Self::Up,
            48..51 => Self::Down,
            51..53 => Self::Both,
            53..56 => Self::SlowClient,
            56..59 => Self::SlowUpstream,
            59..80 => Self::Idle,
            80..85 => Self::ClientFirst,
            85..90 => Self::UpstreamFirst,
            90..95 => Self::ClientBreaks,
            _ => Self::UpstreamBreaks,
        }
    }
}

impl Flow {
    /// As much as there is, at once.
    fn bulk(chance: &mut Chance, most: u64) -> Self {
        Self {
            bytes: chance.between(0, most),
            chunk: chance.between(1, 64) * 1024,
            rekey: 5 * chance.between(0, 3),
            ..Self::default()
        }
    }

    /// A chunk now and then, over this time.
    fn paced(chance: &mut Chance, time: Duration, chunk: u64) -> Self {
        let chunks = chance.between(4, 24);
        Self {
            bytes: chunks * chunk / 2,
            chunk,
            pause: time / chunks as u32,
            rekey: chance.between(0, 3),
            ..Self::default()
        }
    }

    /// More than sockets hold, and taken over this time.
    fn slow(chance: &mut Chance, time: Duration) -> Self {
        let sips = 128;
        let sip = chance.between(8_000, 16_000);
        Self {
            sip: Some((sip as usize, time / sips)),
            bytes: u64::from(sips) * sip,
            ..Self::bulk(chance, 0)
        }
    }
}
