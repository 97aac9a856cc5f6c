//! What is said of a command line that cannot be understood: what is wrong with it, and what to do, as of every failure.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::{Error, ErrorKind};

use super::connect::fail;
use super::stdout;
use crate::client::exit::Exit;
use crate::client::report::Report;

/// As many characters of a word are told: names have up to 63 in a label, and paths often more.
const MOST_OF_A_WORD: usize = 128;

/// Tells of it, and gives the exit code. What was asked for, such as a help, is no mistake and is printed.
pub(super) fn tell(error: &Error, words: &[OsString]) -> ExitCode {
    let is_told = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if is_told || !error.use_stderr() {
        let code = u8::try_from(error.exit_code()).unwrap_or(Exit::Usage.code());
        let shown = error.print().and_then(|()| io::stdout().flush());
        return stdout::end(stdout::heard(shown), code);
    }
    let mut words = words.iter().skip(1).filter_map(|word| word.to_str());
    let command = words.next().filter(|word| !word.starts_with('-'));
    let report = report(&error.to_string(), command.unwrap_or_default());
    let mut flags = words.take_while(|word| *word != "--");
    let has_reports = matches!(command, Some("connect" | "doctor"));
    end(&report, has_reports && flags.any(|flag| flag == "--json"))
}

/// Tells of a failure on stderr, as one object of JSON if that is asked for, and gives its exit code.
pub(super) fn end(report: &Report, json: bool) -> ExitCode {
    match json {
        true => fail(report.exit.code(), &report.json()),
        false => fail(report.exit.code(), &report.to_string()),
    }
}

/// Of clap's paragraphs the first one says what is wrong, and others may have a tip. How the command is used is on no line,
/// and its help is named.
fn report(text: &str, command: &str) -> Report {
    let mut paragraphs = text.split("\n\n").map(|paragraph| {
        let lines: Vec<_> = paragraph.lines().map(str::trim).collect();
        lines.join(" ")
    });
    let first = paragraphs.next().unwrap_or_default();
    let message = first.strip_prefix("error: ").unwrap_or(&first);
    let words: Vec<_> = message.split(' ').map(shortened).collect();
    let message = words.join(" ");
    let tip = paragraphs.find_map(|paragraph| Some(paragraph.strip_prefix("tip: ")?.to_owned()));
    let help = match command {
        "" => "portcullis --help".to_owned(),
        command => format!("portcullis {command} --help"),
    };
    let hint = match tip {
        Some(tip) => format!("{tip}; see {help}"),
        None => format!("see {help}"),
    };
    Report::new(Exit::Usage, message, hint)
}

/// A word as it is known again: of a name that is far too long nobody reads all.
fn shortened(word: &str) -> String {
    match word.char_indices().nth(MOST_OF_A_WORD) {
        Some((end, _)) => format!("{}…", word.get(..end).unwrap_or_default()),
        None => word.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;

    use super::super::Cli;
    use super::*;

    #[track_caller]
    fn told(line: &str) -> String {
        let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
        report(&error.to_string(), "connect").to_string()
    }

    #[test]
    fn a_mistake_is_told_in_two_lines_and_a_tip_is_the_hint() {
        assert_eq!(
            told("portcullis connect"),
            "portcullis: the following required arguments were not provided: <HOST>\n\
             hint: see portcullis connect --help"
        );
        assert_eq!(
            told("portcullis connect vm:22"),
            "portcullis: invalid value 'vm:22' for '<HOST>': \"vm:22\" cannot hold ':': write the name without a port\n\
             hint: see portcullis connect --help"
        );
        let told = told("portcullis connect --gatway gate vm");
        assert!(
            told.contains("unexpected argument '--gatway'")
                && told.contains("hint: a similar argument exists: '--gateway'; see portcullis"),
            "{told}"
        );
        assert_eq!(told.lines().count(), 2);
    }
}
