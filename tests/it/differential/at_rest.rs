//! Tunnels that wait, for a word or for room: nothing turns in them.

use std::fs;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::SupportedProtocolVersion;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::duel::{BOTH_VERSIONS, Configs, Forged, TLS_1_2, TLS_1_3};
use super::forge::{self, Forge, HANDSHAKE, message};
use super::gate::{Ended, Gate, How, Mode, Path};
use super::records::LARGEST as RECORD;
use super::sockets;
use super::spliced::{fill, say};
use super::wire::Teller;
use crate::support::PATIENCE;

/// What the upstream does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upstream {
    Silent,
    /// It has said more than there is room for.
    Blocked,
    Ended,
}

const UPSTREAMS: [Upstream; 3] = [Upstream::Silent, Upstream::Blocked, Upstream::Ended];

/// One end of a tunnel.
struct End {
    tcp: TcpStream,
    /// Where it speaks TLS.
    forge: Option<Forge>,
}

/// A tunnel that waits, and how often it was polled.
struct Waiting {
    what: String,
    polls: Arc<AtomicUsize>,
    carried: JoinHandle<Ended>,
    /// The client and the upstream.
    ends: [End; 2],
    /// Whether it has nothing left to wait for.
    ends_at_once: bool,
}

impl End {
    /// Seals what is said, where it speaks TLS.
    fn words(&mut self, text: &[u8]) -> Vec<u8> {
        match &mut self.forge {
            None => text.to_vec(),
            Some(forge) => {
                let records = text.chunks(RECORD);
                records.flat_map(|text| forge.data(text)).collect()
            }
        }
    }

    /// How it ends what it says; FIN follows.
    fn last(&mut self) -> Vec<u8> {
        let end = self.forge.as_mut().map(Forge::close_notify);
        end.unwrap_or_default()
    }

    /// The text in these bytes.
    fn text(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        let Some(forge) = &mut self.forge else {
            return bytes;
        };
        forge::text(forge.hear(&bytes))
    }
}

