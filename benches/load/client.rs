//! The client: many short connections, few busy ones, or many idle ones, and what they cost the process they go to.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};
use serde_json::{Value, json};
use tokio::io::Interest;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::connection::{AT_ONCE, Load, PATIENCE, To};
use crate::process;
use crate::server::{ECHO, SINK, SOURCE};
use crate::tls::Proof;

/// What a ping-pong sends: a keystroke in a terminal is about as long once ssh has wrapped it.
pub(crate) const MESSAGE: [u8; 64] = [b'.'; 64];

/// What to do, to whom, and for how long.
#[derive(Clone, clap::Args)]
pub(crate) struct Run {
    #[command(flatten)]
    to: To,
    /// How many connections there are at a time
    #[arg(long)]
    connections: usize,
    /// How long to measure
    #[arg(long, default_value_t = 1.0)]
    secs: f64,
    /// The process whose cost is told, with those that it has started
    #[arg(long)]
    pid: u32,
    /// Its upstream's, whose cost is ours and no disturbance
    #[arg(long)]
    upstream_pid: u32,
}

/// The same, in one direction.
#[derive(Clone, clap::Args)]
pub(crate) struct Bulk {
    #[command(flatten)]
    run: Run,
    /// From the client to the upstream
    #[arg(long)]
    up: bool,
}

impl Run {
    /// Opens, asks for one byte, closes, again and again.
    pub(crate) async fn connections(self) -> anyhow::Result<()> {
        let load = Load::new(&self.to, Proof::Assumed)?;
        let done = Rc::new(Cell::new(0_u64));
        let mut clients = JoinSet::new();
        for _ in 0..self.connections {
            let (load, done) = (Rc::clone(&load), Rc::clone(&done));
            clients.spawn_local(async move {
                loop {
                    timeout(PATIENCE, load.once()).await??;
                    done.set(done.get() + 1);
                }
            });
        }
        let (count, used) = self.measure(&mut clients, &done).await?;
        print(json!({
            "count": count,
            "per_second": count / used.secs,
            "cpu_us_per_connection": used.cpu * 1e6 / count,
            "foreign": used.foreign,
        }));
        Ok(())
    }

    /// Sends a few bytes and waits until they are back, again and again, on connections that stay.
    pub(crate) async fn pingpong(self) -> anyhow::Result<()> {
        let load = Load::new(&self.to, Proof::Assumed)?;
        let done = Rc::new(Cell::new(0_u64));
        let times = Rc::new(RefCell::new(Vec::new()));
        let mut clients = JoinSet::new();
        for _ in 0..self.connections {
            let (load, done, times) = (Rc::clone(&load), Rc::clone(&done), Rc::clone(&times));
            clients.spawn_local(async move {
                let mut connection = timeout(PATIENCE, load.open(&[ECHO])).await??;
                let mut back = [0; MESSAGE.len()];
                loop {
                    let begin = Instant::now();
                    connection.send(&MESSAGE).await?;
                    connection.receive(&mut back).await?;
                    times.borrow_mut().push(begin.elapsed());
                    done.set(done.get() + 1);
                    anyhow::ensure!(back == MESSAGE, "other bytes came back");
                }
            });
        }
        let (count, used) = self.measure(&mut clients, &done).await?;
        // Those of the time before the measurement stand in front.
        let mut times = times.take();
        let mut times = times.split_off(times.len() - count as usize);
        times.sort_unstable();
        print(json!({
            "count": count,
            "per_second": count / used.secs,
            "p50_us": quantile(&times, 0.50),
            "p99_us": quantile(&times, 0.99),
            "cpu_us_per_round_trip": used.cpu * 1e6 / count,
            "foreign": used.foreign,
        }));
        Ok(())
    }

    /// Opens, asks for one byte, and stays silent.
    pub(crate) async fn idle(self) -> anyhow::Result<()> {
        let load = Load::new(&self.to, Proof::Assumed)?;
        // What is set up once and for all must be there before.
        let warm = load.open_many(AT_ONCE).await?;
        drop(warm);
        sleep(Duration::from_millis(500)).await;
        let processes = process::family(self.pid)?;
        let before = process::memory(&processes)?;
        let mut opened = load.open_many(self.connections).await?;
        sleep(Duration::from_secs(1)).await;
        let after = process::memory(&processes)?;
        for connection in &mut opened {
            timeout(PATIENCE, connection.ask()).await??;
        }
        print(json!({
            "count": opened.len(),
            "base_kib": before,
            "kib_per_connection": (after - before) / opened.len() as f64,
        }));
        Ok(())
    }

