//! Sets of ASCII characters: what a character class of Go's regular expressions leaves of a host name.

use std::fmt::Write;

/// A set of ASCII characters. A host name holds no others, so nothing is lost by forgetting the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AsciiSet(u128);

impl AsciiSet {
    pub(super) const EMPTY: Self = Self(0);
    pub(super) const ALL: Self = Self(u128::MAX);
    /// What a host name in its normal form is made of.
    pub(super) const IN_NAMES: Self = Self::of(b"abcdefghijklmnopqrstuvwxyz0123456789._-");

    const UPPER: Self = Self::span(b'A', b'Z');
    const LOWER: Self = Self::span(b'a', b'z');
    const LETTERS: Self = Self::UPPER.or(Self::LOWER);
    const DIGITS: Self = Self::span(b'0', b'9');
    const WORD: Self = Self::LETTERS.or(Self::DIGITS).or(Self::of(b"_"));
    const CONTROL: Self = Self::span(0, 0x1f).or(Self::of(b"\x7f"));
    const PUNCTUATION: Self = Self::of(b"!\"#%&'()*,-./:;?@[\\]_{}");
    const SYMBOLS: Self = Self::of(b"$+<=>^`|~");

    const fn span(first: u8, last: u8) -> Self {
        Self((u128::MAX >> (127 - last)) & (u128::MAX << first))
    }

    const fn of(bytes: &[u8]) -> Self {
        let mut set = 0;
        let mut rest = bytes;
        while let [byte, tail @ ..] = rest {
            set |= 1 << *byte;
            rest = tail;
        }
        Self(set)
    }

    /// The characters from `first` to `last`, any of Unicode; in both cases if `fold`.
    pub(super) fn range(first: u32, last: u32, fold: bool) -> Self {
        let mut set = Self::EMPTY;
        if let Ok(first) = u8::try_from(first)
            && first < 128
        {
            set = Self::span(first, last.min(127) as u8);
        }
        if fold {
            // The long s and the Kelvin sign are the only two characters beyond ASCII that fold into it.
            for (folds, letter) in [(0x17f, b"s"), (0x212a, b"k")] {
                if (first..=last).contains(&folds) {
                    set = set.or(Self::of(letter));
                }
            }
            set = set.folded();
        }
        set
    }

    /// `\d`, `\s` or `\w`, by its letter. Go's `\s` holds no vertical tab.
    pub(super) fn perl(letter: u8) -> Option<Self> {
        match letter {
            b'd' => Some(Self::DIGITS),
            b's' => Some(Self::of(b"\t\n\x0c\r ")),
            b'w' => Some(Self::WORD),
            _ => None,
        }
    }

    /// `[:NAME:]`, by its name.
    pub(super) fn posix(name: &str) -> Option<Self> {
        Some(match name {
            "alnum" => Self::LETTERS.or(Self::DIGITS),
            "alpha" => Self::LETTERS,
            "ascii" => Self::ALL,
            "blank" => Self::of(b"\t "),
            "cntrl" => Self::CONTROL,
            "digit" => Self::DIGITS,
            "graph" => Self::span(b'!', b'~'),
            "lower" => Self::LOWER,
            "print" => Self::span(b' ', b'~'),
            "punct" => Self::PUNCTUATION.or(Self::SYMBOLS),
            "space" => Self::of(b"\t\n\x0b\x0c\r "),
            "upper" => Self::UPPER,
            "word" => Self::WORD,
            "xdigit" => Self::DIGITS.or(Self::of(b"abcdefABCDEF")),
            _ => return None,
        })
    }

