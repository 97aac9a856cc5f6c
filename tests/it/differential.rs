//! The data path against tokio-rustls and plain reads and writes: the same bytes in, the same bytes and the same end out.

use std::ops::Range;
use std::sync::{Arc, LazyLock};
use std::time::{SystemTime, UNIX_EPOCH};

use portcullis::reason::Reason;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{
    CipherSuiteCommon, ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection,
    SupportedCipherSuite, SupportedProtocolVersion, Tls13CipherSuite,
};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::authority::Authority;
use crate::peers;
use crate::support::PATIENCE;
use gate::{Ended, Gate, Mode, NAME, PATHS, Path};
use peer::{Both, Heard, HeardEnd, Peer};
use schedule::{Ending, Schedule};

mod at_rest;
mod buffered;
mod closing;
mod duel;
pub(crate) mod forge;
mod gate;
mod handshakes;
mod hostile;
mod messages;
mod old;
mod openssl;
mod peer;
mod reads;
mod records;
mod schedule;
mod slow;
mod spliced;
mod wire;

/// The seeds that are played each time.
const TERMINATED: Range<u64> = 0..750;
const RE_ENCRYPTED: Range<u64> = 0..500;
const PASSED: Range<u64> = 0..1000;

#[test]
fn more_than_a_thousand_of_the_schedules_with_tls_say_something_and_many_update_keys() {
    let terminated = TERMINATED.map(|seed| Schedule::new(seed, Mode::Terminate));
    let on = RE_ENCRYPTED.map(|seed| Schedule::new(seed, Mode::ReEncrypt));
    let schedules: Vec<Schedule> = terminated.chain(on).collect();
    let count = |is_so: fn(&Schedule) -> bool| schedules.iter().filter(|one| is_so(one)).count();
    let say = count(|one| one.said(0) + one.said(1) > 0);
    assert!(say > 1_150, "{say} say something");
    let silent = schedules.len() - say;
    assert!(silent > 10, "{silent} say nothing");
    // Only TLS 1.3 has them: a side that speaks TLS 1.2 is never told to.
    let update = count(|one| one.key_updates() > 0 && one.said(0) + one.said(1) > 0);
    assert!(update > 450, "{update} update keys");
    let both = count(|one| one.said(0) > 0 && one.said(1) > 0);
    assert!(both > 600, "{both} speak in both directions");
    for old in [[false, false], [false, true], [true, false], [true, true]] {
        let spoken = schedules.iter().filter(|one| one.old == old).count();
        assert!(spoken > 80, "{spoken} of {old:?}");
    }
}

#[tokio::test]
async fn generated_schedules_end_alike_where_tls_is_terminated() {
    alike(Mode::Terminate, TERMINATED).await;
}

#[tokio::test]
async fn generated_schedules_end_alike_where_tls_goes_on_to_the_upstream() {
    alike(Mode::ReEncrypt, RE_ENCRYPTED).await;
}

#[tokio::test]
async fn generated_schedules_end_alike_where_bare_sockets_are_passed_through() {
    alike(Mode::Pass, PASSED).await;
}

