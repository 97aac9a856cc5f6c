//! What a peer does first, once a connection to it stands.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use tokio::time::timeout;

use super::relay;
use crate::tls::End;

/// How long a peer has for a greeting, or to refuse a certificate that it was shown (RFC 8446 §4.4.2.4).
///
/// 1 s: who speaks first does so at once, a round trip away.
pub const GREETING: Duration = Duration::from_secs(1);

/// What a peer did at first.
#[derive(Debug)]
pub enum First {
    /// It sent something.
    Bytes,
    /// Nothing, yet.
    Silence,
    /// It ended its direction.
    Ended(End),
}

/// Waits for what a peer does first; bytes are put behind those that `came` before.
///
/// # Errors
/// The stream's: where a peer has refused what it was shown in its handshake, [`crate::tls::late_refusal`] tells it.
pub async fn first(stream: &mut impl relay::Stream, came: &mut Vec<u8>) -> io::Result<First> {
    let hear = async {
        loop {
            if !came.is_empty() {
                return Ok(First::Bytes);
            }
            let more =
                poll_fn(|cx| stream.poll_receive(cx, &mut |bytes| came.extend_from_slice(bytes)));
            if let Some(end) = more.await?
                && came.is_empty()
            {
                return Ok(First::Ended(end));
            }
        }
    };
    timeout(GREETING, hear).await.unwrap_or(Ok(First::Silence))
}