impl Waiting {
    async fn new(what: String, mode: Mode, configs: &Configs) -> Self {
        let (near, client) = sockets(Some(64 << 10)).await;
        let (far, upstream) = sockets(Some(64 << 10)).await;
        let gate = Gate {
            server: configs.server.clone(),
            client: configs.client.clone(),
            kept: 0,
        };
        let polls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&polls);
        let carried = tokio::spawn(async move {
            let mut carried = pin!(gate.carry(Path::Unbuffered, mode, near, far));
            poll_fn(|cx| {
                counted.fetch_add(1, Ordering::Relaxed);
                carried.as_mut().poll(cx)
            })
            .await
        });
        let [ends, begins] = mode.tls();
        let client = Self::end(client, ends.then_some(Forged::Client), configs).await;
        let upstream = Self::end(upstream, begins.then_some(Forged::Server), configs).await;
        Self {
            what: format!("{mode:?} {what}"),
            polls,
            carried,
            ends: [client, upstream],
            ends_at_once: false,
        }
    }

    async fn end(tcp: TcpStream, forged: Option<Forged>, configs: &Configs) -> End {
        match forged {
            None => End { tcp, forge: None },
            Some(forged) => {
                let (tcp, forge) = Teller::new(tcp, forged, configs).await.into_parts();
                let forge = Some(forge);
                End { tcp, forge }
            }
        }
    }

    /// Between bare sockets; the client says more than there is room for, and ends, or does not.
    async fn bare(blocks: bool, ends: bool, upstream: Upstream) -> Self {
        let what = format!("{blocks}, {ends}, {upstream:?}");
        let mut tunnel = Self::new(what, Mode::Pass, Configs::of(TLS_1_3)).await;
        if blocks {
            fill(&tunnel.ends[0].tcp, usize::MAX).await;
        }
        if ends {
            tunnel.ends[0].tcp.shutdown().await.unwrap();
        }
        tunnel.ends_at_once = ends && !blocks && upstream == Upstream::Ended;
        tunnel.does(upstream).await;
        tunnel
    }

    /// With TLS, of which a client says this.
    async fn tls(
        what: &str,
        versions: &[&'static SupportedProtocolVersion],
        upstream: Upstream,
        words: impl Fn(&mut Forge) -> Vec<u8>,
    ) -> Self {
        let what = format!("{what}, {upstream:?}");
        let mut tunnel = Self::new(what, Mode::Terminate, Configs::of(versions)).await;
        let words = words(tunnel.ends[0].forge.as_mut().unwrap());
        tunnel.does(upstream).await;
        say(&tunnel.ends[0].tcp, &words, words.len()).await;
        tunnel
    }

    /// With TLS on one side or both, of which each end that has it says this.
    async fn forged(
        what: &str,
        mode: Mode,
        versions: &[&'static SupportedProtocolVersion],
        words: [fn(&mut Forge) -> Vec<u8>; 2],
    ) -> Self {
        let mut tunnel = Self::new(what.to_owned(), mode, Configs::of(versions)).await;
        for (end, words) in tunnel.ends.iter_mut().zip(words) {
            if let Some(forge) = &mut end.forge {
                let words = words(forge);
                say(&end.tcp, &words, words.len()).await;
            }
        }
        tunnel
    }

    async fn does(&mut self, upstream: Upstream) {
        let tcp = &mut self.ends[1].tcp;
        match upstream {
            Upstream::Silent => {}
            Upstream::Blocked => {
                fill(tcp, usize::MAX).await;
            }
            Upstream::Ended => tcp.shutdown().await.unwrap(),
        }
    }
}

fn much(forge: &mut Forge, records: usize) -> Vec<u8> {
    (0..records)
        .flat_map(|_| forge.data(&[7; RECORD]))
        .collect()
}

fn silence(_: &mut Forge) -> Vec<u8> {
    Vec::new()
}

fn half_a_record(forge: &mut Forge) -> Vec<u8> {
    forge.data(&[7; RECORD])[..9_000].to_vec()
}

fn half_a_message(forge: &mut Forge) -> Vec<u8> {
    forge.record(HANDSHAKE, &message(24, &[0])[..3])
}

fn more_than_there_is_room_for(forge: &mut Forge) -> Vec<u8> {
    [much(forge, 60), forge.close_notify()].concat()
}

/// Nanoseconds that this thread has had of a processor (proc(5), `/proc/PID/schedstat`).
fn processor_time() -> u64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

/// What a client says, and what an upstream says.
struct Said {
    what: &'static str,
    words: [fn(&mut Forge) -> Vec<u8>; 2],
}

const SAID: [Said; 5] = [
    Said {
        what: "silent",
        words: [silence, silence],
    },
    Said {
        what: "one ended",
        words: [silence, Forge::close_notify],
    },
    Said {
        what: "half a record",
        words: [half_a_record; 2],
    },
    Said {
        what: "half a message",
        words: [half_a_message; 2],
    },
    Said {
        what: "blocked",
        words: [more_than_there_is_room_for; 2],
    },
];

/// Makes sure that nothing turns in them: for a while none of them is polled at all. A late acknowledgement makes room, and
/// wakes a tunnel once; where the machine is busy it may be very late, and then they come to rest after it.
async fn at_rest(all: &[Waiting]) {
    let polls = || -> Vec<usize> {
        let polls = all.iter().map(|one| one.polls.load(Ordering::Relaxed));
        polls.collect()
    };
    let late = Instant::now() + PATIENCE;
    let spent = loop {
        let (before, spent) = (polls(), processor_time());
        sleep(Duration::from_millis(300)).await;
        let (after, spent) = (polls(), processor_time() - spent);
        if before == after {
            break Duration::from_nanos(spent);
        }
        let turning = all.iter().zip(before.iter().zip(&after));
        let turning = turning.filter(|(_, (before, after))| before != after);
        let turning: Vec<&str> = turning.map(|(one, _)| one.what.as_str()).collect();
        assert!(Instant::now() < late, "{turning:?} turn for nothing");
    };
    assert!(spent < Duration::from_millis(30), "{spent:?} of waiting");
}

#[tokio::test]
async fn nothing_turns_in_tunnels_that_wait() {
    let mut all = Vec::new();
    for upstream in UPSTREAMS {
        for (blocks, ends) in [(false, false), (true, false), (false, true), (true, true)] {
            all.push(Waiting::bare(blocks, ends, upstream).await);
        }
        let tls = async |what, words: fn(&mut Forge) -> Vec<u8>| {
            Waiting::tls(what, TLS_1_3, upstream, words).await
        };
        all.push(tls("silent", silence).await);
        let mut ended = tls("ended", Forge::close_notify).await;
        ended.ends_at_once = upstream == Upstream::Ended;
        all.push(ended);
        all.push(tls("half a record", half_a_record).await);
        all.push(tls("half a message", half_a_message).await);
        all.push(tls("blocked", more_than_there_is_room_for).await);
        let config = &Configs::of(TLS_1_2).client;
        let anew = |forge: &mut Forge| forge.hello(config);
        all.push(Waiting::tls("anew", TLS_1_2, upstream, anew).await);
    }
    for mode in [Mode::Originate, Mode::ReEncrypt] {
        for versions in BOTH_VERSIONS {
            for Said { what, words } in SAID {
                // A message of TLS 1.2 that has no place is refused at its first byte.
                if what != "half a message" || versions == TLS_1_3 {
                    all.push(Waiting::forged(what, mode, versions, words).await);
                }
            }
        }
    }
    at_rest(&all).await;
    for one in &all {
        assert_eq!(one.carried.is_finished(), one.ends_at_once, "{}", one.what);
    }
    let waiting = all.iter().filter(|one| !one.ends_at_once).count();
    assert_eq!((waiting, all.len()), (46, 48));
}

/// The wrong record is read while the one before it finds no room: sooner or later.
#[tokio::test]
async fn nothing_turns_in_a_tunnel_that_will_fail_when_there_is_room() {
    for upstream in UPSTREAMS {
        let mut all = Vec::new();
        for records in 4..24 {
            let wrong = |forge: &mut Forge| {
                let good = much(forge, records);
                forge.skip();
                [good, forge.data(b"wrong")].concat()
            };
            all.push(Waiting::tls("wrong", TLS_1_3, upstream, wrong).await);
        }
        at_rest(&all).await;
        // Those that had room for all are over, and those that had too much before it wait.
        let waits = |one: &Waiting| !one.carried.is_finished();
        let first = all.iter().position(waits);
        let first = first.unwrap_or(all.len());
        assert!((1..all.len()).contains(&first), "{upstream:?}: {first}");
        assert!(all[first..].iter().all(waits), "{upstream:?}");
    }
}

/// What both ends say, sealed beforehand; more than there is room for.
const MUCH: usize = 2_000_000;

/// Says what is left and ends; hears all that comes meanwhile.
async fn talk(end: &mut End, left: &[u8]) -> Vec<u8> {
    let last = end.last();
    let (mut from, mut to) = end.tcp.split();
    let saying = async {
        to.write_all(left).await.unwrap();
        to.write_all(&last).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let mut heard = Vec::new();
    let (read, ()) = tokio::join!(from.read_to_end(&mut heard), saying);
    read.unwrap();
    end.text(heard)
}

#[tokio::test]
async fn windows_that_are_closed_on_both_sides_of_tls_cost_no_byte_and_no_time() {
    let texts = [0, 1].map(|side| -> Vec<u8> {
        (0..MUCH)
            .map(|n| ((n + side) % (251 + side)) as u8)
            .collect()
    });
    let mut all = Vec::new();
    let mut left = Vec::new();
    for versions in BOTH_VERSIONS {
        for mode in [Mode::Terminate, Mode::Originate, Mode::ReEncrypt] {
            let mut tunnel = Waiting::new(String::new(), mode, Configs::of(versions)).await;
            let words = [0, 1].map(|side| tunnel.ends[side].words(&texts[side]));
            // Nobody reads until neither can say more.
            let mut said = [0, 0];
            loop {
                let before = said;
                for side in [0, 1] {
                    let rest = &words[side][said[side]..];
                    said[side] += say(&tunnel.ends[side].tcp, rest, rest.len()).await;
                }
                if said == before {
                    break;
                }
            }
            assert!(said.iter().all(|said| (1..MUCH).contains(said)), "{said:?}");
            left.push([0, 1].map(|side| words[side][said[side]..].to_vec()));
            all.push(tunnel);
        }
    }
    at_rest(&all).await;
    for (tunnel, left) in all.into_iter().zip(left) {
        assert!(!tunnel.carried.is_finished(), "{}", tunnel.what);
        let [mut client, mut upstream] = tunnel.ends;
        let talking = async {
            tokio::join!(
                talk(&mut client, &left[0]),
                talk(&mut upstream, &left[1]),
                tunnel.carried
            )
        };
        let (by_client, by_upstream, ended) = timeout(PATIENCE, talking).await.unwrap();
        let what = tunnel.what;
        assert!(by_client == texts[1] && by_upstream == texts[0], "{what}");
        let ended = ended.unwrap();
        let counted = (ended.up as usize, ended.down as usize);
        assert_eq!((ended.how, counted), (How::Closed, (MUCH, MUCH)), "{what}");
    }
}
