//! A wire between OpenSSL and the gate, which cuts what OpenSSL sends, and may break in the middle of a record.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::sleep;

use super::super::schedule::{Cuts, records};
use crate::chance::Chance;

/// How it breaks: after so many bytes more of what OpenSSL sends next, and never all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Break {
    pub(super) after: usize,
    /// With RST, not with FIN.
    pub(super) reset: bool,
}

/// A wire, as long as both ends have not ended.
pub(super) struct Wire {
    breaks: Arc<Mutex<Option<Break>>>,
    carried: JoinHandle<()>,
}

impl Wire {
    pub(super) fn new(program: TcpStream, gate: TcpStream, cuts: Cuts, chance: Chance) -> Self {
        program.set_nodelay(true).unwrap();
        gate.set_nodelay(true).unwrap();
        let breaks = Arc::new(Mutex::new(None));
        let (from_program, to_program) = program.into_split();
        let (from_gate, to_gate) = gate.into_split();
        let forth = forth(from_program, to_gate, cuts, chance, Arc::clone(&breaks));
        let carried = tokio::spawn(async move {
            let mut back = tokio::spawn(back(from_gate, to_program));
            if let Err(Broken) = forth.await {
                back.abort();
            }
            let _ = (&mut back).await;
        });
        Self { breaks, carried }
    }

    /// What OpenSSL sends next does not arrive.
    pub(super) fn break_off(&self, how: Break) {
        *self.breaks.lock().unwrap() = Some(how);
    }

    pub(super) async fn ended(self) {
        self.carried.await.unwrap();
    }
}

/// It was reset: nothing more goes in either direction.
struct Broken;

async fn forth(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    cuts: Cuts,
    mut chance: Chance,
    breaks: Arc<Mutex<Option<Break>>>,
) -> Result<(), Broken> {
    let mut bytes = Vec::new();
    loop {
        let read = from.read_buf(&mut bytes).await;
        let ended = matches!(read, Ok(0) | Err(_));
        // Records begin where what is cut begins.
        let whole = match ended {
            true => bytes.len(),
            false => whole_records(&bytes),
        };
        if whole > 0 {
            let breaks = *breaks.lock().unwrap();
            if let Some(how) = breaks {
                let _ = to.write_all(&bytes[..how.after.min(whole - 1)]).await;
                return tear(to, how.reset);
            }
            let sent = cut(&mut to, &bytes[..whole], cuts, &mut chance).await;
            if sent.is_err() {
                return Ok(());
            }
            bytes.drain(..whole);
        }
        if ended {
            return tear(to, read.is_err());
        }
    }
}

/// How long the records are that are there to their end.
fn whole_records(bytes: &[u8]) -> usize {
    let whole = records(bytes).take_while(|end| *end <= bytes.len());
    whole.last().unwrap_or(0)
}

/// Ends the direction, or the connection; the gate is told of a reset when both halves are gone.
fn tear(to: OwnedWriteHalf, reset: bool) -> Result<(), Broken> {
    if reset {
        let socket = SockRef::from(to.as_ref());
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        to.forget();
        return Err(Broken);
    }
    // Dropped, it sends FIN.
    Ok(())
}

async fn cut(
    to: &mut OwnedWriteHalf,
    bytes: &[u8],
    cuts: Cuts,
    chance: &mut Chance,
) -> io::Result<()> {
    let mut start = 0;
    for end in cuts.ends(bytes, chance) {
        to.write_all(&bytes[start..end]).await?;
        start = end;
        // So that the gate reads one piece before the next is there, however long it has to wait.
        match chance.one_in(16) {
            true => sleep(Duration::from_millis(1)).await,
            false => yield_now().await,
        }
    }
    Ok(())
}

async fn back(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
