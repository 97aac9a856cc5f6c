//! Records that no honest peer of TLS 1.3 sends: taken alike by both paths, or refused alike.

use rustls::{AlertDescription, Error, InvalidMessage, PeerMisbehaved};

use super::duel::{Seen, TLS_1_3};
use super::forge::{ALERT, DATA, Forge, HANDSHAKE, Word};
use super::records::{self, LARGEST, refused};

async fn sent(bytes: impl Fn(&mut Forge) -> Vec<u8>) -> Seen {
    records::sent(TLS_1_3, bytes).await
}

#[tokio::test]
async fn a_record_whose_header_says_too_much_is_no_tls_at_all() {
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

#[tokio::test]
async fn thirty_two_records_with_nothing_but_padding_are_enough() {
    let nothing = |forge: &mut Forge, count, zeros| {
        let records = (0..count).flat_map(|_| forge.padded(DATA, b"", zeros));
        records.collect::<Vec<u8>>()
    };
    for zeros in [1, LARGEST] {
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
