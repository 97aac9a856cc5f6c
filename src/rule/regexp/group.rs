//! The groups of Go's regular expressions, their names and their flags.

use super::Fault;
use super::translate::{Flags, Node, Parser};

impl Parser<'_> {
    /// A group, or flags that hold for the rest of the group they stand in.
    pub(super) fn group(&mut self, flags: &mut Flags, depth: usize) -> Result<Option<Node>, Fault> {
        let start = self.at;
        let mut inner = *flags;
        if self.take("(?P<") || self.take("(?<") {
            self.group_name(start)?;
        } else if self.take("(?") {
            inner = self.flags(start, *flags)?;
            if self.take(")") {
                *flags = inner;
                return Ok(None);
            }
            self.at += 1; // the `:` that ended the flags
        } else {
            self.at += 1;
        }
        let mut node = self.alternation(inner, depth + 1)?;
        if !self.take(")") {
            return Err(self.fault(
                start..start + 1,
                "the group is not closed",
                r"end it with `)`, or write `\(` for a literal one",
            ));
        }
        node.text = format!("(?:{})", node.text);
        Ok(Some(node))
    }

    /// The name of a group and its `>`.
    fn group_name(&mut self, start: usize) -> Result<(), Fault> {
        let opening = self.at;
        while self
            .peek()
            .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        {
            self.at += 1;
        }
        if self.at > opening && self.take(">") {
            return Ok(());
        }
        let end = (self.at + 1).min(self.pattern.len());
        match self.pattern.get(opening..opening + 1) {
            Some("=" | "!") => Err(self.fault(
                start..end,
                "Go's regular expressions cannot look behind",
                NO_LOOKING,
            )),
            _ => Err(self.fault(
                start..end,
                "the group's name is not one",
                "a name is made of letters, digits and `_` and ends with `>`",
            )),
        }
    }

    /// Flags behind `(?`, up to the `:` or `)`, which is left standing.
    fn flags(&mut self, start: usize, before: Flags) -> Result<Flags, Fault> {
        let mut flags = before;
        let mut on = true;
        let mut any = false;
        while let Some(byte) = self.peek() {
            match byte {
                b'i' => flags.fold = on,
                b'm' => flags.multi_line = on,
                b's' => flags.dot_all = on,
                b'U' => {}
                b'-' if on => on = false,
                b':' | b')' if on || any => return Ok(flags),
                _ => break,
            }
            any = byte != b'-';
            self.at += 1;
        }
        let end = (self.at + 1).min(self.pattern.len());
        let span = start..end;
        let written = self.written(&span);
        let (message, help) = match written.strip_prefix("(?") {
            Some("=" | "!") => (
                "Go's regular expressions cannot look ahead".to_owned(),
                NO_LOOKING,
            ),
            Some(">") => (
                "Go's regular expressions have no atomic groups".to_owned(),
                "write (?:…)",
            ),
            Some("#") => (
                "Go's regular expressions have no comments".to_owned(),
                "delete it",
            ),
            Some("P") => (
                "Go's regular expressions cannot refer to a group".to_owned(),
                "write the group out again",
            ),
            Some("" | "-") => ("the group is not closed".to_owned(), "end it with `)`"),
            _ => (
                format!("Go's regular expressions have no `{written}`"),
                "its flags are i, m, s and U, as in (?i) or (?i:…)",
            ),
        };
        Err(self.fault(span, message, help))
    }
}

/// What to do about lookaround.
const NO_LOOKING: &str = "join two rules: HostSNIRegexp(`…`) && !HostSNIRegexp(`…`)";
