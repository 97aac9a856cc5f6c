//! Handshakes that go wrong at some byte: both paths fail alike, or not at all.

use rustls::SupportedProtocolVersion;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::duel::{Configs, Forged, Subject, TLS_1_2, TLS_1_3};
use super::gate::{Gate, How, Mode, PATHS, Path, Why};
use super::sockets;

/// What becomes of a handshake with one byte of the peer's flight changed, if it fails.
#[derive(Debug, PartialEq)]
struct Failed {
    error: String,
    /// How long the answer is.
    answer: usize,
}

/// Changes this byte of the first flight or the second; `None` where it is not so long.
///
/// `hello` is what every client says first: two that differ may fail for different reasons.
fn wrong(
    path: Path,
    forged: Forged,
    versions: &[&'static SupportedProtocolVersion],
    hello: &[u8],
    (flight, at): (usize, usize),
) -> Option<Option<Failed>> {
    let configs = Configs::of(versions);
    let mut subject = Subject::new(path, forged, configs);
    let mut handshake = configs.handshake(forged);
    let mut said = subject.owed();
    for turn in 0..=flight {
        let (mut sent, _) = handshake.step(&said);
        if turn == flight {
            if forged == Forged::Client && flight == 0 {
                sent = hello.to_vec();
            }
            *sent.get_mut(at)? ^= 1 << (at % 8);
        }
        let taken = subject.take(&sent, &mut Vec::new());
        said = subject.owed();
        if let Err(error) = taken {
            let error = format!("{error:?}");
            let answer = said.len();
            return Some(Some(Failed { error, answer }));
        }
    }
    Some(None)
}

fn every_byte(forged: Forged, versions: &[&'static SupportedProtocolVersion]) -> usize {
    let mut failures = 0;
    let (hello, _) = Configs::of(versions).handshake(Forged::Client).step(&[]);
    for flight in [0, 1] {
        // What is behind an upstream's signature, which is longer or shorter by a byte or two, is not the same twice.
        let most = match forged {
            Forged::Client => usize::MAX,
            Forged::Server => 500,
        };
        for at in (0..most).step_by(if flight == 0 { 7 } else { 2 }) {
            let failed = |path| wrong(path, forged, versions, &hello, (flight, at));
            let [Some(ours), Some(reference)] = PATHS.map(failed) else {
                break;
            };
            assert_eq!(
                ours, reference,
                "{versions:?}: byte {at} of flight {flight}"
            );
            failures += usize::from(ours.is_some());
        }
    }
    failures
}

#[test]
fn a_client_with_one_wrong_byte_in_its_handshake_fails_alike() {
    for versions in [TLS_1_2, TLS_1_3] {
        assert!(every_byte(Forged::Client, versions) > 15);
    }
}

#[test]
fn an_upstream_with_one_wrong_byte_in_its_handshake_fails_alike() {
    for versions in [TLS_1_2, TLS_1_3] {
        assert!(every_byte(Forged::Server, versions) > 40);
    }
}

#[tokio::test]
async fn a_handshake_that_ends_in_the_middle_is_told_as_such() {
    for versions in [TLS_1_2, TLS_1_3] {
        for cut in [0, 1, 5, 50, usize::MAX] {
            for path in PATHS {
                let configs = Configs::of(versions);
                let (near, mut tcp) = sockets(None).await;
                let (far, mut plain) = sockets(None).await;
                let gate = Gate {
                    server: configs.server.clone(),
                    client: configs.client.clone(),
                    kept: 0,
                };
                let carried = tokio::spawn(gate.carry(path, Mode::Terminate, near, far));
                let (hello, _) = configs.handshake(Forged::Client).step(&[]);
                tcp.write_all(&hello[..cut.min(hello.len())]).await.unwrap();
                tcp.shutdown().await.unwrap();
                let ended = carried.await.unwrap();
                let eof = Why::Io(std::io::ErrorKind::UnexpectedEof);
                assert_eq!(ended.how, How::NoClient(eof), "{path:?} after {cut}");
                assert_eq!(plain.read(&mut [0]).await.unwrap(), 0);
            }
        }
    }
}
