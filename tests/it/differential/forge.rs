//! A peer that seals any record a test wants, right or wrong, with the keys of a real handshake.

use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::cipher_suite::{
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS13_AES_128_GCM_SHA256,
};
use rustls::crypto::cipher::{
    InboundOpaqueMessage, MessageDecrypter, MessageEncrypter, OutboundPlainMessage,
};
use rustls::kernel::KernelConnection;
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{
    ClientConfig, ConnectionTrafficSecrets, ContentType, ProtocolVersion, ServerConfig,
    SupportedCipherSuite,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::gate::NAME;

pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const DATA: u8 = 23;

/// Messages of a handshake (RFC 8446 §4).
pub(crate) const TICKET: u8 = 4;
pub(crate) const KEY_UPDATE: u8 = 24;

/// The suites whose secrets it knows how to use.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let mut provider = CryptoProvider::clone(&portcullis::tls::provider());
    provider.cipher_suites = vec![
        TLS13_AES_128_GCM_SHA256,
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ];
    Arc::new(provider)
}

/// What a peer was told, record by record; data in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Level and description (RFC 8446 §6).
    Alert(u8, u8),
    Data(Vec<u8>),
    /// The type of the first message in it.
    Handshake(u8),
}

/// A handshake on its way.
pub(crate) struct Handshake {
    side: Side,
    incoming: Vec<u8>,
}

enum Side {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// Whoever made the handshake, from then on.
pub(crate) struct Forge {
    keys: Keys,
    suite: SupportedCipherSuite,
    seal: (u64, Box<dyn MessageEncrypter>),
    open: (u64, Box<dyn MessageDecrypter>),
    /// What came and was not a whole record.
    incoming: Vec<u8>,
}

enum Keys {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

impl Handshake {
    /// As a client; the configuration lets its secrets out.
    pub(crate) fn client(config: &Arc<ClientConfig>) -> Self {
        Self::client_of(config, NAME)
    }

    /// The same for this name.
    pub(crate) fn client_of(config: &Arc<ClientConfig>, name: &'static str) -> Self {
        let name = ServerName::try_from(name).unwrap();
        let client = UnbufferedClientConnection::new(config.clone(), name).unwrap();
        Self::new(Side::Client(client))
    }

    /// As a server; the configuration lets its secrets out.
    pub(crate) fn server(config: &Arc<ServerConfig>) -> Self {
        let server = UnbufferedServerConnection::new(config.clone()).unwrap();
        Self::new(Side::Server(server))
    }

    fn new(side: Side) -> Self {
        Self {
            side,
            incoming: Vec::new(),
        }
    }

    /// Makes all of it with whoever is there.
    pub(crate) async fn make(&mut self, tcp: &mut TcpStream) {
        let mut received = vec![0; 1 << 16];
        let mut count = 0;
        loop {
            let (said, through) = self.step(&received[..count]);
            tcp.write_all(&said).await.unwrap();
            if through {
                break;
            }
            count = tcp.read(&mut received).await.unwrap();
        }
    }

    /// Takes what came; gives what is to be sent, and whether this side is through.
    pub(crate) fn step(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        self.incoming.extend_from_slice(bytes);
        let mut outgoing = Vec::new();
        loop {
            let (discard, step) = match &mut self.side {
                Side::Client(tls) => {
                    step(tls.process_tls_records(&mut self.incoming), &mut outgoing)
                }
                Side::Server(tls) => {
                    step(tls.process_tls_records(&mut self.incoming), &mut outgoing)
                }
            };
            self.incoming.drain(..discard);
            match step {
                Step::Again => {}
                Step::Blocked => return (outgoing, false),
                Step::Through => return (outgoing, true),
            }
        }
    }

