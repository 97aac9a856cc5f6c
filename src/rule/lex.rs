//! The words of a rule: Go's tokens, as far as rules use them, with Go's string literals and line ends.

use std::iter::Peekable;
use std::ops::Range;
use std::str::CharIndices;

use super::RuleError;

/// One word of a rule, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) span: Range<usize>,
}

/// What a word is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// An identifier: the name of a matcher.
    Name,
    /// A string literal.
    Text(Literal),
    Open,
    Close,
    Comma,
    And,
    Or,
    Not,
    /// The end of a line after a name, a text or `)`: Go puts a semicolon there.
    LineEnd,
    /// The end of the rule.
    End,
}

/// The value of a string literal. Go's escapes can make any bytes, so it need not be UTF-8.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Literal {
    pub(super) bytes: Vec<u8>,
    /// For each byte, where in the rule the character or escape begins that made it.
    starts: Vec<usize>,
    /// Where the closing quote is.
    end: usize,
}

impl Literal {
    /// Where in the rule these bytes of the value are written.
    pub(super) fn span(&self, bytes: Range<usize>) -> Range<usize> {
        let place = |index: usize| self.starts.get(index).copied().unwrap_or(self.end);
        place(bytes.start)..place(bytes.end)
    }

    fn push(&mut self, c: char, at: usize) {
        let mut buffer = [0; 4];
        for byte in c.encode_utf8(&mut buffer).bytes() {
            self.push_byte(byte, at);
        }
    }

    fn push_byte(&mut self, byte: u8, at: usize) {
        self.bytes.push(byte);
        self.starts.push(at);
    }
}

