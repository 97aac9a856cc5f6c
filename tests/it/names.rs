//! Names as clients write them, and what is no name: each reaches the route of that name, or nothing.

use crate::hello_bytes::{
    self as hello, DECODE_ERROR, Extension, HANDSHAKE, ILLEGAL_PARAMETER, UNRECOGNIZED_NAME, framed,
};
use crate::scene::Scene;

fn with_names(names: &[(u8, &[u8])]) -> Vec<u8> {
    let mut extensions = hello::tls13();
    extensions.push(hello::server_name(names));
    framed(&hello::message(0x0303, &extensions), &[])
}

#[tokio::test]
async fn every_spelling_of_a_name_reaches_the_route_of_that_name() {
    let mut scene = Scene::with("").await;
    let longest_label = format!("{}.wild.example.test", "a".repeat(63));
    for (name, route) in [
        ("open.example.test", "open"),
        ("OPEN.EXAMPLE.TEST", "open"),
        ("oPeN.eXaMpLe.TeSt", "open"),
        ("open.example.test.", "open"),
        ("Open.Example.Test.", "open"),
        ("PASS.example.test.", "pass"),
        ("mutual.example.test.", "mutual"),
        ("a.wild.example.test", "wild"),
        ("A.WILD.example.test.", "wild"),
        ("under_score.wild.example.test", "wild"),
        ("xn--bcher-kva.wild.example.test", "wild"),
        ("9.wild.example.test", "wild"),
        (&longest_label, "wild"),
    ] {
        let told = scene.tell_all(&framed(&hello::named(name), &[])).await;
        assert_eq!(told.record["route"], route, "{name}: {}", told.record);
    }
}

#[tokio::test]
async fn a_name_that_no_route_takes_is_refused_as_unknown() {
    let mut scene = Scene::with("").await;
    let longest = format!("{}.test", ["a".repeat(61).as_str(); 4].join("."));
    assert_eq!(longest.len(), 252);
    for name in [
        "nobody.example.test",
        "example.test",
        "wild.example.test",
        "a.b.wild.example.test",
        "xopen.example.test",
        "open.example.test.evil.test",
        "open.example.tes",
        "localhost",
        &format!("a{longest}"),
        &format!("{longest}."),
    ] {
        let bytes = framed(&hello::named(name), &[]);
        scene
            .refuses(name, &bytes, &UNRECOGNIZED_NAME, "unknown_name")
            .await;
    }
}

#[tokio::test]
async fn what_is_no_host_name_is_refused_before_any_look_up() {
    let mut scene = Scene::with("").await;
    let label = format!("{}.wild.example.test", "a".repeat(64));
    let long = |length: usize| {
        let labels = vec!["a".repeat(61); 5].join(".");
        let text = format!("{labels}.wild.example.test");
        text[text.len() - length..].to_owned()
    };
    for name in [
        "open.example.test..",
        ".",
        "..",
        ".open.example.test",
        ".wild.example.test",
        "open..example.test",
        "-open.wild.example.test",
        "open-.wild.example.test",
        "*.wild.example.test",
        "*",
        "a*.wild.example.test",
        "bücher.wild.example.test",
        "open.example.test\0",
        "open.example.test\0.evil.test",
        "a\0.wild.example.test",
        "open.example.test ",
        " open.example.test",
        "a b.wild.example.test",
        "open.example.test\n",
        "\x1b[2J.wild.example.test",
        "open.example.test:8443",
        "https://open.example.test",
        "open/../mutual.wild.example.test",
        "[::1]",
        "127.0.0.1.",
        "1.2.3",
        "a.wild.example.0x7f",
        &label,
        // Without its dot it would be as long as a name may be.
        &format!("{}.", long(253)),
        &long(254),
        &long(255),
        &long(256),
        &long(300),
        &"a".repeat(5000),
    ] {
        let bytes = framed(&hello::named(name), &[]);
        scene
            .refuses(name, &bytes, &ILLEGAL_PARAMETER, "bad_hello")
            .await;
    }
    // Not even text.
    let bytes = framed(&hello::named(b"\xff\xfe.wild.example.test"), &[]);
    scene
        .refuses("bytes", &bytes, &ILLEGAL_PARAMETER, "bad_hello")
        .await;
}

