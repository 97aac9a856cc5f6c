//! One line of the access log, as JSON for machines and as text for people; what strangers sent is escaped in both.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::{Client, Record};
use crate::reason::Reason;

/// How many bytes of one value a line shows: the longest name DNS has (RFC 1035 §2.3.4), and the longest ALPN (RFC 7301 §3.1).
const SHOWN: usize = 255;

/// A record, and what was not written before it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) record: Record,
    /// Refusals that were only counted since the last line.
    pub(super) suppressed: u64,
    /// Lines that were lost since the last one.
    pub(super) dropped: u64,
}

impl Line {
    /// Appends one JSON object and a newline. Every key is always there, `null` where nothing is known, so that columns are
    /// stable; but for those of PROXY headers, and of users, which only some have.
    pub(super) fn json(&self, out: &mut String) {
        let record = &self.record;
        let object = Object {
            time: timestamp(record.time),
            client: record.client.to_string(),
            uid: record.client.uid(),
            peer: record.peer.map(|peer| peer.to_string()),
            unique_id: record.unique_id.as_deref().map(name),
            listener: record.listener.to_string(),
            sni: record.sni.as_deref().map(escape),
            alpn: record.alpn.as_deref().map(escape),
            tls: record.tls,
            route: record.route.as_deref().map(escape),
            upstream: record.upstream.as_deref().map(escape),
            endpoint: record.endpoint.map(|endpoint| endpoint.to_string()),
            bytes_up: record.bytes_up,
            bytes_down: record.bytes_down,
            hello_ms: record.hello_time.map(milliseconds),
            handshake_ms: record.handshake_time.map(milliseconds),
            dial_ms: record.dial_time.map(milliseconds),
            duration_ms: milliseconds(record.duration),
            reason: record.reason.as_str(),
            fault: record.reason.fault().as_str(),
            detail: record.detail.as_deref().map(escape),
            suppressed: self.suppressed,
            dropped: self.dropped,
        };
        // Strings and numbers alone cannot fail to become JSON.
        if let Ok(object) = serde_json::to_string(&object) {
            out.push_str(&object);
            out.push('\n');
        }
    }

    /// Appends one readable line and a newline.
    pub(super) fn text(&self, out: &mut String) {
        let record = &self.record;
        let sni = record
            .sni
            .as_deref()
            .map_or_else(|| "(no name)".to_owned(), escape);
        // Writing into a String does not fail.
        let _ = write!(out, "{} {}", timestamp(record.time), record.client);
        if let Client::Unix(uid) = record.client {
            let _ = write!(out, " (user {uid})");
        }
        if let Some(peer) = record.peer {
            let _ = write!(out, " via {peer}");
        }
        // Nobody names a host on a UNIX socket.
        if record.client.address().is_some() || record.sni.is_some() {
            let _ = write!(out, " {sni}");
        }
        if let Some(route) = &record.route {
            let _ = write!(out, " -> {}", escape(&**route));
        }
        if let Some(endpoint) = record.endpoint {
            let _ = write!(out, " -> {endpoint}");
        }
        if record.endpoint.is_some() {
            let _ = write!(
                out,
                ", up {}, down {}",
                size(record.bytes_up),
                size(record.bytes_down)
            );
        }
        let _ = write!(out, ", {}", span(record.duration));
        if record.reason != Reason::Closed {
            let _ = write!(out, ", {}", record.reason);
            if let Some(detail) = &record.detail {
                let _ = write!(out, ": {}", escape(detail));
            }
        }
        if self.suppressed > 0 {
            let _ = write!(
                out,
                " (suppressed: {} refusals before this line)",
                self.suppressed
            );
        }
        if self.dropped > 0 {
            let _ = write!(out, " (dropped: {} lines before this one)", self.dropped);
        }
        out.push('\n');
    }
}

/// The columns of the JSON form, in their order.
#[derive(Serialize)]
struct Object {
    time: String,
    client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unique_id: Option<String>,
    listener: String,
    sni: Option<String>,
    alpn: Option<String>,
    tls: Option<&'static str>,
    route: Option<String>,
    upstream: Option<String>,
    endpoint: Option<String>,
    bytes_up: u64,
    bytes_down: u64,
    hello_ms: Option<f64>,
    handshake_ms: Option<f64>,
    dial_ms: Option<f64>,
    duration_ms: f64,
    reason: &'static str,
    fault: &'static str,
    detail: Option<String>,
    suppressed: u64,
    dropped: u64,
}

/// Bytes as printable ASCII: everything else, quotes and backslashes become escapes as in a Rust literal
/// (`\n`, `\"`, `\x1b`), and what is longer than 255 bytes ends in `...`.
pub(crate) fn escape(bytes: impl AsRef<[u8]>) -> String {
    let bytes = bytes.as_ref();
    let shown = bytes.get(..SHOWN).unwrap_or(bytes);
    let mut text = shown.escape_ascii().to_string();
    if shown.len() < bytes.len() {
        text.push_str("...");
    }
    text
}

/// What a connection is called: as text, as HAProxy's IDs are, or in hexadecimal digits.
fn name(id: &[u8]) -> String {
    if id.iter().all(u8::is_ascii_graphic) {
        return escape(id);
    }
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Text in one line of visible characters, of at most so many bytes of it: for a page or a message of its own, where quotes
/// and backslashes end nothing and stay as they are.
pub(crate) fn printable(text: impl AsRef<[u8]>, most: usize) -> String {
    let text = text.as_ref();
    let cut = text.get(..most).filter(|cut| cut.len() < text.len());
    let shown = String::from_utf8_lossy(cut.unwrap_or(text));
    let mut line = String::new();
    for character in shown.trim().chars() {
        match character {
            '"' | '\'' | '\\' => line.push(character),
            _ => line.extend(character.escape_debug()),
        }
    }
    if cut.is_some() {
        line.push('…');
    }
    line
}

/// RFC 3339, UTC, in milliseconds.
fn timestamp(time: SystemTime) -> String {
    format!("{:.3}", jiff::Timestamp::try_from(time).unwrap_or_default())
}

/// Milliseconds with microseconds as their fraction.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// A number of bytes for people.
fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = "KiB";
    for next in ["MiB", "GiB", "TiB", "PiB"] {
        // What would be shown as 1024.0 belongs to the next unit.
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// A length of time for people.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{seconds}.{} s", duration.subsec_millis() / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
pub(super) mod tests {
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
        let part =
            r#""client":"192.0.2.7:50123","peer":"10.0.0.1:4711","unique_id":"ab00","listener""#;
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
            text.contains(r#"\x1b]0;owned\x07\n\"quoted\"\xe2\x80\xae\xc2\x9b2J"#),
            "{text}"
        );
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
}
