//! What comes instead of a hello: other protocols, garbage, silence, and hellos that nobody should send.

use std::process::Command;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::hello_bytes::{
    self as hello, DECODE_ERROR, HANDSHAKE, PROTOCOL_VERSION, UNEXPECTED_MESSAGE,
    UNRECOGNIZED_NAME, framed, record,
};
use crate::peers;
use crate::scene::Scene;
use crate::support::run;

/// What each is refused with is rustls's own answer to bytes that are no TLS.
#[tokio::test]
async fn what_is_not_tls_is_refused_with_an_alert_and_one_record() {
    let mut scene = Scene::with("").await;
    let rdp = b"\x03\x00\x00\x2f\x2a\xe0\x00\x00\x00\x00\x00Cookie: mstshash=admin\r\n\x01\x00\x08\x00\x03\x00\x00\x00";
    let sslv2 = b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10\x01\x00\x80\x00\x00\x2f\x00\x00\x0a\x07\xc0\x00\x00\x05\
        0123456789abcdef";
    let inputs: &[(&str, &[u8])] = &[
        ("HTTP", b"GET / HTTP/1.1\r\nHost: open.example.test\r\n\r\n"),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("ssh", b"SSH-2.0-OpenSSH_9.9\r\n"),
        (
            "PROXY protocol 1",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 443\r\n",
        ),
        (
            "PROXY protocol 2",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x12\x34\x01\xbb",
        ),
        ("RDP", rdp),
        ("SSLv2", sslv2),
        ("zeros", &[0; 300]),
        ("line ends", b"\r\n\r\n\r\n"),
        ("an alert first", &UNRECOGNIZED_NAME),
        ("a change of cipher first", b"\x14\x03\x03\x00\x01\x01"),
        ("application data first", b"\x17\x03\x03\x00\x05hello"),
    ];
    for (what, bytes) in inputs {
        scene.refuses(what, bytes, &DECODE_ERROR, "not_tls").await;
        let and_a_hello = [bytes, &framed(&hello::named("open.example.test"), &[])[..]].concat();
        scene
            .refuses(what, &and_a_hello, &DECODE_ERROR, "not_tls")
            .await;
    }
}

#[tokio::test]
async fn garbage_is_refused_and_reaches_nothing() {
    let mut scene = Scene::with("").await;
    let mut runner = TestRunner::deterministic();
    let bytes = proptest::collection::vec(any::<u8>(), 5..600);
    // Half of it begins like a handshake of TLS.
    let strategy = (any::<bool>(), bytes).prop_map(|(begins_well, mut bytes)| {
        if begins_well {
            bytes[..3].copy_from_slice(&[HANDSHAKE, 3, 1]);
        }
        bytes
    });
    for _ in 0..40 {
        let bytes = strategy.new_tree(&mut runner).unwrap().current();
        let told = scene.tell_all(&bytes).await;
        let reason = told.record["reason"].as_str().unwrap();
        // What claims to be longer than it is was cut off by the client's end.
        assert!(
            ["not_tls", "bad_hello", "client_gone"].contains(&reason),
            "{}",
            told.record
        );
        assert!(
            told.answer.is_empty() == (reason == "client_gone"),
            "{}",
            told.record
        );
        assert_eq!(scene.dials(), 0);
    }
}

#[tokio::test]
async fn a_client_of_tls_1_1_or_older_is_told_so() {
    let mut scene = Scene::with("").await;
    for name in ["open.example.test", "pass.example.test"] {
        for version in [0x0300, 0x0301, 0x0302] {
            for extensions in [&[][..], &[hello::server_name(&[(0, name.as_bytes())])]] {
                let bytes = framed(&hello::message(version, extensions), &[]);
                scene
                    .refuses("old", &bytes, &PROTOCOL_VERSION, "bad_hello")
                    .await;
            }
        }
    }
    // One that knows of TLS 1.2's extension, and not of TLS 1.2.
    let mut extensions = hello::tls12();
    extensions.push(hello::server_name(&[(0, b"open.example.test")]));
    let told = scene
        .tell(&framed(&hello::message(0x0302, &extensions), &[]))
        .await;
    assert_eq!(told.answer, PROTOCOL_VERSION);
    assert_eq!(told.record["reason"], "handshake_failed");
    assert_eq!(told.record["route"], "open");
    assert_eq!(scene.dials(), 0);
}