/// Of seeds that nobody has seen before; a schedule that fails tells its own.
#[tokio::test]
async fn many_more_generated_schedules_end_alike() {
    if !peers::long() {
        return;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let first = now.as_secs() << 16;
    tokio::join!(
        alike(Mode::Terminate, first..first + 5_000),
        alike(Mode::ReEncrypt, first..first + 3_000),
        alike(Mode::Pass, first..first + 5_000)
    );
}

/// What becomes of one schedule.
#[derive(Debug, PartialEq)]
struct Outcome {
    ended: Ended,
    heard: [Heard; 2],
}

/// Plays the schedules of these seeds through both paths.
async fn alike(mode: Mode, seeds: Range<u64>) {
    let tls = Tls::new();
    for seed in seeds {
        let schedule = Schedule::new(seed, mode);
        let [ours, reference] = [
            play(&tls, &schedule, PATHS[0]).await,
            play(&tls, &schedule, PATHS[1]).await,
        ];
        assert_eq!(ours, reference, "{schedule:#?}");
        expect(&schedule, &ours);
    }
}

async fn play(tls: &Tls, schedule: &Schedule, path: Path) -> Outcome {
    let buffers = schedule.narrow.then_some(32 << 10);
    let (client, accepted) = sockets(buffers).await;
    let (dialled, upstream) = sockets(buffers).await;
    let gate = tls.gate(schedule);
    // A task of its own: nobody wakes it but its sockets.
    let carried = tokio::spawn(gate.carry(path, schedule.mode, accepted, dialled));
    let both = Both::default();
    let [client_tls, upstream_tls] = tls.ends(schedule);
    let playing = async {
        tokio::join!(
            Peer::new(0, client, client_tls, schedule, &both).play(),
            Peer::new(1, upstream, upstream_tls, schedule, &both).play(),
            carried
        )
    };
    match timeout(PATIENCE, playing).await {
        Ok((client, upstream, ended)) => Outcome {
            ended: ended.unwrap(),
            heard: [client, upstream],
        },
        Err(_) => panic!("{path:?} does not end: {both:?} {schedule:#?}"),
    }
}

/// What must come of it, whatever the path.
fn expect(schedule: &Schedule, outcome: &Outcome) {
    let reset = [0, 1].map(|side| {
        matches!(
            schedule.ending(side),
            Some(Ending::Reset | Ending::TornReset)
        )
    });
    let Outcome { ended, heard } = outcome;
    assert_eq!(
        heard[1].bytes,
        schedule.said(0),
        "{outcome:?} {schedule:#?}"
    );
    assert_eq!(
        heard[0].bytes,
        schedule.said(1),
        "{outcome:?} {schedule:#?}"
    );
    assert_eq!((ended.up, ended.down), (schedule.said(0), schedule.said(1)));
    let tls = schedule.mode.tls();
    // Whoever resets has heard the other's end, if that came before; an end that TLS has not announced is what broke off.
    let cut_off = [0, 1].map(|side| {
        let ending = schedule.ending(side);
        reset[1 - side] && tls[side] && matches!(ending, Some(Ending::Fin | Ending::Torn))
    });
    let reason = match (reset, cut_off) {
        ([false, false], _) => Reason::Closed,
        ([true, _], [_, false]) | (_, [true, _]) => Reason::ClientReset,
        ([_, true], _) | (_, [_, true]) => Reason::UpstreamReset,
    };
    assert_eq!(ended.reason, reason, "{:?} {schedule:#?}", ended.how);
    for side in [0, 1] {
        let other = schedule.ending(1 - side);
        match (&heard[side].end, other) {
            (HeardEnd::Gone, _) if reset[side] => {}
            (HeardEnd::Clean, Some(Ending::Clean)) => {}
            (HeardEnd::Clean, Some(_)) if !tls[side] && !reset[1 - side] => {}
            // A bare socket tells of no truncation: its end is a clean one.
            (HeardEnd::Clean, Some(Ending::Fin)) if !tls[1 - side] => {}
            (HeardEnd::Truncated, Some(Ending::Fin | Ending::Torn)) if tls[1 - side] => {}
            (HeardEnd::Truncated | HeardEnd::Clean, Some(_)) if side == 0 && reset[1] => {}
            (HeardEnd::Failed(_), Some(_)) if side == 1 && reset[0] => {}
            (end, other) => panic!("{end:?} of {other:?} {schedule:#?}"),
        }
    }
}

/// Two ends of a TCP connection, with buffers of the kernel's choice or of this size.
async fn sockets(buffers: Option<usize>) -> (TcpStream, TcpStream) {
    let socket = TcpSocket::new_v4().unwrap();
    let dialling = TcpSocket::new_v4().unwrap();
    if let Some(size) = buffers {
        for socket in [&socket, &dialling] {
            let socket = SockRef::from(socket);
            socket.set_recv_buffer_size(size).unwrap();
            socket.set_send_buffer_size(size).unwrap();
        }
    }
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener: TcpListener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let (dialled, accepted) = tokio::join!(dialling.connect(address), listener.accept());
    let ends = (dialled.unwrap(), accepted.unwrap().0);
    for end in [&ends.0, &ends.1] {
        end.set_nodelay(true).unwrap();
    }
    ends
}

/// The certificates of a test, and what is made of them.
struct Tls {
    gate: Gate,
    /// Whose keys wear out after a few records.
    worn: Gate,
    /// TLS 1.3 and TLS 1.2.
    clients: [Arc<ClientConfig>; 2],
    upstreams: [Arc<ServerConfig>; 2],
}

/// Cryptography whose TLS 1.3 keys are good for six records: then they are updated (RFC 8446 §5.5).
static WORN: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let mut provider = CryptoProvider::clone(&portcullis::tls::provider());
    for suite in &mut provider.cipher_suites {
        if let SupportedCipherSuite::Tls13(&Tls13CipherSuite {
            common:
                CipherSuiteCommon {
                    suite: name,
                    hash_provider,
                    ..
                },
            hkdf_provider,
            aead_alg,
            quic,
        }) = *suite
        {
            *suite = SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
                common: CipherSuiteCommon {
                    suite: name,
                    hash_provider,
                    confidentiality_limit: 6,
                },
                hkdf_provider,
                aead_alg,
                quic,
            })));
        }
    }
    Arc::new(provider)
});

const VERSIONS: [&[&SupportedProtocolVersion]; 2] = [&[&TLS13], &[&TLS12]];

impl Tls {
    fn new() -> Self {
        Self::by(&Authority::new())
    }

    fn by(authority: &Authority) -> Self {
        let issued = authority.issue(&[NAME]);
        let both = [&TLS12, &TLS13];
        let server = issued.server(&both);
        let client = Arc::new(authority.client(&both));
        let worn = Gate {
            server: Arc::new(issued.server_by(WORN.clone(), &both)),
            client: Arc::new(authority.client_by(WORN.clone(), &both)),
            kept: 0,
        };
        Self {
            gate: Gate {
                server,
                client,
                kept: 0,
            },
            worn,
            clients: VERSIONS.map(|versions| Arc::new(authority.client(versions))),
            upstreams: VERSIONS.map(|versions| issued.server(versions)),
        }
    }

    fn gate(&self, schedule: &Schedule) -> Gate {
        let gate = match schedule.worn {
            true => &self.worn,
            false => &self.gate,
        };
        Gate {
            kept: schedule.kept,
            ..gate.clone()
        }
    }

    /// The TLS of both ends, where they have any.
    fn ends(&self, schedule: &Schedule) -> [Option<Connection>; 2] {
        let version = schedule.old.map(usize::from);
        let client = (schedule.mode != Mode::Pass).then(|| {
            let name = ServerName::try_from(NAME).unwrap();
            let config = self.clients[version[0]].clone();
            ClientConnection::new(config, name).unwrap().into()
        });
        let upstream = (schedule.mode == Mode::ReEncrypt).then(|| {
            let config = self.upstreams[version[1]].clone();
            ServerConnection::new(config).unwrap().into()
        });
        [client, upstream]
    }
}
