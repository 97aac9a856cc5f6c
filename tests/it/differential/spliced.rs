//! Bare sockets, whose bytes the kernel moves: resets, full windows, and pipes that run out.

use std::fs;
use std::io::ErrorKind;
use std::process::Command;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::timeout;

use super::gate::{Ended, Gate, How, Mode, PATHS, Path, Why};
use super::schedule::{Cuts, Ending, Schedule, Step};
use super::{Tls, expect, play, sockets};
use crate::again;
use crate::edge::text;
use crate::support::PATIENCE;

/// Both ends of a tunnel between bare sockets.
struct Tunnel {
    /// The client and the upstream.
    ends: [TcpStream; 2],
    carried: JoinHandle<Ended>,
}

impl Tunnel {
    async fn new(tls: &Tls, path: Path) -> Self {
        // The kernel doubles them. What is read at once is a bulk, and what is in the pipe finds no room.
        let (client, accepted) = sockets(Some(128 << 10)).await;
        let (dialled, upstream) = sockets(Some(64 << 10)).await;
        let gate: Gate = tls.gate.clone();
        let carried = tokio::spawn(gate.carry(path, Mode::Pass, accepted, dialled));
        Self {
            ends: [client, upstream],
            carried,
        }
    }

    async fn ended(self) -> Ended {
        timeout(PATIENCE, self.carried).await.unwrap().unwrap()
    }
}

/// Says the text from its beginning until no more is taken, or so much of it; tells how much.
pub(super) async fn fill(to: &TcpStream, most: usize) -> usize {
    say(to, &text(), most).await
}

/// Says this, over and over, until no more is taken, or so much of it; tells how much.
pub(super) async fn say(to: &TcpStream, text: &[u8], most: usize) -> usize {
    let (mut said, mut patience) = (0, 0);
    while said < most && patience < 30 {
        let at = said % text.len();
        let piece = &text[at..text.len().min(at.saturating_add(most - said))];
        match to.try_write(piece) {
            Ok(taken) => (said, patience) = (said + taken, 0),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                patience += 1;
                yield_now().await;
            }
            Err(_) => break,
        }
    }
    said
}

/// Reads to the end, or so much; tells how much came, and the error behind it. It is the text.
async fn drain(from: &mut TcpStream, most: usize) -> (usize, Option<ErrorKind>) {
    drain_behind(from, 0, most).await
}

/// The same where so much of the text has come before.
async fn drain_behind(
    from: &mut TcpStream,
    before: usize,
    most: usize,
) -> (usize, Option<ErrorKind>) {
    let text = text();
    let (mut heard, mut some) = (0, vec![0; 64 << 10]);
    while heard < most {
        let room = some.len().min(most - heard);
        let mut new = match from.read(&mut some[..room]).await {
            Ok(0) => break,
            Ok(count) => &some[..count],
            Err(e) => return (heard, Some(e.kind())),
        };
        while !new.is_empty() {
            let expected = &text[(before + heard) % text.len()..];
            let both = expected.len().min(new.len());
            assert!(expected[..both] == new[..both], "other bytes after {heard}");
            heard += both;
            new = &new[both..];
        }
    }
    (heard, None)
}

