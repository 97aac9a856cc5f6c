//! The grammar of rules: Go's expressions, as far as Traefik takes them, with negations pushed down to the matchers.

use super::lex::{Kind, Lexer, Literal, Token};
use super::matcher::{Matcher, Name};
use super::{Facts, Room, RuleError, Syntax};
use crate::name::HostPattern;

/// A condition. Negation stands at the leaves only.
#[derive(Clone, Debug)]
pub(super) enum Expr {
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Leaf { matcher: Matcher, negated: bool },
}

impl Expr {
    /// Whether it holds for these facts.
    pub(super) fn matches(&self, facts: &Facts<'_>) -> bool {
        match self {
            Expr::All(parts) => parts.iter().all(|part| part.matches(facts)),
            Expr::Any(parts) => parts.iter().any(|part| part.matches(facts)),
            Expr::Leaf { matcher, negated } => matcher.matches(facts) != *negated,
        }
    }
}

/// The longest rule that is read, in bytes: room for a thousand names, and a bound for what a stranger's tag can cost.
const LONGEST: usize = 64 << 10;

/// Groups within groups: each costs stack here and at every look-up.
const MOST_NESTED: usize = 100;

/// Parses a rule; the second part tells what is legal and cannot match.
///
/// The text and its regular expressions take their size from `room`, whatever becomes of the rule.
pub(super) fn parse(
    text: &str,
    syntax: Syntax,
    room: &mut Room,
) -> Result<(Expr, Vec<RuleError>), RuleError> {
    if text.len() > LONGEST {
        let message = format!(
            "the rule is {} bytes long, and {LONGEST} are the most",
            text.len()
        );
        let start = 0..text.chars().next().map_or(0, char::len_utf8);
        return Err(RuleError::new(
            start,
            message,
            "split it into several routes, or use HostSNIRegexp",
        ));
    }
    let Some(left) = room.text.checked_sub(text.len()) else {
        let start = 0..text.chars().next().map_or(0, char::len_utf8);
        let message = "the rules are too long together";
        return Err(RuleError::new(start, message, "use HostSNIRegexp"));
    };
    room.text = left;
    let mut lexer = Lexer::new(text);
    let next = lexer.next()?;
    let mut parser = Parser {
        text,
        syntax,
        lexer,
        next,
        room: &mut room.regexps,
        warnings: Vec::new(),
    };
    if parser.next.kind == Kind::End {
        return Err(RuleError::new(
            0..text.len(),
            "the rule is empty",
            Name::HostSni.example(),
        ));
    }
    let expr = parser.any(false, 0)?;
    // Go puts a semicolon at the end of the last line too, and forgives that one.
    if parser.next.kind == Kind::LineEnd {
        parser.advance()?;
        if parser.next.kind != Kind::End {
            return Err(parser.broken_line());
        }
    }
    match parser.next.kind {
        Kind::End => Ok((expr, parser.warnings)),
        _ => Err(parser.unexpected_after_matcher()),
    }
}

struct Parser<'a> {
    text: &'a str,
    syntax: Syntax,
    lexer: Lexer<'a>,
    next: Token,
    /// What is left to the rule's regular expressions.
    room: &'a mut usize,
    warnings: Vec<RuleError>,
}

