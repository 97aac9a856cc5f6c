//! Real clients beside an attack: how long each waits while nobody else is there, and among thousands who hold half a hello.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::client::{MESSAGE, quantile};
use crate::connection::{AT_ONCE, Load, PATIENCE, To};
use crate::server::ECHO;
use crate::tls::Proof;

/// Real clients that are there at the same time.
const CLIENTS: usize = 4;

/// How often each of them sends a few bytes and waits for them, before it ends and the next one comes.
const PING_PONGS: usize = 32;

/// Between two real clients in a row, and between two round trips: people and programs think.
const THOUGHT: Duration = Duration::from_millis(2);

/// Before a socket of the attack that the gateway has closed is opened anew.
///
/// 50 ms: the twenty that send garbage, and are closed at once, make 400 connections a second.
const RENEWAL: Duration = Duration::from_millis(50);

/// Whom to attack, with how many, and for how long.
#[derive(Clone, clap::Args)]
pub(crate) struct Attack {
    #[command(flatten)]
    to: To,
    /// How many hold half a hello
    #[arg(long, default_value_t = 10_000)]
    half_hellos: usize,
    /// How many say nothing
    #[arg(long, default_value_t = 40)]
    silent: usize,
    /// How many send what is no TLS
    #[arg(long, default_value_t = 20)]
    garbage: usize,
    /// How long to measure, without the attack and with it
    #[arg(long, default_value_t = 10.0)]
    secs: f64,
}

/// What a socket of the attack says before it waits to be closed.
#[derive(Clone, Copy)]
enum Word {
    Nothing,
    Garbage,
    HalfAHello,
}

/// How long real clients have waited.
#[derive(Default)]
struct Waited {
    connections: Vec<Duration>,
    ping_pongs: Vec<Duration>,
}

impl Attack {
    /// Measures real clients alone, begins the attack, and measures them again while it goes on.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let load = Load::new(&self.to, Proof::Assumed)?;
        // What is set up once and for all must be there before.
        drop(load.open_many(AT_ONCE).await?);
        let quiet = self.measure(&load).await?;
        let mut attackers: JoinSet<anyhow::Result<()>> = JoinSet::new();
        let held = Rc::new(RefCell::new(0));
        let words = [
            (Word::HalfAHello, self.half_hellos),
            (Word::Nothing, self.silent),
            (Word::Garbage, self.garbage),
        ];
        let begin = Instant::now();
        for (word, count) in words {
            for number in 0..count {
                let (load, held) = (Rc::clone(&load), Rc::clone(&held));
                attackers.spawn_local(async move {
                    loop {
                        hold(&load, word, number, &held).await?;
                        sleep(RENEWAL).await;
                    }
                });
                // A backlog that is full would be the kernel's limit, and not the gateway's.
                if number % AT_ONCE == 0 {
                    sleep(Duration::from_millis(1)).await;
                }
            }
        }
        while *held.borrow() < self.half_hellos + self.silent {
            anyhow::ensure!(
                begin.elapsed() < 6 * PATIENCE,
                "the attack does not come about"
            );
            sleep(Duration::from_millis(10)).await;
        }
        let attacked = tokio::select! {
            measured = self.measure(&load) => measured?,
            Some(failed) = attackers.join_next() => {
                failed??;
                anyhow::bail!("an attacker has ended")
            }
        };
        let result = json!({
            "held": *held.borrow(),
            "quiet": quiet.told(),
            "attacked": attacked.told(),
        });
        println!("{result}");
        Ok(())
    }

    /// Real clients, one after the other, and some at a time. One that is not served ends everything.
    async fn measure(&self, load: &Rc<Load>) -> anyhow::Result<Waited> {
        let waited = Rc::new(RefCell::new(Waited::default()));
        let end = Instant::now() + Duration::from_secs_f64(self.secs);
        let mut clients: JoinSet<anyhow::Result<()>> = JoinSet::new();
        for _ in 0..CLIENTS {
            let (load, waited) = (Rc::clone(load), Rc::clone(&waited));
            clients.spawn_local(async move {
                while Instant::now() < end {
                    timeout(PATIENCE, real(&load, &waited)).await??;
                    sleep(THOUGHT).await;
                }
                Ok(())
            });
        }
        while let Some(served) = clients.join_next().await {
            served??;
        }
        Ok(waited.take())
    }
}

impl Waited {
    fn told(mut self) -> Value {
        self.connections.sort_unstable();
        self.ping_pongs.sort_unstable();
        json!({
            "clients": self.connections.len(),
            "connection_p50_us": quantile(&self.connections, 0.50),
            "connection_p99_us": quantile(&self.connections, 0.99),
            "pingpong_p50_us": quantile(&self.ping_pongs, 0.50),
            "pingpong_p99_us": quantile(&self.ping_pongs, 0.99),
        })
    }
}

/// A real client: its connection, up to the first byte that comes back, its ping-pongs, and its end.
async fn real(load: &Load, waited: &RefCell<Waited>) -> anyhow::Result<()> {
    let begin = Instant::now();
    let mut connection = load.open(&[ECHO, b'.']).await?;
    connection.hear().await?;
    waited.borrow_mut().connections.push(begin.elapsed());
    let mut back = [0; MESSAGE.len()];
    for _ in 0..PING_PONGS {
        sleep(THOUGHT).await;
        let begin = Instant::now();
        connection.send(&MESSAGE).await?;
        connection.receive(&mut back).await?;
        waited.borrow_mut().ping_pongs.push(begin.elapsed());
        anyhow::ensure!(back == MESSAGE, "other bytes came back");
    }
    connection.close().await?;
    Ok(())
}

/// One socket of the attack, until the gateway closes it.
async fn hold(load: &Load, word: Word, number: usize, held: &RefCell<usize>) -> anyhow::Result<()> {
    let mut tcp = TcpStream::connect(load.address()).await?;
    let hello = load.hello();
    // The gateway may have closed it already.
    let _ = match word {
        Word::Nothing => Ok(()),
        Word::Garbage => tcp.write_all(&[number as u8; 600]).await,
        Word::HalfAHello => {
            let part = 1 + number % (hello.len() - 1);
            tcp.write_all(hello.get(..part).unwrap_or_default()).await
        }
    };
    *held.borrow_mut() += 1;
    let mut answer = [0; 64];
    while tcp.read(&mut answer).await.is_ok_and(|n| n > 0) {}
    *held.borrow_mut() -= 1;
    Ok(())
}