fn reset(tcp: TcpStream) {
    SockRef::from(&tcp)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

fn broken_off(side: usize) -> How {
    let reset = Why::Io(ErrorKind::ConnectionReset);
    match side {
        0 => How::ClientFailed(reset),
        _ => How::UpstreamFailed(reset),
    }
}

#[tokio::test]
async fn a_source_that_resets_is_told_at_any_point_and_nothing_wrong_comes_through() {
    if !alone(
        "a_source_that_resets_is_told_at_any_point_and_nothing_wrong_comes_through",
        1024,
    ) {
        return;
    }
    let tls = Tls::new();
    let before = pipe_ends();
    // The reference first: it leaves no pipe behind.
    for path in [Path::Buffered, Path::Unbuffered] {
        for side in [0, 1] {
            for most in [3_000_000, 300_000, 100_000, 40_000, 5_000, 1, 0] {
                for read in [Reads::Never, Reads::Meanwhile, Reads::Before] {
                    let tunnel = Tunnel::new(&tls, path).await;
                    let Tunnel { mut ends, carried } = tunnel;
                    ends.rotate_left(side);
                    let [source, mut sink] = ends;
                    // So much finds room in buffers and pipe, whoever reads.
                    let some = most.min(100_000);
                    let (said, first) = match read {
                        Reads::Never => (fill(&source, most).await, 0),
                        Reads::Meanwhile => {
                            let half = async { drain(&mut sink, some / 2).await.0 };
                            tokio::join!(fill(&source, most), half)
                        }
                        Reads::Before => {
                            let all = async { drain(&mut sink, some).await.0 };
                            tokio::join!(fill(&source, some), all)
                        }
                    };
                    // What lies there was delivered, whatever happens next.
                    let delivered = rustix::io::ioctl_fionread(&sink).unwrap() as usize;
                    let pipes = pipe_ends() - before;
                    reset(source);
                    let (rest, error) = drain_behind(&mut sink, first, usize::MAX).await;
                    let heard = first + rest;
                    let ended = timeout(PATIENCE, carried).await.unwrap().unwrap();
                    let case = format!("{path:?} {side} {most} {read:?} {said} {heard} {ended:?}");
                    assert_eq!(ended.how, broken_off(side), "{case}");
                    assert!((first + delivered..=said).contains(&heard), "{case}");
                    // An upload that broke off must not look like a whole one.
                    let told = (side == 0).then_some(ErrorKind::ConnectionReset);
                    assert_eq!(error, told, "{case}");
                    let counted = [ended.up, ended.down][side];
                    assert!(heard as u64 <= counted, "{case}");
                    assert_eq!([ended.down, ended.up][side], 0, "{case}");
                    match path {
                        Path::Buffered => assert_eq!(pipes, 0, "{case}"),
                        Path::Unbuffered if most >= 300_000 && read != Reads::Before => {
                            assert!(pipes >= 2, "{case}")
                        }
                        Path::Unbuffered => {}
                    }
                }
            }
        }
    }
}

/// When a sink reads whose source resets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    /// Only behind the reset: what was on its way was blocked.
    Never,
    /// Some, while the source speaks.
    Meanwhile,
    /// All, before the reset.
    Before,
}

#[tokio::test]
async fn a_sink_that_resets_leaves_no_byte_for_the_next_tunnel() {
    let tls = Tls::new();
    for side in [0, 1] {
        for taken in [0, 1, 100_000, 400_000] {
            for path in PATHS {
                let Tunnel { mut ends, carried } = Tunnel::new(&tls, path).await;
                ends.rotate_left(side);
                let [source, mut sink] = ends;
                // It takes no more while bytes flow: the rest is in the pipe.
                let saying = fill(&source, usize::MAX);
                let (said, heard) = tokio::join!(saying, drain(&mut sink, taken));
                assert_eq!(heard, (taken, None));
                reset(sink);
                source.readable().await.unwrap();
                let mut rest = Vec::new();
                let mut source = source;
                let _ = source.read_to_end(&mut rest).await;
                drop(source);
                let ended = timeout(PATIENCE, carried).await.unwrap().unwrap();
                assert_eq!(ended.how, broken_off(1 - side), "{path:?} {said}");
                assert_eq!(rest, b"");

                let next = Tunnel::new(&tls, path).await;
                assert_eq!(through(next, 1_000_000).await, 1_000_000);
            }
        }
    }
}

