//! Chains that are shown again, and what makes them be verified again.

use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::CertificateError;

use super::*;
use crate::tls::test_certs::{Ca, DAY};

/// Counts how often it is asked, and finds everything good but what it is told to refuse.
#[derive(Debug, Default)]
struct Counting {
    asked: AtomicUsize,
    refuses: bool,
}

impl ServerCertVerifier for Counting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match self.refuses {
            true => Err(CertificateError::UnknownIssuer.into()),
            false => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        unreachable!()
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        unreachable!()
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Vec::new()
    }
}

struct Desk {
    counting: Arc<Counting>,
    known: Known,
}

impl Desk {
    fn new(refuses: bool) -> Self {
        let counting = Arc::new(Counting {
            refuses,
            ..Counting::default()
        });
        let known = Known::new(Arc::clone(&counting) as Arc<dyn ServerCertVerifier>);
        Self { counting, known }
    }

    /// Shows a chain; tells how often the verifier has been asked by then.
    fn show(&self, chain: &[CertificateDer<'_>], name: &str, now: UnixTime) -> usize {
        let name = ServerName::try_from(name).unwrap();
        let verified = self
            .known
            .verify_server_cert(&chain[0], &chain[1..], &name, &[], now);
        assert_eq!(verified.is_err(), self.counting.refuses);
        self.counting.asked.load(Ordering::Relaxed)
    }
}

/// A leaf of an intermediate, and the intermediate.
fn chain(names: &[&str]) -> Vec<CertificateDer<'static>> {
    let root = Ca::new("root");
    let issued = root.below("intermediate").issue(names);
    issued.chain[..2].to_vec()
}

fn later(now: UnixTime, by: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + by)
}

#[test]
fn a_chain_that_is_shown_again_is_not_verified_again() {
    let (desk, chain, now) = (Desk::new(false), chain(&["a.example"]), UnixTime::now());
    for _ in 0..3 {
        assert_eq!(desk.show(&chain, "a.example", now), 1);
    }
    assert_eq!(desk.show(&chain, "a.example", later(now, DAY)), 1);
}

#[test]
fn another_leaf_chain_or_name_is_verified() {
    let (desk, shown, now) = (Desk::new(false), chain(&["a.example"]), UnixTime::now());
    assert_eq!(desk.show(&shown, "a.example", now), 1);
    assert_eq!(desk.show(&shown, "b.example", now), 2, "another name");
    assert_eq!(desk.show(&shown[..1], "b.example", now), 3, "half a chain");
    let others = chain(&["b.example"]);
    let mixed = [shown[0].clone(), others[1].clone()];
    assert_eq!(desk.show(&mixed, "b.example", now), 4, "another issuer");
    assert_eq!(desk.show(&others, "b.example", now), 5, "another leaf");
    assert_eq!(desk.show(&others, "b.example", now), 5);
}

#[test]
fn a_chain_is_verified_again_once_it_has_ended_and_where_the_clock_was_put_back() {
    let (desk, chain, now) = (Desk::new(false), chain(&["a.example"]), UnixTime::now());
    assert_eq!(desk.show(&chain, "a.example", now), 1);
    let before = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() - 1));
    assert_eq!(desk.show(&chain, "a.example", before), 2);
    // The leaf is good for 90 days.
    assert_eq!(desk.show(&chain, "a.example", later(now, 89 * DAY)), 2);
    assert_eq!(desk.show(&chain, "a.example", later(now, 91 * DAY)), 3);
}

#[test]
fn a_chain_that_is_too_large_is_verified_each_time() {
    let (desk, mut chain, now) = (Desk::new(false), chain(&["a.example"]), UnixTime::now());
    let count = LARGEST / chain[1].len() + 1;
    chain.extend(vec![chain[1].clone(); count]);
    assert_eq!(desk.show(&chain, "a.example", now), 1);
    assert_eq!(desk.show(&chain, "a.example", now), 2);
}

#[test]
fn the_first_certificate_of_a_chain_to_end_ends_it() {
    let (long, short) = (chain(&["a.example"]), chain(&["a.example"]));
    let now = UnixTime::now();
    let name = ServerName::try_from("a.example").unwrap();
    // A CA here outlives its leaves: in the wrong place, a leaf is what ends first.
    let with_leaf = Chain::new(&long[1], &short[..1], &name, now).unwrap();
    let without = Chain::new(&long[1], &short[1..], &name, now).unwrap();
    assert!(with_leaf.until < without.until);
}

#[test]
fn a_refusal_is_not_remembered() {
    let (desk, chain, now) = (Desk::new(true), chain(&["a.example"]), UnixTime::now());
    assert_eq!(desk.show(&chain, "a.example", now), 1);
    assert_eq!(desk.show(&chain, "a.example", now), 2);
}

#[test]
fn so_many_chains_are_remembered_and_no_more() {
    let (desk, chain, now) = (Desk::new(false), chain(&["a.example"]), UnixTime::now());
    let name = ServerName::try_from("a.example").unwrap();
    let remembered = || desk.known.chains.lock().unwrap().len();
    for number in 0..MOST {
        let leaf = CertificateDer::from(number.to_be_bytes().to_vec());
        let chain = Chain::new(&chain[0], &chain[1..], &name, now).unwrap();
        desk.known.chains.lock().unwrap().insert(leaf, chain);
    }
    assert_eq!(remembered(), MOST);
    desk.show(&chain, "a.example", now);
    assert_eq!(remembered(), 1);
}
