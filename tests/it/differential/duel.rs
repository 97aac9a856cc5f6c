//! A forge against either path's TLS alone, in memory: what it takes, what it answers, how it fails, what it holds.

use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};

use portcullis::tls::records::{Records, SEALED};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, Connection, Error, InvalidMessage, ServerConfig,
    ServerConnection, SupportedProtocolVersion,
};

use super::forge::{self, Forge, Handshake, Word};
use super::gate::{NAME, Path};
use crate::authority::Authority;

/// Which side the forge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forged {
    Client,
    Server,
}

/// What happens, one after the other.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// The forge sends this.
    Send(Vec<u8>),
    /// The other side says so many bytes.
    Say(usize),
    /// The other side ends its direction.
    Close,
}

/// What became of it.
#[derive(Debug, PartialEq)]
pub(super) struct Seen {
    /// What the other side took of the forge's text.
    pub(super) text: Vec<u8>,
    /// What the forge was told.
    pub(super) words: Vec<Word>,
    pub(super) error: Option<Error>,
    /// Whether the other side knows that the forge has ended.
    pub(super) ended: bool,
}

/// The most that a connection of ours may hold: one message of a handshake that is not whole, and what was sealed at once.
const MOST_HELD: usize = 0xffff + SEALED + 1024;

pub(super) const TLS_1_2: &[&SupportedProtocolVersion] = &[&TLS12];
pub(super) const TLS_1_3: &[&SupportedProtocolVersion] = &[&TLS13];
pub(super) const BOTH_VERSIONS: [&[&SupportedProtocolVersion]; 2] = [TLS_1_2, TLS_1_3];

/// The configurations of both sides; the forge's let their secrets out.
pub(super) struct Configs {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
    pub(super) forged_server: Arc<ServerConfig>,
    forged_client: Arc<ClientConfig>,
}

