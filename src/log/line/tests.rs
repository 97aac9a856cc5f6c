//! How lines look, and that nothing a stranger sends makes them look otherwise.

use proptest::prelude::*;

use super::*;
use crate::config::ListenAddress;

/// A tunnel that ran well.
pub(in crate::log) fn record() -> Record {
    Record {
        time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        client: Client::Tcp("192.0.2.7:50123".parse().unwrap()),
        peer: None,
        unique_id: None,
        listener: ListenAddress::Tcp("[::]:8443".parse().unwrap()),
        sni: Some("ssh.vm.example.com".into()),
        alpn: Some(b"h2".to_vec()),
        tls: Some("1.3"),
        route: Some("vm".into()),
        upstream: Some("vms".into()),
        endpoint: Some("10.0.0.5:22".parse().unwrap()),
        bytes_up: 1234,
        bytes_down: 5 * 1024 * 1024,
        hello_time: Some(Duration::from_micros(1500)),
        handshake_time: Some(Duration::from_millis(2)),
        dial_time: Some(Duration::from_micros(300)),
        duration: Duration::from_millis(12_345),
        reason: Reason::Closed,
        detail: None,
    }
}

fn line(record: Record) -> Line {
    Line {
        record,
        suppressed: 0,
        dropped: 0,
    }
}

fn json(record: Record) -> String {
    let mut out = String::new();
    line(record).json(&mut out);
    out
}

fn text(record: Record) -> String {
    let mut out = String::new();
    line(record).text(&mut out);
    out
}

#[test]
fn json_has_every_key_in_one_order_and_null_for_what_is_unknown() {
    assert_eq!(
        json(record()),
        concat!(
            r#"{"time":"2023-11-14T22:13:20.123Z","client":"192.0.2.7:50123","listener":"[::]:8443","#,
            r#""sni":"ssh.vm.example.com","alpn":"h2","tls":"1.3","route":"vm","upstream":"vms","#,
            r#""endpoint":"10.0.0.5:22","bytes_up":1234,"bytes_down":5242880,"hello_ms":1.5,"#,
            r#""handshake_ms":2.0,"dial_ms":0.3,"duration_ms":12345.0,"reason":"closed","fault":"none","#,
            r#""detail":null,"suppressed":0,"dropped":0}"#,
            "\n"
        )
    );
}

#[test]
fn text_tells_a_person_who_went_where_and_how_much() {
    assert_eq!(
        text(record()),
        "2023-11-14T22:13:20.123Z 192.0.2.7:50123 ssh.vm.example.com -> vm -> 10.0.0.5:22, \
         up 1.2 KiB, down 5.0 MiB, 12.3 s\n"
    );
}

#[test]
fn both_forms_tell_whose_header_named_the_client_and_what_the_connection_is_called() {
    let proxied = Record {
        peer: Some("10.0.0.1:4711".parse().unwrap()),
        unique_id: Some(vec![0xab, 0x00].into()),
        ..record()
    };
    let line = json(proxied.clone());
    let part = r#""client":"192.0.2.7:50123","peer":"10.0.0.1:4711","unique_id":"ab00","listener""#;
    assert!(line.contains(part), "{line}");
    let line = text(proxied);
    let part = " 192.0.2.7:50123 via 10.0.0.1:4711 ssh.vm.example.com -> ";
    assert!(line.contains(part), "{line}");
    assert_eq!(name(b"req-7"), "req-7");
}

#[test]
fn both_forms_tell_the_user_who_connects_to_a_unix_socket_and_no_address() {
    let local = Record {
        client: Client::Unix(1000),
        listener: ListenAddress::Unix("/run/x.sock".into()),
        sni: None,
        ..record()
    };
    let line = json(local.clone());
    let part = r#""client":"unix","uid":1000,"listener":"unix:/run/x.sock","sni":null,"#;
    assert!(line.contains(part), "{line}");
    let line = text(local);
    assert!(line.contains("Z unix (user 1000) -> vm -> "), "{line}");
}

#[test]
fn text_tells_the_reason_and_its_detail_unless_all_went_well() {
    let refused = Record {
        sni: None,
        route: None,
        endpoint: None,
        duration: Duration::from_millis(7),
        reason: Reason::NotTls,
        detail: Some("the first byte was 0x53".into()),
        ..record()
    };
    assert_eq!(
        text(refused),
        "2023-11-14T22:13:20.123Z 192.0.2.7:50123 (no name), 7 ms, not_tls: the first byte was 0x53\n"
    );
}

