//! Schedules with OpenSSL at one end or both: `s_client` in front of the gate, `s_server` behind it.

use std::io::ErrorKind;
use std::ops::Range;
use std::path;
use std::sync::{Arc, LazyLock};

use portcullis::reason::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::gate::{Ended, Gate, How, Mode, PATHS, Path, Why};
use super::schedule::Cuts;
use super::{Tls, sockets};
use crate::authority::Authority;
use crate::chance::Chance;
use crate::peers;
use crate::support::PATIENCE;
use program::{LINE, Program};
use wire::{Break, Wire};

mod program;
mod wire;

/// What happens next; nothing more does before it has been heard at the other end. Sides are 0 and 1, as everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// A side says so many lines.
    Say(usize, usize),
    /// An OpenSSL changes its keys, and asks for those of the gate or does not.
    UpdateKeys(usize, bool),
}

/// Who ends first, and how; the other side ends when it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// A bare socket's FIN.
    Plain(usize),
    /// OpenSSL is told to: `s_client` says `close_notify`, `s_server` closes its socket and says nothing.
    Quit(usize),
    /// OpenSSL is killed: no `close_notify`.
    Kill(usize),
    /// The wire breaks in the middle of what OpenSSL says.
    Torn(usize, Break),
}

#[derive(Clone, Debug)]
struct Schedule {
    seed: u64,
    mode: Mode,
    /// Whether a side's OpenSSL speaks TLS 1.2 and not 1.3.
    old: [bool; 2],
    turns: Vec<Turn>,
    ending: Ending,
    cuts: [Cuts; 2],
    /// The gate's keys wear out after a few records.
    worn: bool,
}

/// What becomes of one schedule.
#[derive(Debug, PartialEq)]
struct Seen {
    ended: Ended,
    /// What each side has heard, and how a bare socket has ended.
    heard: [(String, Option<ErrorKind>); 2],
}

