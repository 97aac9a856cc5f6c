//! Closing so that the last words arrive.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How long a refused client may keep its socket after it was told why.
///
/// 1 s: a round trip to anywhere, twice; a scanner that never closes costs no more than that.
const LINGER: Duration = Duration::from_secs(1);

/// How many bytes of a refused client are read and thrown away.
///
/// 256 KiB: what may be in flight of a hello that was too large.
const DISCARD: usize = 256 * 1024;

/// Ends a connection that was refused: FIN, then what the peer still sends is thrown away until it closes, within bounds.
///
/// Closing at once would answer bytes not yet read with a reset, and a reset takes the alert before it away
/// from a client that has not read it (RFC 9112 §9.6 tells of the same for HTTP).
pub async fn close(mut tcp: TcpStream) {
    let deadline = Instant::now() + LINGER;
    let discard = async {
        tcp.shutdown().await?;
        let mut left = DISCARD;
        while left > 0 {
            tcp.readable().await?;
            match discard_some(&tcp) {
                Ok(0) => break,
                Ok(n) => left = left.saturating_sub(n),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        std::io::Result::Ok(())
    };
    // Whatever happens here, the connection is over.
    let _ = tokio::time::timeout_at(deadline, discard).await;
}

/// Outside the future, so that no connection carries the buffer.
fn discard_some(tcp: &TcpStream) -> std::io::Result<usize> {
    tcp.try_read(&mut [0; 4096])
}
