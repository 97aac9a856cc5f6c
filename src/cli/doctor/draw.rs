//! A step as a person sees it: one line, or as many as a terminal needs, with its hint below.

use std::time::Duration;

use crate::log::printable;
use crate::status::step::{Finding, Step};

/// Where the text of a step begins.
const TEXT: usize = 25;

/// Where a hint begins.
const HINT: usize = 5;

/// Narrower terminals get lines that they break themselves.
const NARROWEST: usize = 60;

/// The most that is told of a step, in bytes: a stranger may have said it.
const MOST: usize = 2048;

/// How steps are shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drawing {
    /// In columns; none where lines are as long as they are.
    pub(super) width: Option<usize>,
    pub(super) colour: bool,
}

/// The width of the terminal that stdout is; none where it is no terminal.
#[cfg(unix)]
pub(super) fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    let width = usize::from(size.ws_col);
    (width >= NARROWEST).then_some(width)
}

#[cfg(not(unix))]
pub(super) fn width() -> Option<usize> {
    None
}

impl Drawing {
    /// The step's lines.
    pub(super) fn step(&self, step: &Step) -> String {
        let (word, colour) = match step.state {
            Finding::Ok => ("ok", "32"),
            Finding::Warn => ("warn", "33"),
            Finding::Fail => ("fail", "31"),
            Finding::Unknown => ("?", "36"),
        };
        let mut text = printable(&step.detail, MOST);
        if let Some(took) = step.took {
            text.push_str(&format!(" ({})", time(took)));
        }
        let word = match self.colour {
            true => format!("\x1b[{colour}m{word:<5}\x1b[0m"),
            false => format!("{word:<5}"),
        };
        let width = TEXT - HINT;
        let mut lines = format!("{word}{:<width$}", step.step);
        self.write(&mut lines, &text, TEXT);
        if let Some(hint) = &step.hint {
            lines.push_str(&" ".repeat(HINT));
            self.write(
                &mut lines,
                &format!("hint: {}", printable(hint, MOST)),
                HINT + 6,
            );
        }
        lines
    }

    /// Writes a text whose first line begins where the line is, the others at the column `indent`.
    fn write(&self, lines: &mut String, text: &str, indent: usize) {
        let begun = lines.lines().last().unwrap_or_default();
        // Colours take no column.
        let mut column = match begun.contains('\x1b') {
            true => TEXT,
            false => begun.chars().count(),
        };
        let mut is_first = true;
        for word in text.split(' ') {
            let length = word.chars().count();
            let is_full = |width: usize| column + 1 + length > width;
            if !is_first && self.width.is_some_and(is_full) {
                lines.push('\n');
                lines.push_str(&" ".repeat(indent));
                column = indent;
            } else if !is_first {
                lines.push(' ');
                column += 1;
            }
            lines.push_str(word);
            column += length;
            is_first = false;
        }
        lines.push('\n');
    }
}

/// `340 us`, `12 ms`, `1.2 s`.
fn time(took: Duration) -> String {
    match took.as_micros() {
        micros @ 0..1000 => format!("{micros} us"),
        micros @ 1000..1_000_000 => format!("{} ms", micros / 1000),
        _ => format!("{:.1} s", took.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(width: Option<usize>, step: &Step) -> String {
        let colour = false;
        Drawing { width, colour }.step(step)
    }

    #[test]
    fn a_step_is_one_line_with_its_time_and_no_byte_of_a_stranger_commands_the_terminal() {
        let step = Step::ok("first bytes", "a\x1b[2J\nb").took(Duration::from_millis(12));
        assert_eq!(
            draw(None, &step),
            "ok   first bytes         a\\u{1b}[2J\\nb (12 ms)\n"
        );
    }

    #[test]
    fn a_terminal_s_lines_are_broken_between_words_and_none_is_wider() {
        let hint = "one two three ".repeat(20);
        let step = Step::fail("TLS", "some words ".repeat(20), hint.as_str());
        let drawn = draw(Some(80), &step);
        assert!(drawn.lines().count() > 5, "{drawn}");
        assert!(drawn.lines().all(|line| line.len() <= 80), "{drawn}");
        assert_eq!(draw(None, &step).lines().count(), 2);
        assert!(drawn.contains("\n     hint: one"), "{drawn}");
    }

    #[test]
    fn a_time_is_told_in_the_unit_that_fits_it() {
        for (micros, says) in [(340, "340 us"), (12_400, "12 ms"), (1_240_000, "1.2 s")] {
            assert_eq!(time(Duration::from_micros(micros)), says);
        }
    }
}
