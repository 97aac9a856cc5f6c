//! Records that no honest peer of TLS 1.2 sends: taken alike by both paths, or refused alike.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{
    AlertDescription, CipherSuiteCommon, Error, PeerMisbehaved, SupportedCipherSuite,
    Tls12CipherSuite,
};

use super::duel::{Act, Configs, Forged, Seen, TLS_1_2};
use super::forge::{ALERT, DATA, Forge, HANDSHAKE, Word, message};
use super::gate::{How, Path, Why};
use super::records::{self, LARGEST, refused};
use super::wire;

async fn sent(bytes: impl Fn(&mut Forge) -> Vec<u8>) -> Seen {
    records::sent(TLS_1_2, bytes).await
}

/// RFC 5246 §7.2.2.
const NO_RENEGOTIATION: Word = Word::Alert(1, 100);

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
