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
        findings.syntax(from..from, message.to_owned(), help.to_owned());
        findings.ignore(from..end);
    }
    for error in errors {
        let span = error.span().unwrap_or(end..end);
        let (message, help) = told(error, findings.text());
        findings.syntax(span, message, help.to_owned());
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