/// Sends so much of the text up and takes it there; tells how much was counted.
async fn through(tunnel: Tunnel, count: usize) -> u64 {
    let Tunnel { ends, carried } = tunnel;
    let [mut client, mut upstream] = ends;
    let saying = async {
        let text = text();
        for start in (0..count).step_by(text.len()) {
            let piece = &text[..text.len().min(count - start)];
            client.write_all(piece).await.unwrap();
        }
        client.shutdown().await.unwrap();
    };
    let (_, heard) = tokio::join!(saying, drain(&mut upstream, usize::MAX));
    assert_eq!(heard, (count, None));
    upstream.shutdown().await.unwrap();
    let ended = timeout(PATIENCE, carried).await.unwrap().unwrap();
    assert_eq!((ended.how, ended.down), (How::Closed, 0));
    ended.up
}

/// Plays this through both paths.
async fn passed(steps: [Vec<Step>; 2], narrow: bool) {
    let schedule = Schedule {
        seed: 0,
        mode: Mode::Pass,
        old: [false; 2],
        steps,
        cuts: [Cuts::Whole; 2],
        reads: [64 << 10; 2],
        narrow,
        worn: false,
        kept: 0,
    };
    let tls = Tls::new();
    let ours = play(&tls, &schedule, Path::Unbuffered).await;
    assert_eq!(ours, play(&tls, &schedule, Path::Buffered).await);
    expect(&schedule, &ours);
}

#[tokio::test]
async fn windows_that_are_closed_on_both_sides_cost_no_byte() {
    const MUCH: usize = 20 << 20;
    for narrow in [true, false] {
        let said = vec![
            Step::StopReading,
            Step::Say(if narrow { MUCH / 10 } else { MUCH }),
            Step::Say(1),
            Step::StopReading,
            Step::Say(100_000),
            Step::End(Ending::Clean),
        ];
        passed([said.clone(), said], narrow).await;
    }
}

#[tokio::test]
async fn what_is_in_the_pipe_when_its_source_ends_arrives() {
    for side in [0, 1] {
        for much in [33_000, 70_000, 200_000, 1_000_000] {
            let mut steps = [
                vec![Step::Say(much), Step::End(Ending::Clean)],
                vec![
                    Step::StopReading,
                    Step::HearEnd,
                    Step::Say(much),
                    Step::End(Ending::Clean),
                ],
            ];
            steps.rotate_left(side);
            passed(steps, true).await;
        }
    }
}

/// Whether this process was started for this test alone; if not it starts one, in which the test must pass.
///
/// There, no other test has pipes, and descriptors can be short: so many may be open.
fn alone(test: &str, descriptors: usize) -> bool {
    const ALONE: &str = "PORTCULLIS_TEST_ALONE";
    if again::is_inside(ALONE) {
        return true;
    }
    let mut outer = Command::new("prlimit");
    outer.arg(format!("--nofile={descriptors}:{descriptors}"));
    again::inside(&outer, &format!("differential::spliced::{test}"), ALONE);
    false
}

/// How many ends of pipes this process holds.
fn pipe_ends() -> usize {
    let files = fs::read_dir("/proc/self/fd").unwrap();
    let links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    links
        .filter(|link| link.to_string_lossy().starts_with("pipe:"))
        .count()
}

/// How many empty pipes a thread keeps, at two ends each.
const SPARE: usize = 16 * 2;

