//! The end of a listener: nobody new enters its queue, and nobody stays in it.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::sync::Mutex;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until};

use super::{BACKLOG, FIRST_PAUSE, LONGEST_PAUSE, Lost, Pauses, fit, is_shortage, queue};
use crate::config::Keepalive;
use crate::net::canonical;

/// How long a handshake that has begun is waited for.
///
/// 2 s: a round trip, also where a segment is lost and sent again after 1 s (RFC 6298 §2). Who has only begun, as a
/// scanner does, keeps nobody for longer.
const HANDSHAKE: Duration = Duration::from_secs(2);

/// How long it is tried after giving up: what ends then gives back what it had.
const LAST_TRY: Duration = Duration::from_millis(300);

/// How often it is looked for room where there was none.
///
/// 10 ms: nobody feels it beside a handshake, and looking is a few loads.
pub(super) const ROOM: Duration = Duration::from_millis(10);

/// How long an adopted queue is tried in a shortage, or without room: nobody is lost who stays there.
pub(super) const ADOPTED: Duration = Duration::from_secs(1);

/// A listener that is being closed.
pub(super) struct Closing<MakeRoom, Take, Failed> {
    pub(super) queue: TcpListener,
    pub(super) address: SocketAddr,
    pub(super) adopted: Option<Mutex<Keepalive>>,
    pub(super) room: MakeRoom,
    pub(super) take: Take,
    pub(super) failed: Failed,
}

