//! Listening and accepting: the loop only accepts, and what goes wrong backs off.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

mod closing;
mod either;
mod local;
mod queue;

pub use either::Listener;
pub use local::Local;

use super::{canonical, set_options};
use crate::config::Keepalive;
use closing::Closing;

/// Connections that the kernel keeps for us while we are busy.
///
/// 4,096: a burst of reconnects after a restart; the kernel lowers it to `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 4096;

/// The first pause after an accept that failed for want of something (file descriptors, memory); it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// 1 s: the clients that wait in the backlog are served within a second of the shortage's end. One that comes back sooner
/// is the same one, whoever has left a place in between: it is not asked about anew every 5 ms.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A socket that listens over TCP.
#[derive(Debug)]
pub struct Tcp {
    tcp: TcpListener,
    address: SocketAddr,
    /// Of one that somebody else has bound: who waited there before has none of our options.
    adopted: Option<Mutex<Keepalive>>,
}

impl Tcp {
    /// Binds and listens. `[::]` takes IPv4 clients too; port 0 lets the system choose.
    pub fn bind(address: SocketAddr, keepalive: &Keepalive) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM.nonblocking(),
            Some(Protocol::TCP),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        set_options(SockRef::from(&socket), keepalive)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let tcp = TcpListener::from_std(socket.into())?;
        let address = tcp.local_addr()?;
        Ok(Self {
            tcp,
            address,
            adopted: None,
        })
    }

    /// Takes over a socket that listens already, with everyone in its queue. Somebody else holds it too: it goes on
    /// listening when this one is closed.
    pub fn adopt(socket: std::net::TcpListener, keepalive: &Keepalive) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let options = SockRef::from(&socket);
        set_options(options, keepalive)?;
        // Again, on one that listens, it sets the length of the queue.
        SockRef::from(&socket).listen(BACKLOG)?;
        let tcp = TcpListener::from_std(socket)?;
        let address = tcp.local_addr()?;
        let adopted = Some(Mutex::new(*keepalive));
        Ok(Self {
            tcp,
            address,
            adopted,
        })
    }

    /// For those who are accepted from now on.
    ///
    /// # Errors
    /// The system's, when it refuses the values.
    pub fn keep_alive(&self, keepalive: &Keepalive) -> io::Result<()> {
        if let Some(adopted) = &self.adopted {
            *lock(adopted) = *keepalive;
        }
        set_options(SockRef::from(&self.tcp), keepalive)
    }

    /// The address bound, with its port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it stands for all addresses and takes no IPv4 clients: one that was adopted may.
    pub fn refuses_ipv4(&self) -> bool {
        let is_all = self.address.is_ipv6() && self.address.ip().is_unspecified();
        is_all && SockRef::from(&self.tcp).only_v6().unwrap_or(false)
    }

    /// Accepts for ever, until the future is dropped: each connection goes to `take`, which must not wait;
    /// each failure to `failed`.
    pub async fn accept(
        &self,
        mut take: impl FnMut(TcpStream, SocketAddr),
        mut failed: impl FnMut(&io::Error),
    ) {
        let mut pauses = Pauses::default();
        loop {
            match self.tcp.accept().await {
                Ok((tcp, client)) => {
                    fit(&tcp, self.adopted.as_ref());
                    take(tcp, canonical(client));
                }
                Err(e) => {
                    failed(&e);
                    if is_shortage(&e) {
                        tokio::time::sleep(pauses.next()).await;
                    }
                }
            }
        }
    }

    /// Takes what the kernel has accepted already and nobody has taken, then stops listening. Must run on the runtime.
    ///
    /// From now on nobody new enters the queue; a handshake that has begun is waited for, 2 s at most. Where something
    /// is lacking (descriptors, memory) it goes on trying until `give_up` returns; and nobody is taken without `room`, which is
    /// asked for again a little later. An adopted socket never stops to fill:
    /// there as many are taken as its queue can hold, who came first, and the others stay for whoever listens there next.
    ///
    /// # Errors
    /// Somebody waited to the end, and is reset by the kernel.
    pub async fn close<Room>(
        self,
        room: impl FnMut() -> Option<Room>,
        take: impl FnMut(TcpStream, SocketAddr, Room),
        mut failed: impl FnMut(&io::Error),
        give_up: impl Future<Output = ()>,
    ) -> Result<(), Lost> {
        let queue = match self.tcp.into_std() {
            Ok(queue) => queue,
            Err(e) => {
                failed(&e);
                return Err(Lost(None));
            }
        };
        let closing = Closing {
            queue,
            address: self.address,
            adopted: self.adopted,
            room,
            take,
            failed,
        };
        closing.run(give_up).await
    }
}

/// Whoever waited when a listener was closed, and could not be accepted: how many, where that can be known.
#[derive(Debug, thiserror::Error)]
#[error("clients that waited when the listener was closed could not be accepted: {}", match .0 {
    Some(count) => count.to_string(),
    None => "nobody knows how many".to_owned(),
})]
pub struct Lost(pub Option<usize>);

