//! The least HTTP that asks an agent something, over TCP, TLS or a UNIX socket.

use std::io::{self, Read, Write};

use serde_json::Value;

/// What the agent has answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The status line and the header fields.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The body as JSON; null if there is none. Panics if it is something else.
    pub(crate) fn json(&self) -> Value {
        if self.body.trim().is_empty() {
            return Value::Null;
        }
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Asks on a new connection, with a token in this header, and reads the answer to its end.
pub(crate) fn exchange(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    token: Option<(&str, &str)>,
    body: &str,
) -> io::Result<Answer> {
    let token = token.map(|(header, token)| format!("{header}: {token}\r\n"));
    // In HTTP/1.0 the answer comes in one piece and ends where the connection does.
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\n{}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        token.unwrap_or_default(),
        body.len(),
    );
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let parsed = answer.split_once("\r\n\r\n").and_then(|(head, body)| {
        Some(Answer {
            status: head.split(' ').nth(1)?.parse().ok()?,
            head: head.to_owned(),
            body: body.to_owned(),
        })
    });
    parsed.ok_or_else(|| io::Error::other(format!("no HTTP: {answer:?}")))
}
