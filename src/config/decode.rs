//! A reader of TOML's tree that goes on after a mistake, and knows of every value its key and its place.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Secret;
use super::diagnostic::Findings;
use super::value::{is_same, suggest};

/// A value that was typed, with its key as a message names it and its place in the file.
#[derive(Clone, Debug)]
pub(super) struct Typed<T> {
    pub(super) key: String,
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

impl<T> Typed<T> {
    /// The key and the place alone.
    pub(super) fn place(&self) -> Typed<()> {
        Typed {
            key: self.key.clone(),
            value: (),
            span: self.span.clone(),
        }
    }
}

/// A list that was typed; what was wrong in it is reported and left out.
#[derive(Clone, Debug)]
pub(super) struct List<T> {
    pub(super) key: String,
    pub(super) value: Vec<T>,
    pub(super) span: Range<usize>,
    /// Nothing was written in it, right or wrong.
    pub(super) is_empty: bool,
}

/// A table of which it is remembered which keys were asked for: the others are unknown.
#[derive(Debug)]
pub(super) struct Table<'a> {
    key: String,
    span: Range<usize>,
    entries: &'a DeTable<'a>,
    asked: Vec<&'static str>,
    /// Keys of which it has been said what to write instead.
    refused: Vec<&'a str>,
}

impl<'a> Table<'a> {
    pub(super) fn root(entries: &'a DeTable<'a>) -> Self {
        Self {
            key: String::new(),
            span: 0..0,
            entries,
            asked: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// The table's own key and place, for what is said of the whole of it.
    pub(super) fn key(&self) -> Typed<()> {
        Typed {
            key: self.key.clone(),
            value: (),
            span: self.span.clone(),
        }
    }

    /// The place of a key, if it stands here.
    pub(super) fn place(&self, key: &str) -> Option<Range<usize>> {
        self.entries.get_key_value(key).map(|(key, _)| key.span())
    }

    /// Whether a key stands here, if perhaps misspelt: then that is what will be said of it, not that it is missing.
    pub(super) fn has(&self, key: &str) -> bool {
        let mut names = self.entries.keys().map(|name| name.get_ref().as_ref());
        names.any(|name: &str| suggest(name, &[key]).is_some())
    }

    /// Reads the value of a key, if it stands here and is right.
    pub(super) fn take<T>(
        &mut self,
        key: &'static str,
        findings: &mut Findings<'_>,
        read: impl FnOnce(Item<'a>, &mut Findings<'_>) -> Option<T>,
    ) -> Option<T> {
        self.asked.push(key);
        let (place, value) = self.entries.get_key_value(key)?;
        let item = Item {
            key: self.name(key),
            place: place.span(),
            value,
        };
        read(item, findings)
    }

    /// Like `take`, for a key that must stand here.
    pub(super) fn require<T>(
        &mut self,
        key: &'static str,
        example: &str,
        findings: &mut Findings<'_>,
        read: impl FnOnce(Item<'a>, &mut Findings<'_>) -> Option<T>,
    ) -> Option<T> {
        if !self.has(key) {
            findings.missing(
                self.span.clone(),
                format!("`{}` is missing", self.name(key)),
                format!("add `{key} = {example}`"),
            );
        }
        self.take(key, findings, read)
    }

    /// Every value of a table whose keys are names that the user chose, with those names.
    pub(super) fn into_named(self) -> Vec<(Typed<String>, Item<'a>)> {
        let named = self.entries.iter().map(|(name, value)| {
            let item = Item {
                key: self.name(name.get_ref()),
                place: name.span(),
                value,
            };
            let name = Typed {
                key: item.key.clone(),
                value: name.get_ref().to_string(),
                span: name.span(),
            };
            (name, item)
        });
        named.collect()
    }

    /// Reports the keys of others that stand here, each with what to do; in any case, and with or without separators.
    pub(super) fn refuse(&mut self, theirs: &[(&str, &str)], findings: &mut Findings<'_>) {
        for name in self.entries.keys() {
            let written: &str = name.get_ref();
            let found = theirs.iter().find(|(key, _)| is_same(key, written));
            if let Some((_, help)) = found.filter(|_| !self.asked.contains(&written)) {
                let message = format!("unknown key `{}` in `{}`", quote(written), self.key);
                findings.error(name.span(), message, *help);
                self.refused.push(written);
            }
        }
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self, findings: &mut Findings<'_>) {
        for (name, value) in self.entries {
            let written: &str = name.get_ref();
            if self.asked.contains(&written) || self.refused.contains(&written) {
                continue;
            }
            let unknown = quote(name.get_ref());
            let message = match self.key.as_str() {
                "" => format!("unknown key `{unknown}`"),
                table => format!("unknown key `{unknown}` in `{table}`"),
            };
            let known = format!("known here: {}", self.asked.join(", "));
            let meant = suggest(name.get_ref(), &self.asked);
            if matches!(meant, Some("token" | "proxy")) {
                findings.conceal(value.span());
            }
            let help = match meant {
                Some(meant) => format!("did you mean `{meant}`? {known}"),
                None => known,
            };
            findings.error(name.span(), message, help);
        }
    }

    fn name(&self, key: &str) -> String {
        match self.key.as_str() {
            "" => quote(key),
            table => format!("{table}.{}", quote(key)),
        }
    }
}

/// One value of the tree, not yet known to be of the right type.
#[derive(Debug)]
pub(super) struct Item<'a> {
    key: String,
    place: Range<usize>,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Item<'a> {
    pub(super) fn string(self, findings: &mut Findings<'_>) -> Option<Typed<String>> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(self.typed(text.to_string())),
            _ => self.wrong("a string", findings),
        }
    }

