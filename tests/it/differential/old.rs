//! Records that no honest peer sends, under TLS 1.2: taken alike by both paths, or refused alike.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{
    AlertDescription, CipherSuiteCommon, Error, PeerMisbehaved, SupportedCipherSuite,
    Tls12CipherSuite,
};

use super::duel::{self, Act, Configs, Duel, Forged, Seen, TLS_1_2};
use super::forge::{ALERT, DATA, Forge, HANDSHAKE, Word, message};
use super::gate::{How, PATHS, Path, Why};
use super::hostile::refused;
use super::wire;

/// The largest content of a record (RFC 5246 §6.2.1).
const LARGEST: usize = 16_384;

/// RFC 5246 §7.2.2.
const NO_RENEGOTIATION: Word = Word::Alert(1, 100);

async fn sent(bytes: impl Fn(&mut Forge) -> Vec<u8>) -> Seen {
    let acts = |forge: &mut Forge| vec![Act::Send(bytes(forge))];
    wire::alike(Forged::Client, TLS_1_2, acts).await
}

#[test]
fn records_of_any_size_are_taken() {
    let text: Vec<u8> = (0..LARGEST).map(|n| (n % 251) as u8).collect();
    for path in PATHS {
        let mut duel = Duel::new(path, Forged::Client, Configs::of(TLS_1_2));
        for size in (0..LARGEST).step_by(31).chain(LARGEST - 40..=LARGEST) {
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
    let large = vec![7; LARGEST + 1];
    let seen = sent(|forge| [forge.data(b"before"), forge.data(&large)].concat()).await;
    let alert = Some(AlertDescription::RecordOverflow);
    refused(&seen, Error::PeerSentOversizedRecord, alert);
    assert_eq!(seen.text, b"before");
}

#[test]
fn records_may_be_cut_at_every_byte() {
    let seen = duel::alike(Forged::Client, TLS_1_2, |forge| {
        let mut acts = Vec::new();
        let mut at = 0;
        loop {
            let bytes = [forge.data(b""), forge.data(b"a"), forge.data(&[7; 100])].concat();
            at += 1;
            if at == bytes.len() {
                acts.extend(bytes.iter().map(|byte| Act::Send(vec![*byte])));
                return acts;
            }
            let (first, second) = bytes.split_at(at);
            acts.extend([Act::Send(first.to_vec()), Act::Send(second.to_vec())]);
        }
    });
    assert_eq!(seen.error, None);
    assert!(seen.text.len() > 101 * 180);
}

#[tokio::test]
async fn a_wrong_byte_anywhere_in_a_record_ends_it() {
    let len = 5 + 8 + 20 + 16;
    for at in 0..len {
        let wrong = |forge: &mut Forge| {
            let before = forge.data(b"before");
            let mut record = forge.data(&[7; 20]);
            assert_eq!(record.len(), len);
            record[at] ^= 0x80;
            [before, record].concat()
        };
        let acts = |forge: &mut Forge| vec![Act::Send(wrong(forge))];
        let seen = duel::alike(Forged::Client, TLS_1_2, acts);
        assert_eq!(seen.text, b"before");
        match at {
            // A longer record is one that is not there yet.
            4 => assert_eq!(seen.error, None),
            0 | 1 | 3 => assert!(matches!(seen.error, Some(Error::InvalidMessage(_)))),
            _ => {
                let alert = Some(AlertDescription::BadRecordMac);
                refused(&seen, Error::DecryptError, alert);
            }
        }
        if [0, 5, 30, len - 1].contains(&at) {
            sent(wrong).await;
        }
    }
}

#[tokio::test]
async fn a_client_that_wants_to_begin_anew_is_told_no_once_and_goes_on() {
    let config = Configs::of(TLS_1_2);
    let seen = sent(|forge| {
        [
            forge.data(b"a"),
            forge.hello(&config.client),
            forge.data(b"b"),
        ]
        .concat()
    })
    .await;
    assert_eq!((seen.error, seen.text.as_slice()), (None, &b"ab"[..]));
    assert_eq!(seen.words.last(), Some(&NO_RENEGOTIATION));
    let seen = sent(|forge| {
        let hellos = [forge.hello(&config.client), forge.hello(&config.client)];
        [hellos.concat(), forge.data(b"b")].concat()
    })
    .await;
    let error = Error::PeerMisbehaved(PeerMisbehaved::TooManyRenegotiationRequests);
    assert_eq!((seen.error, seen.text.as_slice()), (Some(error), &b""[..]));
    assert_eq!(seen.words.last(), Some(&NO_RENEGOTIATION));
}

#[tokio::test]
async fn an_upstream_that_wants_to_begin_anew_is_told_no_once_and_goes_on() {
    let asked = async |count: usize| {
        wire::alike(Forged::Server, TLS_1_2, |forge| {
            let asks = (0..count).flat_map(|_| forge.message(0, b"", 4));
            let mut bytes: Vec<u8> = asks.collect();
            bytes.extend(forge.data(b"a"));
            let answer = Act::Say(usize::from(count == 1));
            vec![Act::Send(bytes), answer]
        })
        .await
    };
    let seen = asked(1).await;
    assert_eq!((seen.error, seen.text.as_slice()), (None, &b"a"[..]));
    assert!(seen.words.contains(&NO_RENEGOTIATION));
    let error = Error::PeerMisbehaved(PeerMisbehaved::TooManyRenegotiationRequests);
    assert_eq!(asked(2).await.error, Some(error));
}

#[tokio::test]
async fn a_hello_may_be_left_half_said_while_bytes_flow_the_other_way() {
    let config = Configs::of(TLS_1_2);
    for cut in [1, 3, 4, 60] {
        let seen = wire::alike(Forged::Client, TLS_1_2, |forge| {
            let hello = super::forge::Handshake::client(&config.client).step(&[]).0;
            let (first, rest) = hello[5..].split_at(cut);
            let before = forge.data(b"a");
            let half = [before, forge.record(HANDSHAKE, first)].concat();
            let rest = [forge.record(HANDSHAKE, rest), forge.data(b"b")].concat();
            vec![
                Act::Send(half),
                Act::Say(200_000),
                Act::Send(rest),
                Act::Say(1),
            ]
        })
        .await;
        assert_eq!((seen.error, seen.text.as_slice()), (None, &b"ab"[..]));
        assert!(seen.words.contains(&NO_RENEGOTIATION));
    }
}

#[tokio::test]
async fn warnings_are_heard_up_to_four() {
    let warned = async |count: usize| {
        sent(|forge| {
            let alerts = (0..count).flat_map(|n| forge.alert(1, 100 + n as u8));
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
    let seen = sent(|forge| [forge.data(b"a"), forge.alert(2, 40)].concat()).await;
    let error = Error::AlertReceived(AlertDescription::HandshakeFailure);
    refused(&seen, error, None);
    let seen = sent(|forge| forge.alert(7, 40)).await;
    let alert = Some(AlertDescription::IllegalParameter);
    let error = Error::AlertReceived(AlertDescription::HandshakeFailure);
    refused(&seen, error, alert);
}

#[tokio::test]
async fn thirty_two_records_with_nothing_in_them_are_enough() {
    let nothing = |forge: &mut Forge, count| {
        let records = (0..count).flat_map(|_| forge.data(b""));
        records.collect::<Vec<u8>>()
    };
    let seen = sent(|forge| {
        let (first, word) = (nothing(forge, 32), forge.data(b"a"));
        [first, word, nothing(forge, 32)].concat()
    })
    .await;
    assert_eq!((seen.error, seen.text.as_slice()), (None, &b"a"[..]));
    let seen = sent(|forge| nothing(forge, 33)).await;
    refused(&seen, PeerMisbehaved::TooManyEmptyFragments, None);
}

#[tokio::test]
async fn what_has_no_place_after_the_handshake_is_refused() {
    for (record, alert) in [
        (
            &[DATA, 3, 3, 0, 5, 1, 2, 3, 4, 5][..],
            AlertDescription::BadRecordMac,
        ),
        (
            &[HANDSHAKE, 3, 3, 0, 4, 0, 0, 0, 0],
            AlertDescription::BadRecordMac,
        ),
        (&[ALERT, 3, 3, 0, 2, 2, 40], AlertDescription::BadRecordMac),
        (&[20, 3, 3, 0, 1, 1], AlertDescription::UnexpectedMessage),
        (&[99, 3, 3, 0, 1, 1], AlertDescription::DecodeError),
    ] {
        let seen = sent(|forge| [&forge.data(b"before")[..], record].concat()).await;
        assert_eq!(seen.words.last(), Some(&Word::Alert(2, alert.into())));
        assert_eq!(seen.text, b"before");
    }
    for typ in [0, 4, 11, 20] {
        let seen = sent(|forge| forge.record(HANDSHAKE, &message(typ, b""))).await;
        assert!(seen.error.is_some(), "{typ}");
        assert!(
            matches!(seen.words.last(), Some(Word::Alert(2, _))),
            "{typ}"
        );
    }
}

/// The keys of TLS 1.2 cannot be renewed. The reference ends it with a `close_notify` and drops what it has taken: a
/// client would have half an answer for a whole one.
#[tokio::test]
async fn keys_that_are_worn_out_break_a_connection_off_and_never_end_it_cleanly() {
    const RECORDS: usize = 40;
    let mut provider = CryptoProvider::clone(&super::forge::provider());
    let SupportedCipherSuite::Tls12(suite) = provider.cipher_suites[1] else {
        panic!("another order");
    };
    let worn = Box::leak(Box::new(Tls12CipherSuite {
        common: CipherSuiteCommon {
            suite: suite.common.suite,
            hash_provider: suite.common.hash_provider,
            confidentiality_limit: RECORDS as u64,
        },
        ..*suite
    }));
    provider.cipher_suites = vec![SupportedCipherSuite::Tls12(worn)];
    let configs = Configs::new(Arc::new(provider), TLS_1_2);
    let told = wire::tell(Path::Unbuffered, Forged::Client, &configs, |forge| {
        vec![
            Act::Send(forge.data(b"a")),
            Act::Say((RECORDS + 1) * LARGEST),
        ]
    })
    .await;
    assert!(
        matches!(
            told.ended.how,
            How::ClientFailed(Why::Tls(Error::General(_)))
        ),
        "{:?}",
        told.ended
    );
    let [Word::Data(data)] = &told.words[..] else {
        panic!("{:?}", told.words);
    };
    assert!(data.len() > (RECORDS - 6) * LARGEST);
    assert_eq!(told.ended.down, data.len() as u64);
}
