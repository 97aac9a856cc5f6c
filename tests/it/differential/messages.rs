//! Messages after the handshake, under TLS 1.3: keys, tickets, and what is left half said.

use rustls::{AlertDescription, Error, InvalidMessage, PeerMisbehaved};

use super::duel::{self, Act, Configs, Duel, Forged, Seen, Subject, TLS_1_3};
use super::forge::{DATA, Forge, HANDSHAKE, KEY_UPDATE, TICKET, message};
use super::gate::Path;
use super::records::{self, refused};
use super::wire;

/// What fits into one record.
const RECORD: usize = 16_384;

async fn sent(bytes: impl Fn(&mut Forge) -> Vec<u8>) -> Seen {
    records::sent(TLS_1_3, bytes).await
}

#[tokio::test]
async fn keys_may_be_updated_before_every_record() {
    for asking in [false, true] {
        let seen = wire::alike(Forged::Client, TLS_1_3, |forge| {
            let mut acts = Vec::new();
            for turn in 0..200 {
                let update = forge.update_keys(asking);
                acts.push(Act::Send([update, forge.data(&[turn])].concat()));
                if turn % 20 == 0 {
                    acts.push(Act::Say(100));
                }
            }
            acts
        })
        .await;
        assert_eq!(seen.error, None);
        assert!(seen.text == (0..200).collect::<Vec<u8>>());
    }
}

#[tokio::test]
async fn thirty_two_updates_of_keys_without_a_word_are_enough() {
    for asking in [false, true] {
        let updates = |forge: &mut Forge, count| {
            let updates = (0..count).flat_map(|_| forge.update_keys(asking));
            updates.collect::<Vec<u8>>()
        };
        let seen = sent(|forge| {
            let (first, word) = (updates(forge, 32), forge.data(b"a"));
            [first, word, updates(forge, 32)].concat()
        })
        .await;
        assert_eq!((seen.error, seen.text.as_slice()), (None, &b"a"[..]));
        let seen = sent(|forge| updates(forge, 33)).await;
        refused(&seen, PeerMisbehaved::TooManyKeyUpdateRequests, None);
    }
}

#[tokio::test]
async fn an_update_of_keys_that_is_none_is_refused() {
    let seen = sent(|forge| forge.message(KEY_UPDATE, &[2], RECORD)).await;
    let alert = Some(AlertDescription::IllegalParameter);
    refused(&seen, InvalidMessage::InvalidKeyUpdate, alert);
    // Something more in its record would have been sealed with the old keys.
    let more = [message(KEY_UPDATE, &[0]), vec![KEY_UPDATE]].concat();
    let seen = sent(|forge| forge.record(HANDSHAKE, &more)).await;
    let alert = Some(AlertDescription::UnexpectedMessage);
    refused(&seen, PeerMisbehaved::KeyEpochWithPendingFragment, alert);
    let alert = Some(AlertDescription::BadRecordMac);
    let untold = sent(|forge| {
        forge.turn_keys();
        forge.data(b"a")
    })
    .await;
    refused(&untold, Error::DecryptError, alert);
    let old = sent(|forge| [forge.message(KEY_UPDATE, &[0], RECORD), forge.data(b"a")].concat());
    refused(&old.await, Error::DecryptError, alert);
}

