//! One connection: the records on one side, rustls with its buffers on the other, and what is on its way between them.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};

use portcullis::tls::records::{CHUNK, FULL_RECORD, Records, SEALED};
use rustls::{ClientConnection, Connection, ContentType, Error, ServerConnection};

use super::crypto;
use super::meddling::{self, Meddling};
use super::schedule::Step;
use super::setting::Setting;
use super::sides::{client, name, server, words};

/// How much is read at a time, as `tls::Stream` does it.
const READ: usize = 4 * FULL_RECORD;

/// What a side owes at most besides its certificate: hellos, tickets, answers.
const OWED: usize = 8 * 1024;

/// As many changes of key without a word in between are well within what rustls bears with.
const REKEYS: usize = 16;

/// No more than this is said in one run by either side.
const MOST: usize = 1 << 20;

/// The state of a run.
pub(crate) struct Run {
    setting: Setting,
    records: Records,
    peer: Connection,
    /// From the peer, not yet opened.
    inward: VecDeque<u8>,
    /// To the peer, not yet heard.
    outward: Vec<u8>,
    /// What the peer has said, and how much of it was handed over.
    said: usize,
    taken: usize,
    /// What was sealed, and how much of it the peer has heard.
    sealed: usize,
    heard: usize,
    /// How much of what is owed was sealed here and not sent.
    own: usize,
    rekeys: usize,
    closed: bool,
    peer_closed: bool,
    /// The peer has heard the end.
    end_heard: bool,
    /// Somebody meddled with what the peer sends; with the handshake, even.
    touched: bool,
    greeting_touched: bool,
    failed: Option<Error>,
    peer_failed: Option<Error>,
}

impl Run {
    pub(crate) fn new(setting: Setting) -> Self {
        crypto::start_again();
        let (records, peer) = if setting.server {
            let peer = ClientConnection::new(client(&setting, true), name()).unwrap();
            let records = Records::server(server(&setting, false)).unwrap();
            (records, Connection::from(peer))
        } else {
            let peer = ServerConnection::new(server(&setting, true)).unwrap();
            let records = Records::client(client(&setting, false), name()).unwrap();
            (records, Connection::from(peer))
        };
        let mut run = Self {
            setting,
            records,
            peer,
            inward: VecDeque::new(),
            outward: Vec::new(),
            said: 0,
            taken: 0,
            sealed: 0,
            heard: 0,
            own: 0,
            rekeys: 0,
            closed: false,
            peer_closed: false,
            end_heard: false,
            touched: setting.is_too_much(),
            greeting_touched: setting.is_too_much(),
            failed: None,
            peer_failed: None,
        };
        run.peer_writes();
        // The first word of a client.
        run.open(0);
        if setting.greeted {
            run.settle();
            assert!(run.touched || !run.is_greeting(), "the handshake ends");
        }
        run
    }

