//! The grammar of templates: text, and actions of fields, texts, functions and pipelines.

use std::ops::Range;

use super::{Function, Part, RuleError, Term};

/// The longest template, in bytes: it is a rule with holes. It bounds how long a pipeline is, too.
pub(super) const LONGEST: usize = 4096;

/// Parentheses within parentheses: each costs stack.
const MOST_NESTED: usize = 20;

/// What may stand in an action, for whoever wrote something else.
const KNOWN: &str = "an action may hold .Name, index .Labels \"KEY\", texts in quotes, parentheses, `|`, and the functions \
    normalize, lower, trimPrefix and trimSuffix";

/// The parts of a template, of which there is one at least.
pub(super) fn parse(text: &str) -> Result<Vec<Part>, RuleError> {
    if text.len() > LONGEST {
        let message = format!(
            "it is {} bytes long, and {LONGEST} are the most",
            text.len()
        );
        let first = text.chars().next().map_or(0, char::len_utf8);
        return Err(RuleError::new(0..first, message, "write a shorter rule"));
    }
    let mut reader = Reader {
        text,
        at: 0,
        depth: 0,
    };
    let mut parts = Vec::new();
    let mut trims = false;
    loop {
        let mut plain = reader.plain();
        if trims {
            plain = plain.trim_start_matches(is_blank);
        }
        let start = reader.at;
        let opens = reader.take("{{");
        if opens && reader.opens_trimming() {
            plain = plain.trim_end_matches(is_blank);
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain.to_owned()));
        }
        if !opens {
            break;
        }
        parts.push(Part::Action(reader.pipeline(start)?));
        trims = reader.close(start)?;
    }
    if parts.is_empty() {
        let help = "write a rule, as in HostSNI(`{{ normalize .Name }}.example.com`)";
        return Err(RuleError::new(0..text.len(), "it is empty", help));
    }
    Ok(parts)
}

impl Function {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "normalize" => Self::Normalize,
            "lower" => Self::Lower,
            "trimPrefix" => Self::TrimPrefix,
            "trimSuffix" => Self::TrimSuffix,
            "index" => Self::Index,
            _ => return None,
        })
    }

    /// How many texts it takes. The map of `index` is not among them.
    fn arity(self) -> usize {
        match self {
            Self::Normalize | Self::Lower | Self::Index => 1,
            Self::TrimPrefix | Self::TrimSuffix => 2,
        }
    }
}

/// A template that is being read.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// How many parentheses are open.
    depth: usize,
}

