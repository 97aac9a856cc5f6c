//! One end of a tunnel: it says what its schedule tells, in the pieces it tells, and hears what comes.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::LazyLock;
use std::time::Duration;

use rustls::Connection;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::yield_now;

use super::schedule::{Ending, Schedule, Step};
use crate::chance::Chance;
use crate::edge;

/// What each side says, over and over; the two are not the same anywhere.
static TEXTS: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    let client = edge::text();
    let upstream = client.iter().map(|byte| !byte).collect();
    [client, upstream]
});

/// What a side has heard, and how that ended.
#[derive(Debug, PartialEq)]
pub(super) struct Heard {
    pub(super) bytes: u64,
    pub(super) end: HeardEnd,
}

#[derive(Debug, PartialEq)]
pub(super) enum HeardEnd {
    Clean,
    /// FIN, where TLS has not ended.
    Truncated,
    Failed(ErrorKind),
    Tls(rustls::Error),
    /// Bytes behind the end.
    More,
    /// It has gone away before.
    Gone,
}

/// What both ends know of each other.
#[derive(Debug, Default)]
pub(super) struct Both {
    heard: [Cell<u64>; 2],
    ended: [Cell<bool>; 2],
    failed: [Cell<bool>; 2],
    /// Whether a side cannot go on for now: its socket takes no more, it waits, or it is done.
    stuck: [Cell<bool>; 2],
    news: Notify,
}

/// One end; `side` is 0 for the client and 1 for the upstream.
pub(super) struct Peer<'a> {
    side: usize,
    tcp: TcpStream,
    tls: RefCell<Option<Connection>>,
    /// Bytes for the socket.
    outbox: RefCell<Vec<u8>>,
    schedule: &'a Schedule,
    chance: RefCell<Chance>,
    said: Cell<u64>,
    silent: Cell<bool>,
    both: &'a Both,
}

impl<'a> Peer<'a> {
    pub(super) fn new(
        side: usize,
        tcp: TcpStream,
        mut tls: Option<Connection>,
        schedule: &'a Schedule,
        both: &'a Both,
    ) -> Self {
        if let Some(tls) = &mut tls {
            tls.set_buffer_limit(None);
        }
        Self {
            side,
            tcp,
            tls: RefCell::new(tls),
            outbox: RefCell::default(),
            schedule,
            chance: RefCell::new(Chance::new(!schedule.seed)),
            said: Cell::new(0),
            silent: Cell::new(false),
            both,
        }
    }

    /// Plays its part to the end.
    pub(super) async fn play(self) -> Heard {
        let hearing = async { Ok(self.hear().await) };
        match tokio::try_join!(hearing, self.speak()) {
            Ok((heard, ())) => heard,
            Err(Gone) => Heard {
                bytes: self.both.heard[self.side].get(),
                end: HeardEnd::Gone,
            },
        }
    }

    async fn speak(&self) -> Result<(), Gone> {
        self.collect();
        self.wait(|| !self.is_handshaking()).await;
        let (own, other) = (self.side, 1 - self.side);
        for step in &self.schedule.steps[own] {
            match *step {
                Step::Say(count) => self.say(count).await,
                Step::UpdateKeys => {
                    if let Some(tls) = self.tls.borrow_mut().as_mut() {
                        // One that is over already cannot.
                        let _ = tls.refresh_traffic_keys();
                    }
                    self.collect();
                    self.flush().await;
                }
                Step::Hear(count) => self.wait(|| self.both.heard[own].get() >= count).await,
                Step::BeHeard => {
                    let heard = &self.both.heard[other];
                    let ended = &self.both.ended[other];
                    self.wait(|| ended.get() || heard.get() >= self.said.get())
                        .await;
                }
                Step::HearEnd => self.wait(|| self.both.ended[own].get()).await,
                Step::StopReading => self.silent.set(true),
                Step::End(ending) => self.end(ending).await?,
            }
        }
        self.set_stuck(true);
        Ok(())
    }

    async fn say(&self, count: usize) {
        let text = &TEXTS[self.side];
        let mut left = count;
        while left > 0 {
            let at = self.said.get() as usize % text.len();
            let piece = &text[at..text.len().min(at + left)];
            match self.tls.borrow_mut().as_mut() {
                Some(tls) => tls.writer().write_all(piece).unwrap(),
                None => self.outbox.borrow_mut().extend_from_slice(piece),
            }
            self.said.set(self.said.get() + piece.len() as u64);
            left -= piece.len();
        }
        self.collect();
        self.flush().await;
    }

    async fn end(&self, ending: Ending) -> Result<(), Gone> {
        match ending {
            Ending::Clean => {
                if let Some(tls) = self.tls.borrow_mut().as_mut() {
                    tls.send_close_notify();
                }
                self.collect();
            }
            Ending::Torn | Ending::TornReset => {
                let mut tls = self.tls.borrow_mut();
                let tls = tls.as_mut().unwrap();
                let mut record = Vec::new();
                tls.writer().write_all(&[0; 1000]).unwrap();
                while tls.wants_write() {
                    tls.write_tls(&mut record).unwrap();
                }
                record.truncate(1 + self.chance.borrow_mut().below(record.len() - 1));
                self.outbox.borrow_mut().extend(record);
            }
            Ending::Fin | Ending::Reset => {}
        }
        self.flush().await;
        let socket = SockRef::from(&self.tcp);
        if matches!(ending, Ending::Reset | Ending::TornReset) {
            self.set_stuck(true);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
            return Err(Gone);
        }
        // It may be gone already.
        let _ = socket.shutdown(Shutdown::Write);
        Ok(())
    }

