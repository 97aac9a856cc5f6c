//! One connection: `tls::Stream` and the task that has it on one side, rustls with its buffers on the other.

mod task;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Waker;

use portcullis::tls::{End, HandshakeFailed, Stream};
use rustls::{ClientConnection, Connection, Error, ServerConnection};
use tokio::net::TcpStream;

use super::crypto;
use super::link::{Link, Woken, pair, turn};
use super::meddling::Meddling;
use super::schedule::{Schedule, Step};
use super::setting::Setting;
use super::sides::{client, name, server, words};

/// As many changes of key without a word in between are well within what rustls bears with.
const REKEYS: usize = 16;

/// No more than this is said in one run by either side.
const MOST: usize = 1 << 18;

/// How often the task is polled at most while nothing comes of it.
const IDLE_POLLS: usize = 4;

type Greeting = Pin<Box<dyn Future<Output = Result<Box<Stream>, HandshakeFailed>>>>;

/// What the task has.
enum Side {
    Greeting(Greeting),
    Open(Box<Stream>),
    /// The connection is closed when the run is over.
    Failed {
        _tcp: TcpStream,
    },
}

/// The state of a run.
pub(crate) struct Run {
    setting: Setting,
    side: Side,
    woken: Arc<Woken>,
    waker: Waker,
    peer: Connection,
    link: Link,
    /// From the peer, not yet sent.
    queue: VecDeque<u8>,
    made: usize,
    /// How much ciphertext came of how many words.
    marks: Vec<(usize, usize)>,
    /// What the peer has said, and how much of it was handed over.
    said: usize,
    taken: usize,
    /// What was taken to be sent, and how much of it the peer has heard.
    sealed: usize,
    heard: usize,
    /// When so much ciphertext has arrived, so many words have.
    promised: VecDeque<(usize, usize)>,
    /// What is to be written and was not taken yet.
    wanted: usize,
    rekeys: usize,
    /// The last call that reads, or that writes, waits.
    reading: bool,
    writing: bool,
    /// How the peer's direction ended, or what came of asking.
    ended: Option<End>,
    unread: Option<ErrorKind>,
    /// Why nothing can be written.
    unwritten: Option<ErrorKind>,
    closing: Option<End>,
    closed: bool,
    /// Where the peer's `close_notify` ends.
    peer_closed: Option<usize>,
    peer_ended: bool,
    end_heard: bool,
    fin_heard: bool,
    touched: bool,
    greeting_touched: bool,
    peer_failed: Option<Error>,
}

impl Run {
    pub(crate) fn new(schedule: &Schedule) -> Self {
        crypto::start_again();
        let setting = schedule.setting;
        let (tcp, link) = pair(&schedule.room);
        let woken = Arc::new(Woken::default());
        let mut peer = if setting.server {
            Connection::from(ClientConnection::new(client(&setting, true), name()).unwrap())
        } else {
            Connection::from(ServerConnection::new(server(&setting, true)).unwrap())
        };
        let mut queue = VecDeque::new();
        let greeting: Greeting = if setting.server {
            while peer.wants_write() {
                peer.write_tls(&mut queue).unwrap();
            }
            let received = queue.len().min(schedule.room.received);
            let received = queue.drain(..received).collect();
            Box::pin(Stream::accept(tcp, received, server(&setting, false)))
        } else {
            Box::pin(Stream::connect(tcp, client(&setting, false), name()))
        };
        let mut run = Self {
            setting,
            side: Side::Greeting(greeting),
            waker: Waker::from(Arc::clone(&woken)),
            woken,
            peer,
            link,
            made: queue.len(),
            queue,
            marks: Vec::new(),
            said: 0,
            taken: 0,
            sealed: 0,
            heard: 0,
            promised: VecDeque::new(),
            wanted: 0,
            rekeys: 0,
            reading: false,
            writing: false,
            ended: None,
            unread: None,
            unwritten: None,
            closing: None,
            closed: false,
            peer_closed: None,
            peer_ended: false,
            end_heard: false,
            fin_heard: false,
            touched: setting.is_too_much(),
            greeting_touched: setting.is_too_much(),
            peer_failed: None,
        };
        run.attend();
        if setting.greeted {
            run.settle();
            let open = matches!(run.side, Side::Open(_));
            assert!(run.touched || open, "the handshake ends");
        }
        run
    }

