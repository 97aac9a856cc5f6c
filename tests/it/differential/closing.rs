//! The end of a direction, and what comes behind it, under both versions of TLS.

use rustls::{AlertDescription, Error};

use super::duel::{Act, BOTH_VERSIONS, Configs, Forged};
use super::forge::{Forge, Word};
use super::gate::PATHS;
use super::wire;

#[tokio::test]
async fn what_comes_behind_a_close_notify_is_ignored() {
    for versions in BOTH_VERSIONS {
        for behind in [
            |forge: &mut Forge| forge.data(b"behind"),
            |forge: &mut Forge| (0..20).flat_map(|_| forge.data(&[7; 16_384])).collect(),
            |forge: &mut Forge| forge.close_notify(),
            |forge: &mut Forge| forge.alert(2, 40),
            |_: &mut Forge| vec![0xff; 1_000],
            |_: &mut Forge| vec![23, 3],
        ] {
            for at_once in [true, false] {
                let seen = wire::alike(Forged::Client, versions, |forge| {
                    let end = [forge.data(b"all"), forge.close_notify()].concat();
                    let behind = behind(forge);
                    let mut acts = match at_once {
                        true => vec![Act::Send([end, behind].concat())],
                        false => vec![Act::Send(end), Act::Say(1), Act::Send(behind)],
                    };
                    acts.push(Act::Say(100_000));
                    acts
                })
                .await;
                assert_eq!((seen.error, seen.ended), (None, true));
                assert_eq!(seen.text, b"all");
                let Some(Word::Data(answer)) = seen.words.last() else {
                    panic!("no answer");
                };
                assert!(answer.len() > 100_000);
            }
        }
    }
}

#[tokio::test]
async fn the_last_close_notify_arrives_although_something_was_never_read() {
    for versions in BOTH_VERSIONS {
        for path in PATHS {
            let configs = Configs::of(versions);
            let told = wire::tell(path, Forged::Client, configs, |forge| {
                let end = forge.close_notify();
                vec![Act::Send(end), Act::Say(1), Act::Send(vec![0; 100_000])]
            })
            .await;
            assert_eq!(told.words.last(), Some(&Word::Alert(1, 0)), "{path:?}");
        }
    }
}

#[tokio::test]
async fn one_who_has_closed_still_hears() {
    for versions in BOTH_VERSIONS {
        for forged in [Forged::Client, Forged::Server] {
            let seen = wire::alike(forged, versions, |forge| {
                vec![
                    Act::Say(10),
                    Act::Close,
                    Act::Send(forge.data(b"still here")),
                    Act::Send(forge.data(&[7; 10_000])),
                    Act::Send(forge.close_notify()),
                ]
            })
            .await;
            assert_eq!((seen.error, seen.ended), (None, true));
            assert_eq!(seen.text.len(), 10_010);
            assert_eq!(seen.words.last(), Some(&Word::Alert(1, 0)));
        }
    }
}

#[tokio::test]
async fn one_who_has_closed_has_no_alert_left_for_what_is_wrong() {
    for versions in BOTH_VERSIONS {
        let seen = wire::alike(Forged::Client, versions, |forge| {
            let good = forge.data(b"good");
            forge.skip();
            vec![Act::Close, Act::Send([good, forge.data(b"bad")].concat())]
        })
        .await;
        assert_eq!(seen.error, Some(Error::DecryptError));
        assert_eq!(seen.text, b"good");
        let alert = AlertDescription::BadRecordMac.into();
        assert_eq!(seen.words.last(), Some(&Word::Alert(2, alert)));
    }
}

#[tokio::test]
async fn half_a_record_is_a_truncation_and_not_an_error() {
    for versions in BOTH_VERSIONS {
        for length in [1, 4, 5, 6, 60, 120] {
            let seen = wire::alike(Forged::Client, versions, |forge| {
                let whole = forge.data(b"a");
                let half = &forge.data(&[7; 100])[..length];
                vec![Act::Send([&whole, half].concat()), Act::Say(10)]
            })
            .await;
            assert_eq!((seen.error, seen.ended), (None, false));
        }
    }
}