    /// Counts for as long as asked, after a moment for the load to become even. A client that fails ends everything.
    async fn measure(
        &self,
        clients: &mut JoinSet<anyhow::Result<()>>,
        counter: &Cell<u64>,
    ) -> anyhow::Result<(f64, Used)> {
        let measured = async {
            sleep(Duration::from_millis(300)).await;
            let processes = process::family(self.pid)?;
            let upstream = [self.upstream_pid];
            let (before, count) = (Used::until_now(&processes, &upstream)?, counter.get());
            let start = Instant::now();
            sleep(Duration::from_secs_f64(self.secs)).await;
            let (after, counted) = (
                Used::until_now(&processes, &upstream)?,
                counter.get() - count,
            );
            anyhow::ensure!(counted > 0, "nothing was done in {} s", self.secs);
            let used = after.since(&before, start.elapsed().as_secs_f64());
            Ok((counted as f64, used))
        };
        tokio::select! {
            measured = measured => measured,
            Some(failed) = clients.join_next() => {
                failed??;
                anyhow::bail!("a client has ended")
            }
        }
    }
}

impl Bulk {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let load = Load::new(&self.run.to, Proof::Assumed)?;
        let moved = Rc::new(Cell::new(0_u64));
        let mut clients = JoinSet::new();
        for _ in 0..self.run.connections {
            let (load, moved) = (Rc::clone(&load), Rc::clone(&moved));
            if self.up {
                clients.spawn_local(send(load, moved));
            } else {
                clients.spawn_local(receive(load, moved));
            }
        }
        let (bytes, used) = self.run.measure(&mut clients, &moved).await?;
        print(json!({
            "bytes": bytes,
            "gbit_per_second": bytes * 8e-9 / used.secs,
            "cpu_s_per_gb": used.cpu / (bytes * 1e-9),
            "foreign": used.foreign,
        }));
        Ok(())
    }
}

/// Has bytes sent down. What comes is thrown away as it comes, encrypted or not: decrypting it would cost the client's
/// CPU more than most gateways need.
async fn receive(load: Rc<Load>, moved: Rc<Cell<u64>>) -> anyhow::Result<()> {
    let opened = timeout(PATIENCE, load.open(&[SOURCE])).await??;
    let tcp = opened.into_tcp();
    // With TRUNC the kernel counts what it throws away, and copies nothing.
    let mut untouched = vec![0; 4 << 20];
    let mut discard = || Ok(recv(&tcp, &mut untouched, RecvFlags::TRUNC)?.1);
    loop {
        let n = tcp.async_io(Interest::READABLE, &mut discard).await?;
        anyhow::ensure!(n > 0, "the upstream has ended");
        moved.set(moved.get() + n as u64);
    }
}

/// Sends bytes up. They are encrypted one by one: there is no way around that.
async fn send(load: Rc<Load>, moved: Rc<Cell<u64>>) -> anyhow::Result<()> {
    let mut connection = timeout(PATIENCE, load.open(&[SINK])).await??;
    let bytes = vec![b'.'; 256 * 1024];
    loop {
        let n = connection.send_some(&bytes).await?;
        moved.set(moved.get() + n as u64);
    }
}

/// In microseconds: what this part of them, which are in order, have not exceeded.
pub(crate) fn quantile(times: &[Duration], part: f64) -> f64 {
    let at = (part * times.len() as f64).ceil() as usize;
    let time = times.get(at.saturating_sub(1));
    time.map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

/// CPU time in seconds.
struct Used {
    secs: f64,
    /// Of the processes that are measured.
    cpu: f64,
    /// Of them, their upstream and ourselves.
    ours: f64,
    machine: f64,
    /// What everything else took, as a share of one CPU.
    foreign: f64,
}

impl Used {
    fn until_now(processes: &[u32], upstream: &[u32]) -> anyhow::Result<Self> {
        let cpu = process::cpu(processes)?;
        let ours = cpu + process::cpu(upstream)? + process::cpu(&[std::process::id()])?;
        Ok(Self {
            secs: 0.0,
            cpu,
            ours,
            machine: process::machine()?,
            foreign: 0.0,
        })
    }

    fn since(&self, before: &Self, secs: f64) -> Self {
        let (ours, machine) = (self.ours - before.ours, self.machine - before.machine);
        Self {
            secs,
            cpu: self.cpu - before.cpu,
            ours,
            machine,
            foreign: ((machine - ours) / secs).max(0.0),
        }
    }
}

fn print(result: Value) {
    println!("{result}");
}
