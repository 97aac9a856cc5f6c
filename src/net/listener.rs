//! Listening and accepting: the loop only accepts, and what goes wrong backs off.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use super::{canonical, set_options};
use crate::config::Keepalive;

/// Connections that the kernel keeps for us while we are busy.
///
/// 4,096: a burst of reconnects after a restart; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// The first pause after an accept that failed for want of something (file descriptors, memory); it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// 1 s: the clients that wait in the backlog are served within a second of the shortage's end.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A socket that listens.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
}

impl Listener {
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
        Ok(Self { tcp, address })
    }

    /// The address bound, with its port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts for ever, until the future is dropped: each connection goes to `take`, which must not wait;
    /// each failure to `failed`.
    pub async fn accept(
        &self,
        mut take: impl FnMut(TcpStream, SocketAddr),
        mut failed: impl FnMut(&io::Error),
    ) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.tcp.accept().await {
                Ok((tcp, client)) => {
                    pause = FIRST_PAUSE;
                    take(tcp, canonical(client));
                }
                Err(e) => {
                    failed(&e);
                    if is_shortage(&e) {
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
            }
        }
    }

    /// Takes what the kernel has accepted already and nobody has taken, then stops listening. Must run on the runtime.
    ///
    /// The kernel itself is asked: the runtime may not have heard yet of the last connections, and lets a task take only
    /// so many at a time.
    pub async fn close(
        self,
        mut take: impl FnMut(TcpStream, SocketAddr),
        mut failed: impl FnMut(&io::Error),
    ) {
        let queue = match self.tcp.into_std() {
            Ok(queue) => queue,
            Err(e) => return failed(&e),
        };
        let mut pause = FIRST_PAUSE;
        loop {
            let accepted = queue.accept().and_then(|(tcp, client)| {
                tcp.set_nonblocking(true)?;
                Ok((TcpStream::from_std(tcp)?, client))
            });
            match accepted {
                Ok((tcp, client)) => take(tcp, canonical(client)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => {
                    failed(&e);
                    if is_shortage(&e) {
                        if pause > LONGEST_PAUSE {
                            return;
                        }
                        // What ends meanwhile may give back what there is too little of.
                        tokio::time::sleep(pause).await;
                        pause *= 2;
                    }
                }
            }
        }
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