/// Gives the words of a rule one after the other.
pub(super) struct Lexer<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
    /// Whether the last word was one after which Go ends a line.
    line_may_end: bool,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let mut chars = text.char_indices().peekable();
        // Go ignores a byte order mark where a file begins, and only there.
        chars.next_if(|&(_, c)| c == BYTE_ORDER_MARK);
        Self {
            text,
            chars,
            line_may_end: false,
        }
    }

    /// The next word; `End` again and again when there is none left.
    pub(super) fn next(&mut self) -> Result<Token, RuleError> {
        if let Some(span) = self.skip_blanks()? {
            self.line_may_end = false;
            return Ok(Token {
                kind: Kind::LineEnd,
                span,
            });
        }
        let Some((start, c)) = self.chars.next() else {
            let end = self.text.len();
            return Ok(Token {
                kind: Kind::End,
                span: end..end,
            });
        };
        let kind = match c {
            '(' => Kind::Open,
            ')' => Kind::Close,
            ',' => Kind::Comma,
            '&' if self.take('&') => Kind::And,
            '|' if self.take('|') => Kind::Or,
            '!' if self.peek() != Some('=') => Kind::Not,
            '`' => Kind::Text(self.raw_text(start)?),
            '"' => Kind::Text(self.quoted_text(start)?),
            c if c.is_alphabetic() || c == '_' => {
                while self
                    .chars
                    .next_if(|&(_, c)| c.is_alphanumeric() || c == '_')
                    .is_some()
                {}
                Kind::Name
            }
            c => return Err(self.stray(start, c)),
        };
        self.line_may_end = matches!(kind, Kind::Name | Kind::Text(_) | Kind::Close);
        Ok(Token {
            kind,
            span: start..self.place(),
        })
    }

    /// Skips white space and comments; gives the line end that Go would take for a semicolon.
    fn skip_blanks(&mut self) -> Result<Option<Range<usize>>, RuleError> {
        while let Some(&(start, c)) = self.chars.peek() {
            match c {
                ' ' | '\t' | '\r' => {
                    self.chars.next();
                }
                '\n' => {
                    self.chars.next();
                    if self.line_may_end {
                        return Ok(Some(start..start + 1));
                    }
                }
                '/' => {
                    self.chars.next();
                    let line_ended = self.comment(start)?;
                    if line_ended && self.line_may_end {
                        return Ok(Some(start..self.place()));
                    }
                }
                _ => break,
            }
        }
        Ok(None)
    }

    /// Skips a comment whose first `/` is taken; says whether it ended a line.
    fn comment(&mut self, start: usize) -> Result<bool, RuleError> {
        if self.take('/') {
            loop {
                match self.character()? {
                    None | Some((_, '\n')) => return Ok(true),
                    Some(_) => {}
                }
            }
        }
        if !self.take('*') {
            return Err(self.stray(start, '/'));
        }
        let mut line_ended = false;
        while let Some((_, c)) = self.character()? {
            line_ended |= c == '\n';
            if c == '*' && self.take('/') {
                return Ok(line_ended);
            }
        }
        Err(RuleError::new(
            start..start + 2,
            "the comment is not closed",
            "end it with */",
        ))
    }

    /// The rest of a text in backticks: as it stands, without carriage returns, as Go drops them.
    fn raw_text(&mut self, start: usize) -> Result<Literal, RuleError> {
        let mut literal = Literal::default();
        while let Some((at, c)) = self.character()? {
            match c {
                '`' => {
                    literal.end = at;
                    return Ok(literal);
                }
                '\r' => {}
                c => literal.push(c, at),
            }
        }
        Err(RuleError::new(
            start..start + 1,
            "the text in backticks is not closed",
            "end it with a backtick",
        ))
    }

    /// The rest of a text in double quotes, with Go's escapes.
    fn quoted_text(&mut self, start: usize) -> Result<Literal, RuleError> {
        let mut literal = Literal::default();
        while let Some((at, c)) = self.character()? {
            match c {
                '"' => {
                    literal.end = at;
                    return Ok(literal);
                }
                '\n' => break,
                '\\' => self.escape(at, &mut literal)?,
                c => literal.push(c, at),
            }
        }
        let help = "end it with a double quote on the same line";
        Err(RuleError::new(
            start..start + 1,
            "the text in double quotes is not closed",
            help,
        ))
    }

    /// Reads an escape whose backslash, at `at`, is taken.
    fn escape(&mut self, at: usize, literal: &mut Literal) -> Result<(), RuleError> {
        let code = match self.chars.next() {
            Some((_, 'a')) => 0x07,
            Some((_, 'b')) => 0x08,
            Some((_, 'f')) => 0x0c,
            Some((_, 'n')) => 0x0a,
            Some((_, 'r')) => 0x0d,
            Some((_, 't')) => 0x09,
            Some((_, 'v')) => 0x0b,
            Some((_, c @ ('\\' | '"'))) => u32::from(c),
            Some((_, 'x')) => return self.byte_escape(at, 16, 2, 0, literal),
            Some((_, c @ '0'..='7')) => {
                let first = c.to_digit(8).unwrap_or_default();
                return self.byte_escape(at, 8, 2, first, literal);
            }
            Some((_, 'u')) => self.digits(at, 16, 4, 0)?,
            Some((_, 'U')) => self.digits(at, 16, 8, 0)?,
            _ => {
                let message = "Go knows no such escape in double quotes";
                let help =
                    "write a backslash twice, or the text in backticks, where it needs no escape";
                return Err(RuleError::new(at..self.place(), message, help));
            }
        };
        let Some(c) = char::from_u32(code) else {
            let message = "the escape names no Unicode character";
            return Err(RuleError::new(
                at..self.place(),
                message,
                "write the text in backticks, as it is",
            ));
        };
        literal.push(c, at);
        Ok(())
    }

    /// Reads the rest of an escape that names one byte.
    fn byte_escape(
        &mut self,
        at: usize,
        radix: u32,
        count: u32,
        first: u32,
        literal: &mut Literal,
    ) -> Result<(), RuleError> {
        let code = self.digits(at, radix, count, first)?;
        match u8::try_from(code) {
            Ok(byte) => literal.push_byte(byte, at),
            Err(_) => {
                let help = "an octal escape goes up to \\377";
                return Err(RuleError::new(
                    at..self.place(),
                    "the escape is larger than a byte",
                    help,
                ));
            }
        }
        Ok(())
    }

    /// Reads exactly `count` digits of the escape at `at` and puts them behind `first`.
    fn digits(&mut self, at: usize, radix: u32, count: u32, first: u32) -> Result<u32, RuleError> {
        let mut value = first;
        for _ in 0..count {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(radix)) else {
                let help = "Go's escapes are \\ooo, \\xhh, \\uhhhh and \\Uhhhhhhhh, with exactly that many digits";
                return Err(RuleError::new(
                    at..self.place(),
                    "the escape has too few digits",
                    help,
                ));
            };
            self.chars.next();
            value = value.saturating_mul(radix).saturating_add(digit);
        }
        Ok(value)
    }

    /// The next character of a text or comment, which can be any but two.
    fn character(&mut self) -> Result<Option<(usize, char)>, RuleError> {
        match self.chars.next() {
            Some((at, c @ ('\0' | BYTE_ORDER_MARK))) => Err(self.stray(at, c)),
            next => Ok(next),
        }
    }

    /// The error for a character that no word of a rule begins with.
    fn stray(&self, at: usize, c: char) -> RuleError {
        let rest = self.text.get(at..).unwrap_or_default();
        let operator: String = rest
            .chars()
            .take_while(|c| "=<>!&|^+-*/%.".contains(*c))
            .take(3)
            .collect();
        let width = if operator.len() > 1 && !"&|".contains(c) {
            operator.len()
        } else {
            c.len_utf8()
        };
        let span = at..at + width;
        let found = self.text.get(span.clone()).unwrap_or_default();
        let (message, help) = match c {
            '\'' => (
                "single quotes do not make a text here".to_owned(),
                "write it in backticks, as in HostSNI(`example.com`)",
            ),
            '‘' | '’' | '“' | '”' | '´' => (
                format!("{c} is not a quote here"),
                "write the text in backticks, as in HostSNI(`example.com`)",
            ),
            '&' => ("a single `&` is no operator".to_owned(), "write `&&`"),
            '|' => ("a single `|` is no operator".to_owned(), "write `||`"),
            '=' | '<' | '>' | '!' => (
                format!("`{found}` is no operator of rules"),
                "a rule calls matchers, as in HostSNI(`example.com`), and joins them with `&&`, `||` and `!`",
            ),
            ';' => (
                "a rule holds no semicolon".to_owned(),
                "join matchers with `&&` or `||`",
            ),
            '\0' | BYTE_ORDER_MARK => (format!("a rule cannot hold {c:?}"), "delete the character"),
            _ => (
                format!("unexpected {found:?}"),
                "a rule calls matchers, as in HostSNI(`example.com`), and joins them with `&&`, `||` and `!`",
            ),
        };
        RuleError::new(span, message, help)
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|&(_, c)| c)
    }

    /// Takes the next character if it is this one.
    fn take(&mut self, c: char) -> bool {
        self.chars.next_if(|&(_, next)| next == c).is_some()
    }

    /// Where the next character stands.
    fn place(&mut self) -> usize {
        self.chars.peek().map_or(self.text.len(), |&(at, _)| at)
    }
}

const BYTE_ORDER_MARK: char = '\u{feff}';
