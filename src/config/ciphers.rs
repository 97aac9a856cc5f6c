//! A list of cipher suites, in OpenSSL's words: what of it serves, and what of it brings nothing.

use std::ops::RangeInclusive;

use super::decode::Typed;
use super::diagnostic::Findings;
use super::value::suggest;
use crate::tls::ciphers::{Ciphers, Unused, Why, names};
use crate::tls::options::Version;

/// What a list means where these versions are allowed; `None` if it is broken, which is reported.
pub(super) fn mean(
    typed: &Typed<String>,
    versions: RangeInclusive<Version>,
    findings: &mut Findings<'_>,
) -> Option<Ciphers> {
    let Typed { key, span, .. } = typed;
    let ciphers = list(typed, findings)?;
    if versions.contains(&Version::Tls12) && !ciphers.has_tls12() {
        findings.error(
            span.clone(),
            format!("`{key}` names no suite of TLS 1.2 that is built in, and TLS 1.2 is allowed"),
            "allow TLS 1.3 alone with `min_version = \"1.3\"`, or add suites such as ECDHE-ECDSA-AES256-GCM-SHA384",
        );
        return None;
    }
    if versions.contains(&Version::Tls13) && !ciphers.has_tls13() {
        findings.error(
            span.clone(),
            format!("`{key}` forbids every suite of TLS 1.3, and TLS 1.3 is allowed"),
            "allow TLS 1.2 alone with `max_version = \"1.2\"`, or leave it one of its suites",
        );
        return None;
    }
    if !versions.contains(&Version::Tls12) && ciphers.leaves_tls13() {
        findings.warning(
            Some(span.clone()),
            format!("`{key}` names suites of TLS 1.2 alone, which is not allowed: it changes nothing"),
            "remove it, or name suites of TLS 1.3: TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256",
        );
    }
    Some(ciphers)
}

/// What a list means where its suites decide on the versions: one of which it leaves none is not offered.
pub(super) fn list(typed: &Typed<String>, findings: &mut Findings<'_>) -> Option<Ciphers> {
    let Typed { key, value, span } = typed;
    let (ciphers, unused) = Ciphers::parse(value);
    let shown = value.escape_debug();
    if let Some(fatal) = unused.iter().find(|group| group.why.is_fatal()) {
        findings.error(
            span.clone(),
            format!("`{key}`: \"{shown}\" is not understood: {}", in_words(fatal)),
            "take it out; `:` stands between the parts: \"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384\"",
        );
        return None;
    }
    if ciphers.is_empty() {
        let why = match &unused[..] {
            [] => String::new(),
            unused => {
                let groups: Vec<_> = unused.iter().map(in_words).collect();
                format!(": {}", groups.join("; "))
            }
        };
        findings.error(
            span.clone(),
            format!("`{key}`: \"{shown}\" leaves no cipher suite{why}"),
            "leave `ciphers` out for all that are built in (AEAD with forward secrecy alone), or list some of them: \
             \"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384\"",
        );
        return None;
    }
    for group in &unused {
        findings.warning(
            Some(span.clone()),
            format!("`{key}`: not used: {}", in_words(group)),
            help(group),
        );
    }
    Some(ciphers)
}

fn in_words(group: &Unused) -> String {
    let parts = group
        .parts
        .iter()
        .map(|part| part.escape_debug().to_string());
    let parts: Vec<_> = parts.collect();
    format!("{} ({})", parts.join(", "), group.why.as_str())
}

fn help(group: &Unused) -> String {
    let known: Vec<_> = names().collect();
    let meant = group.parts.iter().find_map(|part| suggest(part, &known));
    match meant.filter(|_| group.why == Why::Unknown) {
        Some(meant) => format!("did you mean {meant}?"),
        None => "remove it from the list: the rest is used as it stands".to_owned(),
    }
}