    /// Takes the keys, once this side is through.
    pub(crate) fn forge(self) -> Forge {
        let (secrets, keys) = match self.side {
            Side::Client(tls) => {
                let (secrets, keys) = tls.dangerous_into_kernel_connection().unwrap();
                (secrets, Keys::Client(keys))
            }
            Side::Server(tls) => {
                let (secrets, keys) = tls.dangerous_into_kernel_connection().unwrap();
                (secrets, Keys::Server(keys))
            }
        };
        let suite = match &keys {
            Keys::Client(keys) => keys.negotiated_cipher_suite(),
            Keys::Server(keys) => keys.negotiated_cipher_suite(),
        };
        let (first, secret) = secrets.tx;
        let mut seal = sealing(suite, secret);
        if first > 0 {
            // AWS-LC takes nonces that rise, and counts them from the first that it sees.
            let _ = seal.encrypt(plain(DATA, b""), 0).unwrap();
        }
        Forge {
            seal: (first, seal),
            open: (secrets.rx.0, opening(suite, secrets.rx.1)),
            keys,
            suite,
            incoming: self.incoming,
        }
    }
}

enum Step {
    Again,
    Blocked,
    Through,
}

fn step<D>(status: UnbufferedStatus<'_, '_, D>, outgoing: &mut Vec<u8>) -> (usize, Step) {
    let step = match status.state.unwrap() {
        ConnectionState::EncodeTlsData(mut data) => {
            let start = outgoing.len();
            outgoing.resize(start + (1 << 17), 0);
            let encoded = data.encode(&mut outgoing[start..]).unwrap();
            outgoing.truncate(start + encoded);
            Step::Again
        }
        ConnectionState::TransmitTlsData(sent) => {
            sent.done();
            Step::Again
        }
        ConnectionState::BlockedHandshake => Step::Blocked,
        ConnectionState::WriteTraffic(_) => Step::Through,
        other => panic!("{other:?} in a handshake"),
    };
    (status.discard, step)
}

impl Forge {
    /// A record with this inside.
    pub(crate) fn record(&mut self, typ: u8, payload: &[u8]) -> Vec<u8> {
        let sealed = self
            .seal
            .1
            .encrypt(plain(typ, payload), self.seal.0)
            .unwrap();
        self.seal.0 += 1;
        sealed.encode()
    }

    pub(crate) fn data(&mut self, payload: &[u8]) -> Vec<u8> {
        self.record(DATA, payload)
    }

    /// A record of TLS 1.3 with so many zeros behind its type (RFC 8446 §5.4).
    pub(crate) fn padded(&mut self, typ: u8, payload: &[u8], zeros: usize) -> Vec<u8> {
        match zeros.checked_sub(1) {
            None => self.record(typ, payload),
            // The last of them stands where a type is.
            Some(more) => self.record(0, &[payload, &[typ], &vec![0; more]].concat()),
        }
    }

    pub(crate) fn alert(&mut self, level: u8, description: u8) -> Vec<u8> {
        self.record(ALERT, &[level, description])
    }

    pub(crate) fn close_notify(&mut self) -> Vec<u8> {
        self.alert(1, 0)
    }

    /// One message of a handshake, in records of up to so many bytes of it.
    pub(crate) fn message(&mut self, typ: u8, body: &[u8], most: usize) -> Vec<u8> {
        let message = message(typ, body);
        let records = message.chunks(most);
        records
            .flat_map(|part| self.record(HANDSHAKE, part))
            .collect()
    }

    /// What a client says first, in a record of its own although it comes too late.
    pub(crate) fn hello(&mut self, config: &Arc<ClientConfig>) -> Vec<u8> {
        let (record, _) = Handshake::client(config).step(&[]);
        self.record(HANDSHAKE, &record[5..])
    }

    /// Tells of new keys, asks for the other side's or does not, and uses them from then on.
    pub(crate) fn update_keys(&mut self, asking: bool) -> Vec<u8> {
        let record = self.message(KEY_UPDATE, &[u8::from(asking)], 5);
        self.turn_keys();
        record
    }

    /// Uses its next keys without a word.
    pub(crate) fn turn_keys(&mut self) {
        let (first, secrets) = match &mut self.keys {
            Keys::Client(keys) => keys.update_tx_secret().unwrap(),
            Keys::Server(keys) => keys.update_tx_secret().unwrap(),
        };
        self.seal = (first, sealing(self.suite, secrets));
    }

