//! An answer of an agent: what it holds, and what its headers say of how far it can be believed.

use std::time::Duration;

use hyper::HeaderMap;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};

use super::error;
use super::{Api, Error, TokenId};

/// What an agent answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// The answer itself.
    pub value: T,
    /// Its state's number (`X-Consul-Index`, `X-Nomad-Index`), at least 1: a blocking query with 0 would not block.
    pub index: u64,
    /// Whether the server that answered knew a leader (`X-Consul-KnownLeader`, `X-Nomad-KnownLeader`). Unsaid is no.
    pub known_leader: bool,
    /// How long the server that answered had not heard of its leader (`X-Consul-LastContact`, `X-Nomad-LastContact`), with millisecond precision:
    /// the answer may be as old. Unsaid is not at all, as a leader says.
    pub last_contact: Duration,
    /// Whether a server may have given it that is not the leader (`X-Consul-Effective-Consistency: stale`), though the question did
    /// not allow it: the agent may be configured so (`discovery_max_stale`). Nomad does not say.
    pub stale: bool,
    /// Whether something was left out that the token may not see (`X-Consul-Results-Filtered-By-ACLs`). Nomad
    /// does not say.
    pub filtered: bool,
    /// Whether what no policy allows is denied (`X-Consul-Default-ACL-Policy: deny`). Nomad does not say, and asks
    /// for a token where it has ACLs.
    pub default_deny: bool,
    /// As whom it was asked.
    pub token: TokenId,
}

/// How old an answer may be that any server may give.
///
/// 10 s: with the timings of Consul and Nomad a new leader is elected in less, so that an election stops nothing; and what has
/// come and gone while a server was cut off for longer than that must not look like today's.
const MOST_STALE: Duration = Duration::from_secs(10);

impl<T> Answer<T> {
    /// The answer, if it is not too old for one that any server may have given.
    ///
    /// # Errors
    /// The server that answered has not heard of its leader for more than 10 s.
    pub fn fresh(self) -> Result<Self, Error> {
        match self.last_contact > MOST_STALE {
            true => Err(Error::Stale {
                by: self.last_contact,
                most: MOST_STALE,
            }),
            false => Ok(self),
        }
    }

    /// The same answer, made into something else.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Answer<U> {
        Answer {
            value: make(self.value),
            index: self.index,
            known_leader: self.known_leader,
            last_contact: self.last_contact,
            stale: self.stale,
            filtered: self.filtered,
            default_deny: self.default_deny,
            token: self.token,
        }
    }
}

impl Answer<()> {
    /// What the headers say.
    pub(super) fn read(api: Api, headers: &HeaderMap, token: TokenId) -> Self {
        let (index, known_leader, last_contact) = match api {
            Api::Consul => (
                "x-consul-index",
                "x-consul-knownleader",
                "x-consul-lastcontact",
            ),
            Api::Nomad => (
                "x-nomad-index",
                "x-nomad-knownleader",
                "x-nomad-lastcontact",
            ),
        };
        let is = |name: &str, value: &str| {
            let found = headers.get(name);
            found.is_some_and(|found| found.as_bytes().eq_ignore_ascii_case(value.as_bytes()))
        };
        let number = |name: &str| headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
        Self {
            value: (),
            index: number(index).unwrap_or(0).max(1),
            known_leader: is(known_leader, "true"),
            last_contact: Duration::from_millis(number(last_contact).unwrap_or(0)),
            stale: is("x-consul-effective-consistency", "stale"),
            filtered: is("x-consul-results-filtered-by-acls", "true"),
            default_deny: is("x-consul-default-acl-policy", "deny"),
            token,
        }
    }
}

/// Reads a `null`, which Go writes for an empty list or map, as the default; for `#[serde(default, deserialize_with =
/// "null_is_default")]`, so that a missing field is the same.
pub fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    let value = Option::deserialize(deserializer)?;
    Ok(value.unwrap_or_default())
}

/// As many values an answer may hold: what is made of the smallest of them takes many times its bytes.
///
/// 2,500,000: as many as stand in 64 MiB of Consul's instances with their checks.
const MOST_VALUES: usize = 2_500_000;

