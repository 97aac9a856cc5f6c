//! Constraints: Traefik's expressions over the tags of an instance, in the grammar of rules with two matchers of their own.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::RuleError;
use super::lex::{Kind, Lexer, Literal, Token};
use super::regexp::{self, Regexp};

/// The longest expression that is read, in bytes; as for a rule.
const LONGEST: usize = 64 << 10;

/// Groups within groups: each costs stack, here and for every instance.
const MOST_NESTED: usize = 100;

/// What is added to every mistake that has no better remedy.
const EXAMPLE: &str =
    r"write Tag(`edge`) or TagRegex(`^edge\.`), joined with `&&` and `||`, turned round with `!`";

/// An expression over the tags of an instance, as Traefik's option `constraints` has it. Cloning shares what was parsed.
///
/// ``Tag(`x`)`` holds if one of the tags is `x`, ``TagRegex(`re`)`` if a regular expression of Go's matches somewhere in
/// one of them. Unlike Traefik's, a regular expression with a mistake in it is refused and not one that never matches.
#[derive(Clone, Debug)]
pub struct Constraint {
    text: Arc<str>,
    expr: Arc<Expr>,
}

#[derive(Debug)]
enum Expr {
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Not(Box<Expr>),
    Tag(Vec<u8>),
    Regexp(Regexp),
}

impl Constraint {
    /// Parses an expression. The error is the first mistake in it, with its place in `text`.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        if text.len() > LONGEST {
            let message = format!(
                "it is {} bytes long, and {LONGEST} are the most",
                text.len()
            );
            let first = text.chars().next().map_or(0, char::len_utf8);
            return Err(RuleError::new(
                0..first,
                message,
                "write a TagRegex for several tags",
            ));
        }
        let mut lexer = Lexer::new(text);
        let next = lexer.next().map_err(of_tags)?;
        let mut parser = Parser {
            text,
            lexer,
            next,
            room: regexp::ROOM,
        };
        if parser.next.kind == Kind::End {
            return Err(RuleError::new(0..text.len(), "it is empty", EXAMPLE));
        }
        let expr = parser.any(0)?;
        // Go puts a semicolon at the end of the last line, and forgives that one.
        let line_end = parser.next.clone();
        if line_end.kind == Kind::LineEnd {
            parser.advance()?;
            if parser.next.kind != Kind::End {
                parser.next = line_end;
            }
        }
        match parser.next.kind {
            Kind::End => Ok(Self {
                text: text.into(),
                expr: Arc::new(expr),
            }),
            _ => Err(parser.unexpected("`&&`, `||` or the end")),
        }
    }

    /// Whether it holds for an instance with these tags.
    pub fn matches(&self, tags: &[Arc<str>]) -> bool {
        self.expr.matches(tags)
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// By text: another text is another expression, even if it means the same.
impl PartialEq for Constraint {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Constraint {}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Expr {
    fn matches(&self, tags: &[Arc<str>]) -> bool {
        match self {
            Expr::All(parts) => parts.iter().all(|part| part.matches(tags)),
            Expr::Any(parts) => parts.iter().any(|part| part.matches(tags)),
            Expr::Not(part) => !part.matches(tags),
            Expr::Tag(wanted) => tags.iter().any(|tag| tag.as_bytes() == wanted),
            Expr::Regexp(regexp) => tags.iter().any(|tag| regexp.matches(Some(&ascii(tag)))),
        }
    }
}

/// A tag as regular expressions are made to see text: each character beyond ASCII is one that `.` and `[^…]` take, and no
/// class does.
fn ascii(tag: &str) -> Cow<'_, str> {
    const SUBSTITUTE: char = '\x1a';
    if tag.is_ascii() {
        return Cow::Borrowed(tag);
    }
    let shown = |c: char| if c.is_ascii() { c } else { SUBSTITUTE };
    Cow::Owned(tag.chars().map(shown).collect())
}

struct Parser<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    next: Token,
    /// What is left to the regular expressions.
    room: usize,
}

