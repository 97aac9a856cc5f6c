//! What is kept and what is said, news by news.

use super::*;
use crate::tls::mesh::PemText;
use crate::tls::test_certs::{Ca, DAY};

const HOUR: Duration = Duration::from_secs(3600);

/// A CA of the mesh `one.consul`, and what it lists and issues.
struct Mesh {
    domain: &'static str,
    ca: Ca,
}

impl Mesh {
    fn new(domain: &'static str) -> Self {
        Self {
            domain,
            ca: Ca::new("mesh"),
        }
    }

    fn trust(&self) -> Heard {
        self.trust_with(&[])
    }

    /// With the roots of others.
    fn trust_with(&self, others: &[&Mesh]) -> Heard {
        let mut roots = RootCertStore::empty();
        for mesh in [&[self][..], others].concat() {
            roots.extend(mesh.ca.roots().roots.iter().cloned());
        }
        Heard::Trust(Ok(Trust {
            domain: self.domain.to_owned(),
            roots: Arc::new(roots),
            text: Arc::default(),
        }))
    }

    /// Valid from an hour ago for a day.
    fn leaf(&self) -> Leaf {
        let now = SystemTime::now();
        self.leaf_of(now - HOUR, now - HOUR + DAY)
    }

    fn leaf_of(&self, not_before: SystemTime, not_after: SystemTime) -> Leaf {
        let mut request = self.ca.request(&[]);
        let domain = self.domain;
        request.uris = vec![format!("spiffe://{domain}/ns/default/dc/dc1/svc/edge")];
        request.not_before = not_before;
        request.not_after = not_after;
        let issued = request.issue();
        let text = |text| PemText { source: "", text };
        Leaf::from_pem(text(&issued.chain_pem), text(&issued.key_pem)).unwrap()
    }
}

fn leaf(leaf: &Leaf) -> Heard {
    Heard::Leaf(Ok(leaf.clone()))
}

fn keeper() -> Keeper {
    Keeper::new("edge".to_owned(), None)
}

/// The text of a state that is not simply ready.
fn told(state: State) -> String {
    match state {
        State::Ready | State::Noted(_) => "ready".to_owned(),
        State::Degraded(text) => format!("degraded: {text}"),
        State::NotReady(text) => format!("not ready: {text}"),
    }
}

impl Keeper {
    fn hears(&mut self, heard: Heard) -> Option<Arc<Identity>> {
        self.hear(heard, SystemTime::now())
    }

    fn says(&self) -> String {
        told(self.state(SystemTime::now()))
    }
}

/// Whether it is this leaf among as many roots.
fn is(identity: &Identity, leaf: &Leaf, roots: usize) -> bool {
    identity.certificate.cert == leaf.certificate.cert && identity.roots.len() == roots
}

#[test]
fn there_is_an_identity_once_leaf_and_roots_are_there_whichever_comes_first() {
    let mesh = Mesh::new("one.consul");
    let own = mesh.leaf();
    let mut keeper = keeper();
    assert_eq!(keeper.says(), "not ready: no leaf for `edge` yet");
    assert!(keeper.hears(mesh.trust()).is_none());
    assert_eq!(keeper.says(), "not ready: no leaf for `edge` yet");
    let identity = keeper.hears(leaf(&own)).unwrap();
    assert!(is(&identity, &own, 1));
    assert_eq!(identity.id, own.id);
    assert_eq!(identity.not_after, own.not_after);
    assert_eq!(keeper.says(), "ready");

    let mut keeper = self::keeper();
    assert!(keeper.hears(leaf(&own)).is_none());
    assert_eq!(keeper.says(), "not ready: no roots yet");
    assert!(is(&keeper.hears(mesh.trust()).unwrap(), &own, 1));
}

#[test]
fn the_same_again_is_no_news() {
    let mesh = Mesh::new("one.consul");
    let own = mesh.leaf();
    let mut keeper = keeper();
    keeper.hears(mesh.trust());
    assert!(keeper.hears(leaf(&own)).is_some());
    assert!(keeper.hears(leaf(&own)).is_none());
    assert!(keeper.hears(mesh.trust()).is_none());
    assert!(keeper.hears(leaf(&mesh.leaf())).is_some());
}

#[test]
fn in_a_rotation_the_newest_of_both_are_taken_in_whichever_order_they_come() {
    let (old, new) = (Mesh::new("one.consul"), Mesh::new("one.consul"));
    let (before, after) = (old.leaf(), new.leaf());
    for roots_first in [true, false] {
        let mut keeper = keeper();
        keeper.hears(old.trust());
        keeper.hears(leaf(&before));
        let mut news = [new.trust_with(&[&old]), leaf(&after)];
        let half = match roots_first {
            true => (&before, 2),
            false => {
                news.reverse();
                (&after, 1)
            }
        };
        let [one, two] = news.map(|heard| keeper.hears(heard).unwrap());
        assert!(is(&one, half.0, half.1));
        assert!(is(&two, &after, 2));
        assert_eq!(keeper.says(), "ready");
    }
}