impl<Room, MakeRoom, Take, Failed> Closing<MakeRoom, Take, Failed>
where
    MakeRoom: FnMut() -> Option<Room>,
    Take: FnMut(TcpStream, SocketAddr, Room),
    Failed: FnMut(&io::Error),
{
    /// Takes everyone, and returns when nobody can come any more, or when nobody else can be taken.
    pub(super) async fn run(mut self, give_up: impl Future<Output = ()>) -> Result<(), Lost> {
        if self.adopted.is_some() {
            self.empty(pin!(sleep(ADOPTED))).await;
            return Ok(());
        }
        // A kernel without filters closes as kernels do: who comes in the last moment is reset.
        let is_shut = queue::shut(&self.queue).is_ok();
        let mut give_up = pin!(give_up);
        let late = Instant::now() + HANDSHAKE;
        let mut pauses = Pauses::default();
        loop {
            // Asked before the queue is emptied: where nobody was on the way, nobody has come since.
            let last = !is_shut || Instant::now() >= late || !self.is_awaited().await;
            if !self.empty(give_up.as_mut()).await {
                break;
            }
            if last {
                return Ok(());
            }
            tokio::select! {
                () = sleep(pauses.next()) => {}
                () = sleep_until(late) => {}
                () = &mut give_up => break,
            }
        }
        if self.empty(pin!(sleep(LAST_TRY))).await {
            return Ok(());
        }
        let waiting = queue::number(&self.queue).and_then(queue::waiting);
        Err(Lost(waiting.ok()))
    }

    /// Whether somebody has begun a handshake and not finished it. Where the kernel does not tell, nobody has.
    async fn is_awaited(&self) -> bool {
        let port = self.address.port();
        // It may be a long table.
        let arriving = tokio::task::spawn_blocking(move || queue::arriving(port)).await;
        matches!(arriving, Ok(Ok(1..)))
    }

    /// Whether everyone was taken before giving up.
    ///
    /// The kernel itself is asked: the runtime may not have heard yet of the last connections, and lets a task take only
    /// so many at a time.
    async fn empty(&mut self, mut give_up: Pin<&mut impl Future<Output = ()>>) -> bool {
        let mut left = match self.adopted {
            Some(_) => BACKLOG + 1,
            None => i32::MAX,
        };
        let mut is_short = false;
        let mut pause = FIRST_PAUSE;
        while left > 0 && queue::is_waiting(&self.queue) {
            let Some(room) = (self.room)() else {
                tokio::select! {
                    biased;
                    () = &mut give_up => return false,
                    () = sleep(ROOM) => continue,
                }
            };
            // Who is taken needs a second descriptor to be served with. Given back it is there, unless another takes it.
            let spare = match is_short {
                true => self.queue.try_clone().map(Some),
                false => Ok(None),
            };
            let accepted = spare.and_then(|_spare| self.queue.accept());
            let accepted = accepted.and_then(|(tcp, client)| {
                tcp.set_nonblocking(true)?;
                Ok((TcpStream::from_std(tcp)?, client))
            });
            match accepted {
                Ok((tcp, client)) => {
                    left = left.saturating_sub(1);
                    // It may have come through the filter's listener, and needs none.
                    let _ = SockRef::from(&tcp).detach_filter();
                    fit(&tcp, self.adopted.as_ref());
                    (self.take)(tcp, canonical(client), room);
                    if !is_short {
                        continue;
                    }
                    pause = FIRST_PAUSE;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(e) => {
                    (self.failed)(&e);
                    if !is_shortage(&e) {
                        continue;
                    }
                    is_short = true;
                }
            }
            // What ends meanwhile may give back what there is too little of, and who was taken takes what he needs.
            tokio::select! {
                biased;
                () = &mut give_up => return false,
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;

    use socket2::{Domain, SockFilter, Socket, Type};
    use tokio::sync::Semaphore;
    use tokio::sync::mpsc::unbounded_channel;

    use super::super::Tcp;
    use super::*;

    /// A client that hears no answer as long as it has the filter: its handshake has begun and does not end.
    fn begins(address: SocketAddr) -> Socket {
        let client = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        client
            .attach_filter(&[SockFilter::new(0x06, 0, 0, 0)])
            .unwrap();
        client.set_nonblocking(true).unwrap();
        client.connect(&address.into()).unwrap_err();
        client
    }

    fn bound() -> Tcp {
        Tcp::bind("127.0.0.1:0".parse().unwrap(), &Keepalive::default()).unwrap()
    }

    /// A listener, and somebody who has only begun a handshake with it.
    async fn scanned() -> (Tcp, Socket) {
        let listener = bound();
        let scanner = begins(listener.address());
        is_arriving(listener.address().port()).await;
        (listener, scanner)
    }

    /// Closes it, and nobody is there to be taken.
    async fn closed(listener: Tcp, give_up: impl Future<Output = ()>) {
        let nobody = |_, _, ()| panic!("nobody is there");
        let closing = listener.close(|| Some(()), nobody, |e| panic!("{e}"), give_up);
        closing.await.unwrap();
    }

    /// Until the kernel answers for it.
    async fn is_arriving(port: u16) {
        while queue::arriving(port).unwrap() == 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_handshake_that_has_begun_is_finished_and_nobody_begins_another() {
        let listener = Tcp::bind("[::]:0".parse().unwrap(), &Keepalive::default())
            .or_else(|_| Tcp::bind("0.0.0.0:0".parse().unwrap(), &Keepalive::default()))
            .unwrap();
        let port = listener.address().port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let early = begins(address);
        is_arriving(port).await;
        let mut taken = Vec::new();
        let closing = listener.close(
            || Some(()),
            |tcp, client, ()| taken.push((tcp, client)),
            |e| panic!("{e}"),
            pending(),
        );
        let others = async {
            // Asks while the queue is shut, and again when there is none.
            let late = tokio::spawn(TcpStream::connect(address));
            sleep(Duration::from_millis(50)).await;
            early.detach_filter().unwrap();
            late.await.unwrap().unwrap_err().kind()
        };
        let (closed, late) = tokio::join!(closing, others);
        closed.unwrap();
        assert_eq!(late, io::ErrorKind::ConnectionRefused);
        let own = early.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(taken.len(), 1);
        let (tcp, client) = taken.pop().unwrap();
        assert_eq!(client, own);
        // The last segment of its handshake, and all that follows, arrives.
        early.set_nonblocking(false).unwrap();
        early.send(b"hello").unwrap();
        tcp.readable().await.unwrap();
        assert_eq!(tcp.try_read(&mut [0; 5]).unwrap(), 5);
    }

    #[tokio::test]
    async fn who_waits_is_taken_as_room_comes_and_nobody_beyond_it() {
        const QUEUED: usize = 20;
        let listener = bound();
        let address = listener.address();
        let _clients = [(); QUEUED].map(|()| std::net::TcpStream::connect(address).unwrap());
        let room = Arc::new(Semaphore::new(3));
        let (take, mut taken) = unbounded_channel();
        let closing = listener.close(
            || Arc::clone(&room).try_acquire_owned().ok(),
            |_, _, room| take.send(room).unwrap(),
            |e| panic!("{e}"),
            pending(),
        );
        let serving = async {
            for _ in 0..QUEUED {
                // It is given back when this is dropped.
                let _served = taken.recv().await.unwrap();
                assert!(taken.len() < 3);
            }
        };
        // Who is lost is told at once, not waited for.
        let closed = async { closing.await.unwrap() };
        tokio::join!(closed, serving);
    }

    #[tokio::test]
    async fn who_only_begins_a_handshake_is_not_waited_for_for_ever() {
        let (listener, _scanner) = scanned().await;
        let begin = Instant::now();
        closed(listener, pending()).await;
        let time = begin.elapsed();
        assert!(
            time >= HANDSHAKE && time < HANDSHAKE + HANDSHAKE,
            "{time:?}"
        );
    }

    #[tokio::test]
    async fn giving_up_ends_the_wait_for_handshakes() {
        let (listener, _scanner) = scanned().await;
        let begin = Instant::now();
        closed(listener, std::future::ready(())).await;
        assert!(begin.elapsed() < HANDSHAKE);
    }
}