#[tokio::test]
async fn silence_and_half_a_hello_end_at_the_deadline() {
    let mut scene = Scene::with("limits.handshake_timeout = \"200ms\"").await;
    let whole = framed(&hello::named("open.example.test"), &[]);
    for length in [0, 1, 4, 5, 6, whole.len() - 1] {
        let told = scene.tell(&whole[..length]).await;
        assert_eq!(told.answer, b"", "{length}");
        assert_eq!(told.record["reason"], "hello_timeout", "{length}");
        assert_eq!(told.record["fault"], "client");
    }
    let told = scene.tell(&whole).await;
    assert_eq!(told.record["reason"], "handshake_timeout");
    assert_eq!(told.record["route"], "open");
    assert_eq!(scene.dials(), 0);
}

/// CVE-2026-22045 and GHSA-89p3-4642-cr2w of Traefik: a way in without a deadline.
#[tokio::test]
async fn a_hello_that_only_drips_in_ends_at_the_same_deadline() {
    let mut scene = Scene::with("limits.handshake_timeout = \"200ms\"").await;
    let mut extensions = hello::tls13();
    extensions.push(hello::alpn(&["acme-tls/1"]));
    extensions.push(hello::padding(60_000));
    let whole = framed(&hello::message(0x0303, &extensions), &[]);
    let (mut reader, mut writer) = scene.gateway.connect().await.into_split();
    let drip = tokio::spawn(async move {
        // At this pace it would take a minute.
        let mut pace = tokio::time::interval(std::time::Duration::from_millis(1));
        for byte in whole {
            pace.tick().await;
            if writer.write_all(&[byte]).await.is_err() {
                break;
            }
        }
    });
    let _ = reader.read_to_end(&mut Vec::new()).await;
    assert_eq!(scene.gateway.ended().await["reason"], "hello_timeout");
    drip.abort();
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_hello_leaves_one_record() {
    let mut scene = Scene::with("").await;
    let whole = framed(&hello::named("open.example.test"), &[]);
    for length in [0, 1, 5, 100] {
        let told = scene.tell_all(&whole[..length]).await;
        assert_eq!((told.answer.as_slice(), told.reset), (&b""[..], false));
        assert_eq!(told.record["reason"], "client_gone", "{length}");

        let mut tcp = scene.gateway.connect().await;
        tcp.write_all(&whole[..length]).await.unwrap();
        socket2::SockRef::from(&tcp)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
        drop(tcp);
        assert_eq!(
            scene.gateway.ended().await["reason"],
            "client_gone",
            "{length}"
        );
    }
    assert!(scene.gateway.has_no_more_records());
}

#[tokio::test]
async fn a_client_that_ends_its_side_after_the_hello_still_gets_its_answer() {
    let mut scene = Scene::with("").await;
    let told = scene
        .tell_all(&framed(&hello::named("nobody.example.test"), &[]))
        .await;
    assert_eq!(
        (told.answer.as_slice(), told.reset),
        (&UNRECOGNIZED_NAME[..], false)
    );

    let hello = framed(&hello::named("pass.example.test"), &[]);
    let told = scene.tell_all(&hello).await;
    assert!(
        told.answer == hello,
        "the upstream gets the hello and its end"
    );
    assert_eq!(told.record["reason"], "closed");

    let told = scene
        .tell_all(&framed(&hello::named("open.example.test"), &[]))
        .await;
    assert_eq!(told.answer[..3], [HANDSHAKE, 3, 3]);
    assert_eq!(told.record["reason"], "handshake_failed");
    assert_eq!(scene.dials(), 1);
}

/// Traefik's pull request 12638: how long a record may be was not limited.
#[tokio::test]
async fn records_that_no_hello_comes_in_are_refused() {
    let mut scene = Scene::with("").await;
    let message = hello::named("open.example.test");
    let (first, second) = message.split_at(20);
    let first = record(HANDSHAKE, first);
    let with = |between: &[u8]| [&first[..], between, &record(HANDSHAKE, second)].concat();
    // RFC 8446 §5.1: a handshake in no bytes, records of another kind between those of one message, too long a record.
    for (what, bytes, alert) in [
        ("an empty record", framed(&message, &[0]), DECODE_ERROR),
        (
            "an empty record within",
            with(&[HANDSHAKE, 3, 1, 0, 0]),
            DECODE_ERROR,
        ),
        (
            "empty data within",
            with(&record(23, b"")),
            UNEXPECTED_MESSAGE,
        ),
        (
            "data within",
            with(&record(23, b"data")),
            UNEXPECTED_MESSAGE,
        ),
        (
            "an alert within",
            with(&record(21, &[1, 0])),
            UNEXPECTED_MESSAGE,
        ),
        (
            "a change of cipher within",
            with(&record(20, &[1])),
            UNEXPECTED_MESSAGE,
        ),
        (
            "a long record",
            vec![HANDSHAKE, 3, 1, 0xff, 0xff],
            DECODE_ERROR,
        ),
        (
            "a longer record than any",
            vec![HANDSHAKE, 3, 1, 0x48, 0x01],
            DECODE_ERROR,
        ),
        (
            "no version of TLS",
            [&[HANDSHAKE, 9, 9], &framed(&message, &[])[3..]].concat(),
            DECODE_ERROR,
        ),
        (
            "a server's hello",
            record(HANDSHAKE, &[&[2], &message[1..]].concat()),
            DECODE_ERROR,
        ),
        (
            "a finished",
            record(HANDSHAKE, &[20, 0, 0, 1, 0]),
            UNEXPECTED_MESSAGE,
        ),
        (
            "an empty hello",
            record(HANDSHAKE, &[1, 0, 0, 0]),
            DECODE_ERROR,
        ),
        (
            "a hello and another message",
            record(HANDSHAKE, &[&message[..], &[20, 0, 0, 0]].concat()),
            UNEXPECTED_MESSAGE,
        ),
    ] {
        scene.refuses(what, &bytes, &alert, "bad_hello").await;
    }
}

#[tokio::test]
async fn a_hello_is_taken_up_to_64_kib_and_not_a_byte_beyond() {
    let mut scene = Scene::with("").await;
    let padded = |length: usize| {
        let mut extensions = hello::tls13();
        extensions.push(hello::server_name(&[(0, b"pass.example.test")]));
        extensions.push(hello::padding(0));
        let bare = hello::message(0x0303, &extensions).len();
        extensions.pop();
        extensions.push(hello::padding(length - bare));
        hello::message(0x0303, &extensions)
    };
    // Four records: with their headers 65,535 bytes, the most that fits.
    let largest = framed(&padded(65_515), &[]);
    assert_eq!(largest.len(), 65_535);
    // A record longer than RFC 8446 §5.1 allows: rustls takes it, and so it has a route like any other.
    let long_record = record(HANDSHAKE, &padded((1 << 14) + 1));
    for bytes in [largest, long_record] {
        let told = scene.tell_all(&bytes).await;
        assert!(told.answer == bytes, "{}", told.record);
        assert_eq!(told.record["route"], "pass");
    }
    for (what, bytes) in [
        ("one more", framed(&padded(65_516), &[])),
        (
            "twice as many in small records",
            framed(&padded(65_515), &[1; 30_000]),
        ),
        ("16 MiB", record(HANDSHAKE, &[1, 0xff, 0xff, 0xff])),
        ("64 KiB and one", record(HANDSHAKE, &[1, 1, 0, 0])),
    ] {
        scene
            .refuses(what, &bytes, &DECODE_ERROR, "hello_too_large")
            .await;
    }
}

#[tokio::test]
async fn the_limit_of_a_hello_can_be_set() {
    let mut scene = Scene::with("limits.max_hello = \"4KiB\"").await;
    let mut extensions = hello::tls13();
    extensions.push(hello::padding(4096));
    let bytes = framed(&hello::message(0x0303, &extensions), &[]);
    scene
        .refuses("too large", &bytes, &DECODE_ERROR, "hello_too_large")
        .await;
}

#[tokio::test]
async fn what_is_sent_after_a_refusal_is_neither_kept_nor_read_for_ever() {
    let mut scene = Scene::with("").await;
    let (mut reader, mut writer) = scene.gateway.connect().await.into_split();
    let flood = tokio::spawn(async move {
        let chunk = [0; 64 * 1024];
        let mut sent = record(HANDSHAKE, &[1, 0xff, 0xff, 0xff]).len();
        let _ = writer
            .write_all(&record(HANDSHAKE, &[1, 0xff, 0xff, 0xff]))
            .await;
        while let Ok(count) = writer.write(&chunk).await {
            sent += count;
        }
        sent
    });
    let mut answer = [0; 7];
    reader.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, DECODE_ERROR);
    let sent = flood.await.unwrap();
    // What the gateway has thrown away, and what both kernels hold.
    assert!(sent < 32 << 20, "{sent}");
    assert_eq!(scene.gateway.ended().await["reason"], "hello_too_large");
    assert!(scene.gateway.has_no_more_records());
}

/// What a person sees who runs an old program.
#[tokio::test]
async fn openssl_says_that_its_version_is_refused() {
    let Some(openssl) = peers::require("openssl", "openssl") else {
        return;
    };
    let mut scene = Scene::with("").await;
    for version in ["-tls1", "-tls1_1"] {
        let mut command = Command::new(&openssl);
        command
            .args(["s_client", version, "-cipher", "DEFAULT@SECLEVEL=0"])
            .args(["-servername", "open.example.test", "-connect"])
            .arg(scene.gateway.address.to_string());
        let said = tokio::task::spawn_blocking(move || run(&command, b""))
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.contains("alert protocol version"), "{said}");
        assert_eq!(scene.gateway.ended().await["reason"], "bad_hello");
    }
}
