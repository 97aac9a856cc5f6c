//! The smallest parts of Go's regular expressions: classes in brackets and escapes.

use super::Fault;
use super::set::AsciiSet;
use super::translate::Parser;

impl Parser<'_> {
    /// A class in brackets, whose `[` is next.
    pub(super) fn class(&mut self, fold: bool) -> Result<AsciiSet, Fault> {
        let start = self.at;
        self.at += 1;
        let negated = self.take("^");
        let mut set = AsciiSet::EMPTY;
        let mut first = true;
        loop {
            let item = self.at;
            match self.peek() {
                None => {
                    return Err(self.fault(
                        start..start + 1,
                        "the class is not closed",
                        r"end it with `]`, or write `\[` for a literal one",
                    ));
                }
                Some(b']') if !first => break,
                _ => {}
            }
            first = false;
            if let Some(named) = self.named_class(fold)? {
                set = set.or(named);
                continue;
            }
            if let Some(escape) = self.class_escape(fold)? {
                set = set.or(escape);
                continue;
            }
            let low = self.class_character(start)?;
            let mut high = low;
            if self.peek() == Some(b'-') && !self.rest().starts_with("-]") && self.rest().len() > 1
            {
                self.at += 1;
                high = self.class_character(start)?;
            }
            if high < low {
                let message = format!(
                    "the range `{}` runs backwards",
                    self.written(&(item..self.at))
                );
                return Err(self.fault(
                    item..self.at,
                    message,
                    "write the smaller character first, or `-` last for a literal one",
                ));
            }
            set = set.or(AsciiSet::range(low, high, fold));
        }
        self.at += 1;
        Ok(if negated { set.complement() } else { set })
    }

    /// `[:alpha:]` or `[:^alpha:]`, within a class; without a `:]` to end it, the `[` is a literal.
    fn named_class(&mut self, fold: bool) -> Result<Option<AsciiSet>, Fault> {
        let start = self.at;
        let Some((name, _)) = self
            .rest()
            .strip_prefix("[:")
            .and_then(|rest| rest.split_once(":]"))
        else {
            return Ok(None);
        };
        let (negated, bare) = match name.strip_prefix('^') {
            Some(bare) => (true, bare),
            None => (false, name),
        };
        let span = start..start + name.len() + 4;
        let Some(set) = AsciiSet::posix(bare) else {
            let message = format!("there is no class `{}`", self.written(&span));
            return Err(self.fault(span, message, "as in [[:alpha:]]: alnum, alpha, ascii, blank, cntrl, digit, graph, lower, print, punct, space, upper, word, xdigit"));
        };
        self.at = span.end;
        Ok(Some(folded(set, fold, negated)))
    }

    /// `\d` and its like or `\pL` and its like, in a class or outside.
    pub(super) fn class_escape(&mut self, fold: bool) -> Result<Option<AsciiSet>, Fault> {
        let start = self.at;
        let Some(&[b'\\', letter]) = self.rest().as_bytes().first_chunk::<2>() else {
            return Ok(None);
        };
        if let Some(set) = AsciiSet::perl(letter.to_ascii_lowercase()) {
            self.at += 2;
            return Ok(Some(folded(set, fold, letter.is_ascii_uppercase())));
        }
        if !matches!(letter, b'p' | b'P') {
            return Ok(None);
        }
        self.at += 2;
        let name = if self.take("{") {
            let name = self.rest().split_once('}').map(|(name, _)| name);
            self.at += name.map_or(self.rest().len(), |name| name.len() + 1);
            name.map(|name| (name.starts_with('^'), name.trim_start_matches('^'), name))
        } else {
            let name = self.rest().get(..1);
            self.at += name.map_or(0, str::len);
            name.map(|name| (false, name, name))
        };
        let span = start..self.at;
        match name {
            Some((inverted, bare, whole)) if whole.len() - bare.len() <= 1 => {
                if let Some(set) = AsciiSet::property(bare) {
                    return Ok(Some(folded(set, fold, inverted != (letter == b'P'))));
                }
            }
            _ => {}
        }
        let message = format!("the class `{}` is not known here", self.written(&span));
        Err(self.fault(
            span,
            message,
            "a name is ASCII on the wire: write its letters, or a general category such as \\pL",
        ))
    }

    /// One character of a class.
    fn class_character(&mut self, class: usize) -> Result<u32, Fault> {
        match self.peek() {
            None => Err(self.fault(
                class..class + 1,
                "the class is not closed",
                r"end it with `]`, or write `\[` for a literal one",
            )),
            Some(b'\\') => self.character_escape(),
            Some(byte) => {
                self.at += 1;
                Ok(u32::from(byte))
            }
        }
    }

    /// An escape that means one character, whose backslash is next.
    pub(super) fn character_escape(&mut self) -> Result<u32, Fault> {
        let start = self.at;
        self.at += 1;
        let Some(byte) = self.peek() else {
            return Err(self.fault(
                start..start + 1,
                "the backslash escapes nothing",
                r"write `\\` for a literal one",
            ));
        };
        self.at += 1;
        let next_is_octal = matches!(self.peek(), Some(b'0'..=b'7'));
        let code = match byte {
            b'a' => Some(0x07),
            b'f' => Some(0x0c),
            b'n' => Some(0x0a),
            b'r' => Some(0x0d),
            b't' => Some(0x09),
            b'v' => Some(0x0b),
            b'x' => self.hexadecimal(),
            b'0' => Some(self.octal(byte)),
            b'1'..=b'7' if next_is_octal => Some(self.octal(byte)),
            byte if !byte.is_ascii_alphanumeric() => Some(u32::from(byte)),
            _ => None,
        };
        let span = start..self.at;
        code.ok_or_else(|| {
            let written = self.written(&span);
            let (message, help) = match byte {
                b'1'..=b'9' => (
                    format!("`{written}` refers to a group, which Go's regular expressions cannot"),
                    "write the group out again",
                ),
                b'x' => (
                    format!("`{written}` is no character"),
                    r"write \x and two hexadecimal digits, or \x{10FFFF}",
                ),
                b'Z' => (
                    format!("Go's regular expressions have no `{written}`"),
                    r"write \z or $ for the end of the name",
                ),
                b'C' => (
                    format!("Go's regular expressions have no `{written}`"),
                    "write . for any character",
                ),
                _ => (
                    format!("Go's regular expressions have no `{written}`"),
                    "escape punctuation only, and write letters and digits as they are",
                ),
            };
            self.fault(span, message, help)
        })
    }

    /// Up to three octal digits, of which the first is taken.
    fn octal(&mut self, first: u8) -> u32 {
        let mut code = u32::from(first - b'0');
        for _ in 0..2 {
            let Some(digit @ b'0'..=b'7') = self.peek() else {
                break;
            };
            code = code * 8 + u32::from(digit - b'0');
            self.at += 1;
        }
        code
    }

    /// What follows `\x`: two digits, or any number of them in braces.
    fn hexadecimal(&mut self) -> Option<u32> {
        let rest = self.rest();
        let (digits, width) = match rest.strip_prefix('{') {
            Some(braced) => braced
                .split_once('}')
                .map(|(digits, _)| (digits, digits.len() + 2))?,
            None => rest.get(..2).map(|digits| (digits, 2))?,
        };
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let significant = digits.trim_start_matches('0');
        let code = if significant.is_empty() {
            0
        } else {
            u32::from_str_radix(significant, 16).ok()?
        };
        self.at += width;
        (code <= u32::from(char::MAX)).then_some(code)
    }
}

/// A named set under the flags; Go folds it first and negates it then.
fn folded(set: AsciiSet, fold: bool, negated: bool) -> AsciiSet {
    let set = if fold { set.folded() } else { set };
    if negated { set.complement() } else { set }
}