    /// Waits until it is so, or never will be; sends meanwhile what TLS has to say.
    async fn wait(&self, is_so: impl Fn() -> bool) {
        loop {
            while !self.outbox.borrow().is_empty() {
                self.flush().await;
            }
            let news = self.both.news.notified();
            if is_so() || self.both.failed[self.side].get() {
                break;
            }
            self.set_stuck(true);
            news.await;
        }
        self.set_stuck(false);
    }

    /// Sends what is in the outbox, in pieces.
    async fn flush(&self) {
        let bytes = self.outbox.take();
        if bytes.is_empty() {
            return;
        }
        let ends = self.schedule.cuts[self.side].ends(&bytes, &mut self.chance.borrow_mut());
        let mut start = 0;
        for end in ends {
            if self.send(&bytes[start..end]).await.is_err() {
                // How it is over, the one who listens is told.
                return;
            }
            start = end;
            // So that the gate reads one piece before the next is there.
            yield_now().await;
        }
    }

    async fn send(&self, mut piece: &[u8]) -> std::io::Result<()> {
        while !piece.is_empty() {
            match self.tcp.try_write(piece) {
                Ok(sent) => piece = &piece[sent..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.set_stuck(true);
                    self.tcp.writable().await?;
                    self.set_stuck(false);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    async fn hear(&self) -> Heard {
        let mut buffer = vec![0; self.schedule.reads[self.side]];
        let mut closed = false;
        let end = loop {
            self.keep_silence().await;
            let read = self.tcp.readable().await;
            match read.and_then(|()| self.tcp.try_read(&mut buffer)) {
                Ok(0) if closed || self.tls.borrow().is_none() => break HeardEnd::Clean,
                Ok(0) => break HeardEnd::Truncated,
                Ok(_) if closed => break HeardEnd::More,
                Ok(read) => match self.take(&buffer[..read]) {
                    Ok(has_closed) => closed = has_closed,
                    Err(error) => break HeardEnd::Tls(error),
                },
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => break HeardEnd::Failed(e.kind()),
            }
        };
        self.both.ended[self.side].set(true);
        let failed = matches!(end, HeardEnd::Failed(_) | HeardEnd::Tls(_));
        self.both.failed[self.side].set(failed);
        self.both.news.notify_waiters();
        Heard {
            bytes: self.both.heard[self.side].get(),
            end,
        }
    }

    /// Waits, where it was told to read no more, until the other side cannot go on.
    async fn keep_silence(&self) {
        while self.silent.get() {
            let news = self.both.news.notified();
            if self.both.stuck[1 - self.side].get() {
                self.silent.set(false);
            } else {
                news.await;
            }
        }
    }

    /// Takes what came from the socket; says whether the other side has closed.
    fn take(&self, mut bytes: &[u8]) -> Result<bool, rustls::Error> {
        let mut tls = self.tls.borrow_mut();
        let Some(tls) = tls.as_mut() else {
            self.heard(bytes);
            return Ok(false);
        };
        let mut closed = false;
        while !bytes.is_empty() && !closed {
            tls.read_tls(&mut bytes).unwrap();
            let state = tls.process_new_packets()?;
            let mut text = vec![0; state.plaintext_bytes_to_read()];
            tls.reader().read_exact(&mut text).unwrap();
            self.heard(&text);
            closed = state.peer_has_closed();
        }
        let mut outbox = self.outbox.borrow_mut();
        while tls.wants_write() {
            tls.write_tls(&mut *outbox).unwrap();
        }
        self.both.news.notify_waiters();
        Ok(closed)
    }

    /// Checks that it is the other side's text.
    fn heard(&self, mut bytes: &[u8]) {
        let text = &TEXTS[1 - self.side];
        let heard = &self.both.heard[self.side];
        while !bytes.is_empty() {
            let expected = &text[heard.get() as usize % text.len()..];
            let both = expected.len().min(bytes.len());
            assert!(
                bytes[..both] == expected[..both],
                "other bytes within {both} after {}: {:?}",
                heard.get(),
                self.schedule
            );
            heard.set(heard.get() + both as u64);
            bytes = &bytes[both..];
        }
        self.both.news.notify_waiters();
    }

    /// Moves what TLS has to send into the outbox.
    fn collect(&self) {
        if let Some(tls) = self.tls.borrow_mut().as_mut() {
            let mut outbox = self.outbox.borrow_mut();
            while tls.wants_write() {
                tls.write_tls(&mut *outbox).unwrap();
            }
        }
    }

    fn is_handshaking(&self) -> bool {
        (self.tls.borrow().as_ref()).is_some_and(|tls| tls.is_handshaking())
    }

    /// Told when it changes.
    fn set_stuck(&self, stuck: bool) {
        if self.both.stuck[self.side].replace(stuck) != stuck {
            self.both.news.notify_waiters();
        }
    }
}

/// It has closed its socket with a reset.
struct Gone;
