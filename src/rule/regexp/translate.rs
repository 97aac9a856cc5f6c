//! The structure of Go's regular expressions: branches and repetitions, written anew in Rust's syntax.

use std::ops::Range;

use super::Fault;
use super::set::AsciiSet;

/// Rewrites a pattern of Go's in Rust's syntax. The faults are parts of it that can never match.
pub(super) fn translate(pattern: &str) -> Result<(Node, Vec<Fault>), Fault> {
    let mut parser = Parser {
        pattern,
        at: 0,
        faults: Vec::new(),
    };
    let mut node = parser.alternation(Flags::default(), 0)?;
    if parser.peek() == Some(b')') {
        return Err(parser.fault(
            parser.at..parser.at + 1,
            "`)` closes no group",
            r"write `\)` for a literal one",
        ));
    }
    parser.faults.extend(node.dead.take());
    Ok((node, parser.faults))
}

/// Groups within groups. Go allows 1,000, a person needs five.
pub(super) const MOST_NESTED: usize = 100;

/// The most that Go lets one repetition, or the product of nested ones, ask for.
const MOST_REPEATED: u32 = 1000;

/// The flags of Go that change what a pattern matches. (`U` changes only how much a match takes.)
#[derive(Clone, Copy, Default)]
pub(super) struct Flags {
    pub(super) fold: bool,
    pub(super) multi_line: bool,
    pub(super) dot_all: bool,
}

/// A translated part of a pattern.
pub(super) struct Node {
    pub(super) text: String,
    /// Why it can never match a host name, if it cannot.
    dead: Option<Fault>,
    /// The product of the repetition counts along its deepest nesting.
    repeats: u32,
    /// About how many ranges of characters it compiles to.
    pub(super) size: usize,
}

impl Node {
    fn anchor(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            dead: None,
            repeats: 1,
            size: 1,
        }
    }
}

/// A pattern that is being read.
pub(super) struct Parser<'a> {
    pub(super) pattern: &'a str,
    pub(super) at: usize,
    faults: Vec<Fault>,
}

impl<'a> Parser<'a> {
    /// Branches up to the end or a `)`, which is left standing.
    pub(super) fn alternation(&mut self, mut flags: Flags, depth: usize) -> Result<Node, Fault> {
        let start = self.at;
        if depth > MOST_NESTED {
            let message = format!("groups are nested more than {MOST_NESTED} deep");
            return Err(self.fault(
                start..start + 1,
                message,
                "write a flatter regular expression",
            ));
        }
        let mut branches = Vec::new();
        loop {
            // A flag that is set within one branch holds in those after it, as in Go.
            branches.push(self.branch(&mut flags, depth)?);
            if !self.take("|") {
                break;
            }
        }
        let size = sum(&branches).saturating_add(branches.len());
        let repeats = branches.iter().map(|node| node.repeats).max().unwrap_or(1);
        let text = branches
            .iter()
            .map(|node| node.text.as_str())
            .collect::<Vec<_>>()
            .join("|");
        let all_dead = branches.iter().all(|node| node.dead.is_some());
        let mut dead = branches.into_iter().filter_map(|node| node.dead);
        let dead = if all_dead {
            dead.next()
        } else {
            self.faults.extend(dead);
            None
        };
        Ok(Node {
            text,
            dead,
            repeats,
            size,
        })
    }