#[tokio::test]
async fn a_flood_of_tickets_is_taken_and_leaves_nothing_behind() {
    // Each duel makes sure that nothing is held beyond what half a message may need.
    let flood = |forge: &mut Forge| -> Vec<Act> {
        let mut acts = Vec::new();
        for turn in 0..20 {
            let tickets = (0..100).flat_map(|_| forge.message(TICKET, &ticket(200 * turn), RECORD));
            let mut tickets: Vec<u8> = tickets.collect();
            tickets.extend(forge.data(b"a"));
            acts.extend([Act::Send(tickets), Act::Say(10)]);
        }
        acts
    };
    let seen = wire::alike(Forged::Server, TLS_1_3, flood).await;
    assert_eq!((seen.error, seen.text.len()), (None, 20));
    let mut duel = Duel::new(Path::Unbuffered, Forged::Server, Configs::of(TLS_1_3));
    for act in flood(&mut duel.forge) {
        // However it is cut, nothing is left behind the last byte.
        let pieces = match act {
            Act::Send(bytes) => bytes
                .chunks(10_007)
                .map(|piece| Act::Send(piece.into()))
                .collect(),
            act => vec![act],
        };
        for act in pieces {
            duel.act(&act);
        }
        let Subject::Unbuffered(records) = &duel.subject else {
            panic!("the other path");
        };
        assert_eq!((records.kept(), records.owed()), (Ok(0), &[][..]));
    }
}

#[tokio::test]
async fn a_message_that_has_no_place_is_refused() {
    for (forged, typ, body) in [
        (Forged::Client, TICKET, ticket(100)),
        (Forged::Client, 1, vec![3; 300]),
        (Forged::Client, 11, vec![0; 20_000]),
        (Forged::Client, 20, vec![3; 32]),
        (Forged::Server, 13, vec![0; 3]),
        (Forged::Server, 0, Vec::new()),
        (Forged::Server, 99, vec![1; 70]),
    ] {
        let seen = wire::alike(forged, TLS_1_3, |forge| {
            vec![Act::Send(
                [forge.data(b"a"), forge.message(typ, &body, RECORD)].concat(),
            )]
        })
        .await;
        let error = seen.error.expect("an error");
        assert!(
            matches!(
                error,
                Error::InappropriateHandshakeMessage { .. } | Error::InvalidMessage(_)
            ),
            "{typ}: {error:?}"
        );
        assert_eq!(seen.text, b"a");
    }
}

/// rustls must see again what it has not done with, whoever asks it next: an empty buffer would make it panic.
#[tokio::test]
async fn a_message_may_be_left_half_said_while_bytes_flow_the_other_way() {
    for cut in 1..5 {
        let acts = |forge: &mut Forge| half_said(forge, KEY_UPDATE, &[0], cut, true);
        let seen = wire::alike(Forged::Client, TLS_1_3, acts).await;
        assert_eq!((seen.error, seen.text.as_slice()), (None, &b"ab"[..]));
    }
    for cut in [1, 100, RECORD, 40_000, 60_000] {
        let body = ticket(60_000);
        let acts = |forge: &mut Forge| half_said(forge, TICKET, &body, cut, true);
        let seen = wire::alike(Forged::Server, TLS_1_3, acts).await;
        assert_eq!((seen.error, seen.text.as_slice()), (None, &b"ab"[..]));
    }
}

#[tokio::test]
async fn a_message_that_is_never_said_to_its_end_is_no_reason_to_fail() {
    let half = |forge: &mut Forge| half_said(forge, KEY_UPDATE, &[0], 3, false);
    let seen = wire::alike(Forged::Client, TLS_1_3, half).await;
    assert_eq!((seen.error, seen.ended), (None, false));
    let closed = |forge: &mut Forge| {
        let mut acts = half(forge);
        acts.push(Act::Close);
        acts
    };
    let seen = wire::alike(Forged::Client, TLS_1_3, closed).await;
    assert_eq!((seen.error, seen.ended), (None, false));
}

/// The beginning of a message, words of the other side, the rest of it, and a word; the first word comes before it all.
fn half_said(forge: &mut Forge, typ: u8, body: &[u8], cut: usize, finish: bool) -> Vec<Act> {
    let message = message(typ, body);
    let (first, rest) = message.split_at(cut);
    let sealed = |forge: &mut Forge, part: &[u8]| {
        let records = part.chunks(RECORD);
        records
            .flat_map(|part| forge.record(HANDSHAKE, part))
            .collect::<Vec<u8>>()
    };
    let mut acts = vec![
        Act::Send([forge.data(b"a"), sealed(forge, first)].concat()),
        Act::Say(1),
        Act::Say(200_000),
    ];
    if finish {
        let rest = sealed(forge, rest);
        if typ == KEY_UPDATE {
            forge.turn_keys();
        }
        acts.extend([Act::Send([rest, forge.data(b"b")].concat()), Act::Say(1)]);
    }
    acts
}