/// Gives a connection of an adopted listener the options that it may not have inherited.
fn fit(tcp: &TcpStream, adopted: Option<&Mutex<Keepalive>>) {
    if let Some(keepalive) = adopted {
        // One that is gone already has no use for them.
        let _ = set_options(SockRef::from(tcp), &lock(keepalive));
    }
}

fn lock(keepalive: &Mutex<Keepalive>) -> MutexGuard<'_, Keepalive> {
    keepalive.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pauses of a shortage.
#[derive(Debug, Default)]
struct Pauses {
    /// The last one, and when it began.
    last: Option<(Duration, Instant)>,
}

impl Pauses {
    /// How long to pause, from now on.
    fn next(&mut self) -> Duration {
        let now = Instant::now();
        let pause = match self.last {
            Some((last, began)) if now - began < last + LONGEST_PAUSE => last * 2,
            _ => FIRST_PAUSE,
        };
        let pause = pause.min(LONGEST_PAUSE);
        self.last = Some((pause, now));
        pause
    }
}

/// Whether the failure is about us and lasts, or about one client that is gone already (accept(2): ECONNABORTED and
/// the network errors of the new socket).
fn is_shortage(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::Interrupted
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::TimedOut
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::future::pending;

    use super::*;

    fn room() -> Option<()> {
        Some(())
    }

    fn listener() -> Tcp {
        let keepalive = Keepalive {
            idle: Duration::from_secs(77),
            interval: Duration::from_secs(7),
            count: 3,
        };
        Tcp::bind("127.0.0.1:0".parse().unwrap(), &keepalive).unwrap()
    }

    #[tokio::test]
    async fn an_accepted_socket_has_the_options_of_its_listener() {
        let listener = listener();
        let _client = TcpStream::connect(listener.address()).await.unwrap();
        let (tcp, _) = listener.tcp.accept().await.unwrap();
        let socket = SockRef::from(&tcp);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(
            socket.tcp_keepalive_time().unwrap(),
            Duration::from_secs(77)
        );
        assert_eq!(
            socket.tcp_keepalive_interval().unwrap(),
            Duration::from_secs(7)
        );
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
    }

    #[tokio::test]
    async fn who_waited_at_an_adopted_listener_has_the_options_of_ours() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let _waits = std::net::TcpStream::connect(address).unwrap();
        let held = socket.try_clone().unwrap();
        let keepalive = Keepalive {
            idle: Duration::from_secs(77),
            ..Keepalive::default()
        };
        let listener = Tcp::adopt(socket, &keepalive).unwrap();
        let mut taken = Vec::new();
        let failed = |e: &io::Error| panic!("{e}");
        let closed = listener.close(room, |tcp, _, ()| taken.push(tcp), failed, pending());
        closed.await.unwrap();
        let socket = SockRef::from(&taken[0]);
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(
            socket.tcp_keepalive_time().unwrap(),
            Duration::from_secs(77)
        );
        // It goes on listening for whoever holds it.
        let _waits = std::net::TcpStream::connect(address).unwrap();
        drop(held);
    }

    #[tokio::test]
    async fn closing_takes_everyone_out_of_the_queue() {
        const QUEUED: usize = 500;
        let listener = listener();
        let clients: Vec<_> = (0..QUEUED)
            .map(|_| std::net::TcpStream::connect(listener.address()).unwrap())
            .collect();
        let mut taken = Vec::new();
        let failed = |e: &io::Error| panic!("{e}");
        let closed = listener.close(room, |_, client, ()| taken.push(client), failed, pending());
        closed.await.unwrap();
        let expected: Vec<_> = clients
            .iter()
            .map(|tcp| tcp.local_addr().unwrap())
            .collect();
        assert_eq!(taken, expected);
    }

    #[tokio::test]
    async fn a_closed_listener_takes_nobody() {
        let listener = listener();
        let address = listener.address();
        listener
            .close(
                room,
                |_, _, ()| panic!("nobody is there"),
                |e| panic!("{e}"),
                pending(),
            )
            .await
            .unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn an_ipv4_client_of_an_ipv6_listener_has_an_ipv4_address() {
        let Ok(listener) = Tcp::bind("[::]:0".parse().unwrap(), &Keepalive::default()) else {
            // No IPv6 on this machine.
            return;
        };
        let port = listener.address().port();
        let _client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (send, mut received) = tokio::sync::mpsc::unbounded_channel();
        let accepting = listener.accept(|_, client| send.send(client).unwrap(), |e| panic!("{e}"));
        tokio::select! {
            () = accepting => {}
            client = received.recv() => assert!(client.unwrap().is_ipv4()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_shortage_that_comes_back_at_once_is_the_same_one() {
        let mut pauses = Pauses::default();
        let mut lengths = Vec::new();
        for _ in 0..10 {
            let pause = pauses.next();
            // Somebody has left, and somebody else has been taken: it takes no time.
            tokio::time::sleep(pause).await;
            lengths.push(pause.as_millis());
        }
        assert_eq!(lengths, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        tokio::time::sleep(LONGEST_PAUSE).await;
        assert_eq!(pauses.next(), FIRST_PAUSE);
    }
}
