//! Schedules: what both ends of a tunnel say, in which pieces, when, and how each of them ends; drawn from a seed.

use super::gate::Mode;
use crate::chance::Chance;

/// What one end does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Says so many bytes more of its text.
    Say(usize),
    /// Changes the keys it sends with, and asks the other end to do the same (RFC 8446 §4.6.3).
    UpdateKeys,
    /// Waits until it has heard so many bytes in all.
    Hear(u64),
    /// Waits until all that it has said was heard at the other end.
    BeHeard,
    /// Waits until the other end has ended its direction.
    HearEnd,
    /// Reads no more until the other end cannot go on.
    StopReading,
    /// Ends its direction.
    End(Ending),
}

/// How one end ends its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// With a `close_notify`, and FIN.
    Clean,
    /// FIN alone.
    Fin,
    /// FIN, after half a record.
    Torn,
    /// RST.
    Reset,
    /// RST, after half a record.
    TornReset,
}

/// Where what is sent is cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cuts {
    /// Nowhere.
    Whole,
    /// After each byte, for the first and the last some of them.
    Bytes,
    /// So many bytes beyond the end of each record, or before it.
    Records(isize),
    /// So many bytes behind the beginning of each record.
    Headers(usize),
    /// In pieces of up to so many bytes.
    Random(usize),
}

/// The client's side and the upstream's are 0 and 1 everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    pub(super) seed: u64,
    pub(super) mode: Mode,
    /// Whether a side speaks TLS 1.2 and not 1.3.
    pub(super) old: [bool; 2],
    pub(super) steps: [Vec<Step>; 2],
    pub(super) cuts: [Cuts; 2],
    /// How much each side reads at a time.
    pub(super) reads: [usize; 2],
    /// All sockets have small buffers.
    pub(super) narrow: bool,
    /// The gate's keys wear out after a few records.
    pub(super) worn: bool,
    /// How much of the client's hello is read before its TLS begins, as the gateway does.
    pub(super) kept: usize,
}

/// How many single bytes [`Cuts::Bytes`] sends at each end of what is said.
const SINGLE: usize = 30;

impl Schedule {
    /// The schedule of this seed; always the same.
    pub(super) fn new(seed: u64, mode: Mode) -> Self {
        let mut chance = Chance::new(seed);
        let tls = mode.tls();
        let old = [chance.one_in(3), chance.one_in(3)];
        let mut script = Script::default();
        let turns = chance.below(9);
        let first_end = chance.below(turns + 1);
        let first = chance.below(2);
        let mut ended = [false; 2];
        // Now and then nobody says a word, or both end at once.
        if !chance.one_in(20) {
            script.opening(&mut chance, first, tls[first] && !old[first]);
        }
        for turn in 0..turns {
            if turn == first_end {
                script.end(&mut chance, first, tls[first], ended);
                ended[first] = true;
            }
            if ended[first] && script.is_reset() {
                break;
            }
            let side = match ended[first] {
                true => 1 - first,
                false => chance.below(2),
            };
            script.turn(&mut chance, side, tls[side] && !old[side]);
        }
        for side in [first, 1 - first] {
            if !ended[side] && !script.is_reset() {
                script.end(&mut chance, side, tls[side], ended);
                ended[side] = true;
            }
        }
        Self {
            seed,
            mode,
            old,
            steps: script.steps,
            cuts: [Cuts::draw(&mut chance), Cuts::draw(&mut chance)],
            reads: [0; 2].map(|_| *chance.pick(&[64 * 1024, 64 * 1024, 4096, 1000])),
            narrow: chance.one_in(3),
            worn: chance.one_in(4),
            kept: *chance.pick(&[0, 1, 5, 100, 16 * 1024]),
        }
    }

    /// How many bytes a side says.
    pub(super) fn said(&self, side: usize) -> u64 {
        let said = |step: &Step| match step {
            Step::Say(count) => *count as u64,
            _ => 0,
        };
        self.steps[side].iter().map(said).sum()
    }

    /// How often a side changes its keys.
    pub(super) fn key_updates(&self) -> usize {
        let updates = |step: &&Step| **step == Step::UpdateKeys;
        self.steps.iter().flatten().filter(updates).count()
    }

    /// How a side ends; `None` if it is the other's reset that ends it.
    pub(super) fn ending(&self, side: usize) -> Option<Ending> {
        self.steps[side].iter().find_map(|step| match step {
            Step::End(ending) => Some(*ending),
            _ => None,
        })
    }
}