#[test]
fn a_leaf_and_roots_of_two_meshes_are_never_taken_together() {
    let (old, new) = (Mesh::new("one.consul"), Mesh::new("two.consul"));
    let (before, after) = (old.leaf(), new.leaf());
    for roots_first in [true, false] {
        let mut keeper = keeper();
        keeper.hears(old.trust());
        keeper.hears(leaf(&before));
        let mut news = [new.trust(), leaf(&after)];
        if !roots_first {
            news.reverse();
        }
        let [first, second] = news;
        assert!(keeper.hears(first).is_none());
        let said = keeper.says();
        assert!(
            said.starts_with("degraded: the leaf for `edge` is of the trust domain "),
            "{said}"
        );
        assert!(
            said.contains("one.consul") && said.contains("two.consul"),
            "{said}"
        );
        assert!(is(&keeper.hears(second).unwrap(), &after, 1));
        assert_eq!(keeper.says(), "ready");
    }
    let mut keeper = keeper();
    keeper.hears(old.trust());
    assert!(keeper.hears(leaf(&after)).is_none());
    let said = keeper.says();
    assert!(
        said.starts_with("not ready: the leaf for `edge` is of the trust domain two"),
        "{said}"
    );
}

#[test]
fn the_last_identity_of_a_former_mesh_is_kept_as_long_as_it_is_good() {
    let [zero, one, two] = ["zero.consul", "one.consul", "two.consul"].map(Mesh::new);
    let now = SystemTime::now();
    let mut keeper = keeper();
    let mut hears = |mesh: &Mesh, own: &Leaf, now| {
        keeper.hear(mesh.trust(), now);
        keeper.hear(leaf(own), now).unwrap()
    };
    assert!(hears(&zero, &zero.leaf(), now).former.is_none());
    let before = one.leaf();
    hears(&one, &before, now);
    for _ in 0..2 {
        let identity = hears(&two, &two.leaf(), now);
        let former = identity.former.as_ref().unwrap();
        assert!(is(former, &before, 1));
        assert!(former.former.is_none(), "of three nobody is asked");
    }
    let late = before.not_after;
    let last = two.leaf_of(late - HOUR, late + HOUR);
    assert!(hears(&two, &last, late).former.is_none());
}

#[test]
fn bad_news_leave_the_last_good_as_it_is_and_are_told() {
    let mesh = Mesh::new("one.consul");
    let own = mesh.leaf();
    let mut keeper = keeper();
    let no_leaf = || Heard::Leaf(Err("no answer".to_owned()));
    let no_roots = || Heard::Trust(Err("an empty list".to_owned()));
    assert!(keeper.hears(no_leaf()).is_none());
    assert_eq!(
        keeper.says(),
        "not ready: no leaf for `edge` yet: no answer"
    );
    keeper.hears(leaf(&own));
    keeper.hears(no_roots());
    assert_eq!(keeper.says(), "not ready: no roots yet: an empty list");
    assert!(keeper.hears(mesh.trust()).is_some());
    assert_eq!(keeper.says(), "ready");

    let end = written(own.not_after);
    assert!(keeper.hears(no_leaf()).is_none());
    assert_eq!(
        keeper.says(),
        format!("degraded: no new leaf for `edge`: no answer; the last good is valid until {end}")
    );
    assert!(keeper.hears(no_roots()).is_none());
    // As it was, and so no news.
    assert!(keeper.hears(leaf(&own)).is_none());
    assert_eq!(
        keeper.says(),
        format!("degraded: no new roots: an empty list; the last good is valid until {end}")
    );
    assert!(keeper.hears(mesh.trust()).is_none());
    assert_eq!(keeper.says(), "ready");
}

#[test]
fn an_expired_leaf_is_refused_and_a_good_one_that_expires_is_kept_and_told() {
    let mesh = Mesh::new("one.consul");
    let now = SystemTime::now();
    let past = mesh.leaf_of(now - DAY, now - HOUR);
    let mut keeper = keeper();
    keeper.hears(mesh.trust());
    assert!(keeper.hears(leaf(&past)).is_none());
    assert_eq!(
        keeper.says(),
        format!(
            "not ready: no leaf for `edge` yet: it had expired at {} when it came",
            written(past.not_after)
        )
    );

    let own = mesh.leaf_of(now, now + 10 * HOUR);
    assert!(keeper.hears(leaf(&own)).is_some());
    assert!(keeper.hears(leaf(&past)).is_none());
    assert!(
        keeper.says().starts_with("degraded: no new leaf"),
        "{}",
        keeper.says()
    );
    keeper.hears(leaf(&own));

    let at = |keeper: &Keeper, time| told(keeper.state(time));
    let end = written(own.not_after);
    let (begin, last) = (own.not_before, own.not_after);
    assert_eq!(at(&keeper, last - HOUR - Duration::from_secs(1)), "ready");
    let late = format!("degraded: the leaf for `edge` expires at {end}, and no other has come");
    assert_eq!(at(&keeper, last - HOUR), late);
    assert_eq!(
        at(&keeper, last),
        format!("degraded: the leaf for `edge` expired at {end}")
    );
    assert!(at(&keeper, begin - HOUR).contains("is this machine's clock right?"));
    keeper.hears(Heard::Leaf(Err("no answer".to_owned())));
    assert_eq!(
        at(&keeper, last - HOUR),
        format!("{late}; no new leaf for `edge`: no answer")
    );
    assert!(at(&keeper, last).ends_with("; no new leaf for `edge`: no answer"));
}