    /// A string that no report shows.
    pub(super) fn secret(self, findings: &mut Findings<'_>) -> Option<Typed<Secret>> {
        findings.conceal(self.value.span());
        match self.value() {
            DeValue::String(text) => Some(self.typed(Secret::new(text.to_string()))),
            _ => {
                let span = self.value.span();
                if !span.is_empty() {
                    let message = format!("`{}` must be a string", self.key);
                    findings.error(span, message, "put it in quotes");
                }
                None
            }
        }
    }

    /// A string that holds a number and its unit, such as `unit`.
    pub(super) fn quantity(self, unit: &str, findings: &mut Findings<'_>) -> Option<Typed<String>> {
        let DeValue::Integer(digits) = self.value() else {
            return self.string(findings);
        };
        if !self.value.span().is_empty() {
            findings.error(
                self.value.span(),
                format!(
                    "`{}` must be a string with a unit, found an integer",
                    self.key
                ),
                format!("write \"{digits}{unit}\""),
            );
        }
        None
    }

    pub(super) fn boolean(self, findings: &mut Findings<'_>) -> Option<Typed<bool>> {
        match self.value.get_ref() {
            DeValue::Boolean(value) => Some(self.typed(*value)),
            _ => self.wrong("true or false", findings),
        }
    }

    pub(super) fn integer(self, findings: &mut Findings<'_>) -> Option<Typed<i64>> {
        let DeValue::Integer(digits) = self.value.get_ref() else {
            return self.wrong("an integer", findings);
        };
        match i64::from_str_radix(digits.as_str(), digits.radix()) {
            Ok(value) => Some(self.typed(value)),
            Err(_) => {
                findings.error(
                    self.value.span(),
                    format!("`{}` does not fit in 64 bits", self.key),
                    "write a smaller number",
                );
                None
            }
        }
    }

    /// A list, each element of which is read the same way.
    pub(super) fn list<T>(
        self,
        findings: &mut Findings<'_>,
        mut read: impl FnMut(Item<'a>, &mut Findings<'_>) -> Option<T>,
    ) -> Option<List<T>> {
        let DeValue::Array(array) = self.value.get_ref() else {
            return self.wrong("a list", findings);
        };
        let read = array.iter().enumerate().filter_map(|(index, value)| {
            let item = Item {
                key: format!("{}[{index}]", self.key),
                place: value.span(),
                value,
            };
            read(item, findings)
        });
        let value = read.collect();
        Some(List {
            value,
            span: self.value.span(),
            is_empty: array.is_empty(),
            key: self.key,
        })
    }

    /// A list of strings.
    pub(super) fn strings(self, findings: &mut Findings<'_>) -> Option<List<Typed<String>>> {
        self.list(findings, Item::string)
    }

    pub(super) fn table(self, findings: &mut Findings<'_>) -> Option<Table<'a>> {
        let DeValue::Table(entries) = self.value.get_ref() else {
            return self.wrong("a table", findings);
        };
        let span = self.value.span();
        let is_header = findings
            .text()
            .get(span.clone())
            .is_some_and(|text| text.starts_with('['));
        Some(Table {
            key: self.key,
            span: if is_header { span } else { self.place },
            entries,
            asked: Vec::new(),
            refused: Vec::new(),
        })
    }

    /// The value, where it may be of several types.
    pub(super) fn value(&self) -> &DeValue<'a> {
        self.value.get_ref()
    }

    pub(super) fn typed<T>(&self, value: T) -> Typed<T> {
        Typed {
            key: self.key.clone(),
            value,
            span: self.value.span(),
        }
    }

    /// Says what was expected and what was found.
    pub(super) fn wrong<T>(&self, expected: &str, findings: &mut Findings<'_>) -> Option<T> {
        let span = self.value.span();
        if span.is_empty() {
            // What toml puts where a value should be and is none; it has said so.
            return None;
        }
        let found = match self.value() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let last = self.key.rsplit('.').next().unwrap_or(&self.key);
        let written = findings.text().get(span.clone()).unwrap_or_default();
        let help = match (expected, self.value()) {
            ("a string", DeValue::Array(_) | DeValue::Table(_)) => {
                format!("write one string: `{last} = \"…\"`")
            }
            ("a string", _) => format!("put it in quotes: \"{written}\""),
            ("a list", DeValue::String(_)) => format!("put it in brackets: [{written}]"),
            ("a list", _) => format!("write a list, as in `{last} = [\"…\"]`"),
            ("a table", _) => format!("write a table, as in `[{}]`", self.key),
            ("an integer", _) => "write a whole number without quotes".to_owned(),
            _ => format!("write {expected}, without quotes"),
        };
        findings.error(
            span,
            format!("`{}` must be {expected}, found {found}", self.key),
            help,
        );
        None
    }
}

/// A key as TOML wants it in a dotted name: in quotes unless it is bare.
fn quote(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !key.is_empty() && key.chars().all(bare) {
        key.to_owned()
    } else {
        format!("{key:?}")
    }
}
