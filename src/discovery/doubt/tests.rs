//! Which disappearances are believed, answer by answer.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::type_complexity)]

use super::*;
use crate::api::http::Api;
use crate::config::Secret;

/// An answer about the catalog: as it is when all is well, but for what a test changes.
#[derive(Clone)]
struct Said {
    listed: Vec<&'static str>,
    /// Listed, and of no interest.
    strangers: Vec<&'static str>,
    index: u64,
    known_leader: bool,
    filtered: bool,
    default_deny: bool,
    token: TokenId,
    asked: bool,
    at: u64,
}

fn said<const N: usize>(listed: [&'static str; N]) -> Said {
    Said {
        listed: listed.to_vec(),
        strangers: vec!["consul"],
        index: 100,
        known_leader: true,
        filtered: false,
        default_deny: true,
        token: token("one"),
        asked: false,
        at: 0,
    }
}

/// The answer to a question that was asked for the sake of a doubt, so many seconds after the beginning.
fn asked<const N: usize>(at: u64, listed: [&'static str; N]) -> Said {
    Said {
        asked: true,
        at,
        ..said(listed)
    }
}

fn token(text: &str) -> TokenId {
    TokenId::of(Api::Consul, &Secret::new(text.to_owned()))
}

struct Court {
    doubts: Doubts,
    start: Instant,
}

impl Court {
    /// After an answer that listed all.
    fn after(said: Said) -> Self {
        let mut court = Court {
            doubts: Doubts::default(),
            start: Instant::now(),
        };
        assert!(court.gone(said).is_empty());
        assert_eq!(court.doubts.told("consul"), None);
        court
    }

    fn gone(&mut self, said: Said) -> Vec<String> {
        let answer = Answer {
            value: (),
            index: said.index,
            known_leader: said.known_leader,
            last_contact: Duration::ZERO,
            stale: false,
            filtered: said.filtered,
            default_deny: said.default_deny,
            token: said.token,
        };
        let listed = said.listed.iter().map(|name| Arc::from(*name)).collect();
        let is_listed = |name: &str| said.listed.contains(&name) || said.strangers.contains(&name);
        let now = self.start + Duration::from_secs(said.at);
        let gone = self
            .doubts
            .judge(&answer, &listed, is_listed, said.asked, now);
        assert!(gone.iter().all(|name| !self.doubts.keep(name)));
        assert_eq!(
            self.doubts.told("consul").is_some(),
            self.doubts.ask_at(now).is_some()
        );
        gone.iter().map(|name| name.to_string()).collect()
    }

    /// What is told, which must hold this.
    #[track_caller]
    fn assert_told(&self, part: &str) {
        let told = self.doubts.told("consul").unwrap_or_default();
        assert!(told.contains(part), "{told}");
    }
}

const ALL: [&str; 3] = ["api", "db", "web"];

#[test]
fn one_service_that_is_gone_among_others_is_believed_at_once() {
    let mut court = Court::after(said(ALL));
    assert_eq!(court.gone(said(["api", "web"])), ["db"]);
    assert_eq!(court.doubts.told("consul"), None);
    assert!(court.gone(said(["api", "web"])).is_empty());
    assert_eq!(
        court.gone(Said {
            index: 101,
            ..said(["web"])
        }),
        ["api"]
    );
}

#[test]
fn what_is_listed_and_of_no_interest_any_more_is_not_missed() {
    let mut court = Court::after(said(ALL));
    let strangers = vec!["db", "web", "api"];
    assert!(
        court
            .gone(Said {
                strangers,
                ..said([])
            })
            .is_empty()
    );
    assert_eq!(court.doubts.told("consul"), None);
    assert!(court.gone(said([])).is_empty());
    assert_eq!(court.doubts.told("consul"), None);
}

#[test]
fn some_that_are_missing_are_kept_while_the_answer_is_not_to_be_relied_on() {
    let cases: [(fn(&mut Said), &str); 4] = [
        (|said| said.known_leader = false, "knows no leader"),
        (|said| said.filtered = true, "ACLs hide"),
        (|said| said.token = token("two"), "another ACL token"),
        (|said| said.index = 99, "index 99 after 100"),
    ];
    for (change, why) in cases {
        let mut court = Court::after(said(ALL));
        let mut doubtful = said(["api"]);
        change(&mut doubtful);
        for at in [0, 60, 599] {
            doubtful.at = at;
            doubtful.asked = at > 0;
            assert!(court.gone(doubtful.clone()).is_empty());
            court.assert_told(why);
            court.assert_told(r#"2 of 3 services, which are served on as they were ("db", "web")"#);
            assert!(court.doubts.keep("db") && !court.doubts.keep("api"));
        }
        // The next ordinary answer settles it, one way or the other.
        assert_eq!(court.gone(said(["api", "db"])), ["web"]);
        assert_eq!(court.doubts.told("consul"), None);
        assert!(!court.doubts.keep("db"));
    }
}

#[test]
fn a_flag_that_was_there_before_means_nothing() {
    let filtered = |said| Said {
        filtered: true,
        ..said
    };
    let mut court = Court::after(filtered(said(ALL)));
    assert_eq!(court.gone(filtered(said(["api", "web"]))), ["db"]);
    assert!(court.gone(filtered(said([]))).is_empty());
    assert!(court.gone(filtered(asked(0, []))).is_empty());
    assert_eq!(court.gone(filtered(asked(5, []))), ["api", "web"]);
}

#[test]
fn each_service_is_judged_by_the_answer_that_listed_it_last() {
    let mut court = Court::after(said(ALL));
    // Another token, which sees less, and says so from the first answer on.
    let other = |said| Said {
        token: token("two"),
        ..said
    };
    assert!(court.gone(other(said(["api", "db"]))).is_empty());
    assert_eq!(
        court.gone(other(said(["api"]))),
        ["db"],
        "seen with this token"
    );
    court.assert_told("\"web\"");
    // Consul was restored from an old snapshot, and grows again.
    let at = |index, said| Said { index, ..said };
    let mut court = Court::after(said(ALL));
    assert!(court.gone(at(50, said(["api", "db"]))).is_empty());
    assert_eq!(court.gone(at(60, said(["api"]))), ["db"], "seen at 50");
    court.assert_told("index 60 after 100");
    assert_eq!(court.gone(at(100, said(["api"]))), ["web"]);
}

#[test]
fn an_empty_answer_is_believed_after_two_questions_five_seconds_apart() {
    let mut court = Court::after(said(ALL));
    assert!(court.gone(said([])).is_empty());
    court.assert_told("3 of 3 services");
    court.assert_told("it is asked again");
    let now = court.start;
    assert_eq!(court.doubts.ask_at(now), Some(now), "the first at once");
    assert!(court.gone(asked(0, [])).is_empty());
    assert_eq!(court.doubts.ask_at(now), Some(now + ASKED_AGAIN));
    // What the long poll says in between counts for nothing.
    assert!(court.gone(Said { at: 4, ..said([]) }).is_empty());
    assert!(court.gone(Said { at: 6, ..said([]) }).is_empty());
    assert_eq!(court.gone(asked(6, [])), ALL);
    assert_eq!(court.doubts.told("consul"), None);
    assert_eq!(court.doubts.ask_at(now), None);
}

#[test]
fn an_empty_answer_is_not_believed_when_one_of_the_two_says_otherwise() {
    let cases: [fn(&mut Said); 6] = [
        |said| said.known_leader = false,
        |said| said.filtered = true,
        |said| said.token = token("two"),
        |said| said.token = TokenId::default(),
        |said| said.index = 99,
        |said| said.listed = vec!["api"],
    ];
    for change in cases {
        let mut court = Court::after(said(ALL));
        assert!(court.gone(said([])).is_empty());
        assert!(court.gone(asked(0, [])).is_empty());
        let mut other = asked(5, []);
        change(&mut other);
        let gone = court.gone(other.clone());
        assert!(!gone.contains(&"api".to_owned()));
        let again = court.gone(asked(10, []));
        assert!(again.is_empty(), "it counts from the beginning: {again:?}");
    }
    let mut court = Court::after(said(ALL));
    assert!(court.gone(asked(0, [])).is_empty());
    court.doubts.unanswered(court.start + ASKED_AGAIN);
    assert!(court.gone(asked(10, [])).is_empty());
    assert_eq!(court.gone(asked(15, [])), ALL);
}

#[test]
fn what_only_hides_is_not_believed_for_a_day_however_often_it_is_said() {
    let nobody = TokenId::default();
    let restarted = |said: Said| Said { index: 12, ..said };
    let denied = |said: Said| Said {
        token: nobody,
        ..said
    };
    let unfiltered = |said: Said| Said {
        filtered: false,
        ..said
    };
    let cases: [(Said, fn(Said) -> Said, &str); 4] = [
        (said(ALL), restarted, "as if the server had lost its data"),
        (
            Said {
                token: nobody,
                ..said(ALL)
            },
            |said| Said {
                token: TokenId::default(),
                ..said
            },
            "no ACL token was sent",
        ),
        (
            said(ALL),
            |said| Said {
                filtered: true,
                ..said
            },
            "ACLs hide",
        ),
        (
            Said {
                filtered: true,
                ..said(ALL)
            },
            unfiltered,
            "ACLs hide",
        ),
    ];
    for (before, change, why) in cases {
        let mut court = Court::after(before);
        for n in 0..20 {
            assert!(court.gone(change(asked(n * 5, []))).is_empty());
            court.assert_told(why);
        }
        assert!(ALL.iter().all(|name| court.doubts.keep(name)));
    }
    // Without ACLs nobody needs a token.
    let open = |said: Said| Said {
        default_deny: false,
        ..denied(said)
    };
    let mut court = Court::after(open(said(ALL)));
    assert!(court.gone(open(asked(0, []))).is_empty());
    assert_eq!(court.gone(open(asked(5, []))), ALL);
}

#[test]
fn answers_that_agree_for_long_end_a_doubt() {
    let minutes = |count: u64| count * 60;
    let cases: [fn(Said) -> Said; 3] = [
        |said| Said {
            filtered: true,
            ..said
        },
        |said| Said {
            token: token("two"),
            ..said
        },
        |said| Said { index: 99, ..said },
    ];
    for change in cases {
        let some = |at| change(asked(at, ["api"]));
        let mut court = Court::after(said(ALL));
        assert!(court.gone(some(0)).is_empty());
        court.assert_told("when all answers of 10 minutes have said so");
        // Somebody else's word, and one of nobody, are no agreement.
        let other = Said {
            token: token("three"),
            ..asked(minutes(5), ["api"])
        };
        assert!(court.gone(other).is_empty());
        assert!(court.gone(some(minutes(6))).is_empty());
        let nobodys = Said {
            known_leader: false,
            ..some(minutes(20))
        };
        assert!(court.gone(nobodys).is_empty());
        assert!(court.gone(some(minutes(16) - 1)).is_empty());
        // Only an answer in consistent mode settles it.
        let polled = Said {
            asked: false,
            ..some(minutes(17))
        };
        assert!(court.gone(polled).is_empty());
        assert_eq!(court.gone(some(minutes(18))), ["db", "web"]);
        assert_eq!(court.doubts.told("consul"), None);

        let none = |at| change(asked(at, []));
        let mut court = Court::after(said(ALL));
        assert!(court.gone(none(0)).is_empty());
        court.assert_told("when all answers of 1440 minutes have said so");
        assert!(court.gone(none(minutes(1440) - 1)).is_empty());
        assert_eq!(court.gone(none(minutes(1440))), ALL);
    }
    let mut court = Court::after(Said {
        token: TokenId::default(),
        ..said(ALL)
    });
    for at in [0, minutes(10_000)] {
        let nobody = Said {
            token: TokenId::default(),
            ..asked(at, [])
        };
        assert!(court.gone(nobody).is_empty());
    }
}

#[test]
fn a_gateway_that_never_saw_a_service_doubts_nothing() {
    let mut court = Court::after(said([]));
    assert!(
        court
            .gone(Said {
                index: 5,
                ..said([])
            })
            .is_empty()
    );
    assert_eq!(court.doubts.told("consul"), None);
}

#[test]
fn names_are_told_escaped_and_only_a_few() {
    let mut court = Court::after(said(["a", "b\n\u{1b}[31m", "c", "d", "e"]));
    assert!(
        court
            .gone(Said {
                known_leader: false,
                ..said([])
            })
            .is_empty()
    );
    court.assert_told(r#"("a", "b\n\u{1b}[31m", "c", …)"#);
}