#[tokio::test]
async fn a_hello_with_no_name_or_an_address_for_one_is_refused() {
    let mut scene = Scene::with("").await;
    let none = framed(&hello::message(0x0303, &hello::tls13()), &[]);
    scene
        .refuses("none", &none, &UNRECOGNIZED_NAME, "no_name")
        .await;
    for address in ["127.0.0.1", "::1", "2001:db8::1", "::ffff:127.0.0.1"] {
        let bytes = framed(&hello::named(address), &[]);
        scene
            .refuses(address, &bytes, &UNRECOGNIZED_NAME, "no_name")
            .await;
    }
}

#[tokio::test]
async fn a_list_of_names_holds_one() {
    let mut scene = Scene::with("").await;
    let (open, mutual) = (&b"open.example.test"[..], &b"mutual.example.test"[..]);
    let raw = |data: &[u8]| {
        let mut extensions = hello::tls13();
        extensions.push(Extension(0, data.to_vec()));
        framed(&hello::message(0x0303, &extensions), &[])
    };
    let twice = {
        let mut extensions = hello::tls13();
        extensions.push(hello::server_name(&[(0, open)]));
        extensions.push(hello::server_name(&[(0, mutual)]));
        framed(&hello::message(0x0303, &extensions), &[])
    };
    for (what, bytes, alert) in [
        (
            "two names",
            with_names(&[(0, open), (0, mutual)]),
            DECODE_ERROR,
        ),
        (
            "one name twice",
            with_names(&[(0, open), (0, open)]),
            DECODE_ERROR,
        ),
        (
            "an unknown kind first",
            with_names(&[(1, mutual), (0, open)]),
            ILLEGAL_PARAMETER,
        ),
        (
            "an unknown kind alone",
            with_names(&[(9, open)]),
            ILLEGAL_PARAMETER,
        ),
        ("an empty list", with_names(&[]), DECODE_ERROR),
        ("an empty name", with_names(&[(0, b"")]), DECODE_ERROR),
        ("no list", raw(b""), DECODE_ERROR),
        (
            "a list longer than it is",
            raw(b"\0\x20\0\0\x04open"),
            DECODE_ERROR,
        ),
        (
            "bytes behind the list",
            raw(b"\0\x07\0\0\x04openx"),
            DECODE_ERROR,
        ),
        ("the extension twice", twice, DECODE_ERROR),
    ] {
        scene.refuses(what, &bytes, &alert, "bad_hello").await;
    }
    // What comes behind a name and is no name says nothing (RFC 6066 §3 knows no other kind).
    let told = scene.tell_all(&with_names(&[(0, open), (9, mutual)])).await;
    assert_eq!(told.record["route"], "open");
}

#[tokio::test]
async fn grease_and_encrypted_hellos_are_routed_by_the_name_in_the_clear() {
    let mut scene = Scene::with("").await;
    // RFC 8701 §3.1; and a hello within, which none but its server could read (RFC 9849 §5).
    let mut extensions = vec![Extension(0x0a0a, vec![])];
    extensions.extend(hello::tls13());
    extensions.push(hello::server_name(&[(0, b"mutual.example.test")]));
    extensions.push(hello::alpn(&[&b"\x1a\x1a"[..]]));
    let within = [
        &[0, 0, 1, 0, 1, 42, 0, 32][..],
        &[5; 32],
        &[0, 144],
        &[6; 144],
    ]
    .concat();
    extensions.push(Extension(0xfe0d, within));
    extensions.push(Extension(0xfafa, vec![0]));
    let told = scene
        .tell_all(&framed(&hello::message(0x0303, &extensions), &[]))
        .await;
    assert_eq!(told.answer[..3], [HANDSHAKE, 3, 3]);
    assert_eq!(told.record["route"], "mutual");
    assert_eq!(told.record["alpn"], r"\x1a\x1a", "escaped");
}

/// CVE-2020-8660 of Envoy: the name was not seen in a hello of TLS 1.3 alone.
#[tokio::test]
async fn every_version_a_hello_offers_leads_to_the_same_route() {
    let mut scene = Scene::with("").await;
    let only13 = {
        let mut extensions = hello::tls13();
        extensions.retain(|extension| extension.0 != 43);
        extensions.push(Extension(43, vec![2, 3, 4]));
        extensions
    };
    for mut extensions in [hello::tls12(), hello::tls13(), only13] {
        extensions.insert(0, hello::server_name(&[(0, b"mutual.example.test")]));
        let told = scene
            .tell_all(&framed(&hello::message(0x0303, &extensions), &[]))
            .await;
        assert_eq!(told.record["route"], "mutual");
        assert_eq!(told.answer[..3], [HANDSHAKE, 3, 3]);
    }
}