impl<'a> Reader<'a> {
    /// The text up to the next action, or the end.
    fn plain(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find("{{").unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    /// Commands joined by `|`: the value of each is the last argument of the next.
    fn pipeline(&mut self, open: usize) -> Result<Term, RuleError> {
        let mut value = self.command(None, open)?;
        while self.after_blanks() == Some('|') {
            self.at += 1;
            value = self.command(Some(value), open)?;
        }
        Ok(value)
    }

    fn command(&mut self, piped: Option<Term>, open: usize) -> Result<Term, RuleError> {
        self.after_blanks();
        let start = self.at;
        let word = self.word();
        if word.is_empty() || word.starts_with('.') {
            self.at = start;
            let value = self.operand(open)?;
            return match (piped, self.after_blanks()) {
                (None, None | Some('|' | ')' | '}' | '-')) => Ok(value),
                (None, Some(_)) => Err(self.mistake(
                    start..self.at,
                    "what stands here is no function and takes no arguments",
                )),
                (Some(_), _) => {
                    Err(self.mistake(start..self.at, "what stands behind `|` must be a function"))
                }
            };
        }
        let called = start..self.at;
        let Some(function) = Function::named(word) else {
            let message = match word {
                "if" | "else" | "end" | "range" | "with" | "define" | "template" | "block"
                | "break" | "continue" => {
                    format!("`{word}` is not supported in a default rule")
                }
                _ => format!("the function `{word}` is not supported in a default rule"),
            };
            return Err(self.mistake(called, &message));
        };
        if function == Function::Index {
            self.after_blanks();
            let place = self.at;
            if self.word() != ".Labels" {
                return Err(self.mistake(place..self.at.max(place), "`index` is of .Labels here"));
            }
        }
        let mut arguments = Vec::new();
        while !matches!(self.after_blanks(), None | Some('|' | ')' | '}' | '-')) {
            arguments.push(self.operand(open)?);
        }
        arguments.extend(piped);
        let arity = function.arity();
        if arguments.len() != arity {
            let message = format!("`{word}` takes {arity}, not {}", arguments.len());
            return Err(self.mistake(called, &message));
        }
        Ok(match (function, arguments.pop()) {
            (Function::Index, Some(key)) => Term::Label(Box::new(key)),
            (_, last) => {
                arguments.extend(last);
                Term::Call(function, arguments)
            }
        })
    }

    /// A field, a text, or a pipeline in parentheses.
    fn operand(&mut self, open: usize) -> Result<Term, RuleError> {
        let start = self.at;
        match self.after_blanks() {
            Some('(') => {
                let start = self.at;
                self.at += 1;
                self.depth += 1;
                if self.depth > MOST_NESTED {
                    let message = format!("parentheses are nested more than {MOST_NESTED} deep");
                    return Err(self.mistake(start..self.at, &message));
                }
                let value = self.pipeline(open)?;
                self.depth -= 1;
                if self.after_blanks() != Some(')') {
                    return Err(self.mistake(start..start + 1, "the parenthesis is not closed"));
                }
                self.at += 1;
                Ok(value)
            }
            Some(quote @ ('"' | '`')) => self.quoted(quote),
            Some('.') => {
                let start = self.at;
                match self.word() {
                    ".Name" => Ok(Term::Name),
                    ".Labels" => {
                        let help = "write `index .Labels \"traefik.KEY\"` for the value of one tag";
                        let message = "the labels are no text";
                        Err(RuleError::new(start..self.at, message, help))
                    }
                    field if field.starts_with(".Labels.") => {
                        let help =
                            "write `index .Labels \"traefik.KEY\"`: the keys have dots in them";
                        let message = "a label cannot be had by a field";
                        Err(RuleError::new(start..self.at, message, help))
                    }
                    field => {
                        let message = format!("there is no `{field}` here");
                        Err(self.mistake(start..self.at, &message))
                    }
                }
            }
            None => Err(self.mistake(open..open + 2, "the action is not closed")),
            Some('}') => Err(self.mistake(start..self.at, "something is missing before the `}`")),
            Some(c) => {
                let start = self.at;
                let word = self.word();
                let end = start + word.len().max(c.len_utf8());
                let message = match c {
                    '$' => "variables are not supported in a default rule".to_owned(),
                    '/' => "comments are not supported in a default rule".to_owned(),
                    _ => format!(
                        "unexpected {:?}",
                        self.text.get(start..end).unwrap_or_default()
                    ),
                };
                Err(self.mistake(start..end, &message))
            }
        }
    }

    /// A text: in backticks as it stands, in double quotes with the escapes `\"`, `\\`, `\n` and `\t`.
    fn quoted(&mut self, quote: char) -> Result<Term, RuleError> {
        let start = self.at;
        self.at += 1;
        let mut value = String::new();
        let mut characters = self.rest().char_indices();
        while let Some((_, c)) = characters.next() {
            let c = match c {
                '\\' if quote == '"' => match characters.next() {
                    Some((_, c @ ('"' | '\\'))) => c,
                    Some((_, 'n')) => '\n',
                    Some((_, 't')) => '\t',
                    _ => break,
                },
                '\n' if quote == '"' => break,
                c if c == quote => {
                    self.at = self.text.len() - characters.as_str().len();
                    return Ok(Term::Text(value));
                }
                c => c,
            };
            value.push(c);
        }
        let message = "the text is not closed, or holds an escape that is not known";
        Err(self.mistake(start..start + 1, message))
    }

    /// The end of an action; whether the white space behind it goes.
    fn close(&mut self, open: usize) -> Result<bool, RuleError> {
        let next = self.after_blanks();
        // As in Go, the minus stands behind a blank.
        let before = self.text.get(..self.at).unwrap_or_default();
        if before.ends_with(is_blank) && self.rest().starts_with("-}}") {
            self.at += 3;
            return Ok(true);
        }
        if self.take("}}") {
            return Ok(false);
        }
        match next {
            None => Err(self.mistake(open..open + 2, "the action is not closed: end it with `}}`")),
            Some(c) => {
                let span = self.at..self.at + c.len_utf8();
                Err(self.mistake(span, &format!("unexpected {c:?}")))
            }
        }
    }

    /// Whether a `{{` is followed by a minus and a blank.
    fn opens_trimming(&mut self) -> bool {
        let trims = self.rest().strip_prefix('-');
        let trims = trims.is_some_and(|rest| rest.starts_with(is_blank));
        self.at += usize::from(trims);
        trims
    }

    /// A name, or a field with its dots; empty if there is none.
    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '.');
        let word = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        self.at += word.len();
        word
    }

    /// The next character that is no white space, which is skipped.
    fn after_blanks(&mut self) -> Option<char> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches(is_blank).len();
        self.rest().chars().next()
    }

    fn take(&mut self, text: &str) -> bool {
        let is_next = self.rest().starts_with(text);
        self.at += if is_next { text.len() } else { 0 };
        is_next
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn mistake(&self, span: Range<usize>, message: &str) -> RuleError {
        RuleError::new(span, message, KNOWN)
    }
}

/// What Go's templates take for white space.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}