#[derive(Default)]
struct Script {
    steps: [Vec<Step>; 2],
    said: [u64; 2],
}

impl Script {
    /// One step of a side, in the order in which both make theirs: it waits for nothing that is not said before.
    fn turn(&mut self, chance: &mut Chance, side: usize, keys: bool) {
        let step = match chance.below(16) {
            0..2 | 6 if keys => Step::UpdateKeys,
            2..4 => Step::Hear(self.said[1 - side]),
            4 => Step::BeHeard,
            5 => Step::StopReading,
            _ => return self.say(side, size(chance)),
        };
        self.steps[side].push(step);
    }

    /// The first words of a side, and new keys behind them or none.
    fn opening(&mut self, chance: &mut Chance, side: usize, keys: bool) {
        self.say(side, *chance.pick(&[1, 100, 4_096, 16_385]));
        if keys && chance.one_in(2) {
            self.steps[side].push(Step::UpdateKeys);
            self.say(side, *chance.pick(&[1, 1_000, 20_000]));
        }
    }

    fn say(&mut self, side: usize, count: usize) {
        self.said[side] += count as u64;
        self.steps[side].push(Step::Say(count));
    }

    fn end(&mut self, chance: &mut Chance, side: usize, tls: bool, ended: [bool; 2]) {
        let ending = match chance.below(12) {
            0..2 => Ending::Fin,
            2 if tls => Ending::Torn,
            3 if tls => Ending::TornReset,
            3..5 => Ending::Reset,
            _ => Ending::Clean,
        };
        if matches!(ending, Ending::Reset | Ending::TornReset) {
            // What a reset overtakes is anybody's guess: all has arrived before it, the last keys too.
            if !ended[1 - side] {
                self.say(1 - side, 1);
            }
            self.steps[side].push(Step::Hear(self.said[1 - side]));
            self.steps[side].push(Step::BeHeard);
            if ended[1 - side] {
                self.steps[side].push(Step::HearEnd);
            }
        }
        self.steps[side].push(Step::End(ending));
    }

    fn is_reset(&self) -> bool {
        let reset = |step: &Step| matches!(step, Step::End(Ending::Reset | Ending::TornReset));
        self.steps.iter().flatten().any(reset)
    }
}

impl Cuts {
    pub(super) fn draw(chance: &mut Chance) -> Self {
        match chance.below(10) {
            0..3 => Self::Whole,
            3 => Self::Bytes,
            4..6 => Self::Records(*chance.pick(&[-1, 0, 1])),
            6..8 => Self::Headers(*chance.pick(&[1, 4, 5, 6])),
            _ => Self::Random(*chance.pick(&[3, 700, 5_000, 20_000, 70_000])),
        }
    }

    /// Where the pieces end of what is sent at once; where it is TLS, it begins with a record's first byte.
    pub(super) fn ends(self, bytes: &[u8], chance: &mut Chance) -> Vec<usize> {
        let all = bytes.len();
        let mut ends: Vec<usize> = match self {
            Self::Whole => Vec::new(),
            Self::Bytes => (1..SINGLE).chain(all.saturating_sub(SINGLE)..all).collect(),
            Self::Records(beyond) => records(bytes)
                .filter_map(|start| start.checked_add_signed(beyond))
                .collect(),
            Self::Headers(behind) => records(bytes).map(|start| start + behind).collect(),
            Self::Random(largest) => {
                let mut end = 0;
                let mut next = || {
                    end += 1 + chance.below(largest);
                    end
                };
                (0..2 * SINGLE).map(|_| next()).collect()
            }
        };
        ends.retain(|end| (1..all).contains(end));
        ends.push(all);
        ends.sort_unstable();
        ends.dedup();
        ends
    }
}

/// Where records begin, as their headers tell (RFC 8446 §5.1).
pub(super) fn records(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let next = |start: &usize| {
        let length = bytes.get(start + 3..start + 5)?;
        Some(start + 5 + usize::from(u16::from_be_bytes([length[0], length[1]])))
    };
    std::iter::successors(Some(0), next)
}

fn size(chance: &mut Chance) -> usize {
    match chance.below(40) {
        0 => 1 << 20,
        1..5 => *chance.pick(&[65_535, 65_536, 65_537, 200_000, 300_000]),
        5..14 => *chance.pick(&[16_383, 16_384, 16_385, 32_768, 32_769]),
        14..18 => chance.below(20_000),
        _ => *chance.pick(&[0, 1, 2, 100, 1_000, 4_096]),
    }
}
