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

/// Bytes as printable ASCII: everything else becomes an escape as in a Rust literal (`\n`, `\x1b`), and what is longer than
/// 255 bytes ends in `...`. Quotes command nothing: where they end something, as in JSON, its writer escapes them.
pub(crate) fn escape(bytes: impl AsRef<[u8]>) -> String {
    let bytes = bytes.as_ref();
    let shown = bytes.get(..SHOWN).unwrap_or(bytes);
    let mut text = String::with_capacity(shown.len());
    for byte in shown {
        match byte {
            b'\'' | b'"' => text.push(char::from(*byte)),
            _ => text.extend(byte.escape_ascii().map(char::from)),
        }
    }
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
pub(super) mod tests;