    /// Takes the steps, then lets everything arrive.
    pub(crate) fn through(mut self, steps: &[Step]) {
        for step in steps {
            self.step(step);
        }
        self.settle();
        let setting = self.setting;
        if !self.greeting_touched {
            assert_eq!(self.heard, self.sealed, "all that was sealed is heard");
            let exhausted = setting.old && setting.worn;
            assert!(self.end_heard == self.closed || exhausted && self.failed.is_some());
        }
        if !self.touched {
            assert!(!self.is_greeting());
            assert!(self.peer_failed.is_none(), "{:?}", self.peer_failed);
            if self.failed.is_none() {
                assert_eq!(self.records.ended(), self.peer_closed);
                assert_eq!(self.taken, self.said, "all that was said is handed over");
                assert!(matches!(self.records.kept(), Ok(0)), "nothing is left over");
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Say(bytes) => self.say(bytes),
            Step::Rekey => {
                if self.rekeys < REKEYS && !self.peer_closed {
                    // Too early, or TLS 1.2.
                    let changed = self.peer.refresh_traffic_keys().is_ok();
                    self.rekeys += usize::from(changed);
                    self.peer_writes();
                }
            }
            Step::PeerCloses => {
                // Before keys are agreed an end could be anybody's: rustls passes it over.
                if !self.peer.is_handshaking() {
                    self.peer.send_close_notify();
                    self.peer_closed = true;
                    self.peer_writes();
                }
            }
            Step::Deliver { bytes, reads_of } => self.deliver(bytes, reads_of),
            Step::DeliverAll => self.deliver(usize::MAX, usize::MAX),
            Step::OpenNothing => self.open(0),
            Step::Seal { bytes, sent } => self.seal(bytes, sent),
            Step::Close => self.close(),
            Step::Pay(bytes) => self.pay(bytes),
            Step::Hear => self.hear(),
            Step::ForgeWords { bytes, padding } => self.forge_words(bytes, padding),
            Step::Meddle(ref meddling) => self.meddle(meddling),
            Step::Repeat(bytes) => {
                let from = self.inward.len().saturating_sub(bytes);
                let again: Vec<u8> = self.inward.range(from..).copied().collect();
                self.inward.extend(again);
                self.meddled();
            }
            Step::Lose(bytes) => {
                let left = self.inward.len().saturating_sub(bytes);
                self.inward.truncate(left);
                self.meddled();
            }
        }
        assert!(
            self.records.owed().len() <= self.own + self.setting.certificate + OWED,
            "{} bytes are owed",
            self.records.owed().len()
        );
    }

    /// Until nothing is on its way any more.
    fn settle(&mut self) {
        for _ in 0..64 {
            self.deliver(usize::MAX, usize::MAX);
            self.pay(usize::MAX);
            self.hear();
            let stuck = self.is_dead() || self.inward.is_empty();
            if stuck && self.outward.is_empty() && self.records.owed().is_empty() {
                return;
            }
        }
        panic!("it goes on for ever");
    }

    fn say(&mut self, bytes: usize) {
        if self.peer_closed || self.said > MOST {
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

    /// Tells whether the record is on its way.
    fn forge(&mut self, typ: ContentType, bytes: Vec<u8>) -> bool {
        if self.peer.is_handshaking() {
            return false;
        }
        self.meddled();
        let forged = meddling::forge(&mut self.peer, typ, bytes);
        self.peer_writes();
        forged
    }

    fn forge_words(&mut self, bytes: usize, padding: usize) {
        let mut record = words(self.said, bytes);
        let mut typ = ContentType::ApplicationData;
        if padding > 0 && !self.setting.old {
            // The type stands behind the words, and what is sealed as the type is padding too.
            record.push(typ.into());
            record.resize(bytes + padding, 0);
            typ = ContentType::Unknown(0);
        }
        let fits = record.len() <= 16_384;
        // Behind an end they are to be passed over.
        let touched = self.touched || self.peer_closed;
        if self.forge(typ, record) && fits {
            self.said += bytes;
            self.touched = touched;
        }
    }

    fn deliver(&mut self, bytes: usize, reads_of: usize) {
        let mut left = bytes.min(self.inward.len());
        while left > 0 && !self.is_dead() {
            let Ok(kept) = self.records.kept() else {
                return;
            };
            let room = READ.max(kept + FULL_RECORD) - kept;
            let new = left.min(room).min(reads_of);
            self.open(new);
            left -= new;
        }
    }

    /// Opens so many bytes of what is on its way.
    fn open(&mut self, new: usize) {
        let kept = match self.records.kept() {
            Ok(kept) => kept,
            // Whoever opens all the same gets nothing.
            Err(_) if self.failed.is_some() => 0,
            Err(error) => {
                assert!(self.touched, "an honest message is too large: {error}");
                return;
            }
        };
        assert!(kept < 0xffff, "{kept} bytes are kept");
        let new = new.min(self.inward.len());
        let mut buffer = vec![0; kept];
        buffer.extend(self.inward.drain(..new));
        let (before, said, ended) = (self.taken, self.said, self.records.ended());
        let taken = &mut self.taken;
        let opened = self.records.open(&mut buffer, &mut |piece| {
            assert!(*taken + piece.len() <= said, "more than was said");
            assert!(piece == words(*taken, piece.len()), "other than was said");
            *taken += piece.len();
        });
        let more = self.taken > before;
        assert!(!(more && (self.failed.is_some() || ended)), "after the end");
        match opened {
            Ok(()) => assert!(self.failed.is_none(), "no way back from {:?}", self.failed),
            Err(error) => self.fail(error),
        }
        if self.records.ended() {
            assert!(self.touched || self.peer_closed && self.taken == self.said);
            let kept = self.records.kept();
            assert!(matches!(kept, Ok(0)) || self.failed.is_some(), "{kept:?}");
        }
    }

    fn seal(&mut self, bytes: usize, sent: usize) {
        // What is owed goes first.
        if self.is_greeting() || self.closed || !self.records.owed().is_empty() {
            return;
        }
        let given = bytes.min(MOST.saturating_sub(self.sealed));
        let mut out = vec![0; SEALED];
        match self.records.seal(&words(self.sealed, given), &mut out) {
            Ok((taken, length)) => {
                assert!(self.failed.is_none(), "sealed after {:?}", self.failed);
                assert_eq!(taken, given.min(CHUNK));
                self.sealed += taken;
                let (now, later) = out[..length].split_at(sent.min(length));
                self.outward.extend_from_slice(now);
                self.records.owe(later);
                self.own = later.len();
            }
            Err(error) => self.fail(error),
        }
    }

    fn close(&mut self) {
        if self.is_greeting() {
            return;
        }
        match self.records.close() {
            Ok(()) => {
                assert!(self.failed.is_none(), "closed after {:?}", self.failed);
                self.closed = true;
            }
            Err(error) => self.fail(error),
        }
    }

    fn pay(&mut self, bytes: usize) {
        let owed = self.records.owed();
        let paid = bytes.min(owed.len());
        self.outward.extend_from_slice(&owed[..paid]);
        self.records.paid(paid);
        self.own = self.own.saturating_sub(paid);
    }

    fn hear(&mut self) {
        let bytes = std::mem::take(&mut self.outward);
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
                    let due = self.failed.is_some() || self.greeting_touched;
                    assert!(due, "the peer does not understand: {error}");
                    self.peer_failed = Some(error);
                }
            }
            let mut heard = Vec::new();
            match self.peer.reader().read_to_end(&mut heard) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            assert!(heard == words(self.heard, heard.len()), "other than sealed");
            self.heard += heard.len();
            assert!(self.heard <= self.sealed, "more than was sealed");
        }
        self.peer_writes();
    }

