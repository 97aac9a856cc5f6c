//! Sockets, for the gateway and the client alike: listeners, dials, names, relays, PROXY headers, status frames, sessions.

pub mod dial;
pub mod frame;
pub mod greeting;
pub mod limits;
pub mod listener;
pub mod promised;
pub mod proxy_header;
pub mod raw;
pub mod relay;
pub mod resolve;
pub mod session;
pub mod unix;

mod address;
mod close;
mod splice;
mod stream;

pub use address::canonical;
pub use close::close;
pub use stream::Stream;

use socket2::{SockRef, TcpKeepalive};

use crate::config::Keepalive;

/// What every socket of ours has: no delay for small writes, and a way to notice a peer that vanished.
///
/// On Linux an accepted socket inherits both from its listener.
pub(crate) fn set_options(socket: SockRef<'_>, keepalive: &Keepalive) -> std::io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(keepalive.idle)
            .with_interval(keepalive.interval)
            .with_retries(keepalive.count),
    )
}