/// The seeds that are played each time.
const BY_DEFAULT: [(Mode, Range<u64>); 3] = [
    (Mode::Terminate, 0..130),
    (Mode::Originate, 0..130),
    (Mode::ReEncrypt, 0..70),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_use_openssl_see_no_difference() {
    let [(mode, seeds), ..] = BY_DEFAULT;
    alike(mode, seeds).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstreams_that_use_openssl_see_no_difference() {
    let [_, (mode, seeds), _] = BY_DEFAULT;
    alike(mode, seeds).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_and_upstreams_that_use_openssl_see_no_difference() {
    let [.., (mode, seeds)] = BY_DEFAULT;
    alike(mode, seeds).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_schedules_with_openssl_end_alike() {
    if peers::long() {
        alike(Mode::Terminate, 1_000..2_500).await;
        alike(Mode::Originate, 1_000..2_500).await;
        alike(Mode::ReEncrypt, 1_000..1_800).await;
    }
}

#[test]
fn the_schedules_with_openssl_are_of_every_kind() {
    let schedules: Vec<Schedule> = BY_DEFAULT
        .into_iter()
        .flat_map(|(mode, seeds)| seeds.map(move |seed| Schedule::new(seed, mode)))
        .collect();
    let at_least = |least: usize, what: &str, is_so: &dyn Fn(&Schedule) -> bool| {
        let count = schedules.iter().filter(|one| is_so(one)).count();
        assert!(count >= least, "{count}: {what}");
    };
    at_least(330, "all", &|_| true);
    at_least(100, "key updates", &|one| {
        let update = |turn: &Turn| matches!(turn, Turn::UpdateKeys(..));
        one.turns.iter().any(update)
    });
    for old in [false, true] {
        for side in [0, 1] {
            let version = |one: &Schedule| one.mode.tls()[side] && one.old[side] == old;
            at_least(80, "a version", &version);
            for reset in [false, true] {
                at_least(4, "torn", &|one| {
                    let torn = matches!(one.ending, Ending::Torn(by, how) if by == side && how.reset == reset);
                    version(one) && torn
                });
            }
            at_least(10, "quit", &|one| {
                version(one) && one.ending == Ending::Quit(side)
            });
            at_least(5, "killed", &|one| {
                version(one) && one.ending == Ending::Kill(side)
            });
            at_least(10, "single bytes", &|one| {
                version(one) && one.cuts[side] == Cuts::Bytes
            });
        }
    }
}

/// Plays the schedules of these seeds through both paths, several at a time.
async fn alike(mode: Mode, seeds: Range<u64>) {
    let Some(openssl) = peers::require("openssl", "openssl") else {
        return;
    };
    let authority = Authority::new();
    authority.issue_files("peer", &[super::gate::NAME]);
    let bench = Arc::new((openssl, Tls::by(&authority), authority));
    let turns = Arc::new(Semaphore::new(4));
    let mut playing = JoinSet::new();
    for seed in seeds {
        let (bench, turns) = (Arc::clone(&bench), Arc::clone(&turns));
        playing.spawn(async move {
            let _turn = turns.acquire().await.unwrap();
            let schedule = Schedule::new(seed, mode);
            let [ours, reference] = [
                both(&bench, PATHS[0], &schedule).await,
                both(&bench, PATHS[1], &schedule).await,
            ];
            assert!(
                ours == reference,
                "{:?} {:?} {schedule:?}",
                ours.ended,
                reference.ended
            );
            schedule.expect(&ours);
        });
    }
    while let Some(played) = playing.join_next().await {
        played.unwrap();
    }
}

async fn both(bench: &(path::PathBuf, Tls, Authority), path: Path, schedule: &Schedule) -> Seen {
    let (openssl, tls, authority) = bench;
    let gate = match schedule.worn {
        true => tls.worn.clone(),
        false => tls.gate.clone(),
    };
    let playing = play(openssl, authority, gate, path, schedule);
    let played = timeout(PATIENCE, playing).await;
    played.unwrap_or_else(|_| panic!("{path:?} does not end: {schedule:?}"))
}

impl Schedule {
    fn new(seed: u64, mode: Mode) -> Self {
        let mut chance = Chance::new(seed);
        let programs = mode.tls();
        let old = [chance.one_in(2), chance.one_in(2)];
        // `s_server` reads its terminal too early unless it has been spoken to.
        let mut turns = vec![Turn::Say(0, 1), Turn::Say(1, 1)];
        for _ in 0..2 + chance.below(6) {
            let lines = *chance.pick(&[1, 1, 1, 10, 100, 1_638, 1_639, 4_096, 7_000]);
            let side = chance.below(2);
            if chance.one_in(3) && programs[side] && !old[side] {
                turns.push(Turn::UpdateKeys(side, chance.one_in(2)));
                // The line behind it is printed when the command has been read: what OpenSSL says next is none.
                turns.push(Turn::Say(1 - side, 1));
            } else {
                turns.push(Turn::Say(side, lines));
            }
        }
        // Whatever keys are the last, both sides use them.
        turns.extend([Turn::Say(1, 1), Turn::Say(0, 1)]);
        let side = chance.below(2);
        let torn = Break {
            after: chance.below(40),
            reset: chance.one_in(2),
        };
        let ending = match chance.below(5) {
            _ if !programs[side] => Ending::Plain(side),
            0 => Ending::Kill(side),
            1..3 => Ending::Torn(side, torn),
            _ => Ending::Quit(side),
        };
        Self {
            seed,
            mode,
            old,
            turns,
            ending,
            cuts: [Cuts::draw(&mut chance), Cuts::draw(&mut chance)],
            worn: chance.one_in(3),
        }
    }

    /// What a side says in all.
    fn said(&self, side: usize) -> &'static str {
        let counts = self.turns.iter().map(|turn| match *turn {
            Turn::Say(by, count) if by == side => count,
            _ => 0,
        });
        lines(&mut 0, counts.sum())
    }

    /// What must come of it, whatever the path.
    fn expect(&self, seen: &Seen) {
        for side in [0, 1] {
            assert!(seen.heard[side].0 == self.said(1 - side), "{side} {self:?}");
        }
        let reset = Why::Io(ErrorKind::ConnectionReset);
        // An OpenSSL leaves with an alert when it hears an end without `close_notify`; that is not its fault.
        let cut_off = Why::Io(ErrorKind::UnexpectedEof);
        let to_openssl = self.mode == Mode::ReEncrypt;
        let how = match self.ending {
            Ending::Torn(0, Break { reset: true, .. }) => How::ClientFailed(reset),
            Ending::Torn(_, Break { reset: true, .. }) => How::UpstreamFailed(reset),
            Ending::Plain(_) | Ending::Quit(0) => How::Closed,
            Ending::Torn(0, _) | Ending::Kill(0) if to_openssl => How::ClientFailed(cut_off),
            _ if to_openssl => How::UpstreamFailed(cut_off),
            _ => How::Closed,
        };
        let reason = match how {
            How::ClientFailed(_) => Reason::ClientReset,
            How::UpstreamFailed(_) => Reason::UpstreamReset,
            _ => Reason::Closed,
        };
        assert_eq!(
            (&seen.ended.how, seen.ended.reason),
            (&how, reason),
            "{self:?}"
        );
        let lengths = [0, 1].map(|side| self.said(side).len() as u64);
        assert_eq!([seen.ended.up, seen.ended.down], lengths, "{self:?}");
    }
}

/// All that anybody may say: no line is said twice by one, and none is a command.
static LINES: LazyLock<String> =
    LazyLock::new(|| (0..100_000).map(|line| format!("{line:09}\n")).collect());

/// The next lines of one who has said so many.
fn lines(said: &mut usize, count: usize) -> &'static str {
    let start = *said * LINE;
    *said += count;
    &LINES[start..*said * LINE]
}

/// One side of the gate.
enum Side {
    Plain(TcpStream),
    Program(Program, Wire),
}

impl Side {
    async fn say(&mut self, text: &str) {
        match self {
            Self::Plain(tcp) => tcp.write_all(text.as_bytes()).await.unwrap(),
            Self::Program(program, _) => program.say(text).await,
        }
    }

    async fn hear(&mut self, count: usize) -> String {
        match self {
            Self::Plain(tcp) => {
                let mut text = vec![0; count];
                tcp.read_exact(&mut text).await.unwrap();
                String::from_utf8(text).unwrap()
            }
            Self::Program(program, _) => program.hear(count).await,
        }
    }

    /// Ends first.
    async fn end(&mut self, ending: Ending) {
        match (self, ending) {
            (Self::Plain(tcp), _) => tcp.shutdown().await.unwrap(),
            (Self::Program(program, wire), Ending::Torn(_, how)) => {
                wire.break_off(how);
                program.say("torn\n").await;
            }
            (Self::Program(program, _), Ending::Kill(_)) => program.kill(),
            (Self::Program(program, _), _) => program.say("Q\n").await,
        }
    }

    /// What comes until the other side has ended; then this one has ended too.
    async fn rest(self) -> (String, Option<ErrorKind>) {
        match self {
            Self::Plain(mut tcp) => {
                let mut text = Vec::new();
                let read = tcp.read_to_end(&mut text).await;
                let _ = tcp.shutdown().await;
                let text = String::from_utf8(text).unwrap();
                (text, read.err().map(|e| e.kind()))
            }
            Self::Program(program, wire) => {
                let text = program.rest().await;
                wire.ended().await;
                (text, None)
            }
        }
    }
}

async fn play(
    openssl: &path::Path,
    authority: &Authority,
    gate: Gate,
    path: Path,
    schedule: &Schedule,
) -> Seen {
    let [ends, begins] = schedule.mode.tls();
    let chance = |side: u64| Chance::new(!schedule.seed ^ side);
    let (client, accepted) = match ends {
        false => {
            let (client, accepted) = sockets(None).await;
            (Side::Plain(client), accepted)
        }
        true => {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let program = Program::client(openssl, schedule.old[0], address).await;
            let (far, _) = listener.accept().await.unwrap();
            let (near, accepted) = sockets(None).await;
            let wire = Wire::new(far, near, schedule.cuts[0], chance(0));
            (Side::Program(program, wire), accepted)
        }
    };
    let (upstream, dialled) = match begins {
        false => {
            let (dialled, upstream) = sockets(None).await;
            (Side::Plain(upstream), dialled)
        }
        true => {
            let folder = authority.folder();
            let (program, address) = Program::server(openssl, schedule.old[1], folder).await;
            let far = TcpStream::connect(address).await.unwrap();
            let (near, dialled) = sockets(None).await;
            let wire = Wire::new(far, near, schedule.cuts[1], chance(1));
            (Side::Program(program, wire), dialled)
        }
    };
    let carried = tokio::spawn(gate.carry(path, schedule.mode, accepted, dialled));
    let mut sides = [client, upstream];
    let mut said = [0, 0];
    let mut heard = [String::new(), String::new()];
    for turn in &schedule.turns {
        match *turn {
            Turn::Say(side, count) => {
                let text = lines(&mut said[side], count);
                let [client, upstream] = &mut sides;
                let (by, to) = match side {
                    0 => (client, upstream),
                    _ => (upstream, client),
                };
                let (hearing, ()) = tokio::join!(to.hear(count * LINE), by.say(text));
                heard[1 - side] += &hearing;
            }
            Turn::UpdateKeys(side, asking) => match &mut sides[side] {
                Side::Program(program, _) => program.update_keys(asking).await,
                Side::Plain(_) => unreachable!("a bare socket has no keys"),
            },
        }
    }
    let first = match schedule.ending {
        Ending::Plain(side) | Ending::Quit(side) | Ending::Kill(side) | Ending::Torn(side, _) => {
            side
        }
    };
    sides[first].end(schedule.ending).await;
    let [client, upstream] = sides;
    let (client, upstream) = tokio::join!(client.rest(), upstream.rest());
    let [by_client, by_upstream] = heard;
    Seen {
        ended: carried.await.unwrap(),
        heard: [
            (by_client + &client.0, client.1),
            (by_upstream + &upstream.0, upstream.1),
        ],
    }
}
