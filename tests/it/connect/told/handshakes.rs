//! What goes wrong in the handshake with a gateway.

use rcgen::CertificateParams;
use rustls::version::TLS13;

use super::Book;
use crate::authority::{Authority, Issued};
use crate::connect::failures::answering;
use crate::connect::stalls::{Then, cut};
use crate::connect::{TARGET, gate};
use crate::upstream::{Upstream, echo};

pub(super) async fn tell(book: &Book) {
    let authority = Authority::new();
    for (what, answer) in [
        (
            "it answers in HTTP",
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        ),
        ("it answers in SSH", b"SSH-2.0-OpenSSH_9.9\r\n"),
        (
            "it answers in something else",
            b"220 mail.example.test ESMTP\r\n",
        ),
        ("it closes", b""),
        ("no common version", &[21, 3, 3, 0, 2, 2, 70]),
        ("other protocols only", &[21, 3, 3, 0, 2, 2, 120]),
        ("its route is broken", &[21, 3, 3, 0, 2, 2, 80]),
    ] {
        let gate = answering(answer).await;
        book.tell(what, &authority, gate.address, &[TARGET]);
    }
    for (what, then) in [
        ("it resets", Then::Reset),
        ("it says nothing", Then::Silence),
    ] {
        let gate = cut(&authority, &TLS13, 0, then).await;
        let patience = ["--timeout", "2s", TARGET];
        book.tell(what, &authority, gate.address, &patience);
    }

    let other = Authority::new();
    let namesake = gate(&other, echo).await;
    book.tell(
        "a CA of the same name",
        &authority,
        namesake.address,
        &[TARGET],
    );
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed([TARGET.to_owned()]).unwrap();
    let of_nobody = Issued {
        certificate: cert,
        key: signing_key,
    };
    let of_nobody = Upstream::tls(of_nobody.server(&[&TLS13]), echo).await;
    book.tell("another CA", &authority, of_nobody.address, &[TARGET]);
    for (what, from, until, name) in [
        ("its time is over", 2000, 2001, TARGET),
        ("its time has not come", 2999, 3000, TARGET),
        ("another name", 2000, 2999, "gate.example.test"),
    ] {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let gate = Upstream::tls(authority.sign(params).server(&[&TLS13]), echo).await;
        book.tell(what, &authority, gate.address, &[TARGET]);
    }
}