    fn peer_writes(&mut self) {
        while self.peer.wants_write() {
            self.peer.write_tls(&mut self.inward).unwrap();
        }
    }

    /// The records have given up, and must not begin again.
    fn fail(&mut self, error: Error) {
        let exhausted = self.setting.old && self.setting.worn;
        assert!(self.touched || exhausted, "an honest peer fails: {error}");
        if self.failed.is_some() {
            return;
        }
        let owed = self.records.owed().len();
        if matches!(error, Error::DecryptError) {
            assert!(owed > 0, "no alert for {error}");
        }
        self.failed = Some(error);
        let mut out = vec![0; SEALED];
        assert!(self.records.seal(b"a", &mut out).is_err(), "sealed");
        assert!(self.records.close().is_err(), "closed");
        assert_eq!(self.records.owed().len(), owed);
        self.open(self.inward.len());
    }

    fn meddle(&mut self, meddling: &Meddling) {
        if meddling.work(&mut self.peer, &mut self.inward) {
            self.meddled();
            if let Meddling::Forge(..) = meddling {
                self.peer_writes();
            }
        }
    }

    fn meddled(&mut self) {
        self.touched = true;
        self.greeting_touched |= self.is_greeting() || self.peer.is_handshaking();
    }

    fn is_greeting(&self) -> bool {
        self.records.agreed().is_handshaking()
    }

    /// Nothing more will be opened.
    fn is_dead(&self) -> bool {
        self.failed.is_some() || self.records.kept().is_err()
    }
}