    /// Takes the steps, then lets everything arrive.
    pub(crate) fn through(mut self, steps: &[Step]) {
        for step in steps {
            self.step(step);
        }
        self.settle();
        self.is_complete();
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Say(bytes) => self.say(bytes),
            Step::Rekey => {
                if self.rekeys < REKEYS && self.peer_closed.is_none() {
                    // Too early, or TLS 1.2.
                    let changed = self.peer.refresh_traffic_keys().is_ok();
                    self.rekeys += usize::from(changed);
                    self.peer_writes();
                }
            }
            Step::PeerCloses => {
                // Before keys are agreed an end could be anybody's: rustls passes it over.
                if !self.peer.is_handshaking() && self.peer_failed.is_none() {
                    self.peer.send_close_notify();
                    self.peer_writes();
                    self.peer_closed.get_or_insert(self.made);
                }
            }
            Step::PeerEnds => {
                self.peer_ended = true;
                self.link.end();
            }
            Step::PeerLeaves => self.link.leave(),
            Step::Send(bytes) => {
                self.send(bytes);
            }
            Step::Hear(bytes) => {
                self.hear(bytes);
            }
            Step::Receive => {
                self.receive();
            }
            Step::Write(bytes) => {
                if matches!(self.side, Side::Open(_)) && self.closing.is_none() && self.wanted == 0
                {
                    self.wanted = bytes.min(MOST.saturating_sub(self.sealed));
                    self.write();
                }
            }
            Step::Flush => self.flush(),
            Step::Shutdown(end) => {
                if matches!(self.side, Side::Open(_)) {
                    self.closing.get_or_insert(end);
                    self.shutdown();
                }
            }
            Step::Attend => {
                self.rest();
            }
            Step::Meddle(ref meddling) => self.meddle(meddling),
        }
    }

    /// Until nothing is on its way any more. The task is polled when it is woken, and only then.
    fn settle(&mut self) {
        let greeting = matches!(self.side, Side::Greeting(_));
        let waits = self.reading && (self.writing || !self.has_to_write());
        if !greeting && !waits {
            self.attend();
        }
        let mut quiet = 0;
        while quiet < 2 {
            let before = self.progress();
            self.send(usize::MAX);
            while self.hear(usize::MAX) {}
            let woken = self.rest();
            let moved = self.progress() != before;
            quiet = if woken || moved { 0 } else { quiet + 1 };
        }
    }

    /// Polls the task until it is woken no more, which is soon while the peer does nothing; tells whether it was.
    fn rest(&mut self) -> bool {
        let mut idle = 0;
        let mut woken = false;
        loop {
            turn();
            if !self.woken.take() {
                return woken;
            }
            woken = true;
            let before = self.progress();
            self.attend();
            idle = if self.progress() == before {
                idle + 1
            } else {
                0
            };
            assert!(idle <= IDLE_POLLS, "it spins");
        }
    }

    /// What grows while something comes of it.
    fn progress(&self) -> [usize; 8] {
        let open = match &self.side {
            Side::Greeting(_) => 0,
            Side::Open(_) => 1,
            Side::Failed { .. } => 2,
        };
        let broken = [self.unread.is_some(), self.unwritten.is_some(), self.closed];
        [
            open,
            self.taken,
            self.sealed,
            self.link.pulled(),
            self.link.sent(),
            self.link.arrived() + self.link.heard(),
            usize::from(self.ended.is_some()) + usize::from(self.fin_heard),
            broken.into_iter().map(usize::from).sum(),
        ]
    }

    fn say(&mut self, bytes: usize) {
        if self.peer_closed.is_some() || self.said > MOST {
            return;
        }
        // One that has failed says nothing.
        if let Ok(taken) = self.peer.writer().write(&words(self.said, bytes)) {
            self.said += taken;
            if taken > 0 {
                self.rekeys = 0;
            }
        }
        self.peer_writes();
    }

    fn send(&mut self, bytes: usize) {
        let (first, second) = self.queue.as_slices();
        let piece = if first.is_empty() { second } else { first };
        if self.peer_ended || piece.is_empty() {
            return;
        }
        let sent = self.link.send(&piece[..piece.len().min(bytes)]);
        self.queue.drain(..sent);
    }

    /// How many words have been sent whole.
    fn arrived(&self) -> usize {
        let whole = self
            .marks
            .iter()
            .rev()
            .find(|(made, _)| self.is_sent(*made));
        whole.map_or(0, |(_, said)| *said)
    }

    /// Of what the peer has made so much is sent; where nobody meddles, that is.
    fn is_sent(&self, made: usize) -> bool {
        made + self.queue.len() <= self.made
    }

    /// Tells whether there was something.
    fn hear(&mut self, most: usize) -> bool {
        if self.fin_heard || most == 0 {
            return false;
        }
        let Some(bytes) = self.link.hear(most) else {
            return false;
        };
        self.fin_heard = bytes.is_empty();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() && self.peer_failed.is_none() {
            if self.peer.read_tls(&mut rest).unwrap() == 0 {
                // Only of what comes behind an end.
                assert!(self.end_heard, "the peer does not listen");
                break;
            }
            match self.peer.process_new_packets() {
                Ok(state) => self.end_heard |= state.peer_has_closed(),
                Err(error) => {
                    let due = self.unread.is_some()
                        || self.unwritten.is_some()
                        || self.greeting_touched
                        || self.touched && !matches!(self.side, Side::Open(_));
                    assert!(due, "the peer does not understand: {error}");
                    self.peer_failed = Some(error);
                }
            }
            let mut heard = Vec::new();
            match self.peer.reader().read_to_end(&mut heard) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            assert!(
                heard == words(self.heard, heard.len()),
                "other than written"
            );
            self.heard += heard.len();
        }
        while let Some((at, words)) = self.promised.front().copied()
            && at <= self.link.heard()
        {
            assert!(
                self.heard >= words || self.peer_failed.is_some(),
                "not sent"
            );
            self.promised.pop_front();
        }
        self.peer_writes();
        !bytes.is_empty()
    }

    fn peer_writes(&mut self) {
        while self.peer.wants_write() {
            self.made += self.peer.write_tls(&mut self.queue).unwrap();
        }
        // What is said before keys are agreed waits for them.
        if !self.peer.is_handshaking() {
            self.marks.push((self.made, self.said));
        }
    }

    fn meddle(&mut self, meddling: &Meddling) {
        if meddling.work(&mut self.peer, &mut self.queue) {
            self.meddled();
            if let Meddling::Forge(..) = meddling {
                self.peer_writes();
            }
        }
    }

    fn meddled(&mut self) {
        self.touched = true;
        let greeting = matches!(self.side, Side::Greeting(_));
        self.greeting_touched |= greeting || self.peer.is_handshaking();
    }

    /// Nothing is on its way, and nobody was woken: it has all been done, and done rightly.
    fn is_complete(&self) {
        assert!(!self.woken.is());
        let there = self.link.is_whole();
        if !matches!(self.side, Side::Open(_)) {
            assert!(
                self.touched || self.peer_ended || !there,
                "the handshake ends"
            );
            return;
        }
        let worn = self.is_worn() && self.unwritten.is_some();
        let told = self.unread.is_some() || self.ended.is_some();
        let ill = self.unwritten == Some(ErrorKind::InvalidData);
        assert!(told || !ill, "whoever reads is not told");
        if !self.touched && !worn {
            assert!(
                self.taken >= self.arrived(),
                "all that has come is handed over"
            );
            let closed = self.peer_closed.is_some_and(|at| self.is_sent(at));
            match (closed, self.peer_ended, there) {
                (true, ..) => {
                    assert_eq!(self.ended, Some(End::Clean));
                    assert_eq!(self.taken, self.said);
                }
                (false, true, true) => assert_eq!(self.ended, Some(End::Truncated)),
                (false, _, false) => {
                    let reset = self.unread == Some(ErrorKind::ConnectionReset);
                    assert!(reset || self.ended == Some(End::Truncated), "it is open");
                }
                (false, false, true) => assert_eq!((self.ended, self.unread), (None, None)),
            }
        }
        if there && !self.greeting_touched && !worn {
            assert_eq!(self.heard, self.sealed, "all that was taken is heard");
            assert_eq!(
                self.closing.is_some() && self.unwritten.is_none(),
                self.fin_heard
            );
        }
        if there && !self.touched && !worn {
            let greeted = !self.peer.is_handshaking();
            assert!(greeted || self.peer_ended, "the handshake ends");
            assert!(self.peer_failed.is_none(), "{:?}", self.peer_failed);
            assert_eq!((self.wanted, self.unwritten), (0, None));
            assert_eq!(self.closing == Some(End::Clean), self.end_heard);
        }
    }
}
