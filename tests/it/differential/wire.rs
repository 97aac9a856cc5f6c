//! A forge against a whole relay, over sockets, through either path.

use std::io::ErrorKind;
use std::sync::Arc;

use rustls::SupportedProtocolVersion;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::duel::{self, Act, Configs, Forged, Seen};
use super::forge::{Forge, Word};
use super::gate::{Ended, Gate, How, Mode, Path, Why};
use super::sockets;
use crate::support::PATIENCE;

/// What became of it at every end.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) ended: Ended,
    /// What the forge was told.
    pub(super) words: Vec<Word>,
    /// What the other end was told, and the error after it.
    pub(super) text: Vec<u8>,
    pub(super) error: Option<ErrorKind>,
}

/// Plays the acts through both paths, in memory and over sockets; all must be alike.
pub(super) async fn alike(
    forged: Forged,
    versions: &[&'static SupportedProtocolVersion],
    acts: impl Fn(&mut Forge) -> Vec<Act>,
) -> Seen {
    let seen = duel::alike(forged, versions, &acts);
    let configs = Configs::of(versions);
    let ours = tell(Path::Unbuffered, forged, configs, &acts).await;
    let mut reference = tell(Path::Buffered, forged, configs, &acts).await;
    assert!(ours.text == seen.text, "{ours:?} {reference:?}");
    if seen.error.is_some() && ours.text.starts_with(&reference.text) {
        reference.text.clone_from(&ours.text);
        reference.ended.up = ours.ended.up;
        reference.ended.down = ours.ended.down;
    }
    assert!(ours.text == reference.text, "other bytes");
    let told = |told: &Told| {
        format!(
            "{:?} {:?} {:?}",
            told.ended,
            sorted(&told.words),
            told.error
        )
    };
    assert_eq!(told(&ours), told(&reference));
    // A direction that no act has ended ends at last, unless the tunnel is broken off.
    let mut expected = seen.words.clone();
    if seen.error.is_none() && !expected.contains(&Word::Alert(1, 0)) {
        expected.push(Word::Alert(1, 0));
    }
    assert_eq!(sorted(&ours.words), sorted(sent(&expected)));
    let failed = match (&ours.ended.how, forged) {
        (How::Closed, _) => None,
        (How::ClientFailed(Why::Tls(error)), Forged::Client)
        | (How::UpstreamFailed(Why::Tls(error)), Forged::Server) => Some(error),
        (how, _) => panic!("{how:?}"),
    };
    assert_eq!(failed, seen.error.as_ref());
    seen
}

/// What TLS said itself, and apart from it what the other end said: which comes first is a matter of chance.
fn sorted(words: &[Word]) -> (Vec<&Word>, usize) {
    let own = words.iter().filter(|word| !matches!(word, Word::Data(_)));
    (own.collect(), data(words))
}

fn data(words: &[Word]) -> usize {
    let data = |word: &Word| match word {
        Word::Data(data) => data.len(),
        _ => 0,
    };
    words.iter().map(data).sum()
}

/// What goes out of what there is to say: FIN follows on the end.
fn sent(words: &[Word]) -> &[Word] {
    let end = words.iter().position(|word| *word == Word::Alert(1, 0));
    &words[..end.map_or(words.len(), |end| end + 1)]
}

/// Plays the acts through one path, to the end of both sides.
pub(super) async fn tell(
    path: Path,
    forged: Forged,
    configs: &Configs,
    acts: impl Fn(&mut Forge) -> Vec<Act>,
) -> Told {
    let (near, tcp) = sockets(None).await;
    let (far, plain) = sockets(None).await;
    let gate = Gate {
        server: Arc::clone(&configs.server),
        client: Arc::clone(&configs.client),
        kept: 0,
    };
    let carried = match forged {
        Forged::Client => tokio::spawn(gate.carry(path, Mode::Terminate, near, far)),
        Forged::Server => tokio::spawn(gate.carry(path, Mode::Originate, far, near)),
    };
    let (from_plain, to_plain) = plain.into_split();
    let ended = Notify::new();
    let forging = async {
        let mut teller = Teller::new(tcp, forged, configs).await;
        let acts = acts(&mut teller.forge);
        teller.play(&acts, to_plain, &ended).await
    };
    let playing = async { tokio::join!(forging, hear(from_plain, &ended), carried) };
    let (words, (text, error), ended) = timeout(PATIENCE, playing).await.expect("an end");
    Told {
        ended: ended.unwrap(),
        words,
        text,
        error,
    }
}

/// What a bare socket hears until its end.
async fn hear(mut from: OwnedReadHalf, ended: &Notify) -> (Vec<u8>, Option<ErrorKind>) {
    let mut text = Vec::new();
    let read = from.read_to_end(&mut text).await;
    ended.notify_one();
    (text, read.err().map(|e| e.kind()))
}

/// The forge with its socket.
pub(super) struct Teller {
    from: OwnedReadHalf,
    pub(super) to: OwnedWriteHalf,
    pub(super) forge: Forge,
    words: Vec<Word>,
}

impl Teller {
    pub(super) async fn new(mut tcp: TcpStream, forged: Forged, configs: &Configs) -> Self {
        let mut handshake = configs.handshake(forged);
        handshake.make(&mut tcp).await;
        let (from, to) = tcp.into_split();
        Self {
            from,
            to,
            forge: handshake.forge(),
            words: Vec::new(),
        }
    }

    /// The socket, and what seals and opens records for it.
    pub(super) fn into_parts(self) -> (TcpStream, Forge) {
        (self.from.reunite(self.to).unwrap(), self.forge)
    }

    /// Plays to the end of both directions; what the other end says is said at the bare socket.
    async fn play(
        mut self,
        acts: &[Act],
        mut to_plain: OwnedWriteHalf,
        ended: &Notify,
    ) -> Vec<Word> {
        // Once a byte has come through, no act is taken for a part of the handshake.
        let acts = [&[Act::Say(1)], acts].concat();
        let mut said = 0;
        for act in &acts {
            // Whoever is told no more has done something wrong, and the rest is not heard.
            match act {
                Act::Send(bytes) => {
                    let _ = self.to.write_all(bytes).await;
                }
                Act::Say(count) => {
                    let _ = to_plain.write_all(&vec![b's'; *count]).await;
                    said += count;
                    while data(&self.words) < said && self.more().await {}
                }
                Act::Close => {
                    let _ = to_plain.shutdown().await;
                    while !self.words.contains(&Word::Alert(1, 0)) && self.more().await {}
                }
            }
        }
        let _ = self.to.shutdown().await;
        // The end has to arrive on one side before the other ends, so that it is the same every time.
        ended.notified().await;
        let _ = to_plain.shutdown().await;
        while self.more().await {}
        self.words
    }

    /// Reads once; tells whether more may come.
    async fn more(&mut self) -> bool {
        let mut bytes = vec![0; 1 << 16];
        let Ok(count @ 1..) = self.from.read(&mut bytes).await else {
            return false;
        };
        for word in self.forge.hear(&bytes[..count]) {
            match (self.words.last_mut(), word) {
                (Some(Word::Data(before)), Word::Data(more)) => before.extend(more),
                (_, word) => self.words.push(word),
            }
        }
        true
    }
}