/// Reads JSON; otherwise what is wrong with it, and where. Bytes that are no UTF-8 spoil the text that they stand in, and no
/// other: one tag of one service must not keep the whole answer from being read.
pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    if body.iter().filter(|byte| **byte == b',').count() > MOST_VALUES {
        return Err(format!("more than {MOST_VALUES} values"));
    }
    let text = String::from_utf8_lossy(body);
    serde_json::from_str(&text).map_err(|error| masked(&error.to_string()))
}

/// A message of serde without the strings that it quotes: one of them may be a private key.
fn masked(message: &str) -> String {
    let mut shown = String::new();
    let mut quoted = false;
    let mut characters = message.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                quoted = !quoted;
                if quoted {
                    shown.push('…');
                }
            }
            // What is escaped inside quotes does not end them.
            '\\' if quoted => drop(characters.next()),
            _ if quoted => {}
            _ => shown.push(character),
        }
    }
    error::shown(shown)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        id: String,
        #[serde(default, deserialize_with = "null_is_default")]
        tags: Vec<String>,
        #[serde(default, deserialize_with = "null_is_default")]
        meta: BTreeMap<String, String>,
    }

    #[test]
    fn null_and_nothing_are_empty() {
        let empty = Entry {
            id: "a".to_owned(),
            tags: Vec::new(),
            meta: BTreeMap::new(),
        };
        for json in [
            r#"{"ID":"x","Id":"a","Tags":null,"Meta":null}"#,
            r#"{"Id":"a"}"#,
            r#"{"Id":"a","Tags":[],"Meta":{},"Unknown":{"deep":[1]}}"#,
        ] {
            assert_eq!(decode::<Entry>(json.as_bytes()).unwrap(), empty, "{json}");
        }
        let full: Entry = decode(br#"{"Id":"a","Tags":["t"],"Meta":{"k":"v"}}"#).unwrap();
        assert_eq!(full.tags, ["t"]);
    }

    #[test]
    fn json_of_another_shape_is_told_by_its_place_and_never_by_its_strings() {
        let wrong = |json: &str| decode::<Entry>(json.as_bytes()).unwrap_err();
        assert_eq!(wrong("{}"), "missing field `Id` at line 1 column 2");
        let secret = r#"{"Id":"a","Tags":"-----BEGIN \"PRIVATE\" KEY-----\nMHc"}"#;
        assert_eq!(
            wrong(secret),
            "invalid type: string …, expected a sequence at line 1 column 55"
        );
        assert!(wrong("{\"Id\":\"a").contains("EOF"));
        assert!(decode::<Entry>(b"\xff\xfe").is_err());
        let other: Entry = decode(b"{\"Id\":\"a\",\"Tags\":[\"t\xff\",\"u\"]}").unwrap();
        assert_eq!(other.tags, ["t\u{fffd}", "u"]);
        assert!(decode::<Entry>("[".repeat(100_000).as_bytes()).is_err());
        let many = format!("[{}0]", "0,".repeat(MOST_VALUES + 1));
        let error = decode::<serde::de::IgnoredAny>(many.as_bytes()).unwrap_err();
        assert_eq!(error, "more than 2500000 values");
    }

    #[test]
    fn what_the_headers_do_not_say_is_not_assumed() {
        let answer = Answer::read(Api::Consul, &HeaderMap::new(), TokenId::default());
        assert_eq!(answer.index, 1);
        assert!(!answer.known_leader && !answer.filtered && !answer.default_deny);
        assert!(!answer.stale);
        assert_eq!(answer.last_contact, Duration::ZERO);
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("X-Consul-Index", "0"),
            ("X-Consul-KnownLeader", "true"),
            ("X-Consul-LastContact", "1500"),
            ("X-Consul-Effective-Consistency", "stale"),
            ("X-Consul-Results-Filtered-By-ACLs", "true"),
            ("X-Consul-Default-ACL-Policy", "deny"),
        ] {
            let name = hyper::header::HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.insert(name, value.parse().unwrap());
        }
        let answer = Answer::read(Api::Consul, &headers, TokenId::default());
        assert_eq!(answer.index, 1);
        assert!(answer.known_leader && answer.filtered && answer.default_deny && answer.stale);
        assert_eq!(answer.last_contact, Duration::from_millis(1500));
        for strange in ["-1", "18446744073709551616", "1e3", ""] {
            headers.insert("x-consul-index", strange.parse().unwrap());
            assert_eq!(
                Answer::read(Api::Consul, &headers, TokenId::default()).index,
                1
            );
        }
    }
}
