//! The client: many short connections, few busy ones, or many idle ones, and what they cost the process they go to.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::process;
use crate::server::{ECHO, SOURCE};
use crate::tls::{self, Exchange, MESHED, PASSED, TERMINATED};

/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many connections are opened at once, where that is not what is measured.
const AT_ONCE: usize = 64;

/// What to do, to whom, and for how long.
#[derive(Clone, clap::Args)]
pub(crate) struct Run {
    /// Where to connect
    #[arg(long)]
    address: SocketAddr,
    /// How to speak there
    #[arg(long)]
    speak: Speak,
    /// The key exchange of the hello
    #[arg(long, default_value = "x25519")]
    exchange: Exchange,
    /// The folder with edge.pem
    #[arg(long)]
    certificate: PathBuf,
    /// How many connections there are at a time
    #[arg(long)]
    connections: usize,
    /// How long to measure
    #[arg(long, default_value_t = 1.0)]
    secs: f64,
    /// The process whose cost is told
    #[arg(long)]
    pid: u32,
    /// Its upstream's, whose cost is ours and no disturbance
    #[arg(long)]
    upstream_pid: u32,
}

/// How a connection begins.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Speak {
    /// With a TLS handshake.
    Tls,
    /// With a TLS handshake, for the route whose upstream is a service of a mesh.
    Mesh,
    /// With the bytes of a hello, and in clear from then on: a relay that passes TLS through sees no difference.
    Raw,
}