    /// Items one after the other, up to the end, a `|` or a `)`.
    fn branch(&mut self, flags: &mut Flags, depth: usize) -> Result<Node, Fault> {
        let mut items: Vec<Node> = Vec::new();
        // Whether the last thing read was a repetition: Go refuses another one right behind it.
        let mut repeated = false;
        while let Some(byte) = self.peek() {
            let start = self.at;
            match byte {
                b'|' | b')' => break,
                b'*' | b'+' | b'?' => {
                    self.at += 1;
                    let (least, most) = match byte {
                        b'*' => (0, None),
                        b'+' => (1, None),
                        _ => (0, Some(1)),
                    };
                    self.repeat(items.last_mut(), start, least, most, false, repeated)?;
                    repeated = true;
                    continue;
                }
                b'{' => match self.counts()? {
                    Some((least, most)) => {
                        self.repeat(items.last_mut(), start, least, most, true, repeated)?;
                        repeated = true;
                        continue;
                    }
                    None => {
                        self.at += 1;
                        items.push(self.literal(start, u32::from(b'{'), *flags));
                    }
                },
                b'(' => items.extend(self.group(flags, depth)?),
                b'[' => {
                    let set = self.class(flags.fold)?;
                    items.push(self.set(start, set));
                }
                b'\\' if self.take(r"\Q") => self.quotation(&mut items, *flags),
                b'\\' => items.push(self.escaped(*flags)?),
                _ => {
                    self.at += 1;
                    items.push(match byte {
                        b'^' if flags.multi_line => Node::anchor("(?m:^)"),
                        b'^' => Node::anchor(r"\A"),
                        b'$' if flags.multi_line => Node::anchor("(?m:$)"),
                        b'$' => Node::anchor(r"\z"),
                        b'.' if flags.dot_all => self.set(start, AsciiSet::ALL),
                        b'.' => self.set(start, AsciiSet::range(10, 10, false).complement()),
                        _ => self.literal(start, u32::from(byte), *flags),
                    });
                }
            }
            repeated = false;
        }
        let text = items.iter().map(|node| node.text.as_str()).collect();
        let size = sum(&items);
        let repeats = items.iter().map(|node| node.repeats).max().unwrap_or(1);
        let dead = items.into_iter().find_map(|node| node.dead);
        Ok(Node {
            text,
            dead,
            repeats,
            size,
        })
    }

    /// Applies a repetition, which begins at `start` and is taken but for a `?` behind it, to the item before it.
    fn repeat(
        &mut self,
        item: Option<&mut Node>,
        start: usize,
        least: u32,
        most: Option<u32>,
        counted: bool,
        again: bool,
    ) -> Result<(), Fault> {
        self.take("?"); // How much a repetition prefers to take does not change whether it matches.
        let span = start..self.at;
        let written = self.written(&span);
        if again {
            let message = format!("the repetition `{written}` follows another one");
            return Err(self.fault(span, message, "Go has neither possessive nor doubled repetitions: put the first in a group, as in (?:a*)*"));
        }
        let Some(item) = item else {
            let message = format!("there is nothing that `{written}` could repeat");
            return Err(self.fault(
                span,
                message,
                r"write a backslash before it for the literal character",
            ));
        };
        if counted {
            let factor = most.unwrap_or(least);
            if most == Some(0) {
                // Nothing is left of it, and Go does not count what was repeated in it.
                *item = Node::anchor("");
            }
            item.size = item.size.saturating_mul(factor.max(1) as usize);
            item.repeats = item.repeats.saturating_mul(factor.max(1));
            let too_many = [Some(least), most]
                .into_iter()
                .flatten()
                .any(|count| count > MOST_REPEATED);
            if too_many || item.repeats > MOST_REPEATED && factor.max(least) >= 2 {
                let message = format!("`{written}` asks for more than {MOST_REPEATED} repetitions");
                return Err(self.fault(
                    span,
                    message,
                    "Go allows 1000, nested repetitions multiplied: use * or +",
                ));
            }
        }
        if least == 0 {
            item.dead = None;
        }
        let counts = match (least, most) {
            (0, None) => "*".to_owned(),
            (least, None) => format!("{{{least},}}"),
            (least, Some(most)) => format!("{{{least},{most}}}"),
        };
        item.text = format!("(?:{}){counts}", item.text);
        Ok(())
    }