impl Configs {
    pub(super) fn of(versions: &[&'static SupportedProtocolVersion]) -> &'static Self {
        static BOTH: LazyLock<[Configs; 2]> = LazyLock::new(|| {
            [TLS_1_2, TLS_1_3].map(|versions| Configs::new(portcullis::tls::provider(), versions))
        });
        &BOTH[usize::from(versions == TLS_1_3)]
    }

    /// With this cryptography on the side of the gateway's server.
    pub(super) fn new(
        provider: Arc<CryptoProvider>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let authority = Authority::new();
        let issued = authority.issue(&[NAME]);
        let mut forged_server = issued.server_by(forge::provider(), versions);
        forged_server.enable_secret_extraction = true;
        forged_server.send_tls13_tickets = 0;
        let mut forged_client = authority.client_by(forge::provider(), versions);
        forged_client.enable_secret_extraction = true;
        Self {
            server: Arc::new(issued.server_by(provider, versions)),
            client: gateways(versions, &authority),
            forged_server: Arc::new(forged_server),
            forged_client: Arc::new(forged_client),
        }
    }

    pub(super) fn handshake(&self, forged: Forged) -> Handshake {
        match forged {
            Forged::Client => Handshake::client(&self.forged_client),
            Forged::Server => Handshake::server(&self.forged_server),
        }
    }
}

/// The gateway's own, for these versions.
fn gateways(
    versions: &[&'static SupportedProtocolVersion],
    authority: &Authority,
) -> Arc<ClientConfig> {
    let mut config = authority.client(versions);
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Plays the acts against both paths; they must be alike.
///
/// One difference is allowed, and only before an error: ours hands over every authentic record that came before the bad
/// one, where the reference may lose those that came in the same read.
pub(super) fn alike(
    forged: Forged,
    versions: &[&'static SupportedProtocolVersion],
    acts: impl Fn(&mut Forge) -> Vec<Act>,
) -> Seen {
    let configs = Configs::of(versions);
    let mut ours = Duel::new(Path::Unbuffered, forged, configs);
    let mut reference = Duel::new(Path::Buffered, forged, configs);
    for duel in [&mut ours, &mut reference] {
        for act in acts(&mut duel.forge) {
            duel.act(&act);
        }
    }
    same(ours.seen, reference.seen)
}

/// What ours saw, if the reference saw the same.
pub(super) fn same(ours: Seen, mut reference: Seen) -> Seen {
    if reference.error.is_some() && ours.text.starts_with(&reference.text) {
        reference.text.clone_from(&ours.text);
    }
    let told = |seen: &Seen| format!("{:?} {:?} {}", seen.words, seen.error, seen.ended);
    assert!(ours.text == reference.text, "other bytes");
    assert_eq!(told(&ours), told(&reference));
    ours
}

/// A forge, and what it tries.
pub(super) struct Duel {
    pub(super) forge: Forge,
    pub(super) subject: Subject,
    pub(super) seen: Seen,
}

impl Duel {
    pub(super) fn new(path: Path, forged: Forged, configs: &Configs) -> Self {
        let mut subject = Subject::new(path, forged, configs);
        let mut handshake = configs.handshake(forged);
        let mut seen = Seen {
            text: Vec::new(),
            words: Vec::new(),
            error: None,
            ended: false,
        };
        let mut said = subject.owed();
        let rest = loop {
            let (answer, through) = handshake.step(&said);
            subject.take(&answer, &mut seen.text).unwrap();
            said = subject.owed();
            if through {
                break said;
            }
        };
        let mut duel = Self {
            forge: handshake.forge(),
            subject,
            seen,
        };
        duel.seen.words = duel.forge.hear(&rest);
        duel.act(&Act::Say(1));
        duel
    }

    /// Nothing happens any more after an error.
    pub(super) fn act(&mut self, act: &Act) {
        if self.seen.error.is_some() {
            return;
        }
        let done = match act {
            Act::Send(bytes) => self.subject.take(bytes, &mut self.seen.text),
            Act::Say(count) => self.subject.say(&vec![b's'; *count]),
            Act::Close => self.subject.close(),
        };
        self.seen.error = done.err();
        self.seen.ended = self.subject.ended();
        let owed = self.subject.owed();
        for word in self.forge.hear(&owed) {
            match (self.seen.words.last_mut(), word) {
                (Some(Word::Data(before)), Word::Data(more)) => before.extend(more),
                (_, word) => self.seen.words.push(word),
            }
        }
    }
}

/// The TLS of one connection, by either path.
pub(super) enum Subject {
    Unbuffered(Box<Records>),
    Buffered(Box<Connection>),
}

impl Subject {
    pub(super) fn new(path: Path, forged: Forged, configs: &Configs) -> Self {
        let name = ServerName::try_from(NAME).unwrap();
        let (server, client) = (configs.server.clone(), configs.client.clone());
        match (path, forged) {
            (Path::Unbuffered, Forged::Client) => {
                Self::Unbuffered(Box::new(Records::server(server).unwrap()))
            }
            (Path::Unbuffered, Forged::Server) => {
                let mut records = Records::client(client, name).unwrap();
                records.open(&mut [], &mut |_| {}).unwrap();
                Self::Unbuffered(Box::new(records))
            }
            (Path::Buffered, Forged::Client) => {
                let tls = ServerConnection::new(server).unwrap();
                Self::Buffered(Box::new(Connection::Server(tls)))
            }
            (Path::Buffered, Forged::Server) => {
                let tls = ClientConnection::new(client, name).unwrap();
                Self::Buffered(Box::new(Connection::Client(tls)))
            }
        }
    }

    /// Takes what came in one read, and puts what it opens to into `text`.
    pub(super) fn take(&mut self, mut bytes: &[u8], text: &mut Vec<u8>) -> Result<(), Error> {
        match self {
            Self::Unbuffered(records) => {
                let kept = records.kept()?;
                let mut buffer = [&vec![0; kept], bytes].concat();
                let opened = records.open(&mut buffer, &mut |piece| text.extend_from_slice(piece));
                let held = records.kept().unwrap_or_default() + records.owed().len();
                assert!(held <= MOST_HELD, "it holds {held} bytes");
                opened
            }
            Self::Buffered(tls) => {
                while !bytes.is_empty() && !has_closed(tls) {
                    // Its own buffer has no room for more of a message.
                    tls.read_tls(&mut bytes).map_err(|_| {
                        Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge)
                    })?;
                    let state = tls.process_new_packets()?;
                    let start = text.len();
                    text.resize(start + state.plaintext_bytes_to_read(), 0);
                    tls.reader().read_exact(&mut text[start..]).unwrap();
                }
                Ok(())
            }
        }
    }

    /// Seals text; what it became is owed.
    pub(super) fn say(&mut self, mut text: &[u8]) -> Result<(), Error> {
        match self {
            Self::Unbuffered(records) => {
                while !text.is_empty() {
                    let mut out = vec![0; SEALED];
                    let (taken, sealed) = records.seal(text, &mut out)?;
                    records.owe(&out[..sealed]);
                    text = &text[taken..];
                }
            }
            Self::Buffered(tls) => {
                tls.set_buffer_limit(None);
                tls.writer().write_all(text).unwrap();
            }
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Error> {
        match self {
            Self::Unbuffered(records) => records.close(),
            Self::Buffered(tls) => {
                tls.send_close_notify();
                Ok(())
            }
        }
    }

    fn ended(&mut self) -> bool {
        match self {
            Self::Unbuffered(records) => records.ended(),
            Self::Buffered(tls) => has_closed(tls),
        }
    }

    /// Takes what it owes.
    pub(super) fn owed(&mut self) -> Vec<u8> {
        match self {
            Self::Unbuffered(records) => {
                let owed = records.owed().to_vec();
                records.paid(owed.len());
                owed
            }
            Self::Buffered(tls) => {
                let mut owed = Vec::new();
                while tls.wants_write() {
                    tls.write_tls(&mut owed).unwrap();
                }
                owed
            }
        }
    }
}

fn has_closed(tls: &mut Connection) -> bool {
    let state = tls.process_new_packets();
    state.is_ok_and(|state| state.peer_has_closed())
}