impl Run {
    /// Opens, asks for one byte, closes, again and again.
    pub(crate) async fn connections(self) -> anyhow::Result<()> {
        let load = Load::new(&self)?;
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
            "cpu_us_per_connection": used.cpu * 1e6 / count.max(1.0),
            "foreign": used.foreign,
        }));
        Ok(())
    }

    /// Has bytes sent down. What comes is thrown away as it comes, encrypted or not: decrypting it would cost the
    /// client's CPU more than most gateways need.
    pub(crate) async fn bulk(self) -> anyhow::Result<()> {
        let load = Load::new(&self)?;
        let read = Rc::new(Cell::new(0_u64));
        let mut clients = JoinSet::new();
        for _ in 0..self.connections {
            let (load, read) = (Rc::clone(&load), Rc::clone(&read));
            clients.spawn_local(async move {
                let opened = timeout(PATIENCE, load.open(&[SOURCE])).await??;
                let mut tcp = opened.into_tcp();
                let mut buffer = vec![0; 256 * 1024];
                loop {
                    let n = tcp.read(&mut buffer).await?;
                    anyhow::ensure!(n > 0, "the upstream has ended");
                    read.set(read.get() + n as u64);
                }
            });
        }
        let (bytes, used) = self.measure(&mut clients, &read).await?;
        print(json!({
            "bytes": bytes,
            "gbit_per_second": bytes * 8e-9 / used.secs,
            "cpu_s_per_gb": used.cpu / (bytes.max(1.0) * 1e-9),
            "foreign": used.foreign,
        }));
        Ok(())
    }

    /// Opens, asks for one byte, and stays silent.
    pub(crate) async fn idle(self) -> anyhow::Result<()> {
        let load = Load::new(&self)?;
        // What is set up once and for all must be there before.
        let warm = load.open_many(AT_ONCE).await?;
        drop(warm);
        sleep(Duration::from_millis(500)).await;
        let before = process::memory(self.pid)?;
        let mut opened = load.open_many(self.connections).await?;
        sleep(Duration::from_secs(1)).await;
        let after = process::memory(self.pid)?;
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
            let (before, count) = (Used::until_now(self)?, counter.get());
            let start = Instant::now();
            sleep(Duration::from_secs_f64(self.secs)).await;
            let (after, counted) = (Used::until_now(self)?, counter.get() - count);
            let used = after.since(&before, start.elapsed().as_secs_f64());
            anyhow::Ok((counted as f64, used))
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

/// CPU time in seconds.
struct Used {
    secs: f64,
    /// Of the process that is measured.
    cpu: f64,
    /// Of it, its upstream and ourselves.
    ours: f64,
    machine: f64,
    /// What everything else took, as a share of one CPU.
    foreign: f64,
}

impl Used {
    fn until_now(run: &Run) -> anyhow::Result<Self> {
        let cpu = process::cpu(run.pid)?;
        let ours = cpu + process::cpu(run.upstream_pid)? + process::cpu(std::process::id())?;
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

/// How to open connections.
struct Load {
    address: SocketAddr,
    speak: Speak,
    config: Arc<ClientConfig>,
    hello: Vec<u8>,
}

impl Load {
    fn new(run: &Run) -> anyhow::Result<Rc<Self>> {
        let config = tls::client(&run.certificate, run.exchange)?;
        Ok(Rc::new(Self {
            address: run.address,
            speak: run.speak,
            hello: tls::hello(&config, PASSED)?,
            config,
        }))
    }

    /// A connection on which the first bytes have been sent.
    async fn open(&self, first: &[u8]) -> anyhow::Result<Connection> {
        let mut tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        match self.speak {
            Speak::Raw => {
                tcp.write_all(&[&self.hello, first].concat()).await?;
                Ok(Connection::Raw(tcp))
            }
            Speak::Tls | Speak::Mesh => {
                let connector = TlsConnector::from(Arc::clone(&self.config));
                let name = match self.speak {
                    Speak::Mesh => MESHED,
                    _ => TERMINATED,
                };
                let name = ServerName::try_from(name)?;
                let mut stream = connector.connect(name, tcp).await?;
                stream.write_all(first).await?;
                stream.flush().await?;
                Ok(Connection::Tls(Box::new(stream)))
            }
        }
    }

    /// A connection from its beginning to its end.
    async fn once(&self) -> anyhow::Result<()> {
        let mut connection = self.open(&[ECHO, b'.']).await?;
        connection.hear().await?;
        connection.close().await?;
        Ok(())
    }

    /// This many, on each of which a byte has come back.
    async fn open_many(self: &Rc<Self>, count: usize) -> anyhow::Result<Vec<Connection>> {
        let opened = Rc::new(RefCell::new(Vec::with_capacity(count)));
        let left = Rc::new(Cell::new(count));
        let openers = (0..AT_ONCE).map(|_| {
            let (load, opened, left) = (Rc::clone(self), Rc::clone(&opened), Rc::clone(&left));
            spawn_local(async move {
                while left.get() > 0 {
                    left.set(left.get() - 1);
                    let mut connection = timeout(PATIENCE, load.open(&[ECHO, b'.'])).await??;
                    timeout(PATIENCE, connection.hear()).await??;
                    opened.borrow_mut().push(connection);
                }
                anyhow::Ok(())
            })
        });
        for opener in openers.collect::<Vec<_>>() {
            opener.await??;
        }
        Ok(opened.take())
    }
}

enum Connection {
    Raw(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    async fn ask(&mut self) -> io::Result<()> {
        match self {
            Self::Raw(tcp) => tcp.write_all(b".").await?,
            Self::Tls(stream) => {
                stream.write_all(b".").await?;
                stream.flush().await?;
            }
        }
        self.hear().await
    }

    async fn hear(&mut self) -> io::Result<()> {
        let byte = match self {
            Self::Raw(tcp) => tcp.read_u8().await?,
            Self::Tls(stream) => stream.read_u8().await?,
        };
        if byte == b'.' {
            Ok(())
        } else {
            Err(io::Error::other("another byte came back"))
        }
    }

    /// Ends this side, and waits until the other has: what the connection costs has been spent by then.
    async fn close(self) -> io::Result<()> {
        let mut rest = Vec::new();
        match self {
            Self::Raw(mut tcp) => {
                tcp.shutdown().await?;
                tcp.read_to_end(&mut rest).await?;
            }
            Self::Tls(mut stream) => {
                stream.shutdown().await?;
                stream.read_to_end(&mut rest).await?;
            }
        }
        Ok(())
    }

    fn into_tcp(self) -> TcpStream {
        match self {
            Self::Raw(tcp) => tcp,
            Self::Tls(stream) => stream.into_inner().0,
        }
    }
}

fn print(result: Value) {
    println!("{result}");
}