#[tokio::test]
async fn nothing_comes_between_the_parts_of_a_message() {
    for typ in [DATA, 21] {
        let seen = sent(|forge| {
            let before = forge.data(b"a");
            let half = forge.record(HANDSHAKE, &message(KEY_UPDATE, &[0])[..3]);
            [before, half, forge.record(typ, &[1, 0])].concat()
        })
        .await;
        refused(
            &seen,
            PeerMisbehaved::MessageInterleavedWithHandshakeMessage,
            None,
        );
        assert_eq!(seen.text, b"a");
    }
    // The alert goes out although half a message is still there.
    let seen = sent(|forge| {
        let half = forge.record(HANDSHAKE, &message(KEY_UPDATE, &[0])[..3]);
        forge.skip();
        [half, forge.data(b"a")].concat()
    })
    .await;
    let alert = Some(AlertDescription::BadRecordMac);
    refused(&seen, Error::DecryptError, alert);
}

#[tokio::test]
async fn a_message_may_come_in_records_of_one_byte() {
    let seen = wire::alike(Forged::Server, TLS_1_3, |forge| {
        let tickets = forge.message(TICKET, &ticket(1_000), 1);
        vec![Act::Send([tickets, forge.data(b"a")].concat())]
    })
    .await;
    assert_eq!((seen.error, seen.text.as_slice()), (None, &b"a"[..]));
}

/// rustls's buffered connection keeps 65,535 bytes of a message with the records around it, and no more.
#[tokio::test]
async fn a_message_may_fill_sixty_four_kibibytes_with_its_records_and_no_more() {
    // Four records, with 22 bytes around the content of each.
    const MOST: usize = 0xffff - 4 * 22 - 4;
    let said = |size: usize, pieces: usize| {
        move |forge: &mut Forge| -> Vec<Act> {
            let before = forge.data(b"before");
            let large = forge.message(TICKET, &ticket(size), RECORD);
            let bytes = [before, large, forge.data(b"after")].concat();
            bytes
                .chunks(pieces)
                .map(|piece| Act::Send(piece.to_vec()))
                .collect()
        }
    };
    for (size, taken) in [
        (60_000, true),
        (MOST - 1, true),
        (MOST, true),
        (MOST + 1, false),
        (MOST + 60, false),
        (0xffff, false),
        (0x1_0000, false),
        (0x1_0001, false),
        (1_000_000, false),
    ] {
        for pieces in [usize::MAX, 65_624, 16_406, 1_460] {
            let seen = duel::alike(Forged::Server, TLS_1_3, said(size, pieces));
            is_taken(&seen, taken, size);
        }
        let seen = wire::alike(Forged::Server, TLS_1_3, said(size, usize::MAX)).await;
        is_taken(&seen, taken, size);
    }
}

fn is_taken(seen: &Seen, taken: bool, size: usize) {
    let error = Error::from(InvalidMessage::HandshakePayloadTooLarge);
    let (text, error): (&[u8], _) = match taken {
        true => (b"beforeafter", None),
        false => (b"before", Some(error)),
    };
    assert_eq!(
        (seen.text.as_slice(), &seen.error),
        (text, &error),
        "{size}"
    );
}

/// What a NewSessionTicket says (RFC 8446 §4.6.1), so many bytes of it; as far as a ticket can be so large.
fn ticket(size: usize) -> Vec<u8> {
    let ticket = size.saturating_sub(13).clamp(1, 0xffff);
    let mut body = vec![0, 0, 1, 0, 1, 2, 3, 4, 0];
    body.extend((ticket as u16).to_be_bytes());
    body.extend(vec![5; ticket]);
    body.extend([0, 0]);
    body.resize(body.len().max(size), 0);
    body
}
