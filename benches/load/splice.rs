//! The least that a relay can do: accept, connect, and have the kernel move the bytes both ways.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

/// The listener's number in epoll; connections count from the next one on.
const LISTENER: u64 = 0;

/// No more than this goes into a pipe at a time; the pipe itself takes less.
const AT_ONCE: usize = 1 << 20;

/// Listens once, and moves what comes to an upstream. It reads nothing, so that it knows no names, and gives no connection up.
/// One thread, epoll, two pipes for each connection, of the size that the system gives them.
#[derive(clap::Args)]
pub(crate) struct Splice {
    /// Where everything goes
    #[arg(long)]
    raw: SocketAddr,
}

impl Splice {
    pub(crate) fn run(self) -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        println!("raw {}", listener.local_addr()?);
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let data = EventData::new_u64(LISTENER);
        epoll::add(&epoll, &listener, data, EventFlags::IN)?;

        let mut tunnels = HashMap::new();
        let mut next = LISTENER + 1;
        let mut events = Vec::with_capacity(512);
        loop {
            match epoll::wait(&epoll, spare_capacity(&mut events), None) {
                Err(error) if error != Errno::INTR => return Err(error.into()),
                _ => {}
            }
            for event in events.drain(..) {
                let number = event.data.u64();
                if number == LISTENER {
                    while let Ok((client, _)) = listener.accept() {
                        let tunnel = Tunnel::new(client, TcpStream::connect(self.raw)?)?;
                        tunnel.register(&epoll, next)?;
                        tunnels.insert(next, tunnel);
                        next += 1;
                    }
                } else if let Some(tunnel) = tunnels.get_mut(&number) {
                    // A client that breaks off is how a measurement ends.
                    if tunnel.move_bytes().is_err() || tunnel.ended() {
                        tunnels.remove(&number);
                    }
                }
            }
        }
    }
}

struct Tunnel {
    client: TcpStream,
    upstream: TcpStream,
    up: Direction,
    down: Direction,
}

impl Tunnel {
    fn new(client: TcpStream, upstream: TcpStream) -> io::Result<Self> {
        for socket in [&client, &upstream] {
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
        }
        Ok(Self {
            client,
            upstream,
            up: Direction::new()?,
            down: Direction::new()?,
        })
    }

    fn register(&self, epoll: &OwnedFd, number: u64) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        for socket in [&self.client, &self.upstream] {
            epoll::add(epoll, socket, EventData::new_u64(number), flags)?;
        }
        Ok(())
    }

    fn move_bytes(&mut self) -> io::Result<()> {
        self.up.move_bytes(&self.client, &self.upstream)?;
        self.down.move_bytes(&self.upstream, &self.client)
    }

    fn ended(&self) -> bool {
        self.up.closed && self.down.closed
    }
}

/// One way through a tunnel: the pipe, and how many bytes are in it.
struct Direction {
    out_of: OwnedFd,
    into: OwnedFd,
    held: usize,
    ended: bool,
    closed: bool,
}

impl Direction {
    fn new() -> io::Result<Self> {
        let (out_of, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self {
            out_of,
            into,
            held: 0,
            ended: false,
            closed: false,
        })
    }

    /// Until one of both would have to wait.
    fn move_bytes(&mut self, from: &TcpStream, to: &TcpStream) -> io::Result<()> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        loop {
            if self.held == 0 && !self.ended {
                match splice(from, None, &self.into, None, AT_ONCE, flags) {
                    Ok(0) => self.ended = true,
                    Ok(n) => self.held = n,
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
            if self.held > 0 {
                match splice(&self.out_of, None, to, None, self.held, flags) {
                    Ok(n) => self.held -= n,
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            } else if self.ended {
                if !self.closed {
                    to.shutdown(Shutdown::Write)?;
                    self.closed = true;
                }
                return Ok(());
            }
        }
    }
}
