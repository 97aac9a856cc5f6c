//! Records of every size and cut anywhere, right and wrong, under both versions of TLS and from both sides.

use rustls::{AlertDescription, Error, PeerMisbehaved, SupportedProtocolVersion};

use super::duel::{self, Act, BOTH_VERSIONS, Configs, Duel, Forged, Seen, TLS_1_2, TLS_1_3};
use super::forge::{DATA, Forge, Word};
use super::gate::PATHS;
use super::wire;

/// The largest content of a record (RFC 8446 §5.1, RFC 5246 §6.2.1).
pub(super) const LARGEST: usize = 16_384;

const SIDES: [Forged; 2] = [Forged::Client, Forged::Server];

/// Sent by a client, in one piece.
pub(super) async fn sent(
    versions: &[&'static SupportedProtocolVersion],
    bytes: impl Fn(&mut Forge) -> Vec<u8>,
) -> Seen {
    let acts = |forge: &mut Forge| vec![Act::Send(bytes(forge))];
    wire::alike(Forged::Client, versions, acts).await
}

/// That it was refused for this, with this alert or without one.
pub(super) fn refused(seen: &Seen, error: impl Into<Error>, alert: Option<AlertDescription>) {
    assert_eq!(seen.error, Some(error.into()));
    let told = match seen.words.last() {
        Some(Word::Alert(2, description)) => Some(AlertDescription::from(*description)),
        _ => None,
    };
    assert_eq!(told, alert);
}

/// Bytes that do not repeat with the records.
fn text(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n % 251) as u8).collect()
}

