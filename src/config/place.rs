//! Where in the file a piece of a string was typed: from the decoded text back through TOML's escapes.

use std::ops::Range;

/// The bytes of `text` from which the bytes `inner` of a decoded string came.
///
/// `value` is where the string stands in `text`, quotes included. An empty range stays a point;
/// one past the end points at the closing quotes. Never leaves `value`.
pub(super) fn within(text: &str, value: &Range<usize>, inner: &Range<usize>) -> Range<usize> {
    let raw = text.get(value.clone()).unwrap_or_default();
    let (characters, closing) = characters(raw);
    let mut decoded = 0;
    let mut start = None;
    let mut end = None;
    for (character, place) in characters {
        let next = decoded + character.len_utf8();
        if start.is_none() && inner.start < next {
            start = Some(place.start);
        }
        if inner.end > decoded {
            end = Some(place.end);
        }
        decoded = next;
    }
    let start = start.unwrap_or(closing);
    let end = match end {
        Some(end) if inner.end > inner.start => end.max(start),
        _ => start,
    };
    value.start + start..value.start + end
}

/// The characters a TOML string stands for (TOML 1.1, "String"), each with the bytes it was typed as,
/// and where the closing quotes begin. Text that is no string at all stands for itself.
fn characters(raw: &str) -> (Vec<(char, Range<usize>)>, usize) {
    let (quotes, escapes) = match raw.as_bytes() {
        [b'"', b'"', b'"', .., b'"', b'"', b'"'] => (3, true),
        [b'\'', b'\'', b'\'', .., b'\'', b'\'', b'\''] => (3, false),
        [b'"', .., b'"'] => (1, true),
        [b'\'', .., b'\''] => (1, false),
        _ => (0, false),
    };
    let closing = raw.len() - quotes;
    let mut rest = raw.get(quotes..closing).unwrap_or_default();
    if quotes == 3 {
        // The newline right after the opening quotes is not part of the string.
        rest = rest
            .strip_prefix('\n')
            .or_else(|| rest.strip_prefix("\r\n"))
            .unwrap_or(rest);
    }
    let mut found = Vec::new();
    while let Some(first) = rest.chars().next() {
        let at = closing - rest.len();
        let (character, length) = match first {
            '\\' if escapes => escape(rest),
            other => (Some(other), other.len_utf8()),
        };
        if let Some(character) = character {
            found.push((character, at..at + length));
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    (found, closing)
}

/// The character that an escape at the start of `text` stands for, and how long it is as typed.
/// A backslash at the end of a line stands for nothing and swallows the white space after it.
fn escape(text: &str) -> (Option<char>, usize) {
    let simple = |character| (Some(character), 2);
    let hexadecimal = |digits: usize| {
        let value = text
            .get(2..2 + digits)
            .and_then(|hex| u32::from_str_radix(hex, 16).ok());
        match value.and_then(char::from_u32) {
            Some(character) => (Some(character), 2 + digits),
            None => (Some(char::REPLACEMENT_CHARACTER), 2),
        }
    };
    match text.as_bytes().get(1) {
        Some(b'b') => simple('\u{8}'),
        Some(b'e') => simple('\u{1b}'),
        Some(b'f') => simple('\u{c}'),
        Some(b'n') => simple('\n'),
        Some(b'r') => simple('\r'),
        Some(b't') => simple('\t'),
        Some(b'"') => simple('"'),
        Some(b'\\') => simple('\\'),
        Some(b'x') => hexadecimal(2),
        Some(b'u') => hexadecimal(4),
        Some(b'U') => hexadecimal(8),
        Some(b' ' | b'\t' | b'\r' | b'\n') => {
            let after = text.get(1..).unwrap_or_default();
            let kept = after.trim_start_matches([' ', '\t', '\r', '\n']);
            (None, text.len() - kept.len())
        }
        _ => (Some('\\'), 1),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use toml::de::{DeTable, DeValue};

    /// What the caret would stand under, for the decoded bytes `inner` of the only value in `text`.
    fn under(text: &str, inner: Range<usize>) -> &str {
        let table = DeTable::parse(text).unwrap();
        let value = table.get_ref().get("key").unwrap();
        &text[within(text, &value.span(), &inner)]
    }

    #[test]
    fn a_literal_string_is_itself() {
        assert_eq!(under("key = 'abc'", 1..2), "b");
    }

    #[test]
    fn an_escape_is_shown_as_it_was_typed() {
        assert_eq!(under(r#"key = "a\"b\u0041c""#, 1..2), "\\\"");
        assert_eq!(under(r#"key = "a\"b\u0041c""#, 3..4), "\\u0041");
        assert_eq!(under(r#"key = "a\x41\e\U0001F600z""#, 1..2), "\\x41");
        assert_eq!(under(r#"key = "a\x41\e\U0001F600z""#, 2..3), "\\e");
        assert_eq!(under(r#"key = "a\x41\e\U0001F600z""#, 3..7), "\\U0001F600");
        assert_eq!(under(r#"key = "a\x41\e\U0001F600z""#, 7..8), "z");
    }

    #[test]
    fn the_first_newline_of_a_multi_line_string_is_skipped() {
        assert_eq!(under("key = '''\nabc\nd'''", 0..1), "a");
        assert_eq!(under("key = '''\r\nabc\nd'''", 4..5), "d");
        assert_eq!(under("key = \"\"\"\nab\"\"\"", 1..2), "b");
    }

    #[test]
    fn a_backslash_at_the_end_of_a_line_is_skipped_with_what_follows() {
        assert_eq!(under("key = \"\"\"a \\\n   \n  bc\"\"\"", 2..3), "b");
        assert_eq!(under("key = \"\"\"a\\  \r\n  bc\"\"\"", 1..3), "bc");
    }

    #[test]
    fn quotes_before_the_closing_quotes_belong_to_the_string() {
        assert_eq!(under("key = \"\"\"a\"\"\"\"\"", 1..3), "\"\"");
        assert_eq!(under("key = ''''a''''", 0..1), "'");
    }

    #[test]
    fn the_end_of_the_string_is_its_closing_quote() {
        let text = r#"key = "ab""#;
        assert_eq!(within(text, &(6..10), &(2..2)), 9..9);
        assert_eq!(within(text, &(6..10), &(7..9)), 9..9);
    }

    /// Pieces of which every kind of string can be made, escapes and line ends among them.
    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            "[a-z`(|&. ]{1,4}",
            "[äß€😀]",
            Just("\\\"".to_owned()),
            Just("\\\\".to_owned()),
            Just("\\n\\t\\r\\b\\f\\e".to_owned()),
            Just("\\x4a".to_owned()),
            Just("\\u00e9".to_owned()),
            Just("\\U0001F600".to_owned()),
            Just("\\\n  \t\r\n  ".to_owned()),
            Just("\\ \t\n".to_owned()),
            Just("\n".to_owned()),
            Just("\r\n".to_owned()),
            Just("\"".to_owned()),
            Just("'".to_owned()),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_characters_found_are_those_that_toml_decodes(
            body in pieces(),
            quotes in prop_oneof![Just("\""), Just("'"), Just("\"\"\""), Just("'''")],
        ) {
            let text = format!("key = {quotes}{body}{quotes}\n");
            if let Ok(table) = DeTable::parse(&text) {
                let value = table.get_ref().get("key").unwrap();
                let DeValue::String(decoded) = value.get_ref() else { panic!("not a string") };
                let (found, closing) = characters(&text[value.span()]);
                let mine: String = found.iter().map(|(character, _)| character).collect();
                prop_assert_eq!(&mine, decoded.as_ref());
                let mut last = 0;
                for (_, place) in &found {
                    prop_assert!(last <= place.start && place.start < place.end);
                    last = place.end;
                }
                prop_assert!(last <= closing);
            }
        }

        #[test]
        fn every_place_is_inside_the_value(raw in ".{0,20}", start in 0usize..30, length in 0usize..30) {
            let found = within(&raw, &(0..raw.len()), &(start..start + length));
            prop_assert!(found.start <= found.end && found.end <= raw.len());
            prop_assert!(raw.get(found).is_some());
        }
    }
}