    /// Goes on as if a record had been sent.
    pub(crate) fn skip(&mut self) {
        self.seal.0 += 1;
    }

    /// What the other side says in these bytes.
    pub(crate) fn hear(&mut self, bytes: &[u8]) -> Vec<Word> {
        self.incoming.extend_from_slice(bytes);
        let mut words = Vec::new();
        while let Some(length) = self.incoming.get(3..5) {
            let end = 5 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            if self.incoming.len() < end {
                break;
            }
            let mut record: Vec<u8> = self.incoming.drain(..end).collect();
            let (typ, payload) = self.opened(&mut record);
            match (u8::from(typ), payload.as_slice()) {
                (ALERT, &[level, description]) => words.push(Word::Alert(level, description)),
                (HANDSHAKE, &[KEY_UPDATE, ..]) => self.turn_other_keys(),
                (HANDSHAKE, &[typ, ..]) => words.push(Word::Handshake(typ)),
                (DATA, _) => match words.last_mut() {
                    Some(Word::Data(data)) => data.extend(payload),
                    _ => words.push(Word::Data(payload)),
                },
                other => panic!("no such record: {other:?}"),
            }
        }
        words
    }

    fn opened(&mut self, record: &mut [u8]) -> (ContentType, Vec<u8>) {
        let version = ProtocolVersion::TLSv1_2;
        let (header, payload) = record.split_at_mut(5);
        let sealed = InboundOpaqueMessage::new(ContentType::from(header[0]), version, payload);
        let opened = self.open.1.decrypt(sealed, self.open.0);
        let opened = opened.unwrap_or_else(|e| panic!("{e} in record {}", self.open.0));
        self.open.0 += 1;
        (opened.typ, opened.payload.to_vec())
    }

    fn turn_other_keys(&mut self) {
        let (first, secrets) = match &mut self.keys {
            Keys::Client(keys) => keys.update_rx_secret().unwrap(),
            Keys::Server(keys) => keys.update_rx_secret().unwrap(),
        };
        self.open = (first, opening(self.suite, secrets));
    }
}

/// A message of a handshake (RFC 8446 §4).
pub(crate) fn message(typ: u8, body: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = (body.len() as u32).to_be_bytes();
    [&[typ][..], &length, body].concat()
}

/// The text among what was heard.
pub(crate) fn text(words: Vec<Word>) -> Vec<u8> {
    let data = words.into_iter().filter_map(|word| match word {
        Word::Data(data) => Some(data),
        _ => None,
    });
    data.collect::<Vec<_>>().concat()
}

fn plain(typ: u8, payload: &[u8]) -> OutboundPlainMessage<'_> {
    OutboundPlainMessage {
        typ: ContentType::from(typ),
        version: ProtocolVersion::TLSv1_2,
        payload: payload.into(),
    }
}

fn sealing(
    suite: SupportedCipherSuite,
    secrets: ConnectionTrafficSecrets,
) -> Box<dyn MessageEncrypter> {
    let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else {
        panic!("another suite was agreed");
    };
    match suite {
        SupportedCipherSuite::Tls13(suite) => suite.aead_alg.encrypter(key, iv),
        SupportedCipherSuite::Tls12(suite) => {
            let (salt, explicit) = iv.as_ref().split_at(4);
            suite.aead_alg.encrypter(key, salt, explicit)
        }
    }
}

fn opening(
    suite: SupportedCipherSuite,
    secrets: ConnectionTrafficSecrets,
) -> Box<dyn MessageDecrypter> {
    let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else {
        panic!("another suite was agreed");
    };
    match suite {
        SupportedCipherSuite::Tls13(suite) => suite.aead_alg.decrypter(key, iv),
        SupportedCipherSuite::Tls12(suite) => suite.aead_alg.decrypter(key, &iv.as_ref()[..4]),
    }
}