    /// `\p{NAME}`, by its name: Unicode's general categories, and the two scripts that ASCII has.
    ///
    /// Names are compared as Go does since 1.25: in any case, without `_`, `-` and spaces.
    pub(super) fn property(name: &str) -> Option<Self> {
        let name: String = name
            .chars()
            .filter(|c| !matches!(c, '_' | '-' | ' '))
            .map(|c| c.to_ascii_lowercase())
            .collect();
        Some(match name.as_str() {
            "any" | "ascii" | "assigned" => Self::ALL,
            "l" | "letter" | "lc" | "casedletter" | "latin" => Self::LETTERS,
            "lu" | "uppercaseletter" => Self::UPPER,
            "ll" | "lowercaseletter" => Self::LOWER,
            "n" | "number" | "nd" | "decimalnumber" | "digit" => Self::DIGITS,
            "p" | "punctuation" | "punct" => Self::PUNCTUATION,
            "pc" | "connectorpunctuation" => Self::of(b"_"),
            "pd" | "dashpunctuation" => Self::of(b"-"),
            "ps" | "openpunctuation" => Self::of(b"([{"),
            "pe" | "closepunctuation" => Self::of(b")]}"),
            "po" | "otherpunctuation" => Self::of(b"!\"#%&'*,./:;?@\\"),
            "s" | "symbol" => Self::SYMBOLS,
            "sm" | "mathsymbol" => Self::of(b"+<=>|~"),
            "sc" | "currencysymbol" => Self::of(b"$"),
            "sk" | "modifiersymbol" => Self::of(b"^`"),
            "z" | "separator" | "zs" | "spaceseparator" => Self::of(b" "),
            "c" | "other" | "cc" | "control" | "cntrl" => Self::CONTROL,
            "common" => Self::LETTERS.complement(),
            // Categories that hold no ASCII character.
            "lt" | "titlecaseletter" | "lm" | "modifierletter" | "lo" | "otherletter" | "m"
            | "mark" | "combiningmark" | "mn" | "nonspacingmark" | "mc" | "spacingmark" | "me"
            | "enclosingmark" | "nl" | "letternumber" | "no" | "othernumber" | "pi"
            | "initialpunctuation" | "pf" | "finalpunctuation" | "so" | "othersymbol" | "zl"
            | "lineseparator" | "zp" | "paragraphseparator" | "cf" | "format" | "cs"
            | "surrogate" | "co" | "privateuse" | "cn" | "unassigned" => Self::EMPTY,
            _ => return None,
        })
    }

    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) const fn complement(self) -> Self {
        Self(!self.0)
    }

    /// How many ranges it is written with; at least one.
    pub(super) fn ranges(self) -> usize {
        (self.0 & !(self.0 << 1)).count_ones().max(1) as usize
    }

    /// Each letter of the set in both cases.
    pub(super) fn folded(self) -> Self {
        let upper = self.0 & Self::UPPER.0;
        let lower = self.0 & Self::LOWER.0;
        Self(self.0 | upper << 32 | lower >> 32)
    }

    /// The set as a class of the `regex` crate, with every character in hexadecimal.
    pub(super) fn write_to(self, out: &mut String) {
        if self == Self::EMPTY {
            out.push_str(r"[^\x00-\xFF]");
            return;
        }
        if self.0.is_power_of_two() {
            // Writing to a string cannot fail.
            let _ = write!(out, r"\x{:02X}", self.0.trailing_zeros());
            return;
        }
        out.push('[');
        let mut next = 0_u8;
        while next < 128 {
            let first = next;
            while next < 128 && self.0 >> next & 1 == 1 {
                next += 1;
            }
            if next > first {
                let _ = write!(out, r"\x{first:02X}-\x{:02X}", next - 1);
            } else {
                next += 1;
            }
        }
        out.push(']');
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn folding_adds_the_other_case_and_nothing_else() {
        assert_eq!(AsciiSet::of(b"aZ-").folded(), AsciiSet::of(b"aAzZ-"));
        assert_eq!(AsciiSet::WORD.folded(), AsciiSet::WORD);
        assert_eq!(AsciiSet::range(0x212a, 0x212a, true), AsciiSet::of(b"kK"));
        assert_eq!(AsciiSet::range(0x212a, 0x212a, false), AsciiSet::EMPTY);
        assert_eq!(AsciiSet::range(0, 0x10_ffff, false), AsciiSet::ALL);
    }

    #[test]
    fn a_written_class_holds_what_the_set_holds() {
        for set in [
            AsciiSet::EMPTY,
            AsciiSet::ALL,
            AsciiSet::WORD,
            AsciiSet::CONTROL,
            AsciiSet::of(b"]^-\\"),
            AsciiSet::of(b"^"),
            AsciiSet::of(b"\x7f"),
        ] {
            let mut class = String::new();
            set.write_to(&mut class);
            let regex = regex::bytes::RegexBuilder::new(&class)
                .unicode(false)
                .build()
                .unwrap();
            for byte in 0..128_u8 {
                assert_eq!(
                    regex.is_match(&[byte]),
                    set.0 >> byte & 1 == 1,
                    "{class} and {byte}"
                );
            }
        }
    }

    #[test]
    fn every_ascii_character_is_in_exactly_one_general_category() {
        let categories =
            ["L", "N", "P", "S", "Z", "C"].map(|name| AsciiSet::property(name).unwrap());
        for byte in 0..128_u8 {
            let count = categories
                .iter()
                .filter(|set| set.0 >> byte & 1 == 1)
                .count();
            assert_eq!(count, 1, "{byte}");
        }
    }
}