#[test]
fn it_is_known_when_the_state_changes_by_itself() {
    let mesh = Mesh::new("one.consul");
    // Certificates know whole seconds.
    let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let own = mesh.leaf_of(begin, begin + 10 * HOUR);
    let mut keeper = keeper();
    assert_eq!(keeper.next_change(begin), None);
    keeper.hear(mesh.trust(), begin);
    keeper.hear(leaf(&own), begin);
    for (after, left) in [
        (0, Some(9)),
        (8, Some(1)),
        (9, Some(1)),
        (10, None),
        (11, None),
    ] {
        let now = begin + HOUR * after;
        assert_eq!(
            keeper.next_change(now),
            left.map(|left| HOUR * left),
            "{after}"
        );
    }
    assert_eq!(keeper.next_change(begin - HOUR), Some(HOUR));
}

fn kept(mesh: &Mesh, leaf: &Leaf) -> Kept {
    let Heard::Trust(Ok(trust)) = mesh.trust() else {
        panic!("it trusts itself");
    };
    Kept {
        trust,
        leaf: leaf.clone(),
        confirmed: SystemTime::UNIX_EPOCH,
    }
}

#[test]
fn what_was_kept_serves_until_the_source_has_told_both_halves_and_says_so() {
    let mesh = Mesh::new("one.consul");
    let own = mesh.leaf();
    let now = SystemTime::now();
    let mut keeper = keeper();
    keeper.hears(Heard::Leaf(Err("no answer".to_owned())));
    let identity = keeper.restore(kept(&mesh, &own), now).unwrap().unwrap();
    assert!(is(&identity, &own, 1));
    let said = keeper.says();
    let disk =
        "degraded: the identity of `edge` is from the disk, as it was at 1970-01-01T00:00:00Z";
    assert!(
        said.starts_with(disk) && said.ends_with(": no answer"),
        "{said}"
    );
    assert!(keeper.confirmed().is_none(), "the disk confirms nothing");
    // The same again from the source is no news, and confirms it.
    assert!(keeper.hears(mesh.trust()).is_none());
    assert!(keeper.says().starts_with(disk));
    assert!(keeper.hears(leaf(&own)).is_none());
    assert_eq!(keeper.says(), "ready");
    assert!(keeper.confirmed().is_some());
    let later = keeper.restore(kept(&mesh, &mesh.leaf()), now).unwrap();
    assert!(later.is_none(), "nothing on the disk is newer");
}

#[test]
fn a_kept_leaf_that_has_expired_is_refused() {
    let mesh = Mesh::new("one.consul");
    let own = mesh.leaf();
    let mut keeper = keeper();
    let why = keeper
        .restore(kept(&mesh, &own), own.not_after)
        .unwrap_err();
    assert!(why.starts_with("the leaf on the disk expired at "), "{why}");
    assert_eq!(keeper.says(), "not ready: no leaf for `edge` yet");
}

#[test]
fn what_is_from_the_disk_is_withheld_when_it_is_too_old_or_expires_until_the_source_has_told() {
    let mesh = Mesh::new("one.consul");
    let own = mesh.leaf();
    let now = SystemTime::now();
    let too_old = || Err("it is too old".to_owned());
    let mut keeper = keeper();
    keeper.judge(too_old(), now);
    assert!(!keeper.is_refused(), "there is nothing to refuse");
    let restored = keeper.restore(kept(&mesh, &own), now).unwrap().unwrap();
    keeper.judge(Ok(()), now);
    assert!(keeper.has_one());
    keeper.judge(too_old(), now);
    assert!(!keeper.has_one() && keeper.is_refused());
    assert_eq!(keeper.says(), "not ready: it is too old");
    // The clock was set, or the bound.
    keeper.judge(Ok(()), now);
    assert!(Arc::ptr_eq(keeper.serving().unwrap(), &restored));
    keeper.judge(Ok(()), own.not_after);
    assert!(!keeper.has_one());
    let why = keeper.says();
    assert!(
        why.starts_with("not ready: the leaf on the disk expired at "),
        "{why}"
    );
    // The same as before is good by the word of its source.
    keeper.judge(too_old(), now);
    assert!(keeper.hears(mesh.trust()).is_none());
    keeper.judge(too_old(), now);
    assert!(!keeper.has_one(), "half of it");
    assert!(keeper.hears(leaf(&own)).is_none());
    keeper.judge(too_old(), now);
    assert!(keeper.has_one() && !keeper.is_refused());
    assert_eq!(keeper.says(), "ready");
}