    /// `{2}`, `{2,}` or `{2,3}`; anything else is a literal `{` and left standing.
    fn counts(&mut self) -> Result<Option<(u32, Option<u32>)>, Fault> {
        let start = self.at;
        let rest = self.rest();
        let Some((inner, _)) = rest.get(1..).and_then(|rest| rest.split_once('}')) else {
            return Ok(None);
        };
        let (least, most) = match inner.split_once(',') {
            None => (count(inner), Some(count(inner))),
            Some((least, "")) => (count(least), None),
            Some((least, most)) => (count(least), Some(count(most))),
        };
        let (Some(least), Ok(most)) = (least, most.map(|most| most.ok_or(())).transpose()) else {
            return Ok(None);
        };
        self.at += inner.len() + 2;
        if most.is_some_and(|most| most < least) && least <= MOST_REPEATED {
            let message = format!(
                "`{}` asks for at least {least} and at most fewer",
                self.written(&(start..self.at))
            );
            return Err(self.fault(start..self.at, message, "write the smaller number first"));
        }
        Ok(Some((least, most)))
    }

    /// The literal text between `\Q`, which is taken, and `\E` or the end.
    fn quotation(&mut self, items: &mut Vec<Node>, flags: Flags) {
        while let Some(byte) = self.peek() {
            if self.take(r"\E") {
                return;
            }
            self.at += 1;
            items.push(self.literal(self.at - 1, u32::from(byte), flags));
        }
    }

    /// An escape outside of a class.
    fn escaped(&mut self, flags: Flags) -> Result<Node, Fault> {
        let start = self.at;
        for (escape, anchor) in [
            (r"\A", r"\A"),
            (r"\z", r"\z"),
            (r"\b", r"\b"),
            (r"\B", r"\B"),
        ] {
            if self.take(escape) {
                return Ok(Node::anchor(anchor));
            }
        }
        if let Some(set) = self.class_escape(flags.fold)? {
            return Ok(self.set(start, set));
        }
        let code = self.character_escape()?;
        Ok(self.literal(start, code, flags))
    }

    fn literal(&self, start: usize, code: u32, flags: Flags) -> Node {
        self.set(start, AsciiSet::range(code, code, flags.fold))
    }

    /// The node for one character out of a set; it was read from `start` to here.
    fn set(&self, start: usize, set: AsciiSet) -> Node {
        let mut text = String::new();
        set.write_to(&mut text);
        let dead = (set.and(AsciiSet::IN_NAMES) == AsciiSet::EMPTY).then(|| {
            let span = start..self.at;
            let message = format!(
                "`{}` matches no character of a host name",
                self.written(&span)
            );
            let help = match set.folded().and(AsciiSet::IN_NAMES) == AsciiSet::EMPTY {
                true => {
                    "names are tested as ASCII letters, digits, `-`, `_` and dots, without a port"
                }
                false => "names are tested in lower case: write it so, or put (?i) in front",
            };
            Fault {
                span,
                message,
                help,
            }
        });
        Node {
            text,
            dead,
            repeats: 1,
            size: set.ranges(),
        }
    }

    pub(super) fn fault(
        &self,
        span: Range<usize>,
        message: impl Into<String>,
        help: &'static str,
    ) -> Fault {
        let end = span.end.min(self.pattern.len());
        Fault {
            span: span.start.min(end)..end,
            message: message.into(),
            help,
        }
    }

    pub(super) fn written(&self, span: &Range<usize>) -> &'a str {
        self.pattern.get(span.clone()).unwrap_or_default()
    }

    pub(super) fn rest(&self) -> &'a str {
        self.pattern.get(self.at..).unwrap_or_default()
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.pattern.as_bytes().get(self.at).copied()
    }

    pub(super) fn take(&mut self, prefix: &str) -> bool {
        let there = self.rest().starts_with(prefix);
        if there {
            self.at += prefix.len();
        }
        there
    }
}

/// The sizes of all of them together.
fn sum(nodes: &[Node]) -> usize {
    nodes
        .iter()
        .fold(0, |sum, node| sum.saturating_add(node.size))
}

/// A repetition count: decimal digits without leading zeros, as Go wants them; `None` if it is none.
fn count(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let leading_zero = text.len() > 1 && text.starts_with('0');
    (digits && !leading_zero).then(|| text.parse().unwrap_or(u32::MAX))
}
