//! Templates of rules: what Go's templates offer that a default rule needs, with the name and the labels of a service.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::RuleError;

mod parse;

/// What is made is cut here, in bytes: one more than a rule may have, which then is refused for it.
const CUT: usize = (64 << 10) + 1;

/// A rule with holes, as Traefik's option `defaultRule` has it. Cloning shares what was parsed.
///
/// Of Go's templates it takes text and the actions `{{ … }}` of fields, functions and pipelines. Whatever else there is in
/// them (conditions, loops, variables, comments, other functions of sprig) is refused by its name.
#[derive(Clone, Debug)]
pub struct Template {
    text: Arc<str>,
    parts: Arc<[Part]>,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Action(Term),
}

/// Something that has a text as its value.
#[derive(Debug)]
enum Term {
    Name,
    Text(String),
    Label(Box<Term>),
    Call(Function, Vec<Term>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Function {
    Normalize,
    Lower,
    TrimPrefix,
    TrimSuffix,
    Index,
}

impl Template {
    /// Parses a template. The error is the first mistake in it, with its place in `text`.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        let parts = parse::parse(text)?;
        Ok(Self {
            text: text.into(),
            parts: parts.into(),
        })
    }

    /// The rule for a service of this name, whose instance has these labels: the keys of its tags, with `traefik.` for the
    /// prefix, and their values. A label that is not there is empty, as in Go.
    pub fn rule(&self, name: &str, labels: &BTreeMap<String, &str>) -> String {
        let mut made = String::new();
        for part in self.parts.iter() {
            match part {
                Part::Text(text) => made.push_str(text),
                Part::Action(term) => made.push_str(&term.value(name, labels)),
            }
            cut(&mut made);
        }
        made
    }

    /// Whether what it makes depends on the labels.
    pub fn reads_labels(&self) -> bool {
        self.parts.iter().any(|part| match part {
            Part::Text(_) => false,
            Part::Action(term) => term.reads_labels(),
        })
    }

    /// The template as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// By text: another text is another template, even if it means the same.
impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Template {}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A service's name as it stands in the names that Traefik makes of it: what is no letter or digit becomes a `-`.
pub fn normalized(service: &str) -> String {
    let parts = service.split(|c: char| !c.is_alphanumeric());
    let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
    parts.join("-")
}

impl Term {
    fn value(&self, name: &str, labels: &BTreeMap<String, &str>) -> String {
        let mut value = match self {
            Term::Name => shortened(name),
            Term::Text(text) => text.clone(),
            Term::Label(key) => {
                let label = labels.get(&key.value(name, labels));
                label.map(|label| shortened(label)).unwrap_or_default()
            }
            Term::Call(function, arguments) => {
                let mut values = arguments.iter().map(|term| term.value(name, labels));
                let first = values.next().unwrap_or_default();
                match (function, values.next()) {
                    (Function::Normalize, _) => normalized(&first),
                    (Function::Lower, _) => first.to_lowercase(),
                    (Function::TrimPrefix, Some(text)) => {
                        text.strip_prefix(&first).unwrap_or(&text).to_owned()
                    }
                    (Function::TrimSuffix, Some(text)) => {
                        text.strip_suffix(&first).unwrap_or(&text).to_owned()
                    }
                    // Each has as many arguments as it takes, and the index is a label.
                    _ => first,
                }
            }
        };
        cut(&mut value);
        value
    }

    fn reads_labels(&self) -> bool {
        match self {
            Term::Name | Term::Text(_) => false,
            Term::Label(_) => true,
            Term::Call(_, arguments) => arguments.iter().any(Term::reads_labels),
        }
    }
}

fn shortened(text: &str) -> String {
    text.get(..boundary(text)).unwrap_or_default().to_owned()
}

fn cut(text: &mut String) {
    text.truncate(boundary(text));
}

/// Where a text is cut, between two characters.
fn boundary(text: &str) -> usize {
    let most = CUT.min(text.len());
    (0..=most)
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
