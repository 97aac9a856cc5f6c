//! Schedules with OpenSSL at one end: `s_client` in front of the gate, `s_server` behind it.

use std::cell::Cell;
use std::io::Write;
use std::net::SocketAddr;
use std::ops::Range;
use std::path;
use std::process::{ChildStdin, Command};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::block_in_place;
use tokio::time::timeout;

use super::gate::{Ended, Gate, How, Mode, NAME, PATHS, Path};
use super::schedule::Dice;
use crate::authority::Authority;
use crate::peers;
use crate::support::{Child, PATIENCE};

/// What happens next; nothing more does before it has been heard at the other end.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// OpenSSL says so many lines.
    Program(usize),
    /// The bare socket says so many lines.
    Plain(usize),
    /// OpenSSL changes its keys, and asks for those of the gate or does not.
    UpdateKeys { asking: bool },
}

#[derive(Clone, Debug)]
struct Schedule {
    mode: Mode,
    old: bool,
    turns: Vec<Turn>,
    /// Whether OpenSSL is the first to end.
    program_first: bool,
}

/// What becomes of one schedule.
#[derive(Debug, PartialEq)]
struct Seen {
    ended: Ended,
    /// What the bare socket has heard, and OpenSSL.
    heard: [String; 2],
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_use_openssl_see_no_difference() {
    alike(Mode::Terminate, 0..4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstreams_that_use_openssl_see_no_difference() {
    alike(Mode::Originate, 0..4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_more_schedules_with_openssl_end_alike() {
    if peers::long() {
        alike(Mode::Terminate, 4..60).await;
        alike(Mode::Originate, 4..60).await;
    }
}

async fn alike(mode: Mode, seeds: Range<u64>) {
    let Some(openssl) = peers::require("openssl", "openssl") else {
        return;
    };
    let authority = Authority::new();
    authority.issue_files("peer", &[NAME]);
    for seed in seeds {
        for old in [false, true] {
            let schedule = Schedule::new(seed, mode, old);
            let mut seen = Vec::new();
            for path in PATHS {
                let playing = play(&openssl, &authority, path, &schedule);
                let played = timeout(PATIENCE, playing).await;
                seen.push(played.unwrap_or_else(|_| panic!("{path:?} {seed} {schedule:?}")));
            }
            assert!(seen[0] == seen[1], "{schedule:?}");
            let (by_program, by_plain) = schedule.said();
            assert!(seen[0].heard == [by_program, by_plain], "{schedule:?}");
            assert_eq!(seen[0].ended.how, How::Closed, "{schedule:?}");
        }
    }
}

impl Schedule {
    fn new(seed: u64, mode: Mode, old: bool) -> Self {
        let mut dice = Dice::new(seed);
        // `s_server` reads its terminal too early unless it has been spoken to.
        let mut turns = vec![Turn::Plain(1)];
        for _ in 0..2 + dice.below(8) {
            let lines = *dice.pick(&[1, 1, 10, 1_638, 1_639, 4_096, 20_000]);
            match dice.below(3) {
                0 => turns.push(Turn::Program(lines)),
                1 => turns.push(Turn::Plain(lines)),
                _ if old => turns.push(Turn::Plain(1)),
                // The line behind it is printed when the command has been read: what OpenSSL says next is none.
                _ => turns.extend([
                    Turn::UpdateKeys {
                        asking: dice.one_in(2),
                    },
                    Turn::Plain(1),
                ]),
            }
        }
        // Whatever keys are the last, both sides use them.
        turns.extend([Turn::Plain(1), Turn::Program(1)]);
        Self {
            mode,
            old,
            turns,
            // At the command to end, `s_server` closes its socket and says nothing.
            program_first: mode == Mode::Terminate && dice.one_in(2),
        }
    }

    /// What OpenSSL says in all, and the bare socket.
    fn said(&self) -> (String, String) {
        let mut said = [(0, String::new()), (0, String::new())];
        for turn in &self.turns {
            match *turn {
                Turn::Program(count) => said[0].1 += &lines(&mut said[0].0, count),
                Turn::Plain(count) => said[1].1 += &lines(&mut said[1].0, count),
                Turn::UpdateKeys { .. } => {}
            }
        }
        let [program, plain] = said.map(|(_, text)| text);
        (program, plain)
    }
}

/// The next lines of one who has said so many; none is said twice, and none is a command.
fn lines(said: &mut usize, count: usize) -> String {
    let lines = (*said..*said + count).map(|line| format!("{line:09}\n"));
    *said += count;
    lines.collect()
}

async fn play(
    openssl: &path::Path,
    authority: &Authority,
    path: Path,
    schedule: &Schedule,
) -> Seen {
    let mut command = Command::new(openssl);
    let version = if schedule.old { "-tls1_2" } else { "-tls1_3" };
    let file = |name: &str| authority.folder().join(name);
    let gate = gate(authority);
    let (mut program, mut plain, carried) = match schedule.mode {
        Mode::Terminate => {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            command.args(["s_client", "-quiet", "-no_ign_eof", version]);
            command.args(["-connect", &address, "-servername", NAME]);
            let program = Program::start(&command);
            let (accepted, _) = listener.accept().await.unwrap();
            let (far, plain) = super::sockets(None).await;
            let carried = tokio::spawn(gate.carry(path, Mode::Terminate, accepted, far));
            (program, plain, carried)
        }
        _ => {
            command.args([
                "s_server",
                "-accept",
                "127.0.0.1:0",
                "-naccept",
                "1",
                version,
            ]);
            command.arg("-cert").arg(file("peer.pem"));
            command.arg("-key").arg(file("peer.key"));
            let program = Program::start(&command);
            let address = program.wait_for("its address", |line| {
                line.strip_prefix("ACCEPT ")?.parse::<SocketAddr>().ok()
            });
            let dialled = TcpStream::connect(address).await.unwrap();
            let (far, plain) = super::sockets(None).await;
            let carried = tokio::spawn(gate.carry(path, Mode::Originate, far, dialled));
            (program, plain, carried)
        }
    };
    let mut heard = String::new();
    let mut counts = [0, 0];
    for turn in &schedule.turns {
        match *turn {
            Turn::Program(count) => {
                let text = lines(&mut counts[0], count);
                let saying = program.say(&text);
                let mut piece = vec![0; text.len()];
                let (hearing, ()) = tokio::join!(plain.read_exact(&mut piece), saying);
                hearing.unwrap();
                heard += &String::from_utf8(piece).unwrap();
            }
            Turn::Plain(count) => {
                let text = lines(&mut counts[1], count);
                plain.write_all(text.as_bytes()).await.unwrap();
                let last = text.lines().next_back().unwrap().to_owned();
                program.wait_for("the last line", |line| line.ends_with(&last).then_some(()));
            }
            Turn::UpdateKeys { asking } => program.update_keys(asking, schedule.mode).await,
        }
    }
    if schedule.program_first {
        program.say("Q\n").await;
    } else {
        plain.shutdown().await.unwrap();
    }
    plain.read_to_string(&mut heard).await.unwrap();
    let _ = plain.shutdown().await;
    Seen {
        heard: [heard, program.heard()],
        ended: carried.await.unwrap(),
    }
}

fn gate(authority: &Authority) -> Gate {
    let both = [&rustls::version::TLS12, &rustls::version::TLS13];
    Gate {
        server: authority.issue(&[NAME]).server(&both),
        client: authority.client(&both).into(),
        kept: 0,
    }
}

/// `openssl` with a person at its terminal.
struct Program {
    child: Child,
    stdin: ChildStdin,
    updates: usize,
}

impl Program {
    fn start(command: &Command) -> Self {
        let (child, stdin) = Child::spawn_with_stdin(command);
        Self {
            child,
            stdin,
            updates: 0,
        }
    }

    async fn say(&mut self, text: &str) {
        block_in_place(|| self.stdin.write_all(text.as_bytes()).unwrap());
    }

    fn wait_for<T>(&self, what: &str, pick: impl Fn(&str) -> Option<T>) -> T {
        block_in_place(|| self.child.wait_for(what, pick))
    }

    /// A letter at the beginning of what it reads is a command; all that was said before has arrived.
    async fn update_keys(&mut self, asking: bool, mode: Mode) {
        self.say(if asking { "K\n" } else { "k\n" }).await;
        if mode == Mode::Originate {
            // `s_server` reads commands first, and tells of them later.
            return;
        }
        self.updates += 1;
        let seen = Cell::new(0);
        self.wait_for("that its keys are new", |line| {
            // Each look goes over all that it has said; this it said before.
            if line.starts_with("depth=") {
                seen.set(0);
            }
            seen.set(seen.get() + usize::from(line == "KEYUPDATE"));
            (seen.get() == self.updates).then_some(())
        });
    }

    /// The lines that came from the other end, once it has ended.
    fn heard(self) -> String {
        drop(self.stdin);
        let done = block_in_place(|| self.child.finish());
        let mut said = String::from_utf8_lossy(&done.stdout).into_owned();
        for own in ["Read BLOCK\n", "SSL_do_handshake -> 1\n"] {
            said = said.replace(own, "");
        }
        let is_text = |line: &str| line.len() == 10 && line[..9].parse::<u32>().is_ok();
        said.split_inclusive('\n')
            .filter(|line| is_text(line))
            .collect()
    }
}
