//! Records that no honest peer sends, under TLS 1.3: taken alike by both paths, or refused alike.

use rustls::{AlertDescription, Error, InvalidMessage, PeerMisbehaved};

use super::duel::{self, Act, Configs, Duel, Forged, Seen, TLS_1_3};
use super::forge::{ALERT, DATA, Forge, HANDSHAKE, Word};
use super::gate::PATHS;
use super::wire;

/// The largest content of a record (RFC 8446 §5.1).
const LARGEST: usize = 16_384;

/// Sent by a client, in one piece.
pub(super) async fn sent(bytes: impl Fn(&mut Forge) -> Vec<u8>) -> Seen {
    let acts = |forge: &mut Forge| vec![Act::Send(bytes(forge))];
    wire::alike(Forged::Client, TLS_1_3, acts).await
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

#[test]
fn every_size_of_a_record_is_taken() {
    let text: Vec<u8> = (0..LARGEST).map(|n| (n % 251) as u8).collect();
    for path in PATHS {
        let mut duel = Duel::new(path, Forged::Client, Configs::of(TLS_1_3));
        for size in 0..=LARGEST {
            let record = duel.forge.data(&text[..size]);
            duel.act(&Act::Send(record));
            assert_eq!(duel.seen.error, None, "{path:?}: {size}");
            assert!(duel.seen.text == text[..size], "{path:?}: {size}");
            duel.seen.text.clear();
        }
    }
}

#[tokio::test]
async fn a_record_one_byte_too_large_is_an_overflow() {
    for size in [LARGEST + 1, LARGEST + 2, LARGEST + 200] {
        let large = vec![7; size];
        let seen = sent(|forge| [forge.data(b"before"), forge.data(&large)].concat()).await;
        let alert = Some(AlertDescription::RecordOverflow);
        refused(&seen, Error::PeerSentOversizedRecord, alert);
        assert_eq!(seen.text, b"before");
    }
    // What the header alone gives away is no TLS at all.
    let seen = sent(|forge| forge.data(&vec![7; LARGEST + 2048])).await;
    let alert = Some(AlertDescription::DecodeError);
    refused(&seen, InvalidMessage::MessageTooLarge, alert);
}

#[tokio::test]
async fn padding_is_taken_off() {
    let sizes = [(0, 1), (1, 1), (1, 300), (100, 16_284), (16_383, 1)];
    let seen = sent(|forge| {
        let padded = sizes.map(|(size, zeros)| forge.padded(DATA, &vec![7; size], zeros));
        padded.concat()
    })
    .await;
    assert_eq!(seen.error, None);
    assert!(seen.text == [7; 16_485]);
    // The type is always there, the limit holds with all of it.
    let seen = sent(|forge| forge.padded(DATA, &[7; 100], 16_285)).await;
    let alert = Some(AlertDescription::RecordOverflow);
    refused(&seen, Error::PeerSentOversizedRecord, alert);
    for zeros in [0, 1, 1000, LARGEST] {
        let seen = sent(|forge| forge.record(0, &vec![0; zeros])).await;
        refused(&seen, PeerMisbehaved::IllegalTlsInnerPlaintext, None);
    }
}

#[test]
fn records_may_be_cut_at_every_byte() {
    let records = |forge: &mut Forge| {
        let records = [
            forge.data(b""),
            forge.data(b"a"),
            forge.update_keys(true),
            forge.data(&[7; 100]),
            forge.padded(DATA, b"b", 9),
        ];
        records.concat()
    };
    let len = duel::alike(Forged::Client, TLS_1_3, |forge| {
        let bytes = records(forge);
        bytes.iter().map(|byte| Act::Send(vec![*byte])).collect()
    });
    assert_eq!((len.error, len.text.len()), (None, 102));
    let seen = duel::alike(Forged::Client, TLS_1_3, |forge| {
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
    assert!(seen.text.len() > 102 * 200);
}

#[tokio::test]
async fn records_of_one_byte_are_taken() {
    let seen = sent(|forge| (0..5_000).flat_map(|n| forge.data(&[n as u8])).collect()).await;
    assert_eq!(seen.error, None);
    assert!(seen.text == (0..5_000).map(|n| n as u8).collect::<Vec<u8>>());
}

#[tokio::test]
async fn thirty_two_records_with_nothing_in_them_are_enough() {
    let nothing = |forge: &mut Forge, count, zeros| {
        let records = (0..count).flat_map(|_| forge.padded(DATA, b"", zeros));
        records.collect::<Vec<u8>>()
    };
    for zeros in [0, 1, LARGEST] {
        let seen = sent(|forge| {
            let (first, word) = (nothing(forge, 32, zeros), forge.data(b"a"));
            [first, word, nothing(forge, 32, zeros)].concat()
        })
        .await;
        assert_eq!((seen.error, seen.text.as_slice()), (None, &b"a"[..]));
        let seen = sent(|forge| nothing(forge, 33, zeros)).await;
        refused(&seen, PeerMisbehaved::TooManyEmptyFragments, None);
    }
    let seen = sent(|forge| (0..33).flat_map(|_| forge.record(HANDSHAKE, b"")).collect()).await;
    refused(&seen, PeerMisbehaved::TooManyEmptyFragments, None);
}

#[tokio::test]
async fn a_wrong_byte_anywhere_in_a_record_ends_it() {
    let mut refusals = 0;
    let len = 5 + 20 + 1 + 16;
    for at in 0..len {
        let wrong = |forge: &mut Forge| {
            let before = forge.data(b"before");
            let mut record = forge.data(&[7; 20]);
            assert_eq!(record.len(), len);
            record[at] ^= 0x80;
            [before, record].concat()
        };
        let acts = |forge: &mut Forge| vec![Act::Send(wrong(forge))];
        let seen = duel::alike(Forged::Client, TLS_1_3, acts);
        assert_eq!(seen.text.len(), if at == 2 { 26 } else { 6 });
        match at {
            // The minor version is nobody's business (RFC 8446 §5.1), and a longer record is one that is not there yet.
            2 | 4 => assert_eq!(seen.error, None),
            0..5 => assert!(matches!(seen.error, Some(Error::InvalidMessage(_)))),
            _ => {
                let alert = Some(AlertDescription::BadRecordMac);
                refused(&seen, Error::DecryptError, alert);
                refusals += 1;
            }
        }
        if [0, 5, 30, len - 1].contains(&at) {
            sent(wrong).await;
        }
    }
    assert_eq!(refusals, 37);
}

#[tokio::test]
async fn records_out_of_their_order_are_refused() {
    let alert = Some(AlertDescription::BadRecordMac);
    let twice = sent(|forge| forge.data(b"a").repeat(2)).await;
    refused(&twice, Error::DecryptError, alert);
    let skipped = sent(|forge| {
        let first = forge.data(b"a");
        forge.skip();
        [first, forge.data(b"b")].concat()
    })
    .await;
    refused(&skipped, Error::DecryptError, alert);
    let swapped = sent(|forge| {
        let (first, second) = (forge.data(b"a"), forge.data(b"b"));
        [second, first].concat()
    })
    .await;
    refused(&swapped, Error::DecryptError, alert);
    assert_eq!(
        [twice, skipped, swapped].map(|seen| seen.text.len()),
        [1, 1, 0]
    );
}

#[tokio::test]
async fn an_alert_in_the_middle_of_a_record_is_a_part_of_it() {
    let seen = sent(|forge| {
        let mut record = forge.data(&[7; 100]);
        record.truncate(60);
        [record, forge.close_notify(), forge.data(&[7; 100])].concat()
    })
    .await;
    let alert = Some(AlertDescription::BadRecordMac);
    refused(&seen, Error::DecryptError, alert);
}

#[tokio::test]
async fn what_was_sent_without_keys_is_refused_after_the_handshake() {
    for (record, alert) in [
        (
            &[DATA, 3, 3, 0, 5, 1, 2, 3, 4, 5][..],
            AlertDescription::BadRecordMac,
        ),
        (
            &[HANDSHAKE, 3, 3, 0, 4, 0, 0, 0, 0],
            AlertDescription::BadRecordMac,
        ),
        (&[ALERT, 3, 3, 0, 2, 1, 0], AlertDescription::BadRecordMac),
        (&[20, 3, 3, 0, 1, 1], AlertDescription::UnexpectedMessage),
        (&[99, 3, 3, 0, 1, 1], AlertDescription::DecodeError),
        (&[HANDSHAKE, 3, 3, 0, 0], AlertDescription::DecodeError),
        (b"GET / HTTP/1.1\r\n\r\n", AlertDescription::DecodeError),
    ] {
        let seen = sent(|forge| [&forge.data(b"before")[..], record].concat()).await;
        assert_eq!(seen.words.last(), Some(&Word::Alert(2, alert.into())));
        assert_eq!(seen.text, b"before");
    }
}

#[tokio::test]
async fn a_content_type_that_nobody_knows_is_refused() {
    let alert = Some(AlertDescription::DecodeError);
    for typ in [19, 25, 99, 255] {
        let seen = sent(|forge| forge.record(typ, b"what")).await;
        refused(&seen, InvalidMessage::InvalidContentType, alert);
    }
    let seen = sent(|forge| forge.record(20, &[1])).await;
    let alert = Some(AlertDescription::UnexpectedMessage);
    refused(
        &seen,
        PeerMisbehaved::IllegalMiddleboxChangeCipherSpec,
        alert,
    );
}

#[tokio::test]
async fn alerts_end_a_connection_but_for_a_few() {
    const CANCELLED: u8 = 90;
    let warned = async |count: usize| {
        sent(|forge| {
            let alerts = (0..count).flat_map(|_| forge.alert(1, CANCELLED));
            let mut bytes: Vec<u8> = alerts.collect();
            bytes.extend(forge.data(b"a"));
            bytes
        })
        .await
    };
    let seen = warned(4).await;
    assert_eq!((seen.error, seen.text.as_slice()), (None, &b"a"[..]));
    let seen = warned(5).await;
    refused(&seen, PeerMisbehaved::TooManyWarningAlertsReceived, None);
    for (level, description, alert) in [
        (1, 100, Some(AlertDescription::DecodeError)),
        (3, 100, Some(AlertDescription::IllegalParameter)),
        (2, 100, None),
        (2, 20, None),
        (2, 255, None),
    ] {
        let seen = sent(|forge| [forge.data(b"a"), forge.alert(level, description)].concat()).await;
        refused(&seen, Error::AlertReceived(description.into()), alert);
        assert_eq!(seen.text, b"a");
    }
    for alert in [&[][..], &[1], &[1, 0, 0], &[1, 0, 1, 0]] {
        let seen = sent(|forge| forge.record(ALERT, alert)).await;
        assert!(
            matches!(seen.error, Some(Error::InvalidMessage(_))),
            "{seen:?}"
        );
        let decode_error = AlertDescription::DecodeError.into();
        assert_eq!(seen.words.last(), Some(&Word::Alert(2, decode_error)));
    }
}