fn every_size_is_taken(forged: Forged, versions: &[&'static SupportedProtocolVersion]) {
    let text = text(LARGEST);
    for path in PATHS {
        let mut duel = Duel::new(path, forged, Configs::of(versions));
        for size in 0..=LARGEST {
            let record = duel.forge.data(&text[..size]);
            duel.act(&Act::Send(record));
            assert_eq!(duel.seen.error, None, "{path:?}: {size}");
            assert!(duel.seen.text == text[..size], "{path:?}: {size}");
            duel.seen.text.clear();
        }
    }
}

#[test]
fn every_size_of_a_record_of_tls_1_2_is_taken_from_a_client() {
    every_size_is_taken(Forged::Client, TLS_1_2);
}

#[test]
fn every_size_of_a_record_of_tls_1_2_is_taken_from_an_upstream() {
    every_size_is_taken(Forged::Server, TLS_1_2);
}

#[test]
fn every_size_of_a_record_of_tls_1_3_is_taken_from_a_client() {
    every_size_is_taken(Forged::Client, TLS_1_3);
}

#[test]
fn every_size_of_a_record_of_tls_1_3_is_taken_from_an_upstream() {
    every_size_is_taken(Forged::Server, TLS_1_3);
}

/// Every size up to 600 bytes and around each full record, and one in 997 between.
#[test]
fn what_is_sealed_in_sampled_sizes_up_to_five_records_arrives_whole() {
    let text = text(5 * LARGEST + 10);
    let edges = (1..=5).flat_map(|records| records * LARGEST - 20..=records * LARGEST + 10);
    let between = (600..text.len()).step_by(997);
    for versions in BOTH_VERSIONS {
        for forged in SIDES {
            let mut sealed = Vec::new();
            for path in PATHS {
                let mut duel = Duel::new(path, forged, Configs::of(versions));
                let mut lengths = Vec::new();
                for size in (0..600).chain(edges.clone()).chain(between.clone()) {
                    duel.subject.say(&text[..size]).unwrap();
                    let bytes = duel.subject.owed();
                    lengths.push(bytes.len());
                    match &duel.forge.hear(&bytes)[..] {
                        [] if size == 0 => {}
                        [Word::Data(data)] => assert!(*data == text[..size], "{path:?}: {size}"),
                        other => panic!("{path:?}: {size}: {} words", other.len()),
                    }
                }
                sealed.push(lengths);
            }
            // As many records, each as full.
            assert!(sealed[0] == sealed[1], "{versions:?} {forged:?}");
        }
    }
}

#[tokio::test]
async fn a_record_one_byte_too_large_is_an_overflow() {
    for versions in BOTH_VERSIONS {
        for forged in SIDES {
            for size in [LARGEST + 1, LARGEST + 2, LARGEST + 200] {
                let large = vec![7; size];
                let seen = wire::alike(forged, versions, |forge| {
                    let bytes = [forge.data(b"before"), forge.data(&large)].concat();
                    vec![Act::Send(bytes)]
                })
                .await;
                let alert = Some(AlertDescription::RecordOverflow);
                refused(&seen, Error::PeerSentOversizedRecord, alert);
                assert_eq!(seen.text, b"before");
            }
        }
    }
}

#[test]
fn records_may_be_cut_at_every_byte() {
    for versions in BOTH_VERSIONS {
        for forged in SIDES {
            let records = |forge: &mut Forge| {
                let mut records = vec![forge.data(b""), forge.data(b"a")];
                if versions == TLS_1_3 {
                    records.extend([forge.update_keys(true), forge.padded(DATA, b"b", 9)]);
                }
                records.push(forge.data(&[7; 100]));
                records.concat()
            };
            let whole = duel::alike(forged, versions, |forge| vec![Act::Send(records(forge))]);
            let bytes = duel::alike(forged, versions, |forge| {
                let bytes = records(forge);
                bytes.iter().map(|byte| Act::Send(vec![*byte])).collect()
            });
            assert_eq!((&bytes.error, &bytes.text), (&None, &whole.text));
            let mut cuts = 0;
            let seen = duel::alike(forged, versions, |forge| {
                let mut acts = Vec::new();
                let mut at = 0;
                loop {
                    let bytes = records(forge);
                    at += 1;
                    if at == bytes.len() {
                        return acts;
                    }
                    let (first, second) = bytes.split_at(at);
                    acts.extend([Act::Send(first.to_vec()), Act::Send(second.to_vec())]);
                }
            });
            assert_eq!(seen.error, None);
            while seen.text[cuts * whole.text.len()..].starts_with(&whole.text) {
                cuts += 1;
            }
            assert_eq!(cuts * whole.text.len(), seen.text.len());
            assert!(cuts > 180, "{cuts}");
        }
    }
}

#[tokio::test]
async fn records_of_one_byte_are_taken() {
    for versions in BOTH_VERSIONS {
        let seen = sent(versions, |forge| {
            (0..5_000).flat_map(|n| forge.data(&[n as u8])).collect()
        })
        .await;
        assert_eq!(seen.error, None);
        assert!(seen.text == (0..5_000).map(|n| n as u8).collect::<Vec<u8>>());
    }
}

#[tokio::test]
async fn thirty_two_records_with_nothing_in_them_are_enough() {
    for versions in BOTH_VERSIONS {
        let nothing = |forge: &mut Forge, count| {
            let records = (0..count).flat_map(|_| forge.data(b""));
            records.collect::<Vec<u8>>()
        };
        let seen = sent(versions, |forge| {
            let (first, word) = (nothing(forge, 32), forge.data(b"a"));
            [first, word, nothing(forge, 32)].concat()
        })
        .await;
        assert_eq!((seen.error, seen.text.as_slice()), (None, &b"a"[..]));
        let seen = sent(versions, |forge| nothing(forge, 33)).await;
        refused(&seen, PeerMisbehaved::TooManyEmptyFragments, None);
    }
}

#[tokio::test]
async fn a_wrong_byte_anywhere_in_a_record_ends_it() {
    for versions in BOTH_VERSIONS {
        // Behind the header an explicit nonce, or the type behind the content; then a tag.
        let around = if versions == TLS_1_2 { 8 } else { 1 };
        let len = 5 + around + 20 + 16;
        let mut refusals = 0;
        for at in 0..len {
            let wrong = |forge: &mut Forge| {
                let before = forge.data(b"before");
                let mut record = forge.data(&[7; 20]);
                assert_eq!(record.len(), len);
                record[at] ^= 0x80;
                [before, record].concat()
            };
            let acts = |forge: &mut Forge| vec![Act::Send(wrong(forge))];
            let seen = duel::alike(Forged::Client, versions, acts);
            // The minor version is nobody's business (RFC 8446 §5.1), and authentic in TLS 1.2.
            let is_taken = versions == TLS_1_3 && at == 2;
            assert_eq!(seen.text.len(), if is_taken { 26 } else { 6 });
            match at {
                // A longer record is one that is not there yet.
                4 => assert_eq!(seen.error, None),
                2 if is_taken => assert_eq!(seen.error, None),
                0 | 1 | 3 => assert!(matches!(seen.error, Some(Error::InvalidMessage(_)))),
                _ => {
                    let alert = Some(AlertDescription::BadRecordMac);
                    refused(&seen, Error::DecryptError, alert);
                    refusals += 1;
                }
            }
            if [0, 5, 30, len - 1].contains(&at) {
                sent(versions, wrong).await;
            }
        }
        assert_eq!(refusals, if versions == TLS_1_2 { 45 } else { 37 });
    }
}

#[tokio::test]
async fn an_alert_in_the_middle_of_a_record_is_a_part_of_it() {
    for versions in BOTH_VERSIONS {
        for forged in SIDES {
            let seen = wire::alike(forged, versions, |forge| {
                let mut record = forge.data(&[7; 100]);
                record.truncate(60);
                let bytes = [record, forge.close_notify(), forge.data(&[7; 100])].concat();
                vec![Act::Send(bytes)]
            })
            .await;
            let alert = Some(AlertDescription::BadRecordMac);
            refused(&seen, Error::DecryptError, alert);
        }
    }
}
