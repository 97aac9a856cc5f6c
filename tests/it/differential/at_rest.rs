//! Tunnels that wait, for a word or for room: nothing turns in them.

use std::fs;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::SupportedProtocolVersion;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::duel::{Configs, Forged, TLS_1_2, TLS_1_3};
use super::forge::{Forge, HANDSHAKE, message};
use super::gate::{Ended, Gate, Mode, Path};
use super::sockets;
use super::spliced::{fill, say};
use super::wire::Teller;

/// What the upstream does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upstream {
    Silent,
    /// It has said more than there is room for.
    Blocked,
    Ended,
}

const UPSTREAMS: [Upstream; 3] = [Upstream::Silent, Upstream::Blocked, Upstream::Ended];

/// A tunnel that waits, and how often it was polled.
struct Waiting {
    what: String,
    polls: Arc<AtomicUsize>,
    carried: JoinHandle<Ended>,
    client: TcpStream,
    upstream: TcpStream,
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
        Self {
            what,
            polls,
            carried,
            client,
            upstream,
        }
    }

    /// Between bare sockets; the client says more than there is room for, and ends, or does not.
    async fn bare(blocks: bool, ends: bool, upstream: Upstream) -> Self {
        let what = format!("bare, {blocks}, {ends}, {upstream:?}");
        let mut tunnel = Self::new(what, Mode::Pass, Configs::of(TLS_1_3)).await;
        if blocks {
            fill(&tunnel.client, usize::MAX).await;
        }
        if ends {
            tunnel.client.shutdown().await.unwrap();
        }
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
        let configs = Configs::of(versions);
        let mut tunnel = Self::new(what, Mode::Terminate, configs).await;
        let mut teller = Teller::new(tunnel.client, Forged::Client, configs).await;
        let words = words(&mut teller.forge);
        tunnel.client = teller.into_tcp();
        tunnel.does(upstream).await;
        say(&tunnel.client, &words, words.len()).await;
        tunnel
    }

    async fn does(&mut self, upstream: Upstream) {
        match upstream {
            Upstream::Silent => {}
            Upstream::Blocked => {
                fill(&self.upstream, usize::MAX).await;
            }
            Upstream::Ended => self.upstream.shutdown().await.unwrap(),
        }
    }
}

/// Nanoseconds that this thread has had of a processor (proc(5), `/proc/PID/schedstat`).
fn processor_time() -> u64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn nothing_turns_in_tunnels_that_wait() {
    let much = |forge: &mut Forge, records: usize| -> Vec<u8> {
        (0..records)
            .flat_map(|_| forge.data(&[7; 16_384]))
            .collect()
    };
    let mut all = Vec::new();
    for upstream in UPSTREAMS {
        for (blocks, ends) in [(false, false), (true, false), (false, true), (true, true)] {
            all.push(Waiting::bare(blocks, ends, upstream).await);
        }
        let tls = async |what, words: fn(&mut Forge) -> Vec<u8>| {
            Waiting::tls(what, TLS_1_3, upstream, words).await
        };
        all.push(tls("silent", |_| Vec::new()).await);
        all.push(tls("ended", Forge::close_notify).await);
        all.push(
            tls("half a record", |forge| {
                forge.data(&[7; 16_384])[..9_000].to_vec()
            })
            .await,
        );
        all.push(
            tls("half a message", |forge| {
                forge.record(HANDSHAKE, &message(24, &[0])[..3])
            })
            .await,
        );
        let blocked = |forge: &mut Forge| [much(forge, 60), forge.close_notify()].concat();
        all.push(Waiting::tls("blocked", TLS_1_3, upstream, blocked).await);
        // The wrong record is read while the one before it finds no room: sooner or later.
        for records in 4..24 {
            let wrong = |forge: &mut Forge| {
                let good = much(forge, records);
                forge.skip();
                [good, forge.data(b"wrong")].concat()
            };
            all.push(Waiting::tls("wrong", TLS_1_3, upstream, wrong).await);
        }
        let config = &Configs::of(TLS_1_2).client;
        let anew = |forge: &mut Forge| forge.hello(config);
        all.push(Waiting::tls("anew", TLS_1_2, upstream, anew).await);
    }
    let polls = || -> Vec<usize> {
        let polls = all.iter().map(|one| one.polls.load(Ordering::Relaxed));
        polls.collect()
    };
    let mut before = Vec::new();
    let late = Instant::now() + Duration::from_secs(5);
    while before != polls() && Instant::now() < late {
        before = polls();
        sleep(Duration::from_millis(20)).await;
    }
    let spent = processor_time();
    sleep(Duration::from_millis(300)).await;
    let spent = Duration::from_nanos(processor_time() - spent);
    for (one, before) in all.iter().zip(before) {
        let polls = one.polls.load(Ordering::Relaxed) - before;
        // A late acknowledgement makes room, and wakes a tunnel once.
        assert!(
            polls <= 2,
            "{}: {polls} polls while nothing happened",
            one.what
        );
    }
    assert!(spent < Duration::from_millis(30), "{spent:?} of waiting");
    // They wait, and have not ended.
    let waiting = all.iter().filter(|one| !one.carried.is_finished()).count();
    assert!(waiting > 40, "{waiting} of {}", all.len());
}
