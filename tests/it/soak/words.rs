//! What each end says on each connection: every byte is known beforehand, and its place shows.

use std::sync::LazyLock;

use rustls::SupportedCipherSuite;
use rustls::crypto::{aws_lc_rs::cipher_suite, hash};

use crate::chance::Chance;

/// A prime: what is off by any number of blocks is off here too.
const PERIOD: usize = 1_048_573;

static TABLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut chance = Chance::new(1);
    let numbers = (0..PERIOD.div_ceil(8)).flat_map(|_| chance.next().to_le_bytes());
    numbers.take(PERIOD).collect()
});

/// The words of one direction of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words(usize);

impl Words {
    /// Those that go up from the client, or those that come down to it.
    pub(crate) fn new(connection: u64, up: bool) -> Self {
        let mut chance = Chance::new(2 * connection + u64::from(up));
        Self(chance.below(PERIOD))
    }

    /// Those from this place on.
    pub(crate) fn fill(self, from: u64, words: &mut [u8]) {
        let mut done = 0;
        while done < words.len() {
            let rest = self.rest(from + done as u64);
            let length = rest.len().min(words.len() - done);
            words[done..done + length].copy_from_slice(&rest[..length]);
            done += length;
        }
    }

    /// Whether these are those from this place on.
    pub(crate) fn are(self, from: u64, words: &[u8]) -> bool {
        let mut done = 0;
        while done < words.len() {
            let rest = self.rest(from + done as u64);
            let length = rest.len().min(words.len() - done);
            if words[done..done + length] != rest[..length] {
                return false;
            }
            done += length;
        }
        true
    }

    fn rest(self, from: u64) -> &'static [u8] {
        &TABLE[(self.0 + (from % PERIOD as u64) as usize) % PERIOD..]
    }
}

/// The count and the checksum of what one end has said or heard.
pub(crate) struct Sum {
    count: u64,
    hash: Box<dyn hash::Context>,
}

impl Sum {
    /// How long one is, written out.
    pub(crate) const LENGTH: usize = 8 + 32;

    pub(crate) fn new() -> Self {
        let SupportedCipherSuite::Tls13(suite) = cipher_suite::TLS13_AES_128_GCM_SHA256 else {
            unreachable!("a suite of TLS 1.3");
        };
        Self {
            count: 0,
            hash: suite.common.hash_provider.start(),
        }
    }

    pub(crate) fn add(&mut self, words: &[u8]) {
        self.count += words.len() as u64;
        self.hash.update(words);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The count, then SHA-256.
    pub(crate) fn written(&self) -> Vec<u8> {
        let mut written = self.count.to_le_bytes().to_vec();
        written.extend_from_slice(self.hash.fork_finish().as_ref());
        written
    }
}

#[test]
fn words_differ_by_connection_direction_and_place() {
    let mut words = vec![0; 3 * PERIOD / 2];
    Words::new(7, true).fill(1000, &mut words);
    assert!(Words::new(7, true).are(1000, &words));
    assert!(!Words::new(7, true).are(1001, &words));
    assert!(!Words::new(7, false).are(1000, &words));
    assert!(!Words::new(8, true).are(1000, &words));
    words[PERIOD + 5] ^= 1;
    assert!(!Words::new(7, true).are(1000, &words));
}