impl Parser<'_> {
    /// Parts joined by `||`.
    fn any(&mut self, depth: usize) -> Result<Expr, RuleError> {
        let first = self.all(depth)?;
        let mut more = Vec::new();
        while self.next.kind == Kind::Or {
            self.advance()?;
            more.push(self.all(depth)?);
        }
        Ok(joined(first, more, Expr::Any))
    }

    /// Parts joined by `&&`, which binds tighter.
    fn all(&mut self, depth: usize) -> Result<Expr, RuleError> {
        let first = self.part(depth)?;
        let mut more = Vec::new();
        while self.next.kind == Kind::And {
            self.advance()?;
            more.push(self.part(depth)?);
        }
        Ok(joined(first, more, Expr::All))
    }

    /// A matcher or a group, after any number of `!`.
    fn part(&mut self, depth: usize) -> Result<Expr, RuleError> {
        let mut is_negated = false;
        while self.next.kind == Kind::Not {
            self.advance()?;
            is_negated = !is_negated;
        }
        let part = match self.next.kind {
            Kind::Open => self.group(depth)?,
            Kind::Name => self.matcher()?,
            _ => return Err(self.unexpected("Tag(`…`) or TagRegex(`…`)")),
        };
        Ok(match is_negated {
            true => Expr::Not(Box::new(part)),
            false => part,
        })
    }

    fn group(&mut self, depth: usize) -> Result<Expr, RuleError> {
        let open = self.next.span.clone();
        if depth == MOST_NESTED {
            let message = format!("groups are nested more than {MOST_NESTED} deep");
            return Err(RuleError::new(
                open,
                message,
                "take out parentheses that change nothing",
            ));
        }
        self.advance()?;
        let expr = self.any(depth + 1)?;
        match self.next.kind {
            Kind::Close => self.advance()?,
            Kind::End => {
                return Err(RuleError::new(
                    open,
                    "the group is not closed",
                    "end it with `)`",
                ));
            }
            _ => return Err(self.unexpected("`&&`, `||` or `)`")),
        }
        Ok(expr)
    }

    fn matcher(&mut self) -> Result<Expr, RuleError> {
        let called = self.next.span.clone();
        let name = self.text.get(called.clone()).unwrap_or_default();
        let is_regexp = match name {
            "Tag" => false,
            "TagRegex" => true,
            _ => {
                let help = match name.to_ascii_lowercase().as_str() {
                    "tag" => "did you mean `Tag`?",
                    "tagregex" | "tagregexp" => "did you mean `TagRegex`?",
                    _ => EXAMPLE,
                };
                return Err(RuleError::new(
                    called,
                    format!("there is no matcher `{name}`"),
                    help,
                ));
            }
        };
        self.advance()?;
        if self.next.kind != Kind::Open {
            return Err(RuleError::new(
                called,
                format!("`{name}` has no argument"),
                EXAMPLE,
            ));
        }
        self.advance()?;
        let place = self.next.span.clone();
        let Kind::Text(literal) = self.next.kind.clone() else {
            return Err(self.unexpected("a text in backticks"));
        };
        self.advance()?;
        if self.next.kind == Kind::Comma {
            self.advance()?;
        }
        if self.next.kind != Kind::Close {
            return Err(self.unexpected("`)`, as there is one argument"));
        }
        self.advance()?;
        if literal.bytes.is_empty() {
            return Err(RuleError::new(
                place,
                format!("the argument of {name} is empty"),
                EXAMPLE,
            ));
        }
        match is_regexp {
            true => self.regexp(&literal),
            false => Ok(Expr::Tag(literal.bytes)),
        }
    }

    fn regexp(&mut self, literal: &Literal) -> Result<Expr, RuleError> {
        let pattern = match std::str::from_utf8(&literal.bytes) {
            Ok(pattern) if pattern.is_ascii() => pattern,
            _ => {
                let span = literal.span(0..literal.bytes.len());
                let message = "the regular expression is not ASCII";
                return Err(RuleError::new(
                    span,
                    message,
                    "write `.` for such a character",
                ));
            }
        };
        // What is doubtful for a name that clients send is none for a tag.
        match Regexp::parse(pattern, &mut self.room) {
            Ok((regexp, _)) => Ok(Expr::Regexp(regexp)),
            Err(fault) => {
                let span = literal.span(fault.span);
                Err(of_tags(RuleError::new(span, fault.message, fault.help)))
            }
        }
    }

    fn advance(&mut self) -> Result<(), RuleError> {
        self.next = self.lexer.next().map_err(of_tags)?;
        Ok(())
    }

    fn unexpected(&self, expected: &str) -> RuleError {
        let span = self.next.span.clone();
        let found = match self.next.kind {
            Kind::End => "the end".to_owned(),
            Kind::LineEnd => "the end of the line".to_owned(),
            _ => format!("`{}`", self.text.get(span.clone()).unwrap_or_default()),
        };
        let help = match self.next.kind {
            Kind::LineEnd => "break the line after `&&`, `||` or `(` instead",
            _ => EXAMPLE,
        };
        RuleError::new(span, format!("expected {expected}, found {found}"), help)
    }
}

/// The words are those of rules, the examples are not.
fn of_tags(mut error: RuleError) -> RuleError {
    if error
        .help
        .as_ref()
        .is_none_or(|help| help.contains("HostSNI"))
    {
        error.help = Some(EXAMPLE.to_owned());
    }
    error
}

/// One expression for several, or the only one as it is.
fn joined(first: Expr, mut more: Vec<Expr>, join: fn(Vec<Expr>) -> Expr) -> Expr {
    if more.is_empty() {
        return first;
    }
    more.insert(0, first);
    join(more)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