#[tokio::test]
async fn blocked_tunnels_take_so_many_pipes_and_those_without_one_lose_nothing() {
    const TUNNELS: usize = 300;
    const PIPES: usize = 256;
    const BEFORE: usize = 400_000;
    if !alone(
        "blocked_tunnels_take_so_many_pipes_and_those_without_one_lose_nothing",
        4096,
    ) {
        return;
    }
    let tls = Tls::new();
    let before = pipe_ends();
    let mut blocked = Vec::new();
    for _ in 0..TUNNELS {
        let mut tunnel = Tunnel::new(&tls, Path::Unbuffered).await;
        let [client, upstream] = &mut tunnel.ends;
        // It is blocked while bytes flow, and has them in its pipe.
        let (said, _) = tokio::join!(fill(client, usize::MAX), drain(upstream, BEFORE));
        blocked.push((tunnel, said - BEFORE));
    }
    assert_eq!(pipe_ends() - before, 2 * PIPES);
    let late = Tunnel::new(&tls, Path::Unbuffered).await;
    assert_eq!(through(late, 3_000_000).await, 3_000_000);
    assert_eq!(pipe_ends() - before, 2 * PIPES);
    for (mut tunnel, said) in blocked {
        tunnel.ends[0].shutdown().await.unwrap();
        let rest = drain_behind(&mut tunnel.ends[1], BEFORE, usize::MAX).await;
        assert_eq!(rest, (said, None));
        tunnel.ends[1].shutdown().await.unwrap();
        let ended = tunnel.ended().await;
        assert_eq!((ended.how, ended.up), (How::Closed, (BEFORE + said) as u64));
    }
    assert!(pipe_ends() - before <= SPARE);
    let last = Tunnel::new(&tls, Path::Unbuffered).await;
    assert_eq!(through(last, 3_000_000).await, 3_000_000);
}

#[tokio::test]
async fn a_tunnel_that_moves_nothing_holds_no_pipe() {
    if !alone("a_tunnel_that_moves_nothing_holds_no_pipe", 1024) {
        return;
    }
    let tls = Tls::new();
    let before = pipe_ends();
    for ended in [false, true] {
        let mut silent = Vec::new();
        for _ in 0..40 {
            let mut tunnel = Tunnel::new(&tls, Path::Unbuffered).await;
            let [client, upstream] = &mut tunnel.ends;
            let said = fill(client, usize::MAX).await;
            if ended {
                client.shutdown().await.unwrap();
            }
            // The end, where there is one, is there before the last of the bytes is gone.
            let most = if ended { usize::MAX } else { said };
            assert_eq!(drain(upstream, most).await, (said, None));
            silent.push(tunnel);
        }
        let held = pipe_ends() - before;
        assert!((1..=SPARE).contains(&held), "{held} ends of pipes, {ended}");
    }
}

#[tokio::test]
async fn without_a_descriptor_for_a_pipe_bytes_are_read_and_written() {
    if !alone(
        "without_a_descriptor_for_a_pipe_bytes_are_read_and_written",
        64,
    ) {
        return;
    }
    let tls = Tls::new();
    let before = pipe_ends();
    let tunnel = Tunnel::new(&tls, Path::Unbuffered).await;
    let mut rest = Vec::new();
    while let Ok(file) = fs::File::open("/dev/null") {
        rest.push(file);
    }
    assert!(!rest.is_empty());
    assert_eq!(through(tunnel, 3_000_000).await, 3_000_000);
    rest.pop();
    assert_eq!(pipe_ends(), before);
    drop(rest);
    let next = Tunnel::new(&tls, Path::Unbuffered).await;
    assert_eq!(through(next, 3_000_000).await, 3_000_000);
    assert!(pipe_ends() > before);
}

#[tokio::test]
async fn pipes_that_were_closed_with_bytes_in_them_make_room_for_others() {
    if !alone(
        "pipes_that_were_closed_with_bytes_in_them_make_room_for_others",
        1024,
    ) {
        return;
    }
    let tls = Tls::new();
    let before = pipe_ends();
    let mut most = 0;
    for _ in 0..300 {
        let Tunnel { ends, carried } = Tunnel::new(&tls, Path::Unbuffered).await;
        let [client, mut upstream] = ends;
        tokio::join!(fill(&client, usize::MAX), drain(&mut upstream, 300_000));
        most = most.max(pipe_ends() - before);
        reset(upstream);
        reset(client);
        carried.await.unwrap();
    }
    assert_eq!(most, 2, "one at a time");
    assert_eq!(
        through(Tunnel::new(&tls, Path::Unbuffered).await, 3_000_000).await,
        3_000_000
    );
    assert_eq!(pipe_ends() - before, 2);
}
