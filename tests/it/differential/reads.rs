//! Records cut where a read ends: around the most that is read at once, and around each record.

use rustls::SupportedProtocolVersion;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::duel::{BOTH_VERSIONS, Configs, Forged, TLS_1_2};
use super::gate::{Gate, Mode, PATHS, Path};
use super::records::LARGEST;
use super::sockets;
use super::wire::Teller;
use crate::support::PATIENCE;

/// How much is read at a time (`READ` in `src/tls/stream.rs`): four records of TLS 1.3, each as large as may be.
const READ: usize = 4 * (5 + LARGEST + 1 + 16);

const RECORDS: usize = 9;

/// Each byte around a multiple of the read, and around the end of each record; the first ends there.
fn cuts(first: usize, record: usize) -> Vec<usize> {
    let all = first + RECORDS * record;
    let reads = (1..).map(|count| count * READ).take_while(|at| *at < all);
    let records = (0..RECORDS).map(|count| first + count * record);
    let edges: Vec<usize> = reads.chain(records).filter(|edge| *edge > 7).collect();
    let around = edges.iter().flat_map(|edge| edge - 7..=edge + 7);
    let mut cuts: Vec<usize> = around.chain(1..=20).filter(|at| *at < all).collect();
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

/// Sends nine full records behind one of so many bytes, in two pieces, the second when all of the first has come through;
/// again for each cut, on one connection. Tells how often.
async fn cut(
    path: Path,
    forged: Forged,
    versions: &[&'static SupportedProtocolVersion],
    before: usize,
) -> usize {
    let configs = Configs::of(versions);
    let (near, tcp) = sockets(Some(1 << 20)).await;
    let (far, mut plain) = sockets(None).await;
    let gate = Gate {
        server: configs.server.clone(),
        client: configs.client.clone(),
        kept: 0,
    };
    let carried = match forged {
        Forged::Client => gate.carry(path, Mode::Terminate, near, far),
        Forged::Server => gate.carry(path, Mode::Originate, far, near),
    };
    let carried = tokio::spawn(carried);
    let mut teller = Teller::new(tcp, forged, configs).await;
    let around = if versions == TLS_1_2 { 29 } else { 22 };
    let first = match before {
        0 => 0,
        _ => before + around,
    };
    let cuts = cuts(first, LARGEST + around);
    let text: Vec<u8> = (0..cuts.len() + before + RECORDS * LARGEST)
        .map(|n| (n % 253) as u8)
        .collect();
    for (turn, at) in cuts.iter().enumerate() {
        let text = &text[turn..turn + before + RECORDS * LARGEST];
        let (small, large) = text.split_at(before);
        let mut bytes = Vec::new();
        for piece in small.chunks(LARGEST) {
            bytes.extend(teller.forge.data(piece));
        }
        assert_eq!(bytes.len(), first);
        for piece in large.chunks(LARGEST) {
            bytes.extend(teller.forge.data(piece));
        }
        let whole = match at.checked_sub(first) {
            None => 0,
            Some(behind) => before + behind / (LARGEST + around) * LARGEST,
        };
        let mut heard = vec![0; text.len()];
        // In one piece, so that one read finds it all, as far as it reads.
        assert_eq!(teller.to.try_write(&bytes[..*at]).unwrap(), *at);
        let hearing = plain.read_exact(&mut heard[..whole]);
        timeout(PATIENCE, hearing).await.expect("so much").unwrap();
        teller.to.writable().await.unwrap();
        let rest = bytes.len() - at;
        assert_eq!(teller.to.try_write(&bytes[*at..]).unwrap(), rest);
        let hearing = plain.read_exact(&mut heard[whole..]);
        timeout(PATIENCE, hearing).await.expect("the rest").unwrap();
        assert!(heard == text, "{path:?} {forged:?} {versions:?}: {at}");
    }
    assert!(!carried.is_finished());
    cuts.len()
}

#[tokio::test]
async fn records_may_be_cut_wherever_a_read_or_a_record_may_end() {
    for versions in BOTH_VERSIONS {
        for forged in [Forged::Client, Forged::Server] {
            for path in PATHS {
                // Behind a smaller one, records end elsewhere than reads do.
                for before in [0, 700] {
                    assert!(cut(path, forged, versions, before).await >= 140);
                }
            }
        }
    }
}
