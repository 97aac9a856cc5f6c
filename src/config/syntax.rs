//! What is not TOML: the mistakes that its own reader finds, told without their echoes.

use toml::de::Error;

use super::diagnostic::Findings;

/// Reports the mistakes in the grammar of a file.
pub(super) fn report(errors: &[Error], findings: &mut Findings<'_>) {
    let end = findings.text().len();
    let start = |error: &Error| error.span().map_or(end, |span| span.start);
    let mut errors: Vec<&Error> = errors.iter().collect();
    errors.sort_by_key(|error| start(error));
    if let Some((first, message, help)) = unclosed(&errors) {
        let from = errors.get(first).map_or(end, |error| start(error));
        let message = match last_key(findings.text().get(..from).unwrap_or_default()) {
            Some(key) => format!("`{key}`: {message}"),
            None => message.to_owned(),
        };
        findings.syntax(from..from, message, help.to_owned());
        findings.ignore(from..end);
    }
    for error in errors {
        let span = error.span().unwrap_or(end..end);
        let (message, help) = told(error, findings.text());
        findings.syntax(span.clone(), message, help.to_owned());
        if error.message().starts_with("unclosed table") {
            // What stands under it was taken for a part of the section before.
            let rest = findings.text().get(span.start..).unwrap_or_default();
            let next = rest.find("\n[").unwrap_or(rest.len());
            findings.ignore(span.start..span.start + next);
        }
    }
}

/// A bracket that is never closed takes in all that follows, and every line of that is a mistake to
/// TOML's reader. The first of them, by index, with what to say instead of it and all others.
fn unclosed(errors: &[&Error]) -> Option<(usize, &'static str, &'static str)> {
    let find = |last: &str, of_it: &dyn Fn(&str) -> bool| {
        let is_unclosed = errors.iter().any(|error| {
            let message = error.message().strip_prefix(last);
            message.is_some_and(|rest| rest.is_empty() || rest.starts_with(','))
        });
        let first = errors.iter().position(|error| of_it(error.message()));
        first.filter(|_| is_unclosed)
    };
    let list = find("unclosed array", &|message| {
        message.contains("array") && !message.contains("array table")
    });
    let table = find("unclosed inline table", &|message| {
        message.contains("inline table") || message.contains("key-value pairs")
    });
    let list = list.map(|first| {
        let message = "not TOML: the list that begins before this is not closed";
        (
            first,
            message,
            "close it with `]`, and separate its values by commas",
        )
    });
    let table = table.map(|first| {
        let message = "not TOML: the table that begins before this is not closed";
        (
            first,
            message,
            "close it with `}`, and separate its pairs by commas",
        )
    });
    [list, table].into_iter().flatten().min()
}

/// The key of the last line that has a value.
fn last_key(text: &str) -> Option<&str> {
    let mut keys = text.lines().rev().filter_map(|line| line.split_once('='));
    first_word(keys.next()?.0)
}

/// What a line begins with that may be a key, or the name of a section.
fn first_word(line: &str) -> Option<&str> {
    let line = line.trim_start_matches([' ', '\t', '[']);
    let is_key = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let end = line.find(|c| !is_key(c)).unwrap_or(line.len());
    line.get(..end).filter(|word| !word.is_empty())
}

/// Whether a line that cannot be read begins with a key: the others may be a part of a string, which may be a secret.
fn is_of_a_key(message: &str) -> bool {
    let of_keys = [
        "key with no value",
        "invalid unquoted key",
        "unclosed table",
    ];
    of_keys.iter().any(|start| message.starts_with(start))
}

/// What is wrong, with the key if the line has one before it, and the remedy.
fn told(error: &Error, text: &str) -> (String, &'static str) {
    let message = error.message();
    let span = error.span().unwrap_or(text.len()..text.len());
    if message == "duplicate key" {
        let key = text.get(span).unwrap_or_default();
        return (
            format!("`{key}` is written twice"),
            "keep one of the two; a section, too, may stand only once",
        );
    }
    let value = text.get(span.clone()).unwrap_or_default();
    let before = text.get(..span.start).unwrap_or_default();
    let line = before.rsplit('\n').next().unwrap_or_default();
    let key = line.split_once('=').map(|(key, _)| key.trim());
    let key = key.or_else(|| first_word(line).filter(|_| is_of_a_key(message)));
    if let Some(key) = key
        && value.trim().is_empty()
        && message.starts_with("string values must be quoted")
    {
        return (
            format!("`{key}` has no value"),
            "write one after the `=`, or remove the line",
        );
    }
    let quotes = ["string values must be quoted", "invalid boolean"];
    if quotes.iter().any(|start| message.starts_with(start)) {
        return (
            format!("`{}`: text without quotes", key.unwrap_or(value)),
            "put it in quotes: \"text\"; only numbers, dates, true and false stand without",
        );
    }
    let message = match key {
        Some(key) => format!("`{key}`: not TOML: {message}"),
        None => format!("not TOML: {message}"),
    };
    let help = if message.contains("string")
        || message.contains("escape")
        || message.contains("unicode")
    {
        "a string is \"text\" on one line, or \"\"\"text\"\"\" on several; in 'text' a backslash is only a backslash"
    } else if message.contains("table") && !message.contains("inline table") {
        "write a section as [name], and a list of sections as [[name]]"
    } else if message.contains("array") {
        "separate the values of a list by commas, and close it with `]`"
    } else {
        "write `key = value`, each on a line of its own; strings in quotes, sections as [name]"
    };
    (message, help)
}
