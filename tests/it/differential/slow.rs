//! Readers that take their time, and what must reach them all the same.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::yield_now;
use tokio::time::timeout;

use super::duel::{Configs, Forged, TLS_1_3};
use super::gate::{Ended, Gate, How, Mode, PATHS, Path, Why};
use super::sockets;
use super::wire::Teller;
use crate::support::PATIENCE;

const RECORD: usize = 16_384;

/// How many bytes reach a slow client of an upstream that sends records and then a wrong one, and how it ends.
async fn before_a_wrong_record(path: Path, records: usize) -> (usize, Ended) {
    let configs = Configs::of(TLS_1_3);
    let (near, tcp) = sockets(Some(32 << 10)).await;
    let (far, mut client) = sockets(Some(32 << 10)).await;
    let gate = Gate {
        server: configs.server.clone(),
        client: configs.client.clone(),
        kept: 0,
    };
    let carried = tokio::spawn(gate.carry(path, Mode::Originate, far, near));
    let mut upstream = Teller::new(tcp, Forged::Server, configs).await;
    let good = (0..records).flat_map(|_| upstream.forge.data(&[7; RECORD]));
    let mut bytes: Vec<u8> = good.collect();
    upstream.forge.skip();
    bytes.extend(upstream.forge.data(b"wrong"));
    let reading = async {
        let (mut count, mut some) = (0, [0; 1000]);
        loop {
            match client.read(&mut some).await {
                Ok(0) | Err(_) => return count,
                Ok(read) => count += read,
            }
            yield_now().await;
        }
    };
    let sending = async { upstream.to.write_all(&bytes).await.is_ok() };
    let both = async { tokio::join!(reading, sending, carried) };
    let (count, _, ended) = timeout(PATIENCE, both).await.expect("an end");
    (count, ended.unwrap())
}

#[tokio::test]
async fn what_came_before_a_wrong_record_reaches_a_reader_that_is_slow() {
    for records in 10..30 {
        for path in PATHS {
            let (count, ended) = before_a_wrong_record(path, records).await;
            let wrong = How::UpstreamFailed(Why::Tls(rustls::Error::DecryptError));
            assert_eq!(ended.how, wrong, "{path:?}");
            assert_eq!(ended.down, count as u64, "{path:?}");
            // The reference loses what came in the last of its reads.
            let least = match path {
                Path::Unbuffered => records * RECORD,
                Path::Buffered => (records - 1) * RECORD,
            };
            assert!(count >= least, "{path:?}: {count} of {records} records");
        }
    }
}
