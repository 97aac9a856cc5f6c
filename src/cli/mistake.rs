//! What is said of a command line that cannot be understood: what is wrong with it, and what to do, as of every failure.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::{Error, ErrorKind};

use super::connect::fail;
use super::stdout;
use crate::client::exit::Exit;
use crate::client::report::Report;

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
    match command == Some("connect") && flags.any(|flag| flag == "--json") {
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