#[test]
fn both_forms_tell_what_was_not_written() {
    let line = Line {
        suppressed: 41,
        dropped: 2,
        ..line(record())
    };
    let (mut json, mut text) = (String::new(), String::new());
    line.json(&mut json);
    line.text(&mut text);
    assert!(
        json.ends_with("\"suppressed\":41,\"dropped\":2}\n"),
        "{json}"
    );
    assert!(
        text.contains("suppressed: 41") && text.contains("dropped: 2"),
        "{text}"
    );
}

#[test]
fn a_page_shows_quotes_as_they_are_and_nothing_that_cannot_be_seen() {
    let strange = " consul's \"a\\b\"\n\u{1b}[2J\u{202e}é ";
    let shown = "consul's \"a\\b\"\\n\\u{1b}[2J\\u{202e}é";
    assert_eq!(printable(strange, 100), shown);
    assert_eq!(printable(b"\xff", 100), "\u{fffd}");
    assert_eq!(printable("abc", 3), "abc");
    assert_eq!(printable("abcd", 3), "abc…");
}

#[test]
fn a_terminal_escape_in_a_name_reaches_no_terminal() {
    let name = "\u{1b}]0;owned\u{7}\n\"quoted\"\u{202e}\u{9b}2J".to_owned();
    let text = text(Record {
        sni: Some(name),
        ..record()
    });
    assert!(
        text.contains(r#"\x1b]0;owned\x07\n"quoted"\xe2\x80\xae\xc2\x9b2J"#),
        "{text}"
    );
}

#[test]
fn words_of_our_own_stand_in_both_forms_as_they_were_said() {
    let detail = r#"tls: the peer's certificate is not for "a", but for `b`"#;
    let refused = Record {
        reason: Reason::UpstreamIdentity,
        detail: Some(detail.to_owned()),
        ..record()
    };
    let line = json(refused.clone());
    assert!(
        line.contains(r#"the peer's certificate is not for \"a\","#),
        "{line}"
    );
    let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(parsed["detail"], detail);
    let line = text(refused);
    assert!(line.ends_with(&format!("{detail}\n")), "{line}");
}

#[test]
fn what_looks_like_an_escape_is_told_from_one() {
    assert_eq!(escape(b"\x1b"), r"\x1b");
    assert_eq!(escape(br"\x1b"), r"\\x1b");
}

#[test]
fn a_long_value_is_cut_and_says_so() {
    assert_eq!(escape("a".repeat(255)), "a".repeat(255));
    assert_eq!(escape("a".repeat(256)), format!("{}...", "a".repeat(255)));
}

#[test]
fn sizes_and_spans_read_well_at_their_edges() {
    assert_eq!(size(1023), "1023 B");
    assert_eq!(size(1024), "1.0 KiB");
    assert_eq!(size(1024 * 1024 - 1), "1.0 MiB");
    assert_eq!(size(u64::MAX), "16384.0 PiB");
    assert_eq!(span(Duration::from_millis(999)), "999 ms");
    assert_eq!(span(Duration::from_millis(59_999)), "59.9 s");
    assert_eq!(span(Duration::from_secs(3599)), "59 min 59 s");
    assert_eq!(span(Duration::from_secs(90_061)), "25 h 1 min");
}

proptest! {
    #[test]
    fn whatever_a_stranger_sends_a_line_is_one_line_of_printable_ascii(
        sni in proptest::option::of("(?s).{0,300}"),
        alpn in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
        detail in proptest::option::of("(?s).{0,300}"),
    ) {
        let strange = Record {
            sni,
            alpn,
            detail,
            reason: Reason::BadHello,
            ..record()
        };
        let json = json(strange.clone());
        for line in [&json, &text(strange.clone())] {
            let (last, rest) = line.as_bytes().split_last().unwrap();
            prop_assert_eq!(*last, b'\n');
            prop_assert!(rest.iter().all(|byte| (b' '..=b'~').contains(byte)), "{}", line);
        }
        let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(&parsed["sni"], &serde_json::json!(strange.sni.map(escape)));
        prop_assert_eq!(&parsed["alpn"], &serde_json::json!(strange.alpn.map(escape)));
        prop_assert_eq!(&parsed["detail"], &serde_json::json!(strange.detail.map(escape)));
    }
}