impl Parser<'_> {
    /// Parts joined by `||`.
    fn any(&mut self, negated: bool, depth: usize) -> Result<Expr, RuleError> {
        let mut parts = vec![self.all(negated, depth)?];
        while self.next.kind == Kind::Or {
            self.advance()?;
            parts.push(self.all(negated, depth)?);
        }
        Ok(joined(parts, if negated { Expr::All } else { Expr::Any }))
    }

    /// Parts joined by `&&`, which binds tighter.
    fn all(&mut self, negated: bool, depth: usize) -> Result<Expr, RuleError> {
        let mut parts = vec![self.part(negated, depth)?];
        while self.next.kind == Kind::And {
            self.advance()?;
            parts.push(self.part(negated, depth)?);
        }
        Ok(joined(parts, if negated { Expr::Any } else { Expr::All }))
    }

    /// A matcher or a group, after any number of `!`.
    fn part(&mut self, mut negated: bool, depth: usize) -> Result<Expr, RuleError> {
        while self.next.kind == Kind::Not {
            self.advance()?;
            negated = !negated;
        }
        match self.next.kind {
            Kind::Open => self.group(negated, depth),
            Kind::Name => self.matcher(negated),
            _ => Err(self.expected_matcher()),
        }
    }

    fn group(&mut self, negated: bool, depth: usize) -> Result<Expr, RuleError> {
        let open = self.advance()?.span;
        if depth == MOST_NESTED {
            let message = format!("groups are nested more than {MOST_NESTED} deep");
            return Err(RuleError::new(
                open,
                message,
                "take out parentheses that change nothing",
            ));
        }
        let expr = self.any(negated, depth + 1)?;
        match self.next.kind {
            Kind::Close => {
                self.advance()?;
                Ok(expr)
            }
            Kind::LineEnd => Err(self.broken_line()),
            Kind::End => Err(RuleError::new(
                open,
                "the group is not closed",
                "end it with `)`",
            )),
            _ => Err(self.unexpected_after_matcher()),
        }
    }

    /// A matcher's name and its arguments, of which one must hold.
    fn matcher(&mut self, negated: bool) -> Result<Expr, RuleError> {
        let called = self.next.span.clone();
        let word = self.text.get(called.clone()).unwrap_or_default();
        let name = Name::parse(word, called.clone()).map_err(|error| self.plain_host(error))?;
        self.advance()?;
        if self.next.kind != Kind::Open {
            let message = format!("`{word}` has no argument");
            return Err(RuleError::new(called, message, name.example()));
        }
        let mut leaves = Vec::new();
        for argument in self.arguments(name)? {
            let (room, warnings) = (&mut *self.room, &mut self.warnings);
            let mut matcher = Matcher::parse(name, &argument, self.syntax, room, warnings)?;
            // Traefik looks at the first argument only where a client names no host.
            if !leaves.is_empty() && matches!(matcher, Matcher::Host(HostPattern::Any)) {
                matcher = Matcher::any_name(&argument, room)?;
            }
            leaves.push(Expr::Leaf { matcher, negated });
        }
        Ok(joined(leaves, if negated { Expr::All } else { Expr::Any }))
    }

    /// The arguments behind the `(`, which is next, up to and with its `)`: at least one, and in syntax v3 only one.
    fn arguments(&mut self, name: Name) -> Result<Vec<Literal>, RuleError> {
        let open = self.next.span.clone();
        let rest = self.text.get(open.end..).unwrap_or_default();
        let unquoted = unquoted(rest).map(|bare| {
            let start = open.end + (rest.len() - rest.trim_start().len());
            let message = format!("the argument of {} is not quoted", name.as_str());
            RuleError::new(
                start..start + bare.len(),
                message,
                format!("write it in backticks: {}(`{bare}`)", name.as_str()),
            )
        });
        // What is not quoted need not be words at all, as in HostSNI(*.example.com).
        if let Err(error) = self.advance() {
            return Err(unquoted.unwrap_or(error));
        }
        let token = self.next.clone();
        let literal = match token.kind {
            Kind::Text(literal) => literal,
            Kind::Close | Kind::Comma => {
                let count = match self.syntax {
                    Syntax::V2 => "at least one",
                    Syntax::V3 => "one",
                };
                let message = format!("`{}` wants {count} argument", name.as_str());
                return Err(RuleError::new(
                    open.start..token.span.end,
                    message,
                    name.example(),
                ));
            }
            _ => {
                let missing = RuleError::new(
                    open,
                    format!("the argument of {} is missing", name.as_str()),
                    name.example(),
                );
                return Err(unquoted.unwrap_or(missing));
            }
        };
        self.advance()?;
        let mut arguments = vec![literal];
        while self.next.kind == Kind::Comma {
            // Go takes a comma behind the last one, too.
            self.advance()?;
            let Kind::Text(another) = self.next.kind.clone() else {
                break;
            };
            if self.syntax == Syntax::V3 {
                return Err(self.second_argument(name, arguments.first(), &another));
            }
            arguments.push(another);
            self.advance()?;
        }
        match self.next.kind {
            Kind::Close => {
                self.advance()?;
                Ok(arguments)
            }
            Kind::LineEnd => Err(self.broken_line()),
            _ => {
                let message = format!("the argument of {} is not followed by `)`", name.as_str());
                Err(RuleError::new(
                    self.next.span.clone(),
                    message,
                    "close it with `)`",
                ))
            }
        }
    }

    /// The error for a second argument, which is next, where there is only one.
    fn second_argument(&self, name: Name, first: Option<&Literal>, second: &Literal) -> RuleError {
        let name = name.as_str();
        let calls: Vec<String> = first
            .into_iter()
            .chain([second])
            .map(|literal| format!("{name}(`{}`)", String::from_utf8_lossy(&literal.bytes)))
            .collect();
        RuleError::new(
            self.next.span.clone(),
            format!("`{name}` takes one argument"),
            format!("join several with `||`: {}", calls.join(" || ")),
        )
    }

    /// Takes the next word.
    fn advance(&mut self) -> Result<Token, RuleError> {
        let after = self.lexer.next()?;
        Ok(std::mem::replace(&mut self.next, after))
    }

    /// The error for a word where a matcher should begin.
    fn expected_matcher(&self) -> RuleError {
        let span = self.next.span.clone();
        let found = self.text.get(span.clone()).unwrap_or_default();
        let (message, help) = match &self.next.kind {
            Kind::End => (
                "the rule ends where a matcher should follow".to_owned(),
                Name::HostSni.example().to_owned(),
            ),
            Kind::Text(literal) => {
                let text = String::from_utf8_lossy(&literal.bytes).into_owned();
                (
                    "a text alone is no condition".to_owned(),
                    format!("name its matcher, as in HostSNI(`{text}`)"),
                )
            }
            _ => (
                format!("expected a matcher, found `{found}`"),
                Name::HostSni.example().to_owned(),
            ),
        };
        RuleError::new(span, message, help)
    }

    /// The error for a word behind a complete matcher or group.
    fn unexpected_after_matcher(&self) -> RuleError {
        let span = self.next.span.clone();
        let found = self.text.get(span.clone()).unwrap_or_default();
        let (message, help) = match found.to_ascii_lowercase().as_str() {
            "and" => (format!("`{found}` is no operator"), "write `&&`"),
            "or" => (format!("`{found}` is no operator"), "write `||`"),
            ")" => ("`)` closes nothing".to_owned(), "delete it"),
            "," => (
                "`,` joins no matchers".to_owned(),
                "write `||` for either, `&&` for both",
            ),
            _ => (
                format!("expected `&&`, `||` or the end of the rule, found `{found}`"),
                "write `||` for either, `&&` for both",
            ),
        };
        RuleError::new(span, message, help)
    }

    /// The error for a line that ends where Go ends the whole expression.
    fn broken_line(&self) -> RuleError {
        let line_end = match self.next.kind {
            Kind::LineEnd => self.next.span.clone(),
            _ => {
                let before = self.text.get(..self.next.span.start).unwrap_or_default();
                let at = before.rfind('\n').unwrap_or_default();
                at..at + 1
            }
        };
        let help =
            "break the line after `&&`, `||` or `(` instead, or write a `,` behind an argument";
        RuleError::new(
            line_end,
            "the rule ends with this line, as a Go expression does",
            help,
        )
    }

    /// The error for a rule that is just a host name, or else `error`.
    fn plain_host(&self, error: RuleError) -> RuleError {
        match HostPattern::parse(self.text.trim()) {
            Ok(pattern @ (HostPattern::Exact(_) | HostPattern::Wildcard(_)))
                if pattern.to_string().contains('.') =>
            {
                let help = format!("to match a host name, write HostSNI(`{pattern}`)");
                RuleError::new(0..self.text.len(), "a host name alone is no rule", help)
            }
            _ => error,
        }
    }
}

/// One expression for several, or the only one as it is.
fn joined(mut parts: Vec<Expr>, join: fn(Vec<Expr>) -> Expr) -> Expr {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        last => {
            parts.extend(last);
            join(parts)
        }
    }
}

/// What stands unquoted where an argument should be: the text up to the next `,` or `)`.
fn unquoted(rest: &str) -> Option<&str> {
    let bare = rest
        .split([',', ')', '\n'])
        .next()
        .unwrap_or_default()
        .trim();
    let quoted = bare.starts_with(['`', '"', '\'', '‘', '’', '“', '”', '´', '(', '/']);
    (!bare.is_empty() && !quoted).then_some(bare)
}
